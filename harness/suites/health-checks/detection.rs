//! What is ill is found, and what is well again too.

use super::{REACTION, idle, make_ill, make_well, one, wait_lines};
use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

/// Components of the machine by kind of probe, and what each says when it is ill.
const KINDS: [(&str, &str); 6] = [
    ("probed-by-command", "health_check exited with status 1"),
    ("probed-by-file", "health_file /run/probed-by-file.well: No such file"),
    ("probed-by-http", "the server answered 503"),
    ("probed-by-tcp", "health_tcp 127.0.0.1:9002: Connection refused"),
    ("probed-by-unix", "health_unix /run/probed-by-unix.sock: No such file"),
    ("probed-by-signal", "health_signal signal 40: did not come within"),
];

pub async fn health_failure_detection(vm: &Vm) -> Result<(), Failure> {
    let name = "test-health-demo";
    let monitor = one(vm, "test-monitor").await?;
    make_ill(vm, name).await?;
    vm.wait_state(name, "DEGRADED", None, REACTION).await?;
    let ill = one(vm, name).await?;
    check!(ill.health == "failing", "the health of a DEGRADED component is {}", ill.health);
    let detail = ill.detail.unwrap_or_default();
    let reason = "health_http http://127.0.0.1:9000/status: the server answered 503";
    check!(detail.contains(reason), "the detail names no reason: {detail:?}");
    let caps = vm.graphctl(&["caps"]).await?;
    let line = caps.lines().find(|line| line.contains("health.test-health-demo")).unwrap_or_default();
    check!(line.contains("DEGRADED"), "the capability of a DEGRADED component is shown as `{line}`");
    let after = one(vm, "test-monitor").await?;
    check!(
        after.pid == monitor.pid && after.state == "ACTIVE",
        "a dependent of what is DEGRADED is {} with process {:?}, which was {:?}",
        after.state,
        after.pid,
        monitor.pid
    );

    let text = "health_file = \"/run/never\"\nhealth_interval = 0.3\nhealth_fail_threshold = 2\n\
                health_restart_threshold = 4";
    vm.declare("incurable.toml", &idle("incurable", text)).await?;
    vm.wait_state("incurable", "ACTIVE", None, REACTION).await?;
    let first = one(vm, "incurable").await?.pid;
    vm.wait_state("incurable", "FAILED", Some(0), REACTION).await?;
    let events = vm.graphctl(&["events"]).await?;
    let own: Vec<_> = events.lines().filter(|line| line.contains("incurable")).collect();
    check!(own.iter().any(|line| line.contains("DEGRADED")), "it failed without being DEGRADED: {own:?}");
    let stop = own.iter().find(|line| line.contains("STOPPING")).copied().unwrap_or_default();
    check!(stop.contains("4 health probes in a row failed"), "it was stopped for another reason: `{stop}`");
    let script = format!(
        "n=0; while kill -0 {} 2>/dev/null; do n=$((n+1)); [ $n -le 50 ] || exit 1; sleep 0.1; done",
        first.unwrap_or(0)
    );
    vm.sh(&script).await?;
    let after = one(vm, "incurable").await?;
    check!(
        after.restarts >= 1 && after.pid.is_some() && after.pid != first,
        "what stays ill was not restarted: {after:?}"
    );
    Ok(())
}

pub async fn health_recovery(vm: &Vm) -> Result<(), Failure> {
    let name = "test-health-demo";
    let before = one(vm, name).await?;
    make_ill(vm, name).await?;
    vm.wait_state(name, "DEGRADED", None, REACTION).await?;
    let since = vm.status().await?.revision;
    make_well(vm, name).await?;
    vm.wait_state(name, "ACTIVE", Some(since), REACTION).await?;
    let after = one(vm, name).await?;
    check!(after.health == "healthy", "the health of what recovered is {}", after.health);
    check!(after.detail.is_none(), "what recovered still complains: {:?}", after.detail);
    check!(
        after.pid == before.pid && after.restarts == 0,
        "it was restarted {} times, process {:?} became {:?}",
        after.restarts,
        before.pid,
        after.pid
    );
    Ok(())
}

pub async fn multiple_health_types(vm: &Vm) -> Result<(), Failure> {
    for (name, reason) in KINDS {
        vm.step(name, async {
            let before = one(vm, name).await?;
            make_ill(vm, name).await?;
            vm.wait_state(name, "DEGRADED", None, REACTION).await?;
            let detail = one(vm, name).await?.detail.unwrap_or_default();
            check!(detail.contains(reason), "{name} is DEGRADED with the reason {detail:?}, not {reason:?}");
            let since = vm.status().await?.revision;
            make_well(vm, name).await?;
            vm.wait_state(name, "ACTIVE", Some(since), REACTION).await?;
            let after = one(vm, name).await?;
            check!(after.pid == before.pid, "{name} was restarted, though it recovered");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

pub async fn failure_thresholds(vm: &Vm) -> Result<(), Failure> {
    // Of a threshold of three: one failure, then two in a row, then three; each time a pass follows.
    let command = "echo >> /run/count; n=$(wc -l < /run/count); \
                   ! case $n in 2|4|5|7|8|9) true;; *) false;; esac";
    let text = format!(
        "health_check = \"{command}\"\nhealth_interval = 0.5\nhealth_fail_threshold = 3\n\
         health_restart_threshold = 4"
    );
    vm.declare("flaky.toml", &idle("flaky", &text)).await?;
    wait_lines(vm, "/run/count", 11, "the health_check").await?;
    let flaky = one(vm, "flaky").await?;
    check!(flaky.state == "ACTIVE", "after probes that passed it is {}: {:?}", flaky.state, flaky.detail);
    check!(flaky.restarts == 0, "it was restarted {} times", flaky.restarts);
    let events = vm.graphctl(&["events"]).await?;
    let marked: Vec<_> =
        events.lines().filter(|line| line.contains("flaky") && line.contains("DEGRADED")).collect();
    // To DEGRADED and back to ACTIVE.
    check!(
        marked.len() == 2 && marked[0].contains("3 health probes in a row failed"),
        "one, two and three failures in a row with a threshold of three made {marked:?}"
    );
    Ok(())
}
