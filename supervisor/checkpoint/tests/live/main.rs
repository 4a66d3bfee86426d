//! `graph-checkpoint` with a stand-in for CRIU: what that is told, and what is left when it fails.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, mem};

use yakiros_checkpoint::criu::Options;
use yakiros_checkpoint::order::{Dump, Event, Job, Line, Order, Restore, Step, VERSION};
use yakiros_checkpoint::store::{Metadata, Store};

/// Nothing here takes as long.
const LONG: Duration = Duration::from_secs(600);
/// What is not to end in this time.
const SHORT: Duration = Duration::from_millis(300);
/// What it says that it restored.
const RESTORED: i32 = 4711;

/// A store, and a process that is to be put into it.
struct World {
    directory: tempfile::TempDir,
    process: Child,
}

impl World {
    /// With a process that leads its session, as components do.
    fn new() -> Self {
        let mut command = Command::new("sleep");
        command.arg("1000000").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: setsid is a system call and touches no memory.
        unsafe { command.pre_exec(|| Ok(nix::unistd::setsid().map(drop)?)) };
        Self::with(command)
    }

    fn with(mut command: Command) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { directory, process: command.spawn().expect("a process") }
    }

    fn base(&self) -> PathBuf {
        self.directory.path().join("checkpoints")
    }

    fn notes(&self) -> Vec<String> {
        let notes = fs::read_to_string(self.directory.path().join("notes")).unwrap_or_default();
        notes.lines().map(str::to_owned).collect()
    }

    /// What is told when an order is carried out while CRIU behaves like this.
    fn order(&self, job: Job, criu: &str, version: &str) -> Vec<Event> {
        let order = Order { version: VERSION, base: self.base(), job };
        let mut command = Command::new(env!("CARGO_BIN_EXE_graph-checkpoint"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).env("FAKE_CRIU", criu);
        command.env("FAKE_CRIU_VERSION", version).env("FAKE_CRIU_NOTES", self.directory.path().join("notes"));
        let mut child = command.spawn().expect("it starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(&serde_json::to_vec(&order).expect("an order")).expect("it is read");
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        let text = String::from_utf8(output.stdout).expect("text");
        let line = |line: &str| serde_json::from_str::<Line>(line).expect("a line").event;
        let events: Vec<_> = text.lines().map(line).collect();
        let done = matches!(events.last(), Some(Event::Done { .. }));
        assert_eq!(output.status.code(), Some(i32::from(!done)), "{events:?}");
        events
    }

    fn dump(&self, rounds: u32, limit: Duration) -> Job {
        Job::Dump(Dump {
            component: "web".to_owned(),
            pid: i32::try_from(self.process.id()).expect("a number"),
            criu: fake(),
            options: Options::default(),
            rounds,
            leave_running: true,
            capabilities: vec!["network.http".to_owned()],
            preserve_fds: Vec::new(),
            limit,
            quota: None,
        })
    }

    fn restore(&self, limit: Duration) -> Job {
        Job::Restore(Restore {
            component: "web".to_owned(),
            id: None,
            criu: fake(),
            work: self.directory.path().to_owned(),
            inherit: vec![(1, "pipe:[99]".to_owned())],
            limit,
        })
    }

    fn metadata(&self) -> Metadata {
        let store = Store::open(&self.base()).expect("a store");
        store.find("web", None).expect("it is there").verify().expect("it is whole")
    }

    /// Nothing of a checkpoint, nor of an attempt.
    fn is_empty(&self) -> bool {
        fs::read_dir(self.base()).expect("a store").next().is_none()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn fake() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live/criu")
}

/// The step that failed, and why.
fn failure(events: &[Event]) -> (Step, &str) {
    match events.last() {
        Some(Event::Failed { step, reason }) => (*step, reason),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_process_is_put_away_and_made_again() {
    let world = World::new();
    let events = world.order(world.dump(4, LONG), "", "4.2.1");
    assert!(matches!(events.last(), Some(Event::Done { .. })), "{events:?}");
    let metadata = world.metadata();
    assert_eq!(metadata.original_pid, i32::try_from(world.process.id()).unwrap());
    assert_eq!((metadata.rounds, metadata.leave_running), (2, true), "the second round wrote little");
    let names: Vec<_> = metadata.images.iter().map(|image| image.name.as_str()).collect();
    assert_eq!(names, ["pages-1.img", "pre-1/pages-1.img", "pre-2/pages-1.img"]);
    assert_eq!(metadata.figures.map(|figures| figures.pages_written), Some(5));
    let begun: Vec<_> = events
        .iter()
        .filter_map(|event| if let Event::Begun { step } = event { Some(*step) } else { None })
        .collect();
    let expected = [
        Step::Open,
        Step::Criu,
        Step::Preflight,
        Step::Open,
        Step::PreDump,
        Step::PreDump,
        Step::Dump,
        Step::Commit,
    ];
    assert_eq!(begun, expected);
    let events = world.order(world.restore(LONG), "", "4.2.1");
    assert!(events.contains(&Event::Restored { pid: RESTORED }), "{events:?}");
    let notes = world.notes();
    assert_eq!(notes.len(), 4, "{notes:?}");
    assert!(notes[0].starts_with("pre-dump ") && !notes[0].contains("--prev-images-dir"));
    assert!(notes[1].contains(" --prev-images-dir ../pre-1 ") && notes[1].contains(" --track-mem "));
    assert!(
        notes[2].starts_with("dump ")
            && notes[2].contains(" --prev-images-dir pre-2 --track-mem --leave-running ")
    );
    assert!(notes[3].starts_with("restore ") && notes[3].contains(" --inherit-fd fd[1]:pipe:[99] "));
    // What CRIU wrote beside the images is gone.
    assert_eq!(fs::read_dir(world.directory.path()).unwrap().count(), 2, "the store and the notes");
}

#[test]
fn what_fails_leaves_nothing_and_is_named() {
    for (fails, step) in [("pre-dump", Step::PreDump), ("dump", Step::Dump)] {
        let world = World::new();
        let events = world.order(world.dump(4, LONG), &format!("{fails} fails"), "4.2.1");
        let reason = "CRIU: write: No space left on device (the disk is full)";
        assert_eq!(failure(&events), (step, reason));
        assert!(world.is_empty());
        // None before the call that is late has so little time.
        let rounds = u32::from(fails == "pre-dump");
        let events = world.order(world.dump(rounds, SHORT), &format!("{fails} late"), "4.2.1");
        assert_eq!(failure(&events), (step, "CRIU had not ended after 0.3 s and was killed"));
        assert!(world.is_empty());
    }
}

#[test]
fn a_restore_that_fails_leaves_the_checkpoint() {
    let world = World::new();
    world.order(world.dump(0, LONG), "", "4.2.1");
    let events = world.order(world.restore(LONG), "restore fails", "4.2.1");
    assert_eq!(failure(&events).0, Step::Restore);
    let events = world.order(world.restore(SHORT), "restore late", "4.2.1");
    assert_eq!(failure(&events), (Step::Restore, "CRIU had not ended after 0.3 s and was killed"));
    world.metadata();
    assert_eq!(fs::read_dir(world.directory.path()).unwrap().count(), 2, "the store and the notes");
}

#[test]
fn criu_is_not_asked_for_what_cannot_be() {
    let mut world = World::new();
    world.order(world.dump(0, LONG), "", "4.2.1");
    let told = world.notes().len();
    let events = world.order(world.restore(LONG), "", "4.2.0");
    let (step, reason) = failure(&events);
    assert_eq!(step, Step::Verify);
    assert!(reason.starts_with("its images were written by CRIU 4.2.1, and here is CRIU 4.2.0"), "{reason}");
    let id = world.metadata().id;
    fs::write(world.base().join("web").join(id.as_str()).join("pages-1.img"), "Dump\n").unwrap();
    let events = world.order(world.restore(LONG), "", "4.2.1");
    let (step, reason) = failure(&events);
    assert_eq!(step, Step::Verify);
    assert!(reason.ends_with("its image pages-1.img was changed after it had been written"), "{reason}");
    // One that is in the session of somebody else.
    let mut command = Command::new("sleep");
    command.arg("1000000").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut before = mem::replace(&mut world.process, command.spawn().expect("a process"));
    before.kill().and_then(|()| before.wait()).expect("it ends");
    let events = world.order(world.dump(0, LONG), "", "4.2.1");
    let (step, reason) = failure(&events);
    assert_eq!(step, Step::Preflight);
    assert!(reason.contains("the leader of its session, "), "{reason}");
    assert_eq!(world.notes().len(), told, "CRIU was not called");
}
