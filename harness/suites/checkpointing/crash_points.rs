//! Each step of a checkpoint, of a move and of a restore × what can happen to the supervisor meanwhile.
//!
//! CRIU, or the worker, is held at the step. The simulation tries all of it with many seeds (`cargo xtask sim
//! --crash-points`); here it is real processes.

use std::time::Duration;

use crate::check;
use crate::failure::Failure;
use crate::suites::hot_swap::held::{pause_supervisor, resume_supervisor};
use crate::vm::Vm;

use super::client::Client;
use super::tripwire::{TELL, Tripwire, Work};
use super::{REACTION, STATEFUL, attempt, checkpoint, pid_of};

/// Where the command's answer goes.
const ANSWER: &str = "/run/answer";
/// How long the supervisor pauses; less than what any of its limits is.
const PAUSE: Duration = Duration::from_secs(2);
/// What CRIU says at the steps.
const DUMP: [&str; 4] =
    ["Running pre-dump scripts", "Dumping pages", "Running post-dump scripts", "Unfreezing tasks"];
const RESTORE: [&str; 4] = [
    "Reading image tree",
    "Running pre-restore scripts",
    "Running post-restore scripts",
    "Running post-resume scripts",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Pauses,
    /// It is to execute itself again, and does not before the work is done.
    Reexecutes,
}

pub async fn crash_points_of_the_supervisor(vm: &Vm) -> Result<(), Failure> {
    let wire = Tripwire::criu(vm).await?;
    let both = [DUMP, RESTORE].concat();
    let works = [(Work::Checkpoint, DUMP.as_slice()), (Work::Move, &both), (Work::Restore, &RESTORE)];
    for (work, steps) in works {
        for (place, step) in steps.iter().enumerate() {
            for fault in [Fault::Pauses, Fault::Reexecutes] {
                let in_short_run = work == Work::Move && place == 1 && fault == Fault::Reexecutes;
                if vm.amount(true, in_short_run) {
                    let name = format!("{work:?}: {step}: the supervisor {fault:?}");
                    vm.step(&name, one(vm, &wire, (work, step, fault))).await?;
                }
            }
        }
    }
    wire.remove(vm).await
}

async fn one(vm: &Vm, wire: &Tripwire, (work, step, fault): (Work, &str, Fault)) -> Result<(), Failure> {
    wire.set(vm, "").await?;
    let mut client = Client::connect(vm).await?;
    let counted = client.increment(vm).await?;
    let made = checkpoint(vm, STATEFUL).await?;
    let pid = pid_of(vm, STATEFUL).await?;
    wire.set(vm, &format!("{TELL}hold {step}")).await?;
    let command = match work {
        Work::Checkpoint => format!("checkpoint {STATEFUL}"),
        Work::Move => format!("upgrade {STATEFUL} --no-fallback"),
        Work::Restore => format!("restore {STATEFUL} {} --no-fallback", made.id),
    };
    vm.sh(&format!(
        "rm -f {ANSWER}; setsid sh -c 'graphctl {command} > {ANSWER}.new 2>&1; echo $? >> {ANSWER}.new; \
         mv {ANSWER}.new {ANSWER}' < /dev/null > /dev/null 2>&1 &"
    ))
    .await?;
    wire.is_held(vm).await?;
    match fault {
        Fault::Pauses => {
            pause_supervisor(vm).await?;
            wire.let_go(vm).await?;
            tokio::time::sleep(PAUSE).await;
            resume_supervisor(vm).await?;
        }
        Fault::Reexecutes => {
            let (done, text, error) = attempt(vm, &["reexec"]).await?;
            check!(
                !done && error.contains("being made or restored"),
                "it executes itself again: {text}{error}"
            );
            wire.let_go(vm).await?;
        }
    }
    vm.wait_path(ANSWER, REACTION * 2).await?;
    let said = vm.read(ANSWER).await?;
    vm.wait_settled(REACTION).await?;
    wire.set(vm, "").await?;
    let succeeded = said.trim_end().ends_with("\n0");
    check!(succeeded, "it did not come to its end: {said}");
    check!(pid_of(vm, STATEFUL).await? == pid, "it was process {pid}, and is another one: {said}");
    let mut connected = if work == Work::Restore { Client::connect(vm).await? } else { client };
    let counts = connected.increment(vm).await?;
    check!(counts == counted + 1, "it had counted {counted}, and goes on with {counts}: {said}");
    let serves = if work == Work::Checkpoint { "the same serves" } else { "it is made again" };
    vm.crash_point(step, &format!("the supervisor {fault:?} in a {work:?}"), serves);
    Ok(())
}
