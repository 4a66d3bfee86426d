//! `graphctl explain`: what a code means.

use std::process::ExitCode;

use serde_json::{Value, json};
use yakiros_core::component::keys::nearest;
use yakiros_core::control::VERSION;
use yakiros_core::diagnostic::rules::{RULES, Rule, find};

use crate::Failure;
use crate::output::Output;
use crate::tables::{Cell, draw};

/// Explain one code, or list all.
pub fn run(code: Option<&str>, output: &Output) -> Result<ExitCode, Failure> {
    match code {
        Some(code) => explain(find(code).ok_or_else(|| unknown(code))?, output),
        None => list(output),
    }
    Ok(ExitCode::SUCCESS)
}

fn unknown(code: &str) -> Failure {
    let near = nearest(&code.to_ascii_uppercase(), RULES.iter().map(|rule| rule.code));
    let near = near.map(str::to_owned).into_iter().collect();
    Failure::Refused { message: format!("no finding has the code {code:?}"), near }
}

fn explain(rule: &Rule, output: &Output) {
    if output.is_json() {
        let mut value = value(rule);
        value["version"] = json!(VERSION);
        return Output::value(&value);
    }
    let Rule { code, severity, title, explanation, bad, good } = rule;
    let (bad, good) = (indented(&bad.to_string()), indented(&good.to_string()));
    Output::text(&format!(
        "{code} ({severity}): {title}\n\n{explanation}\n\nThis gives it:\n\n{bad}\nThis does not:\n\n{good}"
    ));
}

fn list(output: &Output) {
    if output.is_json() {
        let all: Vec<_> = RULES.iter().map(|rule| value(rule)).collect();
        return Output::value(&json!({"version": VERSION, "codes": all}));
    }
    let row = |rule: &&Rule| {
        vec![Cell::plain(rule.code), Cell::plain(rule.severity.to_string()), Cell::plain(rule.title)]
    };
    let rows: Vec<_> = RULES.iter().map(row).collect();
    Output::text(&draw(&["CODE", "SEVERITY", "FINDING"], &rows));
}

fn value(rule: &Rule) -> Value {
    json!({
        "code": rule.code,
        "severity": rule.severity,
        "title": rule.title,
        "explanation": rule.explanation,
        "bad": rule.bad.to_string(),
        "good": rule.good.to_string(),
    })
}

fn indented(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") }).collect()
}
