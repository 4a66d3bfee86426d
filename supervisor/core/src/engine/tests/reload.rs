//! What a changed declaration means for what runs.

use super::*;

impl Bench {
    /// Limits that were to be changed since the last look.
    fn limited(&mut self) -> Vec<Option<u64>> {
        let effects = std::mem::take(&mut self.effects);
        let (limits, rest) = effects.into_iter().partition(|e| matches!(e, Effect::Limit { .. }));
        self.effects = rest;
        let memory = |effect: Effect| match effect {
            Effect::Limit { component, .. } => component.resources.memory_max,
            _ => None,
        };
        let limits: Vec<Effect> = limits;
        limits.into_iter().map(memory).collect()
    }

    fn state_of(&self, name: &str) -> (State, Option<String>) {
        let all = self.engine.status_page(None).components;
        let found = all.into_iter().find(|c| &*c.name == name).expect("the component");
        (found.state, found.detail)
    }
}

#[test]
fn what_a_process_cannot_see_does_not_restart_it() {
    let first =
        "[provides]\ncapabilities = [\"x\"]\n[lifecycle]\nhealth_file = \"/a\"\nreadiness = \"notify\"";
    let mut bench = executed(first);
    let run = bench.run("a");
    bench.give(Event::Ready(run));
    for (more, restarts) in [
        ("[lifecycle]\nhealth_file = \"/a\"\nhealth_interval = 7", false),
        ("[lifecycle]\nhealth_file = \"/a\"\nhealth_failures = 1\nhealth_restart_threshold = 2", false),
        ("[lifecycle]\nhealth_file = \"/a\"\nhealth_start_grace = 9\nhealth_jitter = 1", false),
        ("[lifecycle]\nreadiness_file = \"/ready\"", false),
        ("[lifecycle]\nreload_signal = \"HUP\"\nrestart_max = 9\nrestart_window = 9", false),
        ("[provides]\ncapabilities = [\"y\", \"z\"]\n[requires]\ncapabilities = [\"kernel.memory\"]", false),
        ("[hotswap]\nshutdown_grace = 3", false),
        ("[resources]\nmemory_max = \"1M\"\nfiles_max = 100\ncpu_weight = 7", false),
        ("[resources]\ncgroup = \"other\"", true),
        ("[lifecycle]\nwatchdog_interval = 7", true),
        ("[hotswap]\nenv_vars = [\"A=1\"]", true),
        ("[isolation]\nnamespaces = [\"net\"]", true),
        ("[security]\ngroups = [7]", true),
        ("[environment]\numask = \"077\"", true),
        ("[resources]\nrlimits = { core = 0 }", true),
        ("[resources]\nnice = 5", true),
        ("[resources]\nscheduling = \"batch\"", true),
        ("[resources]\nio_class = \"idle\"", true),
        ("[resources]\ncpu_affinity = [0]", true),
        ("[resources]\noom_score_adjust = 100", true),
    ] {
        let run = bench.run("a");
        bench.declare("0.toml", &service("a", more));
        assert_eq!(bench.engine.state("a") == State::Stopping, restarts, "{more}");
        if restarts {
            bench.end("a");
            bench.execute("a");
        }
        assert_eq!(bench.run("a") != run, restarts, "{more}");
        assert_eq!(bench.engine.state("a"), State::Active, "{more}");
    }
}

#[test]
fn a_restart_for_a_declaration_names_the_key_and_what_it_stands_for() {
    for (handoff, expected) in [
        ("none", "component.args changed in 0.toml"),
        (
            "fd-passing",
            "component.args changed in 0.toml; restarted without a hot swap: its process has not said that it can \
             hand over (HELLO) and does not listen for SIGUSR1",
        ),
    ] {
        let file = |args: &str| {
            let more = format!("args = [\"{args}\"]\n[lifecycle]\nhandoff = \"{handoff}\"");
            service("a", &more)
        };
        let mut bench = Bench::new(&[&file("1")]);
        bench.execute("a");
        bench.declare("0.toml", &file("2"));
        assert_eq!(bench.state_of("a"), (State::Stopping, Some(expected.to_owned())));
    }
}

#[test]
fn changed_requirements_stop_only_what_they_no_longer_hold_for() {
    let base = service("base", "[provides]\ncapabilities = [\"x\"]");
    let user = |caps: &str| service("user", &format!("[requires]\ncapabilities = [{caps}]"));
    let mut bench = Bench::new(&[&base, &user("\"x\"")]);
    bench.execute("base");
    bench.execute("user");
    let run = bench.run("user");
    // What it provides changes under its user, who needs another of it by then.
    bench.declare("0.toml", &service("base", "[provides]\ncapabilities = [\"x\", \"y\"]"));
    bench.declare("1.toml", &user("\"x\", \"y\""));
    bench.declare("1.toml", &user("\"y\""));
    bench.declare("0.toml", &service("base", "[provides]\ncapabilities = [\"y\"]"));
    assert_eq!((bench.engine.state("user"), bench.run("user")), (State::Active, run));
    bench.declare("0.toml", &base);
    assert_eq!(bench.engine.state("user"), State::Stopping);
    bench.end("user");
    assert_eq!(bench.engine.state("user"), State::Inactive);
    assert_eq!(bench.engine.state("base"), State::Active);
    bench.declare("1.toml", &user("\"x\""));
    assert_eq!(bench.engine.state("user"), State::Starting, "met again");
}

#[test]
fn a_changed_grace_holds_for_what_runs() {
    let file = |grace: u64| service("a", &format!("[hotswap]\nshutdown_grace = {grace}"));
    let mut bench = Bench::new(&[&file(10)]);
    bench.execute("a");
    bench.declare("0.toml", &file(3));
    bench.stop("a");
    let left = bench.engine.deadline().map(|due| due.saturating_sub(bench.now));
    assert_eq!(left, Some(3 * SECOND));
}

#[test]
fn limits_are_changed_on_what_runs_one_change_at_a_time() {
    let file = |memory: u64| service("a", &format!("[resources]\nmemory_max = {memory}"));
    let mut bench = Bench::new(&[&file(1)]);
    bench.execute("a");
    let run = bench.run("a");
    bench.declare("0.toml", &file(2));
    assert_eq!(bench.limited(), [Some(2)]);
    bench.declare("0.toml", &file(3));
    bench.declare("0.toml", &file(4));
    assert_eq!(bench.limited(), []);
    bench.give(Event::Limited(run, Err("memory.max: device busy".into())));
    assert_eq!(bench.limited(), [Some(4)]);
    assert_eq!(bench.state_of("a"), (State::Active, None), "what was overtaken is not said");
    let before = bench.engine.journal().revision();
    bench.give(Event::Limited(run, Err("memory.max: device busy".into())));
    let said = "the new limits do not hold: memory.max: device busy".to_owned();
    assert_eq!(bench.state_of("a"), (State::Active, Some(said)));
    let record = bench.engine.journal().since(before).next().expect("a remark");
    assert_eq!((record.from, record.to), (State::Active, State::Active));
    assert_eq!(bench.engine.journal().entered("a", State::Active, before), None, "it entered nothing");
    bench.declare("0.toml", &file(5));
    bench.give(Event::Limited(run, Ok(())));
    assert_eq!(bench.state_of("a"), (State::Active, None));
    assert!(!bench.has_told_anybody());
    // An end in between: the next process has them from the start.
    bench.declare("0.toml", &file(6));
    bench.end("a");
    bench.limited();
    bench.give(Event::Limited(run, Err("gone".into())));
    bench.execute("a");
    assert_eq!(bench.state_of("a"), (State::Active, None));
    assert_eq!(bench.limited(), []);
}

#[test]
fn a_change_of_limits_that_was_lost_is_asked_for_again() {
    let file = |memory: u64| service("a", &format!("[resources]\nmemory_max = {memory}"));
    let mut bench = Bench::new(&[&file(1)]);
    bench.execute("a");
    bench.declare("0.toml", &file(2));
    assert_eq!(bench.limited(), [Some(2)]);
    let there = bench.engine.agreeing_facts();
    bench.give(Event::Resumed(there.clone()));
    assert_eq!(bench.limited(), [], "it goes on by itself");
    bench.give(Event::Resumed(Facts { limits: Vec::new(), ..there }));
    assert_eq!(bench.limited(), [Some(2)]);
}

#[test]
fn a_oneshot_that_is_done_and_becomes_a_service_is_started() {
    let mut bench = Bench::new(&[&service("a", "type = \"oneshot\"")]);
    let run = bench.run("a");
    bench.give(Event::Executed(run));
    bench.give(Event::Ended(run, Exit::Code(0)));
    assert_eq!(bench.engine.state("a"), State::Done);
    bench.declare("0.toml", &service("a", ""));
    assert_ne!(bench.run("a"), run);
    bench.execute("a");
    assert_eq!(bench.engine.state("a"), State::Active);
}
