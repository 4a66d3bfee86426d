//! The supervisor as PID 1: it starts what is declared, keeps it running, and ends the machine in order.

mod control;
mod live;
mod power;
mod reaping;
mod startup;
mod unit_tests;

use std::time::Duration;

use crate::scenario;
use crate::scenario::{Scenario, Start};

use control::control_socket_functional;
use live::{
    file_dropped_in_acts_live, malformed_file_is_reported, removed_file_stops_the_component,
    three_hundred_components_run,
};
use power::{
    power_off_is_clean, reboot_resets_the_machine, sigkill_to_pid_1_is_harmless,
    sigsegv_to_pid_1_is_harmless, sigterm_to_pid_1_powers_off,
};
use reaping::{killed_service_comes_back, orphans_are_reaped};
use startup::{essential_services_running, no_failed_components, resolver_is_pid_1, test_components_loaded};
use unit_tests::unit_tests_pass_in_the_guest;

/// Three hundred processes are started one after the other by an emulated processor.
const MANY_BUDGET: Duration = Duration::from_secs(60);
/// Hundreds of tests, some of which try thousands of inputs.
const TESTS_BUDGET: Duration = Duration::from_secs(600);

/// A boot of its own with an empty disk, to see what is left on it.
const ON_DISK: Start = Start::with_disks(&[64]);

/// All scenarios of the suite.
pub const SCENARIOS: [Scenario; 17] = [
    scenario!(resolver_is_pid_1, "process 1 is graph-resolver, and components are its children"),
    scenario!(test_components_loaded, "every component file is loaded, none is refused"),
    scenario!(essential_services_running, "the services run their programs and serve clients"),
    scenario!(no_failed_components, "nothing failed, restarted or waits after the boot"),
    scenario!(control_socket_functional, "graphctl answers root and others, and only root changes things"),
    scenario!(
        killed_service_comes_back,
        "a service ended by SIGKILL is started again, and its dependents too"
    ),
    scenario!(orphans_are_reaped, "orphans that end leave no zombies, one or thirty at once"),
    scenario!(
        file_dropped_in_acts_live,
        "a new component file starts its component, a changed one restarts it"
    ),
    scenario!(removed_file_stops_the_component, "a removed component file ends its process and its cgroup"),
    scenario!(malformed_file_is_reported, "a broken file is named with its line, and everything else runs"),
    scenario!(three_hundred_components_run, "300 components at once all run, and status lists them all",
        start: Start::Clone, budget: MANY_BUDGET),
    scenario!(
        sigkill_to_pid_1_is_harmless,
        "kill -9 1 changes nothing: the kernel keeps it from a real process 1"
    ),
    scenario!(
        sigsegv_to_pid_1_is_harmless,
        "kill -SEGV 1 and its like change nothing, and faults of its own are caught"
    ),
    scenario!(power_off_is_clean, "graphctl poweroff ends services in order, writes all data and unmounts",
        start: ON_DISK),
    scenario!(sigterm_to_pid_1_powers_off, "SIGTERM to process 1 does the same", start: ON_DISK),
    scenario!(reboot_resets_the_machine, "graphctl reboot does the same and resets the machine", start: ON_DISK),
    Scenario {
        unit_tests: true,
        ..scenario!(unit_tests_pass_in_the_guest,
            "the tests beside the supervisor's code pass as programs of the guest, on its kernel",
            start: Start::Clone, budget: TESTS_BUDGET)
    },
];
