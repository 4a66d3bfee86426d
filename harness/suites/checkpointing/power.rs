//! The power goes while a checkpoint is made.

use std::collections::BTreeSet;

use crate::check;
use crate::failure::Failure;
use crate::suites::kexec::jump::{BOOT, another_boot, settled};
use crate::vm::Vm;

use super::tripwire::{TELL, Tripwire};
use super::{KEPT, REACTION, STATEFUL, checkpoint, list, read, restore};

/// The disk on which checkpoints are kept.
const DISK: &str = "/var/lib/graph";
/// What CRIU says at the steps.
const DUMP: [&str; 6] = [
    "Running pre-dump scripts",
    "Lock network",
    "Dumping pages",
    "Dumping pstree",
    "Running post-dump scripts",
    "Unfreezing tasks",
];
/// What the worker says when CRIU is done: before a checkpoint is in its place, and when it is there and on the disk.
const BEFORE: &str = r#"begun":{"step":"commit"#;
const WRITTEN: &str = r#"event":{"written"#;

pub async fn the_power_goes_at_each_step(vm: &Vm) -> Result<(), Failure> {
    vm.sh("mkfs.ext4 -q /dev/vda; sync").await?;
    cut(vm).await?;
    let mounted = vm.read("/proc/mounts").await?;
    check!(mounted.contains(&format!("/dev/vda {DISK} ext4")), "the disk is not mounted: {mounted}");
    let first = checkpoint(vm, STATEFUL).await?;
    let mut whole = BTreeSet::from([first.id]);
    for step in DUMP {
        vm.step(&format!("cut at {step}"), cut_at(vm, Tripwire::criu(vm).await?, step, &mut whole)).await?;
    }
    for step in [BEFORE, WRITTEN] {
        vm.step(&format!("cut at {step}"), cut_at(vm, Tripwire::worker(vm).await?, step, &mut whole)).await?;
    }
    check!(whole.len() == 2, "of what was written and told {whole:?} is there");
    for id in &whole {
        let restored = restore(vm, STATEFUL, id).await?;
        check!(restored.id.as_ref() == Some(id), "of {id} nothing is made: {restored:?}");
    }
    vm.sh(&format!("umount -l {DISK}")).await.map(drop)
}

/// Cuts the power when a checkpoint has come to a step. Afterwards those are listed that were, byte by byte, and what was told
/// to be written.
async fn cut_at(vm: &Vm, wire: Tripwire, step: &str, whole: &mut BTreeSet<String>) -> Result<(), Failure> {
    let before = bytes(vm, whole).await?;
    let tell = if DUMP.contains(&step) { TELL } else { "" };
    wire.set(vm, &format!("{tell}hold {step}")).await?;
    vm.sh(&format!("setsid graphctl checkpoint {STATEFUL} < /dev/null > /dev/null 2>&1 &")).await?;
    wire.is_held(vm).await?;
    cut(vm).await?;
    check!(bytes(vm, whole).await? == before, "at {step} an older one has become another");
    let mut listed = BTreeSet::new();
    for one in list(vm, STATEFUL).await? {
        check!(!one["metadata"].is_null(), "after a cut at {step} this is listed: {one}");
        listed.extend(one["id"].as_str().map(str::to_owned));
    }
    let new: Vec<_> = listed.difference(whole).cloned().collect();
    let expected = usize::from(step == WRITTEN);
    check!(
        new.len() == expected && listed.is_superset(whole),
        "after a cut at {step} there are {listed:?}, and there were {whole:?}"
    );
    let cleaned: serde_json::Value = read(vm, &["checkpoint-cleanup", "--json"]).await?;
    let left = vm.sh(&format!("find {KEPT} -mindepth 2 -name '.*'")).await?;
    check!(left.is_empty(), "after a cleanup there is {left}: {cleaned}");
    check!(list(vm, STATEFUL).await?.len() == listed.len(), "what is whole was removed: {cleaned}");
    vm.crash_point(
        step,
        "the power goes in a checkpoint",
        if new.is_empty() { "the older ones" } else { "it" },
    );
    whole.extend(new);
    Ok(())
}

/// What every byte of these comes to.
async fn bytes(vm: &Vm, ids: &BTreeSet<String>) -> Result<String, Failure> {
    let all: Vec<_> = ids.iter().map(|id| format!("{KEPT}/{STATEFUL}/{id}")).collect();
    vm.succeed(
        &["/bin/sh", "-c", &format!("find {} -type f | sort | xargs sha256sum", all.join(" "))],
        REACTION,
    )
    .await
}

/// Cuts the power, and waits for what boots then.
async fn cut(vm: &Vm) -> Result<(), Failure> {
    let boot = vm.read(BOOT).await?;
    vm.guest.qmp().cut_power().await?;
    another_boot(vm, &boot).await?;
    settled(vm).await.map(drop)
}
