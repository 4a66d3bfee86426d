//! The memory of process 1: how much with everything in use, and that it stays so.

use super::support::{Memory, all_work, json, memory};
use super::{MANY, REACTION};
use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

const ECHO: &str = "test-echo-server";
const STATEFUL: &str = "test-stateful-service";
/// Of each kind of work, in one round. A round of all is some hundred changes of state.
const CYCLES: usize = 25;
/// In the first rounds the allocator gets what it then keeps.
const WARM_UP: usize = 2;
const KIB: f64 = 1024.0;

pub async fn memory_usage(vm: &Vm) -> Result<(), Failure> {
    all_work(vm).await?;
    let plain = memory(vm, 1).await?;
    let upgraded: serde_json::Value = json(vm, &["upgrade", ECHO], REACTION).await?;
    check!(upgraded["level"] == "fd-passing", "the upgrade was {upgraded}");
    let made: serde_json::Value = json(vm, &["checkpoint", STATEFUL], REACTION).await?;
    check!(made["bytes"].as_u64().is_some_and(|bytes| bytes > 0), "the checkpoint is {made}");
    let moved: serde_json::Value = json(vm, &["upgrade", STATEFUL], REACTION).await?;
    check!(moved["level"] == "checkpoint", "the upgrade was {moved}");
    vm.sh(&format!("graphctl freeze {ECHO} && graphctl thaw {ECHO}")).await?;
    vm.sh("graphctl analyze && graphctl dot && graphctl top --once && graphctl events && graphctl audit")
        .await?;
    vm.wait_settled(REACTION).await?;
    let ill: Vec<_> =
        vm.status().await?.components.into_iter().filter(|one| one.health == "failing").collect();
    check!(ill.is_empty(), "these are ill: {ill:?}");
    let all = memory(vm, 1).await?;
    vm.metric("pid1_memory", "KiB", all.resident);
    vm.metric("pid1_memory_peak", "KiB", all.peak);
    vm.metric("pid1_anonymous", "KiB", all.anonymous);
    vm.metric("grown_by_features", "KiB", all.anonymous - plain.anonymous);
    Ok(())
}

pub async fn memory_stability(vm: &Vm) -> Result<(), Failure> {
    let rounds = vm.amount(8, 4);
    let mut seen: Vec<Memory> = Vec::new();
    for number in 1..=WARM_UP + rounds {
        vm.step(&format!("round {number}"), round(vm)).await?;
        seen.push(memory(vm, 1).await?);
    }
    all_but_restarts(vm).await?;
    let warm = &seen[WARM_UP..];
    let anonymous: Vec<_> = warm.iter().map(|memory| memory.anonymous).collect();
    let cycles = (CYCLES * 4 * (rounds - 1)) as f64;
    let grown = slope(&anonymous) * (rounds - 1) as f64;
    vm.metric("pid1_anonymous_at_the_end", "KiB", anonymous[rounds - 1]);
    vm.metric("pid1_growth", "KiB", grown);
    vm.metric("pid1_growth_per_cycle", "bytes", grown * KIB / cycles);
    vm.metric("pid1_memory_at_the_end", "KiB", warm[rounds - 1].resident);
    vm.samples("pid1_anonymous_over_cycles", "KiB", anonymous);
    Ok(())
}

/// Every kind of work that allocates something for a time.
async fn round(vm: &Vm) -> Result<(), Failure> {
    let script = format!(
        "for i in $(seq {CYCLES}); do
           graphctl restart test-isolated-service > /dev/null
           graphctl upgrade {ECHO} > /dev/null
           graphctl reload > /dev/null
           printf '[component]\\nname = \"passing\"\\nbinary = \"/usr/local/bin/test-idle\"\\n' > /etc/graph.d/.passing
           mv /etc/graph.d/.passing /etc/graph.d/passing.toml
           graphctl wait passing --state ACTIVE --timeout 20 > /dev/null
           rm /etc/graph.d/passing.toml
           graphctl wait passing --state REMOVED --timeout 20 > /dev/null
         done"
    );
    vm.succeed(&["/bin/sh", "-euc", &script], MANY * 2).await?;
    vm.wait_settled(REACTION).await
}

async fn all_but_restarts(vm: &Vm) -> Result<(), Failure> {
    let status = vm.status().await?;
    for name in [ECHO, STATEFUL, "test-isolated-service", "test-monitor", "test-database"] {
        let state = &status.component(name)?.state;
        check!(state == "ACTIVE", "after all of this {name} is {state}");
    }
    Ok(())
}

/// The median of the slopes between each two points (Theil and Sen), which no single outlier moves.
fn slope(values: &[f64]) -> f64 {
    let mut slopes = Vec::new();
    for (from, first) in values.iter().enumerate() {
        for (to, second) in values.iter().enumerate().skip(from + 1) {
            slopes.push((second - first) / (to - from) as f64);
        }
    }
    crate::measure::percentile(&slopes, 50)
}
