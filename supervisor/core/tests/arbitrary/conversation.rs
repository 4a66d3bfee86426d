//! What holds for any conversation with the engine.
//!
//! Each line of the bytes is a request line if it begins with `{`; otherwise each of its bytes is
//! something that happens: to files, to the clock, to a process that was started, or to the engine,
//! which is written down and made anew.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use yakiros_core::component::{Component, parse};
use yakiros_core::control::{ANSWER_LIMIT, Request, decode_request, encode_answer};
use yakiros_core::engine::{
    ClientId, Config, Effect, Engine, Event, FileChange, FileContent, Peer, ProbeId, RunId,
};
use yakiros_core::journal::Exit;

use super::takeover;

/// Steps after which a conversation ends: the engine is not to be tested for patience.
const STEP_LIMIT: usize = 4096;

/// What can be declared. They need each other, share names and capabilities, and form a cycle.
const FILES: [&str; 6] = [
    "[component]\nname = \"base\"\nbinary = \"/a\"\n[provides]\ncapabilities = [\"base\"]\n",
    "[component]\nname = \"web\"\nbinary = \"/a\"\n[requires]\ncapabilities = [\"base\"]\n\
     [lifecycle]\nreadiness = \"notify\"\nreadiness_timeout = 3\nreload_signal = \"HUP\"\n",
    "[component]\nname = \"web\"\nbinary = \"/b\"\n[optional]\ncapabilities = [\"base\", \"ring\"]\n\
     [lifecycle]\nhealth_file = \"/h\"\nhealth_interval = 1\n",
    "[component]\nname = \"once\"\nbinary = \"/a\"\ntype = \"oneshot\"\n[provides]\ncapabilities = [\"base\"]\n",
    "[component]\nname = \"ring\"\nbinary = \"/a\"\n[provides]\ncapabilities = [\"ring\"]\n\
     [requires]\ncapabilities = [\"knot\"]\n",
    "[component]\nname = \"knot\"\nbinary = \"/a\"\n[provides]\ncapabilities = [\"knot\"]\n\
     [requires]\ncapabilities = [\"ring\"]\n",
];

/// An engine, and what it waits for.
struct Talk {
    engine: Engine,
    now: Duration,
    files: Vec<Component>,
    runs: Vec<RunId>,
    probes: Vec<ProbeId>,
    open: BTreeSet<ClientId>,
    clients: u64,
    steps: usize,
}

/// Panics if something does not hold.
pub fn check(bytes: &[u8]) {
    let files = FILES.iter().filter_map(|text| parse(text).component).collect();
    let mut talk = Talk {
        engine: Engine::new(Config { owner: 1000 }),
        now: Duration::from_secs(1),
        files,
        runs: Vec::new(),
        probes: Vec::new(),
        open: BTreeSet::new(),
        clients: 0,
        steps: 0,
    };
    for (number, component) in talk.files.clone().into_iter().enumerate() {
        talk.change(number, FileContent::Component(Box::new(component)));
    }
    for line in bytes.split(|byte| *byte == b'\n') {
        if line.first() == Some(&b'{') {
            if let Ok(request) = decode_request(line) {
                talk.ask(request, line.len());
            }
        } else {
            for byte in line {
                talk.happen(*byte);
            }
        }
    }
}

impl Talk {
    fn ask(&mut self, request: Request, seed: usize) {
        self.clients += 1;
        let client = ClientId(self.clients);
        let uid = [0, 1000, 7][seed % 3];
        let waits = request.may_wait();
        // Logs are the performer's to answer.
        let is_log = matches!(request, Request::Log { .. });
        self.open.insert(client);
        self.give(Event::Request { client, peer: Peer::new(uid, 1), request });
        let answered = !self.open.contains(&client);
        assert!(answered || waits || is_log, "a request without an answer");
    }

    fn happen(&mut self, byte: u8) {
        let which = usize::from(byte >> 4);
        let run = self.runs.get(which % self.runs.len().max(1)).copied();
        match (byte & 15, run) {
            (0, _) => self.change(which, FileContent::Gone),
            (1, _) => {
                let component = self.files[which % self.files.len()].clone();
                self.change(which, FileContent::Component(Box::new(component)));
            }
            (2, _) => self.change(which, FileContent::Rejected(parse("broken").diagnostics)),
            (3, _) => self.pass(Duration::from_millis(100 << which)),
            (4, _) => {
                let due = self.engine.deadline().unwrap_or(self.now);
                self.pass(due.saturating_sub(self.now));
            }
            (5, _) if !self.probes.is_empty() => {
                let probe = self.probes.swap_remove(which % self.probes.len());
                let outcome = if which % 2 == 0 { Ok(()) } else { Err(Rc::from("it is ill")) };
                self.give(Event::Probed { probe, outcome });
            }
            (6, _) => self.give(Event::ClientGone(ClientId(which as u64))),
            (7, _) => self.give(Event::Resolve),
            (8, Some(run)) => self.give(Event::Created { run, pid: i32::from(byte) + 2 }),
            (9, Some(run)) => self.give(Event::Executed(run)),
            (10, Some(run)) => self.give(Event::Ready(run)),
            (11, Some(run)) => self.end(Event::NotExecuted { run, step: "execute".into(), errno: 2 }, run),
            (12, Some(run)) => self.end(Event::Ended(run, Exit::Code(0)), run),
            (13, Some(run)) => self.end(Event::Ended(run, Exit::Signal(9)), run),
            (14, Some(run)) => {
                self.give(Event::Created { run, pid: i32::from(byte) + 2 });
                self.give(Event::Executed(run));
                self.give(Event::Ready(run));
            }
            (15, _) => takeover::check(&self.engine),
            _ => {}
        }
    }

    fn end(&mut self, event: Event, run: RunId) {
        self.runs.retain(|known| *known != run);
        self.give(event);
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.saturating_add(time);
        self.give(Event::Tick);
    }

    fn change(&mut self, file: usize, content: FileContent) {
        let file = format!("/etc/graph.d/{}.toml", file % FILES.len());
        self.give(Event::Files(vec![FileChange { file, content }]));
    }

    fn give(&mut self, event: Event) {
        self.steps += 1;
        if self.steps > STEP_LIMIT {
            self.open.clear();
            return;
        }
        for effect in self.engine.handle(self.now, event) {
            match effect {
                Effect::Spawn { run, .. } => self.runs.push(run),
                Effect::Probe { probe, .. } => self.probes.push(probe),
                Effect::Reply(client, answer) => {
                    assert!(self.open.remove(&client), "{client:?} is answered and does not ask");
                    let line = encode_answer(answer);
                    assert!(line.len() <= ANSWER_LIMIT);
                    serde_json::from_slice::<serde_json::Value>(&line).expect("JSON");
                }
                _ => {}
            }
        }
    }
}
