//! A service with much memory.

use std::time::Duration;

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::client::Client;
use super::{KEPT, REACTION, STATEFUL, Upgraded, Written, pid_of, with_ballast};

/// For that many bytes to be written, hashed or read on an emulated processor.
const LARGE: Duration = Duration::from_secs(110);

pub async fn a_large_service(vm: &Vm) -> Result<(), Failure> {
    let mib: u64 = vm.amount(512, 64);
    // Memory and its images would not fit into the machine's memory together.
    vm.sh(&format!("mkfs.ext4 -q /dev/vda; mkdir -p {KEPT}; mount /dev/vda {KEPT}; rmdir {KEPT}/lost+found; chmod 700 {KEPT}"))
        .await?;
    with_ballast(vm, mib, LARGE).await?;
    let before = digest(vm).await?;
    let mut client = Client::connect(vm).await?;
    client.increment(vm).await?;
    let pid = pid_of(vm, STATEFUL).await?;

    let made: Written = json(vm, &["checkpoint", STATEFUL, "--json"]).await?;
    check!(made.bytes >= mib << 20, "{mib} MiB were written as {} bytes", made.bytes);
    vm.metric("large_checkpoint_size", "bytes", made.bytes as f64);
    vm.metric("large_checkpoint_time", "us", made.took_us as f64);
    vm.metric("large_checkpoint_frozen", "us", made.frozen_us.unwrap_or_default() as f64);
    check!(digest(vm).await? == before, "by a checkpoint its memory has changed");
    // There is no room for another one.
    vm.graphctl(&["checkpoint-rm", STATEFUL, &made.id]).await?;

    let done: Upgraded = json(vm, &["upgrade", STATEFUL, "--json"]).await?;
    check!(done.level == "checkpoint", "with {mib} MiB it was upgraded by {done:?}");
    vm.metric("large_move_gap", "us", done.gap_us.unwrap_or_default() as f64);
    check!(pid_of(vm, STATEFUL).await? == pid, "it is another process");
    check!(client.increment(vm).await? == 2, "on its connection it does not count on");
    let after = digest(vm).await?;
    check!(before == after && before.len() > 20, "its memory was {before} and is {after}");
    vm.graphctl_within(&["stop", STATEFUL], REACTION).await?;
    vm.sh(&format!("umount {KEPT}")).await.map(drop)
}

async fn json<T: serde::de::DeserializeOwned>(vm: &Vm, arguments: &[&str]) -> Result<T, Failure> {
    let text = vm.graphctl_within(arguments, LARGE).await?;
    serde_json::from_str(&text).map_err(|error| {
        Failure::supervisor(format!("graphctl {} printed {text}: {error}", arguments.join(" ")))
    })
}

/// What the service says of all the bytes that it has.
async fn digest(vm: &Vm) -> Result<String, Failure> {
    let said = vm.succeed(&["wget", "-qO-", "http://127.0.0.1:8081/digest"], LARGE).await?;
    Ok(said.trim().to_owned())
}
