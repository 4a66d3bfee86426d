//! Who may connect to a supervisor that is given a group, and who may change something.

use std::time::Duration;

use yakiros_guest::protocol::ExitStatus;

use super::REACTION;
use crate::check;
use crate::failure::Failure;
use crate::vm::{Status, Vm};

/// For a program to start and be answered.
const ANSWER: Duration = Duration::from_secs(5);
/// In the group by the group file.
const MEMBER: &str = "nobody";
/// In no group that matters.
const STRANGER: &str = "daemon";

/// A second supervisor, in user mode. What it starts stays in the control group that it is in.
const SECOND: &str = r#"
[component]
name = "second"
binary = "/sbin/graph-resolver"
args = [
    "--config-dir", "/run/second/graph.d", "--control-socket", "/run/second/sock",
    "--state-dir", "/run/second/state", "--cgroup-root", "/run/second/none",
    "--control-group", "watchers", "--log", "stderr",
]
"#;

pub async fn control_group_limits_who_connects(vm: &Vm) -> Result<(), Failure> {
    vm.sh(&format!("echo 'watchers:x:4242:{MEMBER}' >> /etc/group; mkdir -p -m 755 /run/second/graph.d"))
        .await?;
    vm.write("/run/second/graph.d/guarded.toml", &super::idle("guarded", "")).await?;
    vm.declare("second.toml", SECOND).await?;
    vm.wait_path("/run/second/sock", REACTION).await?;
    ask(vm, "root", "wait guarded --state ACTIVE --timeout 5", 0).await?;
    // It is the group that keeps the stranger out: not the directory, nor anything about the account.
    for command in ["test -S /run/second/sock", "graphctl status"] {
        vm.succeed(&["su", "-s", "/bin/sh", STRANGER, "-c", command], ANSWER).await?;
    }
    let mode = vm.sh("stat -c '%a %U %G' /run/second/sock").await?;
    check!(mode.trim() == "660 root watchers", "the socket is {mode}");

    let before = status(vm).await?;
    ask(vm, MEMBER, "status guarded", 0).await?;
    let said = ask(vm, MEMBER, "stop guarded", 1).await?;
    check!(said.contains("root"), "the refusal of the member's stop does not say who may: {said}");
    for command in ["status", "stop guarded"] {
        ask(vm, STRANGER, command, 3).await?;
    }
    let after = status(vm).await?;
    check!(
        after.revision == before.revision && after.component("guarded")?.state == "ACTIVE",
        "somebody who may not changed something: {after:?}"
    );
    ask(vm, "root", "stop guarded", 0).await?;
    let stopped = status(vm).await?;
    check!(stopped.component("guarded")?.pid.is_none(), "root's stop was followed by {stopped:?}");
    ask(vm, "root", "start guarded", 0).await?;
    let started = status(vm).await?;
    check!(started.component("guarded")?.state == "ACTIVE", "root's start was followed by {started:?}");
    Ok(())
}

/// A graphctl command to the second supervisor that is to end with this code; gives what it printed.
async fn ask(vm: &Vm, user: &str, command: &str, code: i32) -> Result<String, Failure> {
    let line = format!("graphctl --socket /run/second/sock {command}");
    let output = vm.run(&["su", "-s", "/bin/sh", user, "-c", &line], ANSWER).await?;
    let said = output.text() + &output.error_text();
    check!(
        output.status == ExitStatus::Code(code),
        "{user}'s `{command}` ended with {:?} and not with {code}: {said}",
        output.status
    );
    Ok(said)
}

async fn status(vm: &Vm) -> Result<Status, Failure> {
    let text = ask(vm, "root", "status --json", 0).await?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::supervisor(format!("the second supervisor's status: {error}: {text}")))
}
