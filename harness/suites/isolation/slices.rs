//! Groups that components share: what is in one is limited together, and told of.

use super::{GROUPS, REACTION, group_number, hog};
use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

/// The slice's group.
const GROUP: &str = "batch.slice";

/// Has limits for all that is in it.
fn slice(mebibytes: u64) -> String {
    format!("[slice]\nname = \"batch\"\n[resources]\nmemory_max = \"{mebibytes}M\"\nmemory_swap_max = 0\n")
}

/// Takes so much memory and keeps it.
fn tenant(name: &str, mebibytes: u64) -> String {
    let more = "[resources]\nslice = \"batch\"\non_oom = \"stop\"";
    let file = hog(name, "memory", more);
    file.replace("\"memory\"", &format!("\"memory\", \"--mebibytes\", \"{mebibytes}\""))
}

pub async fn slice_limits(vm: &Vm) -> Result<(), Failure> {
    for name in ["one", "two"] {
        vm.declare(&format!("{name}.toml"), &tenant(name, 12)).await?;
    }
    let waiting = vm.graphctl(&["status", "one"]).await?;
    check!(waiting.contains("waits for slice batch"), "without its slice it is told: {waiting}");
    vm.declare("batch.toml", &slice(64)).await?;
    for name in ["one", "two"] {
        vm.wait_state(name, "ACTIVE", None, REACTION).await?;
        let memory = format!("[ $(cat {GROUPS}/{GROUP}/{name}/memory.current) -ge {} ]", 12 << 20);
        vm.until("a tenant has its memory", &memory, 2 * REACTION).await?;
    }
    told_once_with_its_owner(vm).await?;
    changed_while_used(vm).await?;
    shown(vm).await?;
    vm.undeclare("batch.toml").await?;
    for name in ["one", "two", "late"] {
        vm.wait_state(name, "INACTIVE", None, REACTION).await?;
        vm.undeclare(&format!("{name}.toml")).await?;
        vm.wait_state(name, "REMOVED", None, REACTION).await?;
    }
    vm.wait_gone(&format!("{GROUPS}/{GROUP}"), REACTION).await
}

/// The largest in the slice goes when there is no room, for the limit of the slice, and nobody else does.
async fn told_once_with_its_owner(vm: &Vm) -> Result<(), Failure> {
    let before = vm.status().await?.revision;
    vm.declare("glutton.toml", &tenant("glutton", 0)).await?;
    vm.wait_state("glutton", "FAILED", Some(before), 4 * REACTION).await?;
    let peak = group_number(vm, GROUP, "memory.peak", None).await?;
    check!(peak <= 64 << 20, "in a slice of 64 MiB {peak} bytes were in use");
    let journal = vm.graphctl(&["events", "--since", &before.to_string()]).await?;
    // The change of state that follows has the same cause.
    let kills = journal.lines().filter(|line| line.contains("→ ACTIVE, out of memory"));
    let named = |line: &str| {
        line.contains("glutton: ")
            && line.contains("no room in the limit of slice batch (memory.max 64M)")
            && line.contains("(test-hog)")
    };
    let told: Vec<_> = kills.map(named).collect();
    check!(told == [true], "of the kill the journal says: {journal}");
    let status = vm.status().await?;
    for name in ["one", "two"] {
        let tenant = status.component(name)?;
        check!(tenant.state == "ACTIVE" && tenant.restarts == 0, "beside the glutton {name} is {tenant:?}");
    }
    vm.undeclare("glutton.toml").await?;
    vm.wait_state("glutton", "REMOVED", None, REACTION).await
}

/// Another limit holds for what runs, also after the supervisor has executed itself again.
async fn changed_while_used(vm: &Vm) -> Result<(), Failure> {
    vm.graphctl(&["reexec"]).await?;
    let first = vm.status().await?.component("one")?.running_pid()?;
    for mebibytes in [48, 96] {
        vm.declare("batch.toml", &slice(mebibytes)).await?;
        let set = format!("[ $(cat {GROUPS}/{GROUP}/memory.max) = {} ]", mebibytes << 20);
        vm.until(&format!("the slice has {mebibytes} MiB"), &set, REACTION).await?;
    }
    // More than there was room for before.
    vm.declare("late.toml", &tenant("late", 50)).await?;
    vm.wait_state("late", "ACTIVE", None, REACTION).await?;
    let full = format!("[ $(cat {GROUPS}/{GROUP}/memory.current) -ge {} ]", 70 << 20);
    vm.until("more than before is in use", &full, 4 * REACTION).await?;
    let after = vm.status().await?.component("one")?.running_pid()?;
    check!(after == first, "for a limit of its slice process {first} was replaced by {after}");
    Ok(())
}

/// What there is to see of it.
async fn shown(vm: &Vm) -> Result<(), Failure> {
    let slices = vm.graphctl(&["slices"]).await?;
    check!(
        slices.contains("batch") && slices.contains("3/3") && slices.contains("memory.max 100663296"),
        "of slices is told: {slices}"
    );
    let top = vm.graphctl(&["top", "--once", "--sort", "name", "--interval", "0.1"]).await?;
    check!(top.contains("\nbatch/ ") && top.contains("\n  one "), "of use is told: {top}");
    let felt = vm.graphctl(&["inspect", "one"]).await?;
    check!(felt.contains("100663296, of slice batch"), "of limits is told: {felt}");
    Ok(())
}
