//! `cargo xtask sim --mutations`: does every checker notice when the engine is broken?
//!
//! Each way to break it is run through seeds until enough of them have failed. One that no checker
//! notices, and a checker that never notices anything, are failures: a test that cannot fail is
//! none.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde::Serialize;
use yakiros_core::mutation::{Mutation, break_engine};
use yakiros_core::sim;

use crate::{Arguments, print_json};

/// Failing seeds after which a mutation has been seen through.
const ENOUGH: u64 = 25;

/// What became of one mutation.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    mutation: String,
    what: &'static str,
    /// Seeds until the first that failed.
    within: Option<u64>,
    /// By how many failing seeds each checker noticed it.
    checkers: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct Outcome {
    findings: Vec<Finding>,
    /// Checkers that noticed nothing.
    blind: Vec<&'static str>,
    elapsed_ms: u64,
}

/// Try them all.
pub fn run(arguments: &Arguments) -> ExitCode {
    let start = Instant::now();
    let findings = try_all(arguments);
    let seen: BTreeSet<_> = findings.iter().flat_map(|finding| finding.checkers.keys().copied()).collect();
    // The comparison of two runs is no row of the checkers' table.
    let all = sim::checker_names().chain(["determinism"]);
    let blind: Vec<_> = all.filter(|checker| !seen.contains(checker)).collect();
    let missed = findings.iter().filter(|finding| finding.within.is_none()).count();
    let elapsed_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let good = missed == 0 && blind.is_empty();
    if arguments.json {
        print_json(&Outcome { findings, blind, elapsed_ms });
    } else {
        print(&findings, &blind);
        println!("{} mutations, {missed} not noticed, in {:.1} s", findings.len(), elapsed_ms as f64 / 1e3);
    }
    ExitCode::from(u8::from(!good))
}

/// Each thread takes the next mutation; which engine is broken is a matter of the thread.
fn try_all(arguments: &Arguments) -> Vec<Finding> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = Vec::new();
        while let Some(mutation) = Mutation::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
            found.push((*mutation as usize, try_one(*mutation, arguments)));
        }
        found
    };
    let mut findings: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..arguments.jobs()).map(|_| scope.spawn(work)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).flatten().collect()
    });
    findings.sort_by_key(|(number, _)| *number);
    findings.into_iter().map(|(_, finding)| finding).collect()
}

fn try_one(mutation: Mutation, arguments: &Arguments) -> Finding {
    let mut checkers = BTreeMap::new();
    let mut within = None;
    let mut failed = 0;
    break_engine(Some(mutation));
    for (tried, seed) in (1..).zip(arguments.range()) {
        if let Err(failure) = sim::run(seed) {
            within.get_or_insert(tried);
            *checkers.entry(failure.reason.name()).or_default() += 1;
            failed += 1;
        }
        if failed == ENOUGH {
            break;
        }
    }
    break_engine(None);
    Finding { mutation: format!("{mutation:?}"), what: mutation.what(), within, checkers }
}

fn print(findings: &[Finding], blind: &[&str]) {
    for Finding { what, within, checkers, .. } in findings {
        let seeds = within.map_or("NOT NOTICED".to_owned(), |within| match within {
            1 => "1 seed".to_owned(),
            _ => format!("{within} seeds"),
        });
        let by: Vec<_> = checkers.iter().map(|(checker, count)| format!("{checker} {count}")).collect();
        println!("{what:58} {seeds:>12}  {}", by.join(", "));
    }
    for checker in blind {
        println!("the checker {checker} noticed nothing: NO MUTATION TESTS IT");
    }
}
