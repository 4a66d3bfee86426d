//! Upgrades that succeed.

use std::collections::BTreeSet;

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::{ECHO, ECHO_ADDRESS, ECHO_TARGET, pid_of, upgrade};
use crate::load::{Load, in_windows};

/// The load of which each client's longest wait is known.
const BUSY: &str = "--connections 150";
/// Where its history is.
const HISTORY: &str = "/run/history";

pub async fn echo_server_hotswap_support(vm: &Vm) -> Result<(), Failure> {
    let pid = pid_of(vm, ECHO).await?;
    let environment =
        vm.sh(&format!("tr '\\0' '\\n' < /proc/{pid}/environ | grep HANDOFF_FD || true")).await?;
    let number = environment.trim().strip_prefix("HANDOFF_FD=").unwrap_or_default().to_owned();
    check!(!number.is_empty(), "process {pid} was given no HANDOFF_FD");
    let channel = vm.sh(&format!("readlink /proc/{pid}/fd/{number} || true")).await?;
    check!(channel.starts_with("socket:"), "descriptor {number} of process {pid} is `{}`", channel.trim());
    let monitor = pid_of(vm, "test-monitor").await?;
    let idle =
        vm.sh(&format!("tr '\\0' '\\n' < /proc/{monitor}/environ | grep -c HANDOFF_FD || true")).await?;
    check!(idle.trim() == "0", "a component that declares no hand-over has a channel");
    let done = upgrade(vm, ECHO).await?;
    check!(done.level == "fd-passing", "the upgrade was {done:?}");
    Ok(())
}

async fn asks(vm: &Vm) -> Result<(), Failure> {
    let answer = vm.sh("echo question | nc -w 5 127.0.0.1 8080").await?;
    check!(answer == "question\n", "{ECHO_ADDRESS} answers {answer:?}");
    Ok(())
}

pub async fn echo_server_connectivity(vm: &Vm) -> Result<(), Failure> {
    asks(vm).await?;
    let before = pid_of(vm, ECHO).await?;
    upgrade(vm, ECHO).await?;
    asks(vm).await?;
    let after = vm.status().await?;
    let after = after.component(ECHO)?;
    check!(
        after.pid.is_some() && after.pid != Some(before),
        "process {before} is {:?} after an upgrade",
        after.pid
    );
    check!(after.restarts == 0, "an upgrade counts as {} restarts", after.restarts);
    vm.wait_process_gone(before, "the version before", super::REACTION).await
}

pub async fn persistent_connection_upgrade(vm: &Vm) -> Result<(), Failure> {
    let load = Load::begin(vm, "1", ECHO_TARGET, "--connections 1 --pipeline 8").await?;
    let monitor = pid_of(vm, "test-monitor").await?;
    let mut pids = BTreeSet::from([pid_of(vm, ECHO).await?]);
    for round in 1..=5 {
        let done = upgrade(vm, ECHO).await?;
        check!(done.level == "fd-passing", "upgrade {round} was {done:?}");
        pids.insert(pid_of(vm, ECHO).await?);
    }
    check!(pids.len() == 6, "five upgrades were served by processes {pids:?}");
    load.end_clean(vm, 1).await?;
    check!(pid_of(vm, "test-monitor").await? == monitor, "who needs it was restarted");
    Ok(())
}

pub async fn upgrade_statistics(vm: &Vm) -> Result<(), Failure> {
    let load = Load::begin(vm, "1", ECHO_TARGET, "--connections 0 --idle 20").await?;
    let done = upgrade(vm, ECHO).await?;
    check!(done.level == "fd-passing", "the upgrade was {done:?}");
    check!(
        done.descriptors == Some(21),
        "a listener and 20 connections are {:?} descriptors",
        done.descriptors
    );
    check!(done.state_bytes.is_some_and(|bytes| bytes > 0), "the state has {:?} bytes", done.state_bytes);
    check!(done.gap_us.is_some_and(|gap| gap > 0), "the gap is {:?} µs", done.gap_us);
    check!(done.generation == Some(2), "the generation is {:?}", done.generation);
    check!(done.steps.len() >= 5, "the steps are {:?}", done.steps);
    load.end_clean(vm, 20).await?;
    vm.metric("gap", "us", done.gap()?);
    Ok(())
}

pub async fn zero_downtime(vm: &Vm) -> Result<(), Failure> {
    // The same load without upgrades first: what a client waits for at the most then is the unit.
    let plain = Load::begin(vm, "plain", ECHO_TARGET, BUSY).await?;
    vm.sh("sleep 3").await?;
    let plain = plain.end_clean(vm, 150).await?;
    let busy = Load::begin(vm, "busy", ECHO_TARGET, &format!("{BUSY} --history {HISTORY}")).await?;
    let (mut gaps, mut windows) = (Vec::new(), Vec::new());
    for round in 1..=vm.planned("upgrades_under_load")? {
        let done = upgrade(vm, ECHO).await?;
        check!(done.level == "fd-passing", "upgrade {round} was {done:?}");
        gaps.push(done.gap()?);
        windows.push(done.window());
    }
    let busy = busy.end_clean(vm, 150).await?;
    let coming =
        Load::begin(vm, "coming", ECHO_TARGET, "--connections 50 --requests-per-connection 5").await?;
    for round in 1..=5 {
        let done = upgrade(vm, ECHO).await?;
        check!(done.level == "fd-passing", "upgrade {round} with new connections was {done:?}");
    }
    let coming = coming.end(vm).await?;
    coming.check_clean()?;
    check!(coming.counts.connections > 50, "no connection was established while it was upgraded");
    let silences = in_windows(vm, HISTORY, &windows).await?.windows_silence_ns;
    let Some(silences) = silences.filter(|silences| silences.count == windows.len() as u64) else {
        return Err(Failure::harness("test-load has not looked at every upgrade".to_owned()));
    };
    let us = |ns: u64| ns as f64 / 1e3;
    gaps.sort_unstable_by(f64::total_cmp);
    vm.metric("requests_during_upgrades", "count", (busy.counts.replies + coming.counts.replies) as f64);
    vm.metric("gap_p50", "us", gaps[gaps.len() / 2]);
    vm.metric("gap_p99", "us", gaps[gaps.len() * 99 / 100]);
    vm.metric("plain_p50", "us", us(plain.latency_ns.p50));
    vm.metric("plain_p999", "us", us(plain.latency_ns.p999));
    vm.metric("silence_p50", "us", us(silences.p50));
    vm.metric("silence_p99", "us", us(silences.p99));
    vm.metric("silence_max", "us", us(silences.max));
    vm.metric("silence_p99_per_plain_p999", "ratio", us(silences.p99) / us(plain.latency_ns.p999));
    vm.samples("gap", "us", gaps);
    Ok(())
}

pub async fn state_moves_with_the_service(vm: &Vm) -> Result<(), Failure> {
    let name = "test-stateful-service";
    // One connection for all of it, with the upgrade between two requests.
    let script = "rm -f /run/go /run/said; mkfifo /run/go; (
        for i in 1 2 3; do printf 'POST /increment HTTP/1.1\\r\\n\\r\\n'; done
        printf 'POST /message HTTP/1.1\\r\\nContent-Length: 5\\r\\n\\r\\nhello'
        read _ < /run/go
        printf 'GET /status HTTP/1.1\\r\\nConnection: close\\r\\n\\r\\n'
        ) | setsid nc 127.0.0.1 8081 > /run/said 2>&1 &
        n=0; until grep -q hello /run/said 2>/dev/null; do n=$((n+1)); [ $n -le 50 ] || exit 1; sleep 0.1; done";
    vm.sh(script).await?;
    let done = upgrade(vm, name).await?;
    check!(done.level == "fd-passing", "the upgrade was {done:?}");
    vm.sh("echo > /run/go; n=0; until tail -n 1 /run/said | grep -q '\"upgrades\":1'; do \
           n=$((n+1)); [ $n -le 50 ] || exit 1; sleep 0.1; done")
        .await?;
    let said = vm.read("/run/said").await?;
    let last = said.lines().last().unwrap_or_default();
    for part in ["\"counter\":3", "\"last_message\":\"hello\"", "\"upgrades\":1"] {
        check!(last.contains(part), "after the upgrade it says {last}, without {part}");
    }
    Ok(())
}
