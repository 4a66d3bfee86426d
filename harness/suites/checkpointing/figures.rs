//! What rounds of memory save.

use std::time::Duration;

use serde_json::Value;

use crate::check;
use crate::failure::Failure;
use crate::measure::percentile;
use crate::vm::Vm;

use super::{checkpoint, read};

/// For the service to have its memory, on an emulated processor.
const LONG: Duration = Duration::from_secs(60);

/// The most that the time frozen with rounds may be of that without.
const BAR: f64 = 0.25;

/// A service with 256 MiB of which 1 MiB changes each second stands still for a quarter of the time at most when its memory is
/// copied before.
pub async fn time_frozen(vm: &Vm) -> Result<(), Failure> {
    let report: Value = read(vm, &["checkpoint", "--check", "--json"]).await?;
    let feature =
        report["features"].as_array().into_iter().flatten().find(|one| one["name"] == "dirty-tracking");
    if feature.is_none_or(|feature| feature["verdict"] != "supported") {
        return Err(Failure::skip(format!("the kernel does not tell which memory has changed: {feature:?}")));
    }
    // Of less memory rounds save less, but not nothing.
    let (turns, mib, bar) = vm.amount((3, 256, BAR), (1, 64, 1.0));
    let without = frozen(vm, turns, mib, 0).await?;
    let with = frozen(vm, turns, mib, 4).await?;
    let (plain, rounds) = (percentile(&without, 50), percentile(&with, 50));
    vm.samples("frozen_without_rounds", "us", without);
    vm.samples("frozen_with_rounds", "us", with);
    vm.metric("frozen_with_rounds_ratio", "ratio", rounds / plain);
    let is_less = rounds <= bar * plain;
    check!(
        is_less,
        "with rounds it was frozen for {rounds} us, without for {plain} us: more than {bar} of it"
    );
    Ok(())
}

/// Microseconds for which a service with so much memory is frozen, each time that it is written down.
async fn frozen(vm: &Vm, turns: usize, mib: u32, rounds: u32) -> Result<Vec<f64>, Failure> {
    let declaration = format!(
        "[component]\nname = \"large\"\nbinary = \"/usr/local/bin/test-stateful-service\"\n\
         args = [\"--listen\", \"127.0.0.1:8091\", \"--ballast-mib\", \"{mib}\", \"--dirty-kib\", \"1024\"]\n\
         [lifecycle]\nreadiness = \"notify\"\n[checkpoint]\nenabled = true\nrounds = {rounds}\n"
    );
    vm.declare("large.toml", &declaration).await?;
    vm.wait_state("large", "ACTIVE", None, LONG).await?;
    let mut samples = Vec::new();
    for _ in 0..turns {
        let made = checkpoint(vm, "large").await?;
        let Some(us) = made.frozen_us else {
            return Err(Failure::supervisor("it is not said how long it was frozen"));
        };
        samples.push(us as f64);
        vm.graphctl(&["checkpoint-rm", "large", &made.id]).await?;
    }
    vm.undeclare("large.toml").await?;
    vm.wait_state("large", "REMOVED", None, LONG).await?;
    Ok(samples)
}
