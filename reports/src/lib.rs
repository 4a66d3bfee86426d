//! One stream of facts about a test run, and everything that is derived from it.
//!
//! The harness says what happened through [`event::EventWriter`]; `events.jsonl` is the only source. Reports are
//! folds over it, so a report can be rebuilt at any time, also after the harness was killed.

pub mod event;
