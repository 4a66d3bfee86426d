//! A disk that has no room, and one that fills up while a checkpoint is made.

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::client::Client;
use super::tripwire::{TELL, Tripwire};
use super::{KEPT, REACTION, STATEFUL, attempt, checkpoint, list, pid_of, upgrade, with_ballast};

/// Memory of the service, in MiB.
const STATE: u64 = 16;
/// At these steps of CRIU, and after the last of its own, the disk fills up.
const STEPS: [&str; 4] =
    ["Running pre-dump scripts", "Dumping core", "Running post-dump scripts", "Writing stats"];

pub async fn a_full_disk(vm: &Vm) -> Result<(), Failure> {
    with_ballast(vm, STATE, REACTION).await?;
    vm.sh(&format!("mkdir -p {KEPT} && mount -t tmpfs -o mode=700 tmpfs {KEPT}")).await?;
    vm.step("no room", no_room(vm)).await?;
    let wire = Tripwire::criu(vm).await?;
    for step in STEPS.iter().step_by(vm.amount(1, 2)) {
        vm.step(&format!("it fills up at {step}"), fills_up(vm, &wire, step)).await?;
    }
    wire.remove(vm).await?;
    vm.sh(&format!("umount {KEPT}")).await.map(drop)
}

/// A file system of so many bytes beyond what is there.
async fn resize(vm: &Vm, bytes: u64) -> Result<(), Failure> {
    vm.sh(&format!("rm -f {KEPT}/filler; mount -o remount,size={bytes} {KEPT}")).await.map(drop)
}

/// That is seen before anything is begun.
async fn no_room(vm: &Vm) -> Result<(), Failure> {
    const ROOM: u64 = 8 << 20;
    resize(vm, ROOM).await?;
    let mut client = Client::connect(vm).await?;
    client.increment(vm).await?;
    let pid = pid_of(vm, STATEFUL).await?;
    let (done, text, error) = attempt(vm, &["checkpoint", STATEFUL]).await?;
    check!(!done, "a service with {STATE} MiB was written to a disk with 8 MiB: {text}");
    let numbers: Vec<u64> =
        error.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
    check!(
        numbers.iter().any(|number| *number >= STATE << 20)
            && numbers.iter().any(|number| (1 << 20..=ROOM).contains(number)),
        "what is needed and what is free is not said: {error}"
    );
    nothing_is_left(vm, pid, &mut client, 2).await?;
    let done = upgrade(vm, STATEFUL).await?;
    let why = done.passed_over.first();
    check!(
        done.level == "fd-passing"
            && why.is_some_and(|why| why.level == "checkpoint" && why.reason.contains("room for")),
        "without room the upgrade was {done:?}"
    );
    check!(client.increment(vm).await? == 3, "by passing descriptors it has lost its count");
    Ok(())
}

async fn fills_up(vm: &Vm, wire: &Tripwire, step: &str) -> Result<(), Failure> {
    resize(vm, 3 * (STATE << 20)).await?;
    vm.graphctl_within(&["restart", STATEFUL], REACTION).await?;
    vm.wait_state(STATEFUL, "ACTIVE", None, REACTION).await?;
    let mut client = Client::connect(vm).await?;
    client.increment(vm).await?;
    let pid = pid_of(vm, STATEFUL).await?;
    let fill = format!("cat /dev/zero > {KEPT}/filler");
    wire.set(vm, &format!("{TELL}run {fill}; {step}")).await?;
    let (done, text, error) = attempt(vm, &["checkpoint", STATEFUL]).await?;
    wire.was_tripped(vm, step).await?;
    check!(!done, "on a full disk it was written: {text}");
    check!(error.contains("No space left on device"), "of a disk that is full it says {error}");
    nothing_is_left(vm, pid, &mut client, 2).await?;
    wire.set(vm, "").await?;
    // It was the disk, and nothing else.
    resize(vm, 3 * (STATE << 20)).await?;
    let made = checkpoint(vm, STATEFUL).await?;
    vm.graphctl(&["checkpoint-rm", STATEFUL, &made.id]).await.map(drop)
}

/// It runs on, with its clients, and nothing half made takes room.
async fn nothing_is_left(vm: &Vm, pid: i32, client: &mut Client, next: u64) -> Result<(), Failure> {
    check!(pid_of(vm, STATEFUL).await? == pid, "the service is another one");
    let counted = client.increment(vm).await?;
    check!(counted == next, "it does not count on: {counted}");
    check!(list(vm, STATEFUL).await?.is_empty(), "something is kept");
    let left = vm.sh(&format!("find {KEPT} -mindepth 1 ! -name filler")).await?;
    check!(left.trim().is_empty(), "what is left is {left}");
    Ok(())
}
