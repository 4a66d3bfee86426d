//! What describes the command line besides `--help`: examples of every command, manual pages and
//! completions. All of it is made from the one definition, so none of it can fall behind.

mod completions;
mod pages;
mod texts;

use clap::{Command, CommandFactory as _};

use crate::arguments::Arguments;

pub use completions::{Shell, completions};
pub use pages::{Target, pages};

/// The definition of the command line, with examples for every command.
pub fn command() -> Command {
    // All in one go: to change one by its name moves all that follow it, which took as long as all the rest of a command.
    Arguments::command().mut_subcommands(|command| {
        let text = texts::TEXTS.iter().find(|(name, _)| *name == command.get_name());
        match text {
            Some((_, text)) => command.after_help(*text),
            None => command,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command that does something, with its words: `simulate remove`.
    fn leaves(command: &Command, words: &str, found: &mut Vec<(String, Command)>) {
        let mut below = command.get_subcommands().filter(|below| !below.is_hide_set()).peekable();
        if below.peek().is_none() {
            found.push((words.trim_start().to_owned(), command.clone()));
        }
        below.for_each(|below| leaves(below, &format!("{words} {}", below.get_name()), found));
    }

    /// The command lines of a help text: up to what explains them, or another program.
    fn examples(text: &str) -> impl Iterator<Item = &str> {
        let lines = text.lines().filter_map(|line| line.strip_prefix("  "));
        let lines = lines.filter(|line| line.starts_with("graphctl "));
        lines.map(|line| {
            let ends = ["   ", " | ", " && ", " > ", " || "];
            let end = ends.iter().filter_map(|end| line.find(end)).min();
            &line[..end.unwrap_or(line.len())]
        })
    }

    #[test]
    fn every_command_has_examples_and_every_example_is_a_command() {
        let mut found = Vec::new();
        leaves(&command(), "", &mut found);
        assert!(found.len() > 25, "{}", found.len());
        for (words, leaf) in &found {
            let text = leaf.get_after_help().map(ToString::to_string).unwrap_or_default();
            let lines: Vec<_> = examples(&text).collect();
            let own = format!("graphctl {words}");
            assert!(lines.iter().any(|line| line.starts_with(&own)), "{words} has no example of its own");
            for line in lines {
                let parsed = command().try_get_matches_from(line.split_whitespace());
                assert!(
                    parsed.is_ok(),
                    "{line}: {}",
                    parsed.err().map(|e| e.to_string()).unwrap_or_default()
                );
            }
        }
        let all = command().get_after_help().expect("examples").to_string();
        for line in examples(&all) {
            assert!(command().try_get_matches_from(line.split_whitespace()).is_ok(), "{line}");
        }
    }
}
