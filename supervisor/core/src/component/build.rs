//! Puts a [`Component`] together from a document, section by section, and checks what one key
//! demands of another.

use std::time::Duration;

use super::keys::Word;
use super::reader::Reader;
use super::values::{
    absolute_path, arguments, bytes, capabilities, cgroup_path, command, cpu_max, host_name, http_target,
    list, list_or_truth, namespaces, positive_seconds, seconds, signal, signal_to_supervisor, socket_address,
    text, truth, variables, word,
};
use super::{
    Check, CheckpointPolicy, Component, Handoff, Health, HotSwap, Isolation, KERNEL, Kind, Lifecycle,
    NAME_LIMIT, Namespace, Readiness, Resources,
};
use crate::diagnostic::Severity::{Error, Warning};

/// Time between SIGTERM and SIGKILL when a component does not say: what most init systems give a
/// service to write its state down, short enough that a shutdown stays within a minute.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);

impl Word for Kind {
    const WORDS: &'static [(&'static str, Self)] = &[("service", Kind::Service), ("oneshot", Kind::Oneshot)];
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
    let name = name(r);
    let extends_kernel = name.as_deref() == Some(KERNEL);
    let binary = binary(r, extends_kernel);
    let args = r.get("component", "args", arguments).unwrap_or_default();
    let kind = r.get("component", "type", word::<Kind>).unwrap_or(Kind::Service);
    let provides = capability_list(r, "provides");
    let requires = capability_list(r, "requires");
    let optional = capability_list(r, "optional");
    self_dependency(r, &provides, &requires);
    let lifecycle = lifecycle(r, kind);
    let resources = resources(r);
    let isolation = isolation(r);
    let checkpoint = checkpoint(r);
    let hotswap = hotswap(r);
    Some(Component {
        name: name?,
        binary: binary?,
        args,
        kind,
        provides,
        requires,
        optional,
        lifecycle,
        resources,
        isolation,
        checkpoint,
        hotswap,
    })
}

fn name(r: &mut Reader<'_>) -> Option<String> {
    if !r.has("component", "name") {
        let help = Some("write name = \"NAME\" under [component]".to_owned());
        r.report(Error, "component", "name", "`component.name` is missing", help);
        return None;
    }
    let name = r.get("component", "name", text)?;
    let fits_a_file_name = name.len() <= NAME_LIMIT
        && !name.starts_with(['.', '-'])
        && name.chars().all(|c| c.is_alphanumeric() || "._-+@:".contains(c));
    if !fits_a_file_name {
        r.report(
            Error,
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

fn binary(r: &mut Reader<'_>, extends_kernel: bool) -> Option<String> {
    let given = r.has("component", "binary");
    match (given, extends_kernel) {
        (true, true) => {
            let message = "`component.binary` is ignored: `kernel` has no process";
            r.report(Warning, "component", "binary", message, None);
            Some(String::new())
        }
        (true, false) => r.get("component", "binary", absolute_path),
        (false, true) => Some(String::new()),
        (false, false) => {
            let help = Some("write binary = \"/path/to/program\" under [component]".to_owned());
            let message = "`component.binary` is missing";
            r.report(Error, "component", "binary", message, help);
            None
        }
    }
}

fn capability_list(r: &mut Reader<'_>, section: &str) -> Vec<String> {
    r.get(section, "capabilities", capabilities).unwrap_or_default()
}

fn self_dependency(r: &mut Reader<'_>, provides: &[String], requires: &[String]) {
    if let Some(own) = requires.iter().find(|cap| provides.contains(cap)) {
        r.report(
            Warning,
            "requires",
            "capabilities",
            &format!("the component requires {own:?}, which it provides itself"),
            Some("unless another component provides it too, it can never start".to_owned()),
        );
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
        r.report(Error, "component", "handoff", message, help);
    }
    let readiness = readiness(r);
    if kind == Kind::Oneshot && readiness != Readiness::None {
        let message = "readiness has no effect on a oneshot: it is done when it exits with 0";
        r.report(Warning, S, "readiness", message, None);
    }
    let health = health(r);
    if let Some(health) = health.as_ref().filter(|_| kind == Kind::Oneshot) {
        let message = "a health probe has no effect on a oneshot: nothing runs once it is done";
        r.report(Warning, S, health.check.key(), message, None);
    }
    Lifecycle {
        handoff: plain.or(alias).unwrap_or(Handoff::None),
        reload_signal: r.get(S, "reload_signal", signal),
        readiness: if kind == Kind::Oneshot { Readiness::None } else { readiness },
        readiness_timeout: r.get(S, "readiness_timeout", positive_seconds).unwrap_or(Duration::from_secs(30)),
        readiness_interval: r
            .get(S, "readiness_interval", positive_seconds)
            .unwrap_or(Duration::from_secs(5)),
        health: health.filter(|_| kind == Kind::Service),
        restart_max: count(r, S, "restart_max", 5),
        restart_window: r.get(S, "restart_window", seconds).unwrap_or(Duration::from_secs(30)),
    }
}

/// The method is what `readiness` says, or else what the other keys imply.
fn readiness(r: &mut Reader<'_>) -> Readiness {
    const S: &str = "lifecycle";
    let file = r.get(S, "readiness_file", absolute_path);
    let check = r.get(S, "readiness_check", command);
    let signal = r.get(S, "readiness_signal", signal_to_supervisor);
    let implied = match (&file, &check, &signal) {
        (Some(_), _, _) => Method::File,
        (_, Some(_), _) => Method::Command,
        (_, _, Some(_)) => Method::Signal,
        _ => Method::None,
    };
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
        r.report(Error, S, "readiness", &message, None);
    }
    found.unwrap_or(Readiness::None)
}

/// The one probe that is declared. A second one is an error: it would not be clear which counts.
fn check(r: &mut Reader<'_>) -> Option<Check> {
    const S: &str = "lifecycle";
    let found = [
        r.get(S, "health_check", command).map(Check::Command),
        r.get(S, "health_tcp", socket_address).map(Check::Tcp),
        r.get(S, "health_http", http_target).map(Check::Http),
        r.get(S, "health_unix", absolute_path).map(Check::Unix),
        r.get(S, "health_file", absolute_path).map(Check::File),
        r.get(S, "health_signal", signal_to_supervisor).map(Check::Signal),
    ];
    let mut found = found.into_iter().flatten();
    let first = found.next()?;
    if let Some(second) = found.next() {
        let message = format!("`{}` and `{}` are both given", first.key(), second.key());
        let help = Some("a component has one health probe; a command can ask several things".to_owned());
        r.report(Error, S, second.key(), &message, help);
    }
    Some(first)
}

fn health(r: &mut Reader<'_>) -> Option<Health> {
    const S: &str = "lifecycle";
    let check = check(r);
    let interval = r.get(S, "health_interval", positive_seconds);
    let timeout = r.get(S, "health_timeout", positive_seconds);
    let fail = count(r, S, "health_fail_threshold", 3);
    let restart = count(r, S, "health_restart_threshold", 5);
    if restart < fail {
        let message = "`health_restart_threshold` is lower than `health_fail_threshold`";
        let help = Some("the component would be restarted before it is DEGRADED".to_owned());
        r.report(Warning, S, "health_restart_threshold", message, help);
    }
    Some(Health {
        check: check?,
        interval: interval.unwrap_or(Duration::from_secs(60)),
        timeout: timeout.unwrap_or(Duration::from_secs(10)),
        fail_threshold: fail,
        restart_threshold: restart,
    })
}

fn resources(r: &mut Reader<'_>) -> Resources {
    const S: &str = "resources";
    let weight = |r: &mut Reader<'_>, key| r.number(S, key).and_then(|n| u16::try_from(n).ok());
    let found = Resources {
        cgroup: r.get(S, "cgroup", cgroup_path),
        memory_max: r.get(S, "memory_max", bytes),
        memory_high: r.get(S, "memory_high", bytes),
        cpu_weight: weight(r, "cpu_weight"),
        io_weight: weight(r, "io_weight"),
        cpu_max: r.get(S, "cpu_max", cpu_max),
        pids_max: r.number(S, "pids_max"),
        files_max: r.number(S, "files_max"),
    };
    if let (Some(high), Some(max)) = (found.memory_high, found.memory_max)
        && high > max
    {
        let message = "`memory_high` is above `memory_max` and would never act";
        r.report(Warning, S, "memory_high", message, None);
    }
    found
}

fn isolation(r: &mut Reader<'_>) -> Isolation {
    const S: &str = "isolation";
    let spaces = r.get(S, "namespaces", namespaces).unwrap_or_default();
    let has_mount = spaces.contains(&Namespace::Mount);
    let hostname = r.get(S, "hostname", host_name);
    if hostname.is_some() && !spaces.contains(&Namespace::Uts) {
        let message = "`isolation.hostname` needs the namespace \"uts\"";
        let help = Some("without it the host's own name would change".to_owned());
        r.report(Error, S, "hostname", message, help);
    }
    let root = r.get(S, "root", absolute_path);
    if root.is_some() && !has_mount {
        let message = "`isolation.root` needs the namespace \"mount\"";
        r.report(Error, S, "root", message, None);
    }
    let private_tmp = r.get(S, "private_tmp", truth);
    if private_tmp == Some(true) && !has_mount {
        let message = "`isolation.private_tmp` needs the namespace \"mount\"";
        r.report(Error, S, "private_tmp", message, None);
    }
    Isolation { namespaces: spaces, hostname, root, private_tmp: private_tmp.unwrap_or(has_mount) }
}

fn checkpoint(r: &mut Reader<'_>) -> CheckpointPolicy {
    const S: &str = "checkpoint";
    CheckpointPolicy {
        enabled: r.get(S, "enabled", truth).unwrap_or(false),
        preserve_fds: r.get(S, "preserve_fds", list).unwrap_or_default(),
        leave_running: r.get(S, "leave_running", truth).unwrap_or(false),
        memory_estimate: r.number(S, "memory_estimate").map(|mebibytes| mebibytes << 20),
        max_age: r.number(S, "max_age").map(|hours| Duration::from_secs(hours * 3600)),
    }
}

fn hotswap(r: &mut Reader<'_>) -> HotSwap {
    const S: &str = "hotswap";
    HotSwap {
        transfer_fds: r.get(S, "transfer_fds", list_or_truth).flatten(),
        env_vars: r.get(S, "env_vars", variables).unwrap_or_default(),
        shutdown_grace: r.get(S, "shutdown_grace", seconds).unwrap_or(DEFAULT_GRACE),
        preserve_state: r.get(S, "preserve_state", truth).unwrap_or(false),
    }
}
