//! What the supervisor costs, and how quick it is, with everything that it can do in use.
//!
//! The metrics are judged against `harness/targets.toml`; here it is only looked after that they are of the real thing.

mod answers;
mod many;
mod memory;
mod peers;
mod starts;
mod support;
mod upgrades;

use std::time::Duration;

use crate::scenario;
use crate::scenario::{Scenario, Start};

use answers::{concurrent_operations, health_check_overhead, system_responsiveness};
use many::io_performance;
use memory::{memory_stability, memory_usage};
use peers::resource_comparison;
use starts::{component_startup_time, graph_resolution_performance};
use upgrades::hotswap_performance;

/// For one component to do what it is told, on an emulated processor.
const REACTION: Duration = Duration::from_secs(20);
/// For dozens of them.
const MANY: Duration = Duration::from_secs(60);
const LONG_BUDGET: Duration = Duration::from_secs(180);
/// For hundreds of cycles of all kinds.
const LONGEST_BUDGET: Duration = Duration::from_secs(600);

/// All scenarios of the suite.
pub const SCENARIOS: [Scenario; 10] = [
    scenario!(memory_usage,
        "the memory of process 1 with every feature in use",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(component_startup_time,
        "from a start to readiness, and what of that is the supervisor's own time",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(graph_resolution_performance,
        "fifty components that depend on each other are read, resolved and started",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(hotswap_performance,
        "upgrades under clients: how long they take, how long clients wait, and that none is dropped",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(health_check_overhead,
        "the processor's time that twenty probed services cost process 1",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(system_responsiveness,
        "how long the supervisor takes to answer, when nothing happens and under load",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(memory_stability,
        "restarts, upgrades, reloads and new declarations, again and again, leave no memory behind",
        start: Start::Clone, budget: LONGEST_BUDGET),
    scenario!(io_performance,
        "a hundred components that write logs at once lose no line, and process 1 keeps up",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(concurrent_operations,
        "many commands at once all do what they say, and nothing is left half done",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(resource_comparison,
        "the memory that process 1 has with everything active, and that of runit with twenty of its services",
        start: Start::Clone, budget: LONG_BUDGET),
];
