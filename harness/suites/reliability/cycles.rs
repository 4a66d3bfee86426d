//! Restarts, very many.

use super::{RECOVERY, converges};
use crate::check;
use crate::failure::Failure;
use crate::measure::{percentile, spawn_cost};
use crate::vm::Vm;

/// Times are compared between the first of these parts of all restarts and the last.
const PARTS: usize = 10;
/// How many parts at either end.
const COMPARED: usize = 3;
/// What the last restarts may take more than the first.
const HELD: f64 = 1.10;

pub async fn restarts_of_one_component(vm: &Vm) -> Result<(), Failure> {
    let all = vm.amount(1000, 100);
    let name = "test-isolated-service";
    let before = vm.status().await?.component(name)?.running_pid()?;
    let mut ratios = Vec::new();
    for part in 1..=PARTS {
        let own = vm.step(&format!("part {part} of {PARTS}"), restarts(vm, name, all / PARTS)).await?;
        // What a start costs is measured beside it: this host is now quicker, now slower.
        ratios.push(own / (spawn_cost(vm).await?.as_secs_f64() * 1e3));
    }
    check!(vm.status().await?.component(name)?.running_pid()? != before, "it was never restarted");
    judge(vm, all, ratios)?;
    converges(vm, "restarts of one").await
}

/// So many; milliseconds of process 1's own time for one of them.
async fn restarts(vm: &Vm, name: &str, times: usize) -> Result<f64, Failure> {
    let script = format!(
        "cut -d' ' -f1 /proc/1/schedstat; for i in $(seq {times}); do \
           graphctl restart {name} > /dev/null; done; cut -d' ' -f1 /proc/1/schedstat"
    );
    let limit = RECOVERY + RECOVERY / 20 * u32::try_from(times).unwrap_or(u32::MAX);
    let text = vm.succeed(&["/bin/sh", "-euc", &script], limit).await?;
    let numbers: Vec<f64> = text.lines().filter_map(|line| line.parse().ok()).collect();
    let &[from, to] = &numbers[..] else {
        return Err(Failure::harness(format!("/proc/1/schedstat says {text}")));
    };
    Ok((to - from) / 1e6 / times as f64)
}

/// The last restarts cost process 1 what the first did, each against what a start costs at that time.
fn judge(vm: &Vm, restarts: usize, ratios: Vec<f64>) -> Result<(), Failure> {
    let first = percentile(&ratios[..COMPARED], 50);
    let last = percentile(&ratios[ratios.len() - COMPARED..], 50);
    vm.metric("restarts", "count", restarts as f64);
    vm.metric("own_time_last_to_first", "ratio", last / first);
    vm.samples("own_time_per_spawn", "ratio", ratios);
    let is_held = last <= first * HELD;
    check!(is_held, "at the end a restart costs {last:.3} of a start, at the beginning {first:.3}");
    Ok(())
}
