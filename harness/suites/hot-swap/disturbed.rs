//! Upgrades that something else gets in the way of.

use std::time::Duration;

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::held::{Held, pause_supervisor, resume_supervisor};
use super::versions::{
    declare, declare_large, lead_to_faulty, lead_to_script, lead_to_server, refused, serves,
};
use super::{ECHO, ECHO_TARGET, until, upgrade};
use crate::load::Load;

/// How long whoever is paused is.
const PAUSE: Duration = Duration::from_secs(2);

pub async fn re_execution_in_the_middle(vm: &Vm) -> Result<(), Failure> {
    declare(vm, "", "").await?;
    let load = Load::begin(vm, "1", ECHO_TARGET, "--connections 20").await?;
    let held = Held::begin(vm, "prepare").await?;
    held.re_execute(vm).await?;
    let said = held.end(vm).await?;
    check!(said.contains("fd-passing"), "the upgrade that waited says {said}");
    serves(vm, held.new, "a re-execution").await?;
    load.end_clean(vm, 20).await.map(drop)
}

pub async fn supervisor_paused_in_the_middle(vm: &Vm) -> Result<(), Failure> {
    declare(vm, "", "").await?;
    let load = Load::begin(vm, "1", ECHO_TARGET, "--connections 20").await?;
    let held = Held::begin(vm, "prepare").await?;
    pause_supervisor(vm).await?;
    // What the new version says now nobody hears.
    held.let_go(vm).await?;
    tokio::time::sleep(PAUSE).await;
    check!(held.is_under_way(vm).await?, "the upgrade is over while the supervisor is paused");
    resume_supervisor(vm).await?;
    let said = held.end(vm).await?;
    check!(said.contains("fd-passing"), "the upgrade that waited says {said}");
    serves(vm, held.new, "a pause").await?;
    load.end_clean(vm, 20).await.map(drop)
}

pub async fn memory_runs_out_in_the_middle(vm: &Vm) -> Result<(), Failure> {
    // Of the component's group first, which both processes are in; then of the machine.
    for limit in ["[resources]\nmemory_max = \"64M\"\n", ""] {
        let before = declare(vm, "", limit).await?;
        let load = Load::begin(vm, "1", ECHO_TARGET, "--connections 20").await?;
        lead_to_faulty(vm, "new.prepare:grow").await?;
        refused(vm, "one that takes all memory", &[], "the new process").await?;
        serves(vm, before, "want of memory").await?;
        lead_to_server(vm).await?;
        let done = upgrade(vm, ECHO).await?;
        check!(done.level == "fd-passing", "with memory again the upgrade was {done:?}");
        load.end_clean(vm, 20).await?;
    }
    // There is no room for two of these, and of the two the old one is the larger when that shows.
    let before = declare_large(vm, 40, "[resources]\nmemory_max = \"64M\"\n").await?;
    refused(vm, "one as large", &[], "the new process").await?;
    serves(vm, before, "want of memory beside a larger one").await
}

pub async fn descriptors_run_out_in_the_middle(vm: &Vm) -> Result<(), Failure> {
    let before = declare(vm, "", "").await?;
    let load = Load::begin(vm, "1", ECHO_TARGET, "--connections 20").await?;
    lead_to_script(vm, "ulimit -n 20\nexec test-echo-server \"$@\"").await?;
    refused(vm, "one with few descriptors", &[], "RLIMIT_NOFILE").await?;
    serves(vm, before, "want of descriptors").await?;
    lead_to_server(vm).await?;
    upgrade(vm, ECHO).await?;
    load.end_clean(vm, 20).await?;
    // One that has no descriptor left to take the connection to its successor.
    let before = declare(vm, "", "[resources]\nfiles_max = 30\n").await?;
    let load = Load::begin(vm, "2", ECHO_TARGET, "--connections 10").await?;
    // Clients who say nothing; most of them are not even accepted.
    vm.sh("mkfifo /run/silent; exec 3<> /run/silent
           for i in $(seq 40); do setsid nc 127.0.0.1 8080 <&3 > /dev/null 2>&1 & echo $!; done > /run/waiting")
        .await?;
    until(vm, &format!("test $(ls /proc/{before}/fd | wc -l) = 30")).await?;
    // Either of the two may be heard first: that it refuses, or that the new one gets nothing.
    let said =
        refused(vm, "the same by one with no descriptor left", &["--no-fallback"], "step \"move\"").await?;
    check!(!said.contains("within its time"), "it does not refuse: {said}");
    serves(vm, before, "want of descriptors").await?;
    vm.sh("kill -9 $(cat /run/waiting)").await?;
    load.end_clean(vm, 10).await.map(drop)
}
