//! Single promises of the engine. Their combination is the simulation's business.

mod beside;
mod canary;
mod capabilities;
mod causes;
mod checkpoint;
mod cycles;
mod freezer;
mod handover;
mod health;
mod lifecycle;
mod memory;
mod notify;
mod probes;
mod reload;
mod requests;
mod slices;
mod strain;

use super::*;
use crate::component::{Signal, parse};
use crate::control::{Answer, Request};
use crate::journal::{Exit, Record};
use yakiros_handoff::message::{Order, Report};

const SECOND: Duration = Duration::from_secs(1);

struct Bench {
    engine: Engine,
    now: Duration,
    effects: Vec<Effect>,
}

impl Bench {
    fn new(files: &[&str]) -> Self {
        let mut bench = Self { engine: Engine::new(Config::default()), now: SECOND, effects: Vec::new() };
        for (number, text) in files.iter().enumerate() {
            bench.declare(&format!("{number}.toml"), text);
        }
        bench
    }

    fn declare(&mut self, file: &str, text: &str) {
        self.change(&[(file, Some(text))]);
    }

    fn change(&mut self, files: &[(&str, Option<&str>)]) {
        self.give(changed(files));
    }

    fn give(&mut self, event: Event) {
        let effects = self.engine.handle(self.now, event);
        self.effects.extend(effects);
    }

    /// The newest run of a component.
    fn run(&self, name: &str) -> RunId {
        let spawned = self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Spawn { run, component, .. } if component.name == name => Some(*run),
            _ => None,
        });
        spawned.unwrap_or_else(|| panic!("{name} was never started"))
    }

    fn execute(&mut self, name: &str) {
        let run = self.run(name);
        self.give(Event::Created { run, pid: 7 });
        self.give(Event::Executed(run));
    }

    fn end(&mut self, name: &str) {
        let run = self.run(name);
        self.give(Event::Ended(run, Exit::Code(1)));
    }

    fn stop(&mut self, name: &str) {
        self.ask(0, Request::Stop { name: name.to_owned(), timeout_ms: None });
    }

    fn states<const N: usize>(&self, names: [&str; N]) -> [State; N] {
        names.map(|name| self.engine.state(name))
    }

    /// Whether somebody's process was asked to end.
    fn has_told_anybody(&self) -> bool {
        self.effects.iter().any(|e| matches!(e, Effect::Terminate(_)))
    }

    fn has_told(&self, run: RunId) -> bool {
        self.effects.iter().any(|e| matches!(e, Effect::Terminate(told) if *told == run))
    }

    fn has_aborted(&self, run: RunId) -> bool {
        self.effects.iter().any(|e| matches!(e, Effect::Signal(told, Signal::ABORT) if *told == run))
    }

    fn has_killed(&self, run: RunId) -> bool {
        self.effects.iter().any(|e| matches!(e, Effect::Kill(killed) if *killed == run))
    }

    fn ask(&mut self, uid: u32, request: Request) -> Option<Answer> {
        self.effects.retain(|e| !matches!(e, Effect::Reply(..)));
        self.give(Event::Request { client: ClientId(1), peer: Peer::new(uid, 1), request });
        self.answer()
    }

    fn answer(&self) -> Option<Answer> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::Reply(_, answer) => Some(answer.clone()),
            _ => None,
        })
    }
}

/// One batch: each of these files holds this now, or is gone.
fn changed(files: &[(&str, Option<&str>)]) -> Event {
    let content = |text: &str| FileContent::Component(Box::new(parse(text).component.expect("a component")));
    let change = |(file, text): &(&str, Option<&str>)| FileChange {
        file: (*file).to_owned(),
        content: text.map_or(FileContent::Gone, content),
    };
    Event::Files(files.iter().map(change).collect())
}

/// A bench with one service, `a`, whose program runs.
fn executed(more: &str) -> Bench {
    let mut bench = Bench::new(&[&service("a", more)]);
    bench.execute("a");
    bench
}

fn service(name: &str, more: &str) -> String {
    format!("[component]\nname = \"{name}\"\nbinary = \"/bin/{name}\"\n{more}")
}

#[test]
fn the_table_has_a_row_for_every_state() {
    assert_eq!(TABLE.len() + 1, State::ALL.len());
    assert_eq!(decide(State::Inactive, Input::Met), Action::Launch);
    assert_eq!(decide(State::Stopping, Input::GraceOver), Action::Kill);
    assert_eq!(decide(State::Removed, Input::Start), Action::Keep);
}

/// The probes that were sent since the last look, and of whom.
fn all_sent(bench: &mut Bench) -> Vec<(ProbeId, String)> {
    let sent = bench.effects.iter().filter_map(|effect| match effect {
        Effect::Probe { probe, component, .. } => Some((*probe, component.name.clone())),
        _ => None,
    });
    let sent = sent.collect();
    bench.effects.retain(|effect| !matches!(effect, Effect::Probe { .. }));
    sent
}

/// The newest of them.
fn sent(bench: &mut Bench) -> Option<ProbeId> {
    all_sent(bench).pop().map(|(probe, _)| probe)
}

/// Let time pass to the next probe.
fn next_probe(bench: &mut Bench) -> ProbeId {
    for _ in 0..100 {
        bench.now = bench.engine.deadline().expect("a deadline");
        bench.give(Event::Tick);
        if let Some(probe) = sent(bench) {
            return probe;
        }
    }
    panic!("no probe comes");
}

fn probed(bench: &mut Bench, passes: bool) {
    let probe = next_probe(bench);
    let outcome = if passes { Ok(()) } else { Err("refused".into()) };
    bench.give(Event::Probed { probe, outcome });
}

fn health_of(bench: &Bench, name: &str) -> (crate::control::Health, Option<String>) {
    let page = bench.engine.status_page(None);
    let found = page.components.into_iter().find(|c| &*c.name == name).expect("a component");
    (found.health, found.detail)
}

const PROBED: &str = "[lifecycle]\nhealth_tcp = \"127.0.0.1:80\"\nhealth_interval = 10\nhealth_timeout = 4\n";
