//! Every step of an upgrade × what can happen to a party meanwhile.
//!
//! The upgrade is held at the end of a step, by the process whose word ends it, and something happens to one of the
//! three. The simulation tries all of it with many seeds (`cargo xtask sim --crash-points`); here it is real processes.

use std::time::Duration;

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::held::{Held, pause_supervisor, resume_supervisor};
use super::versions::declare;
use super::{ECHO, ECHO_TARGET, REACTION};
use crate::load::Load;

/// The steps, by their names in the journal.
const STEPS: [&str; 5] = ["prepare", "move", "ready", "commit", "leave"];
/// How long whoever is paused is; less than the ten seconds of an upgrade.
const PAUSE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    OldDies,
    OldPauses,
    NewDies,
    NewPauses,
    Reexecutes,
    SupervisorPauses,
}

/// Who serves in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Serves {
    Old,
    New,
    /// One that was started by the restart rule: who had the connections died with them.
    Restarted,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::OldDies => "old dies",
            Self::OldPauses => "old pauses",
            Self::NewDies => "new dies",
            Self::NewPauses => "new pauses",
            Self::Reexecutes => "supervisor re-executes",
            Self::SupervisorPauses => "supervisor pauses",
        }
    }

    /// Who has to serve, if the upgrade had the time that it may take.
    fn expected(self, step: &str) -> Serves {
        match (self, step) {
            // What it had is not all with the new one yet.
            (Self::OldDies, "prepare" | "move") | (Self::NewDies, "leave") => Serves::Restarted,
            (Self::NewDies, _) => Serves::Old,
            _ => Serves::New,
        }
    }
}

impl Serves {
    fn name(self) -> &'static str {
        match self {
            Self::Old => "old serves",
            Self::New => "new serves",
            Self::Restarted => "restarted",
        }
    }
}

pub async fn crash_points_of_the_old_version(vm: &Vm) -> Result<(), Failure> {
    try_all(vm, vm.amount(&[Fault::OldDies, Fault::OldPauses], &[Fault::OldDies])).await
}

pub async fn crash_points_of_the_new_version(vm: &Vm) -> Result<(), Failure> {
    try_all(vm, vm.amount(&[Fault::NewDies, Fault::NewPauses], &[Fault::NewDies])).await
}

pub async fn crash_points_of_the_supervisor(vm: &Vm) -> Result<(), Failure> {
    try_all(vm, vm.amount(&[Fault::Reexecutes, Fault::SupervisorPauses], &[Fault::Reexecutes])).await
}

async fn try_all(vm: &Vm, faults: &[Fault]) -> Result<(), Failure> {
    declare(vm, "", "").await?;
    for &fault in faults {
        for step in STEPS {
            let name = format!("{step}: {}", fault.name());
            vm.step(&name, try_one(vm, step, fault)).await?;
        }
    }
    Ok(())
}

async fn try_one(vm: &Vm, step: &'static str, fault: Fault) -> Result<(), Failure> {
    let load = Load::begin(vm, "crash", ECHO_TARGET, "--connections 10").await?;
    let held = Held::begin(vm, step).await?;
    happen(vm, &held, fault).await?;
    let said = held.end(vm).await?;
    vm.wait_state(ECHO, "ACTIVE", None, REACTION).await?;
    let status = vm.status().await?;
    let serves = match status.component(ECHO)?.running_pid()? {
        pid if pid == held.old => Serves::Old,
        pid if pid == held.new => Serves::New,
        _ => Serves::Restarted,
    };
    vm.crash_point(step, fault.name(), serves.name());
    // On a machine that stood still meanwhile the upgrade's own limit may have come first; then nobody may have lost
    // anything by it.
    let expected = fault.expected(step);
    let late = said.contains("within its time");
    check!(
        serves == expected || (late && serves == Serves::Old),
        "{}, and not {expected:?}: {said}",
        serves.name()
    );
    let verdict = load.end(vm).await?;
    if serves == Serves::Restarted { verdict.check_honest() } else { verdict.check_clean() }
}

async fn happen(vm: &Vm, held: &Held, fault: Fault) -> Result<(), Failure> {
    const STOP: i32 = 19;
    const GO_ON: i32 = 18;
    const KILL: i32 = 9;
    let of_party = match fault {
        Fault::OldDies | Fault::OldPauses => held.old,
        _ => held.new,
    };
    match fault {
        Fault::OldDies | Fault::NewDies => {
            vm.signal(of_party, KILL).await?;
            vm.wait_process_gone(of_party, fault.name(), REACTION).await
        }
        Fault::OldPauses | Fault::NewPauses => {
            vm.signal(of_party, STOP).await?;
            held.let_go(vm).await?;
            tokio::time::sleep(PAUSE).await;
            vm.signal(of_party, GO_ON).await
        }
        Fault::Reexecutes => held.re_execute(vm).await,
        Fault::SupervisorPauses => {
            pause_supervisor(vm).await?;
            held.let_go(vm).await?;
            tokio::time::sleep(PAUSE).await;
            resume_supervisor(vm).await
        }
    }
}
