//! The reference in `docs/` and the JSON Schema are made from the tables, and agree with the parser.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use yakiros_core::component::keys::{Fallback, Key, SECTIONS, Shape};
use yakiros_core::component::parse;
use yakiros_core::component::schema::schema;
use yakiros_core::component::seccomp::{ALWAYS, SETS};
use yakiros_core::diagnostic::rules::{Example, RULES, Rule};

/// The environment variable that makes the tests rewrite the pages.
const BLESS: &str = "YAKIROS_BLESS";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn assert_page_is_current(name: &str, generated: &str) {
    let path = repository().join("docs/reference").join(name);
    if std::env::var_os(BLESS).is_some() {
        std::fs::write(&path, generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == generated,
        "{} differs from the table; run the tests with {BLESS}=1 to rewrite it",
        path.display()
    );
}

/// What a shape takes, for people.
fn takes(shape: Shape) -> String {
    let all = |words: fn() -> Vec<&'static str>| {
        let quoted: Vec<_> = words().iter().map(|word| format!("`\"{word}\"`")).collect();
        quoted.join(", ")
    };
    match shape {
        Shape::Name => "text: letters, digits and `. _ - + @ :`".to_owned(),
        Shape::HostName => "text, at most 64 bytes".to_owned(),
        Shape::Path => "absolute path".to_owned(),
        Shape::CgroupPath => "relative path".to_owned(),
        Shape::SlicePath => "names with `/` between them, as `\"batch/reports\"`".to_owned(),
        Shape::Controllers(words) => format!("`true`, `false`, or array or comma-separated text of {}", all(words)),
        Shape::Text => "text".to_owned(),
        Shape::Word(words) => all(words),
        Shape::Words(words) => format!("array or comma-separated text of {}", all(words)),
        Shape::Arguments => "array of texts".to_owned(),
        Shape::Capabilities => "array of names without white space".to_owned(),
        Shape::Command => "a line for `/bin/sh`, or an array that begins with an absolute path".to_owned(),
        Shape::Signal => "signal, as `\"HUP\"`, `\"SIGHUP\"` or `1`".to_owned(),
        Shape::FreeSignal => "`\"SIGUSR1\"`, `\"SIGUSR2\"`, or 34 to 64".to_owned(),
        Shape::Seconds => "seconds, or text with `ms`, `s`, `m`, `h`".to_owned(),
        Shape::PositiveSeconds => "seconds above 0, or text with `ms`, `s`, `m`, `h`".to_owned(),
        Shape::Interval => "seconds from 0.01, or text with `ms`, `s`, `m`, `h`".to_owned(),
        Shape::Number(low, high) => format!("{low} to {high}"),
        Shape::Bytes => "bytes, or text with `K`, `M`, `G`, `T`".to_owned(),
        Shape::CpuMax => "`\"QUOTA PERIOD\"` in microseconds, each at least 1000".to_owned(),
        Shape::Size => "bytes from 0, or text with `K`, `M`, `G`, `T`".to_owned(),
        Shape::IoMax => {
            "array of `\"DEVICE rbps=BYTES wbps=BYTES riops=COUNT wiops=COUNT\"`, DEVICE as `8:0` or `/dev/sda`".to_owned()
        }
        Shape::Numbers => "list of numbers and ranges, as `\"0-3,8\"`".to_owned(),
        Shape::Pressure => "`\"some STALL WINDOW\"` or `\"full STALL WINDOW\"`, as `\"some 150ms 1s\"`".to_owned(),
        Shape::Truth => "`true`, `false`".to_owned(),
        Shape::List => "array of texts or numbers, or comma-separated text".to_owned(),
        Shape::ListOrTruth => "the same, or `true`, `false`".replace("the same", &takes(Shape::List)),
        Shape::Variables => "array of `NAME=VALUE` or `NAME`, comma-separated text, or table".to_owned(),
        Shape::Address => "`\"ADDRESS:PORT\"` in numbers, or `localhost`".to_owned(),
        Shape::Listen => "`\"ADDRESS:PORT\"` in numbers, or an absolute path".to_owned(),
        Shape::DescriptorName => "ASCII text without colons".to_owned(),
        Shape::Mode => "text in octal, as `\"0660\"`".to_owned(),
        Shape::Integer(low, high) => format!("{low} to {high}"),
        Shape::Account => "name or number".to_owned(),
        Shape::Accounts => "array of names or numbers, or comma-separated text".to_owned(),
        Shape::CapabilitySet => "array of names, with or without `CAP_`, or comma-separated text".to_owned(),
        Shape::Paths => "array of absolute paths".to_owned(),
        Shape::Binds => "array of `\"/source:/target\"`, with or without `:ro`".to_owned(),
        Shape::Tmpfs => "array of paths, with or without `:size=BYTES`".to_owned(),
        Shape::IdMaps => "array of `\"INSIDE OUTSIDE COUNT\"`".to_owned(),
        Shape::TimeOffsets => "table of `monotonic`, `boottime`".to_owned(),
        Shape::Network => "table of `bridge`, `address`, `gateway`".to_owned(),
        Shape::Secrets => "table of absolute paths".to_owned(),
        Shape::Rlimits => {
            "table of numbers, or `\"SOFT:HARD\"` with `infinity`, `K`, `M`, `G`, `T`".to_owned()
        }
        Shape::Scheduling => "`\"POLICY\"` or `\"POLICY:PRIORITY\"`".to_owned(),
        Shape::IoClass => "`\"CLASS\"` or `\"CLASS:LEVEL\"`".to_owned(),
        Shape::Cpus => "numbers and ranges, as `\"0-3, 8\"`".to_owned(),
        Shape::Seccomp => "array of names, or comma-separated text".to_owned(),
        Shape::Url => "`\"http://ADDRESS[:PORT][/PATH]\"` in numbers, or `localhost`".to_owned(),
    }
}

fn row(key: &Key) -> String {
    let names: Vec<_> = key.names().map(|name| format!("`{name}`")).collect();
    let fallback = match key.fallback {
        Fallback::Required => "required".to_owned(),
        Fallback::Value(value) => format!("`{value}`"),
        Fallback::Words(words) => words.to_owned(),
    };
    format!("| {} | {} | {fallback} | {} |\n", names.join(", "), takes(key.shape), key.about)
}

fn component_files() -> String {
    let mut page = String::from(
        "# Component files\n\n\
         <!-- Made from the table of keys; `YAKIROS_BLESS=1 cargo test -p yakiros-core` rewrites it. -->\n\n\
         A component file is TOML 1.0, at most 1 MiB, named `*.toml` in `/etc/graph.d`, and declares one program.\n\
         `graphctl lint` checks files, `graphctl explain` says what a [finding](diagnostics.md) means, and\n\
         `graphctl schema` gives editors what they need to complete and check keys.\n\n\
         Unknown keys are a warning. A value that is wrong is an error: the file is refused, everything else runs, and\n\
         what the file declared before stays in force.\n",
    );
    for section in SECTIONS {
        let _ = write!(page, "\n## `{}`\n\n{}\n\n", section.head(), section.about);
        page += "| key | values | default | meaning |\n|---|---|---|---|\n";
        for key in section.keys {
            page += &row(key);
        }
    }
    page
}

fn example(example: &Example) -> String {
    let language = if matches!(example, Example::Shell(_)) { "sh" } else { "toml" };
    format!("```{language}\n{example}```\n")
}

fn diagnostics() -> String {
    let mut page = String::from(
        "# Findings in component files\n\n\
         <!-- Made from the table of codes; `YAKIROS_BLESS=1 cargo test -p yakiros-core` rewrites it. -->\n\n\
         A file with an error is refused; one with warnings is used. `graphctl explain CODE` prints the same. A code\n\
         never changes its meaning.\n\n| code | severity | finding |\n|---|---|---|\n",
    );
    for Rule { code, severity, title, .. } in RULES {
        let _ = writeln!(page, "| [{code}](#{}) | {severity} | {title} |", code.to_lowercase());
    }
    for Rule { code, severity, title, explanation, bad, good } in RULES {
        let (bad, good) = (example(bad), example(good));
        let _ = write!(
            page,
            "\n## {code}\n\n**{severity}: {title}.** {explanation}\n\nThis gives it:\n\n{bad}\nThis does not:\n\n{good}"
        );
    }
    page
}

#[test]
fn the_reference_of_keys_is_that_of_the_table() {
    assert_page_is_current("component-files.md", &component_files());
}

#[test]
fn the_reference_of_findings_is_that_of_the_table() {
    assert_page_is_current("diagnostics.md", &diagnostics());
}

/// The sets of system calls, and what they stand for.
fn system_calls() -> String {
    let mut page = String::from(
        "# Sets of system calls\n\n\
         <!-- Made from the table of sets; `YAKIROS_BLESS=1 cargo test -p yakiros-core` rewrites it. -->\n\n\
         `security.seccomp` takes system calls by name (syscalls(2)) and these sets. A list allows what it names and\n\
         nothing else; one of which each item begins with `~` forbids what it names and nothing else. Calls that a\n\
         processor does not have are passed over.\n\n",
    );
    let quoted = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let _ = writeln!(page, "Every list lets through {}.\n", quoted(ALWAYS));
    page += "| set | system calls |\n|---|---|\n";
    for (set, members) in SETS {
        let _ = writeln!(page, "| `{set}` | {} |", quoted(members));
    }
    page
}

#[test]
fn the_reference_of_system_calls_is_that_of_the_table() {
    assert_page_is_current("system-calls.md", &system_calls());
}

fn validator() -> jsonschema::Validator {
    let options = jsonschema::options();
    options.with_draft(jsonschema::Draft::Draft202012).build(&schema()).expect("a valid schema")
}

fn as_json(text: &str) -> Option<Value> {
    toml::from_str(text).ok()
}

#[test]
fn the_schema_takes_every_component_file_of_the_repository() {
    let validator = validator();
    let mut open = vec![repository().join("harness/suites"), repository().join("supervisor")];
    let mut count = 0;
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        // Those with a place to fill in, or with a mistake, are for others to judge.
        if path.extension().is_some_and(|end| end == "toml") && parse(&text).component.is_some() {
            let value = as_json(&text).unwrap_or_else(|| panic!("{}", path.display()));
            let errors: Vec<_> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
            assert_eq!(errors, Vec::<String>::new(), "{}", path.display());
            count += 1;
        }
    }
    assert!(count > 40, "{count} files");
}

/// What only the parser can tell: whether keys go together, signals go with a purpose, and sums.
const BEYOND_A_SCHEMA: std::ops::Range<&str> = "Y0300".."Y9999";

#[test]
fn the_schema_judges_values_as_the_parser_does() {
    let validator = validator();
    for rule in RULES.iter().filter(|rule| !BEYOND_A_SCHEMA.contains(&rule.code)) {
        if let Example::File(bad) = rule.bad
            && let Some(value) = as_json(bad)
        {
            assert!(!validator.is_valid(&value), "{} {bad}", rule.code);
        }
        if let Example::File(good) = rule.good {
            assert!(validator.is_valid(&as_json(good).expect("TOML")), "{} {good}", rule.code);
        }
    }
}
