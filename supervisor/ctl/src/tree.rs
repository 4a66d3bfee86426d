//! The dependency tree of one component, drawn from the whole graph.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use serde::Serialize;
use yakiros_core::control::{CapabilityStatus, GraphNode};

/// A line of the tree.
#[derive(Debug, Serialize)]
pub struct Line {
    /// 0 for the component itself.
    pub depth: usize,
    /// Capability that leads here; none for the component itself.
    pub capability: Option<String>,
    /// Component that provides it; none when nobody does.
    pub component: Option<String>,
    /// The component's state, or the capability's.
    pub state: String,
    /// The component stands further up with everything below it.
    pub repeated: bool,
    /// Box characters before the text.
    #[serde(skip)]
    prefix: String,
}

impl Line {
    /// The line as text.
    pub fn text(&self) -> String {
        let mut text = self.prefix.clone();
        if let Some(capability) = &self.capability {
            let _ = write!(text, "{capability} \u{2190} ");
        }
        let component = self.component.as_deref().unwrap_or("(nobody)");
        let _ = write!(text, "{component} ({})", self.state);
        if self.repeated {
            text.push_str(" …");
        }
        text
    }
}

/// Still to be drawn: a capability below a component that was drawn.
struct Open<'a> {
    prefix: String,
    last: bool,
    depth: usize,
    capability: &'a str,
    provider: Option<&'a GraphNode>,
}

/// The tree of `name`; `None` when there is no such component. Each component is expanded once,
/// so the tree is as long as the declarations, whatever the shape of the graph.
pub fn of(nodes: &[GraphNode], name: &str) -> Option<Vec<Line>> {
    let root = nodes.iter().find(|node| &*node.name == name)?;
    let mut providers: HashMap<&str, Vec<&GraphNode>> = HashMap::new();
    for node in nodes {
        for cap in &node.provides {
            providers.entry(cap).or_default().push(node);
        }
    }
    let mut lines = vec![Line {
        depth: 0,
        capability: None,
        component: Some(root.name.to_string()),
        state: root.state.to_string(),
        repeated: false,
        prefix: String::new(),
    }];
    let mut expanded = HashSet::from([&*root.name]);
    let mut stack = below(root, "", 1, &providers);
    while let Some(open) = stack.pop() {
        let repeated =
            open.provider.is_some_and(|node| !needs(node).is_empty() && !expanded.insert(&node.name));
        lines.push(line(&open, repeated));
        if let Some(node) = open.provider.filter(|_| !repeated) {
            let indent = if open.last { "    " } else { "│   " };
            let prefix = format!("{}{indent}", open.prefix);
            stack.extend(below(node, &prefix, open.depth + 1, &providers));
        }
    }
    Some(lines)
}

fn line(open: &Open<'_>, repeated: bool) -> Line {
    let branch = if open.last { "└── " } else { "├── " };
    Line {
        depth: open.depth,
        capability: Some(open.capability.to_owned()),
        component: open.provider.map(|node| node.name.to_string()),
        state: match open.provider {
            Some(node) if &*node.name == "kernel" => "UP".to_owned(),
            Some(node) => node.state.to_string(),
            None => "DOWN".to_owned(),
        },
        repeated,
        prefix: format!("{}{branch}", open.prefix),
    }
}

fn needs(node: &GraphNode) -> Vec<&str> {
    let all = node.requires.iter().chain(&node.optional);
    all.map(String::as_str).collect()
}

/// What stands below a component, in reverse, for a stack.
fn below<'a>(
    node: &'a GraphNode,
    prefix: &str,
    depth: usize,
    providers: &HashMap<&str, Vec<&'a GraphNode>>,
) -> Vec<Open<'a>> {
    let mut open: Vec<Open<'a>> = Vec::new();
    for capability in needs(node) {
        let entry = |provider| Open { prefix: prefix.to_owned(), last: false, depth, capability, provider };
        match providers.get(capability) {
            Some(nodes) => open.extend(nodes.iter().map(|node| entry(Some(*node)))),
            None => open.push(entry(None)),
        }
    }
    if let Some(last) = open.last_mut() {
        last.last = true;
    }
    open.reverse();
    open
}

/// Whether a capability is up, over all its providers.
pub fn level(nodes: &[&GraphNode]) -> CapabilityStatus {
    let levels = nodes.iter().map(|node| node.level);
    levels.max().unwrap_or(CapabilityStatus::Down)
}
