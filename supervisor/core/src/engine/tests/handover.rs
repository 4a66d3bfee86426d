//! What the processes of a hot swap say, at the wrong time or about another one.

use yakiros_handoff::message::{Order, Report, Summary, VERSION};

use super::*;
use crate::control::Answer;

const HANDS_OVER: &str = "[lifecycle]\nhandoff = \"fd-passing\"\n";

/// The client that has asked for the upgrade.
const CLIENT: ClientId = ClientId(77);

const GIVEN: Summary = Summary { descriptors: 1, state: 2, digest: 3 };

impl Bench {
    fn report(&mut self, run: RunId, report: Report) {
        self.give(Event::Reported(run, report));
    }

    /// Ask for an upgrade; returns who is to take over, and its generation.
    fn upgrade(&mut self) -> (RunId, u64) {
        let peer = Peer::new(0, 1);
        self.effects.clear();
        let request = Request::Upgrade {
            name: "a".into(),
            fallback: true,
            queue: false,
            strategy: None,
            timeout_ms: None,
        };
        self.give(Event::Request { client: CLIENT, peer, request });
        let spawned = self.effects.iter().find_map(|effect| match effect {
            Effect::Spawn { run, generation, place: Place::Successor, .. } => Some((*run, *generation)),
            _ => None,
        });
        let (run, generation) = spawned.expect("a second process");
        self.give(Event::Created { run, pid: 2 });
        self.give(Event::Executed(run));
        (run, generation)
    }

    /// The same, until the first one is asked to give.
    fn ask_to_give(&mut self) -> (RunId, u64) {
        let (run, generation) = self.upgrade();
        self.report(run, Report::Hello { version: VERSION, parts: false });
        self.report(run, Report::Prepared);
        assert!(self.effects.iter().any(|effect| matches!(effect, Effect::Connect { .. })));
        (run, generation)
    }

    /// The same, until the second one is told to serve.
    fn commit(&mut self, first: RunId) -> RunId {
        let (second, generation) = self.ask_to_give();
        self.report(first, Report::Offered { generation, summary: GIVEN });
        self.report(second, Report::Taken(GIVEN));
        self.report(second, Report::Ready);
        assert!(self.has_ordered(second, &Order::Commit));
        second
    }

    fn has_ordered(&self, run: RunId, order: &Order) -> bool {
        let is_it =
            |effect: &Effect| matches!(effect, Effect::Order(to, told) if *to == run && told == order);
        self.effects.iter().any(is_it)
    }

    /// The answer to the upgrade, if it is given now.
    fn verdict(&self) -> Option<String> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::Reply(CLIENT, Answer::Refused { message, .. }) => Some(message.clone()),
            Effect::Reply(CLIENT, other) => Some(format!("{other:?}")),
            _ => None,
        })
    }
}

/// A component that can hand over, and its process.
fn handing_over() -> (Bench, RunId) {
    let mut bench = executed(HANDS_OVER);
    let first = bench.run("a");
    bench.report(first, Report::Hello { version: VERSION, parts: false });
    (bench, first)
}

#[test]
fn who_cannot_give_now_serves_on_and_who_never_will_is_restarted() {
    let (mut bench, first) = handing_over();
    let (second, generation) = bench.ask_to_give();
    let why = "the other process does not take: Broken pipe".to_owned();
    bench.report(first, Report::Failed { generation, why: why.clone() });
    assert!(bench.has_killed(second) && !bench.has_told(first));
    let verdict = bench.verdict().expect("an answer");
    assert!(verdict.contains(&format!("the step \"move\": the old process: {why}")), "{verdict}");

    let (mut bench, first) = handing_over();
    let (second, generation) = bench.ask_to_give();
    bench.report(first, Report::Refused { generation, why: "never".into() });
    assert!(bench.has_killed(second) && bench.has_told(first));
    assert_eq!(bench.verdict(), None, "it is answered when the new one is there");
}

#[test]
fn what_is_said_about_an_upgrade_that_is_over_is_nothing_to_the_next_one() {
    let (mut bench, first) = handing_over();
    let (second, generation) = bench.ask_to_give();
    bench.give(Event::Ended(second, Exit::Code(1)));
    assert!(bench.verdict().is_some());
    let (third, next) = bench.ask_to_give();
    assert_eq!(next, generation + 1);
    for late in [
        Report::Failed { generation, why: "late".into() },
        Report::Refused { generation, why: "late".into() },
        Report::Offered { generation, summary: GIVEN },
    ] {
        bench.effects.clear();
        bench.report(first, late.clone());
        assert!(bench.effects.is_empty(), "{late}: {:?}", bench.effects);
    }
    bench.report(third, Report::Taken(GIVEN));
    bench.report(third, Report::Ready);
    assert!(!bench.has_ordered(third, &Order::Commit), "nothing was offered to it");
    bench.report(first, Report::Offered { generation: next, summary: GIVEN });
    assert!(bench.has_ordered(third, &Order::Commit));
}

#[test]
fn a_new_process_says_in_time_that_it_speaks_this_protocol() {
    let (mut bench, first) = handing_over();
    let (second, _) = bench.upgrade();
    bench.report(second, Report::Hello { version: VERSION + 1, parts: false });
    assert!(bench.has_killed(second) && !bench.has_told(first));
    let verdict = bench.verdict().expect("an answer");
    assert!(verdict.contains("it speaks version 2 of the protocol"), "{verdict}");

    let (mut bench, _) = handing_over();
    let (second, _) = bench.upgrade();
    bench.report(second, Report::Prepared);
    assert!(bench.has_killed(second));
    assert!(bench.verdict().expect("an answer").contains("PREPARED without HELLO"));
}

#[test]
fn who_is_stopped_is_not_upgraded_by_a_word_that_was_under_way() {
    let (mut bench, first) = handing_over();
    let second = bench.commit(first);
    bench.stop("a");
    assert!(bench.has_killed(second) && bench.has_told(first));
    bench.effects.clear();
    bench.report(second, Report::Serving);
    assert!(bench.effects.is_empty(), "{:?}", bench.effects);
    bench.give(Event::Ended(second, Exit::Signal(9)));
    assert!(bench.verdict().expect("an answer").contains("failed at the step \"commit\""));
    bench.give(Event::Ended(first, Exit::Code(0)));
    assert_eq!(bench.engine.state("a"), State::Inactive);
}

/// The component with this argument.
fn handing_over_with(argument: &str) -> String {
    service("a", &format!("args = [\"{argument}\"]\n{HANDS_OVER}"))
}

/// It runs with the argument 1, and a process with the argument 2 is to take over.
fn changing() -> (Bench, RunId, RunId) {
    let mut bench = Bench::new(&[&handing_over_with("1")]);
    bench.execute("a");
    let first = bench.run("a");
    bench.report(first, Report::Hello { version: VERSION, parts: false });
    bench.declare("0.toml", &handing_over_with("2"));
    let second = bench.run("a");
    assert_ne!(first, second);
    bench.execute("a");
    for said in [Report::Hello { version: VERSION, parts: false }, Report::Prepared] {
        bench.report(second, said);
    }
    (bench, first, second)
}

#[test]
fn a_declaration_that_becomes_again_what_runs_spares_the_process() {
    let (mut bench, first, second) = changing();
    bench.declare("0.toml", &handing_over_with("1"));
    assert!(bench.has_killed(second) && !bench.has_told(first));
    bench.give(Event::Ended(second, Exit::Signal(9)));
    assert_eq!((bench.engine.state("a"), bench.run("a")), (State::Active, second), "nothing else is started");

    // Too late: the new one serves. What is declared comes after it.
    let (mut bench, first, second) = changing();
    let generation = 2;
    bench.report(first, Report::Offered { generation, summary: GIVEN });
    bench.report(second, Report::Taken(GIVEN));
    bench.report(second, Report::Ready);
    bench.declare("0.toml", &handing_over_with("1"));
    assert!(bench.has_killed(second) && !bench.has_told(first));
    bench.report(second, Report::Serving);
    assert!(bench.effects.iter().any(|effect| matches!(effect, Effect::Unconfine(run) if *run == second)));
    bench.effects.clear();
    bench.give(Event::Ended(first, Exit::Code(0)));
    let next = bench.effects.iter().find_map(|effect| match effect {
        Effect::Spawn { component, .. } => Some(component.args.clone()),
        _ => None,
    });
    assert_eq!(next.as_deref(), Some(&["1".to_owned()][..]));
}

/// How a process that took over from one that died can fail.
type Way<'a> = &'a dyn Fn(&mut Bench, RunId);

#[test]
fn who_inherits_serves_within_the_time_or_is_ended() {
    let garbage = |bench: &mut Bench, heir| bench.give(Event::Garbled(heir, "nonsense".into()));
    let failure = |bench: &mut Bench, heir| {
        bench.report(heir, Report::Failed { generation: 2, why: "no disk".into() });
    };
    let silence = |bench: &mut Bench, _| {
        bench.now += HANDOVER_LIMIT;
        bench.give(Event::Tick);
    };
    let ways: [(&str, Way<'_>); 3] =
        [("nonsense", &garbage), ("no disk", &failure), ("does not serve within its time", &silence)];
    for (what, way) in ways {
        let (mut bench, first) = handing_over();
        let heir = bench.commit(first);
        bench.give(Event::Ended(first, Exit::Signal(11)));
        assert_eq!((bench.engine.state("a"), bench.run("a")), (State::Active, heir));
        way(&mut bench, heir);
        assert!(bench.has_told(heir), "{what}: {:?}", bench.effects);
        let said = bench.effects.iter().any(
            |effect| matches!(effect, Effect::Changed(record) if record.cause.to_string().contains(what)),
        );
        assert!(said, "{what}: {:?}", bench.effects);
        bench.give(Event::Ended(heir, Exit::Code(0)));
        assert_ne!(bench.run("a"), heir, "and started again");
    }
    let (mut bench, first) = handing_over();
    let heir = bench.commit(first);
    bench.give(Event::Ended(first, Exit::Signal(11)));
    bench.report(heir, Report::Serving);
    silence(&mut bench, heir);
    assert!(!bench.has_told_anybody());
    assert_eq!(bench.engine.sizes().timers, 0);
    // From now on it can be asked itself.
    bench.ask_to_give();
}

#[test]
fn who_is_late_with_what_is_told_at_each_step() {
    let late = |bench: &mut Bench| {
        while bench.verdict().is_none() {
            bench.now = bench.engine.deadline().expect("a limit");
            bench.give(Event::Tick);
        }
        bench.verdict().expect("an answer")
    };
    let (mut bench, _) = handing_over();
    bench.upgrade();
    assert!(late(&mut bench).contains("the new process is not prepared within its time"));
    let (mut bench, first) = handing_over();
    let (_, generation) = bench.ask_to_give();
    bench.report(first, Report::Offered { generation, summary: GIVEN });
    assert!(late(&mut bench).contains("the new process has not got everything within its time"));
    let (mut bench, first) = handing_over();
    let second = bench.commit(first);
    while !bench.has_killed(second) {
        bench.now = bench.engine.deadline().expect("a limit");
        bench.give(Event::Tick);
    }
    bench.give(Event::Ended(second, Exit::Signal(9)));
    let verdict = bench.verdict().expect("an answer");
    assert!(verdict.contains("the new process does not serve within its time"), "{verdict}");
}
