//! Another kernel: what is looked at before, everything up to the jump and back, and the jump.

mod commands;
mod errors;
pub mod jump;
mod readiness;
pub mod report;
pub mod trial;

use std::time::Duration;

use crate::scenario;
use crate::scenario::{Scenario, Start};
use crate::vm::{BOOT_INITRD, BOOT_KERNEL};

use commands::{argument_parsing, kexec_commands_available, safety_mechanisms};
use errors::error_handling;
use jump::{against_a_cold_boot, real_same_kernel};
use readiness::{kernel_validation, kexec_prerequisites, system_readiness};
use trial::{
    a_failure_in_the_middle, checkpoint_integration, images_on_a_disk, interrupted, nothing_to_go_on,
    performance, seven_phase_sequence,
};

/// For a command that only looks: CRIU answers four questions under emulation.
pub const LOOK: Duration = Duration::from_secs(20);
/// For everything up to the jump and back.
pub const TRIAL: Duration = Duration::from_secs(40);
/// For several of those.
const LONG_BUDGET: Duration = Duration::from_secs(180);
/// For three jumps, and cold boots between them.
const JUMPS_BUDGET: Duration = Duration::from_secs(300);
/// For a component to answer, or to be written down.
const REACTION: Duration = Duration::from_secs(10);
/// Where checkpoints are kept.
pub const KEPT: &str = "/var/lib/graph/checkpoints";
/// Says whether a kernel is loaded.
const LOADED: &str = "/sys/kernel/kexec_loaded";

/// All scenarios of the suite.
pub const SCENARIOS: [Scenario; 16] = [
    scenario!(kexec_commands_available, "every option is there, with its help and its examples"),
    scenario!(system_readiness, "the machine can load a kernel and write processes down, and says so"),
    scenario!(kernel_validation, "what is no kernel, or a part of one, or no initrd, is refused by name",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(kexec_prerequisites, "what is missing is named with what would help",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(nothing_to_go_on, "with nothing that goes on a kernel is loaded and taken back all the same",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(seven_phase_sequence,
        "ten services are written down, the kernel is loaded with them and taken back, and nobody notices",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(checkpoint_integration, "what is kept is listed and named in a manifest, and a dry run leaves it alone",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(images_on_a_disk, "with a base on a disk nothing goes along, and nothing is left there",
        start: Start::with_disks(&[256]), budget: LONG_BUDGET),
    scenario!(a_failure_in_the_middle, "a service that cannot be written down is named, and all before it is undone",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(interrupted, "SIGINT in the middle undoes what was done",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(performance, "a dry run with ten services takes ten seconds at most; each phase's time is reported",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(real_same_kernel,
        "ten services go on under the next kernel: the same processes, with all that they remember",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(against_a_cold_boot,
        "from the command to the last service's answer takes two cold boots of the same machine at most, with all state kept",
        start: Start::Clone, budget: JUMPS_BUDGET, guests: 2),
    scenario!(safety_mechanisms, "a jump is confirmed on a terminal, or forced, and otherwise refused",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(
        argument_parsing,
        "options go anywhere, and those that make no sense together are a usage error"
    ),
    scenario!(error_handling, "an ordinary user, too little memory or room, no CRIU and no supervisor are named",
        start: Start::Clone, budget: LONG_BUDGET),
];

/// A dry run with the guest's own kernel and initrd.
const OWN: [&str; 5] = ["kexec", "--dry-run", BOOT_KERNEL, "--initrd", BOOT_INITRD];
