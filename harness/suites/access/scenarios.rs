//! Process 1 with `--control-group`: who may connect, and who may change something.

mod group;

use crate::scenario;
use crate::scenario::Scenario;

use group::control_group_limits_who_connects;

/// All scenarios of the suite.
pub const SCENARIOS: [Scenario; 1] = [scenario!(
    control_group_limits_who_connects,
    "with a control group its members may ask, nobody else connects, and root alone changes things"
)];
