//! Whatever bytes come from files and clients, the core neither panics nor lies.
//!
//! What must hold is in the modules; `fuzz/` feeds the same functions by coverage, these tests by
//! chance, and with the seeds that both begin from.

#[path = "arbitrary/component_file.rs"]
mod component_file;
#[path = "arbitrary/conversation.rs"]
mod conversation;
#[path = "arbitrary/notification.rs"]
mod notification;
#[path = "arbitrary/request_line.rs"]
mod request_line;
#[path = "arbitrary/takeover.rs"]
mod takeover;

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::{Index, select};

/// What a byte string is made into: pieces of valid ones, cut, doubled and overwritten.
#[derive(Clone, Debug)]
enum Slip {
    Overwrite(Index, u8),
    Cut(Index, Index),
    Double(Index, Index),
    Insert(Index, &'static str),
}

/// Texts that mean something to the parsers.
const TOKENS: &[&str] = &[
    "[",
    "]",
    "\"",
    "\"\"\"",
    "'",
    "=",
    "{",
    "}",
    ",",
    "#",
    "\n",
    "\\u0000",
    "\\uD800",
    "[component]\n",
    "[[x]]\n",
    "name = ",
    "0x",
    "1e999",
    "-0",
    "null",
    "{\"version\":1,",
    "\u{1F600}",
    "\u{202E}",
];

fn slip() -> impl Strategy<Value = Slip> {
    let index = any::<Index>;
    prop_oneof![
        (index(), any::<u8>()).prop_map(|(at, byte)| Slip::Overwrite(at, byte)),
        (index(), index()).prop_map(|(from, to)| Slip::Cut(from, to)),
        (index(), index()).prop_map(|(from, to)| Slip::Double(from, to)),
        (index(), select(TOKENS)).prop_map(|(at, token)| Slip::Insert(at, token)),
    ]
}

impl Slip {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |index: &Index, bytes: &[u8]| index.index(bytes.len() + 1);
        let range = |from: &Index, to: &Index, bytes: &[u8]| {
            let (from, to) = (place(from, bytes), place(to, bytes));
            from.min(to)..from.max(to)
        };
        match self {
            Self::Overwrite(at, byte) => {
                let at = place(at, bytes);
                bytes.splice(at..bytes.len().min(at + 1), [*byte]);
            }
            Self::Cut(from, to) => {
                bytes.drain(range(from, to, bytes));
            }
            Self::Double(from, to) => {
                let range = range(from, to, bytes);
                let piece = bytes[range.clone()].to_vec();
                bytes.splice(range.end..range.end, piece);
            }
            Self::Insert(at, token) => {
                let at = place(at, bytes);
                bytes.splice(at..at, token.bytes());
            }
        }
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The folders with the seeds of a target. Component files there are enough of in the tests.
const SEEDS: &[(&str, &[&str])] = &[
    ("component_file", &["fuzz/seeds/component_file", "harness/suites", "supervisor/init/tests/cases"]),
    ("request_line", &["fuzz/seeds/request_line"]),
    ("conversation", &["fuzz/seeds/conversation"]),
    ("notification", &["fuzz/seeds/notification"]),
];

/// All seeds of a target.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folders = SEEDS.iter().filter(|(name, _)| *name == target).flat_map(|(_, folders)| *folders);
    let mut open: Vec<_> = folders.map(|folder| repository().join(folder)).collect();
    let mut seeds = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let inside =
                std::fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path());
            open.extend(inside);
        } else if target != "component_file" || path.extension().is_some_and(|end| end == "toml") {
            seeds.push(std::fs::read(&path).expect("a seed"));
        }
    }
    seeds.sort();
    assert!(!seeds.is_empty(), "{target} has no seeds");
    seeds
}

/// A seed of the target with some slips.
fn near_seed(target: &str) -> impl Strategy<Value = Vec<u8>> {
    (select(seeds(target)), prop::collection::vec(slip(), 0..6)).prop_map(|(mut bytes, slips)| {
        for slip in &slips {
            slip.apply(&mut bytes);
        }
        bytes
    })
}

fn anything() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..200)
}

/// Panics if something does not hold for the bytes.
type Check = fn(&[u8]);

/// The targets, by name.
const TARGETS: &[(&str, Check)] = &[
    ("component_file", component_file::check),
    ("request_line", request_line::check),
    ("conversation", conversation::check),
    ("notification", notification::check),
];

#[test]
fn seeds_hold() {
    for (target, check) in TARGETS {
        for seed in seeds(target) {
            check(&seed);
        }
    }
}

/// `fuzz/` is a workspace of its own, which this one does not compile: it must stay so thin that
/// nothing in it can go stale but the names.
#[test]
fn every_module_has_a_fuzz_target_that_only_calls_it() {
    let manifest = std::fs::read_to_string(repository().join("fuzz/Cargo.toml")).expect("fuzz/Cargo.toml");
    for (name, _) in TARGETS {
        let path = format!("fuzz_targets/{name}.rs");
        assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"{path}\"")), "{name}");
        let target = std::fs::read_to_string(repository().join("fuzz").join(path)).expect("a target");
        let module = format!("#[path = \"../../supervisor/core/tests/arbitrary/{name}.rs\"]\nmod {name};");
        assert!(target.contains(&module), "{target}");
        assert!(target.contains(&format!("fuzz_target!(|data: &[u8]| {name}::check(data));")), "{target}");
    }
}

proptest! {
    #[test]
    fn any_component_file_is_read(bytes in prop_oneof![4 => near_seed("component_file"), 1 => anything()]) {
        component_file::check(&bytes);
    }

    #[test]
    fn any_request_line_is_read(bytes in prop_oneof![4 => near_seed("request_line"), 1 => anything()]) {
        request_line::check(&bytes);
    }

    #[test]
    fn any_notification_is_read(bytes in prop_oneof![4 => near_seed("notification"), 1 => anything()]) {
        notification::check(&bytes);
    }
}

proptest! {
    // Each is hundreds of events, and as many take-overs.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_conversation_is_answered(bytes in prop_oneof![1 => near_seed("conversation"), 1 => anything()]) {
        conversation::check(&bytes);
    }
}
