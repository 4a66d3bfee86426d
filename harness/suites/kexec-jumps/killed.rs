//! Whoever is on the way into another kernel is killed there.

use super::outside::Outside;
use super::services::{Before, begin};
use crate::check;
use crate::failure::Failure;
use crate::ledger;
use crate::suites::kexec::{KEPT, TRIAL};
use crate::vm::{BOOT_INITRD, BOOT_KERNEL, Vm};

/// In which phase it is killed, and what is there then.
const KILLS: [(&str, &str); 4] = [
    ("checkpoint", "ls -d /var/lib/graph/checkpoints/*/* >/dev/null 2>&1"),
    ("verification", "grep -q '^3 checkpoint' /run/said"),
    ("persistence", "grep -q '^4 verification' /run/said"),
    ("loading", "test -e /checkpoint/manifest.json"),
];
/// What outlasts the command between its last word and the jump, which takes a moment.
const LEFT: &str = "yakiros-jump-left";

pub async fn killed_in_each_phase(vm: &Vm) -> Result<(), Failure> {
    let outside = Outside::connect(vm).await?;
    for (phase, is_there) in vm.amount(&KILLS[..], &KILLS[..1]) {
        vm.step(&format!("killed in phase {phase}"), killed_in(vm, &outside, is_there)).await?;
        vm.crash_point(phase, "graphctl is killed on the way into another kernel", "everything goes on");
    }
    Ok(())
}

async fn killed_in(vm: &Vm, outside: &Outside, is_there: &str) -> Result<(), Failure> {
    let before = Before::look(vm).await?;
    vm.sh("rm -f /run/said").await?;
    begin(vm, BOOT_KERNEL, BOOT_INITRD, "").await?;
    vm.until("the phase is reached", &format!("{is_there} && kill -STOP $(pidof graphctl)"), TRIAL).await?;
    let closed = tables(vm).await?;
    check!(closed == ["yakiros-jump"], "while services stand still there are {closed:?}");
    vm.sh(&format!("nft add table inet {LEFT}; kill -KILL $(pidof graphctl)")).await?;
    vm.until("the command is gone", "! pidof graphctl", TRIAL).await?;
    let closed = tables(vm).await?;
    check!(closed == [LEFT], "when nobody is on the way any more there are {closed:?}");
    // They would by themselves, in a minute.
    // They would by themselves, in a minute. What is under way comes to its end first.
    let going = "graphctl continue >/dev/null; ! graphctl status --json | grep -qE '\"(held|making)\"'";
    vm.until("the services go on", going, TRIAL).await?;
    before.goes_on(vm).await?;
    outside.goes_on(vm).await?;
    vm.until("nothing is left closed", &format!("! nft list tables | grep -q {LEFT}"), TRIAL).await?;
    vm.sh(&format!("graphctl kexec --unload; rm -rf {KEPT} /checkpoint /run/said")).await.map(drop)
}

/// What closes connections on the way. CRIU has others of its own while it is at work.
async fn tables(vm: &Vm) -> Result<Vec<String>, Failure> {
    let mut tables = ledger::take(vm).await?.ledger.tables;
    tables.retain(|name| name.starts_with("yakiros-jump"));
    Ok(tables)
}
