//! Limits that are reached: counted, told at most every ten seconds, and nothing follows.

use super::*;
use crate::control::Strain;
use crate::journal::Cause;

#[test]
fn what_holds_a_component_up_is_told_now_and_again() {
    let mut bench = executed("");
    let run = bench.run("a");
    let strain = |bench: &mut Bench, what: &str, times| {
        bench.give(Event::Strained(run, Strain { what: what.into(), times }));
    };
    for times in [1, 4, 5] {
        strain(&mut bench, "memory.high", times);
    }
    strain(&mut bench, "pids.max", 2);
    bench.now += 10 * SECOND;
    strain(&mut bench, "memory.high", 1);
    let told: Vec<_> = bench
        .engine
        .journal()
        .since(0)
        .filter_map(|record| match &record.cause {
            Cause::Strained { what, times } => Some((what.to_string(), *times)),
            _ => None,
        })
        .collect();
    let told: Vec<_> = told.iter().map(|(what, times)| (what.as_str(), *times)).collect();
    assert_eq!(told, [("memory.high", 1), ("pids.max", 2), ("memory.high", 10)]);
    assert_eq!(bench.engine.state("a"), State::Active);
    let page = bench.engine.status_page(None);
    let count =
        |number: usize| (&*page.components[0].strains[number].what, page.components[0].strains[number].times);
    assert_eq!([count(0), count(1)], [("memory.high", 11), ("pids.max", 2)]);
    let said = health_of(&bench, "a").1;
    assert_eq!(said.as_deref(), Some("memory.high was reached 11 times; pids.max was reached 2 times"));
    // After a minute it is no longer news.
    bench.now += 60 * SECOND;
    bench.give(Event::Tick);
    assert_eq!(health_of(&bench, "a").1, None);
}
