//! Services with namespaces of their own: what they see, what they may and what they are limited to is the same after a
//! checkpoint, a restore and a move as before.

use std::collections::BTreeSet;

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::refused::declaration;
use super::{REACTION, attempt, checkpoint, pid_of, restore, upgrade};

/// What a service has for itself, and a part of what it has then.
struct Cell {
    name: &'static str,
    more: &'static str,
    /// Kinds of namespaces that are its own.
    own: &'static [&'static str],
    /// Its memory and its processes are limited.
    is_limited: bool,
}

/// With everything that can be taken along.
const ISOLATED: Cell = Cell {
    name: "isolated",
    more: "[isolation]\nnamespaces = [\"mount\", \"pid\", \"uts\", \"ipc\"]\nhostname = \"cell\"\n\
           private_tmp = true\nhidepid = true\nread_only = [\"/etc\", \"/usr\"]\ninaccessible = [\"/root\", \"/etc/shadow\"]\n\
           tmpfs = [\"/mnt:size=1M\", \"/tmp/inner\"]\nbinds = [\"/srv:/opt:ro\"]\n\
           secrets = { key = \"/etc/hostname\" }\n\
           [security]\nuser = \"nobody\"\nno_new_privs = true\ncapabilities = [\"CAP_NET_RAW\"]\n\
           seccomp = [\"~reboot\"]\n\
           [resources]\nmemory_max = \"64M\"\npids_max = 20\nfiles_max = 100\n",
    own: &["ipc", "mnt", "pid", "uts"],
    is_limited: true,
};
/// With a root directory in which there is hardly anything.
const JAILED: Cell = Cell {
    name: "jailed",
    more: "[isolation]\nnamespaces = [\"mount\", \"pid\"]\nroot = \"/srv/jail\"\nread_only = [\"/\"]\n\
           private_tmp = true\n\
           binds = [\"/usr:/usr:ro\", \"/bin:/bin:ro\", \"/lib:/lib:ro\", \"/run/cell:/run/cell\"]\n",
    own: &["mnt", "pid"],
    is_limited: false,
};
/// All of it read-only, and clocks of its own.
const CLOCKED: Cell = Cell {
    name: "clocked",
    more: "[isolation]\nnamespaces = [\"mount\", \"time\"]\nread_only = [\"/\"]\nprivate_tmp = true\n\
           binds = [\"/run/cell:/run/cell\"]\n",
    own: &["mnt", "time"],
    is_limited: false,
};

pub async fn namespaces_and_limits(vm: &Vm) -> Result<(), Failure> {
    vm.sh("mkdir -p /run/cell /srv/jail; cd /srv/jail; mkdir -p usr bin lib proc tmp run/cell").await?;
    // The first has of nearly everything something.
    for cell in [ISOLATED, JAILED, CLOCKED].iter().take(vm.amount(3, 1)) {
        cell.goes_along(vm).await?;
    }
    Ok(())
}

impl Cell {
    async fn goes_along(&self, vm: &Vm) -> Result<(), Failure> {
        let name = self.name;
        vm.sh("rm -f /run/cell/lines; mkfifo -m 666 /run/cell/lines").await?;
        vm.declare("cell.toml", &declaration(name, self.more)).await?;
        vm.wait_state(name, "ACTIVE", None, REACTION).await?;
        self.counts(vm, 1).await?;
        let before = Seen::of(vm, name).await?;
        let own: BTreeSet<_> = self.own.iter().copied().map(str::to_owned).collect();
        check!(before.own == own, "{name} has for itself {:?}", before.own);
        let limits = if self.is_limited { ["67108864", "20"].as_slice() } else { &[] };
        check!(
            limits.iter().all(|limit| before.limits.lines().any(|line| line == *limit)),
            "the limits of {name} are {}",
            before.limits
        );
        let machine = mounts_of_the_machine(vm).await?;
        let made = checkpoint(vm, name).await?;
        self.counts(vm, 2).await?;
        let again = restore(vm, name, &made.id).await?;
        check!(again.passed_over.is_none(), "{name} was started anew: {again:?}");
        // Of what it had counted the second was after the checkpoint.
        self.is_as_before(vm, &before, "a restore").await?;
        self.counts(vm, 2).await?;
        for times in 3..=4 {
            let done = upgrade(vm, name).await?;
            check!(done.level == "checkpoint", "{name} was upgraded by {done:?}");
            self.is_as_before(vm, &before, "a move").await?;
            self.counts(vm, times).await?;
        }
        let left = mounts_of_the_machine(vm).await?;
        check!(left == machine, "mounts were left on the machine: {left}");
        vm.undeclare("cell.toml").await?;
        vm.wait_state(name, "REMOVED", None, REACTION).await
    }

    /// Have it count one more, by the file in its own `/tmp` that it has had open from the beginning.
    async fn counts(&self, vm: &Vm, times: u64) -> Result<(), Failure> {
        let pid = pid_of(vm, self.name).await?;
        vm.sh("echo one > /run/cell/lines").await?;
        let condition = format!("[ $(tail -n 1 /proc/{pid}/root/tmp/counted) = {times} ]");
        vm.until(&format!("{} counts {times}", self.name), &condition, REACTION).await.map(drop)
    }

    async fn is_as_before(&self, vm: &Vm, before: &Seen, what: &str) -> Result<(), Failure> {
        let name = self.name;
        let after = Seen::of(vm, name).await?;
        check!(
            before.own.is_subset(&after.own),
            "after {what} {name} has no more for itself than {:?}",
            after.own
        );
        check!(
            before.mounts == after.mounts,
            "after {what} {name} has no more {:?}, and has {:?}",
            before.mounts.difference(&after.mounts).collect::<Vec<_>>(),
            after.mounts.difference(&before.mounts).collect::<Vec<_>>()
        );
        check!(
            before.rights == after.rights,
            "after {what} {name} may {}, and could {}",
            after.rights,
            before.rights
        );
        check!(before.limits == after.limits, "after {what} the limits of {name} are {}", after.limits);
        let file = vm.sh(&format!("cat /proc/{}/root/tmp/file", after.pid)).await?;
        check!(file == "private\n", "after {what} the file of {name} is {file:?}");
        // It compares what the file asks for with what the kernel says.
        let (same, text, error) = attempt(vm, &["inspect", name]).await?;
        // Clocks of its own go on from where they were.
        let differs = text.lines().any(|line| line.contains("differs") && !line.contains("time_offsets"));
        check!(
            same || (text.contains("differs") && !differs),
            "after {what} inspect says of {name}: {text}{error}"
        );
        Ok(())
    }
}

/// What a service sees, may and is limited to.
struct Seen {
    pid: i32,
    own: BTreeSet<String>,
    mounts: BTreeSet<String>,
    rights: String,
    limits: String,
}

impl Seen {
    async fn of(vm: &Vm, name: &str) -> Result<Self, Failure> {
        let pid = pid_of(vm, name).await?;
        let script = format!(
            "for kind in cgroup ipc mnt net pid time user uts; do \
             [ $(readlink /proc/{pid}/ns/$kind) = $(readlink /proc/1/ns/$kind) ] || echo $kind; done"
        );
        let own = vm.sh(&script).await?.lines().map(str::to_owned).collect();
        let mounts = vm.read(&format!("/proc/{pid}/mountinfo")).await?.lines().filter_map(mount).collect();
        let rights = vm
            .sh(&format!(
                "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp)' /proc/{pid}/status; \
                 grep 'open files' /proc/{pid}/limits; cat /proc/{pid}/oom_score_adj; \
                 nsenter -t {pid} -u hostname"
            ))
            .await?;
        // Those of the component's group, in which each of its processes has one. Without limits there are no such files.
        let limits = format!(
            "grep -o ':/graph/{name}' /proc/{pid}/cgroup; cd /sys/fs/cgroup/graph/{name}; \
             cat memory.max pids.max 2> /dev/null || true"
        );
        Ok(Self { pid, own, mounts, rights, limits: vm.sh(&limits).await? })
    }
}

/// By its meaning: where, what of which kind of file system, and what may be done there. Numbers are others each time.
fn mount(line: &str) -> Option<String> {
    let (own, of_kind) = line.split_once(" - ")?;
    let own: Vec<_> = own.split(' ').collect();
    let of_kind: Vec<_> = of_kind.split(' ').collect();
    Some(format!("{} {} {} {} {}", own.get(4)?, own.get(3)?, own.get(5)?, of_kind.first()?, of_kind.get(2)?))
}

async fn mounts_of_the_machine(vm: &Vm) -> Result<String, Failure> {
    vm.read("/proc/1/mountinfo").await
}
