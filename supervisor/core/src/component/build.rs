//! Puts a [`Component`] together from a document, section by section, and checks what one key
//! demands of another.

use std::collections::HashSet;
use std::time::Duration;

use super::environment::environment;
use super::isolation::isolation;
use super::keys::Word;
use super::reader::{FINDING_LIMIT, Reader};
use super::resources::resources;
use super::security::security;
use super::slice;
use super::sockets::sockets;
use super::values::{
    absolute_path, arguments, capabilities, command, http_target, interval, is_part_of_a_name, list,
    list_or_truth, positive_seconds, seconds, signal, signal_to_supervisor, socket_address, text, truth,
    variables, word,
};
use super::{
    Check, CheckpointPolicy, Component, Handoff, Health, HotSwap, Isolation, KERNEL, Kind, Lifecycle,
    NAME_LIMIT, Namespace, Readiness, Resources, Security, Signal, Strategy,
};
use crate::diagnostic::rules;

/// Time between SIGTERM and SIGKILL when a component does not say: what most init systems give a
/// service to write its state down, short enough that a shutdown stays within a minute.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// A grace above this is probably a slip: large databases write down their state within it.
const LONG_GRACE: Duration = Duration::from_secs(300);

/// A probation above this is probably a slip: what has not failed within an hour of its start is found by
/// other means, and until the end of it memory and descriptors are held twice.
const LONG_PROBATION: Duration = Duration::from_secs(3600);

const READINESS_TIMEOUT: Duration = Duration::from_secs(30);
const READINESS_INTERVAL: Duration = Duration::from_secs(5);
const HEALTH_INTERVAL: Duration = Duration::from_secs(60);
const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);

/// The keys that declare a health probe.
const PROBES: &[&str] =
    &["health_check", "health_tcp", "health_http", "health_unix", "health_file", "health_signal"];

impl Word for Kind {
    const WORDS: &'static [(&'static str, Self)] = &[("service", Kind::Service), ("oneshot", Kind::Oneshot)];
}

impl Word for Strategy {
    const WORDS: &'static [(&'static str, Self)] =
        &[("all-at-once", Strategy::AllAtOnce), ("canary", Strategy::Canary)];
}

impl Word for Handoff {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("none", Handoff::None),
        ("fd-passing", Handoff::FdPassing),
        ("checkpoint", Handoff::Checkpoint),
        ("state-file", Handoff::StateFile),
    ];
}

/// The readiness methods before their details are known.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Method {
    None,
    File,
    Command,
    Signal,
    Notify,
}

impl Word for Method {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("none", Method::None),
        ("file", Method::File),
        ("command", Method::Command),
        ("signal", Method::Signal),
        ("notify", Method::Notify),
    ];
}

/// Read every section. `None` when there is no usable name or binary.
pub(super) fn component(r: &mut Reader<'_>) -> Option<Component> {
    if slice::is_declared(r) {
        return slice::slice(r);
    }
    let name = name(r);
    let extends_kernel = name.as_deref() == Some(KERNEL);
    let binary = binary(r, extends_kernel);
    let args = r.get("component", "args", arguments).unwrap_or_default();
    let kind = r.get("component", "type", word::<Kind>).unwrap_or(Kind::Service);
    let provides = capability_list(r, "provides");
    let requires = capability_list(r, "requires");
    let optional = capability_list(r, "optional");
    contradictions(r, &provides, &requires, &optional);
    let lifecycle = lifecycle(r, kind);
    let resources = resources(r);
    group(r, name.as_deref(), &resources);
    let isolation = isolation(r);
    let security = security(r);
    let hands_over = kind == Kind::Service && lifecycle.handoff.passes_descriptors();
    delegation(r, &resources, &isolation, hands_over);
    let environment = environment(r);
    let checkpoint = checkpoint(r, kind, &lifecycle, &isolation, &security);
    let hotswap = hotswap(r, hands_over);
    let sockets = sockets(r);
    Some(Component {
        name: name?,
        binary: binary?,
        args,
        kind,
        provides,
        requires,
        optional,
        lifecycle: lifecycle.into(),
        resources: resources.into(),
        isolation: isolation.into(),
        security: security.into(),
        environment: environment.into(),
        checkpoint: checkpoint.into(),
        hotswap: hotswap.into(),
        sockets,
        description: None,
    })
}

fn name(r: &mut Reader<'_>) -> Option<String> {
    if !r.has("component", "name") {
        r.missing("component", "name", "write name = \"NAME\" under [component]");
        return None;
    }
    let name = r.get("component", "name", text)?;
    if name.len() > NAME_LIMIT || !is_part_of_a_name(&name) {
        r.report(
            &rules::COMPONENT_NAME,
            "component",
            "name",
            &format!("`component.name` cannot be {name:?}"),
            Some(format!(
                "a name has letters, digits and . _ - + @ :, does not begin with . or -, \
                 and has at most {NAME_LIMIT} bytes; it becomes a cgroup and a log file"
            )),
        );
        return None;
    }
    Some(name)
}

/// Groups of slices have no processes, so no component has such a one.
fn group(r: &mut Reader<'_>, name: Option<&str>, resources: &Resources) {
    let is_slices = |path: &&str| path.split('/').any(slice::is_slice);
    if let Some(path) = resources.cgroup.as_deref().filter(is_slices) {
        let message = format!("the control group {path:?} would be that of a slice, or lie in one");
        let help =
            "give `resources.cgroup` another name, and write `resources.slice = \"NAME\"` to lie in a slice";
        r.report(&rules::GROUP_OF_SLICE, "resources", "cgroup", &message, Some(help.to_owned()));
    }
    // Whatever its group is called: slices and components are told from each other by their names.
    if let Some(name) = name.filter(is_slices) {
        let message = format!("{name:?} is what the control group of a slice is called");
        let help = format!("give the component a name that does not end in {}", slice::SUFFIX);
        r.report(&rules::GROUP_OF_SLICE, "component", "name", &message, Some(help));
    }
}

/// Who is in a user namespace may not give away what is outside of it, and its numbers are not those outside. And of two
/// processes each has a group that is its alone, inside of one that stays the supervisor's.
fn delegation(r: &mut Reader<'_>, resources: &Resources, isolation: &Isolation, hands_over: bool) {
    if resources.delegate.is_none() {
        return;
    }
    if isolation.has(Namespace::User) {
        let message =
            "`resources.delegate` gives the control group to a user of the machine, not of a user namespace";
        let help = "leave the namespace \"user\" to what runs in the group, or leave `delegate` out";
        r.report(&rules::DELEGATED_TO_NOBODY, "resources", "delegate", message, Some(help.to_owned()));
    }
    if hands_over {
        let message =
            "`resources.delegate` gives the control group to one process, and one that hands over is two";
        let help = "leave `delegate` out, or `lifecycle.handoff`";
        r.report(&rules::DELEGATED_TWICE, "resources", "delegate", message, Some(help.to_owned()));
    }
}

fn binary(r: &mut Reader<'_>, extends_kernel: bool) -> Option<String> {
    let given = r.has("component", "binary");
    match (given, extends_kernel) {
        (true, true) => {
            let message = "`component.binary` is ignored: `kernel` has no process";
            r.report(&rules::NO_EFFECT, "component", "binary", message, None);
            Some(String::new())
        }
        (true, false) => r.get("component", "binary", absolute_path),
        (false, true) => Some(String::new()),
        (false, false) => {
            r.missing("component", "binary", "write binary = \"/path/to/program\" under [component]");
            None
        }
    }
}

fn capability_list(r: &mut Reader<'_>, section: &str) -> Vec<String> {
    const KEY: &str = "capabilities";
    let names = r.get(section, KEY, capabilities).unwrap_or_default();
    for name in r.repeated(section, KEY).into_iter().take(FINDING_LIMIT) {
        let message = format!("{name:?} is named twice");
        r.report_item(&rules::CAPABILITY_TWICE, (section, KEY), name, &message, "once is enough");
    }
    names
}

/// Names in two lists that make no sense together.
fn contradictions(r: &mut Reader<'_>, provides: &[String], requires: &[String], optional: &[String]) {
    let both = |list: &[String], other: &[String]| -> Vec<String> {
        let other: HashSet<&String> = other.iter().collect();
        list.iter().filter(|name| other.contains(name)).take(FINDING_LIMIT).cloned().collect()
    };
    for name in both(requires, provides) {
        let message = format!("the component requires {name:?}, which it provides itself");
        let help = "unless another component provides it too, it can never start";
        r.report_item(&rules::SELF_DEPENDENCY, ("requires", "capabilities"), &name, &message, help);
    }
    for name in both(optional, requires) {
        let message = format!("{name:?} is required, so it is not optional");
        let help = "keep one of the two";
        r.report_item(&rules::REQUIRED_AND_OPTIONAL, ("optional", "capabilities"), &name, &message, help);
    }
}

fn count(r: &mut Reader<'_>, section: &str, key: &str, default: u32) -> u32 {
    r.number(section, key).and_then(|n| u32::try_from(n).ok()).unwrap_or(default)
}

fn lifecycle(r: &mut Reader<'_>, kind: Kind) -> Lifecycle {
    const S: &str = "lifecycle";
    let plain = r.get(S, "handoff", word::<Handoff>);
    let alias = r.get("component", "handoff", word::<Handoff>);
    if plain.is_some() && alias.is_some() && plain != alias {
        let message = "`component.handoff` and `lifecycle.handoff` differ";
        let help = Some("keep `lifecycle.handoff`".to_owned());
        r.report(&rules::TWO_HANDOFFS, "component", "handoff", message, help);
    }
    let handoff = plain.or(alias).unwrap_or(Handoff::None);
    let readiness = readiness(r, handoff.passes_descriptors());
    let health = health(r);
    if kind == Kind::Oneshot {
        useless_for_oneshot(r, &readiness, health.as_ref());
    }
    let readiness_timeout = r.get(S, "readiness_timeout", positive_seconds).unwrap_or(READINESS_TIMEOUT);
    let readiness_interval = r.get(S, "readiness_interval", interval).unwrap_or(READINESS_INTERVAL);
    if r.has(S, "readiness_interval") && readiness_interval > readiness_timeout {
        let message = "`readiness_interval` is longer than `readiness_timeout`";
        let help = Some("the component would have FAILED before it is asked a second time".to_owned());
        r.report(&rules::RARE_CHECK, S, "readiness_interval", message, help);
    }
    let watchdog = r.get(S, "watchdog_interval", interval);
    if kind == Kind::Oneshot {
        r.without(S, "watchdog_interval", "a oneshot is not watched");
    }
    Lifecycle {
        handoff,
        reload_signal: r.get(S, "reload_signal", signal),
        stop_signal: r.get(S, "stop_signal", signal),
        readiness: if kind == Kind::Oneshot { Readiness::None } else { readiness },
        readiness_timeout,
        readiness_interval,
        health: health.filter(|_| kind == Kind::Service),
        watchdog: watchdog.filter(|_| kind == Kind::Service),
        restart_max: count(r, S, "restart_max", 5),
        restart_window: r.get(S, "restart_window", seconds).unwrap_or(Duration::from_secs(30)),
    }
}

/// A oneshot is DONE when it exits with 0: it is not waited for in another way, and not probed.
fn useless_for_oneshot(r: &mut Reader<'_>, readiness: &Readiness, health: Option<&Health>) {
    const S: &str = "lifecycle";
    if *readiness != Readiness::None {
        const KEYS: [&str; 4] = ["readiness", "readiness_file", "readiness_check", "readiness_signal"];
        let key = KEYS.into_iter().find(|key| r.has(S, key)).unwrap_or(KEYS[0]);
        let message = "readiness has no effect on a oneshot: it is done when it exits with 0";
        r.report(&rules::NO_EFFECT, S, key, message, None);
    }
    if let Some(health) = health {
        let message = "a health probe has no effect on a oneshot: nothing runs once it is done";
        r.report(&rules::NO_EFFECT, S, health.check.key(), message, None);
    }
}

/// The method is what `readiness` says, or else what the other keys imply. A process that is to take
/// over has the time of readiness to be prepared, however the component tells that it is ready.
fn readiness(r: &mut Reader<'_>, hands_over: bool) -> Readiness {
    const S: &str = "lifecycle";
    let file = r.get(S, "readiness_file", absolute_path);
    let check = r.get(S, "readiness_check", command);
    let signal = report_signal(r, "readiness_signal");
    let implied = match (&file, &check, &signal) {
        (Some(_), _, _) => Method::File,
        (_, Some(_), _) => Method::Command,
        (_, _, Some(_)) => Method::Signal,
        _ => Method::None,
    };
    let given = [
        file.is_some().then_some("readiness_file"),
        check.is_some().then_some("readiness_check"),
        signal.is_some().then_some("readiness_signal"),
    ];
    let method = r.get(S, "readiness", word::<Method>).unwrap_or(implied);
    let (found, key) = match method {
        Method::None => (Some(Readiness::None), ""),
        Method::Notify => (Some(Readiness::Notify), ""),
        Method::File => (file.map(Readiness::File), "readiness_file"),
        Method::Command => (check.map(Readiness::Command), "readiness_check"),
        Method::Signal => (signal.map(Readiness::Signal), "readiness_signal"),
    };
    if found.is_none() && !r.has(S, key) {
        let message = format!("this readiness needs `{S}.{key}`");
        r.report(&rules::READINESS_INCOMPLETE, S, "readiness", &message, None);
    }
    for name in given.into_iter().flatten().filter(|name| *name != key) {
        r.without(S, name, "readiness is told in another way");
    }
    let none_tried =
        ["readiness_file", "readiness_check", "readiness_signal"].iter().all(|key| !r.has(S, key));
    if method == Method::None && none_tried && !hands_over {
        r.without(S, "readiness_timeout", "the component is ready as soon as it runs");
    }
    if !matches!(method, Method::Command | Method::None) {
        r.without(S, "readiness_interval", "nothing is run to learn of readiness");
    }
    found.unwrap_or(Readiness::None)
}

/// A signal by which the component reports to the supervisor.
fn report_signal(r: &mut Reader<'_>, key: &str) -> Option<Signal> {
    const S: &str = "lifecycle";
    let signal = r.get(S, key, signal_to_supervisor)?;
    if !signal.is_queued() {
        let message =
            format!("`{S}.{key}` is {signal}, which is lost when several components send it at once");
        let help = Some("send a real-time signal, 34 to 64: the kernel keeps every one".to_owned());
        r.report(&rules::MERGING_SIGNAL, S, key, &message, help);
    }
    Some(signal)
}

/// Keys that say something about a probe.
const PROBE_DETAILS: [&str; 6] = [
    "health_interval",
    "health_timeout",
    "health_fail_threshold",
    "health_restart_threshold",
    "health_start_grace",
    "health_jitter",
];

/// The one probe that is declared. A second one is an error: it would not be clear which counts.
fn check(r: &mut Reader<'_>) -> Option<Check> {
    const S: &str = "lifecycle";
    let found = [
        r.get(S, "health_check", command).map(Check::Command),
        r.get(S, "health_tcp", socket_address).map(Check::Tcp),
        r.get(S, "health_http", http_target).map(Check::Http),
        r.get(S, "health_unix", absolute_path).map(Check::Unix),
        r.get(S, "health_file", absolute_path).map(Check::File),
        report_signal(r, "health_signal").map(Check::Signal),
    ];
    let mut found = found.into_iter().flatten();
    let first = found.next()?;
    if let Some(second) = found.next() {
        let message = format!("`{}` and `{}` are both given", first.key(), second.key());
        let help = Some("a component has one health probe; a command can ask several things".to_owned());
        r.report(&rules::TWO_PROBES, S, second.key(), &message, help);
    }
    Some(first)
}

fn health(r: &mut Reader<'_>) -> Option<Health> {
    const S: &str = "lifecycle";
    let check = check(r);
    let interval = r.get(S, "health_interval", interval);
    let timeout = r.get(S, "health_timeout", positive_seconds);
    let fail = count(r, S, "health_fail_threshold", 3);
    let restart = count(r, S, "health_restart_threshold", 5);
    if restart < fail {
        let message = "`health_restart_threshold` is lower than `health_fail_threshold`";
        let help = Some("the component would be restarted before it is DEGRADED".to_owned());
        r.report(&rules::RESTART_FIRST, S, "health_restart_threshold", message, help);
    }
    let interval = interval.unwrap_or(HEALTH_INTERVAL);
    if let Some(timeout) = timeout.filter(|timeout| check.is_some() && *timeout > interval) {
        let (timeout, interval) = (timeout.as_secs_f64(), interval.as_secs_f64());
        let message =
            format!("`health_timeout` is {timeout} s, longer than `health_interval` with {interval} s");
        let help = Some("while a probe hangs, no other is sent".to_owned());
        r.report(&rules::SLOW_PROBE, S, "health_timeout", &message, help);
    }
    if !PROBES.iter().any(|key| r.has(S, key)) {
        for key in PROBE_DETAILS {
            r.without(S, key, "no probe is declared");
        }
    }
    let start_grace = r.get(S, "health_start_grace", seconds).unwrap_or_default();
    let jitter = r.get(S, "health_jitter", seconds);
    if jitter.is_some_and(|jitter| jitter > interval) {
        let message = "`health_jitter` is longer than `health_interval`";
        let help = Some("first probes are spread over one interval at most".to_owned());
        r.report(&rules::WIDE_JITTER, S, "health_jitter", message, help);
    }
    Some(Health {
        check: check?,
        interval,
        timeout: timeout.unwrap_or(HEALTH_TIMEOUT),
        fail_threshold: fail,
        restart_threshold: restart,
        start_grace,
        jitter: jitter.map(|jitter| jitter.min(interval)),
    })
}

/// What of a process no checkpoint can bring back, and what declares it.
fn not_made_again(
    isolation: &Isolation,
    security: &Security,
    has_channel: bool,
) -> Option<(&'static str, &'static str)> {
    let all = [
        (isolation.has(Namespace::User), ("users of its own", "\"user\" in `isolation.namespaces`")),
        (isolation.network.is_some(), ("an interface to a bridge", "`isolation.network`")),
        (security.has_landlock(), ("rules of Landlock", "`security.landlock_*`")),
        (
            isolation.has(Namespace::Cgroup) && isolation.has(Namespace::Mount) && isolation.root.is_none(),
            ("control groups among its file systems", "\"cgroup\" in `isolation.namespaces`"),
        ),
        (
            isolation.init && isolation.has(Namespace::Mount),
            ("a first process from outside of its file systems", "`isolation.init`"),
        ),
        (
            has_channel && isolation.has(Namespace::Net),
            (
                "the channel of a hot swap in another network than its own",
                "\"net\" in `isolation.namespaces`",
            ),
        ),
    ];
    all.into_iter().find_map(|(has, what)| has.then_some(what))
}

fn checkpoint(
    r: &mut Reader<'_>,
    kind: Kind,
    lifecycle: &Lifecycle,
    isolation: &Isolation,
    security: &Security,
) -> CheckpointPolicy {
    const S: &str = "checkpoint";
    let enabled = r.get(S, "enabled", truth).unwrap_or(false);
    if kind != Kind::Service {
        r.without(S, "warm_start", "only a service becomes ready and is started again");
    } else if !enabled {
        r.without(S, "warm_start", "checkpoints are not enabled: set `checkpoint.enabled = true`");
    }
    let moves = lifecycle.handoff == Handoff::Checkpoint;
    let has_channel = matches!(lifecycle.handoff, Handoff::Checkpoint | Handoff::FdPassing);
    let obstacle = not_made_again(isolation, security, has_channel);
    if let Some((what, key_of_it)) = obstacle.filter(|_| enabled || moves) {
        let (section, key) = match enabled {
            true => (S, "enabled"),
            false if r.has("lifecycle", "handoff") => ("lifecycle", "handoff"),
            false => ("component", "handoff"),
        };
        let message = format!("`{section}.{key}` wants checkpoints, and the component has {what}");
        let help = format!("do without {key_of_it}, or without checkpoints");
        r.report(&rules::NO_CHECKPOINT, section, key, &message, Some(help));
    }
    let (rounds, usual) = (r.number(S, "rounds"), CheckpointPolicy::default());
    CheckpointPolicy {
        enabled,
        preserve_fds: r.get(S, "preserve_fds", list).unwrap_or_default(),
        leave_running: r.get(S, "leave_running", truth).unwrap_or(false),
        rounds: rounds.and_then(|rounds| u32::try_from(rounds).ok()).unwrap_or(usual.rounds),
        memory_estimate: r.number(S, "memory_estimate").map(|mebibytes| mebibytes << 20),
        max_age: r.number(S, "max_age").map(|hours| Duration::from_secs(hours * 3600)),
        warm_start: r.get(S, "warm_start", truth).unwrap_or(false),
    }
}

fn hotswap(r: &mut Reader<'_>, passes_descriptors: bool) -> HotSwap {
    const S: &str = "hotswap";
    let grace = r.get(S, "shutdown_grace", seconds).unwrap_or(DEFAULT_GRACE);
    if grace > LONG_GRACE {
        let (grace, long) = (grace.as_secs(), LONG_GRACE.as_secs());
        let message = format!("`hotswap.shutdown_grace` is {grace} s");
        let help = Some(format!("a shutdown of the machine may wait as long; keep it below {long} s"));
        r.report(&rules::LONG_GRACE, S, "shutdown_grace", &message, help);
    }
    let probation = r.get(S, "probation", seconds).unwrap_or_default();
    if !passes_descriptors {
        r.without(
            S,
            "probation",
            "only with `lifecycle.handoff = \"fd-passing\"` is there an old process to keep",
        );
    }
    if probation > LONG_PROBATION {
        let (probation, long) = (probation.as_secs(), LONG_PROBATION.as_secs());
        let message = format!("`hotswap.probation` is {probation} s");
        let help = Some(format!("two processes hold everything for so long; keep it below {long} s"));
        r.report(&rules::LONG_PROBATION, S, "probation", &message, help);
    }
    let strategy = r.get(S, "strategy", word::<Strategy>).unwrap_or_default();
    if !passes_descriptors {
        r.without(S, "strategy", "only with `lifecycle.handoff = \"fd-passing\"` is there a choice");
    } else if strategy == Strategy::Canary && probation.is_zero() {
        let message = "`hotswap.strategy` is \"canary\", and there is no `hotswap.probation`";
        let help = Some(
            "say for how long the new process takes only new connections: `probation = \"30s\"`".to_owned(),
        );
        r.report(&rules::CANARY_WITHOUT_TIME, S, "strategy", message, help);
    }
    HotSwap {
        transfer_fds: r.get(S, "transfer_fds", list_or_truth).flatten(),
        env_vars: r.get(S, "env_vars", variables).unwrap_or_default(),
        shutdown_grace: grace,
        probation,
        strategy,
        preserve_state: r.get(S, "preserve_state", truth).unwrap_or(false),
        fd_store_max: count(r, S, "fd_store_max", 0),
    }
}
