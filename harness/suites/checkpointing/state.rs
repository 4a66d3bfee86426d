//! What a service remembers, and who remembers the service.

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::client::Client;
use super::{REACTION, STATEFUL, checkpoint, pid_of, restore, upgrade};

pub async fn manual_checkpoint(vm: &Vm) -> Result<(), Failure> {
    let mut client = Client::connect(vm).await?;
    for _ in 0..5 {
        client.increment(vm).await?;
    }
    let pid = pid_of(vm, STATEFUL).await?;
    let since = vm.status().await?.revision;
    let made = checkpoint(vm, STATEFUL).await?;
    check!(made.bytes > 0 && made.took_us > 0, "it is said to be {made:?}");
    // It runs on, on the same connection.
    check!(client.increment(vm).await? == 6, "the service has not counted on");
    check!(pid_of(vm, STATEFUL).await? == pid, "the service is another process");
    let told = vm.graphctl(&["events", STATEFUL, "--since", &since.to_string()]).await?;
    check!(told.contains(&made.id), "of the checkpoint the journal says {told}");
    for _ in 0..3 {
        client.increment(vm).await?;
    }
    let again = restore(vm, STATEFUL, &made.id).await?;
    check!(again.id.as_deref() == Some(&made.id), "it goes on from {again:?}");
    let mut client = Client::connect(vm).await?;
    let counted = client.count(vm).await?;
    check!(counted == 5, "it was written down at 5, and goes on at {counted}");
    let status = vm.status().await?;
    let service = status.component(STATEFUL)?;
    check!(
        service.state == "ACTIVE" && service.pid == again.pid && service.pid.is_some(),
        "of {again:?} the status is {service:?}"
    );
    it_is_supervised(vm, service.running_pid()?).await?;
    vm.metric("restore_time", "us", again.took_us.unwrap_or_default() as f64);
    Ok(())
}

/// What came from a checkpoint is the supervisor's child in its own group, is probed, and comes back when it is killed.
async fn it_is_supervised(vm: &Vm, pid: i32) -> Result<(), Failure> {
    let parent = vm.sh(&format!("awk '/^PPid/ {{ print $2 }}' /proc/{pid}/status")).await?;
    check!(parent.trim() == "1", "its parent is {}", parent.trim());
    let group = vm.sh(&format!("cat /proc/{pid}/cgroup")).await?;
    check!(group.contains(STATEFUL), "it is in the group {group}");
    let since = vm.status().await?.revision;
    vm.signal(pid, 9).await?;
    vm.wait_state(STATEFUL, "ACTIVE", Some(since), REACTION).await?;
    let counted = Client::connect(vm).await?.count(vm).await?;
    check!(counted == 0, "what was started anew has counted {counted}");
    Ok(())
}

pub async fn state_preservation(vm: &Vm) -> Result<(), Failure> {
    let mut client = Client::connect(vm).await?;
    let mut idle = Client::connect(vm).await?;
    for _ in 0..7 {
        client.increment(vm).await?;
    }
    client.tell(vm, "remember this").await?;
    let pid = pid_of(vm, STATEFUL).await?;
    let monitor = pid_of(vm, "test-monitor").await?;
    let since = vm.status().await?.revision;
    let done = upgrade(vm, STATEFUL).await?;
    check!(done.level == "checkpoint", "it was upgraded by {done:?}");
    let status = client.status(vm).await?;
    check!(
        status["counter"] == 7 && status["last_message"] == "remember this",
        "on the connection that it had it says {status}"
    );
    check!(status["upgrades"] == 0, "another process has taken over: {status}");
    check!(idle.increment(vm).await? == 8, "a connection that was idle has lost something");
    check!(pid_of(vm, STATEFUL).await? == pid, "it has another number");
    check!(pid_of(vm, "test-monitor").await? == monitor, "who needs it was restarted");
    let status = vm.status().await?;
    check!(status.component(STATEFUL)?.restarts == 0, "a move is counted as a restart");
    let told = vm.graphctl(&["events", "--since", &since.to_string()]).await?;
    check!(!told.contains("INACTIVE") && !told.contains("FAILED"), "its capability went down: {told}");
    // What it writes goes where it went.
    let log = vm.graphctl(&["log", STATEFUL, "50"]).await?;
    check!(log.contains("listening on"), "its log is {log}");
    vm.metric("move_gap", "us", done.gap_us.unwrap_or_default() as f64);
    Ok(())
}
