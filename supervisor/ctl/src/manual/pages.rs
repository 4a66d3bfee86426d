//! Manual pages: one for `graphctl`, one for each command.

use std::io;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use serde_json::json;
use yakiros_core::control::VERSION;

use crate::Failure;
use crate::output::Output;

/// Said of a command that does not say it better itself.
const EXIT_STATUS: &str = "0 done, 1 refused or failed, 2 usage, 3 no supervisor.";

/// What introduces it in a help text.
const EXIT_CODES: &str = "Exit codes: ";

/// Where the pages go.
pub enum Target<'a> {
    /// All of them into a directory, as `NAME.1`.
    Directory(&'a Path),
    /// The one of `graphctl` to standard output.
    Output,
}

/// Write the manual pages of `command`.
pub fn pages(mut command: Command, target: &Target<'_>, output: &Output) -> Result<(), Failure> {
    command = command.disable_help_subcommand(true);
    command.build();
    match target {
        Target::Output => {
            let page = page(&command).map_err(|error| Failure::Broken(error.to_string()))?;
            let text = String::from_utf8_lossy(&page.1).into_owned();
            if output.is_json() {
                Output::value(&json!({"version": VERSION, "page": text}));
            } else {
                Output::raw(&text);
            }
        }
        Target::Directory(directory) => {
            let mut written = Vec::new();
            write(&command, directory, &mut written).map_err(|error| {
                Failure::Broken(format!("failed to write manual pages to {}: {error}", directory.display()))
            })?;
            if output.is_json() {
                Output::value(&json!({"version": VERSION, "files": written}));
            } else {
                for file in &written {
                    Output::text(&format!("{}\n", file.display()));
                }
            }
        }
    }
    Ok(())
}

fn write(command: &Command, directory: &Path, written: &mut Vec<PathBuf>) -> io::Result<()> {
    let (name, page) = page(command)?;
    let path = directory.join(name);
    std::fs::write(&path, page)?;
    written.push(path);
    let mut below = command.get_subcommands().filter(|below| !below.is_hide_set());
    below.try_for_each(|below| write(below, directory, written))
}

/// The file name of a command's page, and the page.
fn page(command: &Command) -> io::Result<(String, Vec<u8>)> {
    let man =
        Man::new(command.clone()).source(concat!("graphctl ", env!("CARGO_PKG_VERSION"))).manual("YakirOS");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.get_subcommands().any(|below| !below.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    rest(&help).to_writer(&mut page)?;
    Ok((man.get_filename(), page))
}

/// The sections that are made of what a command's help ends with.
fn rest(help: &str) -> Roff {
    let mut roff = Roff::new();
    let mut status = EXIT_STATUS;
    let mut notes = Vec::new();
    let mut examples = Vec::new();
    for line in help.lines() {
        if let Some(text) = line.strip_prefix(EXIT_CODES) {
            status = text;
        } else if let Some(example) = line.strip_prefix("  ") {
            examples.push(example);
        } else if !line.is_empty() && !line.starts_with("Example") {
            notes.push(line);
        }
    }
    if !notes.is_empty() {
        roff.control("SH", ["NOTES"]);
        roff.text([roman(notes.join(" "))]);
    }
    roff.control("SH", ["EXIT STATUS"]);
    roff.text([roman(status)]);
    if !examples.is_empty() {
        roff.control("SH", ["EXAMPLES"]);
        roff.control("nf", []);
        for example in examples {
            roff.text([roman(example)]);
        }
        roff.control("fi", []);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman("graphctl(1)")]);
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_with_its_exit_status_and_examples() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let mut command = crate::manual::command().disable_help_subcommand(true);
        command.build();
        let mut written = Vec::new();
        write(&command, directory.path(), &mut written).expect("written");
        assert!(written.len() > 25, "{written:?}");
        for name in ["graphctl.1", "graphctl-status.1", "graphctl-simulate-remove.1"] {
            assert!(written.contains(&directory.path().join(name)), "{name} is not in {written:?}");
        }
        for path in &written {
            let text = std::fs::read_to_string(path).expect("a page");
            for part in [".TH", ".SH NAME", ".SH SYNOPSIS", ".SH \"EXIT STATUS\""] {
                assert!(text.contains(part), "{part} is not in {}: {text}", path.display());
            }
        }
        assert!(!directory.path().join("graphctl-names.1").exists(), "what is hidden has no page");
    }

    #[test]
    fn a_page_reads_well() {
        let mut command = crate::manual::command().disable_help_subcommand(true);
        command.build();
        let wait = command.find_subcommand("wait").expect("wait");
        let text = String::from_utf8(page(wait).expect("a page").1).expect("text");
        insta::assert_snapshot!(text);
    }
}
