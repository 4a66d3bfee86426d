//! To another version of the kernel, and back.

use std::time::Duration;

use super::outside::Outside;
use super::services::{BOOT_DISK, Before, jump, release};
use crate::check;
use crate::failure::Failure;
use crate::suites::kexec::TRIAL;
use crate::vm::Vm;

/// For connections to be opened once everything has settled: less than who does not come would be waited for.
const OPENED: Duration = Duration::from_secs(10);
/// A component that the next kernel's initrd does not have.
const STRANGER: &str = "[component]\nname = \"stranger\"\nbinary = \"/usr/local/bin/test-idle\"\n\n\
    [checkpoint]\nenabled = true\n";

pub async fn another_kernel_and_back(vm: &Vm) -> Result<(), Failure> {
    // The next kernel's initrd has no boot files.
    vm.sh(&format!(
        "mkfs.ext4 -q /dev/vda; mkdir -p {BOOT_DISK}; mount -t ext4 /dev/vda {BOOT_DISK}; mv /boot/* {BOOT_DISK}; sync"
    ))
    .await?;
    let first = release(vm).await?;
    vm.declare("stranger.toml", STRANGER).await?;
    vm.wait_state("stranger", "ACTIVE", None, TRIAL).await?;
    let before = Before::look(vm).await?;
    let outside = Outside::connect(vm).await?;
    let (kernel, initrd) = (format!("{BOOT_DISK}/vmlinuz-other"), format!("{BOOT_DISK}/initrd"));
    let other = vm.step("jump to the other kernel", jump(vm, &kernel, &initrd, "")).await?;
    check!(other != first, "after the jump the kernel is {first} still");
    // Nobody waits for who will not come.
    let open = "tables=$(nft list tables) && case $tables in *yakiros-jump*) false;; esac";
    vm.until("connections are open", open, OPENED).await?;
    check!(vm.status().await?.component("stranger").is_err(), "what is not declared is there");
    before.goes_on(vm).await?;
    outside.goes_on(vm).await?;
    // Everything is known of both jumps: it goes on from where it is now.
    let before = Before::look(vm).await?;
    vm.sh(&format!("mkdir -p {BOOT_DISK}; mount -t ext4 /dev/vda {BOOT_DISK}")).await?;
    let kernel = format!("{BOOT_DISK}/vmlinuz");
    let back = vm.step("jump back", jump(vm, &kernel, &initrd, "")).await?;
    check!(back == first, "back from {other} the kernel is {back}, and it was {first}");
    before.goes_on(vm).await?;
    outside.goes_on(vm).await
}
