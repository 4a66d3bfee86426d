//! The chain of causes that `graphctl why` walks.

use super::*;

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
    bench.stop("base");
    let asked = "base STOPPING: stop requested by uid 0, pid 1";
    assert_eq!(chain(&bench, "top"), ["top STOPPING: capability b is down", asked]);
    bench.end("top");
    bench.end("base");
    assert_eq!(chain(&bench, "base"), ["base INACTIVE: the process exited with status 1", asked]);

    // A file that goes: the component is no longer there to be asked.
    bench.ask(0, Request::Start { name: "base".to_owned(), timeout_ms: None });
    bench.execute("base");
    bench.execute("top");
    bench.change(&[("1.toml", None)]);
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
fn no_text_of_a_file_makes_the_journal_grow() {
    let long = "ä".repeat(100_000);
    let base = format!("[provides]\ncapabilities = [\"{long}\"]\n[lifecycle]\nhealth_check = \"{long}\"\n");
    let user = service("user", &format!("[requires]\ncapabilities = [\"{long}\"]"));
    let mut bench = Bench::new(&[&service("base", &base), &user]);
    bench.execute("base");
    bench.execute("user");
    while bench.engine.state("base") != State::Degraded {
        bench.now = bench.engine.deadline().expect("a deadline");
        bench.give(Event::Tick);
        if let Some(probe) = sent(&mut bench) {
            bench.give(Event::Probed { probe, outcome: Err(long.as_str().into()) });
        }
    }
    let detail = health_of(&bench, "base").1.expect("a reason");
    assert!(detail.ends_with(&long), "what holds now is told whole");
    bench.end("base");
    let told: Vec<_> = bench.engine.journal().since(0).map(|record| record.cause.to_string()).collect();
    let shortened = [("3 health probes in a row failed: ä", "ä…"), ("capability ä", "ä… is down")];
    for (begin, end) in shortened {
        let is_told = told.iter().any(|text| text.starts_with(begin) && text.ends_with(end));
        assert!(is_told, "{begin}: {told:.200?}");
    }
    assert!(told.iter().all(|text| text.len() < 600));
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
fn who_asked_is_told_with_a_name_that_is_only_text() {
    let mut bench = executed("");
    let names: [(&[u8], &str); 5] = [
        (b"", ""),
        (b"graphctl", "graphctl"),
        (b"\x1b[2Jx\n\"\\", "\\u{1b}[2Jx\\n\\\"\\\\"),
        ("ж\u{202e}".as_bytes(), "ж\\u{202e}"),
        (b"0123456789abc\xff\xe2", "0123456789abc\\xff\\xe2"),
    ];
    for (bytes, shown) in names {
        let mut comm = Comm::default();
        comm[..bytes.len()].copy_from_slice(bytes);
        let peer = Peer { comm: Some(comm), ..Peer::new(0, 77) };
        let request = Request::Restart { name: "a".to_owned(), timeout_ms: None };
        bench.give(Event::Request { client: ClientId(1), peer, request });
        bench.end("a");
        bench.execute("a");
        let page = bench.engine.why_page("a", None).expect("a chain");
        let cause = page.records.last().expect("a record").cause.to_string();
        assert_eq!(cause, format!("restart requested by uid 0, pid 77 \"{shown}\""));
    }
}
