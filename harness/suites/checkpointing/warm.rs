//! A service that takes its time to become ready, and does so once.

use std::time::{Duration, Instant};

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::client::Client;
use super::hard::flip_a_bit;
use super::{KEPT, REACTION, list, pid_of};

const NAME: &str = "slow";
const ADDRESS: &str = "127.0.0.1:8083";
/// What it spends before it begins to serve.
const DELAY: Duration = Duration::from_secs(4);
/// A start that is made from an image spends none of that. It may take at most this part of a start from the beginning, on the
/// same host: more would be no gain that is worth the room.
const WARM: f64 = 0.75;

fn declaration(more: &str) -> String {
    format!(
        "[component]\nname = \"{NAME}\"\nbinary = \"/bin/sh\"\n\
         args = [\"-c\", \"sleep {}; exec /usr/local/bin/test-stateful-service --listen {ADDRESS}\"]\n{more}\
         [requires]\ncapabilities = [\"network.configured\"]\n\
         [lifecycle]\nreadiness = \"notify\"\n\
         [checkpoint]\nenabled = true\nwarm_start = true\n",
        DELAY.as_secs()
    )
}

pub async fn warm_start(vm: &Vm) -> Result<(), Failure> {
    let begun = Instant::now();
    vm.declare("slow.toml", &declaration("")).await?;
    vm.wait_state(NAME, "ACTIVE", None, REACTION).await?;
    let cold = begun.elapsed();
    let first = pid_of(vm, NAME).await?;
    let image = image(vm, 1).await?;
    // What it learns later is not in the image.
    let mut client = Client::connect_to(vm, ADDRESS).await?;
    check!(client.increment(vm).await? == 1, "it has counted before it was asked to");
    let (warm, told) = start(vm).await?;
    check!(told.contains(&image), "it is not said to be made from {image}: {told}");
    check!(pid_of(vm, NAME).await? == first, "it is not the process of the image");
    let counted = Client::connect_to(vm, ADDRESS).await?.count(vm).await?;
    check!(counted == 0, "the service that had just become ready has counted {counted}");
    vm.metric("cold_start", "s", cold.as_secs_f64());
    vm.metric("warm_start", "s", warm.as_secs_f64());
    vm.metric("warm_to_cold_start", "ratio", warm.as_secs_f64() / cold.as_secs_f64());
    check!(cold >= DELAY, "a start with {DELAY:?} of delay took {cold:.2?}");
    check!(warm <= cold.mul_f64(WARM), "a warm start took {warm:.2?}, and a cold one {cold:.2?}");

    vm.step("a damaged image", damaged(vm, &image)).await?;
    if vm.amount(true, false) {
        vm.step("another declaration", another_declaration(vm, &image, cold)).await?;
    }
    vm.undeclare("slow.toml").await?;
    vm.wait_state(NAME, "REMOVED", None, REACTION).await
}

/// It is stopped and started. How long the start took, and what the journal says of it.
async fn start(vm: &Vm) -> Result<(Duration, String), Failure> {
    vm.graphctl_within(&["stop", NAME], REACTION).await?;
    let since = vm.status().await?.revision;
    let begun = Instant::now();
    vm.graphctl_within(&["start", NAME], REACTION).await?;
    vm.wait_state(NAME, "ACTIVE", Some(since), REACTION).await?;
    let took = begun.elapsed();
    Ok((took, vm.graphctl(&["events", NAME, "--since", &since.to_string()]).await?))
}

/// The newest of so many images, once it is there and the service's start is over.
async fn image(vm: &Vm, count: usize) -> Result<String, Failure> {
    let there =
        format!("[ $(graphctl checkpoint-list {NAME} --json | grep -o original_pid | wc -l) -ge {count} ]");
    vm.until("it is written down", &there, REACTION).await?;
    vm.wait_settled(REACTION).await?;
    let newest = list(vm, NAME).await?.first().and_then(|one| one["id"].as_str().map(str::to_owned));
    newest.ok_or_else(|| Failure::supervisor("what was listed is gone"))
}

/// It is started as if there was none, with the reason.
async fn damaged(vm: &Vm, image: &str) -> Result<(), Failure> {
    flip_a_bit(vm, &format!("{KEPT}/{NAME}/{image}/pages-1.img")).await?;
    let (took, told) = start(vm).await?;
    check!(told.contains("pages-1.img"), "of a damaged image it says {told}");
    check!(took >= DELAY, "from a damaged image it was started in {took:.2?}");
    check!(Client::connect_to(vm, ADDRESS).await?.count(vm).await? == 0, "it remembers something");
    Ok(())
}

/// The image of the one before is not used; there is another one then.
async fn another_declaration(vm: &Vm, image: &str, cold: Duration) -> Result<(), Failure> {
    let before = list(vm, NAME).await?.len();
    let since = vm.status().await?.revision;
    vm.declare("slow.toml", &declaration("[environment]\nvariables = [\"KIND=other\"]\n")).await?;
    let known = format!("graphctl events {NAME} --since {since} | grep -q .");
    vm.until("the file was read", &known, REACTION).await?;
    let (took, told) = start(vm).await?;
    check!(!told.contains(image), "another declaration is started from {image}: {told}");
    check!(took >= DELAY, "another declaration was started in {took:.2?}");
    let next = self::image(vm, before + 1).await?;
    let (took, told) = start(vm).await?;
    check!(told.contains(&next), "it is not said to be made from {next}: {told}");
    check!(took <= cold.mul_f64(WARM), "a warm start with another declaration took {took:.2?}");
    let pid = pid_of(vm, NAME).await?;
    let environment = vm.sh(&format!("tr '\\0' '\\n' < /proc/{pid}/environ")).await?;
    check!(environment.lines().any(|line| line == "KIND=other"), "its environment is {environment}");
    Ok(())
}
