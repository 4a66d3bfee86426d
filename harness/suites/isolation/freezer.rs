//! Components that are frozen and thawed.

use yakiros_vm::agent::Connection;

use super::{GROUPS, REACTION, component, group_number};
use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

/// Says when it is told to end, and does.
const ORDERLY: &str =
    "trap 'echo told > /run/orderly; exit 7' TERM; touch /run/orderly.ready; while :; do sleep 0.05; done";

pub async fn freeze_and_thaw(vm: &Vm) -> Result<(), Failure> {
    clients_are_answered_after_the_thaw(vm).await?;
    what_is_frozen_ends_in_order(vm).await
}

/// Nothing runs, and nothing of the connections is lost.
async fn clients_are_answered_after_the_thaw(vm: &Vm) -> Result<(), Failure> {
    let before = vm.status().await?;
    let pid = before.component("neighbour")?.running_pid()?;
    let mut connection = vm.connect("127.0.0.1:8080").await?;
    send(vm, &mut connection, b"before").await?;
    answered(vm, &mut connection, b"before").await?;
    vm.graphctl_within(&["freeze", "neighbour"], REACTION).await?;
    let events = vm.read(&format!("{GROUPS}/neighbour/cgroup.events")).await?;
    check!(events.contains("frozen 1"), "of what is frozen the kernel says: {events}");
    let used = group_number(vm, "neighbour", "cpu.stat", Some("usage_usec")).await?;
    send(vm, &mut connection, b"meanwhile").await?;
    // The kernel takes connections for a listener that nobody serves.
    let mut other = vm.connect("127.0.0.1:8080").await?;
    send(vm, &mut other, b"new").await?;
    let shown = vm.graphctl(&["status", "neighbour"]).await?;
    check!(shown.contains("ACTIVE (frozen)"), "what is frozen is shown as: {shown}");
    let now = group_number(vm, "neighbour", "cpu.stat", Some("usage_usec")).await?;
    check!(now == used, "while it was frozen it used {} us of a processor", now - used);
    vm.graphctl_within(&["thaw", "neighbour"], REACTION).await?;
    answered(vm, &mut connection, b"meanwhile").await?;
    answered(vm, &mut other, b"new").await?;
    let after = vm.status().await?;
    let after = after.component("neighbour")?;
    check!(after.pid == Some(pid) && after.restarts == 0, "after the thaw it is {after:?}");
    Ok(())
}

async fn send(vm: &Vm, connection: &mut Connection, line: &[u8]) -> Result<(), Failure> {
    vm.ask("send to the component", REACTION, connection.send(line)).await
}

async fn answered(vm: &Vm, connection: &mut Connection, expected: &[u8]) -> Result<(), Failure> {
    let answer = async { connection.receive(vm.limit(REACTION)).await };
    let answer = vm.ask("wait for the answer", REACTION, answer).await?;
    check!(answer.as_deref() == Some(expected), "the answer is {answer:?} and not {expected:?}");
    Ok(())
}

/// It is told to end, thawed, and has its grace from there.
async fn what_is_frozen_ends_in_order(vm: &Vm) -> Result<(), Failure> {
    vm.declare("orderly.toml", &component("orderly", "/bin/sh", &["-c", ORDERLY], "")).await?;
    vm.wait_path("/run/orderly.ready", REACTION).await?;
    vm.graphctl_within(&["freeze", "orderly"], REACTION).await?;
    let since = vm.status().await?.revision;
    vm.graphctl_within(&["stop", "orderly"], REACTION).await?;
    check!(vm.read("/run/orderly").await?.trim() == "told", "it has not heard SIGTERM");
    let journal = vm.graphctl(&["events", "--since", &since.to_string()]).await?;
    check!(journal.contains("exited with status 7"), "of its end the journal says: {journal}");
    vm.undeclare("orderly.toml").await?;
    vm.wait_state("orderly", "REMOVED", None, REACTION).await?;
    vm.wait_gone(&format!("{GROUPS}/orderly"), REACTION).await?;
    vm.sh("rm /run/orderly /run/orderly.ready").await?;
    Ok(())
}
