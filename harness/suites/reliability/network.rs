//! A network that is not always there.

use std::time::Duration;

use super::{ECHO, REACTION, converges};
use crate::check;
use crate::failure::Failure;
use crate::load::Load;
use crate::vm::Vm;

const CLIENTS: u64 = 10;
/// What `tc` says where the kernel does not know the kind.
const NO_NETEM: &str = "qdisc kind is unknown";

pub async fn network_goes_and_comes(vm: &Vm) -> Result<(), Failure> {
    let load = Load::begin(vm, "through", ECHO, &format!("--connections {CLIENTS}")).await?;
    let is_up = "ip link show lo | grep -q 'state UNKNOWN\\|state UP\\|LOOPBACK,UP'";
    for round in 1..=vm.amount(10, 3) {
        // Whoever is to hold it up may have it up again before anybody looks.
        vm.sh("ip link set lo down").await?;
        vm.until(&format!("the network is there again, round {round}"), is_up, REACTION).await?;
    }
    // TCP sends again what was lost, later and later.
    let verdict = load.end(vm).await?;
    verdict.check_clean()?;
    vm.metric("requests", "count", verdict.counts.replies as f64);
    vm.metric("client_wait_max", "ms", verdict.latency_ns.max as f64 / 1e6);
    // As long as it was away nothing could be reached: probes may say so, and say otherwise now.
    converges(vm, "the network was away").await
}

pub async fn loss_and_delay_under_upgrades(vm: &Vm) -> Result<(), Failure> {
    let netem = ["tc", "qdisc", "add", "dev", "lo", "root", "netem", "loss", "5%", "delay", "10ms", "5ms"];
    let done = vm.run(&netem, REACTION).await?;
    if done.error_text().contains(NO_NETEM) {
        return Err(Failure::skip("this kernel has no netem (CONFIG_NET_SCH_NETEM)"));
    }
    check!(done.success(), "the network is not made bad: {}", done.error_text());
    let load = Load::begin(vm, "lossy", ECHO, &format!("--connections {CLIENTS}")).await?;
    for number in 1..=vm.amount(20, 4) {
        let text = vm.graphctl_within(&["upgrade", "test-echo-server", "--json"], REACTION).await?;
        check!(text.contains("\"level\":\"fd-passing\""), "upgrade {number} was {text}");
    }
    let lost = vm.sh("tc -s qdisc show dev lo").await?;
    let verdict = load.end_clean(vm, CLIENTS).await?;
    check!(lost.contains("dropped") && !lost.contains("dropped 0,"), "nothing was lost: {lost}");
    let slowest = Duration::from_nanos(verdict.latency_ns.max);
    check!(slowest > Duration::from_millis(20), "nobody waited for what was late: {slowest:?}");
    vm.metric("client_wait_max", "ms", slowest.as_secs_f64() * 1e3);
    vm.sh("tc qdisc del dev lo root").await?;
    converges(vm, "a bad network").await
}
