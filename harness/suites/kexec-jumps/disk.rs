//! Images on a disk that the next kernel mounts.

use super::services::{Before, TALKED, jump, release};
use crate::check;
use crate::failure::Failure;
use crate::suites::kexec::LOOK;
use crate::suites::kexec::jump::{BOOT, another_boot, settled};
use crate::suites::kexec::report::refused;
use crate::vm::{BOOT_INITRD, BOOT_KERNEL, Vm};

/// Where the disk is mounted, by process 1's predecessor.
pub const PLACE: &str = "/var/lib/graph";

/// Makes the disk's file system, and boots with it.
pub async fn with_disk(vm: &Vm) -> Result<(), Failure> {
    vm.sh("mkfs.ext4 -q /dev/vda; sync").await?;
    let boot = vm.read(BOOT).await?;
    cut(vm, &boot).await?;
    let mounted = vm.read("/proc/mounts").await?;
    check!(mounted.contains(&format!("/dev/vda {PLACE} ext4")), "the disk is not mounted: {mounted}");
    Ok(())
}

/// Leaves no mount behind.
pub async fn without_disk(vm: &Vm) -> Result<(), Failure> {
    vm.sh(&format!("umount -l {PLACE}")).await.map(drop)
}

/// Cuts the power of this boot, and waits for what boots then.
pub async fn cut(vm: &Vm, boot: &str) -> Result<(), Failure> {
    vm.guest.qmp().cut_power().await?;
    another_boot(vm, boot).await?;
    settled(vm).await.map(drop)
}

pub async fn images_on_a_disk(vm: &Vm) -> Result<(), Failure> {
    with_disk(vm).await?;
    let revision = vm.status().await?.revision;
    let own = ["kexec", "--force", BOOT_KERNEL, "--initrd", BOOT_INITRD];
    let report = refused(vm, &own, LOOK).await?;
    let note = report.note("open-files")?;
    check!(
        !note.ok && note.detail.contains("talker: ") && note.detail.contains(TALKED),
        "of a file in memory it says {note:?}"
    );
    check!(vm.status().await?.revision == revision, "what was refused has changed something");
    // The same file on the disk outlasts the jump.
    vm.sh(&format!("rm {TALKED}; ln -s {PLACE}/talked {TALKED}; graphctl restart talker")).await?;
    let before = Before::look(vm).await?;
    let kernel = release(vm).await?;
    let after = vm.step("jump", jump(vm, BOOT_KERNEL, BOOT_INITRD, "")).await?;
    check!(after == kernel, "the kernel was {kernel}, and is {after}");
    vm.sh(&format!("ln -sf {PLACE}/talked {TALKED}")).await?;
    before.goes_on(vm).await?;
    let left = vm.sh(&format!("ls {PLACE}/jump")).await?;
    check!(
        left.lines().any(|name| name == "manifest.json.used")
            && !left.lines().any(|name| name == "manifest.json"),
        "after the jump there is {left}"
    );
    without_disk(vm).await
}
