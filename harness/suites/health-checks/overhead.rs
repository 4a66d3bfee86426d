//! What probing costs.

use std::time::Duration;

use super::{LONG_BUDGET, REACTION, all, idle};
use crate::check;
use crate::failure::Failure;
use crate::measure::{cpu_share, slowness};
use crate::vm::Vm;

/// As many services as the plan's bar is about.
const SERVICES: usize = 20;
/// The plan's bar: what probing all of them may take of one processor of today.
const BAR: f64 = 0.01;
/// Ten probes of each.
const SPAN: Duration = Duration::from_secs(10);

/// A probe of each native kind in turn, asked of the services of the machine.
const PROBES: [&str; 4] = [
    "health_tcp = \"127.0.0.1:9002\"",
    "health_http = \"http://127.0.0.1:9001/status\"",
    "health_unix = \"/run/probed-by-unix.sock\"",
    "health_file = \"/run/probed-by-file.well\"",
];

/// The same services run unprobed and probed each second. What process 1 uses more for the probes is judged against the
/// plan's bar, times as much as this guest is slower than the processor that the bar is for. With these figures a
/// probe may take as much as the start of a program: one that starts a program, or does its work twice, is over it.
/// What the services themselves use more to answer is reported.
pub async fn health_monitoring_overhead(vm: &Vm) -> Result<(), Failure> {
    // The machine's own components are probed twice a second, and one of them sends process 1 ten signals a second as
    // its sign of life, probed or not: they must not count.
    vm.sh("sed -i '/^health_/d; s/\"--beat\", \"40\", //' /etc/graph.d/*.toml").await?;
    let names: Vec<_> = (1..=SERVICES).map(|number| format!("service-{number}")).collect();
    for name in &names {
        vm.declare(&format!("{name}.toml"), &idle(name, "")).await?;
    }
    for name in &names {
        vm.wait_state(name, "ACTIVE", None, REACTION).await?;
    }
    vm.wait_settled(LONG_BUDGET).await?;
    let unprobed = all(vm).await?;
    check!(
        unprobed.iter().all(|component| component.health == "none"),
        "some are still probed: {unprobed:?}"
    );
    let alone = vm.step("unprobed", cpu_share(vm, SPAN)).await?;

    for (name, probe) in names.iter().zip(PROBES.iter().cycle()) {
        vm.declare(&format!("{name}.toml"), &idle(name, &format!("{probe}\nhealth_interval = 1"))).await?;
    }
    let first = format!(
        "n=0; until [ $(graphctl status | grep '^service-' | grep -c healthy) = {SERVICES} ]; do \
         n=$((n+1)); [ $n -le 50 ] || exit 1; sleep 0.2; done"
    );
    let healthy = vm.run(&["/bin/sh", "-c", &first], REACTION * 3).await?;
    check!(healthy.success(), "not all services are healthy: {:?}", all(vm).await?);
    let before = slowness(vm).await?;
    let watched = vm.step("probed", cpu_share(vm, SPAN)).await?;
    // Neighbours of this machine come and go: the slower of two looks counts.
    let slowness = before.max(slowness(vm).await?);
    let bar = BAR * slowness;

    let cost = watched.supervisor - alone.supervisor;
    vm.metric("supervisor_cpu_unprobed", "%", alone.supervisor * 100.0);
    vm.metric("supervisor_cpu_of_20_probes_a_second", "%", cost * 100.0);
    vm.metric("supervisor_cpu_of_20_probes_today", "%", cost * 100.0 / slowness);
    vm.metric("slower_than_a_processor_of_today", "times", slowness);
    vm.metric("services_cpu_to_answer", "%", (watched.components - alone.components) * 100.0);
    check!(
        cost.total_cmp(&0.0).is_gt(),
        "probing cost nothing ({watched:?} after {alone:?}): the measurement is wrong or nothing was probed"
    );
    check!(
        cost.total_cmp(&bar).is_lt(),
        "probing {SERVICES} services each second takes process 1 {:.2} % of a processor, the bar is {:.2} % here, where \
         all takes {slowness:.0} times as long as on a processor of today",
        cost * 100.0,
        bar * 100.0
    );
    Ok(())
}
