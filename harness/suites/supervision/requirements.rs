//! Capabilities that stay because another provider has them, that go, and that come back.

use super::{REACTION, idle, journal};
use crate::check;
use crate::failure::Failure;
use crate::vm::{Status, Vm};

const SIGKILL: i32 = 9;
const PROVIDERS: [&str; 2] = ["left", "right"];
const USERS: [&str; 2] = ["user", "user-of-user"];
/// From what is stopped first to what is stopped last.
const CHAIN: [&str; 3] = ["top", "middle", "lower"];

pub async fn provider_fail_over(vm: &Vm) -> Result<(), Failure> {
    for name in PROVIDERS {
        let file = idle(name, "[provides]\ncapabilities = [\"shared\"]");
        vm.declare(&format!("{name}.toml"), &file).await?;
        vm.wait_state(name, "ACTIVE", None, REACTION).await?;
    }
    let user = "[provides]\ncapabilities = [\"user.up\"]\n[requires]\ncapabilities = [\"shared\"]";
    vm.declare("user.toml", &idle("user", user)).await?;
    let second = idle("user-of-user", "[requires]\ncapabilities = [\"user.up\"]");
    vm.declare("user-of-user.toml", &second).await?;
    vm.wait_state("user-of-user", "ACTIVE", None, REACTION).await?;

    let before = vm.status().await?;
    for name in PROVIDERS {
        vm.step(&format!("{name} is stopped"), async {
            vm.graphctl(&["stop", name]).await?;
            unmoved(vm, &before).await?;
            vm.graphctl(&["start", name]).await.map(drop)
        })
        .await?;
        vm.step(&format!("{name} is killed"), async {
            let now = vm.status().await?;
            vm.signal(now.component(name)?.running_pid()?, SIGKILL).await?;
            vm.wait_state(name, "ACTIVE", Some(now.revision), REACTION).await?;
            unmoved(vm, &before).await
        })
        .await?;
    }
    vm.step("both are stopped", both_stopped(vm)).await
}

/// The capability is up, and its users are in the same processes, without a change of state.
async fn unmoved(vm: &Vm, before: &Status) -> Result<(), Failure> {
    let caps = vm.graphctl(&["caps"]).await?;
    let line = caps.lines().find(|line| line.contains("shared")).unwrap_or_default();
    check!(line.contains("UP"), "with one of two providers the capability is shown as `{line}`");
    let now = vm.status().await?;
    for user in USERS {
        let (was, is) = (before.component(user)?.pid, now.component(user)?.pid);
        check!(was == is, "{user} was process {was:?} and is {is:?}, though one provider was always up");
    }
    let records = journal(vm, before.revision).await?;
    let moved = records.iter().find(|record| USERS.contains(&record.component.as_str()));
    check!(moved.is_none(), "one provider was always up, and the journal has {moved:?}");
    Ok(())
}

async fn both_stopped(vm: &Vm) -> Result<(), Failure> {
    let before = vm.status().await?;
    for name in PROVIDERS {
        vm.graphctl(&["stop", name]).await?;
    }
    for user in USERS {
        vm.wait_state(user, "INACTIVE", Some(before.revision), REACTION).await?;
        let pid = before.component(user)?.running_pid()?;
        check!(!vm.exists(pid).await?, "{user} has no provider left, and its process {pid} runs on");
    }
    vm.graphctl(&["start", "right"]).await?;
    vm.wait_state("user-of-user", "ACTIVE", Some(before.revision), REACTION).await?;
    let left = vm.status().await?;
    check!(left.component("left")?.state == "INACTIVE", "the provider that was stopped is up again");
    Ok(())
}

/// Takes its time to end, so that those who are told at once end in the wrong order, and notes its end.
fn slow_to_end(name: &str, seconds: &str, provides: &str, requires: &str) -> String {
    format!(
        r#"
[component]
name = "{name}"
binary = "/bin/sh"
args = ["-c", """
trap 'sleep {seconds}; echo {name} >> /run/order; exit 0' TERM
echo > /run/{name}.armed
while :; do sleep 1000 & wait; done
"""]
[provides]
capabilities = ["{provides}"]
[requires]
capabilities = ["{requires}"]
[lifecycle]
readiness_file = "/run/{name}.armed"
"#
    )
}

const TASK: &str = r#"
[component]
name = "task"
binary = "/usr/local/bin/test-oneshot"
args = ["--append", "/run/task"]
type = "oneshot"
[requires]
capabilities = ["chain.lower"]
"#;

pub async fn requirement_lost_and_regained(vm: &Vm) -> Result<(), Failure> {
    let stands_on = ["chain.middle", "chain.lower", "base"];
    for ((name, seconds), requires) in CHAIN.into_iter().zip(["0.6", "0.3", "0"]).zip(stands_on) {
        let file = slow_to_end(name, seconds, &format!("chain.{name}"), requires);
        vm.declare(&format!("{name}.toml"), &file).await?;
    }
    vm.declare("task.toml", TASK).await?;
    vm.wait_state("top", "ACTIVE", None, REACTION).await?;
    vm.wait_state("task", "DONE", None, REACTION).await?;

    let before = vm.status().await?;
    vm.step("the lowest is stopped", vm.graphctl(&["stop", "lower"])).await?;
    let order = vm.read("/run/order").await?;
    check!(order == "top\nmiddle\nlower\n", "they ended in the order {order:?}");
    let lost = vm.status().await?;
    for name in CHAIN {
        let (state, pid) = (&lost.component(name)?.state, before.component(name)?.running_pid()?);
        check!(state == "INACTIVE", "after the loss {name} is {state}");
        check!(!vm.exists(pid).await?, "after the loss the process {pid} of {name} runs on");
    }
    let task = &lost.component("task")?.state;
    check!(task == "DONE", "a oneshot that was done is {task} after what it required has gone");

    vm.graphctl(&["start", "lower"]).await?;
    vm.wait_state("top", "ACTIVE", Some(lost.revision), REACTION).await?;

    let again = vm.status().await?;
    vm.step("the lowest is killed", async {
        vm.sh("rm /run/order").await?;
        vm.signal(again.component("lower")?.running_pid()?, SIGKILL).await?;
        vm.wait_state("top", "ACTIVE", Some(again.revision), REACTION).await
    })
    .await?;
    let order = vm.read("/run/order").await?;
    check!(order == "top\nmiddle\n", "after a crash below them they ended in the order {order:?}");
    for name in CHAIN {
        let pid = again.component(name)?.running_pid()?;
        check!(!vm.exists(pid).await?, "a second copy of {name} was started beside process {pid}");
    }
    let runs = vm.sh("wc -l < /run/task").await?;
    check!(runs.trim() == "1", "a oneshot that was done ran {} times", runs.trim());
    let state = vm.status().await?.component("task")?.state.clone();
    check!(state == "DONE", "a oneshot that was done is {state}");
    Ok(())
}
