//! A wall clock that is set while things wait: what waits goes by the monotonic clock.

use std::time::Duration;

use super::restarts::{PAUSE_LIMIT, first_pause_is_right};
use super::{REACTION, idle};
use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

const DAY_S: i64 = 86_400;
/// Forward, then back beyond where it was. What goes by it comes a day too early, or does not come while it stands there.
const STEPS_S: [i64; 2] = [DAY_S, -2 * DAY_S];
/// How exactly a step is seen: the time that the commands take.
const STEP_FUZZ_S: u64 = 60;
/// For what is due within seconds, on a host that has better things to do. A day is far more.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than the steps take on a quick host, shorter than the pause.
const WAIT_S: f64 = 10.0;
/// After so long graphctl itself gives up: what the supervisor has not ended by then it would not have ended.
const GIVEN_UP_S: f64 = WAIT_S + 14.0;
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
        vm.step("probes go on", probes_go_on(vm)).await?;
    }
    vm.step("a wait takes its time", wait_took_its_time(vm)).await?;
    vm.step("the pause takes its time", pause_took_its_time(vm, backed_off)).await?;
    vm.step("the clock is set right", set_clock(vm, DAY_S)).await?;
    vm.step("probes go on", probes_go_on(vm)).await?;
    vm.step("no probe came too early", no_probe_came_early(vm)).await
}

async fn set_clock(vm: &Vm, seconds: i64) -> Result<(), Failure> {
    let script = format!(
        "before=$(date +%s); date -s @$((before + ({seconds}))) >/dev/null; after=$(date +%s); \
         echo $((after - before))"
    );
    let moved = vm.sh(&script).await?;
    let right = moved.trim().parse().is_ok_and(|moved: i64| moved.abs_diff(seconds) <= STEP_FUZZ_S);
    if right {
        Ok(())
    } else {
        Err(Failure::harness(format!("set by {seconds} s, the clock moved by {moved}")))
    }
}

/// Two more come: the first one may have been on its way.
async fn probes_go_on(vm: &Vm) -> Result<(), Failure> {
    let script = "most=$1; came() { wc -l < /run/probes; }; before=$(came)
        until [ $(came) -ge $((before + 2)) ]; do [ $most -gt 0 ] || exit 1; most=$((most - 1)); sleep 0.1; done";
    let rounds = (vm.limit(PATIENCE).as_millis() / 100).to_string();
    let output = vm.run(&["/bin/sh", "-c", script, "probes", &rounds], 2 * PATIENCE).await?;
    check!(output.success(), "with the clock set, probes come no more: {}", vm.read("/run/probes").await?);
    Ok(())
}

async fn wait_took_its_time(vm: &Vm) -> Result<(), Failure> {
    vm.wait_path("/run/waited", Duration::from_secs_f64(WAIT_S) + PATIENCE).await?;
    let waited = vm.read("/run/waited").await?;
    let [_code, from, to] = numbers(&waited)[..] else {
        return Err(Failure::harness(format!("the waiter wrote {waited:?}")));
    };
    let took = to - from;
    check!(waited.starts_with("1 "), "a wait for what did not come ended with its code in {waited:?}");
    check!((WAIT_S..GIVEN_UP_S).contains(&took), "a wait of {WAIT_S} s took {took:.2} s");
    Ok(())
}

async fn pause_took_its_time(vm: &Vm, backed_off: u64) -> Result<(), Failure> {
    vm.wait_state("tripping", "BACKOFF", Some(backed_off), PAUSE_LIMIT).await?;
    first_pause_is_right(vm, "tripping").await?;
    let attempts = vm.read("/run/attempts").await?;
    let [first, second, ..] = numbers(&attempts)[..] else {
        return Err(Failure::supervisor(format!("after one pause the attempts were at {attempts:?}")));
    };
    // Two hundredths are lost where uptime is cut.
    let apart = second - first;
    let early = apart < 29.98;
    check!(!early, "the second attempt came {apart:.2} s after the first");
    Ok(())
}

async fn no_probe_came_early(vm: &Vm) -> Result<(), Failure> {
    let times = numbers(&vm.read("/run/probes").await?);
    let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let span = gaps.iter().sum::<f64>();
    let most = span / INTERVAL_S + PROBES_FUZZ;
    check!(
        (0.0..=most).contains(&(gaps.len() as f64)),
        "in {span:.1} s came {} probes, some early: {times:?}",
        gaps.len()
    );
    Ok(())
}

fn numbers(text: &str) -> Vec<f64> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}
