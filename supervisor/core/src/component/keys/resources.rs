//! Keys of the control group and of limits.

use super::{EMPTY, FALSE, Fallback, Key, NO_LIMIT, NONE, OWN, Shape, key, words};
use crate::component::{Controller, OnOom};

/// The highest weight that the kernel takes.
const WEIGHT_MAX: u64 = 10_000;

/// The most processes that Linux can have (`PID_MAX_LIMIT` on 64 bits).
const PIDS_MAX: u64 = 4_194_304;

/// A process has standard input, output and error at least.
const FILES_MIN: u64 = 3;

/// The most descriptors that Linux can give a process (`sysctl_nr_open_max` on 64 bits).
const FILES_MAX: u64 = 1_073_741_816;

pub(super) const RESOURCES: &[Key] = &[
    key(
        "cgroup",
        Shape::CgroupPath,
        Fallback::Words("the component's name"),
        "Its control group, below the supervisor's own, or that of the slice.",
    )
    .or(&["cgroup_path"]),
    key(
        "slice",
        Shape::SlicePath,
        NONE,
        "The slice that its control group lies in. All limits of the slice, and of those that it lies in, hold for it too. \
         While no file declares them, the component waits.",
    ),
    key(
        "delegate",
        Shape::Controllers(words::<Controller>),
        FALSE,
        "Whether its control group is given to its user, to make groups in it and to distribute there what the group has. \
         Limits of the group itself stay the supervisor's. With a list, these controllers have to be there; with `true`, \
         those that every group has. At most 1,023 groups can be made, in a depth of 8. Not for a component that hands over.",
    ),
    key("memory_max", Shape::Bytes, NO_LIMIT, "Memory above which the kernel kills (`memory.max`)."),
    key("memory_high", Shape::Bytes, NO_LIMIT, "Memory above which the kernel throttles (`memory.high`)."),
    key("memory_swap_max", Shape::Size, NO_LIMIT, "Swap; 0 for none at all (`memory.swap.max`)."),
    key(
        "memory_oom_group",
        Shape::Truth,
        FALSE,
        "When the kernel kills one process of the group for want of memory it kills all of them (`memory.oom.group`).",
    ),
    key(
        "on_oom",
        Shape::Word(words::<OnOom>),
        Fallback::Value("\"restart\""),
        "What follows when the kernel kills a process of the component for want of memory, also one that it has started: \
         `restart` stops it, dependents first, and starts it again by the restart rule; `stop` leaves it FAILED until it is \
         asked for (`graphctl start`); `continue` only tells. In every case the kill is in the journal, with the limit, \
         the usage and the victim. A service whose own process is gone is started again also with `continue`; a oneshot \
         never is. In a group that several components share, only the end of their own processes counts.",
    ),
    key(
        "cpu_weight",
        Shape::Number(1, WEIGHT_MAX),
        Fallback::Words("the kernel's, 100"),
        "Share of the processors (`cpu.weight`).",
    ),
    key(
        "io_weight",
        Shape::Number(1, WEIGHT_MAX),
        Fallback::Words("the kernel's, 100"),
        "Share of the disks (`io.weight`).",
    ),
    key(
        "io_max",
        Shape::IoMax,
        EMPTY,
        "Bytes (`rbps`, `wbps`) and requests (`riops`, `wiops`) that are read from and written to whole disks in a second \
         (`io.max`).",
    ),
    key("cpu_max", Shape::CpuMax, NO_LIMIT, "Processor time in each period (`cpu.max`)."),
    key("cpuset", Shape::Numbers, Fallback::Words("all"), "Processors that it may run on (`cpuset.cpus`)."),
    key(
        "cpuset_mems",
        Shape::Numbers,
        Fallback::Words("all"),
        "Nodes of memory that it may use (`cpuset.mems`).",
    ),
    key("pids_max", Shape::Number(1, PIDS_MAX), NO_LIMIT, "Processes and threads (`pids.max`).")
        .or(&["processes_max"]),
    key(
        "cpu_pressure",
        Shape::Pressure,
        NONE,
        "Told in journal and status when some of its tasks, or with `full` all of them at once, have waited for a processor \
         for STALL within WINDOW (pressure stall information of the kernel).",
    ),
    key("memory_pressure", Shape::Pressure, NONE, "The same for memory."),
    key("io_pressure", Shape::Pressure, NONE, "The same for a disk."),
    key(
        "files_max",
        Shape::Number(FILES_MIN, FILES_MAX),
        Fallback::Words("the supervisor's own"),
        "Open descriptors of each process (`RLIMIT_NOFILE`).",
    ),
    key(
        "rlimits",
        Shape::Rlimits,
        NONE,
        "Limits of each process (setrlimit(2)) from the next start on: `{ core = 0, nproc = \"64:128\" }`, soft and hard.",
    ),
    key("nice", Shape::Integer(-20, 19), OWN, "Less gets more of the processor."),
    key(
        "scheduling",
        Shape::Scheduling,
        OWN,
        "Policy of sched(7): `other`, `batch`, `idle`, `fifo:PRIORITY`, `rr:PRIORITY`, with a priority from 1 to 99.",
    ),
    key(
        "io_class",
        Shape::IoClass,
        OWN,
        "Class of ioprio_set(2): `idle`, `best-effort:LEVEL`, `realtime:LEVEL`, with a level from 0, the first, to 7.",
    ),
    key("cpu_affinity", Shape::Cpus, OWN, "Processors that its processes may run on."),
    key(
        "oom_score_adjust",
        Shape::Integer(-1000, 1000),
        Fallback::Words("0"),
        "More is killed sooner when memory is short; -1000 never.",
    ),
];
