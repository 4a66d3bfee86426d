//! Systems that are meant to be copied: each is booted from its own folder and has to do what it is for.

mod linux_system;

use std::time::Duration;

use crate::scenario;
use crate::scenario::{Scenario, Start};

use linux_system::linux_system_boots;

/// For a boot, a lease and a login on an emulated processor.
const LONG_BUDGET: Duration = Duration::from_secs(90);

/// All scenarios of the suite.
pub const SCENARIOS: [Scenario; 1] = [scenario!(linux_system_boots,
    "devices, network, log and logins of the small Linux system work, and logins end and come back with the network",
    start: Start::COLD, budget: LONG_BUDGET)];
