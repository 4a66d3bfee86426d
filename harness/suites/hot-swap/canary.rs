//! A new version that takes new connections first.

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::versions::{declare_canary, serves};
use super::{ECHO, ECHO_TARGET, REACTION, pid_of, until, upgrade};
use crate::load::Load;

/// Connections that are there before a canary is.
const BEFORE: u64 = 40;
/// And those that come while it lasts.
const DURING: u64 = 10;
/// What each load asks in a second: the machine has other things to do, and may be emulated.
const RATE: &str = "--rate 300";
/// What an upgrade that is under way says in the end.
const SAID: &str = "/run/canary.said";
/// The journal's word for a canary that has begun.
const BEGUN: &str = "serves new connections";

pub async fn canary_upgrade(vm: &Vm) -> Result<(), Failure> {
    one_that_fails(vm).await?;
    one_that_lasts(vm).await
}

async fn one_that_fails(vm: &Vm) -> Result<(), Failure> {
    let old = declare_canary(vm, "1h").await?;
    let before = Load::begin(vm, "before", ECHO_TARGET, &format!("--connections {BEFORE} {RATE}")).await?;
    let sockets = sockets_of(vm, old).await?;
    check!(sockets >= BEFORE, "process {old} has {sockets} sockets for {BEFORE} connections");
    vm.sh(&format!(
        "setsid sh -c 'graphctl upgrade {ECHO} --timeout 60 > {SAID}.new 2>&1; mv {SAID}.new {SAID}' \
         < /dev/null > /dev/null 2>&1 &"
    ))
    .await?;
    until(vm, &format!("graphctl events | grep -q '{BEGUN}'")).await?;
    let new = canary_beside(vm, old).await?;
    let own = sockets_of(vm, new).await?;
    let during = Load::begin(vm, "during", ECHO_TARGET, &format!("--connections {DURING} {RATE}")).await?;
    let (kept, taken) = (sockets_of(vm, old).await?, sockets_of(vm, new).await? - own);
    check!(kept == sockets, "the old version had {sockets} sockets and has {kept} while another one accepts");
    check!(taken == DURING, "of {DURING} new connections {taken} are with the new version");
    serves(vm, old, "the beginning of a canary").await?;
    vm.signal(new, 9).await?;
    vm.wait_path(SAID, REACTION).await?;
    let said = vm.read(SAID).await?;
    check!(said.contains("the step \"canary\"") && said.contains("serves on"), "the upgrade says {said}");
    serves(vm, old, "the end of a canary").await?;
    // Its own connections ended with it; those come again now, to the old version.
    during.end(vm).await?.check_honest()?;
    let after = Load::begin(vm, "after", ECHO_TARGET, &format!("--connections {DURING} {RATE}")).await?;
    after.end_clean(vm, DURING).await?;
    before.end_clean(vm, BEFORE).await.map(drop)
}

async fn one_that_lasts(vm: &Vm) -> Result<(), Failure> {
    let old = declare_canary(vm, "1s").await?;
    let before = Load::begin(vm, "before", ECHO_TARGET, &format!("--connections {BEFORE} {RATE}")).await?;
    let coming = Load::begin(
        vm,
        "coming",
        ECHO_TARGET,
        &format!("--connections 5 --requests-per-connection 5 {RATE}"),
    )
    .await?;
    let done = upgrade(vm, ECHO).await?;
    check!(done.strategy == "canary" && done.level == "fd-passing", "the upgrade was {done:?}");
    // The listeners have moved before, and of those that come some are there.
    check!(done.descriptors.is_some_and(|count| count >= BEFORE), "the upgrade was {done:?}");
    let new = pid_of(vm, ECHO).await?;
    check!(new != old, "process {old} serves on");
    vm.wait_process_gone(old, "the version before", REACTION).await?;
    serves(vm, new, "a canary that has lasted").await?;
    coming.end(vm).await?.check_clean()?;
    before.end_clean(vm, BEFORE).await?;
    vm.metric("gap", "us", done.gap()?);
    Ok(())
}

/// How many sockets a process has.
async fn sockets_of(vm: &Vm, pid: i32) -> Result<u64, Failure> {
    let count = vm.sh(&format!("ls -l /proc/{pid}/fd | grep -c 'socket:'")).await?;
    count.trim().parse().map_err(|error| Failure::harness(format!("sockets of {pid}: {error}")))
}

/// The other process of the same program.
async fn canary_beside(vm: &Vm, old: i32) -> Result<i32, Failure> {
    let script =
        format!("grep -sxlF \"$(cat /proc/{old}/comm)\" /proc/[0-9]*/comm | cut -d / -f 3 | grep -vx {old}");
    let found = vm.sh(&script).await?;
    found.trim().parse().map_err(|error| Failure::supervisor(format!("beside {old} run `{found}`: {error}")))
}
