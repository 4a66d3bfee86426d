//! `upgrade` of one component, of several, or of all.
//!
//! Several are upgraded one after the other, providers before those that require them: a new version of a server is
//! there before the new versions of its clients ask for what only that can. The first failure ends it, for what comes
//! after may count on what has failed.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};
use yakiros_core::analysis::Analysis;
use yakiros_core::component::keys::nearest;
use yakiros_core::component::{KERNEL, Strategy};
use yakiros_core::control::{GraphNode, VERSION};
use yakiros_core::journal::State;

use crate::client::Client;
use crate::output::Output;
use crate::{Failure, lifecycle};

/// How it is to be done.
pub struct Wish {
    /// A lesser way than the declared one will do.
    pub fallback: bool,
    /// Wait for an upgrade of the component that is under way.
    pub queue: bool,
    /// How much the new process takes over at once, if not as declared.
    pub strategy: Option<Strategy>,
    /// The longest wait for each component.
    pub timeout: Duration,
}

/// Upgrade these, or all that are up.
pub fn run(
    client: &mut Client,
    output: &Output,
    names: Option<&[String]>,
    wish: &Wish,
) -> Result<ExitCode, Failure> {
    if let Some([name]) = names {
        let mut value = lifecycle::upgrade(client, output, name, wish)?;
        if output.is_json() {
            value["version"] = json!(VERSION);
            Output::value(&value);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let all = in_order(&client.graph()?, names)?;
    let mut upgraded = Vec::new();
    for (at, name) in all.iter().enumerate() {
        match lifecycle::upgrade(client, output, name, wish) {
            Ok(value) => upgraded.push(value),
            Err(failure) => return Ok(stopped(output, &all, at, &upgraded, failure)),
        }
    }
    if output.is_json() {
        Output::value(&report(&upgraded, &Value::Null, &[]));
    }
    Ok(ExitCode::SUCCESS)
}

/// The names, providers first. What can never start comes last.
fn in_order(nodes: &[GraphNode], names: Option<&[String]>) -> Result<Vec<String>, Failure> {
    let components = || nodes.iter().filter(|node| *node.name != *KERNEL);
    for name in names.unwrap_or_default() {
        if !components().any(|node| *node.name == **name) {
            let near = nearest(name, components().map(|node| &*node.name));
            let near = near.into_iter().map(str::to_owned).collect();
            return Err(Failure::Refused { message: format!("no component is named {name:?}"), near });
        }
    }
    let wanted = |node: &&GraphNode| match names {
        Some(names) => names.iter().any(|name| **name == *node.name),
        None => matches!(node.state, State::Active | State::Degraded),
    };
    let order = Analysis::new(nodes).order();
    let place = |name: &str| order.iter().position(|member| *member.component == *name).unwrap_or(usize::MAX);
    let mut all: Vec<String> = components().filter(wanted).map(|node| node.name.to_string()).collect();
    all.sort_by_cached_key(|name| (place(name), name.clone()));
    Ok(all)
}

/// One could not be upgraded: say what was done and what was not.
fn stopped(output: &Output, all: &[String], at: usize, upgraded: &[Value], failure: Failure) -> ExitCode {
    let (code, message, near) = failure.parts();
    let (done, left) = (&all[..at], &all[at + 1..]);
    if output.is_json() {
        let failed = json!({"component": all[at], "message": message});
        Output::value(&report(upgraded, &failed, left));
    } else {
        let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let message = format!("{message}\nupgraded: {}; not tried: {}", list(done), list(left));
        output.error(&message, &near);
    }
    ExitCode::from(code)
}

fn report(upgraded: &[Value], failed: &Value, left: &[String]) -> Value {
    json!({"version": VERSION, "upgraded": upgraded, "failed": failed, "left": left})
}

#[cfg(test)]
mod tests {
    use super::*;
    use yakiros_core::control::CapabilityStatus;

    fn node(name: &str, state: State, provides: &[&str], requires: &[&str]) -> GraphNode {
        let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        GraphNode {
            name: name.into(),
            state,
            level: CapabilityStatus::Up,
            held: false,
            provides: texts(provides),
            requires: texts(requires),
            optional: Vec::new(),
        }
    }

    #[test]
    fn providers_come_first_and_nothing_begins_with_a_name_that_is_unknown() {
        let nodes = [
            node("api", State::Active, &["api"], &["db"]),
            node("db", State::Degraded, &["db"], &[]),
            node("job", State::Done, &[], &[]),
            node("ui", State::Active, &[], &["api"]),
        ];
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let order = |wanted: Option<&[String]>| in_order(&nodes, wanted).ok();
        assert_eq!(order(Some(&names(&["ui", "db"]))), Some(names(&["db", "ui"])));
        assert_eq!(order(None), Some(names(&["db", "api", "ui"])), "what is done stays done");
        let refused = in_order(&nodes, Some(&names(&["db", "iu"])));
        assert!(matches!(refused, Err(Failure::Refused { near, .. }) if near == ["ui"]));
    }
}
