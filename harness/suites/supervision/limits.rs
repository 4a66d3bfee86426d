//! Limits that change while what they are for runs on, and limits of a group that has been in use before a start.

use std::time::Duration;

use super::{REACTION, idle};
use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

const GROUP: &str = "/sys/fs/cgroup/graph/limited";
const FILE: &str = "limited.toml";

/// A declaration of limits, and what the kernel shows of it.
struct Limits {
    declared: &'static str,
    /// Files of the control group.
    group: &'static [(&'static str, &'static str)],
    /// The soft and the hard limit of open files; with none declared they are those of its first moment.
    open_files: Option<&'static str>,
}

/// Narrow, narrower in one and wider in others, and lifted.
const CHANGES: [Limits; 3] = [
    Limits {
        declared: "memory_max = \"64M\"\nmemory_swap_max = 0\npids_max = 20\ncpu_max = \"50000 100000\"\nfiles_max = 100",
        group: &[
            ("memory.max", "67108864"),
            ("memory.swap.max", "0"),
            ("memory.oom.group", "0"),
            ("pids.max", "20"),
            ("cpu.max", "50000 100000"),
        ],
        open_files: Some("100 100"),
    },
    Limits {
        declared: "memory_max = \"48M\"\nmemory_swap_max = \"1M\"\nmemory_oom_group = true\npids_max = 30\n\
                   cpu_max = \"20000 50000\"\ncpuset = \"0\"\ncpuset_mems = \"0\"\nfiles_max = 200",
        group: &[
            ("memory.max", "50331648"),
            ("memory.swap.max", "1048576"),
            ("memory.oom.group", "1"),
            ("pids.max", "30"),
            ("cpu.max", "20000 50000"),
            ("cpuset.cpus", "0"),
            ("cpuset.mems", "0"),
        ],
        open_files: Some("200 200"),
    },
    Limits {
        declared: "",
        group: &[
            ("memory.max", "max"),
            ("memory.swap.max", "max"),
            ("memory.oom.group", "0"),
            ("pids.max", "max"),
            ("cpu.max", "max 100000"),
        ],
        open_files: None,
    },
];

pub async fn limits_change_live(vm: &Vm) -> Result<(), Failure> {
    declare(vm, "").await?;
    vm.wait_state("limited", "ACTIVE", None, REACTION).await?;
    let pid = vm.status().await?.component("limited")?.running_pid()?;
    let unlimited = vm.sh(&open_files(pid)).await?;
    for limits in &CHANGES {
        declare(vm, limits.declared).await?;
        let name = if limits.declared.is_empty() { "none" } else { limits.declared };
        vm.step(&format!("declared: {}", name.replace('\n', ", ")), hold(vm, limits, pid, unlimited.trim()))
            .await?;
    }
    vm.step("a limit that cannot be written is named", named(vm, pid)).await
}

/// For [`FILLER`] to write all of that on an emulated processor.
const LONG_REACTION: Duration = Duration::from_secs(20);

/// Leaves 48 MiB behind that count for its control group and that the kernel cannot reclaim.
const FILLER: &str = r#"
[component]
name = "filler"
binary = "/bin/sh"
args = ["-c", """
[ -e /run/filled ] || dd if=/dev/zero of=/run/filled bs=65536 count=768 || exit
touch /run/full
exec /usr/local/bin/test-idle
"""]

[lifecycle]
readiness_file = "/run/full"

[resources]
"#;

pub async fn memory_limits_at_a_start(vm: &Vm) -> Result<(), Failure> {
    vm.step("what the run before left does not count", left_behind(vm)).await?;
    vm.step("a start in a group in use sets its limits", in_use(vm)).await
}

async fn left_behind(vm: &Vm) -> Result<(), Failure> {
    const LEFT: u64 = 40 << 20;
    const GROUP: &str = "/sys/fs/cgroup/graph/filler";
    vm.declare("filler.toml", FILLER).await?;
    vm.wait_state("filler", "ACTIVE", None, LONG_REACTION).await?;
    vm.graphctl(&["stop", "filler"]).await?;
    let current = vm.read(&format!("{GROUP}/memory.current")).await?;
    let charged = current.trim().parse::<u64>().is_ok_and(|bytes| bytes > LEFT);
    if !charged {
        return Err(Failure::harness(format!("{} bytes are left in the group, not {LEFT}", current.trim())));
    }
    vm.declare("filler.toml", &format!("{FILLER}memory_max = \"24M\"\n")).await?;
    // From here on the file is known: the limit is one of the start, and no change of what runs.
    vm.graphctl(&["reload"]).await?;
    let stopped = vm.status().await?.revision;
    vm.graphctl(&["start", "filler"]).await?;
    vm.wait_state("filler", "ACTIVE", Some(stopped), LONG_REACTION).await?;
    let status = vm.status().await?;
    let filler = status.component("filler")?;
    check!(filler.restarts == 0, "within its new limit, beside what its last run left, it is {filler:?}");
    has(vm, GROUP, "memory.max", "25165824").await?;
    let members = vm.read(&format!("{GROUP}/cgroup.procs")).await?;
    let pid = filler.running_pid()?;
    check!(members.trim() == pid.to_string(), "its process is {pid}, and in the group are {members:?}");
    Ok(())
}

async fn in_use(vm: &Vm) -> Result<(), Failure> {
    let limits = |more: &str| format!("[resources]\ncgroup = \"together\"\n{more}");
    vm.declare("first.toml", &idle("first", &limits(""))).await?;
    vm.wait_state("first", "ACTIVE", None, REACTION).await?;
    let pid = vm.status().await?.component("first")?.running_pid()?;
    vm.declare("second.toml", &idle("second", &limits("memory_max = \"64M\"\npids_max = 50"))).await?;
    vm.wait_state("second", "ACTIVE", None, REACTION).await?;
    for (file, value) in [("memory.max", "67108864"), ("pids.max", "50")] {
        has(vm, "/sys/fs/cgroup/graph/together", file, value).await?;
    }
    let status = vm.status().await?;
    let first = status.component("first")?;
    check!(first.pid == Some(pid), "the other one in the group is {first:?}, not process {pid}");
    Ok(())
}

/// What is asked for at a start is there when the process is.
async fn has(vm: &Vm, group: &str, file: &str, value: &str) -> Result<(), Failure> {
    let is = vm.read(&format!("{group}/{file}")).await?;
    check!(
        is.trim() == value,
        "of a process that was started {group}/{file} is {:?}, not {value}",
        is.trim()
    );
    Ok(())
}

async fn declare(vm: &Vm, limits: &str) -> Result<(), Failure> {
    vm.declare(FILE, &idle("limited", &format!("[resources]\n{limits}"))).await
}

async fn hold(vm: &Vm, limits: &Limits, pid: i32, unlimited: &str) -> Result<(), Failure> {
    for (file, value) in limits.group {
        becomes(vm, &format!("cat {GROUP}/{file}"), value).await?;
    }
    if limits.declared.is_empty() {
        let effective = "cpuset.cpus.effective";
        let all = vm.read(&format!("/sys/fs/cgroup/graph/{effective}")).await?;
        becomes(vm, &format!("cat {GROUP}/{effective}"), all.trim()).await?;
    }
    becomes(vm, &open_files(pid), limits.open_files.unwrap_or(unlimited)).await?;
    runs_on(vm, pid, None).await
}

/// The kernel is kept from taking one limit by a file that can only be read.
async fn named(vm: &Vm, pid: i32) -> Result<(), Failure> {
    const SAID: &str = "the new limits do not hold: pids.max: Read-only file system";
    let file = format!("{GROUP}/pids.max");
    vm.sh(&format!("mount -o bind {file} {file}; mount -o remount,ro,bind {file}")).await?;
    declare(vm, "pids_max = 40").await?;
    becomes(vm, &format!("graphctl status --json | grep -o '{SAID}'"), SAID).await?;
    runs_on(vm, pid, Some(SAID)).await?;
    vm.sh(&format!("umount {file}")).await?;
    declare(vm, "pids_max = 50").await?;
    becomes(vm, &format!("cat {file}"), "50").await?;
    becomes(vm, &format!("graphctl status --json | grep -c '{SAID}' || true"), "0").await?;
    runs_on(vm, pid, None).await
}

async fn runs_on(vm: &Vm, pid: i32, said: Option<&str>) -> Result<(), Failure> {
    let status = vm.status().await?;
    let limited = status.component("limited")?;
    let detail = limited.detail.as_deref();
    check!(
        limited.state == "ACTIVE" && limited.pid == Some(pid) && limited.restarts == 0,
        "after a change of its limits process {pid} is {limited:?}"
    );
    let right = said.map_or(detail.is_none(), |said| detail.is_some_and(|detail| detail.contains(said)));
    check!(right, "after a change of its limits its detail is {detail:?}, not {said:?}");
    Ok(())
}

fn open_files(pid: i32) -> String {
    format!("awk '/^Max open files/ {{ print $4, $5 }}' /proc/{pid}/limits")
}

/// The supervisor follows a file when it hears of it, and writes limits beside its work: what a command prints becomes
/// this.
async fn becomes(vm: &Vm, command: &str, expected: &str) -> Result<(), Failure> {
    let script = format!(
        "n=0; until [ \"$({command})\" = '{expected}' ]; do n=$((n+1)); [ $n -le 50 ] || exit 1; sleep 0.1; done"
    );
    if vm.run(&["/bin/sh", "-c", &script], 2 * REACTION).await?.success() {
        return Ok(());
    }
    let shown = vm.run(&["/bin/sh", "-c", command], REACTION).await?.text();
    Err(Failure::supervisor(format!("`{command}` shows {:?} and not {expected:?}", shown.trim())))
}
