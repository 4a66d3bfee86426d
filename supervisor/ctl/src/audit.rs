//! `audit`: how much of the machine somebody gets who has taken a component's program over, and what would close it.
//!
//! It is judged by what is declared; whether that holds is for `inspect`.

mod checks;

use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};
use yakiros_core::component::{Component, KERNEL};
use yakiros_core::control::VERSION;

use crate::Failure;
use crate::client::Client;
use crate::inspect::declaration;
use crate::output::Output;
use crate::tables::{Cell, draw};
use checks::{Check, exposure};

/// What a component is found to be.
struct Finding {
    name: String,
    exposure: f64,
    open: Vec<(&'static Check, f64)>,
}

/// Levels by their lowest exposure.
const LEVELS: [(f64, &str, AnsiColor); 4] = [
    (8.0, "open", AnsiColor::Red),
    (5.0, "exposed", AnsiColor::Yellow),
    (2.0, "guarded", AnsiColor::Cyan),
    (0.0, "closed", AnsiColor::Green),
];

/// Judge one component, with proposals, or all of them; fail if one is above the threshold.
pub fn run(
    client: &mut Client,
    output: &Output,
    name: Option<&str>,
    threshold: Option<f64>,
) -> Result<ExitCode, Failure> {
    let names: Vec<String> = match name {
        Some(name) => vec![name.to_owned()],
        None => client.status(None)?.components.iter().map(|component| component.name.to_string()).collect(),
    };
    let mut findings = Vec::new();
    for name in names.iter().filter(|name| *name != KERNEL) {
        match declaration(client, name) {
            Ok(shown) => findings.push(Finding::of(&shown.component)),
            // One of all was taken away meanwhile.
            Err(Failure::Refused { near, .. }) if names.len() > 1 && near.is_empty() => {}
            Err(failure) => return Err(failure),
        }
    }
    findings.sort_by(|one, other| {
        other.exposure.total_cmp(&one.exposure).then_with(|| one.name.cmp(&other.name))
    });
    let above =
        findings.iter().filter(|finding| threshold.is_some_and(|most| finding.exposure > most)).count();
    if output.is_json() {
        let components: Vec<_> = findings.iter().map(Finding::value).collect();
        Output::value(&json!({ "version": VERSION, "threshold": threshold, "components": components }));
    } else if name.is_some() {
        for finding in &findings {
            Output::text(&finding.text());
        }
    } else {
        Output::text(&table(&findings));
    }
    Ok(if above == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Finding {
    fn of(component: &Component) -> Self {
        let (exposure, open) = exposure(component);
        Self { name: component.name.clone(), exposure, open }
    }

    fn level(&self) -> (&'static str, AnsiColor) {
        let found = LEVELS.iter().find(|(least, ..)| self.exposure >= *least);
        found.map_or(("closed", AnsiColor::Green), |(_, word, colour)| (word, *colour))
    }

    fn value(&self) -> Value {
        let open = self.open.iter().map(|(check, weight)| {
            json!({ "weight": weight, "exposure": check.exposure, "proposal": check.proposal })
        });
        json!({
            "component": self.name,
            "exposure": (self.exposure * 10.0).round() / 10.0,
            "level": self.level().0,
            "open": open.collect::<Vec<_>>(),
        })
    }

    fn text(&self) -> String {
        let rows = self.open.iter().map(|(check, weight)| {
            vec![
                Cell::plain(format!("{weight:.1}")),
                Cell::plain(check.exposure),
                Cell::plain(check.proposal),
            ]
        });
        let rows: Vec<_> = rows.collect();
        let (level, _) = self.level();
        let head = format!("{}: exposure {:.1} of {:.0}, {level}\n", self.name, self.exposure, checks::WORST);
        if rows.is_empty() {
            head
        } else {
            head + &draw(&["WEIGHT", "WHO TAKES IT OVER", "CLOSED BY"], &rows)
        }
    }
}

fn table(findings: &[Finding]) -> String {
    let rows = findings.iter().map(|finding| {
        let (level, colour) = finding.level();
        let first = finding.open.first().map_or("", |(check, _)| check.exposure);
        vec![
            Cell::plain(&finding.name),
            Cell::plain(format!("{:.1}", finding.exposure)),
            Cell::styled(level, Style::new().fg_color(Some(colour.into()))),
            Cell::plain(first),
        ]
    });
    draw(&["COMPONENT", "EXPOSURE", "LEVEL", "ABOVE ALL IT"], &rows.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_is_told_with_what_would_help() {
        let text = "[component]\nname = \"web\"\nbinary = \"/bin/web\"\n[security]\nuser = 33\nno_new_privs = true\n";
        let component = yakiros_core::component::parse(text).component.expect("a component");
        let finding = Finding::of(&component);
        insta::assert_snapshot!(anstream::adapter::strip_str(&finding.text()));
        let unknown = Finding { name: "a".to_owned(), exposure: 9.5, open: Vec::new() };
        insta::assert_snapshot!(anstream::adapter::strip_str(&table(&[unknown, finding])));
    }
}
