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
use crate::memory::anonymous_file;
use crate::qemu::{Accelerator, Hardware, Launch, Platform, Qemu};

/// With KVM a kernel gets there in 0.3 s; one that needs more than this is emulated or stuck.
const PROBE_LIMIT: Duration = Duration::from_secs(6);
/// What the kernel says last when it has no root.
const NO_ROOT: &str = "Unable to mount root fs";
const PROBE_MEMORY_MB: u32 = 128;

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
        network: false,
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
        alone: None,
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
