//! Process 1 executes itself again while others rely on what it looks after.

use std::time::Duration;

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::{REACTION, idle};

const ROUNDS: usize = 20;
/// For one re-execution, with the trial before it, on an emulated processor.
const TAKE_OVER: Duration = Duration::from_secs(10);

const ECHO: &str = "[component]\nname = \"echo\"\nbinary = \"/usr/local/bin/test-echo-server\"\n\
    args = [\"--listen\", \"127.0.0.1:8080\"]\n[provides]\ncapabilities = [\"echo\"]\n";

/// Asks one question after the other until it is told to stop, and notes each that gets no answer or a wrong one.
const LOAD: &str = "n=0\nwhile ! test -e /tmp/enough; do\n  n=$((n + 1))\n  answer=$(echo \"question $n\" | nc -w 5 127.0.0.1 8080)\n  \
    test \"$answer\" = \"question $n\" || echo \"question $n got '$answer'\" >> /tmp/unanswered\n  echo $n > /tmp/asking; mv /tmp/asking /tmp/asked\ndone\n\
    : > /tmp/over\n";

async fn asked(vm: &Vm) -> Result<u64, Failure> {
    let text = vm.sh("cat /tmp/asked 2>/dev/null || echo 0").await?;
    Ok(text.trim().parse().unwrap_or(0))
}

pub async fn re_execution_under_load(vm: &Vm) -> Result<(), Failure> {
    vm.declare("echo.toml", ECHO).await?;
    vm.declare("client.toml", &idle("client", "[requires]\ncapabilities = [\"echo\"]")).await?;
    vm.wait_state("client", "ACTIVE", None, REACTION).await?;
    vm.write("/tmp/load.sh", LOAD).await?;
    vm.sh("rm -f /tmp/enough; setsid sh /tmp/load.sh < /dev/null > /dev/null 2>&1 &").await?;
    vm.wait_path("/tmp/asked", REACTION).await?;
    let before = vm.status().await?;

    let again = async {
        for round in 1..=ROUNDS {
            let said = vm.graphctl_within(&["reexec"], TAKE_OVER).await?;
            check!(said.contains("took over in"), "round {round}: graphctl reexec says `{said}`");
        }
        Ok(())
    };
    let questions = asked(vm).await?;
    vm.step("process 1 executes itself again", again).await?;
    let meanwhile = asked(vm).await? - questions;
    check!(meanwhile > 0, "nothing was asked while process 1 executed itself again {ROUNDS} times");
    vm.metric("questions_during_20_re_executions", "count", meanwhile as f64);

    vm.sh(": > /tmp/enough").await?;
    vm.wait_path("/tmp/over", REACTION).await?;
    let unanswered = vm.sh("cat /tmp/unanswered 2>/dev/null || true").await?;
    check!(unanswered.is_empty(), "while process 1 executed itself again: {unanswered}");
    let after = vm.status().await?;
    check!(after.revision == before.revision, "the journal has records of something: {after:?}");
    for component in &before.components {
        let now = after.component(&component.name)?;
        check!(now.pid == component.pid, "{} was {:?} and is {:?}", component.name, component.pid, now.pid);
    }
    // It looks after them as before.
    let pid = after.component("echo")?.running_pid()?;
    vm.signal(pid, 9).await?;
    vm.wait_state("client", "ACTIVE", Some(after.revision), REACTION).await
}
