//! A command line that is a table: each program lists its options, and from that list come parsing and help.
//!
//! Options are `--name VALUE` or `--name=VALUE`, or a switch `--name`; the last one given counts. There are no positional
//! arguments.

use std::ffi::{OsStr, OsString};
use std::fmt::{Display, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::Error;

/// A program and its options.
#[derive(Debug)]
pub struct Program {
    /// The name of the program.
    pub name: &'static str,
    /// What it does, in a sentence or two.
    pub about: &'static str,
    /// Its options, in the order in which the help lists them.
    pub options: &'static [Opt],
}

/// An option.
#[derive(Debug)]
pub struct Opt {
    /// The name, with its dashes.
    pub name: &'static str,
    /// What stands for the value in the help, or nothing for a switch.
    pub value: Option<&'static str>,
    /// The value when the option is not given.
    pub default: Option<&'static str>,
    /// What it means, in one line.
    pub help: &'static str,
}

/// The options that were given.
#[derive(Debug)]
pub struct Values<'a> {
    program: &'a Program,
    given: Vec<(&'a str, OsString)>,
    help: bool,
}

impl Program {
    /// Reads a command line without the program's name.
    pub fn parse(&self, args: impl IntoIterator<Item = OsString>) -> Result<Values<'_>, Error> {
        let mut values = Values { program: self, given: Vec::new(), help: false };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            if arg == "--help" || arg == "-h" {
                values.help = true;
                continue;
            }
            let (name, inline) = split(&arg);
            let Some(option) = self.options.iter().find(|option| name == option.name) else {
                return Err(Error::Usage(format!("unknown option {}", arg.display())));
            };
            let value = match (option.value, inline) {
                (None, None) => OsString::new(),
                (None, Some(_)) => return Err(Error::Usage(format!("{} takes no value", option.name))),
                (Some(_), Some(value)) => value.to_owned(),
                (Some(what), None) => args
                    .next()
                    .ok_or_else(|| Error::Usage(format!("{} needs a value: {what}", option.name)))?,
            };
            values.given.push((option.name, value));
        }
        Ok(values)
    }

    /// The text that `--help` prints.
    pub fn help(&self) -> String {
        let mut text = format!("{}\n\nUsage: {} [OPTION]...\n\n", self.about, self.name);
        let left = |option: &Opt| {
            option.name.to_owned() + &option.value.map(|what| format!(" {what}")).unwrap_or_default()
        };
        let width =
            self.options.iter().map(|option| left(option).len()).max().unwrap_or(0).max("--help".len());
        for option in self.options {
            let default = option.default.map(|value| format!(" (default: {value})")).unwrap_or_default();
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {:width$}  {}{default}", left(option), option.help);
        }
        let _ = writeln!(text, "  {:width$}  print this help", "--help");
        text
    }
}

impl Values<'_> {
    /// True when the user asked for help.
    pub fn help(&self) -> bool {
        self.help
    }

    /// True when a switch was given.
    pub fn switch(&self, name: &str) -> bool {
        self.given(name).is_some()
    }

    /// A path, or a usage error when the option is missing and has no default.
    pub fn path(&self, name: &str) -> Result<PathBuf, Error> {
        self.optional_path(name).ok_or_else(|| missing(name))
    }

    /// A path, when the option is given or has a default.
    pub fn optional_path(&self, name: &str) -> Option<PathBuf> {
        self.raw(name).map(PathBuf::from)
    }

    /// A value, or a usage error when it cannot be read, or when the option is missing and has no default.
    pub fn parse<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T, Error> {
        self.optional(name)?.ok_or_else(|| missing(name))
    }

    /// A value when the option is given or has a default, or a usage error when it cannot be read.
    pub fn optional<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, Error> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        let wrong = |why: &dyn Display| Error::Usage(format!("{name} {}: {why}", raw.display()));
        let text = raw.to_str().ok_or_else(|| wrong(&"not valid UTF-8"))?;
        text.parse().map(Some).map_err(|error| wrong(&error))
    }

    fn raw(&self, name: &str) -> Option<&OsStr> {
        let default =
            || self.program.options.iter().find(|option| option.name == name)?.default.map(OsStr::new);
        self.given(name).or_else(default)
    }

    fn given(&self, name: &str) -> Option<&OsStr> {
        debug_assert!(
            self.program.options.iter().any(|option| option.name == name),
            "{name} is not in the table"
        );
        self.given.iter().rev().find(|(given, _)| *given == name).map(|(_, value)| value.as_os_str())
    }
}

fn missing(name: &str) -> Error {
    Error::Usage(format!("{name} is required"))
}

/// `--name=value` in its two parts.
fn split(arg: &OsStr) -> (&OsStr, Option<&OsStr>) {
    let bytes = arg.as_bytes();
    match bytes.iter().position(|&byte| byte == b'=') {
        Some(at) => (OsStr::from_bytes(&bytes[..at]), Some(OsStr::from_bytes(&bytes[at + 1..]))),
        None => (arg, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: Program = Program {
        name: "test-me",
        about: "Does nothing.",
        options: &[
            Opt { name: "--rate", value: Some("N"), default: Some("7"), help: "how fast" },
            Opt { name: "--file", value: Some("FILE"), default: None, help: "where to" },
            Opt { name: "--stay", value: None, default: None, help: "run on" },
        ],
    };

    fn parse<const N: usize>(args: [&str; N]) -> Result<Values<'static>, Error> {
        const { &PROGRAM }.parse(args.map(OsString::from))
    }

    #[test]
    fn values_switches_and_defaults() {
        let values = parse(["--rate", "1", "--rate=2", "--file=a=b", "--stay"]).unwrap();
        assert_eq!(values.parse::<u32>("--rate").unwrap(), 2);
        assert_eq!(values.path("--file").unwrap(), PathBuf::from("a=b"));
        assert!(values.switch("--stay") && !values.help());
        let values = parse([]).unwrap();
        assert_eq!(values.parse::<u32>("--rate").unwrap(), 7);
        assert_eq!(values.optional_path("--file"), None);
        assert!(!values.switch("--stay"));
    }

    #[test]
    fn wrong_command_lines_say_what_is_wrong() {
        let message = |result: Result<Values<'static>, Error>| result.unwrap_err().to_string();
        assert_eq!(message(parse(["--rat", "1"])), "unknown option --rat");
        assert_eq!(message(parse(["word"])), "unknown option word");
        assert_eq!(message(parse(["--file"])), "--file needs a value: FILE");
        assert_eq!(message(parse(["--stay=1"])), "--stay takes no value");
        assert_eq!(parse([]).unwrap().path("--file").unwrap_err().to_string(), "--file is required");
        let error = parse(["--rate", "x"]).unwrap().parse::<u32>("--rate").unwrap_err();
        assert_eq!(error.to_string(), "--rate x: invalid digit found in string");
    }

    #[test]
    fn help_lists_every_option() {
        assert!(parse(["--rate", "x", "-h"]).unwrap().help());
        let expected = "Does nothing.\n\nUsage: test-me [OPTION]...\n\n  --rate N     how fast (default: 7)\n  --file FILE  \
                        where to\n  --stay       run on\n  --help       print this help\n";
        assert_eq!(PROGRAM.help(), expected);
    }
}
