//! Every section and key that a component file may have: the one table that the parser, the JSON
//! Schema and the reference in `docs/` are made from.
//!
//! A new key is one row here and one `get` in `build`; a test sees to it that each row is read,
//! takes what its shape says, and has the default that it claims.

use std::time::Duration;

use super::build::Method;
use super::security::ID_MAX;
use super::{
    Handoff, Kind, NAME_LIMIT, Namespace, OnOom, Restriction, SeccompAction, SecureBit, SocketKind, Strategy,
};
use crate::descriptors::STORE_LIMIT;

/// The shortest time after which something is done again and again: shorter ones would keep the supervisor busy for one
/// component, and a loaded machine is no more exact than a few milliseconds.
pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// A table of a component file.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its name, as in `[name]`.
    pub name: &'static str,
    /// What its keys are about.
    pub about: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
    /// A file may have several, each as `[[name]]`.
    pub several: bool,
}

impl Section {
    const fn one(name: &'static str, about: &'static str, keys: &'static [Key]) -> Self {
        Self { name, about, keys, several: false }
    }

    /// How its head is written.
    pub fn head(&self) -> String {
        let name = self.name;
        if self.several { format!("[[{name}]]") } else { format!("[{name}]") }
    }
}

/// A key of a section.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Other names for it in the same section.
    pub aliases: &'static [&'static str],
    /// What values it takes.
    pub shape: Shape,
    /// What holds without it.
    pub fallback: Fallback,
    /// What it does.
    pub about: &'static str,
}

/// What values a key takes.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// The name of a component.
    Name,
    /// A host name.
    HostName,
    /// An absolute path.
    Path,
    /// A path below the supervisor's cgroup.
    CgroupPath,
    /// One of some words.
    Word(fn() -> Vec<&'static str>),
    /// An array of texts.
    Arguments,
    /// An array of names of capabilities.
    Capabilities,
    /// A line for the shell, or a program and its arguments in an array.
    Command,
    /// A signal.
    Signal,
    /// A signal that a component may send to the supervisor.
    FreeSignal,
    /// A time, in seconds or with a unit.
    Seconds,
    /// A time of more than zero.
    PositiveSeconds,
    /// A time of at least [`SHORTEST_INTERVAL`].
    Interval,
    /// A whole number from the first to the second.
    Number(u64, u64),
    /// A size in bytes, or with K, M, G or T.
    Bytes,
    /// The same, or 0.
    Size,
    /// `"QUOTA PERIOD"` in microseconds.
    CpuMax,
    /// An array of `"DEVICE LIMIT…"`.
    IoMax,
    /// A list of numbers and ranges.
    Numbers,
    /// `"some STALL WINDOW"` or `"full STALL WINDOW"`.
    Pressure,
    /// An array of some words, or one text with commas.
    Words(fn() -> Vec<&'static str>),
    /// `true` or `false`.
    Truth,
    /// An array of texts or numbers, or one text with commas.
    List,
    /// The same, or `true` for all and `false` for none.
    ListOrTruth,
    /// An array of `NAME=VALUE` or `NAME`, a text with commas, or a table of values.
    Variables,
    /// `"ADDRESS:PORT"`.
    Address,
    /// `"http://ADDRESS[:PORT][/PATH]"`.
    Url,
    /// `"ADDRESS:PORT"`, or an absolute path.
    Listen,
    /// The name of a descriptor.
    DescriptorName,
    /// Permissions in octal.
    Mode,
    /// A whole number from the first to the second, which may be negative.
    Integer(i64, i64),
    /// A user or a group, by name or number.
    Account,
    /// Several of them.
    Accounts,
    /// Capabilities of Linux.
    CapabilitySet,
    /// An array of absolute paths.
    Paths,
    /// An array of `"/source:/target"`, with `:ro` behind or not.
    Binds,
    /// An array of `"/path"`, with `:size=BYTES` behind or not.
    Tmpfs,
    /// An array of `"INSIDE OUTSIDE COUNT"`.
    IdMaps,
    /// A table of seconds by clock.
    TimeOffsets,
    /// A table of bridge, address and gateway.
    Network,
    /// A table of absolute paths by name.
    Secrets,
    /// A table of limits by resource.
    Rlimits,
    /// `"POLICY"` or `"POLICY:PRIORITY"`.
    Scheduling,
    /// `"CLASS"` or `"CLASS:LEVEL"`.
    IoClass,
    /// Numbers of processors and ranges of them.
    Cpus,
    /// System calls and sets of them.
    Seccomp,
}

/// What holds when a key is absent.
#[derive(Clone, Copy, Debug)]
pub enum Fallback {
    /// The file is refused.
    Required,
    /// As if this value, in TOML, had been written.
    Value(&'static str),
    /// Something that no value of the key says; in words.
    Words(&'static str),
}

/// Something that is written as one of some words.
pub(super) trait Word: Copy + 'static {
    /// What one of them is, for messages.
    const WHAT: &'static str = "word";

    /// The words and what they mean, the usual one first.
    const WORDS: &'static [(&'static str, Self)];

    /// The word for this one.
    fn name(self) -> &'static str
    where
        Self: PartialEq,
    {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }
}

/// All words for `T`.
fn words<T: Word>() -> Vec<&'static str> {
    T::WORDS.iter().map(|(word, _)| *word).collect()
}

/// A key without other names.
const fn key(name: &'static str, shape: Shape, fallback: Fallback, about: &'static str) -> Key {
    Key { name, aliases: &[], shape, fallback, about }
}

impl Key {
    const fn or(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// The name and the aliases.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + Clone + use<> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }
}

const NO_LIMIT: Fallback = Fallback::Words("no limit");
const NONE: Fallback = Fallback::Words("none");
const EMPTY: Fallback = Fallback::Value("[]");
const FALSE: Fallback = Fallback::Value("false");
const OWN: Fallback = Fallback::Words("the supervisor's own");

/// The highest count of anything that is counted in 32 bits.
const COUNT_MAX: u64 = u32::MAX as u64;

/// The highest weight that the kernel takes.
const WEIGHT_MAX: u64 = 10_000;

/// The most processes that Linux can have (`PID_MAX_LIMIT` on 64 bits).
const PIDS_MAX: u64 = 4_194_304;

/// A process has standard input, output and error at least.
const FILES_MIN: u64 = 3;

/// The most descriptors that Linux can give a process (`sysctl_nr_open_max` on 64 bits).
const FILES_MAX: u64 = 1_073_741_816;

/// The kernel takes a signed number.
const BACKLOG_MAX: u64 = i32::MAX as u64;

/// The estimate is given in MiB; this keeps the product within 64 bits.
const MEBIBYTES_MAX: u64 = 1 << 40;

/// A hundred years, in hours.
const HOURS_MAX: u64 = 876_600;

/// All sections.
pub static SECTIONS: &[Section] = &[
    Section::one("component", "The program.", COMPONENT),
    Section::one(
        "provides",
        "What is up while the component is.",
        &[key(
            "capabilities",
            Shape::Capabilities,
            EMPTY,
            "Capabilities that are up while the component is ACTIVE or DONE, and degraded while it is \
             DEGRADED. Several components may provide the same one; it is up while one of them is.",
        )],
    ),
    Section::one(
        "requires",
        "What has to be up before the component is started.",
        &[key(
            "capabilities",
            Shape::Capabilities,
            EMPTY,
            "Capabilities that must all be up. When one is lost, the component is stopped, and comes \
             back with it. Degraded counts as up.",
        )],
    ),
    Section::one(
        "optional",
        "What the component likes to find up.",
        &[key(
            "capabilities",
            Shape::Capabilities,
            EMPTY,
            "Capabilities that are waited for when somebody provides them, and done without otherwise.",
        )],
    ),
    Section::one("lifecycle", "Readiness, health, restarts, upgrades.", LIFECYCLE),
    Section::one("resources", "The control group and its limits.", RESOURCES),
    Section::one("isolation", "Namespaces, and what is seen of the file system.", ISOLATION),
    Section::one(
        "security",
        "Whose processes they are, and what they may ask of the kernel. What cannot be set keeps the component from being \
         started, unless it is named in `optional`.",
        SECURITY,
    ),
    Section::one("environment", "What the program finds around it.", ENVIRONMENT),
    Section::one("checkpoint", "How checkpoints are kept.", CHECKPOINT),
    Section::one("hotswap", "Details of upgrades and of the way to stop.", HOTSWAP),
    Section {
        name: "sockets",
        about: "Sockets that the supervisor opens before the first start, keeps for as long as they are declared, and gives \
                to each process of the component from number 3 on (`LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES`). One \
                table for each, in their order. Clients wait in them while no process runs.",
        keys: SOCKETS,
        several: true,
    },
];

const COMPONENT: &[Key] = &[
    key("name", Shape::Name, Fallback::Required, "The component's name, unique among all files."),
    key(
        "binary",
        Shape::Path,
        Fallback::Required,
        "The program, executed directly; nothing is searched in `PATH`. A file that extends the \
         built-in component `kernel` has none.",
    ),
    key("args", Shape::Arguments, EMPTY, "Arguments after the program's name."),
    key(
        "type",
        Shape::Word(words::<Kind>),
        Fallback::Value("\"service\""),
        "A service runs until it is stopped, a oneshot to its end: it is DONE when it exits with 0.",
    ),
    key(
        "handoff",
        Shape::Word(words::<Handoff>),
        Fallback::Words("`lifecycle.handoff`"),
        "Another place for `lifecycle.handoff`.",
    ),
];

const LIFECYCLE: &[Key] = &[
    key(
        "handoff",
        Shape::Word(words::<Handoff>),
        Fallback::Value("\"none\""),
        "How an upgrade passes what the old process has to the new one. `fd-passing`: the process speaks on \
         `HANDOFF_FD` (docs/reference/hot-swap.md); an upgrade, or a change of its file, moves its sockets and its \
         state to the next process while clients wait. One that never speaks there, and for which the supervisor holds \
         descriptors (`[[sockets]]`, `hotswap.fd_store_max`), gets the next process beside it until that is ready. It is \
         restarted when neither can be.",
    ),
    key("reload_signal", Shape::Signal, NONE, "Sent to the process by `graphctl reload NAME`."),
    key(
        "stop_signal",
        Shape::Signal,
        Fallback::Words("`\"SIGTERM\"`"),
        "Sent to the process and its group when it is to end: the one by which it finishes what it has begun, for many \
         servers another than SIGTERM. As it was declared when the process started.",
    ),
    key(
        "readiness",
        Shape::Word(words::<Method>),
        Fallback::Words("by `readiness_file`, `readiness_check` or `readiness_signal`, else `\"none\"`"),
        "How the component says that it is ready. `none`: once it is executed. `notify`: it writes a \
         newline to `NOTIFY_FD` or `READY=1` to `NOTIFY_SOCKET`. That takes what sd_notify(3) names, but for \
         `MAINPID`; for `FDSTORE` see `hotswap.fd_store_max`.",
    ),
    key(
        "readiness_file",
        Shape::Path,
        NONE,
        "Ready when this file appears. One that was there before the start does not count.",
    ),
    key(
        "readiness_check",
        Shape::Command,
        NONE,
        "Ready when this command exits with 0. It is run every `readiness_interval`.",
    )
    .or(&["readiness_command"]),
    key(
        "readiness_signal",
        Shape::FreeSignal,
        NONE,
        "Ready when the component sends this signal to the supervisor. Take 34 to 64: SIGUSR1 and SIGUSR2 of \
         several components at one moment merge into one.",
    ),
    key(
        "readiness_timeout",
        Shape::PositiveSeconds,
        Fallback::Value("30"),
        "Time from the start until ready; a component that takes longer has FAILED. By \
         `EXTEND_TIMEOUT_USEC` its process may put this limit and the grace of its end off, by an hour in all. In a \
         hot swap, the time of the new process until it is prepared to take over.",
    ),
    key(
        "readiness_interval",
        Shape::Interval,
        Fallback::Value("5"),
        "Time between two runs of `readiness_check`.",
    ),
    key("health_check", Shape::Command, NONE, "Healthy when this command exits with 0."),
    key("health_tcp", Shape::Address, NONE, "Healthy when a connection to this address is accepted."),
    key("health_http", Shape::Url, NONE, "Healthy when a GET of this URL is answered by 2xx."),
    key(
        "health_unix",
        Shape::Path,
        NONE,
        "Healthy when a connection to this unix stream socket is accepted.",
    ),
    key("health_file", Shape::Path, NONE, "Healthy while this file exists."),
    key(
        "health_signal",
        Shape::FreeSignal,
        NONE,
        "Healthy when the component has sent the supervisor this signal since the last probe. Take 34 to 64, as \
         for `readiness_signal`.",
    ),
    key(
        "health_interval",
        Shape::Interval,
        Fallback::Value("60"),
        "Time between two probes. One may come up to a quarter of it later, but no more than a second, so that many come together.",
    ),
    key(
        "health_timeout",
        Shape::PositiveSeconds,
        Fallback::Value("10"),
        "A probe that takes longer has failed.",
    ),
    key(
        "health_fail_threshold",
        Shape::Number(1, COUNT_MAX),
        Fallback::Value("3"),
        "Failed probes in a row until the component is DEGRADED.",
    )
    .or(&["health_failures"]),
    key(
        "health_restart_threshold",
        Shape::Number(1, COUNT_MAX),
        Fallback::Value("5"),
        "Failed probes in a row until the component has FAILED and is started again.",
    ),
    key(
        "health_start_grace",
        Shape::Seconds,
        Fallback::Value("0"),
        "Time after it came up in which a failed probe does not count; the first that passes ends it.",
    ),
    key(
        "health_jitter",
        Shape::Seconds,
        Fallback::Words("half of `health_interval`"),
        "How much earlier than one interval after it came up the first probe may be; by how much, follows from \
         the name, so that many components are not probed at once.",
    ),
    key(
        "watchdog_interval",
        Shape::Interval,
        NONE,
        "Longest time between two `WATCHDOG=1` on `NOTIFY_SOCKET` while the component is up. One that falls \
         silent, or sends `WATCHDOG=trigger`, gets SIGABRT, is killed if it is not gone within \
         `shutdown_grace`, and is started again. `WATCHDOG_USEC` tells the process.",
    ),
    key(
        "restart_max",
        Shape::Number(0, COUNT_MAX),
        Fallback::Value("5"),
        "Restarts within `restart_window`; with more, there are growing pauses before the next. Above \
         1,024 they are counted to within a thousandth.",
    ),
    key(
        "restart_window",
        Shape::Seconds,
        Fallback::Value("30"),
        "See `restart_max`; also the time that a component has to run until its failures are forgotten.",
    ),
];

const RESOURCES: &[Key] = &[
    key(
        "cgroup",
        Shape::CgroupPath,
        Fallback::Words("the component's name"),
        "Its control group, below the supervisor's own.",
    )
    .or(&["cgroup_path"]),
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

const ISOLATION: &[Key] = &[
    key("namespaces", Shape::Words(words::<Namespace>), EMPTY, "Namespaces of its own."),
    key(
        "hostname",
        Shape::HostName,
        Fallback::Words("the machine's"),
        "Host name that the component sees. Needs the namespace `uts`.",
    ),
    key(
        "root",
        Shape::Path,
        Fallback::Words("the machine's"),
        "Directory that becomes the component's `/`. Needs the namespace `mount`.",
    ),
    key(
        "private_tmp",
        Shape::Truth,
        Fallback::Words("`true` with the namespace `mount`, else `false`"),
        "A `/tmp` of its own. Needs the namespace `mount`.",
    ),
    key(
        "read_only",
        Shape::Paths,
        EMPTY,
        "Below these nothing can be written, but for what `private_tmp`, `tmpfs` and `binds` mount there. Needs the \
         namespace `mount`.",
    ),
    key(
        "inaccessible",
        Shape::Paths,
        EMPTY,
        "An empty directory, or a file that cannot be opened, stands in the place of these. Needs the namespace `mount`.",
    ),
    key(
        "binds",
        Shape::Binds,
        EMPTY,
        "What is seen in another place: `\"/source:/target\"`, with `:ro` behind if nothing can be written there. Sources \
         lie outside of `root`, targets inside, and have to be there. Needs the namespace `mount`.",
    ),
    key(
        "tmpfs",
        Shape::Tmpfs,
        EMPTY,
        "Empty file systems in memory: `\"/path\"`, or `\"/path:size=16M\"`. Needs the namespace `mount`.",
    ),
    key(
        "hidepid",
        Shape::Truth,
        FALSE,
        "Whether `/proc` shows a process only to who may trace it. Needs the namespaces `mount` and `pid`.",
    ),
    key(
        "uid_map",
        Shape::IdMaps,
        Fallback::Words("the first 65536, each as it is"),
        "Users of the namespace: `\"INSIDE OUTSIDE COUNT\"`. Needs the namespace `user`.",
    ),
    key(
        "gid_map",
        Shape::IdMaps,
        Fallback::Words("the first 65536, each as it is"),
        "Groups of the namespace: the same. Needs the namespace `user`.",
    ),
    key(
        "time_offsets",
        Shape::TimeOffsets,
        Fallback::Words("none"),
        "Seconds that the clocks are ahead, or behind: `{ monotonic = 3600, boottime = 3600 }`. Needs the namespace `time`.",
    ),
    key(
        "network",
        Shape::Network,
        Fallback::Words("none"),
        "An interface `eth0` in the namespace, with the other end at a bridge of the machine, and its address: \
         `{ bridge = \"br0\", address = \"10.0.0.2/24\", gateway = \"10.0.0.1\" }`; the gateway may be missing. It goes with \
         the namespace. Needs the namespace `net`.",
    ),
    key(
        "init",
        Shape::Truth,
        FALSE,
        "Whether a small process of the supervisor's is the first of the namespace: it reaps whom the program leaves \
         behind, passes signals on to it, and ends as it ends (by a signal: with 128 and its number). Needs the namespace \
         `pid`.",
    ),
    key(
        "secrets",
        Shape::Secrets,
        NONE,
        "Files of at most 1 MiB that are copied to memory at each start, in a directory that `CREDENTIALS_DIRECTORY` \
         tells and only this component sees; only its user can read them: `{ password = \"/etc/web/password\" }`. Needs \
         the namespace `mount`.",
    ),
];

const SECURITY: &[Key] = &[
    key(
        "user",
        Shape::Account,
        OWN,
        "Whose processes they are: a number, or a name in `/etc/passwd`, which is looked up at each start.",
    ),
    key(
        "group",
        Shape::Account,
        Fallback::Words(
            "that of the user in `/etc/passwd`; for a number, the group of that number; without a user the supervisor's own",
        ),
        "Their group: a number, or a name in `/etc/group`.",
    ),
    key(
        "groups",
        Shape::Accounts,
        EMPTY,
        "Their other groups; with a `user` or a `group` they have no others.",
    ),
    key(
        "no_new_privs",
        Shape::Truth,
        Fallback::Words("`true` with `seccomp`, else `false`"),
        "Whether exec gives nobody privileges: neither set-user-ID bits nor capabilities of files count.",
    ),
    key(
        "capabilities",
        Shape::CapabilitySet,
        Fallback::Words("the supervisor's own"),
        "All capabilities that they may ever have (capabilities(7)): the bounding, permitted and effective set. `[]` for \
         none. A program that is not root's gets those that `ambient_capabilities` names, too.",
    ),
    key(
        "ambient_capabilities",
        Shape::CapabilitySet,
        EMPTY,
        "What the program has although it is not root's: the ambient and the inheritable set.",
    ),
    key(
        "securebits",
        Shape::Words(words::<SecureBit>),
        EMPTY,
        "How root differs from others (capabilities(7)).",
    ),
    key(
        "seccomp",
        Shape::Seccomp,
        EMPTY,
        "System calls that may be made, by name or by set, as `[\"@service\"]`; or, each with `~` before it, those that \
         may not. See docs/reference/system-calls.md for the sets.",
    ),
    key(
        "seccomp_action",
        Shape::Word(words::<SeccompAction>),
        Fallback::Value("\"errno\""),
        "What becomes of one that may not be made. `errno`: it fails with EPERM. `kill`: it ends the process by SIGSYS. \
         `log`: it is made, and the kernel logs it.",
    ),
    key(
        "landlock_read",
        Shape::Paths,
        EMPTY,
        "Below these files can be read and directories listed, and nowhere else (landlock(7)). Where it is given, it has \
         to name the program and its libraries, too.",
    ),
    key("landlock_write", Shape::Paths, EMPTY, "The same for what writes, makes, renames and removes."),
    key("landlock_execute", Shape::Paths, EMPTY, "The same for programs, with their loader."),
    key(
        "optional",
        Shape::Words(words::<Restriction>),
        EMPTY,
        "What the component is started without if it cannot be set: that is told in the log then.",
    ),
];

const ENVIRONMENT: &[Key] = &[
    key(
        "variables",
        Shape::Variables,
        EMPTY,
        "Variables for the process, `NAME=VALUE`, or `NAME` to pass the supervisor's own value on; they replace those of \
         `hotswap.env_vars`.",
    ),
    key("working_directory", Shape::Path, Fallback::Value("\"/\""), "Where the program starts."),
    key("umask", Shape::Mode, Fallback::Value("\"022\""), "Permissions that files it makes do not get."),
];

const CHECKPOINT: &[Key] = &[
    key("enabled", Shape::Truth, FALSE, "Whether checkpoints of the component are kept."),
    key("preserve_fds", Shape::List, EMPTY, "Descriptors to keep open across a restore."),
    key("leave_running", Shape::Truth, FALSE, "Take a snapshot only: the process runs on."),
    key(
        "memory_estimate",
        Shape::Number(0, MEBIBYTES_MAX),
        Fallback::Words("measured"),
        "Expected size of a checkpoint, in MiB.",
    ),
    key("max_age", Shape::Number(0, HOURS_MAX), NO_LIMIT, "Hours after which a checkpoint is removed."),
];

const HOTSWAP: &[Key] = &[
    key(
        "transfer_fds",
        Shape::ListOrTruth,
        Fallback::Value("true"),
        "Names of the descriptors to hand over; `true` for all that are offered.",
    ),
    key(
        "env_vars",
        Shape::Variables,
        EMPTY,
        "Variables for the process, `NAME=VALUE`, or `NAME` to pass the supervisor's own value on.",
    ),
    key(
        "shutdown_grace",
        Shape::Seconds,
        Fallback::Value("10"),
        "Time between SIGTERM (or `lifecycle.stop_signal`) and SIGKILL when the component is stopped, and for the old \
         process to end after a hot swap.",
    ),
    key(
        "probation",
        Shape::Seconds,
        Fallback::Value("0"),
        "Time after a hot swap in which the old process is kept: if the new one ends, fails its probes or its watchdog, \
         or says `FAILED` within it, the old one takes over again. 0 for none: the old process ends at once.",
    ),
    key(
        "strategy",
        Shape::Word(words::<Strategy>),
        Fallback::Value("\"all-at-once\""),
        "How much the new process takes over at once. `canary`: only new connections for the time of `probation`, while \
         the old one serves those that it has; then everything else, or, if the new one did badly, nothing. For services \
         that give their listeners first (`HELLO parts=2`), and whose new connections do not need the state of the old \
         process.",
    ),
    key(
        "preserve_state",
        Shape::Truth,
        FALSE,
        "Whether the application's state is handed over along with descriptors.",
    ),
    key(
        "fd_store_max",
        Shape::Number(0, STORE_LIMIT),
        Fallback::Value("0"),
        "Descriptors that the component may store by `FDSTORE=1` on `NOTIFY_SOCKET` (sd_notify(3)). Each of its \
         processes is given them again from number 3 on (`LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES`), until they are \
         taken back by `FDSTOREREMOVE=1` or the component is no longer declared. What is sent beyond it is closed. \
         Counts from the next start on.",
    ),
];

const SOCKETS: &[Key] = &[
    key(
        "listen",
        Shape::Listen,
        Fallback::Required,
        "Where it listens. A socket that stands at the path is replaced. If it cannot be opened the component does not \
         start, and the reason is told.",
    ),
    key("name", Shape::DescriptorName, Fallback::Value("\"socket\""), "Its name in `LISTEN_FDNAMES`."),
    key(
        "type",
        Shape::Word(words::<SocketKind>),
        Fallback::Value("\"stream\""),
        "What it carries. `seqpacket` needs a path.",
    ),
    key(
        "backlog",
        Shape::Number(1, BACKLOG_MAX),
        Fallback::Value("4096"),
        "Connections that may wait to be accepted; no more than `net.core.somaxconn`.",
    ),
    key("mode", Shape::Mode, Fallback::Value("\"0666\""), "Permissions of a path."),
    key("user", Shape::Number(0, ID_MAX), Fallback::Words("the supervisor's"), "Owner of a path."),
    key("group", Shape::Number(0, ID_MAX), Fallback::Words("the supervisor's"), "Group of a path."),
];

/// The section of that name.
pub(super) fn section(name: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|section| section.name == name)
}

/// The row of a key, by its name or an alias.
pub(super) fn find(section_name: &str, name: &str) -> Option<&'static Key> {
    section(section_name)?.keys.iter().find(|key| key.names().any(|known| known == name))
}

/// The section that has `key`, when the key stands in the wrong one.
pub(super) fn home_of(key: &str) -> Option<&'static str> {
    let home = SECTIONS.iter().find(|section| find(section.name, key).is_some());
    home.map(|section| section.name)
}

/// The longest word that is looked for, in characters: longer ones are no slips, and the search
/// takes time and memory by the product of two lengths.
const WORD_LIMIT: usize = NAME_LIMIT;

/// The most that one search compares, in products of lengths: the supervisor answers nobody else
/// meanwhile. Enough for ten thousand names of ten characters; with more, those after are not seen.
const SEARCH_LIMIT: usize = 1_000_000;

/// The word of `known` that `word` was probably meant to be.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().take(WORD_LIMIT + 1).count();
    if length > WORD_LIMIT {
        return None;
    }
    // Two slips in a short word, a third of a long one: more is another word.
    let limit = (length / 3).max(2);
    known
        .into_iter()
        // The distance is the difference in length at least; characters have one to four bytes.
        .filter(|candidate| (length.saturating_sub(limit)..=4 * (length + limit)).contains(&candidate.len()))
        .scan(0, |compared, candidate| {
            *compared += length * candidate.len();
            (*compared <= SEARCH_LIMIT).then_some(candidate)
        })
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= limit && *distance < candidate.len())
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::{SEARCH_LIMIT, WORD_LIMIT, nearest};

    #[test]
    fn slips_are_seen_and_other_words_are_not() {
        let known = || ["health_interval", "health_timeout", "name"];
        assert_eq!(nearest("health_intervall", known()), Some("health_interval"));
        assert_eq!(nearest("naem", known()), Some("name"));
        assert_eq!(nearest("restart", known()), None);
    }

    #[test]
    fn no_length_is_too_much() {
        let (long, longer) = ("x".repeat(100_000), "x".repeat(100_001));
        assert_eq!(nearest(&long, [longer.as_str()]), None);
        assert_eq!(nearest("x", [longer.as_str()]), None);
        // Of many long names only the first are looked at.
        let word = "x".repeat(WORD_LIMIT);
        let names: Vec<_> = (0..100_000).map(|n| format!("{}{n:06}", "y".repeat(WORD_LIMIT - 6))).collect();
        let looked_at = std::cell::Cell::new(0);
        let names = names.iter().inspect(|_| looked_at.set(looked_at.get() + 1)).map(String::as_str);
        assert_eq!(nearest(&word, names), None);
        assert!(looked_at.get() <= 1 + SEARCH_LIMIT / (WORD_LIMIT * WORD_LIMIT), "{}", looked_at.get());
    }
}
