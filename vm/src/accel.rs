//! Which accelerator this host has: found out by booting something.
//!
//! That `/dev/kvm` can be opened says little. On some hosts with nested virtualisation it opens, and QEMU then aborts
//! or the guest never leaves its firmware. So the probe boots the kernel without a root and waits until it says that it
//! has none: by then interrupts, timers and paging have all worked.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use crate::error::VmError;
use crate::qemu::{Hardware, Launch, Platform, Qemu};

/// With KVM a kernel gets there in 0.3 s; one that needs more than this is emulated or stuck.
const PROBE_LIMIT: Duration = Duration::from_secs(6);
/// What the kernel says last when it has no root.
const NO_ROOT: &str = "Unable to mount root fs";
const PROBE_MEMORY_MB: u32 = 128;

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
    pub(crate) fn option(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg,thread=single",
        }
    }

    /// `max` rather than QEMU's default under emulation: without rdrand CRIU needs three seconds more a call.
    pub(crate) fn cpu_model(self) -> &'static str {
        match self {
            Self::Kvm => "host",
            Self::Tcg => "max",
        }
    }
}

/// What was chosen, and why.
#[derive(Debug, Clone)]
pub struct Choice {
    /// The accelerator.
    pub accelerator: Accelerator,
    /// One line for people.
    pub reason: String,
}

/// Takes KVM if a kernel really boots with it, else emulation.
pub async fn choose(qemu: &Qemu, kernel: &Path, directory: &Path) -> Choice {
    match probe_kvm(qemu, kernel, directory).await {
        Ok(()) => Choice { accelerator: Accelerator::Kvm, reason: "a kernel boots with it".into() },
        Err(reason) => {
            Choice { accelerator: Accelerator::Tcg, reason: format!("KVM is of no use here: {reason}") }
        }
    }
}

async fn probe_kvm(qemu: &Qemu, kernel: &Path, directory: &Path) -> Result<(), String> {
    let opened = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    opened.map_err(|error| format!("/dev/kvm: {error}"))?;
    let hardware = Hardware {
        platform: Platform::Microvm,
        cpus: 1,
        memory_mb: PROBE_MEMORY_MB,
        kernel: kernel.to_path_buf(),
        arguments: vec!["loglevel=7".into()],
        disks: Vec::new(),
    };
    let files = || -> Result<(File, File), VmError> {
        Ok((
            anonymous_file("probe-ram", u64::from(PROBE_MEMORY_MB) << 20)?,
            anonymous_file("probe-initrd", 0)?,
        ))
    };
    let (ram, initrd) = files().map_err(|error| error.to_string())?;
    let log = directory.join("kvm-probe.log");
    let launch = Launch {
        qemu,
        accelerator: Accelerator::Kvm,
        hardware: &hardware,
        ram: &ram,
        initrd: &initrd,
        restore: false,
        directory,
        console_log: &log,
    };
    let (process, mut sockets) = launch.start().map_err(|error| error.to_string())?;
    let boots = async {
        let mut text = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = sockets.console.read(&mut buffer).await {
            text.extend_from_slice(&buffer[..count]);
            if String::from_utf8_lossy(&text).contains(NO_ROOT) {
                return true;
            }
        }
        false
    };
    match tokio::time::timeout(PROBE_LIMIT, boots).await {
        Ok(true) => Ok(()),
        Ok(false) => {
            let status = process.exited().await;
            let stderr = process.stderr();
            Err(format!("QEMU ended ({status}): {}", stderr.lines().last().unwrap_or("it printed nothing")))
        }
        Err(_) => Err(format!("a kernel did not boot with it in {PROBE_LIMIT:?}")),
    }
}

/// A file without a name, gone with its last user.
pub(crate) fn anonymous_file(name: &str, size: u64) -> Result<File, VmError> {
    let create = || -> std::io::Result<File> {
        let name = std::ffi::CString::new(name)?;
        let file = nix::sys::memfd::memfd_create(name.as_c_str(), nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
        let file = File::from(file);
        file.set_len(size)?;
        Ok(file)
    };
    create().map_err(VmError::host("make an anonymous file"))
}
