//! Groups that components share: who waits for which, and what a change of one means.

use super::*;

fn slice(name: &str, limits: &str) -> String {
    format!("[slice]\nname = \"{name}\"\n[resources]\n{limits}\n")
}

fn inside(name: &str, slice: &str) -> String {
    service(name, &format!("[resources]\nslice = \"{slice}\""))
}

impl Bench {
    /// Slices whose limits were to be changed since the last look, with their limits of memory.
    fn limited_slices(&mut self) -> Vec<(String, Option<u64>)> {
        let effects = std::mem::take(&mut self.effects);
        let (limits, rest) = effects.into_iter().partition(|e| matches!(e, Effect::LimitSlice(_)));
        self.effects = rest;
        let limits: Vec<Effect> = limits;
        let one = |effect| match effect {
            Effect::LimitSlice(slice) => Some((slice.name.clone(), slice.resources.memory_max)),
            _ => None,
        };
        limits.into_iter().filter_map(one).collect()
    }

    fn told_of(&self, name: &str) -> String {
        let all = self.engine.status_page(None).components;
        all.into_iter().find(|c| &*c.name == name).and_then(|c| c.detail).unwrap_or_default()
    }

    fn around(&self, name: &str) -> Vec<String> {
        let component = &self.engine.find(name).expect("the component").component;
        self.engine.slices_around(component).iter().map(|slice| slice.name.clone()).collect()
    }
}

#[test]
fn a_component_waits_for_every_slice_that_it_lies_in() {
    let mut bench = Bench::new(&[&inside("a", "batch/nightly")]);
    assert_eq!(bench.states(["a"]), [State::Inactive]);
    assert!(bench.told_of("a").contains("waits for slice batch (nobody"), "{}", bench.told_of("a"));
    bench.declare("inner.toml", &slice("batch/nightly", "pids_max = 5"));
    assert!(bench.told_of("a").contains("waits for slice batch (nobody"), "{}", bench.told_of("a"));
    bench.declare("outer.toml", &slice("batch", ""));
    assert_eq!(bench.states(["a"]), [State::Starting]);
    assert_eq!(bench.around("a"), ["batch.slice", "batch.slice/nightly.slice"]);
    // A slice is no component, and nothing of its file is refused.
    let status = bench.engine.status_page(None);
    assert_eq!((status.components.len(), status.rejected.len()), (1, 0));
    assert_eq!(status.components[0].slice.as_deref(), Some("batch/nightly"));
}

#[test]
fn what_lies_in_a_slice_that_is_removed_is_stopped_and_comes_back_with_it() {
    let mut bench =
        Bench::new(&[&slice("batch", "memory_max = \"1M\""), &inside("a", "batch"), &service("b", "")]);
    for name in ["a", "b"] {
        bench.execute(name);
    }
    bench.change(&[("0.toml", None)]);
    assert_eq!(bench.states(["a", "b"]), [State::Stopping, State::Active]);
    bench.end("a");
    assert_eq!(bench.states(["a"]), [State::Inactive]);
    assert!(bench.told_of("a").contains("slice batch"), "{}", bench.told_of("a"));
    bench.declare("0.toml", &slice("batch", ""));
    assert_eq!(bench.states(["a"]), [State::Starting]);
    // One that moves to another file was never away.
    bench.execute("a");
    bench.change(&[("0.toml", None), ("other.toml", Some(&slice("batch", "")))]);
    assert_eq!(bench.states(["a"]), [State::Active]);
}

#[test]
fn another_place_restarts_and_other_limits_do_not() {
    let mut bench = Bench::new(&[&slice("one", ""), &slice("two", ""), &inside("a", "one")]);
    bench.execute("a");
    bench.declare("0.toml", &slice("one", "memory_max = \"1M\""));
    assert_eq!(bench.states(["a"]), [State::Active]);
    bench.declare("2.toml", &inside("a", "two"));
    assert_eq!(bench.states(["a"]), [State::Stopping]);
    let records = bench.engine.events_page(0).records;
    let told = records.iter().any(|record| record.cause.to_string().contains("resources.slice"));
    assert!(told, "{records:?}");
}

#[test]
fn the_first_of_two_files_that_declare_a_slice_is_in_force() {
    let mut bench = Bench::new(&[&slice("one", "pids_max = 5"), &slice("one", "pids_max = 6")]);
    let rejected = bench.engine.status_page(None).rejected;
    assert_eq!(rejected.len(), 1);
    let message = &rejected[0].diagnostics[0].message;
    assert_eq!(message, "slice \"one\" is declared by 0.toml and by 1.toml");
    let limits = |bench: &Bench| bench.engine.slices_page(None).slices[0].limits["pids.max"].clone();
    assert_eq!(limits(&bench), "5");
    bench.change(&[("0.toml", None)]);
    assert_eq!(limits(&bench), "6");
}

#[test]
fn limits_of_a_slice_are_changed_one_at_a_time_and_failures_are_told() {
    let with = |limit: &str| slice("batch", &format!("memory_max = \"{limit}\""));
    let mut bench = Bench::new(&[&with("1M"), &inside("a", "batch")]);
    bench.execute("a");
    let name = || "batch.slice".to_owned();
    assert_eq!(bench.limited_slices(), [(name(), Some(1 << 20))]);
    bench.declare("0.toml", &with("2M"));
    bench.declare("0.toml", &with("3M"));
    assert_eq!(bench.limited_slices(), [], "one is under way");
    bench.give(Event::SliceLimited("batch.slice".into(), Err("busy".into())));
    assert_eq!(bench.limited_slices(), [(name(), Some(3 << 20))]);
    assert!(!bench.told_of("a").contains("busy"), "it is tried again");
    bench.give(Event::SliceLimited("batch.slice".into(), Err("memory.max: busy".into())));
    let expected = "the new limits do not hold: slice batch: memory.max: busy";
    assert_eq!(bench.told_of("a"), expected);
    assert_eq!(bench.engine.slices_page(None).slices[0].detail.as_deref(), Some(expected));
    bench.declare("0.toml", &with("4M"));
    // What was under way is lost with the performer.
    let snapshot = serde_json::to_string(&bench.engine.snapshot()).expect("a snapshot");
    let snapshot = serde_json::from_str(&snapshot).expect("a snapshot");
    bench.engine = Engine::restore(Config::default(), snapshot).expect("an engine");
    bench.limited_slices();
    let facts = bench.engine.agreeing_facts();
    bench.give(Event::Resumed(facts.clone()));
    assert_eq!(bench.limited_slices(), [], "it goes on by itself");
    bench.give(Event::Resumed(Facts { slices: Vec::new(), ..facts }));
    assert_eq!(bench.limited_slices(), [(name(), Some(4 << 20))]);
    bench.give(Event::SliceLimited("batch.slice".into(), Ok(())));
    assert_eq!(bench.told_of("a"), "");
    bench.change(&[("0.toml", None)]);
    bench.give(Event::SliceLimited("batch.slice".into(), Err("late".into())));
    assert_eq!(bench.limited_slices(), []);
    // An engine that is made anew knows the slices.
    bench.declare("0.toml", &with("5M"));
    let engine = Engine::restore(Config::default(), bench.engine.snapshot()).expect("an engine");
    assert_eq!(engine.snapshot().files().collect::<Vec<_>>(), ["0.toml", "1.toml"]);
    assert_eq!(engine.slices_page(None).slices[0].components, 1);
}

#[test]
fn what_was_a_component_goes_when_a_slice_gets_its_name() {
    let mut bench = Bench::new(&[]);
    // As no file may call one any more.
    let mut component = parse(&service("x", "")).component.expect("a component");
    component.name = "x.slice".to_owned();
    let content = FileContent::Component(Box::new(component));
    bench.give(Event::Files(vec![FileChange { file: "x.toml".to_owned(), content }]));
    bench.execute("x.slice");
    bench.change(&[("x.toml", Some(&slice("x", ""))), ("a.toml", Some(&inside("a", "x")))]);
    assert_eq!(bench.states(["x.slice", "a"]), [State::Stopping, State::Starting]);
    let snapshot = bench.engine.snapshot();
    bench.engine = Engine::restore(Config::default(), snapshot).expect("an engine");
    let facts = bench.engine.agreeing_facts();
    bench.give(Event::Resumed(facts));
    bench.end("x.slice");
    assert!(bench.engine.find("x.slice").is_none());
    assert_eq!(bench.engine.slices_page(None).slices[0].components, 1);
}

#[test]
fn limits_that_were_written_for_a_start_are_no_longer_complained_of() {
    let with = |limit: &str| slice("batch", &format!("memory_max = \"{limit}\""));
    let mut bench = Bench::new(&[&with("1M"), &inside("a", "batch"), &inside("b", "batch/in")]);
    let failed = |bench: &mut Bench, why: &str| {
        bench.give(Event::SliceLimited("batch.slice".into(), Err(why.into())));
    };
    bench.execute("a");
    failed(&mut bench, "memory.max: busy");
    assert!(bench.told_of("a").contains("busy"), "{}", bench.told_of("a"));
    // One that is found running proves nothing of the slice; one that is created does.
    bench.declare("in.toml", &slice("batch/in", ""));
    let run = bench.run("b");
    bench.give(Event::Adopted { run, pid: 8 });
    assert!(bench.told_of("a").contains("busy"), "{}", bench.told_of("a"));
    bench.declare("c.toml", &inside("c", "batch/in"));
    bench.execute("c");
    assert_eq!(bench.told_of("a"), "");
    assert_eq!(bench.engine.slices_page(None).slices[0].detail, None);
    // What is under way has its own outcome.
    bench.declare("0.toml", &with("2M"));
    bench.declare("d.toml", &inside("d", "batch"));
    bench.execute("d");
    failed(&mut bench, "memory.max: still busy");
    assert!(bench.told_of("a").contains("still busy"), "{}", bench.told_of("a"));
}

#[test]
fn a_slice_that_is_removed_and_comes_back_has_one_writer_at_a_time() {
    let with = |limit: &str| slice("batch", &format!("memory_max = \"{limit}\""));
    let mut bench = Bench::new(&[&with("1M"), &inside("a", "batch")]);
    bench.execute("a");
    bench.limited_slices();
    bench.change(&[("0.toml", None)]);
    bench.declare("0.toml", &with("2M"));
    assert_eq!(bench.limited_slices(), [], "the first one is under way");
    bench.give(Event::SliceLimited("batch.slice".into(), Err("late".into())));
    assert_eq!(bench.limited_slices(), [("batch.slice".to_owned(), Some(2 << 20))]);
    bench.change(&[("0.toml", None)]);
    bench.give(Event::SliceLimited("batch.slice".into(), Err("late".into())));
    bench.declare("0.toml", &with("3M"));
    assert_eq!(bench.limited_slices(), [("batch.slice".to_owned(), Some(3 << 20))]);
    assert_eq!(bench.engine.slices_page(None).slices[0].detail, None);
}

#[test]
fn slices_come_in_pages_each_before_those_in_it() {
    let long = "x".repeat(150);
    let files: Vec<_> = (0..800)
        .map(|number| (format!("s{number}.toml"), slice(&format!("s{number:03}/{long}"), "")))
        .collect();
    let mut bench = Bench::new(&[&slice("a/b", ""), &slice("a", ""), &inside("web", "a/b")]);
    let files: Vec<_> = files.iter().map(|(file, text)| (file.as_str(), Some(text.as_str()))).collect();
    bench.change(&files);
    let first = bench.engine.slices_page(None);
    let seen: Vec<_> =
        first.slices[..2].iter().map(|one| (&*one.name, one.components, one.running)).collect();
    assert_eq!(seen, [("a", 1, 1), ("a/b", 1, 1)]);
    let mut names: Vec<_> = first.slices.into_iter().map(|one| one.name).collect();
    let mut next = first.next;
    assert!(next.is_some());
    while let Some(after) = next {
        let page = bench.engine.slices_page(Some(&after));
        names.extend(page.slices.into_iter().map(|one| one.name));
        next = page.next;
    }
    assert_eq!(names.len(), 800 + 2);
    assert!(names.is_sorted(), "and none twice");
}
