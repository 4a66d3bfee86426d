//! Questions about the graph as a whole. The supervisor gives the graph, page by page; all the
//! work is done here.

pub mod arguments;
mod text;

use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Value, json};
use yakiros_core::analysis::{Analysis, Finding, Severity, Unknown};
use yakiros_core::control::{GraphNode, VERSION};

use crate::Failure;
use crate::client::Client;
use crate::output::{Output, count};
use arguments::{Change, Question};

/// Something was found, or is not there.
const FOUND: u8 = 1;

/// An answer: for people, for programs, and as exit code.
struct Answer {
    text: String,
    value: Value,
    good: bool,
}

impl From<Unknown> for Failure {
    fn from(unknown: Unknown) -> Self {
        let near = unknown.near().map(str::to_owned).into_iter().collect();
        Self::Refused { message: unknown.to_string(), near }
    }
}

/// Ask for the graph, and answer the question.
pub fn run(question: &Question, client: &mut Client, output: &Output) -> Result<ExitCode, Failure> {
    let nodes = client.graph()?;
    let mut answer = answer(question, &nodes)?;
    if let Question::Validate = question {
        let rejected = client.status(None)?.rejected;
        answer.good &= rejected.is_empty();
        answer.text = text::rejected(&rejected) + &answer.text;
        answer.value["rejected"] = json!(rejected);
        answer.value["valid"] = json!(answer.good);
    }
    if output.is_json() {
        answer.value["version"] = json!(VERSION);
        Output::value(&answer.value);
    } else {
        Output::text(&answer.text);
    }
    Ok(ExitCode::from(if answer.good { 0 } else { FOUND }))
}

fn answer(question: &Question, nodes: &[GraphNode]) -> Result<Answer, Failure> {
    let analysis = Analysis::new(nodes);
    Ok(match question {
        Question::Rdeps { capability } => {
            let dependents = analysis.dependents(capability)?;
            let total = dependents.len();
            good(
                text::dependents(capability, &dependents),
                json!({"capability": capability, "dependents": dependents, "total": total}),
            )
        }
        Question::Simulate(Change::Remove { name }) => {
            let removal = analysis.removal(name)?;
            good(text::removal(&removal), value(&removal)?)
        }
        Question::Dot => {
            let dot = analysis.dot();
            good(dot.clone(), json!({"dot": dot}))
        }
        Question::CheckCycles { verbose } => check_cycles(&analysis, *verbose),
        Question::Check => check(&analysis, nodes.len()),
        Question::Validate => validate(&analysis),
        Question::Order => {
            let (order, never) = (analysis.order(), analysis.never());
            good(text::order(&order, &never), json!({"order": order, "never": never}))
        }
        Question::Layers => {
            let (layers, never) = (analysis.layers(), analysis.never());
            good(text::layers(&layers, &never), json!({"layers": layers, "never": never}))
        }
        Question::Path { from, to } => path(&analysis, from, to)?,
        Question::Scc => {
            let (sets, total) = (analysis.strongly_connected(), analysis.metrics());
            let total = total.strongly_connected_components;
            good(text::sets(&sets, total), json!({"sets": sets, "total": total}))
        }
        Question::Analyze { detailed } => {
            let metrics = analysis.metrics();
            let mut answer = good(text::metrics(&metrics), value(&metrics)?);
            if *detailed {
                let parts = analysis.parts();
                answer.text.push_str(&text::parts(&parts));
                answer.value["detail"] = json!(parts);
            }
            answer
        }
    })
}

fn good(text: String, value: Value) -> Answer {
    Answer { text, value, good: true }
}

fn value(answer: &impl Serialize) -> Result<Value, Failure> {
    let failed = |error| Failure::Broken(format!("failed to write JSON: {error}"));
    serde_json::to_value(answer).map_err(failed)
}

fn check_cycles(analysis: &Analysis<'_>, verbose: bool) -> Answer {
    let (cycles, blocked) = (analysis.cycles(), analysis.behind_cycles());
    Answer {
        text: text::cycles(&cycles, &blocked, verbose),
        good: cycles.is_empty(),
        value: json!({"cycles": cycles, "blocked": blocked}),
    }
}

fn check(analysis: &Analysis<'_>, components: usize) -> Answer {
    let findings = analysis.findings().into_iter();
    let errors: Vec<_> = findings.filter(|finding| finding.severity == Severity::Error).collect();
    let verdict = match errors.len() {
        0 => format!("All {components} components can start\n"),
        _ => format!("Total: {} of {components} components can not start\n", analysis.never().len()),
    };
    let value = json!({"components": components, "never": analysis.never(), "findings": errors});
    Answer { text: text::findings(&errors) + &verdict, good: errors.is_empty(), value }
}

fn validate(analysis: &Analysis<'_>) -> Answer {
    let findings = analysis.findings();
    let is_error = |finding: &&Finding| finding.severity == Severity::Error;
    let errors = findings.iter().filter(is_error).count();
    let notes = findings.len() - errors;
    let total = format!("Total: {}, {}\n", count(errors, "error"), count(notes, "note"));
    let text = text::findings(&findings) + &total;
    Answer { text, good: errors == 0, value: json!({"findings": findings, "errors": errors, "notes": notes}) }
}

fn path(analysis: &Analysis<'_>, from: &str, to: &str) -> Result<Answer, Failure> {
    let path = analysis.path(from, to)?;
    let reverse = if path.is_none() { analysis.path(to, from)? } else { None };
    let text = match (&path, &reverse) {
        (Some(steps), _) => text::path(steps),
        (None, Some(_)) => format!("{from} does not depend on {to}; {to} depends on {from}\n"),
        (None, None) => format!("{from} does not depend on {to}\n"),
    };
    let good = path.is_some();
    Ok(Answer { text, good, value: json!({"from": from, "to": to, "depends": good, "path": path}) })
}
