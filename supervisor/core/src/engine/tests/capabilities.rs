//! Capabilities: several providers, optional ones, lost and regained ones.

use super::*;
use crate::control::CapabilityStatus;

const PROVIDES: &str = "[provides]\ncapabilities = [\"x\"]\n";
const REQUIRES: &str = "[requires]\ncapabilities = [\"x\"]\n";
const OPTIONAL: &str = "[optional]\ncapabilities = [\"x\"]\n";
const PROBED_AT_ONCE: &str = "[lifecycle]\nhealth_file = \"/a\"\nhealth_interval = 10\nhealth_failures = 1\n";

impl Bench {
    /// How well `x` is, by what its providers grant.
    fn level(&self) -> CapabilityStatus {
        let nodes = self.engine.graph_page(None).components.into_iter();
        let providers = nodes.filter(|node| node.provides.iter().any(|cap| cap == "x"));
        providers.map(|node| node.level).max().expect("a provider")
    }

    fn fall_ill(&mut self, name: &str) {
        probed(self, false);
        assert_eq!(self.engine.state(name), State::Degraded);
    }
}

/// Two providers, the first one with more in its file, and one that requires what they provide, all
/// running.
fn with_two_providers(more: &str) -> Bench {
    let provider = |name: &str| {
        let more = if name == "one" { more } else { "" };
        service(name, &format!("{PROVIDES}{more}"))
    };
    let mut bench = Bench::new(&[&provider("one"), &provider("two"), &service("user", REQUIRES)]);
    for name in ["one", "two", "user"] {
        bench.execute(name);
    }
    assert_eq!(bench.states(["one", "two", "user"]), [State::Active; 3]);
    bench
}

#[test]
fn those_follow_a_start_that_lack_nothing_else() {
    let user = |name: &str, more: &str| service(name, &format!("{REQUIRES}{more}"));
    let mut bench = Bench::new(&[
        &service("one", PROVIDES),
        &user("next", ""),
        &service("patient", OPTIONAL),
        &service("other", "[provides]\ncapabilities = [\"y\"]\n"),
        &service("both", "[requires]\ncapabilities = [\"x\", \"y\"]\n"),
        &user("stopped", ""),
        &service("stranger", "[requires]\ncapabilities = [\"z\"]\n"),
    ]);
    bench.stop("stopped");
    let followers = |bench: &Bench, name: &str, most: usize| {
        let mut found: Vec<_> =
            bench.engine.followers(bench.run(name), most).iter().map(|c| c.name.clone()).collect();
        found.sort_unstable();
        found
    };
    assert_eq!(followers(&bench, "one", 9), ["next", "patient"]);
    assert_eq!(followers(&bench, "one", 1).len(), 1);
    assert!(followers(&bench, "other", 9).is_empty());
    bench.execute("other");
    assert_eq!(followers(&bench, "one", 9), ["both", "next", "patient"]);
    // They were told the truth, and none follows twice.
    let run = bench.run("one");
    bench.effects.clear();
    bench.give(Event::Created { run, pid: 7 });
    bench.give(Event::Executed(run));
    for name in ["next", "patient", "both"] {
        bench.run(name);
    }
    assert!(bench.engine.followers(run, 9).is_empty());
}

#[test]
fn a_requirement_stays_up_while_one_of_two_providers_is() {
    let mut bench = with_two_providers("");
    let run = bench.run("user");
    // One after the other, and each comes back: nobody notices.
    for name in ["one", "two"] {
        bench.end(name);
        assert_eq!(bench.states([name, "user"]), [State::Starting, State::Active]);
        assert_eq!(bench.level(), CapabilityStatus::Up);
        bench.execute(name);
    }
    bench.stop("one");
    bench.end("one");
    assert_eq!((bench.engine.state("user"), bench.run("user")), (State::Active, run));
    // The last one goes: now the user does, and before it.
    bench.stop("two");
    assert_eq!(bench.states(["two", "user"]), [State::Stopping; 2]);
    let two = bench.run("two");
    assert!(bench.has_told(run) && !bench.has_told(two));
    bench.end("user");
    assert!(bench.has_told(two));
    bench.end("two");
    assert_eq!(bench.states(["one", "two", "user"]), [State::Inactive; 3]);
    // Either one brings it back.
    bench.ask(0, Request::Start { name: "one".to_owned(), timeout_ms: None });
    bench.execute("one");
    assert_eq!(bench.engine.state("user"), State::Starting);
}

#[test]
fn a_capability_is_as_well_as_the_best_of_its_providers() {
    let mut bench = with_two_providers(PROBED_AT_ONCE);
    let run = bench.run("user");
    let all = |bench: &Bench| bench.states(["one", "two", "user"]);
    bench.fall_ill("one");
    assert_eq!(all(&bench), [State::Degraded, State::Active, State::Active]);
    assert_eq!(bench.level(), CapabilityStatus::Up);
    // The healthy one goes: what is left is degraded, and that is enough.
    bench.stop("two");
    bench.end("two");
    assert_eq!(bench.level(), CapabilityStatus::Degraded);
    assert_eq!((bench.engine.state("user"), bench.run("user")), (State::Active, run));
    bench.ask(0, Request::Start { name: "two".to_owned(), timeout_ms: None });
    bench.execute("two");
    assert_eq!(bench.level(), CapabilityStatus::Up);
    // The ill one goes for good: the other was there all along.
    bench.stop("one");
    bench.end("one");
    assert_eq!((bench.engine.state("user"), bench.run("user")), (State::Active, run));
}

#[test]
fn a_degraded_capability_lets_others_start() {
    let base = service("base", &format!("{PROVIDES}{PROBED_AT_ONCE}"));
    let mut bench = Bench::new(&[&base]);
    bench.execute("base");
    bench.fall_ill("base");
    assert_eq!(bench.level(), CapabilityStatus::Degraded);
    bench.declare("user.toml", &service("user", &format!("{REQUIRES}{OPTIONAL}")));
    assert_eq!(bench.engine.state("user"), State::Starting);
}

#[test]
fn an_optional_capability_is_waited_for_only_while_it_may_come() {
    use State::{Active, Inactive, Starting};
    let waits = service("user", OPTIONAL);
    // Nobody provides it.
    assert_eq!(Bench::new(&[&waits]).engine.state("user"), Starting);
    // Its provider comes up: then, and not before.
    let mut bench = Bench::new(&[&service("base", PROVIDES), &waits]);
    assert_eq!(bench.engine.state("user"), Inactive);
    bench.execute("base");
    bench.execute("user");
    // It goes: nobody stops for that, and a restart waits for it again.
    bench.end("base");
    assert_eq!(bench.states(["base", "user"]), [Starting, Active]);
    bench.end("user");
    assert_eq!(bench.engine.state("user"), Inactive);
    bench.execute("base");
    assert_eq!(bench.engine.state("user"), Starting);
    // Its provider is stopped by a user.
    let mut bench = Bench::new(&[&service("base", PROVIDES), &waits]);
    bench.stop("base");
    assert_eq!(bench.engine.state("user"), Starting);
    // It cannot be executed, or fails too often.
    let mut bench = Bench::new(&[&service("base", PROVIDES), &waits]);
    let run = bench.run("base");
    bench.give(Event::NotExecuted { run, step: "execute the binary".into(), errno: 2 });
    assert_eq!(bench.states(["base", "user"]), [State::Failed, Starting]);
    let rarely = service("base", &format!("{PROVIDES}[lifecycle]\nrestart_max = 0"));
    let mut bench = Bench::new(&[&rarely, &waits]);
    bench.end("base");
    assert_eq!(bench.states(["base", "user"]), [State::Backoff, Starting]);
    // It is a oneshot that ended with an error.
    let once = service("base", &format!("type = \"oneshot\"\n{PROVIDES}"));
    let mut bench = Bench::new(&[&once, &waits]);
    bench.end("base");
    assert_eq!(bench.states(["base", "user"]), [State::Failed, Starting]);
    // It waits itself for what nobody provides, or is on a cycle.
    let stuck = service("base", &format!("{PROVIDES}[requires]\ncapabilities = [\"nowhere\"]"));
    assert_eq!(Bench::new(&[&stuck, &waits]).states(["base", "user"]), [Inactive, Starting]);
    let ring =
        service("base", "[provides]\ncapabilities = [\"x\", \"y\"]\n[requires]\ncapabilities = [\"y\"]");
    assert_eq!(Bench::new(&[&ring, &waits]).states(["base", "user"]), [State::Cycle, Starting]);
    // Each waits for the other: neither does.
    let other = service("other", "[provides]\ncapabilities = [\"y\"]\n[optional]\ncapabilities = [\"x\"]");
    let one = service("one", "[provides]\ncapabilities = [\"x\"]\n[optional]\ncapabilities = [\"y\"]");
    let started = Bench::new(&[&other, &one]).states(["one", "other"]);
    assert!(started.contains(&Starting), "{started:?}");
}

#[test]
fn what_was_lost_and_is_regained_brings_everything_back_but_what_is_done() {
    let once =
        service("once", &format!("type = \"oneshot\"\n{REQUIRES}[provides]\ncapabilities = [\"done\"]"));
    let user = service("user", "[requires]\ncapabilities = [\"x\", \"done\"]");
    let mut bench = Bench::new(&[&service("base", PROVIDES), &once, &user]);
    bench.execute("base");
    bench.execute("once");
    let run = bench.run("once");
    bench.give(Event::Ended(run, Exit::Code(0)));
    bench.execute("user");
    assert_eq!(bench.states(["base", "once", "user"]), [State::Active, State::Done, State::Active]);
    for _ in 0..3 {
        bench.stop("base");
        bench.end("user");
        bench.end("base");
        assert_eq!(bench.states(["base", "once", "user"]), [State::Inactive, State::Done, State::Inactive]);
        bench.ask(0, Request::Start { name: "base".to_owned(), timeout_ms: None });
        bench.execute("base");
        bench.execute("user");
        assert_eq!(bench.states(["base", "once", "user"]), [State::Active, State::Done, State::Active]);
        assert_eq!(bench.run("once"), run, "it is not run again");
    }
}

#[test]
fn an_undeclared_provider_does_not_wait_for_whom_another_serves() {
    let mut bench = Bench::new(&[&service("base", PROVIDES), &service("user", REQUIRES)]);
    bench.execute("base");
    bench.execute("user");
    let (base, user) = (bench.run("base"), bench.run("user"));
    // Its file goes and the kernel's comes, in one change: the capability never goes down.
    let kernel = format!("[component]\nname = \"kernel\"\n{PROVIDES}");
    bench.change(&[("0.toml", None), ("kernel.toml", Some(&kernel))]);
    assert_eq!((bench.engine.state("user"), bench.run("user")), (State::Active, user));
    assert!(bench.has_told(base));
    bench.give(Event::Ended(base, Exit::Signal(15)));
    assert_eq!(bench.engine.state("base"), State::Removed);
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
