//! Components that write as fast as they can.

use std::time::{Duration, Instant};

use super::REACTION;
use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

const MANY: usize = 100;
/// For that many processes on an emulated processor.
const MANY_LIMIT: Duration = Duration::from_secs(30);
/// The plan's bar for an answer under load.
const ANSWER: Duration = Duration::from_secs(2);
const ANSWERS: usize = 10;
/// A log and the one before it, each rotated at 256 KiB, with room for the chunk that filled it.
const LOG_BYTES: u64 = 2 * (256 + 16) * 1024;
/// What the supervisor may need more while a hundred pipes are full, in KiB.
const GROWTH_KIB: u64 = 1024;

pub async fn flood_of_a_hundred_components(vm: &Vm) -> Result<(), Failure> {
    let quiet = answers(vm).await?;
    vm.metric("status_when_quiet", "ms", median(&quiet));
    let flood = |number| {
        let name = format!("flood-{number}");
        let content = format!("[component]\nname = \"{name}\"\nbinary = \"/usr/local/bin/test-flood\"\n");
        (format!("{name}.toml"), content)
    };
    vm.declare_all(&(1..=MANY).map(flood).collect::<Vec<_>>()).await?;
    vm.wait_state(&format!("flood-{MANY}"), "ACTIVE", None, MANY_LIMIT).await?;
    vm.wait_settled(MANY_LIMIT).await?;
    vm.step("every log has begun", all_write(vm)).await?;
    // A hundred components have their price, which is not the flood's.
    let before = resident_kib(vm).await?;

    let flooded = vm.step("status answers", answers(vm)).await?;
    vm.metric("status_in_a_flood", "ms", median(&flooded));
    let longest = flooded.iter().max().copied().unwrap_or_default();
    check!(
        longest <= vm.limit(ANSWER),
        "in the flood an answer took {longest:.1?} (all: {flooded:.1?}, when quiet: {quiet:.1?})"
    );
    vm.step("one is stopped", vm.graphctl(&["stop", "flood-50"])).await?;
    let after = resident_kib(vm).await?;
    vm.metric("growth_in_a_flood", "KiB", after.saturating_sub(before) as f64);
    check!(after <= before + GROWTH_KIB, "the flood grew the supervisor from {before} to {after} KiB");
    let largest = vm.sh("cat /run/graph/flood-1.log* | wc -c").await?;
    let bytes: u64 = largest.trim().parse().unwrap_or(u64::MAX);
    check!(bytes <= LOG_BYTES, "the logs of one component have {bytes} bytes");
    let restarted: Vec<_> =
        vm.status().await?.components.into_iter().filter(|component| component.restarts > 0).collect();
    check!(restarted.is_empty(), "the flood made these fall: {restarted:?}");
    Ok(())
}

/// None of the hundred is kept from writing by the others.
async fn all_write(vm: &Vm) -> Result<(), Failure> {
    // What was rotated has begun, too.
    let list =
        "find /run/graph -name 'flood-*.log' -size +16k -o -name 'flood-*.log.1' | sed 's/[.]1$//' | sort -u";
    let script = format!(
        "n=0; until [ $({list} | wc -l) = {MANY} ]; do n=$((n+1)); [ $n -le 100 ] || exit 1; sleep 0.2; done"
    );
    let waited = vm.run(&["/bin/sh", "-c", &script], MANY_LIMIT).await?;
    let wrote = vm.sh(&format!("{list} | wc -l")).await?;
    check!(waited.success(), "only {} of {MANY} components could write 16 KiB", wrote.trim());
    Ok(())
}

async fn answers(vm: &Vm) -> Result<Vec<Duration>, Failure> {
    let mut times = Vec::new();
    for _ in 0..ANSWERS {
        let start = Instant::now();
        vm.graphctl_within(&["status", "base"], REACTION).await?;
        times.push(start.elapsed());
    }
    Ok(times)
}

fn median(times: &[Duration]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
}

async fn resident_kib(vm: &Vm) -> Result<u64, Failure> {
    let text = vm.sh("sed -n 's/^Private_Dirty: *\\([0-9]*\\) kB/\\1/p' /proc/1/smaps_rollup").await?;
    text.trim()
        .parse()
        .map_err(|_| Failure::harness(format!("/proc/1/smaps_rollup has no Private_Dirty: {text}")))
}
