//! Single promises of the engine. Their combination is the simulation's business.

mod capabilities;
mod notify;
mod probes;
mod reload;

use super::*;
use crate::component::parse;
use crate::control::{Readiness, Until, UpgradeLevel};

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
fn waiting_strangers_lock_nobody_out() {
    let mut bench = Bench::new(&[&service("a", "")]);
    let mut last = 0;
    let mut wait = |bench: &mut Bench, uid, request| {
        last += 1;
        bench.effects.retain(|e| !matches!(e, Effect::Reply(..)));
        let client = ClientId(last);
        bench.give(Event::Request { client, peer: Peer { uid, pid: 1 }, request });
        bench.answer().is_none()
    };
    let never = || {
        let until = Until::State { name: "nobody".to_owned(), state: State::Active, since: None };
        Request::Wait { until, timeout_ms: None }
    };
    let mut waits = 0;
    for uid in 1000..1100 {
        let own = (0..WAITERS_PER_USER + 5).filter(|_| wait(&mut bench, uid, never())).count();
        assert!(own <= WAITERS_PER_USER);
        waits += own;
    }
    assert_eq!(waits, WAITER_LIMIT - WAITERS_RESERVED);
    // The owner has the reserved places; when these are full too, nothing is done by halves.
    let owner = (0..WAITER_LIMIT).filter(|_| wait(&mut bench, 0, never())).count();
    assert_eq!(owner, WAITERS_RESERVED);
    bench.execute("a");
    let stop = Request::Stop { name: "a".to_owned(), timeout_ms: None };
    assert!(!wait(&mut bench, 0, stop));
    assert_eq!(bench.engine.state("a"), State::Active, "refused, so not done");
    // A forgotten client leaves no timer behind, and the others' time is limited.
    bench.give(Event::ClientGone(ClientId(1)));
    assert!(wait(&mut bench, 1100, never()));
    bench.now += Duration::from_secs(24 * 3600);
    bench.give(Event::Tick);
    assert_eq!(bench.engine.deadline(), None);
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

/// The probe under way, if one was sent since the last look.
fn sent(bench: &mut Bench) -> Option<ProbeId> {
    let found = bench.effects.iter().rev().find_map(|effect| match effect {
        Effect::Probe { probe, .. } => Some(*probe),
        _ => None,
    });
    bench.effects.retain(|effect| !matches!(effect, Effect::Probe { .. }));
    found
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

#[test]
fn thresholds_of_health_by_table() {
    use State::{Active, Degraded, Starting, Stopping};
    // Outcomes of probes one after the other (`+` passes), and the state after each.
    let cases: &[(&str, &str, &[State])] = &[
        ("3", "--+--+", &[Active, Active, Active, Active, Active, Active]),
        ("3", "---+", &[Active, Active, Degraded, Active]),
        ("3", "----+", &[Active, Active, Degraded, Degraded, Active]),
        ("3", "-----", &[Active, Active, Degraded, Degraded, Stopping]),
        ("1", "-+-+-", &[Degraded, Active, Degraded, Active, Degraded]),
        ("1", "-----", &[Degraded, Degraded, Degraded, Degraded, Stopping]),
        ("5", "-----", &[Active, Active, Active, Active, Stopping]),
    ];
    for (threshold, outcomes, states) in cases {
        let more = format!("{PROBED}health_fail_threshold = {threshold}");
        let mut bench = Bench::new(&[&service("a", &more)]);
        bench.execute("a");
        for (outcome, state) in outcomes.chars().zip(*states) {
            probed(&mut bench, outcome == '+');
            assert_eq!(bench.engine.state("a"), *state, "{outcomes} with threshold {threshold}");
        }
        if bench.engine.state("a") == Stopping {
            let before = bench.engine.journal().revision();
            bench.end("a");
            assert_eq!(bench.engine.state("a"), Starting, "restarted at once");
            assert!(bench.engine.journal().entered("a", State::Failed, before).is_some());
        }
    }
}

#[test]
fn degraded_keeps_dependents_running_and_marks_the_capability() {
    let base = format!("[provides]\ncapabilities = [\"base\"]\n{PROBED}health_failures = 1");
    let user = service("user", "[requires]\ncapabilities = [\"base\"]");
    let mut bench = Bench::new(&[&service("base", &base), &user]);
    bench.execute("base");
    bench.execute("user");
    probed(&mut bench, false);
    assert_eq!(bench.engine.state("base"), State::Degraded);
    assert_eq!(bench.engine.state("user"), State::Active);
    let page = bench.engine.graph_page(None);
    let node = page.components.iter().find(|node| &*node.name == "base").expect("base");
    assert_eq!(node.level, crate::control::CapabilityStatus::Degraded);
    assert!(!bench.effects.iter().any(|e| matches!(e, Effect::Terminate(_))));
}

#[test]
fn status_says_which_probe_failed_and_how() {
    use crate::control::Health;
    let mut bench = Bench::new(&[&service("a", PROBED)]);
    bench.execute("a");
    assert_eq!(health_of(&bench, "a"), (Health::None, None), "not yet probed");
    probed(&mut bench, true);
    assert_eq!(health_of(&bench, "a"), (Health::Healthy, None));
    let probe = next_probe(&mut bench);
    bench.now += 4 * SECOND;
    bench.give(Event::Tick);
    assert!(bench.effects.iter().any(|e| matches!(e, Effect::CancelProbe(id) if *id == probe)));
    let (health, detail) = health_of(&bench, "a");
    assert_eq!(health, Health::Failing);
    let detail = detail.expect("a reason");
    assert_eq!(detail, "a health probe failed: health_tcp 127.0.0.1:80: no answer within 4s");
    // The answer comes too late and counts no more.
    bench.give(Event::Probed { probe, outcome: Ok(()) });
    assert_eq!(health_of(&bench, "a").0, Health::Failing);
}

#[test]
fn probes_keep_their_rhythm_and_are_spread() {
    let files: Vec<_> = (0..200).map(|n| service(&format!("c{n}"), PROBED)).collect();
    let files: Vec<_> = files.iter().map(String::as_str).collect();
    let mut bench = Bench::new(&files);
    for n in 0..200 {
        bench.execute(&format!("c{n}"));
    }
    let start = bench.now;
    let mut times: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    while bench.now < start + 60 * SECOND {
        bench.now = bench.engine.deadline().expect("a deadline");
        bench.effects.clear();
        bench.give(Event::Tick);
        let sent: Vec<_> = bench
            .effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Probe { probe, component, .. } => Some((*probe, component.name.clone())),
                _ => None,
            })
            .collect();
        assert!(sent.len() <= 5, "{} probes at once", sent.len());
        for (probe, name) in sent {
            times.entry(name).or_default().push(bench.now.saturating_sub(start));
            bench.give(Event::Probed { probe, outcome: Ok(()) });
        }
    }
    for (name, times) in times {
        assert!((5 * SECOND..=10 * SECOND).contains(&times[0]), "{name}: {times:?}");
        assert!(times.windows(2).all(|pair| pair[1] == pair[0] + 10 * SECOND), "{name}: {times:?}");
    }
}

#[test]
fn a_long_pause_is_not_made_up_for() {
    let mut bench = Bench::new(&[&service("a", PROBED)]);
    bench.execute("a");
    probed(&mut bench, true);
    let rhythm = bench.now;
    bench.now += 95 * SECOND;
    bench.give(Event::Tick);
    let probe = sent(&mut bench).expect("one probe");
    bench.give(Event::Probed { probe, outcome: Ok(()) });
    assert_eq!(sent(&mut bench), None);
    next_probe(&mut bench);
    assert_eq!(bench.now, rhythm + 100 * SECOND);
}

#[test]
fn a_probe_that_cannot_be_ended_fails_again_and_again() {
    let mut bench = Bench::new(&[&service("a", &format!("{PROBED}health_fail_threshold = 2"))]);
    bench.execute("a");
    next_probe(&mut bench);
    let end = bench.now + 60 * SECOND;
    while bench.now < end && bench.engine.state("a") != State::Stopping {
        bench.now = bench.engine.deadline().expect("a deadline");
        bench.give(Event::Tick);
        assert_eq!(sent(&mut bench), None, "one at a time");
    }
    assert_eq!(bench.engine.state("a"), State::Stopping);
    assert!(bench.engine.journal().entered("a", State::Degraded, 0).is_some());
}

#[test]
fn a_changed_interval_keeps_the_process() {
    let mut bench = Bench::new(&[&service("a", &format!("{PROBED}health_failures = 1"))]);
    bench.execute("a");
    let run = bench.run("a");
    probed(&mut bench, false);
    assert_eq!(bench.engine.state("a"), State::Degraded);
    bench.declare("0.toml", &service("a", "[lifecycle]\nhealth_file = \"/a\"\nhealth_interval = 2"));
    assert_eq!(bench.engine.state("a"), State::Degraded, "until the new probe passes");
    let before = bench.now;
    probed(&mut bench, true);
    assert!(bench.now <= before + 2 * SECOND, "{:?}", bench.now);
    assert_eq!((bench.engine.state("a"), bench.run("a")), (State::Active, run));
    probed(&mut bench, false);
    bench.declare("0.toml", &service("a", ""));
    assert_eq!((bench.engine.state("a"), bench.run("a")), (State::Active, run));
    assert_eq!(health_of(&bench, "a"), (crate::control::Health::None, None));
    assert_eq!(bench.engine.deadline(), None, "nothing is probed any more");
}

#[test]
fn nothing_is_probed_before_it_is_ready_or_after_it_is_told_to_stop() {
    let mut bench = Bench::new(&[&service("a", &format!("{PROBED}readiness = \"notify\""))]);
    bench.execute("a");
    bench.now += 20 * SECOND;
    bench.give(Event::Tick);
    assert_eq!(sent(&mut bench), None);
    let run = bench.run("a");
    bench.give(Event::Ready(run));
    let probe = next_probe(&mut bench);
    bench.ask(0, Request::Stop { name: "a".to_owned(), timeout_ms: None });
    assert!(bench.effects.iter().any(|e| matches!(e, Effect::CancelProbe(id) if *id == probe)));
    bench.give(Event::Probed { probe, outcome: Err("cancelled".into()) });
    assert_eq!(bench.engine.state("a"), State::Stopping);
}

#[test]
fn who_lets_go_in_the_same_batch_is_not_waited_for() {
    let provider = service("base", "[provides]\ncapabilities = [\"base\"]");
    let mut bench = Bench::new(&[&provider, &service("user", "[requires]\ncapabilities = [\"base\"]")]);
    bench.execute("base");
    bench.execute("user");
    let base = bench.run("base");
    let component = parse(&service("user", "")).component.expect("a component");
    let content = FileContent::Component(Box::new(component));
    bench.give(Event::Files(vec![
        FileChange { file: "0.toml".to_owned(), content: FileContent::Gone },
        FileChange { file: "1.toml".to_owned(), content },
    ]));
    assert!(bench.effects.iter().any(|effect| matches!(effect, Effect::Terminate(run) if *run == base)));
    assert_eq!(bench.engine.state("user"), State::Active, "nothing that it needs has gone");
}

#[test]
fn what_is_not_supported_fails_with_its_name() {
    let mut bench = Bench::new(&[&service("a", "")]);
    let run = bench.run("a");
    bench.give(Event::Unsupported { run, what: "isolation.root".into() });
    assert_eq!(bench.engine.state("a"), State::Failed);
    let detail = health_of(&bench, "a").1.expect("a reason");
    assert!(detail.starts_with("isolation.root is not supported by this version"), "{detail}");
}

/// The chain of causes of a component's newest change, newest first: who, its new state, why.
fn chain(bench: &Bench, name: &str) -> Vec<String> {
    let page = bench.engine.why_page(name, None).expect("a chain");
    assert_eq!((page.next, page.lost), (None, None));
    let words = |record: &Record| format!("{} {}: {}", record.component, record.to, record.cause);
    page.records.iter().map(words).collect()
}

#[test]
fn every_change_can_be_followed_to_where_it_began() {
    let base = service("base", "[provides]\ncapabilities = [\"b\"]");
    let top = service("top", "[requires]\ncapabilities = [\"b\"]\n[lifecycle]\nreadiness = \"notify\"");
    let mut bench = Bench::new(&[&top, &base]);
    assert_eq!(chain(&bench, "top"), ["top INACTIVE: declared by 0.toml"]);
    bench.execute("base");
    bench.execute("top");
    let run = bench.run("top");
    bench.give(Event::Ready(run));
    let base_up =
        ["base ACTIVE: executed", "base STARTING: requirements are up", "base INACTIVE: declared by 1.toml"];
    let top_up =
        ["top ACTIVE: reported ready", "top READY_WAIT: executed", "top STARTING: requirements are up"];
    assert_eq!(chain(&bench, "top"), [&top_up[..], &base_up[..]].concat());

    // A process that ends: what follows begins with its end.
    bench.end("base");
    let ended = "base FAILED: the process exited with status 1";
    assert_eq!(chain(&bench, "base"), ["base STARTING: restarted", ended]);
    assert_eq!(chain(&bench, "top"), ["top STOPPING: capability b is down", ended]);
    bench.execute("base");
    bench.end("top");
    let back = ["top STARTING: requirements are up", "top INACTIVE: the process exited with status 1"];
    let lost = ["top STOPPING: capability b is down", ended];
    assert_eq!(chain(&bench, "top"), [&back[..], &lost[..]].concat());

    // A request: with who asked.
    bench.execute("top");
    let stop = Request::Stop { name: "base".to_owned(), timeout_ms: None };
    bench.ask(0, stop);
    let asked = "base STOPPING: stop requested by uid 0, pid 1";
    assert_eq!(chain(&bench, "top"), ["top STOPPING: capability b is down", asked]);
    bench.end("top");
    bench.end("base");
    assert_eq!(chain(&bench, "base"), ["base INACTIVE: the process exited with status 1", asked]);

    // A file that goes: the component is no longer there to be asked.
    bench.ask(0, Request::Start { name: "base".to_owned(), timeout_ms: None });
    bench.execute("base");
    bench.execute("top");
    let content = FileContent::Gone;
    bench.give(Event::Files(vec![FileChange { file: "1.toml".to_owned(), content }]));
    let gone = "base STOPPING: no longer declared";
    assert_eq!(chain(&bench, "top"), ["top STOPPING: capability b is down", gone]);
    bench.end("top");
    bench.end("base");
    assert_eq!(chain(&bench, "base"), ["base REMOVED: no longer declared", gone]);
    assert!(bench.engine.why_page("nobody", None).is_none());
}

#[test]
fn a_chain_that_goes_further_back_than_the_journal_says_so() {
    let mut bench = Bench::new(&[&service("a", ""), &service("b", "[lifecycle]\nrestart_max = 100000")]);
    bench.execute("a");
    let newest = bench.engine.why_page("a", None).expect("a chain").records[0].revision;
    while bench.engine.journal().dropped() < newest {
        bench.execute("b");
        bench.end("b");
    }
    let page = bench.engine.why_page("a", None).expect("a chain");
    assert_eq!((page.records.len(), page.lost), (0, Some(newest)));
    let dropped = bench.engine.journal().dropped();
    assert_eq!(bench.engine.events_page(dropped - 2).lost, 2);
    assert_eq!(bench.engine.events_page(dropped).lost, 0);
}

#[test]
fn a_long_chain_comes_in_pages_that_lack_nothing() {
    let links: Vec<_> = (0..300)
        .map(|n| {
            let requires =
                if n == 0 { String::new() } else { format!("[requires]\ncapabilities = [\"c{}\"]", n - 1) };
            service(&format!("s{n}"), &format!("[provides]\ncapabilities = [\"c{n}\"]\n{requires}"))
        })
        .collect();
    let mut bench = Bench::new(&links.iter().map(String::as_str).collect::<Vec<_>>());
    for n in 0..300 {
        bench.execute(&format!("s{n}"));
    }
    let (mut seen, mut from) = (Vec::new(), None);
    loop {
        let page = bench.engine.why_page("s299", from).expect("a page");
        assert!(page.records.len() < 1000);
        seen.extend(page.records);
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    // Each is started and up; only the first was declared last of all that led to it.
    assert_eq!(seen.len(), 601);
    assert!(seen.windows(2).all(|pair| pair[0].after == Some(pair[1].revision)));
}

#[test]
fn whoever_waits_for_news_is_answered_by_what_is_newer() {
    let mut bench = Bench::new(&[&service("a", ""), &service("b", "")]);
    bench.execute("a");
    let now = bench.engine.journal().revision();
    let wait = |name: Option<&str>, since| {
        let until = Until::Changed { name: name.map(str::to_owned), since };
        Request::Wait { until, timeout_ms: None }
    };
    assert!(matches!(bench.ask(0, wait(None, now - 1)), Some(Answer::Done { .. })), "newer already");
    assert_eq!(bench.ask(0, wait(Some("b"), now)), None);
    bench.end("a");
    assert_eq!(bench.answer(), None, "another's change");
    bench.execute("b");
    assert!(matches!(bench.answer(), Some(Answer::Done { revision, .. }) if revision > now));
}

#[test]
fn who_finds_it_elsewhere_in_the_same_batch_is_not_waited_for() {
    let provides = "[provides]\ncapabilities = [\"x\"]";
    let user = service("user", "[requires]\ncapabilities = [\"x\"]");
    let mut bench = Bench::new(&[&service("old", provides), &service("new", ""), &user]);
    for name in ["old", "new", "user"] {
        bench.execute(name);
    }
    let old = bench.run("old");
    let component = parse(&service("new", provides)).component.expect("a component");
    let content = FileContent::Component(Box::new(component));
    bench.give(Event::Files(vec![
        FileChange { file: "0.toml".to_owned(), content: FileContent::Gone },
        FileChange { file: "1.toml".to_owned(), content },
    ]));
    assert!(bench.effects.iter().any(|effect| matches!(effect, Effect::Terminate(run) if *run == old)));
    assert_eq!(bench.engine.state("user"), State::Active, "nothing that it needs has gone");
}

#[test]
fn what_fails_while_a_cycle_catches_it_ends_up_in_the_cycle() {
    let ready = "[lifecycle]\nreadiness = \"notify\"\nreadiness_timeout = 1";
    let a = |more: &str| service("a", &format!("{ready}\n[provides]\ncapabilities = [\"x\"]\n{more}"));
    let mut bench = Bench::new(&[&a("")]);
    bench.execute("a");
    bench.now += SECOND;
    bench.give(Event::Tick);
    assert_eq!(bench.engine.state("a"), State::Stopping, "not ready in time");
    bench.declare("0.toml", &a("[requires]\ncapabilities = [\"x\"]"));
    bench.end("a");
    assert_eq!(bench.engine.state("a"), State::Cycle);
    bench.declare("0.toml", &a(""));
    assert_eq!(bench.engine.state("a"), State::Starting);
}

#[test]
fn an_upgrade_says_which_way_was_taken_and_how_long_it_took() {
    use UpgradeLevel::{Checkpoint, FdPassing};
    let declared = |handoff: &str| service("a", &format!("[lifecycle]\nhandoff = {handoff:?}"));
    let upgrade = |fallback| Request::Upgrade { name: "a".to_owned(), fallback, timeout_ms: None };
    for (handoff, above) in [
        ("none", &[][..]),
        ("state-file", &[]),
        ("fd-passing", &[FdPassing]),
        ("checkpoint", &[Checkpoint, FdPassing]),
    ] {
        let mut bench = Bench::new(&[&declared(handoff)]);
        bench.execute("a");
        let refused = matches!(bench.ask(0, upgrade(false)), Some(Answer::Refused { message, .. })
            if message.contains("not part of this version"));
        assert_eq!(refused, !above.is_empty(), "{handoff}");
        if refused {
            assert_eq!(bench.engine.state("a"), State::Active, "a refusal changes nothing");
            assert_eq!(bench.ask(0, upgrade(true)), None);
        }
        bench.now += SECOND;
        bench.end("a");
        bench.now += SECOND / 4;
        bench.execute("a");
        let Some(Answer::Upgraded(done)) = bench.answer() else {
            panic!("{handoff}: {:?}", bench.answer());
        };
        assert_eq!(done.level, UpgradeLevel::Restart);
        assert_eq!(done.passed_over.iter().map(|way| way.level).collect::<Vec<_>>(), above, "{handoff}");
        assert_eq!(done.gap_us, Some(1_250_000));
    }
    let mut bench = Bench::new(&[&declared("none")]);
    assert_eq!(bench.ask(0, upgrade(true)), None);
    bench.end("a");
    bench.execute("a");
    assert!(matches!(bench.answer(), Some(Answer::Upgraded(done)) if done.gap_us.is_none()), "it was not up");
    assert!(matches!(bench.ask(1000, upgrade(true)), Some(Answer::Refused { .. })), "only for root");
}

#[test]
fn readiness_is_what_is_declared_and_how_far_it_is() {
    let ready = "[lifecycle]\nreadiness_command = \"true\"\nreadiness_timeout = 7\nreadiness_interval = 2";
    let mut bench =
        Bench::new(&[&service("a", ready), &service("b", ""), &service("c", "type = \"oneshot\"")]);
    bench.execute("a");
    bench.execute("b");
    bench.now += 3 * SECOND;
    let mut look = |name: &str| {
        let request = Request::Readiness { name: Some(name.to_owned()), after: None };
        let Some(Answer::Readiness(page)) = bench.ask(1000, request) else {
            panic!("no answer");
        };
        page.components[0].clone()
    };
    let a = look("a");
    assert_eq!((a.method.as_str(), a.timeout_ms, a.interval_ms), ("command", Some(7000), Some(2000)));
    assert_eq!((a.readiness, a.for_ms), (Readiness::Waiting, Some(3000)));
    let b = look("b");
    assert_eq!((b.method.as_str(), b.timeout_ms, b.interval_ms), ("none", None, None));
    assert_eq!((b.readiness, b.for_ms), (Readiness::Ready, Some(3000)));
    let c = look("c");
    assert_eq!((c.method.as_str(), c.readiness, c.for_ms), ("exit", Readiness::Waiting, None));
    let run = bench.run("a");
    bench.give(Event::Ready(run));
    bench.now += SECOND;
    bench.end("b");
    let request = Request::Readiness { name: None, after: None };
    let Some(Answer::Readiness(page)) = bench.ask(1000, request) else {
        panic!("no answer");
    };
    let seen: Vec<_> = page.components.iter().map(|c| (c.readiness, c.for_ms)).collect();
    assert_eq!(seen[0], (Readiness::Ready, Some(1000)));
    assert_eq!(seen[1].0, Readiness::Waiting, "restarted");
}

#[test]
fn a_capability_taken_for_a_component_is_told_with_its_provider() {
    let mut bench = Bench::new(&[&service("a", "[provides]\ncapabilities = [\"net.up\"]")]);
    match bench.ask(0, Request::Stop { name: "net.up".to_owned(), timeout_ms: None }) {
        Some(Answer::Refused { message, near }) => {
            assert_eq!(message, "\"net.up\" is no component but a capability of a");
            assert_eq!(near, ["a"]);
        }
        other => panic!("{other:?}"),
    }
}
