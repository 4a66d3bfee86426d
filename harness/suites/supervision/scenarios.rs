//! The whole life of services, beyond what a first look shows: a file for each kind of promise.

mod readiness;

use std::time::Duration;

use crate::scenario;
use crate::scenario::Scenario;

use readiness::{readiness_methods, readiness_timeouts};

/// For a component to start, be stopped or be noticed.
const REACTION: Duration = Duration::from_secs(5);

/// All scenarios of the suite.
pub const SCENARIOS: [Scenario; 2] = [
    scenario!(
        readiness_methods,
        "each method holds a component and its dependents back until it reports, and a stale file is no report"
    ),
    scenario!(
        readiness_timeouts,
        "by each method, what does not report in time is FAILED with the limit named, and its process is gone"
    ),
];
