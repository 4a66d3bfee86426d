//! One QEMU process: its command line, its descriptors, its end.
//!
//! - QEMU dies with its parent, however the parent dies (`PR_SET_PDEATHSIG`).
//! - It leaves nothing behind: memory and initrd are anonymous files, QMP, console and agent are socket pairs. The only
//!   files it writes are the console's log and a saved state, both in the run's own folder.
//! - Descriptors are handed over by number, so there are no socket paths to clash, to clean up or to grow too long.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use command_fds::{CommandFdExt, FdMapping};
use nix::libc;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::{oneshot, watch};
use yakiros_guest::cmdline::{AGENT, NO_AGENT};
use yakiros_guest::protocol::PORT_NAME;

use crate::error::VmError;
use crate::qmp::PORT_ID;
use crate::tsc;

/// A QEMU that can be started.
#[derive(Debug, Clone)]
pub struct Qemu {
    /// The program.
    pub binary: PathBuf,
    /// Added to its environment.
    pub env: Vec<(OsString, OsString)>,
    /// Before all other arguments.
    pub extra_args: Vec<OsString>,
}

/// How QEMU runs the guest's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// On the processor.
    Kvm,
    /// Emulated.
    Tcg,
}

impl Accelerator {
    /// As in QEMU and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// QEMU's `-accel`.
    ///
    /// Emulation takes one host thread for all virtual processors. With one each, Linux 6.18 oopses in one boot of ten
    /// ("Oops: int3", while it patches its own code on the other processor), and boots take a third longer.
    fn option(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg,thread=single",
        }
    }

    /// `max` rather than QEMU's default under emulation: without rdrand CRIU needs three seconds more a call.
    ///
    /// Without the promise that copying byte by byte is quick (`erms`, `fsrm`), which an emulator cannot keep: the guest's
    /// kernel copies and clears memory by eight bytes at once then. Where a page holds code that was translated, each
    /// single write is looked at: a kernel that boots where another one has run took ten times as long to unpack its initrd.
    fn cpu_model(self) -> &'static str {
        match self {
            Self::Kvm => "host",
            Self::Tcg => "max,-erms,-fsrm",
        }
    }
}

/// QEMU's machine type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Platform {
    /// No PCI, few devices: boots quickest.
    Microvm,
    /// A PC: PCI, hot-plug.
    Q35,
}

impl Platform {
    /// As in QEMU and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Microvm => "microvm",
            Self::Q35 => "q35",
        }
    }

    /// What a network card needs beside its network: one on PCI would load a boot program from a file that a small QEMU
    /// does not have.
    fn card_options(self) -> &'static str {
        match self {
            Self::Microvm => "",
            Self::Q35 => ",romfile=",
        }
    }

    /// Virtio devices end in this, for the bus that the machine has.
    fn bus(self) -> &'static str {
        match self {
            Self::Microvm => "device",
            Self::Q35 => "pci",
        }
    }
}

/// A guest that nobody talks to: it drives itself, and what it says goes into files, which outlive the harness.
#[derive(Debug, Clone)]
pub struct Alone {
    /// What the guest writes to [`STREAM_PORT`], byte by byte.
    pub stream: PathBuf,
    /// The time that it lives in.
    pub clock: Clock,
}

/// The time that a guest lives in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// That of the host.
    Real,
    /// One that counts the guest's instructions, and skips what it has nothing to do in: a day of little work takes
    /// minutes. What the guest does follows from what it was started with, to the nanosecond, as long as nothing comes
    /// in from outside. Always emulated, on one processor.
    Counted,
}

/// The port that a guest alone writes to.
pub const STREAM_PORT: u16 = 0xe9;

/// An instruction takes so many nanoseconds, as a power of two: 8, which makes a guest that is busy take about as long as
/// it thinks it does.
const INSTRUCTION_SHIFT: u32 = 3;
/// A guest under [`Clock::Counted`] begins at the same time in every run.
const COUNTED_BEGIN: &str = "2024-01-01T00:00:00";
/// What its processor's `rdrand` gives follows from this. Without that instruction CRIU takes three seconds more a call.
const COUNTED_SEED: &str = "1";
/// A processor with nothing of the host's own, a timer that needs no tick (`arat`), and no promises about copying, see
/// [`Accelerator::cpu_model`].
const COUNTED_CPU: &str = "qemu64,+arat,+rdrand";
/// The counter of time stamps counts nanoseconds there.
const COUNTED_ARGUMENTS: &str = "no_timer_check tsc=reliable tsc_early_khz=1000000";

/// The hardware and the kernel of a guest.
#[derive(Debug, Clone)]
pub struct Hardware {
    /// Machine type.
    pub platform: Platform,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mb: u32,
    /// A bzImage, or whatever else this QEMU boots.
    pub kernel: PathBuf,
    /// Kernel arguments after those that every guest gets.
    pub arguments: Vec<String>,
    /// Raw images, writable, seen as /dev/vda, /dev/vdb, …
    pub disks: Vec<PathBuf>,
    /// A network card, on a network of its own that the host and the world are not on.
    pub network: bool,
}

/// Every guest's kernel arguments.
///
/// `loglevel=5` shows warnings and what is worse. `cryptomgr.notests` saves 0.2 s of self-tests. A panic or an
/// oops must end the guest, not leave it half alive; `reboot=t` is the way of resetting that both platforms have.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 loglevel=5 panic=-1 oops=panic reboot=t cryptomgr.notests \
                                kexec_load_disabled=0";
/// Under emulation one boot of a microvm in ten hangs without this, or with a time stamp counter of unknown rate: the
/// kernel's calibration against the PIT never ends. An emulated counter is the host's own, so its rate is given too.
const EMULATION_ARGUMENTS: &str = "no_timer_check";

/// A guest that is kept for hours must not doubt that counter because it once had to wait for a processor while it booted: the
/// clock that it would take instead stands still whenever it waits.
const STEADY_ARGUMENTS: &str = "tsc=reliable";

/// QEMU's id of the guest's network.
pub const NETWORK: &str = "network";

/// Descriptors as QEMU sees them.
const RAM_FD: i32 = 10;
const INITRD_FD: i32 = 11;
const QMP_FD: i32 = 12;
const CONSOLE_FD: i32 = 13;
const AGENT_FD: i32 = 14;

/// What QEMU printed last; it prints little, and only when something is wrong.
const KEPT_STDERR_BYTES: usize = 8 * 1024;

/// What a process is started from.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The program.
    pub qemu: &'a Qemu,
    /// How it runs the guest's code.
    pub accelerator: Accelerator,
    /// What it emulates.
    pub hardware: &'a Hardware,
    /// The guest's memory, of the right size.
    pub ram: &'a File,
    /// The initrd's content.
    pub initrd: &'a File,
    /// Do not start, wait for a saved state; writes to memory stay private.
    pub restore: bool,
    /// The working directory, in which a state may be saved.
    pub directory: &'a Path,
    /// Where the console is logged.
    pub console_log: &'a Path,
    /// Without any channel, but with files.
    pub alone: Option<&'a Alone>,
}

/// A QEMU that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    /// For reports and for the host's tools.
    pub pid: u32,
    exit: watch::Receiver<Option<ExitStatus>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    /// Its drop tells the keeper to kill.
    _kill: oneshot::Sender<()>,
}

/// The host's ends of a process's sockets.
#[derive(Debug)]
pub struct Sockets {
    /// Machine protocol.
    pub qmp: UnixStream,
    /// Serial console.
    pub console: UnixStream,
    /// Agent channel.
    pub agent: UnixStream,
}

impl Launch<'_> {
    /// Starts QEMU.
    pub fn start(&self) -> Result<(Process, Sockets), VmError> {
        self.try_start().map_err(VmError::host(format!("start {}", self.qemu.binary.display())))
    }

    /// Starts QEMU without a channel: see [`Launch::alone`].
    pub fn start_alone(&self) -> Result<Process, VmError> {
        let start = self.command(Vec::new()).and_then(keep);
        start.map_err(VmError::host(format!("start {}", self.qemu.binary.display())))
    }

    fn try_start(&self) -> io::Result<(Process, Sockets)> {
        let (qmp, qmp_end) = UnixStream::pair()?;
        let (console, console_end) = UnixStream::pair()?;
        let (agent, agent_end) = UnixStream::pair()?;
        let mut mappings = Vec::new();
        for (end, child_fd) in [(qmp_end, QMP_FD), (console_end, CONSOLE_FD), (agent_end, AGENT_FD)] {
            mappings.push(FdMapping { parent_fd: blocking(end)?, child_fd });
        }
        Ok((keep(self.command(mappings)?)?, Sockets { qmp, console, agent }))
    }

    /// QEMU, not yet started, with these descriptors and those of memory and initrd.
    fn command(&self, mut mappings: Vec<FdMapping>) -> io::Result<Command> {
        mappings.push(FdMapping { parent_fd: self.ram.try_clone()?.into(), child_fd: RAM_FD });
        mappings.push(FdMapping { parent_fd: self.initrd.try_clone()?.into(), child_fd: INITRD_FD });
        let mut command = Command::new(&self.qemu.binary);
        command.args(self.arguments()).envs(self.qemu.env.iter().cloned()).current_dir(self.directory);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // A Ctrl-C at the terminal is for the harness, which ends its guests in order.
        command.process_group(0);
        command.fd_mappings(mappings).map_err(io::Error::other)?;
        let parent = std::process::id();
        // SAFETY: `die_with` only makes system calls that are safe after fork.
        unsafe { command.pre_exec(move || die_with(parent)) };
        Ok(command)
    }

    fn is_counted(&self) -> bool {
        self.alone.is_some_and(|alone| alone.clock == Clock::Counted)
    }

    /// The command line after the program's name.
    fn arguments(&self) -> Vec<OsString> {
        let hardware = self.hardware;
        let bus = hardware.platform.bus();
        let mut line: Vec<OsString> = self.qemu.extra_args.clone();
        let mut add = |option: &str, value: String| line.extend([option.into(), value.into()]);
        if self.is_counted() {
            // The other timer of the platform would keep the processor from being idle.
            let timer = if hardware.platform == Platform::Microvm { ",pit=off" } else { "" };
            add("-machine", format!("{}{timer},memory-backend=ram", hardware.platform.name()));
            add("-accel", Accelerator::Tcg.option().into());
            add("-icount", format!("shift={INSTRUCTION_SHIFT},sleep=off"));
            add("-rtc", format!("base={COUNTED_BEGIN},clock=vm"));
            add("-seed", COUNTED_SEED.into());
            add("-cpu", COUNTED_CPU.into());
        } else {
            add("-machine", format!("{},memory-backend=ram", hardware.platform.name()));
            add("-accel", self.accelerator.option().into());
            add("-cpu", self.accelerator.cpu_model().into());
        }
        add("-smp", hardware.cpus.to_string());
        add("-m", format!("{}M", hardware.memory_mb));
        let share = if self.restore { "off" } else { "on" };
        add(
            "-object",
            format!(
                "memory-backend-file,id=ram,size={}M,mem-path=/proc/self/fd/{RAM_FD},share={share}",
                hardware.memory_mb
            ),
        );
        match self.alone {
            None => {
                add("-chardev", format!("socket,id=qmp,fd={QMP_FD}"));
                add("-mon", "chardev=qmp,mode=control".into());
                add(
                    "-chardev",
                    format!(
                        "socket,id=console,fd={CONSOLE_FD},logfile={},logappend=on",
                        option_value(self.console_log)
                    ),
                );
                add("-serial", "chardev:console".into());
                add("-device", format!("virtio-serial-{bus}"));
                add("-chardev", format!("socket,id=agent,fd={AGENT_FD}"));
                add("-device", format!("virtserialport,id={PORT_ID},chardev=agent,name={PORT_NAME}"));
            }
            Some(alone) => {
                add("-chardev", format!("file,id=console,path={}", option_value(self.console_log)));
                add("-serial", "chardev:console".into());
                add("-chardev", format!("file,id=stream,path={}", option_value(&alone.stream)));
                add("-device", format!("isa-debugcon,iobase={STREAM_PORT:#x},chardev=stream"));
            }
        }
        for (index, disk) in hardware.disks.iter().enumerate() {
            add("-drive", format!("id=disk{index},if=none,format=raw,file={}", option_value(disk)));
            add("-device", format!("virtio-blk-{bus},drive=disk{index}"));
        }
        if hardware.network {
            add("-netdev", format!("user,id={NETWORK},restrict=on"));
            let options = hardware.platform.card_options();
            add("-device", format!("virtio-net-{bus},netdev={NETWORK}{options}"));
        }
        add("-initrd", format!("/proc/self/fd/{INITRD_FD}"));
        add("-append", self.kernel_arguments());
        if self.restore {
            add("-incoming", "defer".into());
        }
        line.extend(["-kernel".into(), hardware.kernel.clone().into()]);
        line.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(OsString::from));
        line.extend(["-display", "none"].map(OsString::from));
        line
    }

    fn kernel_arguments(&self) -> String {
        let mut arguments = vec![KERNEL_ARGUMENTS.to_owned()];
        if self.alone.is_some() {
            arguments.push(format!("{AGENT}={NO_AGENT}"));
        }
        if self.is_counted() {
            arguments.push(COUNTED_ARGUMENTS.to_owned());
        } else if self.accelerator == Accelerator::Tcg {
            arguments.push(EMULATION_ARGUMENTS.to_owned());
            arguments.extend(self.alone.map(|_| STEADY_ARGUMENTS.to_owned()));
            arguments.extend(tsc::host_khz().map(|khz| format!("tsc_early_khz={khz}")));
        }
        arguments.extend(self.hardware.arguments.iter().cloned());
        arguments.join(" ")
    }
}

impl Process {
    /// Whether it has ended.
    pub fn has_exited(&self) -> bool {
        self.exit.borrow().is_some()
    }

    /// Waits for its end.
    pub async fn exited(&self) -> ExitStatus {
        let mut exit = self.exit.clone();
        loop {
            if let Some(status) = *exit.borrow_and_update() {
                return status;
            }
            if exit.changed().await.is_err() {
                // Its keeper is gone, which happens when the runtime ends; nobody looks at this any more.
                std::future::pending::<()>().await;
            }
        }
    }

    /// What it printed last.
    pub fn stderr(&self) -> String {
        let bytes = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}

/// Starts the command and a task that waits for its end, or kills it when the [`Process`] is dropped.
fn keep(command: Command) -> io::Result<Process> {
    let mut command = tokio::process::Command::from(command);
    let mut child = command.kill_on_drop(true).spawn()?;
    let pid = child.id().ok_or_else(|| io::Error::other("it ended at once"))?;
    let stderr = Arc::new(Mutex::new(Vec::new()));
    if let Some(pipe) = child.stderr.take() {
        tokio::spawn(collect(pipe, Arc::clone(&stderr)));
    }
    let (tell, exit) = watch::channel(None);
    let (kill, killed) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let status = tokio::select! {
            status = child.wait() => status,
            _ = killed => {
                drop(child.start_kill());
                child.wait().await
            }
        };
        if let Ok(status) = status {
            tell.send_replace(Some(status));
        }
    });
    Ok(Process { pid, exit, stderr, _kill: kill })
}

async fn collect(mut pipe: tokio::process::ChildStderr, to: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        let mut kept = to.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(&buffer[..count]);
        let excess = kept.len().saturating_sub(KEPT_STDERR_BYTES);
        kept.drain(..excess);
    }
}

/// In the child: SIGKILL when the thread that started it ends. The harness starts guests from its main thread only.
fn die_with(parent: u32) -> io::Result<()> {
    // SAFETY: prctl and getppid take integers and touch no memory.
    let (result, now) = unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL), libc::getppid()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if now as u32 == parent { Ok(()) } else { Err(io::Error::other("the harness has ended")) }
}

/// A socket as QEMU expects it.
fn blocking(stream: UnixStream) -> io::Result<OwnedFd> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    Ok(stream.into())
}

/// A path inside a QEMU option, in which a comma is doubled.
fn option_value(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The command line of a guest, alone or not, as one text.
    fn line(accelerator: Accelerator, alone: Option<&Alone>) -> String {
        let file = crate::memory::anonymous_file("empty", 0).unwrap();
        let hardware = Hardware {
            platform: Platform::Microvm,
            cpus: 1,
            memory_mb: 64,
            kernel: "/boot/vmlinuz".into(),
            arguments: vec!["last".into()],
            disks: Vec::new(),
            network: false,
        };
        let launch = Launch {
            qemu: &Qemu { binary: "qemu".into(), env: Vec::new(), extra_args: Vec::new() },
            accelerator,
            hardware: &hardware,
            ram: &file,
            initrd: &file,
            restore: false,
            directory: Path::new("/"),
            console_log: Path::new("/console"),
            alone,
        };
        let words: Vec<_> =
            launch.arguments().iter().map(|word| word.to_string_lossy().into_owned()).collect();
        words.join(" ")
    }

    #[test]
    fn nothing_comes_into_a_guest_alone_and_its_time_is_counted_where_asked_for() {
        let with = |clock| Alone { stream: "/a,b/stream".into(), clock };
        for (accelerator, clock, counted) in [
            (Accelerator::Kvm, Clock::Real, false),
            (Accelerator::Tcg, Clock::Real, false),
            (Accelerator::Kvm, Clock::Counted, true),
        ] {
            let line = line(accelerator, Some(&with(clock)));
            assert!(
                line.contains("isa-debugcon,iobase=0xe9") && line.contains("path=/a,,b/stream"),
                "{line}"
            );
            assert!(line.contains("yakiros.agent=none"), "{line}");
            for channel in ["virtserialport", "-mon", "socket"] {
                assert!(!line.contains(channel), "{channel}: {line}");
            }
            assert_eq!(line.contains("-icount shift=3,sleep=off"), counted, "{line}");
            assert_eq!(line.contains("-accel tcg") && line.contains("clock=vm"), counted, "{line}");
        }
        let with_channels = line(Accelerator::Tcg, None);
        assert!(
            with_channels.contains("virtserialport") && !with_channels.contains("icount"),
            "{with_channels}"
        );
    }

    #[test]
    fn a_comma_in_a_path_is_no_separator() {
        assert_eq!(option_value(Path::new("/a,b/c")), "/a,,b/c");
    }
}
