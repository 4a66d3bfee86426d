//! The conservation ledger itself: it sees what is left behind, and names it.

use crate::check;
use crate::failure::Failure;
use crate::ledger;
use crate::vm::Vm;

/// What is left, how it is taken away again, and what the ledger says of it.
const LEFT: [(&str, &str, &str); 4] = [
    (
        "mkdir -p /sys/fs/cgroup/graph/nobodys",
        "rmdir /sys/fs/cgroup/graph/nobodys",
        "control group graph/nobodys too much: it belongs to no component that is declared",
    ),
    (
        "mount -t tmpfs nobodys /mnt",
        "umount /mnt",
        "mount /mnt (tmpfs of nobodys) too much in the namespace of process 1",
    ),
    (
        "touch /run/graph/nobodys.log",
        "rm /run/graph/nobodys.log",
        "file /run/graph/nobodys.log too much: it belongs to no component that is declared",
    ),
    (
        "mkdir -p /sys/fs/cgroup/graph/network; sh -c 'echo $$ > /sys/fs/cgroup/graph/network/cgroup.procs; \
         exec sleep 10000' >/dev/null 2>&1 & echo $! > /run/nobodys.pid; \
         until grep -q . /sys/fs/cgroup/graph/network/cgroup.procs; do sleep 0.02; done",
        "kill -9 $(cat /run/nobodys.pid); rm /run/nobodys.pid; \
         while grep -q . /sys/fs/cgroup/graph/network/cgroup.procs; do sleep 0.02; done",
        "(sleep) too much: network does not run, it is DONE",
    ),
];

pub async fn ledger_names_what_is_left(vm: &Vm) -> Result<(), Failure> {
    let before = ledger::take(vm).await?;
    for (leave, take_away, expected) in LEFT {
        vm.sh(leave).await?;
        let found = ledger::compare(&before, &ledger::take(vm).await?).findings;
        let texts: Vec<_> = found.iter().map(|finding| finding.text.as_str()).collect();
        check!(
            texts.len() == 1 && texts[0].ends_with(expected),
            "after `{leave}` the ledger says {texts:?}, not {expected:?}"
        );
        vm.sh(take_away).await?;
    }
    Ok(())
}
