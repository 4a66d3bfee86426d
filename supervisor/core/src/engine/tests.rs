//! Single promises of the engine. Their combination is the simulation's business.

use super::*;
use crate::component::parse;
use crate::control::Until;

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
        let parsed = parse(text);
        let component = parsed.component.expect("a component");
        self.give(Event::Files(vec![FileChange {
            file: file.to_owned(),
            content: FileContent::Component(Box::new(component)),
        }]));
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

    fn ask(&mut self, uid: u32, request: Request) -> Option<Answer> {
        self.effects.retain(|e| !matches!(e, Effect::Reply(..)));
        self.give(Event::Request { client: ClientId(1), peer: Peer { uid, pid: 1 }, request });
        self.answer()
    }

    fn answer(&self) -> Option<Answer> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::Reply(_, answer) => Some(answer.clone()),
            _ => None,
        })
    }
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

#[test]
fn pauses_grow_and_are_forgotten_after_a_healthy_window() {
    let mut bench = Bench::new(&[&service("a", "[lifecycle]\nrestart_max = 1")]);
    bench.execute("a");
    bench.end("a");
    bench.execute("a");
    for pause in [30, 60, 120, 300, 300] {
        bench.end("a");
        assert_eq!(bench.engine.state("a"), State::Backoff);
        let due = bench.engine.deadline().expect("a deadline");
        assert_eq!(due.saturating_sub(bench.now).as_secs(), pause);
        bench.now = due;
        bench.give(Event::Tick);
        bench.execute("a");
        assert_eq!(bench.engine.state("a"), State::Active);
    }
    bench.now += 31 * SECOND;
    bench.end("a");
    assert_eq!(bench.engine.state("a"), State::Starting, "at once again");
}

#[test]
fn late_events_of_an_old_process_are_ignored() {
    let mut bench = Bench::new(&[&service("a", "")]);
    bench.execute("a");
    let old = bench.run("a");
    bench.end("a");
    bench.execute("a");
    bench.give(Event::Ended(old, Exit::Code(0)));
    bench.give(Event::NotExecuted { run: old, step: "test".into(), errno: 1 });
    assert_eq!(bench.engine.state("a"), State::Active);
}

#[test]
fn strangers_may_look_but_not_touch() {
    let mut bench = Bench::new(&[&service("a", "")]);
    bench.execute("a");
    let stop = || Request::Stop { name: "a".to_owned(), timeout_ms: None };
    assert!(matches!(bench.ask(1000, stop()), Some(Answer::Refused { .. })));
    let look = Request::Status { name: None, after: None };
    assert!(matches!(bench.ask(1000, look), Some(Answer::Status(_))));
    assert_eq!(bench.engine.state("a"), State::Active);
    assert_eq!(bench.ask(0, stop()), None, "answered when it is stopped");
    bench.end("a");
    assert!(matches!(bench.answer(), Some(Answer::Done { .. })));
    assert_eq!(bench.engine.state("a"), State::Inactive);
}

#[test]
fn a_wait_that_runs_out_says_what_holds_instead() {
    let mut bench = Bench::new(&[&service("a", "[requires]\ncapabilities = [\"gone\"]")]);
    let until = Until::State { name: "a".to_owned(), state: State::Active, since: None };
    let request = Request::Wait { until, timeout_ms: Some(100) };
    assert_eq!(bench.ask(0, request), None);
    bench.now += SECOND;
    bench.give(Event::Tick);
    match bench.answer() {
        Some(Answer::TimedOut { message, .. }) => {
            assert!(message.contains("a is INACTIVE"), "{message}");
            assert!(message.contains("gone (nobody provides it)"), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_near_name_is_suggested() {
    let mut bench = Bench::new(&[&service("database", "")]);
    let name = Some("databsae".to_owned());
    let look = Request::Status { name, after: None };
    match bench.ask(0, look) {
        Some(Answer::Refused { near, .. }) => assert_eq!(near, ["database"]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn pages_join_without_gap_or_overlap() {
    let files: Vec<_> = (0..2000).map(|n| service(&format!("c{n:04}"), "")).collect();
    let files: Vec<_> = files.iter().map(String::as_str).collect();
    let bench = Bench::new(&files);
    let (mut names, mut pages, mut after) = (Vec::new(), 0, None);
    loop {
        let page = bench.engine.status_page(after.as_deref());
        names.extend(page.components.iter().map(|c| c.name.to_string()));
        pages += 1;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert!(pages > 1);
    let all: Vec<_> = bench.engine.names().map(ToString::to_string).collect();
    assert_eq!(names, all);
}

#[test]
fn a_hung_shutdown_ends_regardless() {
    let mut bench = Bench::new(&[&service("a", "")]);
    bench.execute("a");
    bench.give(Event::Halt(Halt::PowerOff));
    while !bench.effects.iter().any(|e| matches!(e, Effect::Halt(_))) {
        bench.now = bench.engine.deadline().expect("a deadline");
        bench.give(Event::Tick);
    }
    assert!(bench.now <= 70 * SECOND, "{:?}", bench.now);
}

#[test]
fn the_kernel_is_extended_by_a_file_of_its_name() {
    let mut bench = Bench::new(&[&service("a", "[requires]\ncapabilities = [\"kernel.kvm\"]")]);
    assert_eq!(bench.engine.state("a"), State::Inactive);
    bench.declare(
        "kernel.toml",
        "[component]\nname = \"kernel\"\n[provides]\ncapabilities = [\"kernel.kvm\"]",
    );
    assert_eq!(bench.engine.state("a"), State::Starting);
    assert_eq!(bench.engine.names().count(), 1);
}
