//! Starts: of one component after the other, and of fifty that depend on each other.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::support::{changes, idle, own_time};
use super::{MANY, REACTION};
use crate::check;
use crate::failure::Failure;
use crate::measure::slowness;
use crate::vm::Vm;

/// Of the graph that is resolved: so many layers of so many components, each of which needs so many of the layer below.
const LAYERS: usize = 5;
const IN_LAYER: usize = 10;
const NEEDS: usize = 3;
/// How often all of it is resolved anew.
const TIMES: u32 = 20;
const MS: f64 = 1e6;

pub async fn component_startup_time(vm: &Vm) -> Result<(), Failure> {
    let starts = vm.amount(100, 20);
    let ready = "[component]\nname = \"starter\"\nbinary = \"/usr/local/bin/test-ready\"\nargs = [\"--socket\"]\n\
                 [lifecycle]\nreadiness = \"notify\"\n";
    vm.declare("starter.toml", ready).await?;
    vm.wait_state("starter", "ACTIVE", None, REACTION).await?;
    let before = slowness(vm).await?;
    let (since, used) = (vm.status().await?.revision, own_time(vm).await?);
    let script = format!(
        "for i in $(seq {starts}); do graphctl stop starter > /dev/null; graphctl start starter > /dev/null; done"
    );
    vm.succeed(&["/bin/sh", "-euc", &script], MANY * 2).await?;
    let used = own_time(vm).await? - used;
    let slowness = before.max(slowness(vm).await?);
    let (mut begun, mut times) = (None, Vec::new());
    let own = changes(vm, since).await?.into_iter().filter(|change| change.component == "starter");
    for change in own {
        match (change.to.as_str(), begun) {
            ("STARTING", _) => begun = Some(change.time_ms),
            ("ACTIVE", Some(from)) => times.push((change.time_ms - from) as f64),
            _ => {}
        }
    }
    check!(times.len() == starts, "of {starts} starts the journal tells of {}", times.len());
    // With the stop before it and the two requests: no start has less.
    let own = used / MS / starts as f64;
    vm.metric("startup_own_time", "ms", own);
    vm.metric("startup_own_time_today", "ms", own / slowness);
    vm.samples("startup", "ms", times);
    Ok(())
}

pub async fn graph_resolution_performance(vm: &Vm) -> Result<(), Failure> {
    let before = own_time(vm).await?;
    let since = vm.status().await?.revision;
    vm.declare_all(&graph()).await?;
    vm.wait_state(&name(LAYERS, IN_LAYER), "INACTIVE", None, MANY).await?;
    vm.wait_settled(MANY).await?;
    let status = vm.status().await?;
    let waiting = status.components.iter().filter(|one| one.name.starts_with("layer-"));
    check!(waiting.clone().count() == LAYERS * IN_LAYER, "not all of the graph is declared");
    check!(waiting.clone().all(|one| one.state == "INACTIVE"), "something runs without what it needs");
    // Reading fifty files is in it, and two answers.
    let read = own_time(vm).await? - before;

    let before = own_time(vm).await?;
    vm.succeed(
        &["/bin/sh", "-euc", &format!("for i in $(seq {TIMES}); do graphctl resolve > /dev/null; done")],
        MANY,
    )
    .await?;
    let resolved = (own_time(vm).await? - before) / f64::from(TIMES);

    let gate = "[component]\nname = \"gate\"\nbinary = \"/bin/true\"\ntype = \"oneshot\"\n[provides]\ncapabilities = [\"gate\"]\n";
    let before = own_time(vm).await?;
    vm.declare("gate.toml", gate).await?;
    vm.wait_state(&name(LAYERS, IN_LAYER), "ACTIVE", None, MANY).await?;
    vm.wait_settled(MANY).await?;
    let started = own_time(vm).await? - before;
    let all = changes(vm, since).await?;
    let mut active = HashMap::new();
    for change in all.iter().filter(|change| change.to == "ACTIVE" || change.to == "DONE") {
        active.insert(change.component.as_str(), change.time_ms);
    }
    let from = active.get("gate").copied().unwrap_or_default();
    let layers = || active.iter().filter(|(name, _)| name.starts_with("layer-"));
    check!(layers().count() == LAYERS * IN_LAYER, "{} of the graph are ACTIVE", layers().count());
    in_order(&active)?;
    let last = layers().map(|(_, time)| *time).max().unwrap_or_default();
    let slowness = slowness(vm).await?;
    vm.metric("graph_read_50", "ms", read / MS);
    vm.metric("graph_resolution", "ms", resolved / MS);
    vm.metric("graph_resolution_today", "ms", resolved / MS / slowness);
    vm.metric("graph_start_50_own_time", "ms", started / MS);
    vm.metric("graph_start_50", "ms", last.saturating_sub(from) as f64);
    Ok(())
}

/// Nothing was ACTIVE before what it needs.
fn in_order(active: &HashMap<&str, u64>) -> Result<(), Failure> {
    for layer in 2..=LAYERS {
        for number in 1..=IN_LAYER {
            let of = |layer, number| active.get(name(layer, number).as_str()).copied().unwrap_or_default();
            let own = of(layer, number);
            let early = below(number).into_iter().any(|below| of(layer - 1, below) > own);
            check!(!early, "{} was ACTIVE before what it needs", name(layer, number));
        }
    }
    Ok(())
}

fn name(layer: usize, number: usize) -> String {
    format!("layer-{layer}-{number}")
}

/// Which of the layer below one needs.
fn below(number: usize) -> Vec<usize> {
    (0..NEEDS).map(|step| (number + step * NEEDS) % IN_LAYER + 1).collect()
}

fn graph() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for layer in 1..=LAYERS {
        for number in 1..=IN_LAYER {
            let mut needs = String::new();
            if layer == 1 {
                needs.push_str("\"gate\"");
            } else {
                for below in below(number) {
                    let _infallible = write!(needs, "\"{}\", ", name(layer - 1, below));
                }
            }
            let own = name(layer, number);
            let more =
                format!("[provides]\ncapabilities = [\"{own}\"]\n[requires]\ncapabilities = [{needs}]\n");
            all.push(idle(&own, &more));
        }
    }
    all
}
