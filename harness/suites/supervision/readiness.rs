//! Ready, by each of the methods, and not ready in time.

use std::time::Duration;

use super::REACTION;
use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

/// To report ready: long enough to be looked at before it is over.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How a service says that it is ready, and how its file says so.
struct Method {
    name: &'static str,
    /// More arguments of test-ready.
    reports: &'static str,
    /// Lines of `[lifecycle]`.
    lifecycle: &'static str,
}

/// The stale file comes first: by the time the fresh one has counted, it would have counted too.
const METHODS: [Method; 6] = [
    Method {
        name: "by-stale-file",
        reports: r#""--file", "/run/stale""#,
        lifecycle: "readiness_file = \"/run/stale\"",
    },
    Method {
        name: "by-file",
        reports: r#""--file", "/run/fresh""#,
        lifecycle: "readiness_file = \"/run/fresh\"",
    },
    Method {
        name: "by-command",
        reports: r#""--file", "/run/asked""#,
        lifecycle: "readiness_check = \"test -e /run/asked\"\nreadiness_interval = 0.2",
    },
    Method { name: "by-signal", reports: r#""--signal", "10""#, lifecycle: "readiness_signal = \"SIGUSR1\"" },
    Method { name: "by-fd", reports: r#""--fd""#, lifecycle: "readiness = \"notify\"" },
    Method { name: "by-socket", reports: r#""--socket""#, lifecycle: "readiness = \"notify\"" },
];

impl Method {
    /// Declares a service that reports once its gate is open, and one that needs it.
    async fn declare(&self, vm: &Vm, more: &str) -> Result<(), Failure> {
        let Self { name, reports, lifecycle } = self;
        let service = format!(
            "[component]\nname = \"{name}\"\nbinary = \"/usr/local/bin/test-ready\"\n\
             args = [\"--gate\", \"/run/{name}.gate\", {reports}]\n\
             [provides]\ncapabilities = [\"ready.{name}\"]\n\
             [lifecycle]\n{lifecycle}\n{more}\n"
        );
        let dependent = format!(
            "[component]\nname = \"needs-{name}\"\nbinary = \"/usr/local/bin/test-idle\"\n\
             [requires]\ncapabilities = [\"ready.{name}\"]\n"
        );
        vm.declare(&format!("needs-{name}.toml"), &dependent).await?;
        vm.declare(&format!("{name}.toml"), &service).await
    }

    async fn open_gate(&self, vm: &Vm) -> Result<(), Failure> {
        vm.write(&format!("/run/{}.gate", self.name), "").await
    }
}

pub async fn readiness_methods(vm: &Vm) -> Result<(), Failure> {
    vm.write("/run/stale", "of an earlier run").await?;
    for method in &METHODS {
        method.declare(vm, "").await?;
        vm.wait_state(method.name, "READY_WAIT", None, REACTION).await?;
    }
    for method in METHODS.iter().skip(1).chain(&METHODS[..1]) {
        vm.step(method.name, becomes_ready(vm, method)).await?;
    }
    // Without a method, the start is all there is to wait for.
    let before = vm.status().await?.revision;
    vm.declare("at-once.toml", "[component]\nname = \"at-once\"\nbinary = \"/usr/local/bin/test-idle\"\n")
        .await?;
    vm.wait_state("at-once", "ACTIVE", None, REACTION).await?;
    let events = vm.graphctl(&["events", "--since", &before.to_string()]).await?;
    check!(!events.contains("READY_WAIT"), "without a readiness method it waited for readiness: {events}");
    Ok(())
}

async fn becomes_ready(vm: &Vm, method: &Method) -> Result<(), Failure> {
    let name = method.name;
    let needs = format!("needs-{name}");
    let before = vm.status().await?;
    let (waiting, dependent) = (before.component(name)?, before.component(&needs)?);
    check!(waiting.state == "READY_WAIT", "before it reported, {name} is {}", waiting.state);
    check!(
        dependent.state == "INACTIVE" && dependent.pid.is_none(),
        "before {name} reported, its dependent is {} with process {:?}",
        dependent.state,
        dependent.pid
    );
    method.open_gate(vm).await?;
    vm.wait_state(name, "ACTIVE", Some(before.revision), REACTION).await?;
    vm.wait_state(&needs, "ACTIVE", Some(before.revision), REACTION).await?;
    let after = vm.status().await?;
    let ready = after.component(name)?;
    check!(ready.pid == waiting.pid, "{name} was process {:?} and is {:?}", waiting.pid, ready.pid);
    check!(ready.restarts == 0, "{name} was restarted {} times before it was ready", ready.restarts);
    Ok(())
}

pub async fn readiness_timeouts(vm: &Vm) -> Result<(), Failure> {
    vm.write("/run/stale", "of an earlier run").await?;
    let before = vm.status().await?.revision;
    let mut pids = Vec::new();
    // In whole seconds, as it is told.
    let limit = vm.limit(TIMEOUT).as_secs();
    for method in &METHODS {
        method.declare(vm, &format!("readiness_timeout = {limit}")).await?;
        vm.wait_state(method.name, "READY_WAIT", None, REACTION).await?;
        pids.push(vm.status().await?.component(method.name)?.running_pid()?);
    }
    for (method, pid) in METHODS.iter().zip(pids) {
        let name = method.name;
        vm.wait_state(name, "FAILED", Some(before), TIMEOUT + REACTION).await?;
        let status = vm.status().await?;
        let failed = status.component(name)?;
        let detail = failed.detail.clone().unwrap_or_default();
        let told = detail.contains(&format!("not ready within {limit}s"));
        check!(told, "{name} is FAILED with the reason {detail:?}, not for the {limit} s it had");
        check!(failed.pid.is_none(), "{name} is FAILED and has process {:?}", failed.pid);
        check!(!vm.exists(pid).await?, "{name} is FAILED, and its process {pid} is still there");
        let dependent = status.component(&format!("needs-{name}"))?;
        check!(dependent.state == "INACTIVE", "what needs {name} is {}", dependent.state);
    }
    let base = vm.status().await?;
    check!(base.component("base")?.restarts == 0, "a bystander was restarted");
    Ok(())
}
