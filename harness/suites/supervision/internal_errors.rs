//! Process 1 fails in itself. Before that a supervisor that fails on request takes over from the one that is shipped,
//! the way a new version does.

use std::time::Duration;

use yakiros_vm::qmp::ShutdownCause;

use crate::check;
use crate::failure::Failure;
use crate::vm::{FAULTY_SUPERVISOR, Status, Vm};

use super::{REACTION, idle};

/// Signals on which the faulty supervisor fails: between two events, and in the midst of the next one.
const FAIL_NOW: i32 = 63;
const FAIL_LATER: i32 = 62;
/// On this one it leaves a state that cannot be read.
const FAIL_STATELESS: i32 = 59;
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
/// What it then says of itself.
const FAILURE: &str = "a test asked for it";
/// For a take-over on an emulated processor.
const TAKE_OVER: Duration = Duration::from_secs(10);
/// All services get their grace.
const POWER_OFF: Duration = Duration::from_secs(15);
/// For what belongs to nothing to be ended, with its grace.
const ENDING: Duration = Duration::from_secs(15);
/// Where components have their control groups.
const GROUPS: &str = "/sys/fs/cgroup/graph";
/// Internal errors within a minute after which it no longer goes on.
const TOO_MANY: usize = 4;

const ECHO: &str = "[component]\nname = \"echo\"\nbinary = \"/usr/local/bin/test-echo-server\"\n\
    args = [\"--listen\", \"127.0.0.1:8080\"]\n[provides]\ncapabilities = [\"echo\"]\n";

/// Children of process 1 whose standard input is the console.
const SHELLS: &str = "for p in /proc/[0-9]*; do\n  test \"$(cut -d ' ' -f 4 $p/stat 2>/dev/null)\" = 1 || continue\n  \
    test \"$(readlink $p/fd/0)\" = /dev/console && echo $p\ndone\ntrue\n";

/// Puts the faulty supervisor in charge of two components.
async fn begin(vm: &Vm) -> Result<Status, Failure> {
    vm.declare("echo.toml", ECHO).await?;
    vm.declare("client.toml", &idle("client", "[requires]\ncapabilities = [\"echo\"]")).await?;
    vm.wait_state("client", "ACTIVE", None, REACTION).await?;
    vm.sh(&format!("cp {FAULTY_SUPERVISOR} /sbin/faulty && mv /sbin/faulty /sbin/graph-resolver")).await?;
    let said = vm.graphctl_within(&["reexec"], TAKE_OVER).await?;
    check!(said.contains("took over in"), "graphctl reexec says `{said}`");
    vm.status().await
}

/// Waits until process 1 has written a line with `part` so many times.
async fn said(vm: &Vm, part: &str, times: usize) -> Result<(), Failure> {
    let script = format!("until test \"$(dmesg | grep -c '{part}')\" -ge {times}; do sleep 0.05; done");
    vm.succeed(&["/bin/sh", "-c", &script], TAKE_OVER).await.map(drop)
}

async fn answers(vm: &Vm) -> Result<(), Failure> {
    let answer = vm.sh("echo question | nc -w 5 127.0.0.1 8080").await?;
    check!(answer.trim() == "question", "the service answers `{answer}`");
    Ok(())
}

fn same_processes(before: &Status, after: &Status, but: &str) -> Result<(), Failure> {
    for component in before.components.iter().filter(|component| component.name != but) {
        let now = after.component(&component.name)?;
        check!(now.pid == component.pid, "{} was {:?} and is {:?}", component.name, component.pid, now.pid);
    }
    Ok(())
}

pub async fn internal_error_is_survived(vm: &Vm) -> Result<(), Failure> {
    let before = begin(vm).await?;

    let between = async {
        vm.signal(1, FAIL_NOW).await?;
        said(vm, "after an internal error", 1).await
    };
    vm.step("it fails between two events", between).await?;
    let after = vm.status().await?;
    same_processes(&before, &after, "")?;
    answers(vm).await?;
    let why = vm.graphctl(&["why", "kernel"]).await?;
    check!(why.contains(FAILURE), "graphctl why kernel says `{why}`");
    let events = vm.graphctl(&["events", "--since", &before.revision.to_string()]).await?;
    let lines: Vec<_> = events.lines().collect();
    check!(lines.len() == 1 && lines[0].contains(FAILURE), "graphctl events says `{events}`");

    let midst = async {
        vm.signal(1, FAIL_LATER).await?;
        // Its end is the next event, and what would follow from that is lost.
        vm.signal(after.component("client")?.running_pid()?, SIGKILL).await?;
        said(vm, "after an internal error", 2).await
    };
    vm.step("it fails in the midst of an event", midst).await?;
    vm.wait_state("client", "ACTIVE", Some(after.revision), REACTION).await?;
    same_processes(&before, &vm.status().await?, "client")?;
    answers(vm).await?;

    vm.step(
        "the machine ends in order",
        power_off(vm, async { vm.run(&["graphctl", "poweroff"], POWER_OFF).await.map(drop) }),
    )
    .await
}

pub async fn lost_state_is_made_anew(vm: &Vm) -> Result<(), Failure> {
    let before = begin(vm).await?;
    // What somebody has put into a group of ours, and what says that it is a component and is not in its group.
    let echo = before.component("echo")?.running_pid()?;
    vm.sh(&format!(
        "mkdir {GROUPS}/ghost; sh -c 'echo $$ > {GROUPS}/ghost/cgroup.procs; setsid sleep 100000 < /dev/null > /dev/null 2>&1 &'"
    ))
    .await?;
    vm.sh("GRAPH_COMPONENT=echo GRAPH_GENERATION=1 setsid sleep 200000 < /dev/null > /dev/null 2>&1 &")
        .await?;
    let lost = async {
        vm.signal(1, FAIL_STATELESS).await?;
        said(vm, "the state is lost", 1).await
    };
    vm.step("it fails and leaves no state", lost).await?;
    vm.wait_state("client", "ACTIVE", None, ENDING).await?;
    vm.wait_settled(ENDING).await?;
    let after = vm.status().await?;
    same_processes(&before, &after, "")?;
    answers(vm).await?;
    let strangers = vm.sh("pgrep -x sleep || true").await?;
    check!(strangers.is_empty(), "of what belongs to nothing there is left: {strangers}");
    let why = vm.graphctl(&["why", "client"]).await?;
    check!(why.contains("lost its state"), "graphctl why client says `{why}`");
    // It looks after them as before, with their groups.
    vm.signal(echo, SIGKILL).await?;
    vm.wait_state("client", "ACTIVE", Some(after.revision), REACTION).await?;
    answers(vm).await?;
    let terminate = async { vm.run(&["graphctl", "poweroff"], POWER_OFF).await.map(drop) };
    vm.step("the machine ends in order", power_off(vm, terminate)).await
}

pub async fn internal_errors_end_in_a_shell(vm: &Vm) -> Result<(), Failure> {
    let before = begin(vm).await?;
    for error in 1..=TOO_MANY {
        vm.signal(1, FAIL_NOW).await?;
        vm.step(&format!("internal error {error}"), said(vm, "internal error: panicked", error)).await?;
        if error < TOO_MANY {
            said(vm, "after an internal error", error).await?;
            same_processes(&before, &vm.status().await?, "")?;
        }
    }
    said(vm, "a shell is on the console", 1).await?;
    vm.step("a shell", vm.sh(&format!("until test -n \"$({SHELLS})\"; do sleep 0.05; done"))).await?;
    let asked = vm.run(&["timeout", "2", "graphctl", "status"], REACTION).await?;
    check!(!asked.success(), "a supervisor that has given up answers `{}`", asked.text());
    answers(vm).await?;
    let client = before.component("client")?.running_pid()?;
    vm.signal(client, SIGKILL).await?;
    vm.wait_process_gone(client, "the process of a component", REACTION).await?;
    let terminate = async {
        // The machine may end before the agent has answered; how it ended is looked at anyway.
        drop(vm.signal(1, SIGTERM).await);
        Ok(())
    };
    vm.step("SIGTERM powers off", power_off(vm, terminate)).await
}

async fn power_off(vm: &Vm, ask: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    ask.await?;
    let ended = vm.ended(POWER_OFF).await?;
    let cause = ended.cause.as_ref();
    let seen = cause.map_or("QEMU ended without a word", ShutdownCause::describe);
    check!(cause == Some(&ShutdownCause::GuestShutdown), "the machine did not switch off: {seen}");
    Ok(())
}
