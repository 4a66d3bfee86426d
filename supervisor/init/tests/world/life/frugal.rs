//! What supervising costs while nothing happens: no wake-up, locked memory, no descriptor that is not needed.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use yakiros_core::journal::State;

use crate::guest::{Guest, PATIENCE, sleeper, until};

/// Components that do nothing.
pub(super) const IDLE: usize = 20;

/// Descriptors that the supervisor itself needs: standard ones, event loop, signals, timer, file changes, control socket;
/// and 15 that it lends to children, three for each of four at once and three for all.
const OWN_DESCRIPTORS: usize = 17 + 15;

/// For so long it must not wake up. Anything that is done each second shows.
const QUIET: Duration = Duration::from_secs(2);

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temporary directory");
    let config = dir.path().join("graph.d");
    fs::create_dir(&config).expect("configuration directory");
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/frugal/graph.d/idle.toml");
    let text = fs::read_to_string(case).expect("component file");
    for at in 0..IDLE {
        let name = format!("s{at}");
        fs::write(config.join(format!("{name}.toml")), text.replace("idle", &name)).expect("component file");
    }
    dir
}

/// A supervisor with idle components that has given back what starting needed.
pub(super) fn start() -> Option<Guest> {
    let guest = Guest::start_in(folder())?;
    guest.settle();
    // Whether it may lock or not: the last thing that starting does.
    until("locked memory, or its refusal", || {
        let refused = guest.log().contains("failed to lock memory");
        (refused || status(guest.init_pid(), "VmLck") > 0).then_some(())
    });
    Some(guest)
}

/// A number from the kernel's status of a process.
fn status(pid: i32, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no {key} in {text}"))
}

#[test]
fn an_idle_supervisor_does_not_wake_up() {
    let Some(guest) = start() else { return };
    let asked = guest.dir.path().join("asked");
    let command = format!("echo >> {}; sleep 0.1", asked.display());
    let lifecycle = format!("[lifecycle]\nreadiness_check = {command:?}\nreadiness_interval = 0.5");
    guest.declare("asked.toml", &sleeper("asked", &lifecycle));
    guest.wait("asked", State::Active, None);
    let runs = || fs::read_to_string(&asked).expect("what was asked").lines().count();
    let asked_before = runs();
    let pid = guest.init_pid();
    let switches = || status(pid, "voluntary_ctxt_switches");
    // Until the last answer to this test is over, which on a busy machine may take its time.
    until(&format!("{QUIET:?} without waking up"), || {
        let before = switches();
        sleep(QUIET);
        (switches() == before).then_some(())
    });
    assert_eq!(runs(), asked_before, "the readiness command was run again after ACTIVE");
}

/// What a process may lock, by the kernel's table of its limits.
fn lockable(pid: i32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
    let line = text.lines().find(|line| line.starts_with("Max locked memory"));
    line.unwrap_or_else(|| panic!("no locked memory in {text}")).to_owned()
}

#[test]
fn process_1_locks_what_it_uses_and_its_children_may_lock_as_before() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: only root may lock memory without limit");
    }
    let guest = Guest::start_as(folder(), "-pmf");
    guest.settle();
    let pid = guest.init_pid();
    until("locked memory", || (status(pid, "VmLck") > 0).then_some(()));
    guest.declare("late.toml", &sleeper("late", ""));
    guest.wait("late", State::Active, None);
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("children");
    let children: Vec<i32> = children.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert_eq!(children.len(), IDLE + 1);
    // To try whether it may lock without limit it takes its own limit away for a moment.
    let own = lockable(nix::unistd::getpid().as_raw());
    for child in children.into_iter().chain([pid]) {
        assert_eq!(lockable(child), own, "process {child}");
    }
}

#[test]
fn descriptors_grow_with_components_and_not_with_time() {
    let Some(guest) = start() else { return };
    let bound = OWN_DESCRIPTORS + IDLE;
    // A connection of this test may not be closed yet on the other side.
    until_few(&guest, bound);
    let before = descriptors(&guest).len();
    for _ in 0..3 {
        let since = guest.settle();
        let pid = guest.component("s0").pid.expect("a process");
        guest.kill(pid, "KILL");
        guest.wait("s0", State::Active, Some(since));
    }
    until_few(&guest, before);
}

/// What the supervisor has open.
fn descriptors(guest: &Guest) -> Vec<String> {
    let folder = fs::read_dir(format!("/proc/{}/fd", guest.init_pid())).expect("descriptors");
    let name = |entry: std::io::Result<fs::DirEntry>| {
        let target = fs::read_link(entry.ok()?.path()).ok()?;
        Some(target.display().to_string())
    };
    folder.filter_map(name).collect()
}

/// Wait until it has at most so many open; what it has tells more than their number.
fn until_few(guest: &Guest, most: usize) {
    let end = Instant::now() + PATIENCE;
    while descriptors(guest).len() > most {
        assert!(Instant::now() < end, "more than {most} descriptors: {:?}", descriptors(guest));
        sleep(Duration::from_millis(2));
    }
}
