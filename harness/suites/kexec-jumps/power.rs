//! The power goes in the middle of a jump.

use serde_json::Value;

use super::disk::{cut, with_disk, without_disk};
use super::services::begin;
use crate::check;
use crate::failure::Failure;
use crate::suites::kexec::jump::BOOT;
use crate::suites::kexec::report::nothing_is_loaded;
use crate::suites::kexec::trial::count;
use crate::suites::kexec::{KEPT, TRIAL};
use crate::vm::{BOOT_INITRD, BOOT_KERNEL, Vm};

/// In which phase the power goes, and what is there then, at which the command stands still until it is gone. The last
/// phase is the supervisor's, which goes on: it may come to the end of it.
const CUTS: [(&str, &str); 5] = [
    ("checkpoint", "ls -d /var/lib/graph/checkpoints/*/* >/dev/null 2>&1 && kill -STOP $(pidof graphctl)"),
    ("verification", "grep -q '^3 checkpoint' /run/said && kill -STOP $(pidof graphctl)"),
    ("persistence", "grep -q '^4 verification' /run/said && kill -STOP $(pidof graphctl)"),
    ("loading", "test -e /var/lib/graph/jump/manifest.json && kill -STOP $(pidof graphctl)"),
    ("execution", "grep -q '^6 loading' /run/said"),
];

pub async fn power_cut_in_each_phase(vm: &Vm) -> Result<(), Failure> {
    with_disk(vm).await?;
    for (phase, is_there) in CUTS {
        vm.step(&format!("cut in phase {phase}"), cut_in(vm, phase, is_there)).await?;
    }
    without_disk(vm).await
}

async fn cut_in(vm: &Vm, phase: &str, is_there: &str) -> Result<(), Failure> {
    // What is open in memory would be refused.
    vm.sh(&format!(
        "rm -rf {KEPT} /var/lib/graph/jump; ln -sf /var/lib/graph/talked /var/talked; graphctl restart talker; sync"
    ))
    .await?;
    count(vm).await?;
    let boot = vm.read(BOOT).await?;
    begin(vm, BOOT_KERNEL, BOOT_INITRD, "").await?;
    vm.until(&format!("phase {phase} is reached"), is_there, TRIAL).await?;
    cut(vm, &boot).await?;
    let counted = count(vm).await?;
    check!(counted == 1, "after a cut in {phase} the counter is at {counted}: it was not started anew");
    let status = vm.status().await?;
    for component in &status.components {
        check!(
            component.state == "ACTIVE" || component.state == "DONE",
            "after a cut in {phase} there is {component:?}"
        );
    }
    let manifest = vm.run(&["test", "-e", "/var/lib/graph/jump/manifest.json"], TRIAL).await?;
    check!(!manifest.success(), "after a cut in {phase} the manifest waits still");
    // What is listed is whole, to its last byte.
    let text = vm.graphctl(&["checkpoint-list", "--json"]).await?;
    let listed: Value = serde_json::from_str(&text).unwrap_or_default();
    let all = listed["checkpoints"].as_array().cloned().unwrap_or_default();
    for one in &all {
        check!(!one["metadata"].is_null(), "after a cut in {phase} there is {one}");
    }
    nothing_is_loaded(vm).await
}
