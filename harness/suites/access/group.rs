//! Members of the group, strangers and root at the control socket of process 1.

use std::time::Duration;

use yakiros_guest::protocol::ExitStatus;

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

/// For a program to start and be answered.
const ANSWER: Duration = Duration::from_secs(5);
/// The group that `suite.toml` names.
const GROUP: &str = "adm";
/// Is put into the group.
const MEMBER: &str = "nobody";
/// Is not.
const STRANGER: &str = "mail";

pub async fn control_group_limits_who_connects(vm: &Vm) -> Result<(), Failure> {
    vm.sh(&format!("addgroup {MEMBER} {GROUP}")).await?;
    for (user, member) in [(MEMBER, true), (STRANGER, false)] {
        let groups = vm.sh(&format!("id -nG {user}")).await?;
        let right = groups.split_whitespace().any(|group| group == GROUP) == member;
        check!(right, "the groups of {user} are {}", groups.trim());
    }
    let said = vm.sh("tr '\\0' ' ' < /proc/1/cmdline").await?;
    check!(said.contains(&format!("--control-group={GROUP}")), "process 1 was started as `{said}`");
    vm.step("as it was booted", everybody_has_their_rights(vm)).await?;
    vm.graphctl(&["reexec"]).await?;
    vm.step("after it executed itself again", everybody_has_their_rights(vm)).await
}

async fn everybody_has_their_rights(vm: &Vm) -> Result<(), Failure> {
    // It is the group that keeps the stranger out: not the directory, nor anything about the account.
    for command in ["test -S /run/graph-resolver.sock", "graphctl explain Y0102"] {
        vm.succeed(&["su", "-s", "/bin/sh", STRANGER, "-c", command], ANSWER).await?;
    }
    let before = vm.status().await?;
    ask(vm, MEMBER, "status guarded", 0).await?;
    let said = ask(vm, MEMBER, "stop guarded", 1).await?;
    check!(said.contains("root"), "the refusal of the member's stop does not say who may: {said}");
    for command in ["status", "stop guarded"] {
        ask(vm, STRANGER, command, 3).await?;
    }
    let after = vm.status().await?;
    check!(
        after.revision == before.revision && after.component("guarded")?.state == "ACTIVE",
        "somebody who may not changed something: {after:?}"
    );
    ask(vm, "root", "stop guarded", 0).await?;
    let stopped = vm.status().await?;
    check!(stopped.component("guarded")?.pid.is_none(), "root's stop was followed by {stopped:?}");
    ask(vm, "root", "start guarded", 0).await?;
    let started = vm.status().await?;
    check!(started.component("guarded")?.state == "ACTIVE", "root's start was followed by {started:?}");
    Ok(())
}

/// A graphctl command that is to end with this code; gives what it printed.
async fn ask(vm: &Vm, user: &str, command: &str, code: i32) -> Result<String, Failure> {
    let line = format!("graphctl {command}");
    let output = vm.run(&["su", "-s", "/bin/sh", user, "-c", &line], ANSWER).await?;
    let said = output.text() + &output.error_text();
    check!(
        output.status == ExitStatus::Code(code),
        "{user}'s `{command}` ended with {:?} and not with {code}: {said}",
        output.status
    );
    Ok(said)
}
