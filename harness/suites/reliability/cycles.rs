//! Restarts, very many.

use std::cmp::Ordering;
use std::time::Duration;

use serde::Deserialize;

use super::{RECOVERY, SERVICES, converges};
use crate::check;
use crate::failure::Failure;
use crate::measure::percentile;
use crate::vm::Vm;

/// The last of so many parts is compared with the first; each is a step of the reports.
const PARTS: usize = 10;
/// Rounds that are compared at either end, at least: of fewer none could be told from chance.
const LEAST_COMPARED: usize = 10;
/// What the last restarts may take more than the first.
const HELD: f64 = 1.10;
/// They are slower if chance would make them seem so once in a thousand times: this quantile of the normal distribution.
const SURE: f64 = 3.09;
/// For one restart, on an emulated processor that others use as well.
const RESTART: Duration = Duration::from_secs(3);

/// What a round of `test-restarter` took, in nanoseconds.
#[derive(Debug, Clone, Deserialize)]
struct Round {
    restarts: f64,
    own: f64,
    starts: f64,
}

pub async fn restarts_of_one_component(vm: &Vm) -> Result<(), Failure> {
    // Not one in a process namespace of its own: its first process hears no signal before it has asked for it, and here it is
    // stopped as soon as it runs.
    let name = "test-networking";
    let before = vm.status().await?.component(name)?.running_pid()?;
    restarts(vm, &[name], vm.planned("restarts_of_one")?).await?;
    check!(vm.status().await?.component(name)?.running_pid()? != before, "it was never restarted");
    converges(vm, "restarts of one").await
}

pub async fn restarts_across_the_matrix(vm: &Vm) -> Result<(), Failure> {
    restarts(vm, &SERVICES, vm.planned("restarts_across_the_matrix")?).await?;
    converges(vm, "restarts of everything").await
}

/// Restarts each in turn, so often in all; the last restarts take no longer than the first.
async fn restarts(vm: &Vm, names: &[&str], all: u64) -> Result<(), Failure> {
    let each = all.div_ceil((PARTS * names.len()) as u64);
    let limit = RECOVERY + RESTART * u32::try_from(each * names.len() as u64).unwrap_or(u32::MAX);
    let (number, list) = (each.to_string(), names.join(","));
    let command = ["test-restarter", "--rounds", &number, "--names", &list];
    let since = vm.status().await?.revision;
    let mut rounds: Vec<Round> = Vec::new();
    for part in 1..=PARTS {
        let text = vm.step(&format!("part {part} of {PARTS}"), vm.succeed(&command, limit)).await?;
        let more: Vec<Round> = serde_json::from_str(&text)
            .map_err(|error| Failure::harness(format!("test-restarter printed {text}: {error}")))?;
        rounds.extend(more);
    }
    let made = (rounds.len() * names.len()) as u64;
    check!(made >= all, "{made} of {all} restarts were made");
    // Each is at least an end and a start.
    let changes = vm.status().await?.revision - since;
    check!(changes >= 2 * made, "{made} restarts have changed states {changes} times");
    vm.metric("restarts", "count", made as f64);
    // This host is now quicker, now slower: each round against what it took to start a program then.
    let latency = judge(vm, "latency", &rounds, |round| round.restarts / round.starts);
    let own = judge(vm, "own_time", &rounds, |round| round.own / round.starts);
    latency.and(own)
}

/// The last rounds took what the first did: their median is not above that by more than what is held, or a test by ranks
/// cannot tell it from chance.
fn judge(vm: &Vm, what: &str, rounds: &[Round], value: impl Fn(&Round) -> f64) -> Result<(), Failure> {
    let values: Vec<f64> = rounds.iter().map(value).collect();
    let compared = (values.len() / PARTS).max(LEAST_COMPARED).min(values.len() / 2);
    let (first, last) = (&values[..compared], &values[values.len() - compared..]);
    let [before, after] = [first, last].map(|part| percentile(part, 50));
    vm.metric(&format!("{what}_last_to_first"), "ratio", after / before);
    let parts = values.chunks(values.len().div_ceil(PARTS)).map(|part| percentile(part, 50));
    vm.samples(&format!("{what}_per_start"), "ratio", parts.collect());
    let is_slower = after > before * HELD && shift(first, last) > SURE;
    check!(
        !is_slower,
        "{what} of a restart: in the last {compared} rounds that of {after:.3} starts of a program, in the first of {before:.3}"
    );
    Ok(())
}

/// By how many standard deviations of what chance does the later are above the earlier (Mann and Whitney): by their order,
/// so that one that took very long says no more than any other.
fn shift(earlier: &[f64], later: &[f64]) -> f64 {
    let (m, n) = (earlier.len() as f64, later.len() as f64);
    let worth = |(early, late): (&f64, &f64)| match late.total_cmp(early) {
        Ordering::Greater => 1.0,
        Ordering::Equal => 0.5,
        Ordering::Less => 0.0,
    };
    let pairs = later.iter().flat_map(|late| earlier.iter().map(move |early| (early, late)));
    let wins: f64 = pairs.map(worth).sum();
    (wins - m * n / 2.0) / (m * n * (m + n + 1.0) / 12.0).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_is_told_from_what_varies() {
        let noisy = |number: usize| 1.0 + ((number * 7919) % 100) as f64 / 100.0;
        let steady: Vec<f64> = (0..40).map(noisy).collect();
        let later: Vec<f64> = (40..80).map(noisy).collect();
        assert!(shift(&steady, &later).abs() < SURE);
        let slower: Vec<f64> = later.iter().map(|value| value * 1.5).collect();
        assert!(shift(&steady, &slower) > SURE && shift(&slower, &steady) < -SURE);
        // However much one of them took.
        let outlier = [&[900.0], &later[1..]].concat();
        assert!(shift(&steady, &outlier).abs() < SURE);
    }

    #[test]
    fn the_least_that_is_compared_is_enough_to_tell() {
        let [early, late] = [0, LEAST_COMPARED].map(|from| {
            let part = from..from + LEAST_COMPARED;
            part.map(|number| number as f64).collect::<Vec<_>>()
        });
        assert!(shift(&early, &late) > SURE);
    }
}
