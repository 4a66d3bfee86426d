//! The end of the machine, asked for and not.

use std::time::Duration;

use yakiros_vm::disk::Ext4Disk;
use yakiros_vm::error::VmError;
use yakiros_vm::machine::Ended;
use yakiros_vm::qmp::ShutdownCause;

use crate::check;
use crate::failure::Failure;
use crate::vm::{Status, Vm};

/// For a start to be noticed.
const REACTION: Duration = Duration::from_secs(5);
/// All services get their grace, then the file systems are written back.
const POWER_OFF: Duration = Duration::from_secs(15);
const SIGTERM: i32 = 15;

/// What the writer has to have written before the power goes off.
const LINES_BEFORE: usize = 200;
/// What it has to write while its dependent takes 0.3 s to end: a fraction of what it can.
const LINES_BETWEEN: usize = 10;

const WRITER: &str = r#"
[component]
name = "test-writer"
binary = "/usr/local/bin/test-writer"
args = ["--file", "/mnt/data/lines", "--interval-ms", "2"]

[provides]
capabilities = ["data.lines"]

[requires]
capabilities = ["storage.ready"]
"#;

/// A dependent of the writer that takes its time to end, and notes how far the writer has come before and after.
const READER: &str = r#"
[component]
name = "reader"
binary = "/bin/sh"
args = ["-c", """
trap 'wc -l < /mnt/data/lines > /mnt/data/before; sleep 0.3; wc -l < /mnt/data/lines > /mnt/data/after; exit 0' TERM
while :; do sleep 1000 & wait; done
"""]

[requires]
capabilities = ["data.lines"]
"#;

pub async fn power_off_is_clean(vm: &Vm) -> Result<(), Failure> {
    ends_cleanly(vm, &ShutdownCause::GuestShutdown, command(vm, &["graphctl", "poweroff"])).await
}

pub async fn sigterm_to_pid_1_powers_off(vm: &Vm) -> Result<(), Failure> {
    let signal = async {
        // The machine may end before the agent has answered; how it ended is looked at anyway.
        drop(vm.signal(1, SIGTERM).await);
        Ok(())
    };
    ends_cleanly(vm, &ShutdownCause::GuestShutdown, signal).await
}

pub async fn reboot_resets_the_machine(vm: &Vm) -> Result<(), Failure> {
    ends_cleanly(vm, &ShutdownCause::GuestReset, command(vm, &["graphctl", "reboot"])).await
}

/// With services that write to a disk, ends the machine and looks at the disk.
async fn ends_cleanly(
    vm: &Vm,
    expected: &ShutdownCause,
    ask: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    vm.sh("mke2fs -q -t ext4 /dev/vda && mkdir -p /mnt/data && mount -t ext4 /dev/vda /mnt/data").await?;
    vm.declare("writer.toml", WRITER).await?;
    vm.declare("reader.toml", READER).await?;
    vm.wait_state("reader", "ACTIVE", None, REACTION).await?;
    let enough = format!(
        "until [ \"$(wc -l < /mnt/data/lines)\" -ge {LINES_BEFORE} ]; do sleep 0.02; done 2>/dev/null"
    );
    vm.step("the writer writes", vm.sh(&enough)).await?;
    let ended = async {
        ask.await?;
        vm.ended(POWER_OFF).await
    };
    let ended = vm.step("the machine ends", ended).await?;
    expect_end(&ended, expected)?;
    let disk = Ext4Disk::open(vm.disk(0)?)?;
    check!(disk.was_unmounted, "the file system was not unmounted: its journal has to be replayed");
    everything_is_on(&disk)
        .map_err(|error| Failure::supervisor(format!("the disk is not in order: {error}")))?
}

/// What the services wrote is there, and tells that they were ended one after the other.
fn everything_is_on(disk: &Ext4Disk) -> Result<Result<(), Failure>, VmError> {
    let number = |name: &str| -> Result<usize, VmError> {
        Ok(String::from_utf8_lossy(&disk.read(name)?).trim().parse().unwrap_or(0))
    };
    let text = disk.read("/lines")?;
    let (before, after) = (number("/before")?, number("/after")?);
    Ok(in_order(&String::from_utf8_lossy(&text), before, after))
}

fn in_order(text: &str, before: usize, after: usize) -> Result<(), Failure> {
    let mut lines = text.lines().rev();
    let last = lines.next().unwrap_or_default();
    let count = lines.count();
    check!(count >= LINES_BEFORE, "{count} of at least {LINES_BEFORE} lines are on the disk");
    check!(
        last == format!("last {count}"),
        "the writer was not asked to end and waited for: after {count} lines its file ends in {last:?}"
    );
    check!(
        after >= before + LINES_BETWEEN,
        "the writer was ended before its dependent was gone: it had {before} lines when that was asked to end, and \
         {after} when it did"
    );
    Ok(())
}

pub async fn sigkill_to_pid_1_is_harmless(vm: &Vm) -> Result<(), Failure> {
    survives(vm, &[("SIGKILL", 9)]).await
}

pub async fn sigsegv_to_pid_1_is_harmless(vm: &Vm) -> Result<(), Failure> {
    let faults = [
        ("SIGSEGV", 11),
        ("SIGBUS", 7),
        ("SIGILL", 4),
        ("SIGFPE", 8),
        ("SIGABRT", 6),
        ("SIGTRAP", 5),
        ("SIGSYS", 31),
    ];
    catches(vm, &faults).await?;
    survives(vm, &faults).await?;
    survives(vm, &faults[..1]).await // a handler that is reset by its first use would show here
}

/// Sends the signals to process 1; afterwards it still does its work, and nothing was restarted by mistake.
async fn survives(vm: &Vm, signals: &[(&str, i32)]) -> Result<(), Failure> {
    let before = vm.status().await?;
    for (name, number) in signals {
        vm.step(name, nothing_changes(vm, &before, *number)).await?;
    }
    let pid = before.component("test-echo-server")?.running_pid()?;
    vm.signal(pid, SIGTERM).await?;
    let again = vm.wait_state("test-echo-server", "ACTIVE", Some(before.revision), REACTION);
    vm.step("a service that ends is still started again", again).await
}

async fn nothing_changes(vm: &Vm, before: &Status, signal: i32) -> Result<(), Failure> {
    vm.signal(1, signal).await?;
    let after = vm.status().await?;
    for component in &before.components {
        let now = after.component(&component.name)?;
        check!(now.pid == component.pid, "{} is another process afterwards", component.name);
        check!(now.state == component.state, "{} is {} afterwards", component.name, now.state);
    }
    Ok(())
}

/// Process 1 catches the signals of faults itself. The kernel would keep those that others send from it, but not those
/// of its own faults, which end the machine unless they are caught.
async fn catches(vm: &Vm, signals: &[(&str, i32)]) -> Result<(), Failure> {
    let mask = vm.sh("sed -n 's/^SigCgt:[[:space:]]*//p' /proc/1/status").await?;
    let caught = u64::from_str_radix(mask.trim(), 16).unwrap_or(0);
    for (name, number) in signals {
        check!(
            caught >> (number - 1) & 1 == 1,
            "process 1 does not catch {name}: a fault of its own ends the machine"
        );
    }
    Ok(())
}

/// Runs a command that ends the machine. It may end before the command's answer has left it.
async fn command(vm: &Vm, argv: &[&str]) -> Result<(), Failure> {
    match vm.run(argv, REACTION).await {
        Ok(output) if !output.success() => {
            Err(Failure::supervisor(format!("`{}` was refused: {}", argv.join(" "), output.error_text())))
        }
        _ => Ok(()),
    }
}

fn expect_end(ended: &Ended, expected: &ShutdownCause) -> Result<(), Failure> {
    let cause = ended.cause.as_ref();
    let seen = cause.map_or("QEMU ended without a word", ShutdownCause::describe);
    check!(cause == Some(expected), "expected of the guest: {}; seen: {seen}", expected.describe());
    check!(ended.status.success(), "QEMU ended with {}", ended.status);
    Ok(())
}
