//! What is wrong with a graph, and what is worth knowing.

use serde::Serialize;

use super::{Analysis, Reason};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something can never start.
    Error,
    /// All starts, but perhaps not as it was meant.
    Note,
}

/// Something found in a graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// `cycle`, `self-dependency`, `unprovided`, `blocked`, `optional-unprovided` or
    /// `optional-ignored`.
    pub code: &'static str,
    /// In words.
    pub message: String,
    /// The components concerned, sorted by name.
    pub components: Vec<String>,
}

impl Analysis<'_> {
    /// Everything that can be found, errors first.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = self.cycle_findings();
        findings.extend(self.unreachable_findings());
        findings.extend(self.optional_findings());
        findings.sort_by_key(|finding| finding.severity);
        findings
    }

    fn cycle_findings(&self) -> Vec<Finding> {
        let finding = |cycle: super::Cycle| {
            let (code, message) = match &cycle.components[..] {
                [one] => {
                    let caps: Vec<_> = cycle.route.iter().map(|step| step.capability.as_str()).collect();
                    ("self-dependency", format!("{one} requires {}, which only it provides", caps.join(", ")))
                }
                all => ("cycle", format!("{} need each other and can never start", all.join(", "))),
            };
            Finding { severity: Severity::Error, code, message, components: cycle.components }
        };
        self.cycles().into_iter().map(finding).collect()
    }

    fn unreachable_findings(&self) -> Vec<Finding> {
        let finding = |never: super::Never| {
            let code = match never.reason {
                Reason::Cycle => return None,
                Reason::Unprovided(_) => "unprovided",
                Reason::Blocked(_) => "blocked",
            };
            let message = format!("{} {}", never.component, never.reason);
            Some(Finding { severity: Severity::Error, code, message, components: vec![never.component] })
        };
        self.never().into_iter().filter_map(finding).collect()
    }

    fn optional_findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (node, id) in self.nodes.iter().zip(&self.ids) {
            let mut note = |code, message| {
                let components = vec![node.name.to_string()];
                findings.push(Finding { severity: Severity::Note, code, message, components });
            };
            for name in &node.optional {
                let Some(cap) = self.graph.cap(name) else { continue };
                let component = &node.name;
                if self.graph.providers(cap).is_empty() {
                    note(
                        "optional-unprovided",
                        format!("{component} would use {name}, which nobody provides"),
                    );
                } else if self.graph.ignores(*id, cap) {
                    let message =
                        format!("{component} does not wait for {name}, which depends on {component} itself");
                    note("optional-ignored", message);
                }
            }
        }
        findings
    }
}
