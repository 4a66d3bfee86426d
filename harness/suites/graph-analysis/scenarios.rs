//! Questions about the graph, answered with the known numbers of a known graph.
//!
//! ```text
//! layer 0      1         2              3               4          5               6
//! kernel ─┬─ storage ─┬─ logger-a ──┬─ test-database ─ test-web ─ test-frontend ─ test-monitor
//!         └─ network ─┼─ logger-b ──┴─ test-archive
//!                     └─ test-cache ───────────────────┘
//! ```
//!
//! Both loggers provide `system.log`; only logger-b provides `log.archive`.

mod commands;
mod cycles;
mod dot;
mod numbers;
mod outputs;
mod trees;
mod validation;

use std::time::Duration;

use serde_json::Value;
use yakiros_guest::protocol::ExitStatus;

use crate::check;
use crate::failure::Failure;
use crate::scenario;
use crate::scenario::{Scenario, Start};
use crate::vm::{Status, Vm};

use commands::graph_commands_available;
use cycles::specific_cycles;
use numbers::{complexity_analysis, graph_metrics};
use outputs::output_formats;
use trees::{dependency_trees, reverse_dependencies};
use validation::{clean_graph_validation, graph_validation};

/// The specification's bar for an answer under load; for a command that asks for the graph too.
const ANSWER: Duration = Duration::from_secs(2);
/// For a component to start, be stopped or be noticed.
const REACTION: Duration = Duration::from_secs(5);
/// Components that are declared, and the built-in one.
const COMPONENTS: usize = 11;
/// A hundred programs are started one after the other by an emulated processor.
const LONG_BUDGET: Duration = Duration::from_secs(60);

/// All scenarios of the suite.
pub const SCENARIOS: [Scenario; 9] = [
    scenario!(graph_commands_available, "every question is answered, also to nobody; wrong ones are refused with a hint",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(
        clean_graph_validation,
        "a sound graph has no errors, and one note about an optional capability"
    ),
    scenario!(
        graph_metrics,
        "components, dependencies, depth and critical path are those of the known graph"
    ),
    scenario!(
        specific_cycles,
        "test-cycle-a and test-cycle-b are named, all others run, and another provider ends the cycle"
    ),
    scenario!(graph_validation, "each kind of error is found by name, and nothing once it is mended"),
    scenario!(
        dependency_trees,
        "the whole tree and the shortest path of a component, with what is repeated or missing"
    ),
    scenario!(reverse_dependencies, "who depends on what; a simulated removal is what a real one then does"),
    scenario!(complexity_analysis, "a chain of a hundred more services is measured, ordered and walked exactly",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(
        output_formats,
        "DOT has every component, capability and edge, and JSON is JSON, whatever the names"
    ),
];

/// A service, as a component file.
fn service(name: &str, provides: &[&str], requires: &[&str]) -> String {
    format!(
        "[component]\nname = \"{name}\"\nbinary = \"/usr/local/bin/test-idle\"\n\
         [provides]\ncapabilities = {provides:?}\n[requires]\ncapabilities = {requires:?}\n"
    )
}

/// Runs graphctl, which has to end with this code, and gives what it printed.
async fn ends_with(vm: &Vm, code: i32, arguments: &[&str]) -> Result<String, Failure> {
    let output = vm.run(&[&["graphctl"], arguments].concat(), ANSWER).await?;
    let (text, said, command) = (output.text(), output.error_text(), arguments.join(" "));
    let status = output.status;
    check!(
        status == ExitStatus::Code(code),
        "`graphctl {command}` ended with {status:?}, not {code}: {text}{said}"
    );
    Ok(text + &said)
}

/// The same with `--json`.
async fn json_with(vm: &Vm, code: i32, arguments: &[&str]) -> Result<Value, Failure> {
    let text = ends_with(vm, code, &[arguments, &["--json"]].concat()).await?;
    let command = arguments.join(" ");
    let value: Value = serde_json::from_str(&text).map_err(|error| {
        Failure::supervisor(format!("`graphctl {command} --json` printed no JSON: {error}: {text}"))
    })?;
    check!(value["version"] == 1, "`graphctl {command} --json` has no version: {text}");
    Ok(value)
}

/// A command printed exactly this.
fn same(what: &str, seen: &str, expected: &str) -> Result<(), Failure> {
    check!(seen == expected, "{what} printed\n{seen}instead of\n{expected}");
    Ok(())
}

/// Texts of a list in JSON; of its objects the given key.
fn texts(list: &Value, key: Option<&str>) -> Vec<String> {
    let text = |value: &Value| key.map_or(value, |key| &value[key]).as_str().unwrap_or("?").to_owned();
    list.as_array().into_iter().flatten().map(text).collect()
}

/// Every component of `before` is in the same state in the same process.
async fn undisturbed(vm: &Vm, before: &Status) -> Result<(), Failure> {
    let now = vm.status().await?;
    for was in &before.components {
        let is = now.component(&was.name)?;
        check!(
            is.state == was.state && is.pid == was.pid,
            "{} was {} as {:?} and is {} as {:?}",
            was.name,
            was.state,
            was.pid,
            is.state,
            is.pid
        );
    }
    Ok(())
}
