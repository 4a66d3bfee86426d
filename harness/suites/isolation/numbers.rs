//! What is told of a component's use, and what many components leave.

use super::{GROUPS, LONG_BUDGET, REACTION, component, group_number};
use crate::check;
use crate::failure::Failure;
use crate::ledger;
use crate::vm::Vm;

pub async fn resource_monitoring(vm: &Vm) -> Result<(), Failure> {
    const TAKEN: u64 = 8 << 20;
    let limits = "[resources]\nmemory_max = \"32M\"\npids_max = 4";
    let user =
        component("user", "/usr/local/bin/test-hog", &["--kind", "memory", "--mebibytes", "8"], limits);
    vm.declare("user.toml", &user).await?;
    vm.wait_state("user", "ACTIVE", None, REACTION).await?;
    vm.until("it has taken its memory", "grep -q 'has taken 8 MiB' /run/graph/user.log", 2 * REACTION)
        .await?;
    let memory = group_number(vm, "user", "memory.current", None).await?;
    check!(memory >= TAKEN, "8 MiB were taken, and {memory} bytes are in use");
    let tasks = group_number(vm, "user", "pids.current", None).await?;
    check!(tasks == 1, "it has one process, and {tasks} are counted");
    let used = group_number(vm, "user", "cpu.stat", Some("usage_usec")).await?;
    check!(used > 0, "it has touched 8 MiB in no time");
    Ok(())
}

/// Short isolated components that run and are taken away again, a number of them at a time.
pub async fn many_isolated_components_leave_nothing(vm: &Vm) -> Result<(), Failure> {
    const AT_ONCE: usize = 20;
    let rounds = vm.amount(25, 2);
    let before = ledger::take(vm).await?;
    for _ in 0..rounds {
        round(vm, AT_ONCE).await?;
    }
    let mut after = ledger::take(vm).await?;
    // What has just ended may be on its way out.
    for _ in 0..20 {
        if ledger::compare(&before, &after).findings.is_empty() {
            break;
        }
        vm.sh("sleep 0.1").await?;
        after = ledger::take(vm).await?;
    }
    let balance = ledger::compare(&before, &after);
    let found: Vec<_> = balance.findings.iter().map(|finding| finding.text.as_str()).collect();
    check!(found.is_empty(), "{} components left {found:?}", rounds * AT_ONCE);
    // By number, too: nothing of this is anybody's any more. The kernel's own memory is not counted in things.
    for row in balance.rows.iter().filter(|row| !row.what.contains("kernel") && !row.what.contains("dying")) {
        // Pipes for a next start are made ahead of time, and the table of mounts is opened once.
        let room = if row.what.contains("descriptors") { 5 } else { 0 };
        check!(row.after <= row.before + room, "{}: {} before, {} now", row.what, row.before, row.after);
    }
    // Groups that are removed while memory is charged to them go when that is taken back.
    vm.sh("sync; echo 3 > /proc/sys/vm/drop_caches").await?;
    let gone = "[ \"$(sed -n 's/^nr_dying_descendants //p' /sys/fs/cgroup/cgroup.stat)\" -le 5 ]";
    vm.until("removed groups give their memory back", gone, 2 * REACTION).await.map(drop)
}

async fn round(vm: &Vm, count: usize) -> Result<(), Failure> {
    let file = component(
        "NAME",
        "/bin/true",
        &[],
        "type = \"oneshot\"\n[isolation]\nnamespaces = [\"pid\", \"mount\", \"uts\", \"ipc\", \"net\"]\nprivate_tmp = false\n\
         [resources]\nmemory_max = \"16M\"\npids_max = 4",
    );
    vm.write("/run/short.toml", &file).await?;
    // Beside the directory first, so that each file appears whole.
    let declare = format!(
        "for i in $(seq {count}); do sed \"s/NAME/short-$i/\" /run/short.toml > /etc/graph.d/.short-$i; \
         mv /etc/graph.d/.short-$i /etc/graph.d/short-$i.toml; done"
    );
    vm.sh(&declare).await?;
    for number in 1..=count {
        vm.wait_state(&format!("short-{number}"), "DONE", None, LONG_BUDGET / 4).await?;
    }
    vm.sh("rm /etc/graph.d/short-*.toml /run/short.toml").await?;
    vm.wait_state(&format!("short-{count}"), "REMOVED", None, REACTION).await?;
    let gone = format!("! ls -d {GROUPS}/short-* >/dev/null 2>&1");
    vm.until("their groups are gone", &gone, 2 * REACTION).await.map(drop)
}
