//! A hundred components that write.

use super::MANY;
use super::support::{numbers, own_time};
use crate::check;
use crate::failure::Failure;
use crate::measure::answers;
use crate::vm::Vm;

const LOGGERS: usize = 100;
/// With its newline.
const LINE: usize = 80;

pub async fn io_performance(vm: &Vm) -> Result<(), Failure> {
    // Less than a log holds before it is rotated: every line has to be there at the end.
    let lines = vm.amount(2000, 500);
    let logger = |number| {
        let name = format!("logger-{number}");
        let content = format!(
            "[component]\nname = \"{name}\"\nbinary = \"/usr/local/bin/test-flood\"\n\
             args = [\"--lines\", \"{lines}\", \"--bytes\", \"{LINE}\"]\ntype = \"oneshot\"\n\
             [requires]\ncapabilities = [\"gate\"]\n"
        );
        (format!("{name}.toml"), content)
    };
    vm.declare_all(&(1..=LOGGERS).map(logger).collect::<Vec<_>>()).await?;
    vm.wait_state(&format!("logger-{LOGGERS}"), "INACTIVE", None, MANY).await?;
    vm.wait_settled(MANY).await?;
    let before = own_time(vm).await?;
    let from = uptime(vm).await?;
    let gate = "[component]\nname = \"gate\"\nbinary = \"/bin/true\"\ntype = \"oneshot\"\n[provides]\ncapabilities = [\"gate\"]\n";
    vm.declare("gate.toml", gate).await?;
    let meanwhile = vm.step("answers meanwhile", answers(vm, 50, None)).await?;
    let all = format!("[ $(graphctl status | grep '^logger-' | grep -c DONE) = {LOGGERS} ]");
    vm.until("all have written", &all, MANY * 2).await?;
    // What is in the pipes when they end is written, too.
    let whole = format!(
        "[ $(for i in $(seq {LOGGERS}); do graphctl log logger-$i -n 1 || true; done | wc -l) = {LOGGERS} ]"
    );
    vm.until("all logs are there", &whole, MANY).await?;
    let (took, used) = (uptime(vm).await? - from, own_time(vm).await? - before);
    let counts = vm
        .succeed(&["/bin/sh", "-euc", "for f in /run/graph/logger-*.log; do wc -l < $f; done"], MANY)
        .await?;
    let counts = numbers(&counts);
    let short: Vec<_> = counts.iter().filter(|count| **count < f64::from(lines)).collect();
    check!(counts.len() == LOGGERS && short.is_empty(), "of {lines} lines each, logs have {counts:?}");
    let mebibytes = (LOGGERS * LINE) as f64 * f64::from(lines) / f64::from(1 << 20);
    vm.metric("written", "MiB", mebibytes);
    vm.metric("lines_per_second", "1/s", LOGGERS as f64 * f64::from(lines) / took);
    vm.metric("own_time_per_mebibyte", "ms", used / 1e6 / mebibytes);
    vm.samples("answer_beside_loggers", "ms", meanwhile);
    Ok(())
}

async fn uptime(vm: &Vm) -> Result<f64, Failure> {
    let text = vm.sh("cut -d' ' -f1 /proc/uptime").await?;
    text.trim().parse().map_err(|_| Failure::harness(format!("/proc/uptime says {text}")))
}
