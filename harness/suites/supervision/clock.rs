//! A wall clock that is set while things wait: what waits goes by the monotonic clock.

use std::time::Duration;

use super::restarts::{PAUSE_LIMIT, first_pause_is_right};
use super::{LATE, REACTION, idle};
use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

const DAY_S: i64 = 86_400;
/// Forward, then back beyond where it was, then to where it would be.
const STEPS_S: [i64; 3] = [DAY_S, -2 * DAY_S, DAY_S];
/// How exactly a step is seen: the time that the commands take.
const STEP_FUZZ_S: u64 = 60;
/// Between steps: time for probes that are not due.
const SPAN_S: u64 = 2;
/// Longer than the steps take on a quick host, shorter than the pause.
const WAIT_S: f64 = 10.0;
const INTERVAL_S: f64 = 1.0;
/// Probes more than one an interval that the start of their processes can make of the same number.
/// A probe too many at each step is more.
const PROBES_FUZZ: f64 = 1.5;

/// Notes each attempt on a clock that nobody sets, and backs off after the first.
const TRIPPING: &str = r#"
[component]
name = "tripping"
binary = "/bin/sh"
args = ["-c", "cut -d' ' -f1 /proc/uptime >> /run/attempts; exit 7"]

[lifecycle]
restart_max = 0
restart_window = 60
"#;

/// Waits in the background for what does not come, and says how that ended, when it began and when it ended.
const WAITER: &str = r#"
now() { cut -d' ' -f1 /proc/uptime; }
{
    from=$(now); code=0
    graphctl wait probed --state FAILED --timeout $limit || code=$?
    echo "$code $from $(now)" > /run/waited.new
    mv /run/waited.new /run/waited
} </dev/null >/dev/null 2>&1 &
"#;

pub async fn clock_steps(vm: &Vm) -> Result<(), Failure> {
    let probes =
        "[lifecycle]\nhealth_check = \"cut -d' ' -f1 /proc/uptime >> /run/probes\"\nhealth_interval = 1";
    vm.declare("probed.toml", &idle("probed", probes)).await?;
    vm.wait_path("/run/probes", REACTION).await?;
    vm.declare("tripping.toml", TRIPPING).await?;
    vm.wait_state("tripping", "BACKOFF", None, REACTION).await?;
    let backed_off = vm.status().await?.revision;
    vm.sh(&format!("limit={WAIT_S}\n{WAITER}")).await?;

    for seconds in STEPS_S {
        vm.step(&format!("the clock is set by {seconds} s"), set_clock(vm, seconds)).await?;
    }
    vm.step("a wait takes its time", wait_took_its_time(vm)).await?;
    vm.step("the pause takes its time", pause_took_its_time(vm, backed_off)).await?;
    vm.step("a probe came once an interval", probes_came_in_time(vm)).await
}

async fn set_clock(vm: &Vm, seconds: i64) -> Result<(), Failure> {
    let script = format!(
        "before=$(date +%s); date -s @$((before + ({seconds}))) >/dev/null; after=$(date +%s); \
         sleep {SPAN_S}; echo $((after - before))"
    );
    let moved = vm.sh(&script).await?;
    let right = moved.trim().parse().is_ok_and(|moved: i64| moved.abs_diff(seconds) <= STEP_FUZZ_S);
    if right {
        Ok(())
    } else {
        Err(Failure::harness(format!("set by {seconds} s, the clock moved by {moved}")))
    }
}

async fn wait_took_its_time(vm: &Vm) -> Result<(), Failure> {
    vm.wait_path("/run/waited", Duration::from_secs_f64(WAIT_S) + REACTION).await?;
    let waited = vm.read("/run/waited").await?;
    let [_code, from, to] = numbers(&waited)[..] else {
        return Err(Failure::harness(format!("the waiter wrote {waited:?}")));
    };
    let took = to - from;
    check!(waited.starts_with("1 "), "a wait for what did not come ended with its code in {waited:?}");
    let most = WAIT_S + vm.limit(LATE).as_secs_f64();
    check!((WAIT_S..=most).contains(&took), "a wait of {WAIT_S} s took {took:.2} s");
    Ok(())
}

async fn pause_took_its_time(vm: &Vm, backed_off: u64) -> Result<(), Failure> {
    let status = vm.status().await?;
    let attempts = numbers(&vm.read("/run/attempts").await?).len();
    check!(attempts == 1, "in its pause it was started {} times", attempts - 1);
    let tripping = status.component("tripping")?;
    check!(tripping.state == "BACKOFF", "in its pause it is {}: {:?}", tripping.state, tripping.detail);

    vm.wait_state("tripping", "BACKOFF", Some(backed_off), PAUSE_LIMIT).await?;
    first_pause_is_right(vm, "tripping").await?;
    let attempts = vm.read("/run/attempts").await?;
    let [first, second] = numbers(&attempts)[..] else {
        return Err(Failure::supervisor(format!("after one pause the attempts were at {attempts:?}")));
    };
    // Two hundredths are lost where uptime is cut.
    let apart = second - first;
    let early = apart < 29.98;
    check!(!early, "the second attempt came {apart:.2} s after the first");
    Ok(())
}

async fn probes_came_in_time(vm: &Vm) -> Result<(), Failure> {
    // The present is at the end: probes that come no more leave no gap but that to it.
    let times = numbers(&vm.sh("cat /run/probes; cut -d' ' -f1 /proc/uptime").await?);
    let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let longest = gaps.iter().copied().fold(0.0, f64::max);
    let gaps = &gaps[..gaps.len().saturating_sub(1)];
    let span = gaps.iter().sum::<f64>();
    let most = span / INTERVAL_S + PROBES_FUZZ;
    check!(
        (0.0..=most).contains(&(gaps.len() as f64)),
        "in {span:.1} s came {} probes, some early: {times:?}",
        gaps.len()
    );
    let late = INTERVAL_S + vm.limit(LATE).as_secs_f64();
    check!((0.0..=late).contains(&longest), "no probe came for {longest:.2} s: {times:?}");
    Ok(())
}

fn numbers(text: &str) -> Vec<f64> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}
