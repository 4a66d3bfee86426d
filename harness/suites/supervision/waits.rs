//! Waiting for a change of state: never missed, however short it was and whoever else waits.

use std::time::{Duration, Instant};

use yakiros_guest::protocol::ExitStatus;

use super::{REACTION, idle};
use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

/// That wait before the change, and as many after it.
const HALF: usize = 50;
/// For that many programs to start on an emulated processor.
const MANY_LIMIT: Duration = Duration::from_secs(30);

pub async fn journal_waits(vm: &Vm) -> Result<(), Failure> {
    vm.step("a hundred wait for one change", hundred(vm)).await?;
    vm.step("a change that is over is not missed", passed(vm)).await
}

async fn hundred(vm: &Vm) -> Result<(), Failure> {
    let since = vm.status().await?.revision;
    let waiters = format!(
        "for i in $(seq {HALF}); do {{ graphctl wait late --state ACTIVE --since {since} --timeout 60 \
         >/dev/null 2>&1; echo $? >> /run/answers; }} & done"
    );
    // Connections of process 1: its own two sockets aside, each is a client that waits.
    let connected = format!("until [ $(ls -l /proc/1/fd | grep -c socket:) -ge {HALF} ]; do sleep 0.1; done");
    vm.succeed(&["/bin/sh", "-c", &format!("{waiters}; {connected}")], MANY_LIMIT).await?;
    let answered = vm.run(&["test", "-e", "/run/answers"], REACTION).await?.success();
    check!(
        !answered,
        "waits for a component that is not declared were answered: {}",
        vm.read("/run/answers").await?
    );

    let start = Instant::now();
    vm.declare("late.toml", &idle("late", "")).await?;
    let answers =
        format!("until [ \"$(cat /run/answers 2>/dev/null | wc -l)\" -ge {HALF} ]; do sleep 0.05; done");
    vm.succeed(&["/bin/sh", "-c", &answers], MANY_LIMIT).await?;
    vm.metric("answer_50_waits", "ms", start.elapsed().as_secs_f64() * 1000.0);
    vm.succeed(&["/bin/sh", "-c", &format!("{waiters}; wait")], MANY_LIMIT).await?;
    let answers = vm.sh("sort /run/answers | uniq -c").await?;
    let all = format!("{} 0", 2 * HALF);
    check!(answers.trim() == all, "{} waits ended with (count, exit code): {answers}", 2 * HALF);
    Ok(())
}

async fn passed(vm: &Vm) -> Result<(), Failure> {
    let since = vm.status().await?.revision.to_string();
    let flash = "[component]\nname = \"flash\"\nbinary = \"/bin/true\"\ntype = \"oneshot\"\n";
    vm.declare("flash.toml", flash).await?;
    vm.wait_state("flash", "DONE", None, REACTION).await?;
    let now = vm.status().await?.revision.to_string();
    let wait = ["graphctl", "wait", "flash", "--state", "STARTING", "--timeout", "1"];
    let table = [
        (&["--since", since.as_str()][..], 0, "STARTING, which it was since then,"),
        (&["--since", now.as_str()], 1, "STARTING, which it was before that,"),
        (&[], 1, "STARTING, which it is no more,"),
    ];
    for (more, code, what) in table {
        let output = vm.run(&[&wait[..], more].concat(), REACTION).await?;
        let (status, said) = (output.status, output.error_text());
        check!(status == ExitStatus::Code(code), "a wait for {what} ended with {status:?}: {said}");
    }
    Ok(())
}
