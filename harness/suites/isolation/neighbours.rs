//! What the supervisor and a neighbour keep beside hogs: their answers, and the time of these.
//!
//! All times are by the guest's own clock. How long a program takes to be executed under emulation says more about that
//! than about the supervisor: so what is judged is the supervisor's answer, from connect(2) to its last byte, and what the
//! whole command takes is recorded beside what the smallest program takes.

use std::time::Duration;

use serde::Deserialize;

use super::hog;
use super::hogs::{SLOW, untouched};
use crate::check;
use crate::failure::Failure;
use crate::measure::{answers, percentile};
use crate::vm::{COMPONENTS, Vm};

/// The supervisor answers within this, on a quick host; the median is judged.
const ANSWER: Duration = Duration::from_millis(50);
/// A neighbour's slowest answers in a hundred take at most so many times as long beside hogs.
const HELD: f64 = 4.0;
/// Few enough for one answer to be over before the next question, on an emulated processor.
const REQUESTS_PER_SECOND: &str = "200";

/// In the shortest of them the slowest answer in a hundred is one answer: something on the host that is slow now and then
/// is in some rounds, and hogs are in each.
const ROUNDS: usize = 5;

/// What would take all that it gets of something.
struct Hog {
    name: &'static str,
    /// Of `test-hog`.
    kind: &'static str,
    /// Of what it takes.
    limits: &'static str,
    /// A condition of the shell.
    is_at_its_limit: &'static str,
}

const BOMB: Hog = Hog {
    name: "bomb",
    kind: "processes",
    limits: "pids_max = 60\nmemory_max = \"64M\"",
    is_at_its_limit: "[ $(cat /sys/fs/cgroup/graph/bomb/pids.current) -eq 60 ]",
};
const GLUTTON: Hog = Hog {
    name: "glutton",
    kind: "memory",
    limits: "memory_max = \"32M\"",
    // Its group, with what that has counted, is made anew for each start.
    is_at_its_limit: "graphctl status glutton --json | grep -q '\"oom_kills\":[1-9]'",
};
const OPENER: Hog = Hog {
    name: "opener",
    kind: "files",
    limits: "files_max = 64",
    is_at_its_limit: "grep -q 'held at' /run/graph/opener.log",
};

const fn spinner(name: &'static str) -> Hog {
    Hog { name, kind: "cpu", limits: "", is_at_its_limit: "true" }
}

/// Without their share the spinners alone make a neighbour's slowest answers seven times as slow.
const HOGS: [Hog; 9] = [
    BOMB,
    GLUTTON,
    OPENER,
    spinner("spinner-1"),
    spinner("spinner-2"),
    spinner("spinner-3"),
    spinner("spinner-4"),
    spinner("spinner-5"),
    spinner("spinner-6"),
];
/// What keeps them from each other's and everybody's processor.
const SHARE: &str = "cpu_weight = 1\ncpu_max = \"5000 100000\"";

/// The neighbour's answers to clients in the guest, in milliseconds.
struct Latency {
    p50: f64,
    p99: f64,
}

pub async fn hogs_leave_their_neighbours_alone(vm: &Vm) -> Result<(), Failure> {
    let quiet = vm.step("a neighbour and the supervisor are asked", take(vm, "quiet")).await?;
    vm.step("a fork bomb and a memory hog come to their limits", begin(vm, &[BOMB, GLUTTON], "")).await?;
    vm.step("the supervisor is asked beside them", supervisor(vm, "beside_two")).await?;
    vm.step("more hogs come, and all have a share", begin(vm, &HOGS, SHARE)).await?;
    let beside = vm.step("both are asked beside hogs", take(vm, "beside_hogs")).await?;
    untouched(vm).await?;
    let status = vm.status().await?;
    for component in &status.components {
        let (ends, runs) = (["network", "glutton"].contains(&&*component.name), component.state == "ACTIVE");
        check!(ends || (runs && component.restarts == 0), "beside hogs a component is {component:?}");
    }
    let files = HOGS.map(|Hog { name, .. }| format!("{COMPONENTS}/{name}.toml")).join(" ");
    vm.sh(&format!("rm {files}")).await?;
    for Hog { name, .. } in HOGS {
        vm.wait_state(name, "REMOVED", Some(status.revision), SLOW).await?;
    }
    vm.step("what a neighbour takes is compared", compare(vm, &quiet, &beside)).await
}

/// If it took longer beside hogs, that may be because the host has become slower: so it is asked without them again.
async fn compare(vm: &Vm, quiet: &Latency, beside: &Latency) -> Result<(), Failure> {
    let mut without = quiet.p99;
    if beside.p99 > without * HELD {
        without = best(vm).await?.p99.max(without);
    }
    let ratio = beside.p99 / without;
    vm.metric("neighbour_p99_beside_hogs_to_quiet", "ratio", ratio);
    let is_held = ratio <= HELD;
    check!(
        is_held,
        "beside hogs the slowest of a hundred answers of a neighbour takes {:.1} ms, and {without:.1} ms without: \
         {ratio:.1} times as long",
        beside.p99
    );
    Ok(())
}

/// Begins with hogs, or gives those that run another share.
async fn begin(vm: &Vm, hogs: &[Hog], share: &str) -> Result<(), Failure> {
    for Hog { name, kind, limits, .. } in hogs {
        let more = format!("[lifecycle]\nrestart_max = 1000\n[resources]\n{limits}\n{share}");
        vm.declare(&format!("{name}.toml"), &hog(name, kind, &more)).await?;
    }
    for Hog { name, is_at_its_limit, .. } in hogs {
        vm.until(&format!("{name} takes what it gets"), is_at_its_limit, SLOW).await?;
    }
    Ok(())
}

/// The times of both.
async fn take(vm: &Vm, when: &str) -> Result<Latency, Failure> {
    let best = best(vm).await?;
    vm.metric(&format!("neighbour_p50_{when}"), "ms", best.p50);
    vm.metric(&format!("neighbour_p99_{when}"), "ms", best.p99);
    supervisor(vm, when).await?;
    Ok(best)
}

/// The times of the supervisor's answers, which are judged.
async fn supervisor(vm: &Vm, when: &str) -> Result<(), Failure> {
    let times = answers(vm, vm.amount(500, 100), None).await?;
    let median = percentile(&times, 50);
    vm.metric(&format!("status_p99_{when}"), "ms", percentile(&times, 99));
    vm.samples(&format!("status_{when}"), "ms", times);
    for (what, program) in [("status_command", "/usr/bin/graphctl"), ("smallest_command", "/bin/true")] {
        let times = answers(vm, vm.amount(50, 3), Some(program)).await?;
        vm.samples(&format!("{what}_{when}"), "ms", times);
    }
    let limit = vm.limit(ANSWER).as_secs_f64() * 1e3;
    let is_quick = median <= limit;
    check!(is_quick, "{when}: half of the supervisor's answers take {median:.1} ms or more, not {limit:.0}");
    Ok(())
}

/// The best of some rounds: what else happens on the host makes one worse, and never better.
async fn best(vm: &Vm) -> Result<Latency, Failure> {
    let mut best = latency(vm).await?;
    for _ in 1..ROUNDS {
        let round = latency(vm).await?;
        best = Latency { p50: best.p50.min(round.p50), p99: best.p99.min(round.p99) };
    }
    Ok(best)
}

/// The neighbour's answers to clients in the guest. None of them is lost.
async fn latency(vm: &Vm) -> Result<Latency, Failure> {
    #[derive(Deserialize)]
    struct Verdict {
        clean: bool,
        latency_ns: Times,
    }
    #[derive(Deserialize)]
    struct Times {
        p50: f64,
        p99: f64,
    }
    let seconds = vm.amount("2", "0.5");
    let rate = ["--connections", "4", "--rate", REQUESTS_PER_SECOND, "--for", seconds, "--json"];
    let load = [&["test-load", "run", "tcp:127.0.0.1:8080"], &rate[..]].concat();
    let text = vm.run(&load, SLOW).await?.text();
    let verdict: Verdict = serde_json::from_str(&text)
        .map_err(|error| Failure::harness(format!("test-load printed {text}: {error}")))?;
    check!(verdict.clean, "clients of the neighbour saw it: {text}");
    Ok(Latency { p50: verdict.latency_ns.p50 / 1e6, p99: verdict.latency_ns.p99 / 1e6 })
}
