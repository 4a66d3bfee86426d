//! What probing costs process 1.

use std::fmt::Write as _;
use std::time::Duration;

use super::{REACTION, all, idle};
use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

/// How long processor time is counted.
const SPAN: Duration = Duration::from_secs(10);

/// The most of one processor that 20 services probed each second may cost on a quick host without emulation, in percent.
const BOUND_PERCENT: f64 = 1.0;

/// How much slower an emulated processor runs a program than the quick host's own; the run's measured factor comes on top.
const EMULATION: f64 = 10.0;

/// Services in the second measurement, which is reported and not judged.
const MANY: usize = 200;

pub async fn health_monitoring_overhead(vm: &Vm) -> Result<(), Failure> {
    let idle_percent = vm.step("count without more probes", cpu_percent(vm)).await?;
    let few = vm.step("count with 20 services", measure(vm, 20)).await?;
    let many = vm.step("count with 200 services", measure(vm, MANY)).await?;
    vm.metric("cpu_of_pid_1_before", "%", idle_percent);
    vm.metric("cpu_of_pid_1_with_20_probed", "%", few);
    vm.metric("cpu_of_pid_1_with_200_probed", "%", many);
    let bound = vm.limit(Duration::from_secs(1)).as_secs_f64() * BOUND_PERCENT * EMULATION;
    let within = few - idle_percent <= bound;
    check!(
        within,
        "probing 20 services each second costs {few:.1} % of a processor, {idle_percent:.1} % of it for what ran \
         before; the bound is {bound:.1} %"
    );
    Ok(())
}

/// Declares `count` services, each probed once a second in one of the native ways, and counts.
async fn measure(vm: &Vm, count: usize) -> Result<f64, Failure> {
    const KEYS: [&str; 4] = [
        "health_file = \"/run\"",
        "health_tcp = \"127.0.0.1:9002\"",
        "health_unix = \"/run/probed-by-unix.sock\"",
        "health_http = \"http://127.0.0.1:9000/status\"",
    ];
    let mut script = String::new();
    for n in 0..count {
        let key = KEYS[n % KEYS.len()];
        let text = idle(&format!("many-{n}"), &format!("{key}\nhealth_interval = 1"));
        let _ = writeln!(script, "cat > /etc/graph.d/many-{n}.toml <<'END'\n{text}END");
    }
    vm.write("/run/declare.sh", &script).await?;
    vm.succeed(&["/bin/sh", "-eu", "/run/declare.sh"], REACTION).await?;
    vm.wait_settled(REACTION * 3).await?;
    // Every first probe comes within an interval.
    vm.succeed(&["sleep", "2"], REACTION).await?;
    let percent = cpu_percent(vm).await?;
    let all = all(vm).await?;
    let own: Vec<_> = all.iter().filter(|component| component.name.starts_with("many-")).collect();
    let bad = own.iter().find(|component| component.state != "ACTIVE" || component.health != "healthy");
    check!(own.len() == count && bad.is_none(), "of {count} probed services {} run; {bad:?}", own.len());
    Ok(percent)
}

/// Percent of one processor that process 1 takes over [`SPAN`], user and system time together.
async fn cpu_percent(vm: &Vm) -> Result<f64, Failure> {
    let seconds = SPAN.as_secs();
    // The name of a process may have blanks: fields are counted after it. The kernel counts in hundredths.
    let script = format!(
        "now() {{ sed 's/.*) //' /proc/1/stat | awk '{{ print $12 + $13 }}'; }}; \
         a=$(now); sleep {seconds}; b=$(now); echo $((b - a))"
    );
    let text = vm.succeed(&["/bin/sh", "-euc", &script], SPAN + REACTION).await?;
    let ticks: f64 =
        text.trim().parse().map_err(|_| Failure::harness(format!("processor time is {text:?}")))?;
    Ok(ticks / SPAN.as_secs_f64())
}
