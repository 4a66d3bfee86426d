//! The initramfs' `/init`: makes the machine reachable for the harness, then becomes the init under test.
//!
//! What the init under test finds is what the kernel would have given it: pid 1, the console on descriptors 0 to 2, and
//! nothing mounted but the root. Two things differ, both on purpose:
//! - the root is a bind mount over the initramfs, because pivot_root(2) refuses the initramfs itself;
//! - the agent runs already, so that the harness sees the guest even when the init does not work.
//!
//! Whatever fails is said on the console. Without an init to run, the machine is powered off at once: a harness that
//! sees the end is better off than one that waits for it.

use std::convert::Infallible;
use std::ffi::CString;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io};

use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::reboot::{RebootMode, reboot};
use yakiros_guest::cmdline;

const AGENT: &str = "/sbin/yakiros-agent";
/// The agent only has to find its port; a machine on which that takes longer has no port.
const AGENT_READY_LIMIT: Duration = Duration::from_secs(10);
/// Its driver is loaded already: it only has to be announced.
const DISK_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks for it.
const DISK_PAUSE: Duration = Duration::from_millis(10);
/// What the channel to the host needs, on kernels that have it as modules.
const CHANNEL_MODULES: [&str; 3] = ["virtio_pci", "virtio_mmio", "virtio_console"];
/// Mounted for the agent's start and taken away again: source, target, type.
const TEMPORARY_MOUNTS: [(&str, &str, &str); 3] =
    [("proc", "/proc", "proc"), ("sysfs", "/sys", "sysfs"), ("devtmpfs", "/dev", "devtmpfs")];

fn main() -> Infallible {
    report("move the root off the initramfs", leave_initramfs());
    for (source, target, kind) in TEMPORARY_MOUNTS {
        report(&format!("mount {target}"), mount_at(source, target, kind));
    }
    let arguments = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    load_modules(&arguments);
    if let Some((device, target)) =
        cmdline::value(&arguments, cmdline::MOUNT).and_then(|value| value.split_once(':'))
    {
        report(&format!("mount {device}"), mount_disk(device, target));
    }
    if cmdline::value(&arguments, cmdline::AGENT) != Some(cmdline::NO_AGENT) {
        report("start the agent", start_agent());
    }
    for (_, target, _) in TEMPORARY_MOUNTS {
        report(&format!("unmount {target}"), umount2(target, MntFlags::MNT_DETACH).map_err(io::Error::from));
    }
    let init = cmdline::value(&arguments, cmdline::INIT).unwrap_or(cmdline::DEFAULT_INIT);
    // What follows `--` on the kernel's command line is for the init, and came to this one.
    let error = Command::new(init).args(std::env::args_os().skip(1)).exec();
    eprintln!("preinit: failed to execute the init {init}: {error}");
    power_off()
}

fn report(what: &str, result: io::Result<()>) {
    if let Err(error) = result {
        eprintln!("preinit: failed to {what}: {error}");
    }
}

fn power_off() -> Infallible {
    loop {
        report(
            "power off",
            reboot(RebootMode::RB_POWER_OFF).map(|never| match never {}).map_err(io::Error::from),
        );
        thread::sleep(Duration::from_secs(1));
    }
}

/// Puts a bind mount of the root over the root.
fn leave_initramfs() -> io::Result<()> {
    const NEW_ROOT: &str = "/.root";
    fs::create_dir_all(NEW_ROOT)?;
    mount(Some("/"), NEW_ROOT, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    std::env::set_current_dir(NEW_ROOT)?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
    nix::unistd::chroot(".")?;
    std::env::set_current_dir("/")?;
    fs::remove_dir(NEW_ROOT)
}

/// Mounts a disk where the init is to find it, as an initrd does.
fn mount_disk(device: &str, target: &str) -> io::Result<()> {
    let begun = Instant::now();
    while !fs::exists(device)? && begun.elapsed() < DISK_LIMIT {
        thread::sleep(DISK_PAUSE);
    }
    mount_at(device, target, "ext4")
}

fn mount_at(source: &str, target: &str, kind: &str) -> io::Result<()> {
    fs::create_dir_all(target)?;
    Ok(mount(Some(source), target, Some(kind), MsFlags::empty(), None::<&str>)?)
}

/// Loads what the channel needs and what the command line asks for, dependencies first.
fn load_modules(arguments: &str) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let list = format!("/lib/modules/{}/yakiros.order", release.trim());
    let Ok(index) = fs::read_to_string(&list) else {
        return; // everything is built into this kernel
    };
    let asked = cmdline::value(arguments, cmdline::MODULES).unwrap_or_default();
    for name in CHANNEL_MODULES.into_iter().chain(asked.split(',').filter(|name| !name.is_empty())) {
        load_module(&index, name);
    }
}

/// `index` has a line `name path dep,dep` for each module; a name that is not in it is built into the kernel.
///
/// The depth of dependencies is that of the index, which the image builder has checked for cycles.
fn load_module(index: &str, name: &str) {
    let line = index.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|fields| fields[0] == name);
    let Some([_, path, dependencies @ ..]) = line.as_deref() else {
        return;
    };
    for dependency in dependencies.iter().flat_map(|list| list.split(',')).filter(|name| !name.is_empty()) {
        load_module(index, dependency);
    }
    let load = || -> io::Result<()> {
        let file = fs::File::open(path)?;
        match finit_module(file.as_fd(), &CString::default(), ModuleInitFlags::empty()) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    };
    report(&format!("load the module {name}"), load());
}

/// Starts the agent and waits for its first line, which says that it holds the port.
fn start_agent() -> io::Result<()> {
    let mut child = Command::new(AGENT).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(first_line(output)));
    match receiver.recv_timeout(AGENT_READY_LIMIT) {
        Ok(Ok(line)) if line == "ready\n" => Ok(()),
        Ok(Ok(line)) => Err(io::Error::other(format!("it ended without being ready: {line:?}"))),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "it found no port")),
    }
}

fn first_line(output: ChildStdout) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    Ok(line)
}
