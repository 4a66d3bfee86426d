//! Into another kernel, and what goes on there.

use std::time::{Duration, Instant};

use yakiros_vm::error::{VmError, VmErrorKind};

use super::trial::count;
use super::{KEPT, REACTION};
use crate::check;
use crate::failure::Failure;
use crate::vm::{BOOT_INITRD, BOOT_KERNEL, Status, Vm};

/// From the command to the new kernel's agent: everything is written down, and a kernel boots.
const JUMP: Duration = Duration::from_secs(60);
/// For the agent to answer one question. The first ones are lost while nobody is there.
const QUESTION: Duration = Duration::from_secs(2);
/// Between two questions to the old kernel's agent.
const PAUSE: Duration = Duration::from_millis(100);
/// For everything to be restored.
const RESTORED: Duration = Duration::from_secs(60);
/// Jumps, and cold boots between them.
const ROUNDS: u32 = 3;
/// Lines of the console that are shown of a kernel that does not answer.
const LAST_LINES: usize = 30;
/// Tells one boot from another.
pub const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// What goes on.
const SERVICES: [&str; 10] =
    ["counter", "echo", "idle-1", "idle-2", "idle-3", "idle-4", "idle-5", "idle-6", "idle-7", "idle-8"];

pub async fn real_same_kernel(vm: &Vm) -> Result<(), Failure> {
    let (first, second) = (count(vm).await?, count(vm).await?);
    check!(second == first + 1, "the counter counts {first}, {second}");
    let before = vm.status().await?;
    let begun = begin(vm).await?;
    vm.metric("jump_to_agent", "ms", begun.elapsed().as_millis() as f64);
    let after = settled(vm).await?;
    vm.metric("jump_to_settled", "ms", begun.elapsed().as_millis() as f64);
    for name in SERVICES {
        let (was, is) = (before.component(name)?, after.component(name)?);
        check!(
            is.state == "ACTIVE" && is.pid == was.pid && was.pid.is_some(),
            "{name} was {was:?}, and is {is:?} under the next kernel"
        );
    }
    let third = count(vm).await?;
    check!(third == second + 1, "the counter was at {second}, and goes on at {third}");
    let anew = after.component("passing")?;
    check!(anew.state == "ACTIVE", "what declares no checkpoints is {anew:?}");
    // What was used is put aside, so that the next boot begins anew.
    let left = vm.sh("ls /checkpoint").await?;
    check!(!left.lines().any(|name| name == "manifest.json"), "the manifest is still there: {left}");
    check!(left.contains("pre-kexec-info.txt"), "of the machine before there is nothing: {left}");
    let kept = vm.sh(&format!("ls {KEPT} | wc -l")).await?;
    check!(kept.trim() == SERVICES.len().to_string(), "of {} checkpoints there are {kept}", SERVICES.len());
    super::report::nothing_is_loaded(vm).await
}

/// Jumps into the kernel that runs, with what it has begun with. Since when, once another one's agent answers.
async fn begin(vm: &Vm) -> Result<Instant, Failure> {
    let boot = vm.read(BOOT).await?;
    let begun = Instant::now();
    // It does not live to tell its end.
    let command = format!(
        "setsid graphctl kexec --force {BOOT_KERNEL} --initrd {BOOT_INITRD} >/dev/console 2>&1 </dev/null &"
    );
    vm.sh(&command).await?;
    another_boot(vm, &boot).await?;
    Ok(begun)
}

/// Both in turns, so that what the machine does to one it does to the other.
pub async fn against_a_cold_boot(vm: &Vm) -> Result<(), Failure> {
    let mut ratios = Vec::new();
    for round in 0..vm.amount(ROUNDS, 1) {
        let (cold, mut booted) = vm.another_from_its_begin().await?;
        let begun = Instant::now();
        let anew = count(&cold).await?;
        booted += begun.elapsed();
        check!(anew == 1, "after a cold boot the counter counts {anew}");
        drop(cold);
        let before = count(vm).await?;
        let begun = begin(vm).await?;
        settled(vm).await?;
        let after = count(vm).await?;
        let jumped = begun.elapsed();
        check!(after == before + 1, "jump {round}: the counter was at {before}, and goes on at {after}");
        vm.metric("cold_boot_to_answer", "ms", booted.as_millis() as f64);
        vm.metric("jump_to_answer", "ms", jumped.as_millis() as f64);
        ratios.push(jumped.as_secs_f64() / booted.as_secs_f64());
    }
    vm.samples("jump_in_cold_boots", "ratio", ratios);
    Ok(())
}

/// Waits until the agent of another boot answers. Nobody hears the questions in between; a kernel that panics is seen.
pub async fn another_boot(vm: &Vm, boot: &str) -> Result<(), Failure> {
    answers_anew(vm, boot, JUMP).await.map_err(|error| match error.kind {
        VmErrorKind::TimedOut { .. } => Failure::supervisor(format!("no other kernel answers: {error}")),
        _ => error.into(),
    })
}

/// See [`another_boot`].
///
/// # Errors
/// What the console shows, the end of QEMU, or, when nobody answers until the limit, what the console said last.
pub async fn answers_anew(vm: &Vm, boot: &str, limit: Duration) -> Result<(), VmError> {
    let (limit, question) = (vm.limit(limit), vm.limit(QUESTION));
    let begun = Instant::now();
    while begun.elapsed() < limit {
        let asked = async {
            vm.guest.greet_again(question).await?;
            vm.guest.watched("read the boot's name", question, vm.guest.agent.read_file(BOOT)).await
        };
        match asked.await {
            Ok(now) if String::from_utf8_lossy(&now) != boot => {
                vm.guest.is_back();
                return Ok(());
            }
            // The next one's agent is there before process 1 has mounted anything.
            Ok(_) | Err(VmError { kind: VmErrorKind::Guest(_), .. }) => tokio::time::sleep(PAUSE).await,
            // Nor does the one before live on when it has been asked.
            Err(VmError { kind: VmErrorKind::TimedOut { .. } | VmErrorKind::AgentLost(_), .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let console = vm.guest.console.tail(LAST_LINES);
    Err(VmError::new("find another kernel", VmErrorKind::TimedOut { limit, console }))
}

/// Waits until everything is restored or started.
pub async fn settled(vm: &Vm) -> Result<Status, Failure> {
    vm.until("the supervisor answers", "graphctl status >/dev/null 2>&1", REACTION).await?;
    vm.wait_settled(RESTORED).await?;
    vm.status().await
}
