//! Into other kernels for real: across versions, twice, from a disk, and when it goes wrong.

mod across;
mod broken;
mod damaged;
mod disk;
mod killed;
mod outside;
mod power;
mod services;

use std::time::Duration;

use crate::scenario;
use crate::scenario::{Scenario, Start};

use across::another_kernel_and_back;
use broken::{a_kernel_that_hangs, a_kernel_that_panics};
use damaged::a_damaged_image;
use disk::images_on_a_disk;
use killed::killed_in_each_phase;
use power::power_cut_in_each_phase;

/// For a jump and what comes after it.
const JUMP_BUDGET: Duration = Duration::from_secs(240);
/// For a boot after each of five cuts.
const CUTS_BUDGET: Duration = Duration::from_secs(600);

/// A disk that is there before process 1, as an initrd has it, and on which the images lie.
const DISK: Start = Start::Cold {
    disks_mb: &[256],
    arguments: &["yakiros.mount=/dev/vda:/var/lib/graph", "yakiros.checkpoint=/var/lib/graph/jump"],
};

/// All scenarios of the suite.
pub const SCENARIOS: [Scenario; 7] = [
    scenario!(another_kernel_and_back,
        "services and their connections, inside, between two and with clients outside of the guest, go on under another kernel and back",
        start: Start::with_disks(&[256]), budget: JUMP_BUDGET),
    scenario!(images_on_a_disk,
        "what lies on a disk is found by the next kernel; an open file in memory is named before anything is done",
        start: DISK, budget: JUMP_BUDGET),
    scenario!(a_damaged_image,
        "a service whose image is damaged on the way is started anew, with the reason, and all others go on",
        start: DISK, budget: JUMP_BUDGET),
    scenario!(power_cut_in_each_phase,
        "wherever the power goes, everything is started anew, and nothing half made is believed",
        start: DISK, budget: CUTS_BUDGET),
    scenario!(killed_in_each_phase,
        "whoever is killed on the way leaves nothing closed: services and their clients go on",
        start: Start::Clone, budget: CUTS_BUDGET),
    scenario!(a_kernel_that_panics, "a kernel that cannot start is shown with what it said",
        start: Start::Clone, budget: JUMP_BUDGET),
    scenario!(a_kernel_that_hangs, "a kernel that starts nothing is shown as one that does not answer",
        start: Start::Clone, budget: JUMP_BUDGET),
];
