//! What a case expects of the journal.
//!
//! The file has blocks, separated by empty lines. A block is the whole journal, in order, of the components that it
//! names; each line is `NAME: FROM → TO, CAUSE`, as `graphctl events` prints it without revision and time. Components
//! that do not depend on each other stand in different blocks: their order is nobody's promise. Process ids are
//! written `pid N`, the case's folder `@DIR@`. A line `…` stands for any number of records.

use std::collections::HashSet;

use yakiros_core::journal::Record;

const ANY: &str = "…";

/// Panics where the journal is not what is expected.
pub fn compare(case: &str, expected: &str, records: &[Record]) {
    for block in expected.split("\n\n").map(str::trim).filter(|block| !block.is_empty()) {
        let lines: Vec<_> = block.lines().filter(|line| !line.starts_with('#')).collect();
        let names: HashSet<_> = lines.iter().filter_map(|line| Some(line.split_once(": ")?.0)).collect();
        assert!(!names.is_empty(), "{case}/journal: a block names no component:\n{block}");
        let seen = records.iter().filter(|record| names.contains(&*record.component));
        let seen: Vec<_> = seen.map(text).collect();
        assert!(
            matches(&lines, &seen),
            "{case}: expected in the journal:\n{block}\n\nseen:\n{}\n",
            seen.join("\n")
        );
    }
}

fn text(record: &Record) -> String {
    let Record { component, from, to, cause, .. } = record;
    masked(&format!("{component}: {from} → {to}, {cause}"))
}

/// Without what differs from run to run: process ids, and the folder of a file.
fn masked(line: &str) -> String {
    let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    for index in 1..words.len() {
        if words[index - 1] == "pid" {
            words[index].replace_range(.., "N");
        } else if let Some((_, file)) = words[index].rsplit_once("/graph.d/") {
            words[index] = format!("@DIR@/graph.d/{file}");
        }
    }
    words.join(" ")
}

fn matches(expected: &[&str], seen: &[String]) -> bool {
    match (expected.split_first(), seen.split_first()) {
        (None, None) => true,
        (Some((&ANY, rest)), _) => (0..=seen.len()).any(|skipped| matches(rest, &seen[skipped..])),
        (Some((line, rest)), Some((first, others))) => line == first && matches(rest, others),
        _ => false,
    }
}

#[test]
fn a_gap_stands_for_any_number_of_records() {
    let seen = ["a: 1", "a: 2", "a: 3"].map(str::to_owned);
    assert!(matches(&["a: 1", ANY, "a: 3"], &seen));
    assert!(matches(&["a: 1", ANY, "a: 2", "a: 3", ANY], &seen));
    assert!(!matches(&["a: 1", "a: 3"], &seen));
    assert!(!matches(&["a: 1", ANY], &[]));
    assert_eq!(
        masked("a: A → B, stop requested by uid 0, pid 17"),
        "a: A → B, stop requested by uid 0, pid N"
    );
}
