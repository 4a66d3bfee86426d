//! Keys of the program, its life and its upgrades.

use super::{EMPTY, FALSE, Fallback, Key, NO_LIMIT, NONE, Shape, key, words};
use crate::component::build::Method;
use crate::component::security::ID_MAX;
use crate::component::{Handoff, Kind, SocketKind, Strategy};
use crate::descriptors::STORE_LIMIT;

/// The highest count of anything that is counted in 32 bits.
const COUNT_MAX: u64 = u32::MAX as u64;

/// The kernel takes a signed number.
const BACKLOG_MAX: u64 = i32::MAX as u64;

/// The estimate is given in MiB; this keeps the product within 64 bits.
const MEBIBYTES_MAX: u64 = 1 << 40;

/// A hundred years, in hours.
const HOURS_MAX: u64 = 876_600;

/// Most rounds of memory before a checkpoint: as many as one can have.
const ROUNDS_MAX: u64 = 16;

pub(super) const COMPONENT: &[Key] = &[
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

pub(super) const LIFECYCLE: &[Key] = &[
    key(
        "handoff",
        Shape::Word(words::<Handoff>),
        Fallback::Value("\"none\""),
        "How an upgrade passes what the old process has to the new one. `fd-passing`: the process speaks on \
         `HANDOFF_FD` (docs/reference/hot-swap.md); an upgrade, or a change of its file, moves its sockets and its \
         state to the next process while clients wait. One that never speaks there, and for which the supervisor holds \
         descriptors (`[[sockets]]`, `hotswap.fd_store_max`), gets the next process beside it until that is ready. It is \
         restarted when neither can be. `checkpoint`: with `checkpoint.enabled`, an upgrade moves the process itself: it is \
         written down, ended and made again, with its memory and connections, while clients wait; where that cannot be, \
         as with `mount` in its namespaces, or when its program has been replaced since it was started (of a script, its \
         interpreter), the way of `fd-passing` is gone.",
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

pub(super) const CHECKPOINT: &[Key] = &[
    key(
        "enabled",
        Shape::Truth,
        FALSE,
        "Whether checkpoints of the component are made: by `graphctl checkpoint`, and for upgrades and `warm_start`. None \
         can be made of one with `user` in its namespaces, with `network`, with rules of Landlock, with `init` in a \
         mount namespace, with `cgroup` in one without `root`, or with `net` beside a `handoff` that has a channel: \
         those are not made again.",
    ),
    key(
        "preserve_fds",
        Shape::List,
        EMPTY,
        "Decides nothing: what a process has open is kept without being named. It is noted with each checkpoint.",
    ),
    key(
        "leave_running",
        Shape::Truth,
        FALSE,
        "Decides nothing: after `graphctl checkpoint` and for `warm_start` the process runs on, for an upgrade it ends.",
    ),
    key(
        "memory_estimate",
        Shape::Number(0, MEBIBYTES_MAX),
        Fallback::Words("none"),
        "Decides nothing: checkpoints take what room they need. In MiB.",
    ),
    key(
        "rounds",
        Shape::Number(0, ROUNDS_MAX),
        Fallback::Value("4"),
        "Most times that memory is copied while the process runs, before it stands still for the rest: it stands still for \
         less time, and the checkpoint is larger. Ends sooner where that saves nothing, and is left out for processes with \
         little memory and where the kernel does not tell which memory has changed.",
    ),
    key("max_age", Shape::Number(0, HOURS_MAX), NO_LIMIT, "Hours after which a checkpoint is removed."),
    key(
        "warm_start",
        Shape::Truth,
        FALSE,
        "Whether starts are made from a checkpoint of the first one: a service is written down when it is ready for the \
         first time, and each later start is made from that, as long as its file does not change and the machine is not \
         started anew. An image from which no process can be made, or whose process fails within `restart_window`, is \
         not tried again, and no more is one that could not be made at three starts. Needs `enabled`, and no `mount` in \
         the namespaces. Not for what takes something at its start that it must not have twice, a \
         lease or a random seed.",
    ),
];

pub(super) const HOTSWAP: &[Key] = &[
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

pub(super) const SOCKETS: &[Key] = &[
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
