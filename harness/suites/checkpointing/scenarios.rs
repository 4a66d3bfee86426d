//! Checkpoints, made by the CRIU of the guest of services that have clients.

mod client;
mod crash_points;
mod elsewhere;
mod figures;
mod foreign;
mod full;
mod hard;
mod kept;
mod killed;
mod large;
mod moved;
mod namespaces;
mod power;
mod refused;
mod state;
mod support;
mod tripwire;
mod warm;

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::check;
use crate::failure::Failure;
use crate::scenario;
use crate::scenario::{Scenario, Start};
use crate::vm::{COMPONENTS, Vm};

use crash_points::crash_points_of_the_supervisor;
use elsewhere::another_machine;
use figures::time_frozen;
use foreign::{a_kernel_that_lacks_something, another_criu};
use full::a_full_disk;
use hard::{a_damaged_image_is_refused, many_cycles_lose_nothing, whatever_a_process_has};
use kept::{checkpoint_cleanup, checkpoint_directories, checkpoint_listing, checkpoint_metadata};
use killed::{
    criu_killed_at_each_step_of_a_checkpoint, criu_killed_at_each_step_of_a_move,
    criu_killed_at_each_step_of_a_restore, the_worker_killed_at_each_step,
};
use large::a_large_service;
use moved::{clients_of_a_moved_service, fallback_strategy};
use namespaces::namespaces_and_limits;
use power::the_power_goes_at_each_step;
use refused::what_is_not_made_again;
use state::{manual_checkpoint, state_preservation};
use support::{checkpoint_configuration, checkpoint_support, criu_availability};
use warm::warm_start;

/// For a checkpoint or a restore of a small service on an emulated processor, and for what follows from it.
const REACTION: Duration = Duration::from_secs(20);
/// For dozens of them.
const LONG_BUDGET: Duration = Duration::from_secs(180);

/// The component that most of this is about.
const STATEFUL: &str = "test-stateful-service";
/// The same in the file of its declaration.
const STATEFUL_FILE: &str = "test-stateful-service.toml";
/// Where checkpoints are kept.
const KEPT: &str = "/var/lib/graph/checkpoints";

/// A disk that is there before process 1, on which checkpoints are kept.
const DISK: Start = Start::Cold { disks_mb: &[256], arguments: &["yakiros.mount=/dev/vda:/var/lib/graph"] };

/// All scenarios of the suite.
pub const SCENARIOS: [Scenario; 29] = [
    scenario!(
        criu_availability,
        "the CRIU that is there is found with its version, and one that is not is said to be missing"
    ),
    scenario!(
        checkpoint_support,
        "what checkpoints can hold is told feature by feature, as the kernel has it, and kept for the next time"
    ),
    scenario!(
        checkpoint_configuration,
        "the keys of a declaration are obeyed, and bad ones are refused with their lines"
    ),
    scenario!(
        checkpoint_directories,
        "a checkpoint is root's alone, whole or not there, and what was left half made goes"
    ),
    scenario!(
        manual_checkpoint,
        "a service runs on when it is written down, and goes on from there when it is asked to"
    ),
    scenario!(
        checkpoint_listing,
        "checkpoints are listed newest first, by component, with the room that they take"
    ),
    scenario!(
        state_preservation,
        "memory, counters, an open file and an established connection live on in the same process, moved"
    ),
    scenario!(checkpoint_metadata, "what is said of a checkpoint is what it is, byte by byte"),
    scenario!(
        checkpoint_cleanup,
        "checkpoints go one by one, by age, by number and by room, the oldest first, and none that is in use"
    ),
    scenario!(
        fallback_strategy,
        "where a process cannot be written down it is upgraded in the next best way, and told why"
    ),
    scenario!(clients_of_a_moved_service,
        "clients that are connected, and those that come meanwhile, notice nothing but a pause",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(a_damaged_image_is_refused,
        "a bit that is flipped in any file of a checkpoint is found before anything is made from it",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(whatever_a_process_has,
        "threads, children, namespaces, limits and files that are gone come back with the service",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(what_is_not_made_again,
        "what no checkpoint can bring back is named before anything is frozen, and the service runs on",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(a_full_disk,
        "without room, or where it is taken in the middle, a checkpoint is refused, and the service runs on",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(a_large_service,
        "a service with half a gibibyte of memory is written down and moved, each byte as it was",
        start: Start::with_disks(&[1536]), budget: LONG_BUDGET),
    scenario!(criu_killed_at_each_step_of_a_checkpoint,
        "CRIU is killed at each step of a checkpoint: the service runs on, and nothing is left",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(criu_killed_at_each_step_of_a_move,
        "CRIU is killed at each step of a move: the next way is gone, or the service is started anew",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(criu_killed_at_each_step_of_a_restore,
        "CRIU is killed at each step of a restore: the service is started anew, and is there once",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(the_worker_killed_at_each_step,
        "who makes a checkpoint, or uses one, is killed at each step: one process serves, and nothing is left",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(crash_points_of_the_supervisor,
        "the supervisor pauses, or is to execute itself again, at each step of a checkpoint, a move and a restore",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(another_criu,
        "a CRIU that is none, says something else, is missing or older than its images is named as that",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(a_kernel_that_lacks_something,
        "a module that the kernel lacks is named before anything is frozen",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(warm_start,
        "a slow service starts from what it had come to, as long as that is whole and its declaration is the same",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(another_machine,
        "a service goes on in another machine with what it remembers, unless what is brought there cannot be used",
        start: Start::Clone, budget: LONG_BUDGET, guests: 2),
    scenario!(namespaces_and_limits,
        "file systems, namespaces, rights and limits of an isolated service are after a move what they were before",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(the_power_goes_at_each_step,
        "wherever the power goes, what is listed is whole, the older ones are as they were, and the rest can be removed",
        start: DISK, budget: Duration::from_secs(600)),
    scenario!(time_frozen,
        "a large service stands still for less time, of 256 MiB for a quarter, when its memory is copied before",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(many_cycles_lose_nothing,
        "a service that is moved again and again has lost nothing, and neither has the machine",
        start: Start::Clone, budget: Duration::from_secs(1200)),
];

/// What `graphctl checkpoint --json` says.
#[derive(Debug, Deserialize)]
struct Written {
    id: String,
    bytes: u64,
    frozen_us: Option<u64>,
    took_us: u64,
}

/// What `graphctl restore --json` says.
#[derive(Debug, Deserialize)]
struct Restored {
    id: Option<String>,
    took_us: Option<u64>,
    passed_over: Option<String>,
    pid: Option<i32>,
}

/// What `graphctl upgrade --json` says.
#[derive(Debug, Deserialize)]
struct Upgraded {
    level: String,
    gap_us: Option<u64>,
    passed_over: Vec<PassedOver>,
}

#[derive(Debug, Deserialize)]
struct PassedOver {
    level: String,
    reason: String,
}

/// Has the service of this suite so much memory that it fills with something; it is another process then.
async fn with_ballast(vm: &Vm, mib: u64, limit: Duration) -> Result<(), Failure> {
    let declared = vm.read(&format!("{COMPONENTS}/{STATEFUL_FILE}")).await?;
    let larger =
        declared.replace("127.0.0.1:8081\"", &format!("127.0.0.1:8081\", \"--ballast-mib\", \"{mib}\""));
    check!(larger != declared, "its arguments are others: {declared}");
    vm.declare(STATEFUL_FILE, &larger).await?;
    vm.wait_settled(REACTION).await?;
    vm.graphctl_within(&["restart", STATEFUL], limit).await?;
    vm.wait_state(STATEFUL, "ACTIVE", None, limit).await
}

async fn checkpoint(vm: &Vm, name: &str) -> Result<Written, Failure> {
    read(vm, &["checkpoint", name, "--json"]).await
}

async fn restore(vm: &Vm, name: &str, id: &str) -> Result<Restored, Failure> {
    read(vm, &["restore", name, id, "--json"]).await
}

async fn upgrade(vm: &Vm, name: &str) -> Result<Upgraded, Failure> {
    read(vm, &["upgrade", name, "--json"]).await
}

/// What a graphctl command that succeeds says in JSON.
async fn read<T: serde::de::DeserializeOwned>(vm: &Vm, arguments: &[&str]) -> Result<T, Failure> {
    let text = vm.graphctl_within(arguments, REACTION).await?;
    serde_json::from_str(&text).map_err(|error| {
        Failure::supervisor(format!("graphctl {} printed {text}: {error}", arguments.join(" ")))
    })
}

/// The same of one that may fail: its exit code, what it says, and what it prints as an error.
async fn attempt(vm: &Vm, arguments: &[&str]) -> Result<(bool, String, String), Failure> {
    let output = vm.run(&[&["graphctl"], arguments].concat(), REACTION).await?;
    Ok((output.success(), output.text(), output.error_text()))
}

/// What is kept of a component, newest first.
async fn list(vm: &Vm, name: &str) -> Result<Vec<Value>, Failure> {
    let all: Value = read(vm, &["checkpoint-list", name, "--json"]).await?;
    all["checkpoints"]
        .as_array()
        .cloned()
        .ok_or_else(|| Failure::supervisor(format!("checkpoint-list printed {all}")))
}

async fn pid_of(vm: &Vm, name: &str) -> Result<i32, Failure> {
    vm.status().await?.component(name)?.running_pid()
}
