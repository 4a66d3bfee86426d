//! The graph for Graphviz.

use std::fmt::Write as _;

use super::Analysis;
use crate::control::CapabilityStatus;
use crate::journal::State;

/// X11 colours that Graphviz knows and black text can be read on.
fn state_colour(state: State) -> &'static str {
    match state {
        State::Active | State::Done => "palegreen",
        State::Degraded => "orange",
        State::Starting | State::ReadyWait | State::Stopping => "khaki",
        State::Failed | State::Backoff | State::Cycle => "salmon",
        State::Inactive | State::Removed => "lightgrey",
    }
}

fn level_colour(level: CapabilityStatus) -> &'static str {
    match level {
        CapabilityStatus::Up => "forestgreen",
        CapabilityStatus::Degraded => "darkorange",
        CapabilityStatus::Down => "firebrick",
    }
}

/// A quoted string of DOT. A backslash would begin an escape in a label, a control character
/// would break the line.
fn quoted(prefix: &str, text: &str) -> String {
    let mut quoted = format!("\"{prefix}");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            _ if character.is_control() => quoted.push(' '),
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

/// Component and capability may share a name, so ids have a kind.
fn component_id(name: &str) -> String {
    quoted("component ", name)
}

fn capability_id(name: &str) -> String {
    quoted("capability ", name)
}

impl Analysis<'_> {
    /// A digraph in Graphviz's language: components are boxes coloured by state, capabilities
    /// ellipses; edges lead from the provider to the capability to who needs it, dashed where it
    /// is optional.
    pub fn dot(&self) -> String {
        let mut text = String::from("digraph yakiros {\n  rankdir=LR;\n");
        for node in self.nodes {
            let (id, label) = (component_id(&node.name), quoted("", &node.name));
            let colour = state_colour(node.state);
            let _infallible = writeln!(
                text,
                "  {id} [label={label}, shape=box, style=filled, fillcolor={colour}, tooltip=\"{}\"];",
                node.state
            );
        }
        for (name, cap) in self.capabilities() {
            let levels = self.graph.providers(cap).iter().map(|provider| self.node(*provider).level);
            let colour = level_colour(levels.max().unwrap_or(CapabilityStatus::Down));
            let (id, label) = (capability_id(name), quoted("", name));
            let _infallible = writeln!(text, "  {id} [label={label}, shape=ellipse, color={colour}];");
        }
        for node in self.nodes {
            let own = component_id(&node.name);
            for cap in &node.provides {
                let _infallible = writeln!(text, "  {own} -> {};", capability_id(cap));
            }
            for cap in &node.requires {
                let _infallible = writeln!(text, "  {} -> {own};", capability_id(cap));
            }
            for cap in &node.optional {
                let _infallible = writeln!(text, "  {} -> {own} [style=dashed];", capability_id(cap));
            }
        }
        text.push_str("}\n");
        text
    }
}
