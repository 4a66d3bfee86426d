//! The end of the machine, asked for and not.

use std::time::Duration;

use yakiros_vm::disk::Ext4Disk;
use yakiros_vm::machine::Ended;
use yakiros_vm::qmp::ShutdownCause;

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

/// For a start to be noticed.
const REACTION: Duration = Duration::from_secs(5);
/// All services get their grace, then the file systems are written back.
const POWER_OFF: Duration = Duration::from_secs(15);
const SIGTERM: i32 = 15;

/// What the writer has to have written before the power goes off.
const LINES_BEFORE: usize = 200;

const WRITER: &str = r#"
[component]
name = "test-writer"
binary = "/usr/local/bin/test-writer"
args = ["--file", "/mnt/data/lines", "--interval-ms", "2"]

[requires]
capabilities = ["storage.ready"]
"#;

pub async fn power_off_is_clean(vm: &Vm) -> Result<(), Failure> {
    vm.sh("mke2fs -q -t ext4 /dev/vda && mkdir -p /mnt/data && mount -t ext4 /dev/vda /mnt/data").await?;
    vm.declare("writer.toml", WRITER).await?;
    vm.wait_state("test-writer", "ACTIVE", None, REACTION).await?;
    let enough = format!(
        "until [ \"$(wc -l < /mnt/data/lines)\" -ge {LINES_BEFORE} ]; do sleep 0.02; done 2>/dev/null"
    );
    vm.step("the writer writes", vm.sh(&enough)).await?;
    let ended = vm.step("the machine powers off", power_off_by(vm, &["graphctl", "poweroff"])).await?;
    expect_end(&ended, &ShutdownCause::GuestShutdown)?;

    let disk = Ext4Disk::open(vm.disk(0)?)?;
    check!(disk.was_unmounted, "the file system was not unmounted: its journal has to be replayed");
    let lines = disk.read("/lines")?;
    let text = String::from_utf8_lossy(&lines);
    let mut lines = text.lines().rev();
    let last = lines.next().unwrap_or_default();
    let count = lines.count();
    check!(count >= LINES_BEFORE, "{count} of at least {LINES_BEFORE} lines are on the disk");
    check!(
        last == format!("last {count}"),
        "the writer was not asked to end and waited for: after {count} lines its file ends in {last:?}"
    );
    Ok(())
}

pub async fn sigterm_to_pid_1_powers_off(vm: &Vm) -> Result<(), Failure> {
    vm.signal(1, SIGTERM).await?;
    let ended = vm.ended(POWER_OFF).await?;
    expect_end(&ended, &ShutdownCause::GuestShutdown)
}

pub async fn reboot_resets_the_machine(vm: &Vm) -> Result<(), Failure> {
    let ended = power_off_by(vm, &["graphctl", "reboot"]).await?;
    expect_end(&ended, &ShutdownCause::GuestReset)
}

pub async fn sigkill_to_pid_1_is_harmless(vm: &Vm) -> Result<(), Failure> {
    survives(vm, &[("SIGKILL", 9)]).await
}

pub async fn sigsegv_to_pid_1_is_harmless(vm: &Vm) -> Result<(), Failure> {
    survives(
        vm,
        &[
            ("SIGSEGV", 11),
            ("SIGSEGV again", 11),
            ("SIGBUS", 7),
            ("SIGILL", 4),
            ("SIGFPE", 8),
            ("SIGABRT", 6),
        ],
    )
    .await
}

/// Sends the signals to process 1; afterwards it still does its work, and nothing was restarted by mistake.
async fn survives(vm: &Vm, signals: &[(&str, i32)]) -> Result<(), Failure> {
    let before = vm.status().await?;
    for (name, number) in signals {
        vm.step(name, vm.signal(1, *number)).await?;
        let after = vm.status().await?;
        for component in &before.components {
            let now = after.component(&component.name)?;
            check!(now.pid == component.pid, "after {name}, {} is another process", component.name);
            check!(now.state == component.state, "after {name}, {} is {}", component.name, now.state);
        }
    }
    let pid = before.component("test-echo-server")?.running_pid()?;
    vm.signal(pid, SIGTERM).await?;
    vm.step("a service that ends is still started again", async {
        vm.wait_state("test-echo-server", "ACTIVE", Some(before.revision), REACTION).await
    })
    .await
}

/// Runs a command that ends the machine. It may end before the command's answer has left it.
async fn power_off_by(vm: &Vm, argv: &[&str]) -> Result<Ended, Failure> {
    let said = vm.run(argv, REACTION).await;
    let ended = vm.ended(POWER_OFF).await;
    ended.map_err(|failure| match said {
        Ok(output) if !output.success() => {
            Failure::supervisor(format!("`{}` was refused: {}", argv.join(" "), output.error_text()))
        }
        _ => failure,
    })
}

fn expect_end(ended: &Ended, expected: &ShutdownCause) -> Result<(), Failure> {
    let cause = ended.cause.as_ref();
    let seen = cause.map_or("QEMU ended without a word", ShutdownCause::describe);
    check!(cause == Some(expected), "expected of the guest: {}; seen: {seen}", expected.describe());
    check!(ended.status.success(), "QEMU ended with {}", ended.status);
    Ok(())
}
