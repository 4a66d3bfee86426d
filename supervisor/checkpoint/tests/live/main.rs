//! `graph-checkpoint` with a stand-in for CRIU: what that is told, and what is left when it fails.

mod namespaces;

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use std::{fs, mem};

use yakiros_checkpoint::criu::Options;
use yakiros_checkpoint::order::{
    After, Dump, Event, Given, Go, Job, Line, Move, Order, Remake, Restore, Step, VERSION,
};
use yakiros_checkpoint::store::{Metadata, Policy, Role, Store};

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
    given: Vec<Given>,
}

impl World {
    /// With a process that leads its session, as components do.
    fn new() -> Self {
        Self::of("sleep", &["1000000"])
    }

    /// With one whose memory is worth to be copied while it runs: it waits to write what it has there.
    fn large() -> Self {
        let world = Self::of("dd", &["if=/dev/zero", "bs=64M", "count=1"]);
        let path = format!("/proc/{}/status", world.process.id());
        let resident = || {
            let status = fs::read_to_string(&path).expect("a process");
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix(" kB"));
            line.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        while resident() < 64 << 10 {
            std::thread::sleep(Duration::from_millis(1));
        }
        world
    }

    fn of(program: &str, words: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        // SAFETY: setsid is a system call and touches no memory.
        unsafe { command.pre_exec(|| Ok(nix::unistd::setsid().map(drop)?)) };
        let mut world = Self::with(command);
        let link = fs::read_link(format!("/proc/{}/fd/1", world.process.id())).expect("its output");
        let of = |name: &str, link: &str| Given { role: Role::new(name, link), is_end: true };
        world.given =
            vec![Given { is_end: false, ..of("log", &link.to_string_lossy()) }, of("gone", "socket:[1]")];
        world
    }

    fn with(mut command: Command) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { directory, process: command.spawn().expect("a process"), given: Vec::new() }
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
        let (status, events) = self.carry_out(job, criu, version);
        let done = matches!(events.last(), Some(Event::Done { .. }));
        assert_eq!(status.code(), Some(i32::from(!done)), "{events:?}");
        events
    }

    fn carry_out(&self, job: Job, criu: &str, version: &str) -> (ExitStatus, Vec<Event>) {
        let output = self.begin(job, criu, version).wait_with_output().expect("it ends");
        let text = String::from_utf8(output.stdout).expect("text");
        let line = |line: &str| serde_json::from_str::<Line>(line).expect("a line").event;
        (output.status, text.lines().map(line).collect())
    }

    /// The same, and the processes are ended.
    fn ending(&self, limit: Duration, quota: Option<u64>) -> Job {
        match self.dump(0, limit) {
            Job::Dump(dump) => Job::Dump(Dump { after: After::End, quota, ..dump }),
            other => other,
        }
    }

    /// How the process ended, if it has; it is waited for if it should have.
    fn ended(&mut self) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt as _;
        self.process.try_wait().expect("a child").and_then(|status| status.signal())
    }

    fn begin(&self, job: Job, criu: &str, version: &str) -> Child {
        let order = Order { version: VERSION, base: self.base(), known: None, job };
        let mut command = Command::new(env!("CARGO_BIN_EXE_graph-checkpoint"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).env("FAKE_CRIU", criu);
        command.env("FAKE_CRIU_VERSION", version).env("FAKE_CRIU_NOTES", self.directory.path().join("notes"));
        let mut child = command.spawn().expect("it starts");
        let stdin = child.stdin.as_mut().expect("a pipe");
        serde_json::to_writer(&mut *stdin, &order).expect("it is read");
        stdin.write_all(b"\n").expect("it is read");
        child
    }

    fn dump(&self, rounds: u32, limit: Duration) -> Job {
        Job::Dump(Dump {
            component: "web".to_owned(),
            pid: i32::try_from(self.process.id()).expect("a number"),
            program: None,
            criu: fake(),
            options: Options::default(),
            rounds,
            after: After::Run,
            capabilities: vec!["network.http".to_owned()],
            preserve_fds: Vec::new(),
            given: self.given.clone(),
            limit,
            quota: None,
            keep: None,
        })
    }

    fn remake(&self, limit: Duration) -> Remake {
        let given = vec![("log".to_owned(), 1)];
        Remake { work: self.directory.path().to_owned(), given, wait: None, limit }
    }

    fn restore(&self, limit: Duration) -> Job {
        Job::Restore(Restore { component: "web".to_owned(), id: None, criu: fake(), how: self.remake(limit) })
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
    let world = World::large();
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
    let told = events.iter().find_map(|event| match event {
        Event::Written { id, bytes, figures, .. } => Some((id.clone(), *bytes, *figures)),
        _ => None,
    });
    assert_eq!(told, Some((metadata.id.clone(), metadata.image_size, metadata.figures)));
    assert_eq!(metadata.roles, [world.given[0].role.clone()], "what it does not have is not given again");
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
    assert!(
        notes[3].starts_with("restore ")
            && notes[3].contains(&format!(" --inherit-fd fd[1]:{} ", metadata.roles[0].link))
    );
    // What CRIU wrote beside the images is gone.
    assert_eq!(fs::read_dir(world.directory.path()).unwrap().count(), 2, "the store and the notes");
}

#[test]
fn rounds_are_left_out_where_they_save_nothing_or_cannot_be() {
    for (world, criu, expected) in
        [(World::new(), "", 0), (World::large(), "check fails", 0), (World::large(), "", 2)]
    {
        let events = world.order(world.dump(4, LONG), criu, "4.2.1");
        assert!(matches!(events.last(), Some(Event::Done { .. })), "{events:?}");
        assert_eq!(world.metadata().rounds, expected, "{criu}");
    }
}

/// Where the kernel does not tell what has changed, the real one is the proof that there are no rounds then.
#[test]
fn rounds_of_criu_itself_are_as_many_as_the_kernel_allows() {
    let ask = |words: &[&str]| {
        let asked = Command::new("criu").args(words).stdout(Stdio::null()).stderr(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    };
    if !ask(&["check", "--no-default-config"]) {
        return eprintln!("not tried: no CRIU that can be used here");
    }
    let tracks = ask(&["check", "--no-default-config", "--feature", "mem_dirty_track"]);
    let world = World::large();
    let events = match world.dump(4, LONG) {
        // Who reads what it would write is outside.
        Job::Dump(dump) => world.order(Job::Dump(Dump { criu: "criu".into(), ..dump }), "", "4.2.1"),
        other => panic!("{other:?}"),
    };
    assert!(matches!(events.last(), Some(Event::Done { .. })), "{events:?}");
    assert_eq!(world.metadata().rounds > 0, tracks);
}

#[test]
fn who_executes_another_program_than_is_there_now_is_not_written_to_be_moved() {
    let directory = tempfile::tempdir().expect("a directory");
    let program = directory.path().join("sleep");
    fs::copy("/bin/sleep", &program).expect("a copy");
    let mut world = World::of(&program.to_string_lossy(), &["1000000"]);
    let order = |world: &World| match world.ending(LONG, None) {
        Job::Dump(dump) => Job::Dump(Dump { program: Some(program.clone()), ..dump }),
        other => other,
    };
    let next = directory.path().join("next");
    fs::copy("/bin/sleep", &next).and_then(|_| fs::rename(&next, &program)).expect("it is replaced");
    let events = world.order(order(&world), "", "4.2.1");
    let reason = format!("its program, {}, has changed since it was started", program.display());
    assert_eq!(failure(&events), (Step::Preflight, &*reason));
    assert_eq!((world.ended(), world.notes().len()), (None, 0));
    let mut world = World::of(&program.to_string_lossy(), &["1000000"]);
    let events = world.order(order(&world), "", "4.2.1");
    assert!(matches!(events.last(), Some(Event::Done { .. })), "{events:?}");
    assert_eq!(world.ended(), Some(9));
}

#[test]
fn what_fails_leaves_nothing_and_is_named() {
    for (fails, step) in [("pre-dump", Step::PreDump), ("dump", Step::Dump)] {
        let world = World::large();
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
fn processes_end_when_their_checkpoint_is_there() {
    let mut world = World::new();
    let events = world.order(world.ending(LONG, None), "", "4.2.1");
    assert!(matches!(events.last(), Some(Event::Done { .. })), "{events:?}");
    assert_eq!(world.ended(), Some(9));
    assert!(!world.metadata().leave_running);
    let told: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Begun { step } => Some((true, *step)),
            Event::Ended { step, .. } => Some((false, *step)),
            _ => None,
        })
        .skip_while(|(_, step)| *step != Step::Dump)
        .collect();
    let expected = [(true, Step::Dump), (false, Step::Dump), (true, Step::Commit), (false, Step::Commit)];
    assert_eq!(told, expected);
    let counted = events.iter().find_map(|event| match event {
        Event::Counted { figures, .. } => figures.dump.map(|figures| figures.pages_written),
        _ => None,
    });
    assert_eq!(counted, Some(4096));
    // What CRIU counted decides nothing.
    let mut world = World::new();
    world.order(world.ending(LONG, None), "dump uncounted", "4.2.1");
    assert_eq!(world.ended(), Some(9));
    world.metadata();
}

#[test]
fn processes_run_on_when_their_checkpoint_cannot_be_kept() {
    let mut world = World::new();
    for (criu, quota, step, expected) in [
        ("", Some(1), Step::Commit, "all checkpoints together may have 1"),
        ("dump odd", None, Step::Commit, "which is not in its list"),
    ] {
        let events = world.order(world.ending(LONG, quota), criu, "4.2.1");
        let (failed, reason) = failure(&events);
        assert!(failed == step && reason.contains(expected), "{failed:?}: {reason}");
        assert_eq!(world.ended(), None);
        assert!(world.is_empty());
    }
    assert_eq!(world.notes().iter().filter(|note| *note == "refused").count(), 2);
    // Nobody is there to answer. What is left half made goes with the next cleanup.
    let (status, _) = world.carry_out(world.ending(LONG, None), "dump orphaned", "4.2.1");
    assert_eq!(status.code(), None);
    assert_eq!(world.ended(), None);
    assert_eq!(Store::open(&world.base()).expect("a store").ids("web").expect("a list"), []);
}

#[test]
fn a_checkpoint_stays_when_the_processes_do_not_end() {
    let mut world = World::new();
    let mut limit = SHORT;
    // How soon it comes so far is nobody's promise.
    let reason = loop {
        let events = world.order(world.ending(limit, None), "dump forgets", "4.2.1");
        match failure(&events) {
            (Step::End, reason) => break reason.to_owned(),
            (step, reason) => assert_eq!(step, Step::Dump, "{reason}"),
        }
        limit *= 2;
    };
    assert!(reason.contains(" is kept, but the processes may run on: "), "{reason}");
    assert_eq!(world.ended(), None);
    world.metadata();
}

#[test]
fn criu_ends_with_its_worker_and_holds_the_lock_until_then() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    let world = World::new();
    let mut worker = world.begin(world.dump(0, LONG), "dump late", "4.2.1");
    let criu = loop {
        let notes = world.notes();
        if let Some(pid) = notes.iter().find_map(|note| note.strip_prefix("late ")?.parse::<i32>().ok()) {
            break pid;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let held = fs::read_dir(format!("/proc/{criu}/fd")).expect("its descriptors");
    let held: Vec<_> = held.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).collect();
    assert!(held.iter().any(|path| path.to_string_lossy().contains("/web/.new-")), "{held:?}");
    let ended = pidfd_open(Pid::from_raw(criu).expect("a number"), PidfdFlags::empty()).expect("it is there");
    worker.kill().and_then(|()| worker.wait()).expect("it ends");
    let long = Timespec::try_from(LONG).expect("a time");
    assert_eq!(poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&long)), Ok(1));
    assert_eq!(Store::open(&world.base()).expect("a store").sweep().expect("it cleans up").len(), 1);
    assert!(world.is_empty());
}

#[test]
fn what_criu_left_stopped_goes_on() {
    let world = World::new();
    let state = || {
        let status = fs::read_to_string(format!("/proc/{}/status", world.process.id())).expect("a process");
        let state = status.lines().find_map(|line| line.strip_prefix("State:\t")).expect("its state");
        state.chars().next().expect("a letter")
    };
    let mut limit = SHORT;
    // How soon it comes so far is nobody's promise.
    while !world.notes().contains(&"stopped".to_owned()) {
        let events = world.order(world.dump(0, limit), "dump stops", "4.2.1");
        assert_eq!(failure(&events).0, Step::Dump);
        assert_ne!(state(), 'T');
        limit *= 2;
    }
    assert!(world.is_empty());
}

#[test]
fn what_is_held_stays_stopped_and_goes_on_if_it_is_not_kept() {
    let world = World::new();
    let hold = |quota| match world.dump(0, LONG) {
        Job::Dump(dump) => Job::Dump(Dump { after: After::Hold, quota, ..dump }),
        other => other,
    };
    let stat = || fs::read_to_string(format!("/proc/{}/stat", world.process.id())).expect("a process");
    let events = world.order(hold(None), "", "4.2.1");
    assert!(matches!(events.last(), Some(Event::Done { .. })), "{events:?}");
    assert!(stat().contains(") T "), "{}", stat());
    assert!(world.metadata().leave_running, "it goes on");
    assert!(world.notes()[0].contains(" --leave-running --action-script "));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(world.process.id()).expect("a number"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).expect("it is there");
    assert!(!stat().contains(") T "));
    let events = world.order(hold(Some(1)), "", "4.2.1");
    assert_eq!(failure(&events).0, Step::Commit);
    assert!(!stat().contains(") T "), "{}", stat());
}

/// Lines as they come.
struct Worker {
    child: Child,
    lines: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
}

impl Worker {
    fn new(mut child: Child) -> Self {
        use std::io::BufRead as _;
        let lines = std::io::BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, lines }
    }

    /// The first for which there is an answer.
    fn until<T>(&mut self, look: impl Fn(&Event) -> Option<T>) -> T {
        loop {
            let line = self.lines.next().expect("another line").expect("text");
            let event = serde_json::from_str::<Line>(&line).expect("a line").event;
            if let Some(found) = look(&event) {
                return found;
            }
            assert!(!matches!(event, Event::Failed { .. }), "{event:?}");
        }
    }

    fn go(&mut self, go: &Go) {
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        serde_json::to_writer(&mut *stdin, go).expect("it is read");
        stdin.write_all(b"\n").expect("it is read");
    }
}

#[test]
fn a_move_ends_the_processes_and_makes_them_at_a_word() {
    let mut world = World::new();
    let path = Role::new("notify", "/nonexistent/notify");
    world.given.push(Given { role: path.clone(), is_end: false });
    let order = |wait| {
        let Job::Dump(dump) = world.dump(0, LONG) else { panic!("a dump") };
        Job::Move(Move { dump, restore: Remake { wait, ..world.remake(LONG) } })
    };
    let group = world.directory.path().join("group");
    fs::create_dir(&group).expect("a directory");
    let mut worker = Worker::new(world.begin(order(Some(LONG)), "", "4.2.1"));
    let id = worker.until(|event| match event {
        Event::Written { id, .. } => Some(id.clone()),
        _ => None,
    });
    let roles = worker.until(|event| match event {
        Event::Waiting { id: other, roles } if *other == id => Some(roles.clone()),
        _ => None,
    });
    assert_eq!(roles, [path], "the line stays short, however much they have");
    assert_eq!(world.metadata().roles.len(), 2);
    assert_eq!(world.notes().len(), 1, "nothing is made before the word");
    assert!(world.notes()[0].contains(" --skip-in-flight "));
    worker.go(&Go { group: Some(group.clone()) });
    let pid = worker.until(|event| match event {
        Event::Restored { pid } => Some(*pid),
        _ => None,
    });
    assert_eq!(pid, RESTORED);
    worker.until(|event| matches!(event, Event::Ended { step: Step::Sync, .. }).then_some(()));
    assert!(worker.child.wait().expect("it ends").success());
    assert_eq!(fs::read_to_string(group.join("cgroup.procs")).expect("its group"), "0");
    assert_eq!(world.ended(), Some(9));
    assert!(!world.metadata().leave_running);
}

#[test]
fn who_waits_for_a_word_in_vain_says_so_and_keeps_the_checkpoint() {
    for hangs_up in [true, false] {
        let mut world = World::new();
        let Job::Dump(dump) = world.dump(0, LONG) else { panic!("a dump") };
        let wait = Some(if hangs_up { LONG } else { SHORT });
        let order = Job::Move(Move { dump, restore: Remake { wait, ..world.remake(LONG) } });
        let mut child = world.begin(order, "", "4.2.1");
        let stdin = child.stdin.take();
        let kept = stdin.filter(|_| !hangs_up);
        let output = child.wait_with_output().expect("it ends");
        drop(kept);
        let last = String::from_utf8_lossy(&output.stdout).lines().last().expect("a line").to_owned();
        let Event::Failed { step, reason } = serde_json::from_str::<Line>(&last).expect("a line").event
        else {
            panic!("not refused: {last}");
        };
        let expected = if hangs_up { "nobody is there" } else { "no word to go on within 0.3 s" };
        assert!(step == Step::Wait && reason.contains(expected), "{step:?}: {reason}");
        assert_eq!((world.ended(), world.metadata().leave_running), (Some(9), false));
    }
}

#[test]
fn a_dump_keeps_no_more_than_is_allowed() {
    let world = World::new();
    let dump = || match world.dump(0, LONG) {
        Job::Dump(dump) => {
            let keep = Some(Policy { per_component: 2, ..Policy::default() });
            Job::Dump(Dump { keep, ..dump })
        }
        other => other,
    };
    let mut made = Vec::new();
    for _ in 0..3 {
        world.order(dump(), "", "4.2.1");
        made.insert(0, world.metadata().id);
    }
    let store = Store::open(&world.base()).expect("a store");
    assert_eq!(store.ids("web").expect("a list"), made[..2]);
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
