//! The machines of a run: each is booted once, saved when the supervisor has settled, and cloned for each scenario.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use yakiros_guest::protocol::{Exec, ExitStatus};
use yakiros_reports::event::{CloneReady, Event, MachineOrigin, MachineReady, ms};
use yakiros_vm::error::VmError;
use yakiros_vm::machine::{Guest, Machine, Saved, create_disk};

use crate::capsule;
use crate::events::Events;
use crate::failure::Failure;
use crate::limits::{FIRST_BOOT, Limits};
use crate::scenario::{Scenario, Start};
use crate::suite::{Config, Suite};

/// Name of the operating system in the guest: of its root, not of its kernel.
const OS_RELEASE: &str = "/etc/os-release";

/// One suite's machine.
pub struct SuiteMachine {
    suite: &'static Suite,
    config: Config,
    machine: Machine,
    folders: Folders,
    events: Rc<Events>,
    limits: Rc<OnceCell<Limits>>,
    user_factor: f64,
    saved: tokio::sync::OnceCell<Result<Saved, Failure>>,
}

/// Where a machine keeps its files. Both folders exist.
pub struct Folders {
    /// What is of use only while the run lasts: states, disks.
    pub work: PathBuf,
    /// What stays: the console of the guest that is cloned, and its capsule if it does not settle.
    pub log: PathBuf,
}

/// A guest for one scenario, and its disks on the host.
pub struct Ready {
    /// Settled.
    pub guest: Guest,
    /// Raw images.
    pub disks: Vec<PathBuf>,
    /// For this host.
    pub limits: Limits,
}

impl SuiteMachine {
    /// A machine of a suite, not yet booted.
    pub fn new(
        suite: &'static Suite,
        config: Config,
        machine: Machine,
        folders: Folders,
        events: Rc<Events>,
        limits: Rc<OnceCell<Limits>>,
        user_factor: f64,
    ) -> Self {
        let saved = tokio::sync::OnceCell::new();
        Self { suite, config, machine, folders, events, limits, user_factor, saved }
    }

    /// Its name in reports.
    pub fn name(&self) -> String {
        self.suite.name.to_owned()
    }

    /// What its guests are made of.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Memory in MiB that a guest takes at most.
    pub fn memory_mb(&self) -> u32 {
        self.config.machine.memory_mb
    }

    /// A guest for a scenario, for its attempt of this number. `cold` boots one even where a clone would do.
    pub async fn guest(
        &self,
        scenario: &Scenario,
        attempt: u32,
        cold: bool,
        console_log: &Path,
    ) -> Result<Ready, Failure> {
        match scenario.start {
            Start::Clone if !cold => self.clone_of_saved(console_log).await,
            Start::Clone => self.booted(&[], &[], &self.folders.work, console_log).await,
            Start::Cold { disks_mb, arguments } => {
                let folder = self.folders.work.join(format!("{}.{attempt}", scenario.name));
                std::fs::create_dir_all(&folder).map_err(VmError::host("make a folder for disks"))?;
                self.booted(disks_mb, arguments, &folder, console_log).await
            }
        }
    }

    /// A clone of the machine as it was saved.
    pub async fn clone_of_saved(&self, console_log: &Path) -> Result<Ready, Failure> {
        let saved = self.saved.get_or_init(|| self.boot_and_save()).await;
        let saved = saved.as_ref().map_err(Failure::clone)?;
        let limits = self.limits();
        let guest =
            saved.clone_guest(console_log, limits.for_clone()).await.map_err(Failure::before_hand_over)?;
        self.events
            .emit(Event::CloneReady(CloneReady { machine: self.name(), ms: ms(guest.answered_after) }));
        Ok(Ready { guest, disks: Vec::new(), limits })
    }

    async fn boot_and_save(&self) -> Result<Saved, Failure> {
        let console_log = self.folders.log.join("console.log");
        let Ready { guest, .. } = self.booted(&[], &[], &self.folders.work, &console_log).await?;
        guest.save(&self.folders.work).await.map_err(Failure::before_hand_over)
    }

    async fn booted(
        &self,
        disks_mb: &[u64],
        arguments: &[&str],
        folder: &Path,
        console_log: &Path,
    ) -> Result<Ready, Failure> {
        let mut disks = Vec::new();
        for (index, size) in disks_mb.iter().enumerate() {
            let disk = folder.join(format!("disk{index}.raw"));
            create_disk(&disk, *size)?;
            disks.push(disk);
        }
        let machine = self.machine.with_hardware(|hardware| {
            hardware.disks.clone_from(&disks);
            // What follows `--` is for the init, so these go to the front.
            hardware.arguments.splice(0..0, arguments.iter().map(ToString::to_string));
        });
        let limit =
            self.limits.get().map_or(FIRST_BOOT.mul_f64(self.user_factor), |limits| limits.for_boot());
        let start = Instant::now();
        let guest = machine.boot(folder, console_log, limit).await.map_err(Failure::before_hand_over)?;
        self.limits.get_or_init(|| Limits::calibrated(guest.answered_after, self.user_factor));
        let limits = self.limits();
        if let Err(mut failure) = settle(&guest, limits.scaled(self.config.limits.settle())).await {
            if let Some(folder) = console_log.parent() {
                capsule::collect(&guest, folder).await;
                failure.message = format!("{}\nsee {}", failure.message, folder.display());
            }
            return Err(failure);
        }
        self.events.emit(Event::MachineReady(MachineReady {
            machine: self.name(),
            os: operating_system(&guest).await,
            kernel_release: guest.kernel_release.clone(),
            how: MachineOrigin::Cold,
            boot_ms: ms(guest.answered_after),
            ready_ms: ms(start.elapsed()),
            memory_mb: self.config.machine.memory_mb.into(),
            cpus: self.config.machine.cpus,
        }));
        Ok(Ready { guest, disks, limits })
    }

    /// Without the files that it would boot from inside, which no other machine has in its memory: boots it, waits until it has
    /// settled, and tells how long both took from the start of QEMU.
    pub async fn boot_bare(&self, folder: &Path, console_log: &Path) -> Result<(Ready, Duration), Failure> {
        let machine = if self.config.machine.boot_files {
            self.machine.without_last_layer()?
        } else {
            self.machine.clone()
        };
        let limits = self.limits();
        let start = Instant::now();
        let guest =
            machine.boot(folder, console_log, limits.for_boot()).await.map_err(Failure::before_hand_over)?;
        settle(&guest, limits.scaled(self.config.limits.settle())).await?;
        Ok((Ready { guest, disks: Vec::new(), limits }, start.elapsed()))
    }

    fn limits(&self) -> Limits {
        self.limits.get().copied().unwrap_or_else(|| Limits::calibrated(Duration::ZERO, self.user_factor))
    }
}

/// Waits until the supervisor answers and has nothing more to do.
pub async fn settle(guest: &Guest, limit: Duration) -> Result<(), Failure> {
    let seconds = limit.as_secs_f64().to_string();
    // graphctl says at once that there is no supervisor while its socket is not there yet.
    let socket = guest.agent.wait_path("/run/graph-resolver.sock", false, limit);
    guest.watched("see the supervisor's control socket", limit * 2, socket).await?;
    let argv = ["graphctl", "wait", "--settled", "--timeout", &seconds].map(String::from).to_vec();
    let output = guest.exec(Exec { argv, ..Exec::default() }, limit * 2).await?;
    if output.status == ExitStatus::Code(0) {
        return Ok(());
    }
    let said = [output.error_text(), output.text()].concat();
    let message = format!("the supervisor did not settle in {limit:.1?}: {}", said.trim());
    Err(Failure::supervisor(format!("{message}\n{}", guest.console.tail(15))))
}

async fn operating_system(guest: &Guest) -> Option<String> {
    let release = guest.agent.read_file(OS_RELEASE).await.ok()?;
    let release = String::from_utf8_lossy(&release).into_owned();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(name.trim_matches('"').to_owned())
}
