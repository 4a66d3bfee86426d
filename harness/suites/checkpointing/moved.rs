//! Upgrades by which the process itself goes on.

use crate::check;
use crate::failure::Failure;
use crate::load::Load;
use crate::vm::Vm;

use super::client::Client;
use super::{REACTION, STATEFUL, pid_of, upgrade};

const ECHO: &str = "test-echo-server";
const ECHO_TARGET: &str = "tcp:127.0.0.1:8080";

pub async fn clients_of_a_moved_service(vm: &Vm) -> Result<(), Failure> {
    let load = Load::begin(vm, "there", ECHO_TARGET, "--connections 20").await?;
    let coming =
        Load::begin(vm, "coming", ECHO_TARGET, "--connections 10 --requests-per-connection 3").await?;
    let mut gaps = Vec::new();
    for round in 1..=vm.amount(20, 2) {
        let done = upgrade(vm, ECHO).await?;
        check!(done.level == "checkpoint", "move {round} was {done:?}");
        gaps.push(done.gap_us.unwrap_or_default() as f64);
    }
    load.end_clean(vm, 20).await?;
    let coming = coming.end(vm).await?;
    coming.check_clean()?;
    check!(coming.counts.connections > 30, "nobody came while it was moved: {:?}", coming.counts);
    vm.samples("move_gap", "us", gaps);
    Ok(())
}

pub async fn fallback_strategy(vm: &Vm) -> Result<(), Failure> {
    no_criu(vm).await?;
    nothing_that_it_can(vm).await
}

/// Without CRIU the descriptors are passed on, and nobody notices.
async fn no_criu(vm: &Vm) -> Result<(), Failure> {
    let mut client = Client::connect(vm).await?;
    client.increment(vm).await?;
    let pid = pid_of(vm, STATEFUL).await?;
    let criu = vm.sh("command -v criu").await?.trim().to_owned();
    vm.sh(&format!("mv {criu} {criu}.away")).await?;
    let done = upgrade(vm, STATEFUL).await;
    vm.sh(&format!("mv {criu}.away {criu}")).await?;
    let done = done?;
    let why = done.passed_over.first();
    check!(
        done.level == "fd-passing"
            && why.is_some_and(|why| why.level == "checkpoint" && why.reason.to_lowercase().contains("criu")),
        "without CRIU the upgrade was {done:?}"
    );
    check!(client.increment(vm).await? == 2, "by passing descriptors it has lost its count");
    check!(pid_of(vm, STATEFUL).await? != pid, "it is the same process");
    Ok(())
}

/// One that can neither be written down nor hands over is restarted, and both reasons are told.
async fn nothing_that_it_can(vm: &Vm) -> Result<(), Failure> {
    let declaration =
        "[component]\nname = \"plain\"\nbinary = \"/usr/local/bin/test-idle\"\nhandoff = \"checkpoint\"\n";
    vm.declare("plain.toml", declaration).await?;
    vm.wait_state("plain", "ACTIVE", None, REACTION).await?;
    let pid = pid_of(vm, "plain").await?;
    let done = upgrade(vm, "plain").await?;
    let levels: Vec<_> = done.passed_over.iter().map(|why| why.level.as_str()).collect();
    check!(
        done.level == "restart" && levels == ["checkpoint", "fd-passing"],
        "what declares no checkpoints and does not hand over was upgraded by {done:?}"
    );
    check!(pid_of(vm, "plain").await? != pid, "it is the same process");
    vm.undeclare("plain.toml").await?;
    vm.wait_state("plain", "REMOVED", None, REACTION).await
}
