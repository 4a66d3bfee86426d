//! Upgrades of much: many connections, many in a row, much state.

use std::time::Duration;

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::versions::declare;
use super::{ECHO, ECHO_TARGET, REACTION, Upgraded, upgrade_within};
use crate::load::Load;

/// For one upgrade with thousands of connections under load, on an emulated processor.
const CROWDED: Duration = Duration::from_secs(30);

pub async fn a_hundred_upgrades_of_a_thousand_connections(vm: &Vm) -> Result<(), Failure> {
    let (connections, rounds) = (vm.planned("crowd_connections")?, vm.planned("crowd_upgrades")?);
    declare(vm, "", "[resources]\nfiles_max = 4096\n").await?;
    let load = Load::begin(vm, "crowd", ECHO_TARGET, &format!("--connections {connections}")).await?;
    let mut gaps = Vec::new();
    for round in 1..=rounds {
        let done = upgrade_within(vm, ECHO, CROWDED).await?;
        let all = Some(connections + 1);
        check!(done.level == "fd-passing" && done.descriptors == all, "upgrade {round} was {done:?}");
        gaps.push(done.gap()?);
    }
    let verdict = load.end_clean(vm, connections).await?;
    vm.metric("crowd_connections", "count", connections as f64);
    vm.metric("crowd_upgrades", "count", rounds as f64);
    vm.metric("crowd_requests", "count", verdict.counts.replies as f64);
    vm.samples("crowd_gap", "us", gaps);
    Ok(())
}

pub async fn thousands_of_idle_connections(vm: &Vm) -> Result<(), Failure> {
    let connections = vm.planned("idle_connections")?;
    declare(vm, "", "[resources]\nfiles_max = 16384\n").await?;
    let options = format!("--connections 0 --idle {connections} --drain 60");
    let load = Load::begin(vm, "idle", ECHO_TARGET, &options).await?;
    let done = upgrade_within(vm, ECHO, CROWDED).await?;
    check!(
        done.level == "fd-passing" && done.descriptors == Some(connections + 1),
        "the upgrade was {done:?}"
    );
    // Each of them is asked once more.
    let verdict = load.end_clean(vm, connections).await?;
    check!(verdict.counts.replies == 2 * connections, "{} replies came", verdict.counts.replies);
    vm.metric("idle_connections", "count", connections as f64);
    vm.metric("idle_gap", "us", done.gap()?);
    Ok(())
}

pub async fn a_large_state(vm: &Vm) -> Result<(), Failure> {
    const NAME: &str = "test-stateful-service";
    let mib: u64 = vm.amount(256, 64);
    vm.undeclare("test-stateful-service.toml").await?;
    vm.wait_state(NAME, "REMOVED", None, REACTION).await?;
    let declared = format!(
        "[component]\nname = \"{NAME}\"\nbinary = \"/usr/local/bin/{NAME}\"\n\
         args = [\"--listen\", \"127.0.0.1:8081\", \"--ballast-mib\", \"{mib}\"]\nhandoff = \"fd-passing\"\n\
         [provides]\ncapabilities = [\"test.stateful\"]\n\
         [requires]\ncapabilities = [\"network.configured\"]\n\
         [lifecycle]\nreadiness = \"notify\"\n"
    );
    vm.declare("test-stateful-service.toml", &declared).await?;
    vm.wait_state(NAME, "ACTIVE", None, CROWDED).await?;
    let before = digest(vm).await?;
    let done: Upgraded = upgrade_within(vm, NAME, CROWDED).await?;
    check!(
        done.level == "fd-passing" && done.state_bytes.is_some_and(|bytes| bytes >= mib << 20),
        "the upgrade was {done:?}"
    );
    let after = digest(vm).await?;
    check!(before == after && before.len() > 20, "the digest was {before} and is {after}");
    vm.metric("state_bytes", "bytes", done.state_bytes.unwrap_or(0) as f64);
    vm.metric("state_gap", "us", done.gap()?);
    Ok(())
}

/// What the service says of all the bytes that it has.
async fn digest(vm: &Vm) -> Result<String, Failure> {
    let said = vm.succeed(&["wget", "-qO-", "http://127.0.0.1:8081/digest"], CROWDED).await?;
    Ok(said.trim().to_owned())
}
