//! The suites' code, each beside its machine and its components.

#[path = "../suites/access/scenarios.rs"]
pub mod access;
#[path = "../suites/basic/scenarios.rs"]
pub mod basic;
#[path = "../suites/checkpointing/scenarios.rs"]
pub mod checkpointing;
#[path = "../suites/examples/scenarios.rs"]
pub mod examples;
#[path = "../suites/graph-analysis/scenarios.rs"]
pub mod graph_analysis;
#[path = "../suites/health-checks/scenarios.rs"]
pub mod health_checks;
#[path = "../suites/hot-swap/scenarios.rs"]
pub mod hot_swap;
#[path = "../suites/isolation/scenarios.rs"]
pub mod isolation;
#[path = "../suites/kexec/scenarios.rs"]
pub mod kexec;
#[path = "../suites/kexec-jumps/scenarios.rs"]
pub mod kexec_jumps;
#[path = "../suites/performance/scenarios.rs"]
pub mod performance;
#[path = "../suites/reliability/scenarios.rs"]
pub mod reliability;
#[path = "../suites/supervision/scenarios.rs"]
pub mod supervision;
