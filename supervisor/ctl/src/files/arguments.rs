//! The commands about component files.

use std::path::PathBuf;

use clap::{Args, Subcommand};

const LINT: &str = "\
Examples:
  graphctl lint                           everything in /etc/graph.d
  graphctl lint web.toml                  one file for itself
  graphctl lint --strict graph.d other    two directories together, for a build
  graphctl lint --root image              the tree of another machine

Of a directory or several files it is also checked that no name is declared twice, that somebody
provides what is required, that no components wait for each other, that control groups are apart.
Exit codes: 0 no errors, 1 errors (with --strict also warnings, or no files), 2 usage.";

const EXPLAIN: &str = "\
Examples:
  graphctl explain Y0102                  what an unknown key is, with examples
  graphctl explain                        all codes";

const SCHEMA: &str = "\
Example:
  graphctl schema > /usr/share/graph/component.schema.json

Then name it in the first line of a component file, for editors with Taplo or Even Better TOML:
  #:schema /usr/share/graph/component.schema.json";

/// Commands that need no supervisor.
#[derive(Debug, Subcommand)]
pub enum FileCommand {
    /// Check component files without a supervisor
    #[command(after_help = LINT)]
    Lint(Lint),
    /// Explain the code of a finding in component files
    #[command(after_help = EXPLAIN)]
    Explain {
        /// For example Y0102; without one all are listed
        code: Option<String>,
    },
    /// Print the JSON Schema of component files, for editors
    #[command(after_help = SCHEMA)]
    Schema,
}

/// What to check, and how.
#[derive(Debug, Args)]
pub struct Lint {
    /// Warnings count as errors
    #[arg(long)]
    pub strict: bool,
    /// Look for programs, and for /etc/graph.d, below this directory
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Files and directories [default: /etc/graph.d]
    #[arg(value_name = "FILE|DIR")]
    pub paths: Vec<PathBuf>,
}
