//! Isolation that holds: what a component may use, what it sees, what it may do, and what it leaves.
//!
//! What tries to get around a restriction is run twice in one scenario: with the restriction it is refused, and without it
//! succeeds. So no test passes because the attempt would not have worked anyway.

mod account;
mod controllers;
mod delegation;
mod disks;
mod escapes;
mod freezer;
mod groups;
mod hogs;
mod namespaces;
mod neighbours;
mod numbers;
mod slices;

use std::time::Duration;

use crate::failure::Failure;
use crate::scenario;
use crate::scenario::{Scenario, Start};
use crate::vm::Vm;

use account::ledger_names_what_is_left;
use controllers::missing_controller;
use delegation::nested_delegation;
use disks::io_hog;
use escapes::{
    escapes_by_forbidden_system_calls, escapes_by_landlock, escapes_by_namespaces, escapes_by_privileges,
    escapes_from_the_file_system,
};
use freezer::freeze_and_thaw;
use groups::{
    cgroup_availability, cgroup_cleanup, groups_with_zombies_and_the_stubborn, isolated_service_cgroups,
    limits_change_while_used, nested_groups_are_the_components,
};
use hogs::{descriptor_hog, file_hog, memory_limit_enforcement, process_limits, processor_hog};
use namespaces::namespace_isolation;
use neighbours::hogs_leave_their_neighbours_alone;
use numbers::{many_isolated_components_leave_nothing, resource_monitoring};
use slices::slice_limits;

/// For a component to start, be stopped or be noticed.
const REACTION: Duration = Duration::from_secs(5);
/// For hundreds of processes on an emulated processor.
const LONG_BUDGET: Duration = Duration::from_secs(120);
/// Where the groups of components are.
const GROUPS: &str = "/sys/fs/cgroup/graph";

/// All scenarios of the suite.
pub const SCENARIOS: [Scenario; 26] = [
    scenario!(
        cgroup_availability,
        "the supervisor's groups are there, with every controller that limits need"
    ),
    scenario!(isolated_service_cgroups, "memory.max, cpu.max and pids.max are what is declared"),
    scenario!(memory_limit_enforcement, "what takes too much memory is killed at its limit, and told so",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(
        namespace_isolation,
        "the pid, mount, uts and ipc namespaces and the host name are the component's own"
    ),
    scenario!(process_limits, "a fork bomb is held at its limit, and ends when it is stopped",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(cgroup_cleanup, "a group goes with the declaration, and what was made in it"),
    scenario!(resource_monitoring, "what is told of a component's use is what its group says"),
    scenario!(hogs_leave_their_neighbours_alone,
        "beside hogs of processors, processes, memory and files the supervisor answers and a neighbour is served as before",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(processor_hog, "what spins gets no more than its share, and a neighbour is answered",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(
        file_hog,
        "what writes files without end is held to its group's limit of memory, and a neighbour is answered"
    ),
    scenario!(io_hog,
        "what writes to a disk without end is held to io_max, which comes and goes while it runs",
        start: Start::with_disks(&[16])),
    scenario!(descriptor_hog, "what opens files without end is held at files_max"),
    scenario!(escapes_by_namespaces, "each way out of a namespace is closed by it, and open without"),
    scenario!(
        escapes_by_privileges,
        "each act that a privilege allows is refused without it, and done with it"
    ),
    scenario!(escapes_from_the_file_system, "what is not to be written, read or left is not, and is without"),
    scenario!(
        escapes_by_forbidden_system_calls,
        "a system call that is filtered is refused, and made without"
    ),
    scenario!(escapes_by_landlock, "files outside of what Landlock allows are refused, and not without"),
    scenario!(
        groups_with_zombies_and_the_stubborn,
        "a component with zombies, and one that ignores SIGTERM, go with their groups"
    ),
    scenario!(limits_change_while_used, "a limit that is lowered or raised holds for what runs, at once"),
    scenario!(
        nested_groups_are_the_components,
        "groups that a component makes in its own are limited and go with it"
    ),
    scenario!(missing_controller,
        "without a controller, what needs it is not started and says so, and everything else runs",
        start: Start::with_arguments(&["cgroup_disable=memory"])),
    scenario!(
        slice_limits,
        "what shares a slice has its limit together, which changes on what runs, and is told whose limit it was"
    ),
    scenario!(nested_delegation,
        "a supervisor of an ordinary user divides the group that it is given, and gets no more than that",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(
        freeze_and_thaw,
        "what is frozen uses no processor, loses no connection, answers after the thaw, and ends in order"
    ),
    scenario!(
        ledger_names_what_is_left,
        "a group, a mount, a file and a process that nobody owns are each named"
    ),
    scenario!(many_isolated_components_leave_nothing,
        "hundreds of short isolated components leave no group, mount, namespace or process",
        start: Start::Clone, budget: LONG_BUDGET),
];

/// A component file.
fn component(name: &str, program: &str, arguments: &[&str], more: &str) -> String {
    let arguments: Vec<String> = arguments.iter().map(|one| format!("{one:?}")).collect();
    let arguments = arguments.join(", ");
    format!("[component]\nname = \"{name}\"\nbinary = \"{program}\"\nargs = [{arguments}]\n{more}\n")
}

/// A hog of a kind, with more of its file.
fn hog(name: &str, kind: &str, more: &str) -> String {
    component(name, "/usr/local/bin/test-hog", &["--kind", kind], more)
}

/// A number that a file of a component's group holds; the one behind `key` where it has several.
async fn group_number(vm: &Vm, group: &str, file: &str, key: Option<&str>) -> Result<u64, Failure> {
    let text = vm.read(&format!("{GROUPS}/{group}/{file}")).await?;
    let line = match key {
        None => text.lines().next(),
        Some(key) => text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')),
    };
    line.and_then(|line| line.trim().parse().ok()).ok_or_else(|| {
        Failure::supervisor(format!("{file} of {group} has no number {}: {text}", key.unwrap_or("")))
    })
}
