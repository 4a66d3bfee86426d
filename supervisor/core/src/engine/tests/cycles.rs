//! What the journal says of a cycle: who is on it, and which file closed it.

use super::*;

fn ring(name: &str, provides: &str, requires: &str) -> String {
    service(
        name,
        &format!("[provides]\ncapabilities = [{provides}]\n[requires]\ncapabilities = [{requires}]"),
    )
}

/// The chain of causes of a component in words, newest first.
fn chain(bench: &Bench, name: &str) -> Vec<String> {
    let page = bench.engine.why_page(name, None).expect("a chain");
    assert_eq!((page.next, page.lost), (None, None));
    let words = |r: &Record| format!("{}: {} -> {}, {}", r.component, r.from, r.to, r.cause);
    page.records.iter().map(words).collect()
}

#[test]
fn a_cycle_is_told_with_its_members_and_the_file_that_closed_it() {
    let mut bench = Bench::new(&[]);
    bench.declare("a.toml", &ring("a", "\"a\"", "\"b\""));
    bench.declare("user.toml", &ring("user", "\"user\"", "\"a\""));
    bench.declare("user-of-user.toml", &ring("user-of-user", "", "\"user\""));
    bench.declare("b.toml", &ring("b", "\"b\"", "\"a\""));
    bench.declare("free.toml", &service("free", ""));
    let closed = "dependency cycle of a, b, closed by b.toml";
    assert_eq!(chain(&bench, "a"), [format!("a: INACTIVE -> CYCLE, {closed}")]);
    assert_eq!(chain(&bench, "b"), [format!("b: INACTIVE -> CYCLE, {closed}")]);
    // What needs it leads there, through what it needs.
    let user = chain(&bench, "user-of-user");
    assert_eq!(
        user[..2],
        ["user-of-user", "user"].map(|n| format!("{n}: INACTIVE -> CYCLE, dependency cycle"))
    );
    assert!(user[2..].iter().any(|line| line.ends_with(closed)), "{user:?}");
    // What comes later and needs it begins with its own file.
    bench.declare("late.toml", &ring("late", "", "\"b\""));
    assert_eq!(
        chain(&bench, "late").last().map(String::as_str),
        Some("late: REMOVED -> INACTIVE, declared by late.toml")
    );
}

#[test]
fn a_change_of_what_runs_closes_a_cycle_too() {
    let mut bench = Bench::new(&[]);
    bench.declare("a.toml", &ring("a", "\"a\"", ""));
    bench.execute("a");
    bench.declare("b.toml", &ring("b", "\"b\"", "\"a\""));
    bench.execute("b");
    bench.declare("a.toml", &ring("a", "\"a\"", "\"b\""));
    for name in ["b", "a"] {
        bench.end(name);
        assert_eq!(bench.engine.state(name), State::Cycle);
    }
    let causes = chain(&bench, "a");
    assert_eq!(
        causes.last().map(String::as_str),
        Some("a: ACTIVE -> STOPPING, dependency cycle of a, b, closed by a.toml")
    );
}

#[test]
fn a_way_out_that_goes_closes_a_cycle() {
    for gone in [true, false] {
        let mut bench = Bench::new(&[]);
        bench.declare("out.toml", &ring("out", "\"b\"", ""));
        bench.declare("a.toml", &ring("a", "\"a\"", "\"b\""));
        bench.declare("b.toml", &ring("b", "\"b\"", "\"a\""));
        let without = Some(service("out", "")).filter(|_| !gone);
        bench
            .change(&[("out.toml", without.as_deref()), ("bystander.toml", Some(&service("bystander", "")))]);
        assert_eq!(bench.engine.state("a"), State::Cycle);
        assert_eq!(
            chain(&bench, "b"),
            ["b: INACTIVE -> CYCLE, dependency cycle of a, b, closed by out.toml"]
        );
    }
}

#[test]
fn a_long_cycle_is_told_in_short() {
    let member =
        |n: usize| ring(&format!("m{n:03}"), &format!("\"c{n}\""), &format!("\"c{}\"", (n + 1) % 300));
    let files: Vec<_> = (0..300).map(member).collect();
    let files: Vec<_> = files.iter().map(String::as_str).collect();
    let bench = Bench::new(&files);
    let [line] = &chain(&bench, "m007")[..] else { panic!("one record") };
    assert!(line.ends_with(" and 292 more, closed by 299.toml"), "{line}");
}
