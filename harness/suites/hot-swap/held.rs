//! An upgrade that is held at one of its steps, while something happens to somebody.

use std::time::Duration;

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::versions::{lead_to_faulty, lead_to_server};
use super::{ECHO, REACTION, pid_of, until, upgrade};

/// Where the process is that is held, and until when.
const HELD: &str = "/run/held";
/// The control group of a supervisor that is paused.
const PAUSED: &str = "/sys/fs/cgroup/paused";
/// For a re-execution with the trial before it, on an emulated processor.
const TAKE_OVER: Duration = Duration::from_secs(10);

/// An upgrade under way, and its processes.
pub struct Held {
    pub old: i32,
    pub new: i32,
}

impl Held {
    /// Begin an upgrade, and have it wait at the end of this step.
    pub async fn begin(vm: &Vm, step: &str) -> Result<Self, Failure> {
        // The last step is the old process's.
        if step == "leave" {
            lead_to_faulty(vm, &format!("old.leave:hold={HELD}")).await?;
            upgrade(vm, ECHO).await?;
            lead_to_server(vm).await?;
        } else {
            lead_to_faulty(vm, &format!("new.{step}:hold={HELD}")).await?;
        }
        let old = pid_of(vm, ECHO).await?;
        vm.sh(&format!(
            "rm -f /run/upgraded; setsid sh -c 'graphctl upgrade {ECHO} --no-fallback --json > /run/upgraded.new 2>&1; \
             mv /run/upgraded.new /run/upgraded' < /dev/null > /dev/null 2>&1 &"
        ))
        .await?;
        vm.wait_path(HELD, REACTION).await?;
        let new = match step {
            "leave" => pid_of(vm, ECHO).await?,
            _ => vm
                .read(HELD)
                .await?
                .trim()
                .parse()
                .map_err(|error| Failure::harness(format!("{HELD}: {error}")))?,
        };
        check!(new != old, "process {old} upgrades itself");
        Ok(Self { old, new })
    }

    /// It goes on.
    pub async fn let_go(&self, vm: &Vm) -> Result<(), Failure> {
        vm.sh(&format!("rm -f {HELD}")).await.map(drop)
    }

    /// Whether there is no answer yet.
    pub async fn is_under_way(&self, vm: &Vm) -> Result<bool, Failure> {
        Ok(vm.sh("test ! -e /run/upgraded && echo waits || true").await?.starts_with("waits"))
    }

    /// Process 1 executes itself again.
    pub async fn re_execute(&self, vm: &Vm) -> Result<(), Failure> {
        let said = vm.graphctl_within(&["reexec"], TAKE_OVER).await?;
        check!(said.contains("took over in"), "graphctl reexec says `{said}`");
        Ok(())
    }

    /// It goes on to its end: what the command says.
    pub async fn end(&self, vm: &Vm) -> Result<String, Failure> {
        self.let_go(vm).await?;
        vm.wait_path("/run/upgraded", REACTION * 2).await?;
        vm.wait_settled(REACTION).await?;
        vm.read("/run/upgraded").await
    }
}

/// Process 1 does nothing any more. It cannot be stopped by a signal from within its own namespace, and stopping the
/// whole machine would stop its clock and everybody else; the freezer stops it alone.
pub async fn pause_supervisor(vm: &Vm) -> Result<(), Failure> {
    vm.sh(&format!("mkdir -p {PAUSED}; echo 1 > {PAUSED}/cgroup.procs; echo 1 > {PAUSED}/cgroup.freeze"))
        .await?;
    // Not at once: it leaves the kernel first.
    until(vm, &format!("grep -q '^frozen 1' {PAUSED}/cgroup.events")).await
}

/// It does again.
pub async fn resume_supervisor(vm: &Vm) -> Result<(), Failure> {
    vm.sh(&format!("echo 0 > {PAUSED}/cgroup.freeze; echo 1 > /sys/fs/cgroup/cgroup.procs; rmdir {PAUSED}"))
        .await
        .map(drop)
}
