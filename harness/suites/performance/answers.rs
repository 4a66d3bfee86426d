//! What probes cost, how long answers take, and many commands at once.

use std::time::Duration;

use super::support::{idle, numbers};
use super::{MANY, REACTION};
use crate::check;
use crate::failure::Failure;
use crate::load::Load;
use crate::measure::{answers, cpu_share, percentile, slowness};
use crate::vm::{COMPONENTS, Vm};

/// As many as the plan's bar is about.
const SERVICES: usize = 20;
/// A probe of each kind that is no program of its own, of what the machine has.
const PROBES: [&str; 3] = [
    "health_tcp = \"127.0.0.1:8080\"",
    "health_http = \"http://127.0.0.1:9000/status\"",
    "health_file = \"/run/echo.ready\"",
];
/// Two probes of each service at the interval that is used where none is declared.
const SPAN: Duration = Duration::from_secs(10);

pub async fn health_check_overhead(vm: &Vm) -> Result<(), Failure> {
    // What the machine has is not to be probed: the twenty are.
    vm.sh(&format!("sed -i '/^health_/d; s/, \"--beat\", \"40\"//' {COMPONENTS}/*.toml")).await?;
    vm.wait_settled(MANY).await?;
    let name = |number: usize| format!("probed-{number}");
    let plain: Vec<_> = (1..=SERVICES).map(|number| idle(&name(number), "")).collect();
    vm.declare_all(&plain).await?;
    for number in 1..=SERVICES {
        vm.wait_state(&name(number), "ACTIVE", None, REACTION).await?;
    }
    vm.wait_settled(MANY).await?;
    let without = vm.step("unprobed", cpu_share(vm, SPAN)).await?;
    let probe =
        |number: usize| format!("[lifecycle]\n{}\nhealth_interval = 5\n", PROBES[number % PROBES.len()]);
    let probed: Vec<_> = (1..=SERVICES).map(|number| idle(&name(number), &probe(number))).collect();
    vm.declare_all(&probed).await?;
    let all = format!("[ $(graphctl status | grep '^probed-' | grep -c healthy) = {SERVICES} ]");
    vm.until("all are healthy", &all, MANY).await?;
    let before = slowness(vm).await?;
    let with = vm.step("probed", cpu_share(vm, SPAN)).await?;
    let slowness = before.max(slowness(vm).await?);
    let cost = with.supervisor - without.supervisor;
    check!(
        cost.total_cmp(&0.0).is_gt(),
        "probing cost nothing ({with:?} after {without:?}): nothing was probed"
    );
    vm.metric("probes_cpu", "%", cost * 100.0);
    vm.metric("slower_than_a_processor_of_today", "times", slowness);
    vm.metric("probes_cpu_today", "%", cost * 100.0 / slowness);
    vm.metric("unprobed_cpu", "%", without.supervisor * 100.0);
    Ok(())
}

pub async fn system_responsiveness(vm: &Vm) -> Result<(), Failure> {
    let times = vm.amount(500, 100);
    let quiet = vm.step("when nothing happens", answers(vm, times, None)).await?;
    let load = Load::begin(vm, "busy", "tcp:127.0.0.1:8080", "--connections 20 --rate 500").await?;
    // A processor's time for whoever asks, and restarts without end.
    let spinner = "[component]\nname = \"spinner\"\nbinary = \"/usr/local/bin/test-hog\"\nargs = [\"--kind\", \"cpu\"]\n";
    vm.declare("spinner.toml", spinner).await?;
    vm.wait_state("spinner", "ACTIVE", None, REACTION).await?;
    vm.sh(
        "setsid sh -c 'while [ ! -e /run/enough ]; do graphctl restart test-isolated-service > /dev/null 2>&1 \
           && echo done; done' > /run/restarts 2> /dev/null < /dev/null &",
    )
    .await?;
    let busy = vm.step("under load", answers(vm, times, None)).await?;
    let command =
        vm.step("the command under load", answers(vm, times / 10, Some("/usr/bin/graphctl"))).await?;
    vm.write("/run/enough", "").await?;
    let restarts = numbers(&vm.sh("grep -c '^done$' /run/restarts || true").await?);
    check!(restarts.first().is_some_and(|number| *number > 0.0), "nothing was restarted meanwhile");
    load.end_clean(vm, 20).await?;
    // What it made slow is not to make the measure for it.
    vm.undeclare("spinner.toml").await?;
    vm.wait_state("spinner", "REMOVED", None, REACTION).await?;
    let slowness = slowness(vm).await?;
    vm.metric("answer_busy_p99_today", "ms", percentile(&busy, 99) / slowness);
    vm.metric("answer_quiet_p99_today", "ms", percentile(&quiet, 99) / slowness);
    vm.samples("answer_quiet", "ms", quiet);
    vm.samples("answer_busy", "ms", busy);
    vm.samples("command_busy", "ms", command);
    Ok(())
}

pub async fn concurrent_operations(vm: &Vm) -> Result<(), Failure> {
    const SET: usize = 10;
    let names: Vec<_> = (1..=SET).map(|number| format!("many-{number}")).collect();
    let files: Vec<_> = names.iter().map(|name| idle(name, "")).collect();
    vm.declare_all(&files).await?;
    for name in &names {
        vm.wait_state(name, "ACTIVE", None, REACTION).await?;
    }
    let before = vm.status().await?;
    // Of each kind one for each component at the same time, and each says in a line of its own how it ended and how long
    // it took.
    let script = format!(
        "run() {{ from=$(cut -d' ' -f1 /proc/uptime); \"$@\" > /dev/null 2>&1; code=$?; \
            echo \"$code $from $(cut -d' ' -f1 /proc/uptime) $*\" >> /run/ends; }}
         for i in $(seq {SET}); do
           run graphctl restart many-$i &
           run graphctl status many-$i &
           run graphctl tree many-$i &
           run graphctl wait many-$i --state ACTIVE --timeout 60 &
           run graphctl events many-$i &
         done
         run graphctl upgrade test-echo-server &
         run graphctl checkpoint test-stateful-service &
         run graphctl reload &
         run graphctl analyze &
         wait"
    );
    vm.succeed(&["/bin/sh", "-c", &script], MANY * 2).await?;
    vm.wait_settled(MANY).await?;
    let ends = vm.read("/run/ends").await?;
    check!(ends.lines().count() == SET * 5 + 4, "of {} commands these have ended: {ends}", SET * 5 + 4);
    let failed: Vec<_> = ends.lines().filter(|line| !line.starts_with("0 ")).collect();
    check!(failed.is_empty(), "these failed: {failed:?}");
    let times: Vec<_> = ends.lines().filter_map(took).collect();
    let after = vm.status().await?;
    for name in &names {
        let (old, new) = (before.component(name)?, after.component(name)?);
        check!(new.state == "ACTIVE", "{name} is {new:?}");
        check!(
            new.pid != old.pid && new.pid.is_some(),
            "{name} was asked to restart, and was {old:?} and is {new:?}"
        );
    }
    vm.metric("command_of_many_max", "ms", percentile(&times, 100));
    vm.samples("command_of_many", "ms", times);
    Ok(())
}

/// Milliseconds.
fn took(line: &str) -> Option<f64> {
    let mut words = line.split(' ').skip(1);
    let mut time = || words.next()?.parse::<f64>().ok();
    let (from, to) = (time()?, time()?);
    Some((to - from) * 1e3)
}
