//! The steps of a case: a verb and its words, one step a line. Where a component is named, `NAME*` names all whose names
//! begin so.
//!
//! Steps that wait are answered by the supervisor, or look again and again for what only a file can tell; none of them
//! is a pause. Whatever does not come within [`crate::guest::PATIENCE`] has failed.

use std::fs;

use yakiros_core::control::{Answer, CapabilityStatus, ComponentStatus, Request, Until};
use yakiros_core::journal::State;

use super::World;
use crate::guest::until;

/// A verb, the words it takes, and what it does.
type Verb = (&'static str, &'static str, fn(&mut World, &[&str]));

const VERBS: &[Verb] = &[
    // What is done.
    ("kill", "NAME SIGNAL", kill),
    ("start", "NAME", |world, words| request(world, words, "start")),
    ("stop", "NAME", |world, words| request(world, words, "stop")),
    ("restart", "NAME", |world, words| request(world, words, "restart")),
    ("reload", "", |world, words| request(world, words, "reload")),
    ("declare", "FILE (of the folder `later`)", declare),
    ("undeclare", "FILE", undeclare),
    ("touch", "FILE", touch),
    // What is waited for.
    ("wait", "NAME STATE", |world, words| wait_since(world, words, None)),
    ("again", "NAME STATE (newer than what was done last)", again),
    ("settle", "", settle),
    ("health", "NAME none|healthy|failing", health),
    ("content", "FILE TEXT (its whole content, lines joined by spaces)", content),
    // What holds.
    ("state", "NAME STATE", state),
    ("detail", "NAME TEXT (is part of it)", detail),
    ("restarts", "NAME COUNT", restarts),
    ("remember", "NAME (its process)", remember),
    ("same", "NAME (the process that was remembered)", same),
    ("other", "NAME (another process than was remembered, which is gone)", other),
    ("listed", "COUNT (components in status and in the graph)", listed),
    ("capability", "NAME UP|DEGRADED|DOWN|UNKNOWN", capability),
];

/// Takes one step; panics when it fails.
pub fn take(world: &mut World, line: &str) {
    let words: Vec<_> = line.split_whitespace().collect();
    let known = VERBS.iter().find(|(verb, ..)| *verb == words[0]);
    let Some((verb, takes, act)) = known else {
        let verbs: Vec<_> = VERBS.iter().map(|(verb, ..)| *verb).collect();
        panic!("{} is no verb; there are {}", words[0], verbs.join(", "));
    };
    let least = takes.split(" (").next().unwrap_or_default().split_whitespace().count();
    assert!(words.len() > least, "`{line}`: {verb} takes {takes}");
    act(world, &words[1..]);
}

fn named(world: &World, pattern: &str) -> Vec<ComponentStatus> {
    let all = world.guest.status().0.into_iter();
    let found: Vec<_> = match pattern.strip_suffix('*') {
        Some(start) => all.filter(|component| component.name.starts_with(start)).collect(),
        None => all.filter(|component| &*component.name == pattern).collect(),
    };
    assert!(!found.is_empty(), "no component is called {pattern}");
    found
}

fn state_named(word: &str) -> State {
    State::from_name(word).unwrap_or_else(|| panic!("{word} is no state"))
}

/// From here on, what happens is new.
fn mark(world: &mut World) {
    world.since = world.guest.records(0).last().map_or(0, |record| record.revision);
}

fn kill(world: &mut World, words: &[&str]) {
    let victims = named(world, words[0]);
    mark(world);
    for victim in victims {
        let pid = victim.pid.unwrap_or_else(|| panic!("{} has no process", victim.name));
        world.guest.kill(pid, words[1]);
    }
}

fn request(world: &mut World, words: &[&str], verb: &str) {
    mark(world);
    let name = words.first().map(|name| (*name).to_owned());
    let timeout_ms = Some(10_000);
    let request = match (verb, name) {
        ("start", Some(name)) => Request::Start { name, timeout_ms },
        ("stop", Some(name)) => Request::Stop { name, timeout_ms },
        ("restart", Some(name)) => Request::Restart { name, timeout_ms },
        (_, name) => Request::Reload { name },
    };
    let answer = world.guest.ask(request);
    assert!(matches!(answer, Answer::Done { .. }), "{verb} was answered {answer:?}");
}

fn declare(world: &mut World, words: &[&str]) {
    mark(world);
    let from = world.folder.join("later").join(words[0]);
    super::write(world.guest.dir.path(), &from, &world.guest.config().join(words[0]), None);
}

fn undeclare(world: &mut World, words: &[&str]) {
    mark(world);
    world.guest.undeclare(words[0]);
}

fn touch(world: &mut World, words: &[&str]) {
    mark(world);
    fs::write(world.guest.dir.path().join(words[0]), "").expect("file");
}

fn again(world: &mut World, words: &[&str]) {
    wait_since(world, words, Some(world.since));
}

fn settle(world: &mut World, _: &[&str]) {
    world.guest.settle();
}

/// Also for what is not declared, or no longer.
fn wait_since(world: &mut World, words: &[&str], since: Option<u64>) {
    let state = state_named(words[1]);
    let names = if words[0].contains('*') {
        named(world, words[0]).iter().map(|component| component.name.to_string()).collect()
    } else {
        vec![words[0].to_owned()]
    };
    for name in names {
        world.guest.wait_until(Until::State { name, state, since });
    }
}

fn health(world: &mut World, words: &[&str]) {
    for component in named(world, words[0]) {
        until(&format!("{} {}", component.name, words[1]), || {
            let now = world.guest.component(&component.name).health;
            format!("{now:?}").eq_ignore_ascii_case(words[1]).then_some(())
        });
    }
}

fn content(world: &mut World, words: &[&str]) {
    let (path, expected) = (world.guest.dir.path().join(words[0]), words[1..].join(" "));
    until(&format!("{expected:?} in {}", words[0]), || {
        let text = fs::read_to_string(&path).ok()?;
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        (text == expected).then_some(())
    });
}

fn state(world: &mut World, words: &[&str]) {
    for component in named(world, words[0]) {
        let ComponentStatus { name, state, detail, .. } = &component;
        assert_eq!(*state, state_named(words[1]), "{name}: {detail:?}");
    }
}

fn detail(world: &mut World, words: &[&str]) {
    let text = words[1..].join(" ");
    for component in named(world, words[0]) {
        let detail = component.detail.unwrap_or_default();
        assert!(detail.contains(&text), "{}: {detail:?} has no {text:?}", component.name);
    }
}

fn restarts(world: &mut World, words: &[&str]) {
    for component in named(world, words[0]) {
        assert_eq!(component.restarts.to_string(), words[1], "restarts of {}", component.name);
    }
}

fn remember(world: &mut World, words: &[&str]) {
    for component in named(world, words[0]) {
        world.remembered.insert(component.name.to_string(), component.pid);
    }
}

fn remembered(world: &World, component: &ComponentStatus) -> Option<i32> {
    let known = world.remembered.get(&*component.name);
    *known.unwrap_or_else(|| panic!("{} was not remembered", component.name))
}

fn same(world: &mut World, words: &[&str]) {
    for component in named(world, words[0]) {
        assert_eq!(component.pid, remembered(world, &component), "process of {}", component.name);
    }
}

fn other(world: &mut World, words: &[&str]) {
    for component in named(world, words[0]) {
        let before = remembered(world, &component).expect("a process");
        assert_ne!(component.pid, Some(before), "process of {}", component.name);
        let path = format!("/proc/{before}");
        assert!(!world.guest.inside(&["test", "-e", &path]).success(), "{before} still runs");
    }
}

fn listed(world: &mut World, words: &[&str]) {
    assert_eq!(world.guest.status().0.len().to_string(), words[0], "components in status");
    let own = world.guest.graph().iter().filter(|node| &*node.name != "kernel").count();
    assert_eq!(own.to_string(), words[0], "components in the graph");
}

fn capability(world: &mut World, words: &[&str]) {
    let graph = world.guest.graph();
    let providers = graph.iter().filter(|node| node.provides.iter().any(|cap| cap == words[0]));
    let seen = match providers.map(|node| node.level).max() {
        None => "UNKNOWN",
        Some(CapabilityStatus::Up) => "UP",
        Some(CapabilityStatus::Degraded) => "DEGRADED",
        Some(CapabilityStatus::Down) => "DOWN",
    };
    assert_eq!(seen, words[1], "capability {}", words[0]);
}
