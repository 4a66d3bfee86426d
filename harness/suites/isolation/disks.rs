//! What writes to a disk without end, with and without a limit.

use std::time::{Duration, Instant};

use super::hogs::untouched;
use super::{GROUPS, REACTION, component};
use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

/// The disk that the scenario's machine has beside the suite's.
const DISK: &str = "/dev/vda";
/// The limit is this part of what is written without one.
const PART: f64 = 0.25;
/// What may be written above a limit, in relation to it: the kernel counts in slices of a tenth of a second, and one that
/// has begun is used up.
const TOLERANCE: f64 = 1.25;
/// How long is measured, while each change is tried; for all that is promised it is longer.
const SPAN: Duration = Duration::from_secs(1);
/// For the kernel to let more through.
const LIFTED: Duration = Duration::from_secs(20);

fn writer(limits: &str) -> String {
    let arguments = ["--kind", "io", "--direct", "--path", DISK];
    component("writer", "/usr/local/bin/test-hog", &arguments, limits)
}

pub async fn io_hog(vm: &Vm) -> Result<(), Failure> {
    let there = vm.read("/sys/fs/cgroup/cgroup.controllers").await?;
    if !there.split_whitespace().any(|one| one == "io") {
        return Err(Failure::skip("this kernel has no controller io"));
    }
    vm.declare("writer.toml", &writer("")).await?;
    vm.wait_state("writer", "ACTIVE", None, REACTION).await?;
    vm.until("it writes", &format!("grep -q 'wbytes=[1-9]' {GROUPS}/writer/io.stat"), REACTION).await?;
    let pid = vm.status().await?.component("writer")?.running_pid()?;
    let free = vm.step("what writes without a limit", written(vm, SPAN * vm.amount(4, 1))).await?;
    let limit = free * PART;
    vm.step("a limit comes to what runs", async {
        let limits = format!("[resources]\nio_max = [\"{DISK} wbps={limit:.0}\"]");
        vm.declare("writer.toml", &writer(&limits)).await?;
        vm.until("it is set", &format!("grep -q 'wbps={limit:.0} ' {GROUPS}/writer/io.max"), REACTION).await
    })
    .await?;
    let held = vm.step("what writes with a limit", written(vm, SPAN * vm.amount(4, 1))).await?;
    vm.metric("written_free", "MiB/s", free / f64::from(1 << 20));
    vm.metric("written_held", "MiB/s", held / f64::from(1 << 20));
    vm.metric("written_held_to_limit", "ratio", held / limit);
    check!(
        held <= limit * TOLERANCE && held > 0.0,
        "with wbps={limit:.0} it wrote {held:.0} bytes in a second, and {free:.0} without"
    );
    untouched(vm).await?;
    vm.step("without the limit it writes as before", lifted(vm, limit)).await?;
    let status = vm.status().await?;
    let writer = status.component("writer")?;
    check!(writer.pid == Some(pid) && writer.restarts == 0, "it was process {pid}, and is {writer:?}");
    vm.graphctl(&["stop", "writer"]).await?;
    vm.step("a weight is set, or missed by name", weight(vm)).await
}

/// Bytes that are written in a second of the guest's clock. What happens between two looks of one moment makes it less,
/// never more.
async fn written(vm: &Vm, span: Duration) -> Result<f64, Failure> {
    let bytes = format!("sed -n 's/.*wbytes=\\([0-9]*\\).*/\\1/p' {GROUPS}/writer/io.stat");
    let time = "cut -d' ' -f1 /proc/uptime";
    let script = format!("{time}; {bytes}; sleep {}; {bytes}; {time}", span.as_secs_f64());
    let text = vm.succeed(&["/bin/sh", "-euc", &script], span * 4).await?;
    let numbers: Vec<f64> = text.lines().filter_map(|line| line.parse().ok()).collect();
    let &[from, written_from, written_to, to] = &numbers[..] else {
        return Err(Failure::harness(format!("the guest's accounts are not what they should be: {text}")));
    };
    Ok((written_to - written_from) / (to - from))
}

async fn lifted(vm: &Vm, limit: f64) -> Result<(), Failure> {
    vm.declare("writer.toml", &writer("")).await?;
    let start = Instant::now();
    loop {
        let now = written(vm, SPAN / 4).await?;
        if now > limit * TOLERANCE {
            return Ok(());
        }
        check!(
            start.elapsed() < vm.limit(LIFTED),
            "without a limit it still writes {now:.0} bytes in a second, and with one of {limit:.0} no more"
        );
    }
}

/// Kernels with io.cost have `io.weight`, and others do not.
async fn weight(vm: &Vm) -> Result<(), Failure> {
    let file = component("weighted", "/usr/local/bin/test-idle", &[], "[resources]\nio_weight = 50");
    vm.declare("weighted.toml", &file).await?;
    let there = vm.run(&["test", "-e", &format!("{GROUPS}/neighbour/io.weight")], REACTION).await?;
    if there.success() {
        vm.wait_state("weighted", "ACTIVE", None, REACTION).await?;
        let weight = vm.read(&format!("{GROUPS}/weighted/io.weight")).await?;
        check!(weight.lines().any(|line| line == "default 50"), "with io_weight = 50 it says {weight:?}");
        return Ok(());
    }
    vm.wait_state("weighted", "FAILED", None, REACTION).await?;
    let detail = vm.status().await?.component("weighted")?.detail.clone().unwrap_or_default();
    check!(detail.contains("set io.weight"), "without io.weight in this kernel a component says {detail:?}");
    Ok(())
}
