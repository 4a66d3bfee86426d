//! Processes that end.

use std::time::{Duration, Instant};

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

/// For a start or an end to be noticed.
const REACTION: Duration = Duration::from_secs(5);
const SIGKILL: i32 = 9;

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
    let pid = after.component("test-monitor")?.running_pid()?;
    check!(pid != dependent, "test-monitor ran on as {pid} while what it requires was down");
    check!(!vm.exists(dependent).await?, "the dependent's old process {dependent} still runs beside {pid}");
    Ok(())
}

pub async fn orphan_is_reaped(vm: &Vm) -> Result<(), Failure> {
    let (pid_file, until) = ("/tmp/orphan.pid", "/tmp/orphan.end");
    // Started by the agent, so that the orphan is nobody the supervisor knows.
    vm.succeed(&["test-orphan", "--pid-file", pid_file, "--until", until], REACTION).await?;
    vm.wait_path(pid_file, REACTION).await?;
    let pid = vm.read(pid_file).await?.trim().to_owned();
    let parent = vm.sh(&format!("sed -n 's/^PPid:[[:space:]]*//p' /proc/{pid}/status")).await?;
    check!(parent.trim() == "1", "the orphan's parent is process {}, not 1", parent.trim());

    vm.write(until, "").await?;
    let gone = vm.wait_gone(&format!("/proc/{pid}"), REACTION).await;
    if gone.is_err() {
        let state = vm.sh(&format!("sed -n 's/^State:[[:space:]]*//p' /proc/{pid}/status")).await?;
        return Err(Failure::supervisor(format!("the orphan {pid} was not reaped, it is {}", state.trim())));
    }
    let zombies = vm.sh("grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null || true").await?;
    check!(zombies.is_empty(), "there are zombies: {zombies}");
    Ok(())
}
