//! A kernel that does not come up.

use std::time::Duration;

use yakiros_vm::console::Class;
use yakiros_vm::error::VmErrorKind;

use super::services::begin;
use crate::check;
use crate::failure::Failure;
use crate::suites::kexec::jump::{BOOT, answers_anew};
use crate::vm::{BOOT_INITRD, BOOT_KERNEL, Vm};

/// Longer than a jump takes that succeeds.
const SILENCE: Duration = Duration::from_secs(60);
/// For QEMU to end after that.
const END: Duration = Duration::from_secs(10);

pub async fn a_kernel_that_panics(vm: &Vm) -> Result<(), Failure> {
    let boot = vm.read(BOOT).await?;
    vm.expect_console(Class::Panic);
    begin(vm, BOOT_KERNEL, BOOT_INITRD, "--append rdinit=/nowhere").await?;
    let error = match answers_anew(vm, &boot, SILENCE).await {
        Ok(()) => return Err(Failure::supervisor("a kernel without a first program answers")),
        Err(error) => error,
    };
    let VmErrorKind::GuestKernel(finding) = &error.kind else {
        return Err(Failure::harness(format!("a panic is shown as: {error}")));
    };
    check!(
        finding.class == Class::Panic && finding.excerpt.iter().any(|line| line.contains("panic")),
        "a panic is shown as {finding:?}"
    );
    vm.ended(END).await.map(drop)
}

pub async fn a_kernel_that_hangs(vm: &Vm) -> Result<(), Failure> {
    let boot = vm.read(BOOT).await?;
    // It waits for a line of the console, for ever.
    begin(vm, BOOT_KERNEL, BOOT_INITRD, "--append rdinit=/bin/cat").await?;
    let error = match answers_anew(vm, &boot, SILENCE).await {
        Ok(()) => return Err(Failure::supervisor("a kernel that starts nothing answers")),
        Err(error) => error,
    };
    let VmErrorKind::TimedOut { console, .. } = &error.kind else {
        return Err(Failure::harness(format!("a hang is shown as: {error}")));
    };
    // With what was said last: that everything was done, and nothing was taken back.
    check!(
        console.contains("6 loading") && !console.contains("There is no jump"),
        "what it said last is {console}"
    );
    check!(vm.read(BOOT).await.is_err(), "it is the kernel before that does not answer anew, and it runs on");
    vm.guest.qmp().quit().await?;
    vm.ended(END).await.map(drop)
}
