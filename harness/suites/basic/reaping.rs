//! Processes that end.

use std::time::{Duration, Instant};

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

/// For a start or an end to be noticed.
const REACTION: Duration = Duration::from_secs(5);
const SIGKILL: i32 = 9;
/// More than one for each SIGCHLD that the kernel delivers: signals of one kind do not queue.
const ORPHANS: usize = 30;
/// To start them one after the other on an emulated processor.
const ORPHANS_LIMIT: Duration = Duration::from_secs(15);

pub async fn killed_service_comes_back(vm: &Vm) -> Result<(), Failure> {
    let before = vm.status().await?;
    let killed = before.component("test-idle")?.running_pid()?;
    let dependent = before.component("test-monitor")?.running_pid()?;
    let start = Instant::now();
    vm.signal(killed, SIGKILL).await?;
    vm.wait_state("test-idle", "ACTIVE", Some(before.revision), REACTION).await?;
    vm.metric("kill_to_active", "ms", start.elapsed().as_secs_f64() * 1000.0);
    vm.wait_state("test-monitor", "ACTIVE", Some(before.revision), REACTION).await?;

    let after = vm.status().await?;
    let service = after.component("test-idle")?;
    let pid = service.running_pid()?;
    check!(pid != killed, "test-idle is said to be process {pid}, which was killed");
    check!(vm.exists(pid).await?, "test-idle is said to be process {pid}, which is not there");
    check!(!vm.exists(killed).await?, "the killed process {killed} is still there: nobody reaped it");
    check!(service.restarts == 1, "one restart is counted as {}", service.restarts);
    let monitor = after.component("test-monitor")?;
    check!(
        monitor.restarts == 0,
        "a dependent that was stopped and started counts {} restarts",
        monitor.restarts
    );
    for bystander in ["syslog", "test-echo-server"] {
        let (was, is) = (before.component(bystander)?.pid, after.component(bystander)?.pid);
        check!(was == is, "{bystander} has nothing to do with it, but is now {is:?} instead of {was:?}");
    }
    let pid = monitor.running_pid()?;
    check!(pid != dependent, "test-monitor ran on as {pid} while what it requires was down");
    check!(!vm.exists(dependent).await?, "the dependent's old process {dependent} still runs beside {pid}");
    Ok(())
}

pub async fn orphans_are_reaped(vm: &Vm) -> Result<(), Failure> {
    vm.step("one orphan", one_orphan(vm)).await?;
    vm.step("many orphans that end at once", many_orphans(vm)).await?;
    // A supervisor that was led astray by processes it does not know would show it here.
    let before = vm.status().await?;
    vm.signal(before.component("test-echo-server")?.running_pid()?, SIGKILL).await?;
    vm.wait_state("test-echo-server", "ACTIVE", Some(before.revision), REACTION).await
}

async fn one_orphan(vm: &Vm) -> Result<(), Failure> {
    let (pid_file, until) = ("/tmp/orphan.pid", "/tmp/orphan.end");
    // Started by the agent, so that the orphan is nobody the supervisor knows.
    vm.succeed(&["test-orphan", "--pid-file", pid_file, "--until", until], REACTION).await?;
    vm.wait_path(pid_file, REACTION).await?;
    let pid = vm.read(pid_file).await?.trim().to_owned();
    let parent = vm.sh(&format!("sed -n 's/^PPid:[[:space:]]*//p' /proc/{pid}/status")).await?;
    check!(parent.trim() == "1", "the orphan's parent is process {}, not 1", parent.trim());

    vm.write(until, "").await?;
    if let Err(failure) = vm.wait_gone(&format!("/proc/{pid}"), REACTION).await {
        let state = vm.sh(&format!("sed -n 's/^State:[[:space:]]*//p' /proc/{pid}/status")).await;
        let message = format!("the orphan {pid} was not reaped, it is {}: {failure}", state?.trim());
        return Err(Failure { message, ..failure });
    }
    Ok(())
}

async fn many_orphans(vm: &Vm) -> Result<(), Failure> {
    let (folder, until) = ("/tmp/orphans", "/tmp/orphans.end");
    let start = format!(
        "mkdir {folder}; for i in $(seq {ORPHANS}); do test-orphan --pid-file {folder}/$i --until {until}; done"
    );
    vm.succeed(&["/bin/sh", "-euc", &start], ORPHANS_LIMIT).await?;
    let pids = vm.sh(&format!("cat {folder}/*")).await?;
    vm.write(until, "").await?;
    for pid in pids.split_whitespace() {
        let gone = vm.wait_gone(&format!("/proc/{pid}"), REACTION).await;
        gone.map_err(|_| {
            Failure::supervisor(format!("of {ORPHANS} orphans that end at once, {pid} is not reaped"))
        })?;
    }
    Ok(())
}
