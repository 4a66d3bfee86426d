//! Upgrades under clients.

use serde::Deserialize;

use super::REACTION;
use super::support::json;
use crate::check;
use crate::failure::Failure;
use crate::load::Load;
use crate::measure::slowness;
use crate::vm::Vm;

const ECHO: &str = "test-echo-server";
const TARGET: &str = "tcp:127.0.0.1:8080";
const CLIENTS: u64 = 100;

#[derive(Debug, Deserialize)]
struct Upgraded {
    level: String,
    gap_us: Option<u64>,
    steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
struct Step {
    time_ms: u64,
}

pub async fn hotswap_performance(vm: &Vm) -> Result<(), Failure> {
    let load = Load::begin(vm, "performance", TARGET, &format!("--connections {CLIENTS}")).await?;
    let (mut gaps, mut times) = (Vec::new(), Vec::new());
    for number in 1..=vm.amount(100, 10) {
        let done: Upgraded = json(vm, &["upgrade", ECHO], REACTION).await?;
        check!(done.level == "fd-passing", "upgrade {number} was {done:?}");
        let [Some(first), Some(last)] = [done.steps.first(), done.steps.last()] else {
            return Err(Failure::supervisor(format!("upgrade {number} tells no steps: {done:?}")));
        };
        times.push((last.time_ms - first.time_ms) as f64);
        let Some(gap) = done.gap_us else {
            return Err(Failure::supervisor(format!("upgrade {number} tells no gap: {done:?}")));
        };
        gaps.push(gap as f64 / 1e3);
    }
    // Each has its replies, in order, over the connection that it began with.
    let verdict = load.end(vm).await?;
    verdict.check_clean()?;
    let slowness = slowness(vm).await?;
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    vm.metric("clients_dropped", "count", (verdict.counts.connections - CLIENTS) as f64);
    vm.metric("requests", "count", verdict.counts.replies as f64);
    vm.metric("hot_swap_today", "ms", mean / slowness);
    vm.metric("client_wait_max", "ms", verdict.latency_ns.max as f64 / 1e6);
    vm.samples("hot_swap", "ms", times);
    vm.samples("hot_swap_gap", "ms", gaps);
    Ok(())
}
