//! No memory, and no time that can be relied on.

use std::time::Duration;

use super::{ECHO, RECOVERY, SERVICES, converges};
use crate::check;
use crate::failure::Failure;
use crate::load::Load;
use crate::vm::Vm;

const CLIENTS: u64 = 10;
/// More than a probe's interval: each is due meanwhile.
const A_WHILE: Duration = Duration::from_secs(3);

pub async fn no_memory_left(vm: &Vm) -> Result<(), Failure> {
    let load = Load::begin(vm, "memory", ECHO, &format!("--connections {CLIENTS}")).await?;
    let before = vm.status().await?;
    let glutton = "[component]\nname = \"glutton\"\nbinary = \"/usr/local/bin/test-hog\"\nargs = [\"--kind\", \"memory\"]\n\
                   [lifecycle]\nrestart_max = 1\nrestart_delay = 0.1\n";
    vm.declare("glutton.toml", glutton).await?;
    vm.wait_state("glutton", "FAILED", Some(before.revision), RECOVERY).await?;
    let log = vm.sh("dmesg | grep -c 'Out of memory' || true").await?;
    check!(log.trim() != "0", "the machine had memory left");
    let told = vm.graphctl(&["events", "glutton"]).await?;
    check!(told.contains("memory"), "of the end for want of memory is told: {told}");
    load.end_clean(vm, CLIENTS).await?;
    for name in SERVICES {
        let (old, new) = (before.component(name)?.pid, vm.status().await?.component(name)?.pid);
        check!(old == new, "beside it {name} was ended: it was {old:?} and is {new:?}");
    }
    vm.undeclare("glutton.toml").await?;
    converges(vm, "no memory").await
}

pub async fn clock_steps_with_everything_active(vm: &Vm) -> Result<(), Failure> {
    const DAY_S: i64 = 86_400;
    let load = Load::begin(vm, "clock", ECHO, &format!("--connections {CLIENTS}")).await?;
    let before = vm.status().await?;
    for seconds in [DAY_S, -2 * DAY_S, 400 * DAY_S, -399 * DAY_S] {
        vm.sh(&format!("date -s @$(($(date +%s) + ({seconds}))) > /dev/null")).await?;
        tokio::time::sleep(A_WHILE).await;
    }
    let changes = vm.graphctl(&["events", "--since", &before.revision.to_string()]).await?;
    check!(changes.trim().is_empty(), "a wall clock that was set has changed states: {changes}");
    load.end_clean(vm, CLIENTS).await?;
    converges(vm, "steps of the clock").await
}
