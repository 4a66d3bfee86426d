//! One service that cannot be made again under the next kernel.

use super::disk::{PLACE, with_disk, without_disk};
use super::services::{Before, TALKED, begin};
use crate::check;
use crate::failure::Failure;
use crate::suites::kexec::jump::{BOOT, another_boot, settled};
use crate::suites::kexec::trial::count;
use crate::suites::kexec::{KEPT, TRIAL};
use crate::vm::{BOOT_INITRD, BOOT_KERNEL, Vm};

pub async fn a_damaged_image(vm: &Vm) -> Result<(), Failure> {
    with_disk(vm).await?;
    // It has opened the file under its name.
    vm.until("the client writes", &format!("test -s {TALKED}"), TRIAL).await?;
    vm.sh(&format!("ln -sf {PLACE}/talked {TALKED}; graphctl restart talker")).await?;
    let before = Before::look(vm).await?;
    check!(count(vm).await? > 1, "the counter does not count");
    let boot = vm.read(BOOT).await?;
    begin(vm, BOOT_KERNEL, BOOT_INITRD, "").await?;
    // Everything is compared by then, and is not read again by this kernel.
    let written = format!("test -e {PLACE}/jump/manifest.json && kill -STOP $(pidof graphctl)");
    vm.until("the manifest is written", &written, TRIAL).await?;
    vm.sh(&format!(
        "printf damage | dd of=$(ls {KEPT}/counter/*/pages-1.img) bs=1 seek=4096 conv=notrunc 2>/dev/null; \
         kill -CONT $(pidof graphctl)"
    ))
    .await?;
    another_boot(vm, &boot).await?;
    let after = settled(vm).await?;
    vm.sh(&format!("ln -sf {PLACE}/talked {TALKED}")).await?;
    before.goes_on_but(vm, &["counter"]).await?;
    let counter = after.component("counter")?;
    check!(counter.state == "ACTIVE", "the one with a damaged image is {counter:?}");
    let counted = count(vm).await?;
    check!(counted == 1, "the counter goes on at {counted} from a damaged image");
    let why = vm.graphctl(&["why", "counter"]).await?;
    check!(why.contains("pages-1.img"), "of the damaged image nothing is said: {why}");
    without_disk(vm).await
}
