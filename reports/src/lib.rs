//! One stream of facts about a test run, and everything that is derived from it.
//!
//! The harness says what happened through [`event::EventWriter`]; `events.jsonl` is the only source. [`fold()`] turns the
//! stream into a [`RunSummary`], and every report is a pure function of that: [`report_json`], [`junit_xml`],
//! [`html::html`], [`markdown::markdown`], the
//! terminal's [`summary`] and the [`exit_code`]. So a report can be made again at any time, also after the harness was
//! killed ([`rebuild()`]).

pub mod event;
mod exit;
mod fold;
pub mod html;
pub mod judge;
pub mod junit;
pub mod markdown;
mod model;
mod rebuild;
pub mod report;
pub mod stats;
mod terminal;

pub use exit::{EXIT_FAILED, EXIT_INFRA, EXIT_PASSED, EXIT_USAGE, closing, exit_code};
pub use fold::fold;
pub use junit::junit_xml;
pub use model::{Attempt, Machine, RunSummary, Scenario};
pub use rebuild::{
    EVENTS_FILE, HTML_FILE, JUNIT_FILE, MARKDOWN_FILE, REPORT_FILE, RebuildError, rebuild, write_reports,
};
pub use report::report_json;
pub use terminal::{SummaryOptions, summary};

#[cfg(test)]
mod fixture;
