//! Freezing and thawing, with real groups of the kernel's.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use yakiros_core::control::{Answer, Freezer, Request};
use yakiros_core::journal::{Cause, Exit, State};

use crate::guest::{Guest, answer, begin, sleeper, until};
use crate::handover::{Client, refused};
use crate::heir;
use crate::reexec::reexecute;

/// Longer than three intervals of the watchdog that is declared here.
const LONG: Duration = Duration::from_millis(1500);

/// A supervisor with groups of its own inside of the machine's hierarchy.
pub struct Grouped {
    guest: Option<Guest>,
    root: PathBuf,
}

impl std::ops::Deref for Grouped {
    type Target = Guest;

    fn deref(&self) -> &Guest {
        self.guest.as_ref().expect("it lives as long as the test")
    }
}

impl Drop for Grouped {
    fn drop(&mut self) {
        // What is in it ends with the namespace, frozen or not.
        drop(self.guest.take());
        if !std::thread::panicking() {
            until("the end of its groups", || remove(&self.root).ok());
        }
    }
}

/// Remove a group and those inside of it.
fn remove(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)?.flatten() {
        if entry.path().is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

/// Where the hierarchy is mounted.
fn hierarchy() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mut lines = mounts.lines().map(|line| line.split(' '));
    lines.find_map(|mut words| {
        let place = words.nth(1)?;
        (words.next() == Some("cgroup2")).then(|| place.into())
    })
}

/// With these component files. `None`, with the reason printed, where there are no groups to be had.
fn start(files: impl FnOnce(&Path) -> Vec<(&'static str, String)>) -> Option<Grouped> {
    start_with(files, |_| Vec::new())
}

/// The same with more arguments for the supervisor.
pub fn start_with(
    files: impl FnOnce(&Path) -> Vec<(&'static str, String)>,
    more: impl FnOnce(&Path) -> Vec<OsString>,
) -> Option<Grouped> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let place = hierarchy().filter(|_| nix::unistd::geteuid().is_root());
    let name = format!("yakiros-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let root = place.map(|place| place.join(name)).filter(|root| fs::create_dir(root).is_ok());
    let Some(root) = root.filter(|root| root.join("cgroup.freeze").exists()) else {
        // The suite `isolation` tries the same in a machine, whoever runs it.
        eprintln!("not tried: no control groups to be had here");
        return None;
    };
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::create_dir(dir.path().join("graph.d")).expect("configuration directory");
    symlink(&root, dir.path().join("no-cgroups")).expect("a way to the groups");
    for (file, text) in files(dir.path()) {
        fs::write(dir.path().join("graph.d").join(file), text).expect("component file");
    }
    let more = more(dir.path());
    let more: Vec<_> = more.iter().map(OsString::as_os_str).collect();
    let (program, groups) = (Path::new(env!("CARGO_BIN_EXE_graph-resolver")), dir.path().join("no-cgroups"));
    Some(Grouped { guest: Some(Guest::start_with(dir, "-pmf", program, &groups, &more)), root })
}

impl Grouped {
    fn freeze(&self, name: &str) -> Answer {
        self.ask(Request::Freeze { name: name.to_owned(), timeout_ms: None })
    }

    fn thaw(&self, name: &str) -> Answer {
        self.ask(Request::Thaw { name: name.to_owned() })
    }

    /// What a file of a group says.
    pub fn group(&self, group: &str, file: &str) -> String {
        fs::read_to_string(self.root.join("graph").join(group).join(file)).expect("a group")
    }

    fn stands_still(&self, group: &str) -> bool {
        self.group(group, "cgroup.events").contains("frozen 1")
    }
}

fn done(answer: Answer) -> String {
    match answer {
        Answer::Done { message, .. } => message,
        other => panic!("{other:?}"),
    }
}

/// A component that counts in a file and ends with 7 when it is told to end.
fn counter(name: &str, dir: &Path) -> String {
    let file = dir.join(name).display().to_string();
    let script =
        format!("trap 'exit 7' TERM; n=0; while :; do n=$((n+1)); echo $n > {file}; sleep 0.01; done");
    format!("[component]\nname = {name:?}\nbinary = \"/bin/sh\"\nargs = [\"-c\", {script:?}]\n")
}

fn count(guest: &Guest, name: &str) -> String {
    let file = guest.dir.path().join(name);
    until("a number", || fs::read_to_string(&file).ok().filter(|text| !text.is_empty()))
}

#[test]
fn what_is_frozen_stands_still_until_it_is_thawed() {
    let Some(guest) = start(|dir| vec![("a.toml", counter("a", dir))]) else { return };
    guest.wait("a", State::Active, None);
    count(&guest, "a");
    assert_eq!(done(guest.freeze("a")), "a is frozen");
    assert!(guest.stands_still("a"));
    let seen = (count(&guest, "a"), guest.group("a", "cpu.stat"));
    assert_eq!(done(guest.freeze("a")), "a is frozen already");
    let status = guest.component("a");
    assert_eq!((status.state, status.freezer), (State::Active, Some(Freezer::Frozen)));
    assert!(status.detail.is_some_and(|detail| detail.starts_with("frozen")));
    std::thread::sleep(Duration::from_millis(200));
    let usage = |stat: &str| stat.lines().next().map(str::to_owned);
    assert_eq!(count(&guest, "a"), seen.0);
    assert_eq!(usage(&guest.group("a", "cpu.stat")), usage(&seen.1), "not a microsecond");
    // The next process image keeps it so.
    let pid = status.pid;
    reexecute(&guest);
    let status = guest.component("a");
    assert_eq!((status.pid, status.freezer), (pid, Some(Freezer::Frozen)));
    assert!(guest.stands_still("a"));
    assert_eq!(count(&guest, "a"), seen.0);
    assert_eq!(done(guest.thaw("a")), "a is thawed");
    assert!(!guest.stands_still("a"));
    until("the next number", || (count(&guest, "a") != seen.0).then_some(()));
    assert_eq!(guest.component("a").freezer, None);
    assert_eq!(done(guest.thaw("a")), "a is not frozen");
    let causes: Vec<_> = guest.records(0).into_iter().map(|record| record.cause.to_string()).collect();
    let told = |text: &str| causes.iter().filter(|cause| cause.starts_with(text)).count();
    assert_eq!([told("freeze requested"), told("frozen"), told("thaw requested")], [1, 1, 1], "{causes:?}");
}

#[test]
fn nothing_is_expected_of_what_is_frozen() {
    const WATCHED: &str = "[lifecycle]\nwatchdog_interval = \"500ms\"\nrestart_max = 1000\n\
        health_check = \"tcp:127.0.0.1:1\"\nhealth_interval = \"500ms\"\nhealth_fail_threshold = 1000\n\
        health_restart_threshold = 1000\n";
    let Some(guest) = start(|_| vec![("a.toml", sleeper("a", WATCHED))]) else { return };
    // It never says that it is alive, and may be ended for that between any two lines up to here.
    until("the freeze", || matches!(guest.freeze("a"), Answer::Done { .. }).then_some(()));
    let (pid, revision) = (guest.component("a").pid, guest.revision());
    std::thread::sleep(LONG);
    let status = guest.component("a");
    assert_eq!((status.state, status.pid), (State::Active, pid));
    assert_eq!(guest.records(revision), []);
    done(guest.thaw("a"));
    until("the end of its interval", || {
        let records = guest.records(revision).into_iter();
        let mut causes = records.map(|record| record.cause);
        causes.any(|cause| matches!(cause, Cause::WatchdogExpired { .. })).then_some(())
    });
}

#[test]
fn what_is_frozen_can_be_stopped_and_killed_and_started_again() {
    let files = |dir: &Path| vec![("a.toml", counter("a", dir)), ("b.toml", counter("b", dir))];
    let Some(guest) = start(files) else { return };
    for name in ["a", "b"] {
        guest.wait(name, State::Active, None);
        count(&guest, name);
        done(guest.freeze(name));
    }
    let stop = Request::Stop { name: "a".to_owned(), timeout_ms: None };
    assert_eq!(done(guest.ask(stop)), "a is stopped");
    let records = guest.records(0);
    let end =
        records.iter().rev().find(|record| &*record.component == "a").map(|record| record.cause.clone());
    assert_eq!(end, Some(Cause::Ended(Exit::Code(7))), "it was thawed for its end");
    // One that is killed is followed by one that runs.
    let victim = guest.component("b").pid.expect("a process");
    let revision = guest.revision();
    fs::remove_file(guest.dir.path().join("b")).expect("its numbers");
    let mut kill = guest.command_inside(&["-p", "-m"]);
    assert!(kill.args(["kill", "-KILL", &victim.to_string()]).status().expect("kill").success());
    guest.wait("b", State::Active, Some(revision));
    assert_eq!(guest.component("b").freezer, None);
    count(&guest, "b");
    // So is one that is restarted.
    done(guest.freeze("b"));
    fs::remove_file(guest.dir.path().join("b")).expect("its numbers");
    done(guest.ask(Request::Restart { name: "b".to_owned(), timeout_ms: None }));
    count(&guest, "b");
    assert!(!guest.stands_still("b"));
}

#[test]
fn what_hands_over_is_frozen_whole_and_followed_up_when_it_is_thawed() {
    let Some(guest) = start(|dir| vec![("heir.toml", heir::file(dir, ""))]) else { return };
    guest.wait("heir", State::Active, None);
    let mut client = Client::new(&guest, 1);
    let first = client.ask("first");
    done(guest.freeze("heir"));
    assert!(guest.stands_still("heir") && guest.stands_still("heir/heir.gen-1"));
    client.send("second\n");
    let upgrade = Request::Upgrade {
        name: "heir".to_owned(),
        fallback: true,
        queue: false,
        strategy: None,
        timeout_ms: None,
    };
    assert_eq!(refused(guest.ask(upgrade)), "heir is frozen; thaw it first: graphctl thaw heir");
    // A declaration that calls for a new process waits for the thaw.
    let file = heir::file(guest.dir.path(), "");
    let changed = file.replace("env_vars = [", "env_vars = [\"OTHER=1\", ");
    assert_ne!(file, changed);
    guest.declare("heir.toml", &changed);
    done(guest.ask(Request::Reload { name: None }));
    assert_eq!(guest.component("heir").freezer, Some(Freezer::Frozen));
    done(guest.thaw("heir"));
    assert_eq!(client.receive("second").0, first.0 + 1, "the connection lives");
    until("the next generation", || (client.ask("line").1 == 2).then_some(()));
}

/// What is sent to the first process of a namespace before it is one: all of its start is held back meanwhile.
#[test]
fn what_comes_before_a_first_process_is_one_is_passed_on() {
    let Some(guest) = start(|_| Vec::new()) else { return };
    let all = guest.root.join("graph/cgroup.freeze");
    fs::write(&all, "1").expect("the groups of all");
    guest.declare("a.toml", &sleeper("a", "[isolation]\nnamespaces = [\"pid\"]\ninit = true"));
    let pid = until("its first process", || guest.status().0.first().and_then(|component| component.pid));
    assert_eq!(guest.component("a").state, State::Starting);
    let mut kill = guest.command_inside(&["-p", "-m"]);
    assert!(kill.args(["kill", "-HUP", &pid.to_string()]).status().expect("kill").success());
    fs::write(&all, "0").expect("the groups of all");
    // 128 and the number of SIGHUP, by which the program has ended.
    until("the end of the program", || {
        let mut records = guest.records(0).into_iter();
        records.any(|record| record.cause == Cause::Ended(Exit::Code(129))).then_some(())
    });
}

#[test]
fn what_cannot_be_frozen_is_told_with_what_to_do() {
    let files = |_: &Path| {
        let group = "[resources]\ncgroup = \"shop\"\n";
        vec![
            ("a.toml", sleeper("a", group)),
            ("b.toml", sleeper("b", "[resources]\ncgroup = \"shop/inner\"\n")),
            ("late.toml", sleeper("late", "[lifecycle]\nreadiness_check = \"false\"\n")),
        ]
    };
    let Some(guest) = start(files) else { return };
    guest.wait("a", State::Active, None);
    guest.wait("b", State::Active, None);
    guest.wait("late", State::ReadyWait, None);
    let refusals = [
        ("a", "a has no control group of its own: "),
        ("b", "is also that of a, or inside of it, or around it; give b its own in resources.cgroup"),
        ("late", "graphctl wait late --state ACTIVE"),
        ("none", "no component is named \"none\""),
    ];
    for (name, part) in refusals {
        let message = refused(guest.freeze(name));
        assert!(message.contains(part), "{message}");
    }
    done(guest.ask(Request::Stop { name: "b".to_owned(), timeout_ms: None }));
    assert!(refused(guest.freeze("b")).contains("b does not run"));
    // Alone in it, and nothing is started where it would stand still from the beginning.
    done(guest.freeze("a"));
    let started = begin(&guest, Request::Start { name: "b".to_owned(), timeout_ms: None });
    let message = refused(answer(&mut { started }));
    assert!(message.contains("it is frozen (graphctl thaw a)"), "{message}");
    let shown: Vec<_> = guest.says(&["status"]).lines().map(str::to_owned).collect();
    assert!(shown.iter().any(|line| line.starts_with("a ") && line.contains("ACTIVE (frozen)")), "{shown:?}");
    // By the command line, with and without success.
    let inspected = guest.says(&["inspect", "a"]);
    assert!(
        inspected.lines().any(|line| line.starts_with("freezer") && line.contains("holds")),
        "{inspected}"
    );
    let output = guest.graphctl(&["thaw", "a", "none", "b", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(value["done"][0]["message"], "a is thawed");
    assert_eq!((&value["failed"]["component"], &value["left"][0]), (&"none".into(), &"b".into()));
    assert_eq!(guest.says(&["freeze", "a"]), "a is frozen\n");
}

#[test]
fn without_groups_nothing_is_frozen_and_it_is_said() {
    let Some(guest) = Guest::start("live") else { return };
    guest.wait("steady", State::Active, None);
    let name = "steady".to_owned();
    match guest.ask(Request::Freeze { name, timeout_ms: None }) {
        Answer::Refused { message, .. } => assert!(message.contains("without control groups"), "{message}"),
        // Root's guests have those of the machine.
        Answer::Done { .. } => {}
        other => panic!("{other:?}"),
    }
}
