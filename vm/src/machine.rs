//! Machines: booted once, saved when ready, cloned for each use.
//!
//! - A clone is a new QEMU over the same memory, mapped copy-on-write: it starts in a fraction of a boot and sees
//!   nothing of other clones. Its entropy and its wall clock are its own before anybody can use it.
//! - Whoever waits for a guest is told at once when its kernel fails, its QEMU ends or its agent is lost.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use yakiros_guest::protocol::{Exec, Fresh, Shutdown};

use crate::agent::{Agent, AgentResult, Output};
use crate::console::{Class, Console};
use crate::cpio::concatenate;
use crate::error::{VmError, VmErrorKind};
use crate::memory::anonymous_file;
use crate::qemu::{Accelerator, Alone, Hardware, Launch, Process, Qemu};
use crate::qmp::{Qmp, ShutdownCause};

/// Console lines shown with a failure.
const EXCERPT_LINES: usize = 15;
/// When the agent's channel closes, the cause is on its way too: QEMU's end, or a panic on the console.
const CAUSE_GRACE: Duration = Duration::from_millis(500);
/// For nobody to have the agent's port open, until the agent is lost: a machine that ends closes it, too, and then ends.
const PORT_GRACE: Duration = Duration::from_secs(2);
/// QEMU ends within milliseconds of `quit`.
const QUIT_LIMIT: Duration = Duration::from_secs(10);
/// The saved state's name in the machine's folder.
const STATE_FILE: &str = "state";
/// Entropy that a clone gets.
const ENTROPY_BYTES: usize = 32;

/// What all guests of a run share.
#[derive(Debug)]
pub struct Host {
    /// The program.
    pub qemu: Qemu,
    /// How it runs the guest's code.
    pub accelerator: Accelerator,
}

/// A machine that can be booted.
#[derive(Debug, Clone)]
pub struct Machine {
    host: Arc<Host>,
    hardware: Arc<Hardware>,
    initrd: Arc<File>,
    /// Where the last of the initrd's archives begins, in bytes.
    last_at: u64,
}

/// A guest that runs. Dropping it ends it at once, as pulling the plug does.
#[derive(Debug)]
pub struct Guest {
    machine: Machine,
    ram: Arc<File>,
    process: Process,
    qmp: Qmp,
    /// The serial console.
    pub console: Console,
    /// The agent's channel, for requests that [`Guest`] has no method for.
    pub agent: Agent,
    /// `uname -r`.
    pub kernel_release: String,
    /// From the start of QEMU to the agent's first answer.
    pub answered_after: Duration,
    /// Somebody waits for the guest's end, or for another kernel in it.
    is_awaited: AtomicBool,
}

/// A guest that was saved. Its memory lives as long as this and its clones.
#[derive(Debug)]
pub struct Saved {
    machine: Machine,
    ram: Arc<File>,
    directory: PathBuf,
}

/// How a guest has ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// What QEMU said; `None` if it died without a word.
    pub cause: Option<ShutdownCause>,
    /// QEMU's own exit.
    pub status: ExitStatus,
}

impl Machine {
    /// A machine of this hardware, which boots these archives as its initrd.
    pub fn new(host: Arc<Host>, hardware: Hardware, layers: &[PathBuf]) -> Result<Self, VmError> {
        let mut initrd = anonymous_file("initrd", 0)?;
        let (others, last) = layers.split_at(layers.len().saturating_sub(1));
        let mut join = |layers| concatenate(layers, &mut initrd);
        let last_at = join(others).and_then(|length| join(last).map(|_| length));
        let last_at = last_at.map_err(VmError::host("join the layers of the initrd"))?;
        Ok(Self { host, hardware: hardware.into(), initrd: initrd.into(), last_at })
    }

    /// The same machine with other hardware.
    #[must_use]
    pub fn with_hardware(&self, change: impl FnOnce(&mut Hardware)) -> Self {
        let mut hardware = (*self.hardware).clone();
        change(&mut hardware);
        Self { hardware: hardware.into(), ..self.clone() }
    }

    /// Boots it; ready means that the agent answers.
    pub async fn boot(
        &self,
        directory: &Path,
        console_log: &Path,
        limit: Duration,
    ) -> Result<Guest, VmError> {
        let start = Instant::now();
        let ram = Arc::new(anonymous_file("ram", u64::from(self.hardware.memory_mb) << 20)?);
        let unready = self.launch(&ram, false, directory, console_log).await?;
        unready.greet("boot the guest", start, None, limit).await
    }

    /// The same machine with one more archive, whose files go before those of the others.
    pub fn with_layer(&self, layer: &Path) -> Result<Self, VmError> {
        let join = || -> io::Result<(File, u64)> {
            let (mut initrd, last_at) = self.copy_initrd(u64::MAX)?;
            io::copy(&mut File::open(layer)?, &mut initrd)?;
            Ok((initrd, last_at))
        };
        let (initrd, last_at) = join().map_err(VmError::host("add a layer to the initrd"))?;
        Ok(Self { initrd: initrd.into(), last_at, ..self.clone() })
    }

    /// The same machine without the archive that was added last. Of the one before it is not known where it begins: what is
    /// left counts as one.
    pub fn without_last_layer(&self) -> Result<Self, VmError> {
        let copied = self.copy_initrd(self.last_at);
        let (initrd, _) = copied.map_err(VmError::host("take a layer from the initrd"))?;
        Ok(Self { initrd: initrd.into(), last_at: 0, ..self.clone() })
    }

    /// So many bytes of the initrd from its begin, and how many that are.
    fn copy_initrd(&self, most: u64) -> io::Result<(File, u64)> {
        let mut initrd = anonymous_file("initrd", 0).map_err(io::Error::other)?;
        let mut from = self.initrd.try_clone()?;
        from.seek(SeekFrom::Start(0))?;
        let copied = io::copy(&mut from.take(most), &mut initrd)?;
        Ok((initrd, copied))
    }

    /// Starts it with nobody to talk to. It runs until its process ends or is dropped.
    pub fn run_alone(&self, alone: &Alone, directory: &Path, console_log: &Path) -> Result<Process, VmError> {
        let ram = anonymous_file("ram", u64::from(self.hardware.memory_mb) << 20)?;
        let launch = Launch {
            qemu: &self.host.qemu,
            accelerator: self.host.accelerator,
            hardware: &self.hardware,
            ram: &ram,
            initrd: &self.initrd,
            restore: false,
            directory,
            console_log,
            alone: Some(alone),
        };
        launch.start_alone()
    }

    async fn launch(
        &self,
        ram: &Arc<File>,
        restore: bool,
        directory: &Path,
        console_log: &Path,
    ) -> Result<Unready, VmError> {
        let launch = Launch {
            qemu: &self.host.qemu,
            accelerator: self.host.accelerator,
            hardware: &self.hardware,
            ram,
            initrd: &self.initrd,
            restore,
            directory,
            console_log,
            alone: None,
        };
        let (process, sockets) = launch.start()?;
        let console = Console::watch(sockets.console);
        let agent = Agent::attach(sockets.agent);
        let qmp = match Qmp::connect(sockets.qmp).await {
            Ok(qmp) => qmp,
            Err(error) => {
                let signs = Signs { process: &process, console: &console, qmp: None, has_agent: false };
                return Err(signs.explain(error).await);
            }
        };
        let (machine, ram) = (self.clone(), Arc::clone(ram));
        Ok(Unready { machine, ram, process, qmp, console, agent })
    }
}

/// A guest whose agent has not answered yet.
struct Unready {
    machine: Machine,
    ram: Arc<File>,
    process: Process,
    qmp: Qmp,
    console: Console,
    agent: Agent,
}

impl Unready {
    fn signs(&self) -> Signs<'_> {
        Signs { process: &self.process, console: &self.console, qmp: Some(&self.qmp), has_agent: true }
    }

    async fn greet(
        self,
        attempt: &str,
        start: Instant,
        fresh: Option<Fresh>,
        limit: Duration,
    ) -> Result<Guest, VmError> {
        let nonce = u64::from_le_bytes(random().map_err(VmError::host("read entropy"))?);
        let kernel_release =
            self.signs().watch(attempt, limit, self.agent.greet(nonce, fresh, limit)).await?;
        let Self { machine, ram, process, qmp, console, agent } = self;
        let answered_after = start.elapsed();
        let is_awaited = AtomicBool::new(false);
        Ok(Guest { machine, ram, process, qmp, console, agent, kernel_release, answered_after, is_awaited })
    }
}

impl Guest {
    /// The host's process id of its QEMU.
    pub fn qemu_pid(&self) -> u32 {
        self.process.pid
    }

    /// The machine protocol, for what [`Guest`] has no method for.
    pub fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    /// Saves the guest as it is and ends it. The folder must stay as long as the result.
    pub async fn save(self, directory: &Path) -> Result<Saved, VmError> {
        if !self.agent.is_idle() {
            let kind = VmErrorKind::AgentLost("a request is still open".into());
            return Err(VmError::new("save the guest", kind));
        }
        let saved = async {
            self.qmp.ignore_shared_memory().await?;
            self.qmp.stop().await?;
            self.qmp.save_state(STATE_FILE).await?;
            self.qmp.quit().await
        };
        if let Err(error) = saved.await {
            return Err(self.signs().explain(error).await);
        }
        if tokio::time::timeout(QUIT_LIMIT, self.process.exited()).await.is_err() {
            let kind = VmErrorKind::TimedOut { limit: QUIT_LIMIT, console: String::new() };
            return Err(VmError::new("end QEMU after saving the guest", kind));
        }
        Ok(Saved { machine: self.machine, ram: self.ram, directory: directory.to_path_buf() })
    }

    /// Does something with the guest, for at most `limit`; a guest that fails meanwhile ends it at once.
    pub async fn watched<T>(
        &self,
        attempt: &str,
        limit: Duration,
        work: impl Future<Output = AgentResult<T>>,
    ) -> Result<T, VmError> {
        self.signs().watch(attempt, limit, work).await
    }

    /// Whether nobody is there to answer, or nobody needs to be: the agent's end of the channel is closed, or somebody
    /// waits for the guest's end or for another kernel in it.
    pub fn may_be_silent(&self) -> bool {
        self.qmp.port_is_closed() || self.is_awaited.load(Ordering::Relaxed)
    }

    /// Ends when the guest has failed: its kernel in a way that is not `expected`, or its agent or QEMU while nobody waits
    /// for the guest's end. For whoever waits for something that asks nothing of the guest; who does is told first.
    pub async fn failure(&self, is_expected: impl Fn(Class) -> bool) -> VmError {
        let kernel = async {
            match self.console.failure().await {
                finding if is_expected(finding.class) => std::future::pending().await,
                finding => VmErrorKind::GuestKernel(finding),
            }
        };
        let rest = async {
            // An agent may end for one that is waited for, and that one unexpectedly: each pass takes the time of grace.
            loop {
                let kind = tokio::select! {
                    status = self.process.exited() => {
                        tokio::time::sleep(PORT_GRACE).await;
                        self.signs().ended(status)
                    }
                    () = self.qmp.port_closed_for(PORT_GRACE) => agent_ended(),
                };
                if !self.is_awaited.load(Ordering::Relaxed) {
                    return kind;
                }
            }
        };
        let kind = tokio::select! {
            kind = kernel => kind,
            kind = rest => kind,
        };
        self.signs().explain(VmError::new("wait in the guest", kind)).await
    }

    /// Greets an agent that did not answer before: that of another kernel, into which the guest has jumped. Gives the
    /// kernel's release. Until [`Guest::is_back`] says that it was that one, the guest may be silent.
    pub async fn greet_again(&self, limit: Duration) -> Result<String, VmError> {
        let attempt = "greet the guest again";
        self.is_awaited.store(true, Ordering::Relaxed);
        let nonce = u64::from_le_bytes(random().map_err(VmError::host("read entropy"))?);
        // Between two kernels there is none.
        let signs = Signs { has_agent: false, ..self.signs() };
        signs.watch(attempt, limit, self.agent.greet(nonce, None, limit)).await
    }

    /// Says that who has answered [`Guest::greet_again`] is who was waited for: from now on it has to answer.
    pub fn is_back(&self) {
        self.is_awaited.store(false, Ordering::Relaxed);
    }

    /// Runs a program to its end; when `limit` is over it is killed in the guest.
    pub async fn exec(&self, mut exec: Exec, limit: Duration) -> Result<Output, VmError> {
        let attempt = format!("run `{}` in the guest", exec.argv.join(" "));
        exec.timeout_ms.get_or_insert(limit.as_millis() as u64);
        // The agent's own clock and the answer's grace come first; this is for a guest that does not answer at all.
        self.watched(&attempt, limit * 2 + QUIT_LIMIT, self.agent.exec(exec)).await
    }

    /// Whether the guest has ended, for whatever reason.
    pub fn has_ended(&self) -> bool {
        self.process.has_exited()
    }

    /// Waits until the guest has ended by itself.
    pub async fn ended(&self, limit: Duration) -> Result<Ended, VmError> {
        self.is_awaited.store(true, Ordering::Relaxed);
        if let Ok(status) = tokio::time::timeout(limit, self.process.exited()).await {
            self.signs().last_words().await;
            return Ok(Ended { cause: self.qmp.shutdown_cause(), status });
        }
        Err(VmError::new("see the guest end by itself", self.signs().timed_out(limit)))
    }

    /// Asks for the guest's end.
    pub async fn shutdown(&self, how: Shutdown, limit: Duration) -> Result<(), VmError> {
        self.watched("shut the guest down", limit, self.agent.shutdown(how)).await
    }

    fn signs(&self) -> Signs<'_> {
        Signs { process: &self.process, console: &self.console, qmp: Some(&self.qmp), has_agent: true }
    }
}

impl Saved {
    /// A clone that answers, with entropy and time of its own.
    pub async fn clone_guest(&self, console_log: &Path, limit: Duration) -> Result<Guest, VmError> {
        let start = Instant::now();
        let unready = self.machine.launch(&self.ram, true, &self.directory, console_log).await?;
        let restored = async {
            unready.qmp.ignore_shared_memory().await?;
            unready.qmp.load_state(STATE_FILE).await?;
            unready.qmp.cont().await
        };
        if let Err(error) = restored.await {
            return Err(unready.signs().explain(error).await);
        }
        unready.greet("restore the guest", start, Some(freshness()?), limit).await
    }
}

/// What a guest's failure can be seen in.
#[derive(Clone, Copy)]
struct Signs<'a> {
    process: &'a Process,
    console: &'a Console,
    /// Missing while QEMU is being started.
    qmp: Option<&'a Qmp>,
    /// Whether an agent that closes its end of the channel is lost.
    has_agent: bool,
}

impl Signs<'_> {
    async fn watch<T>(
        self,
        attempt: &str,
        limit: Duration,
        work: impl Future<Output = AgentResult<T>>,
    ) -> Result<T, VmError> {
        let kind = tokio::select! {
            biased;
            result = work => match result {
                Ok(value) => return Ok(value),
                Err(VmErrorKind::TimedOut { limit, .. }) => self.timed_out(limit),
                Err(kind) => kind,
            },
            finding = self.console.failure() => VmErrorKind::GuestKernel(finding),
            status = self.process.exited() => self.ended(status),
            () = self.agent_ended() => agent_ended(),
            () = tokio::time::sleep(limit) => self.timed_out(limit),
        };
        Err(self.explain(VmError::new(attempt, kind)).await)
    }

    async fn agent_ended(self) {
        match self.qmp.filter(|_| self.has_agent) {
            Some(qmp) => qmp.port_closed_for(PORT_GRACE).await,
            None => std::future::pending().await,
        }
    }

    /// Puts the cause in place of its consequence: a channel closes *because* QEMU ended or the kernel failed.
    async fn explain(self, error: VmError) -> VmError {
        let VmError { attempt, kind } = error;
        let is_consequence = matches!(
            kind,
            VmErrorKind::AgentLost(_)
                | VmErrorKind::Qmp(_)
                | VmErrorKind::QemuEnded { .. }
                | VmErrorKind::GuestEnded(_)
        );
        if !is_consequence {
            return VmError { attempt, kind };
        }
        let ended = tokio::time::timeout(CAUSE_GRACE, self.process.exited()).await.ok();
        if ended.is_some() {
            self.last_words().await;
        }
        let kind = match (self.console.fatal_finding(), ended) {
            (Some(finding), _) => VmErrorKind::GuestKernel(finding),
            (None, Some(status)) => self.ended(status),
            (None, None) => kind,
        };
        VmError { attempt, kind }
    }

    /// After QEMU's end: waits until everything that it and the guest said has been read.
    async fn last_words(self) {
        let read = async {
            self.console.closed().await;
            if let Some(qmp) = self.qmp {
                qmp.closed().await;
            }
        };
        // Without them the verdict is poorer, not wrong.
        drop(tokio::time::timeout(CAUSE_GRACE, read).await);
    }

    fn ended(self, status: ExitStatus) -> VmErrorKind {
        match self.qmp.and_then(Qmp::shutdown_cause) {
            Some(cause) if cause.by_guest() => VmErrorKind::GuestEnded(cause),
            _ => VmErrorKind::QemuEnded { status: status.to_string(), stderr: self.process.stderr() },
        }
    }

    fn timed_out(self, limit: Duration) -> VmErrorKind {
        VmErrorKind::TimedOut { limit, console: self.console.tail(EXCERPT_LINES) }
    }
}

fn agent_ended() -> VmErrorKind {
    VmErrorKind::AgentLost("it has closed its end of the channel".into())
}

/// Entropy of its own and the host's time, for a clone.
fn freshness() -> Result<Fresh, VmError> {
    let bytes: [u8; ENTROPY_BYTES] = random().map_err(VmError::host("read entropy"))?;
    let mut entropy = String::with_capacity(ENTROPY_BYTES * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _infallible = write!(entropy, "{byte:02x}");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Fresh { entropy, realtime_ns: now.as_nanos() as u64 })
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Makes a raw disk image full of zeros that takes no space until it is written to.
pub fn create_disk(path: &Path, size_mb: u64) -> Result<(), VmError> {
    let create = || -> io::Result<()> {
        let mut file = File::create_new(path)?;
        file.set_len(size_mb << 20)?;
        file.flush()
    };
    create().map_err(VmError::host(format!("create the disk {}", path.display())))
}

#[cfg(test)]
mod tests;
