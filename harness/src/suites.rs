//! The suites' code, each beside its machine and its components.

#[path = "../suites/basic/scenarios.rs"]
pub mod basic;
