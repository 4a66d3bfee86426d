//! What concerns component files and needs no supervisor: checking them, explaining what was
//! found, and the schema for editors.

pub mod arguments;
mod explain;
mod lint;
mod programs;

use std::process::ExitCode;

use yakiros_core::component::schema::schema;

use crate::Failure;
use crate::output::Output;
use arguments::FileCommand;

/// Carry out a command.
pub fn run(command: &FileCommand, output: &Output) -> Result<ExitCode, Failure> {
    match command {
        FileCommand::Lint(options) => lint::run(options, output),
        FileCommand::Explain { code } => explain::run(code.as_deref(), output),
        FileCommand::Schema => {
            let text = serde_json::to_string_pretty(&schema());
            Output::text(&format!("{}\n", text.map_err(|error| Failure::Broken(error.to_string()))?));
            Ok(ExitCode::SUCCESS)
        }
    }
}
