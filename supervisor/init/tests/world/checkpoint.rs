//! Checkpoints, holds, restores and moves: with CRIU where there is one and the right to use it, and with a stand-in for
//! what goes wrong.

use std::ffi::OsString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::FromRawFd as _;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use yakiros_core::checkpoint::{After, Made, Written};
use yakiros_core::control::{Answer, Request, UpgradeLevel};
use yakiros_core::journal::State;

use crate::freezer::{self, Grouped};
use crate::guest::{Guest, PATIENCE, answer, begin, sleeper, until, write_script};
use crate::handover::{Client, done, refused};
use crate::heir;
#[cfg(debug_assertions)]
use crate::reexec::FAIL_NOW;
use crate::reexec::reexecute;

const ENABLED: &str = "[checkpoint]\nenabled = true\n";

/// The worker. It belongs to another package, whose programs cargo does not build for these tests.
fn worker() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let folder = Path::new(env!("CARGO_BIN_EXE_graph-resolver")).parent().expect("a folder");
        let target = folder.parent().expect("the target directory");
        let build = ["build", "--quiet", "--package", "yakiros-checkpoint", "--bin", "graph-checkpoint"];
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(build).arg("--target-dir").arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(cargo.status().expect("cargo").success(), "graph-checkpoint was not built");
        target.join("debug/graph-checkpoint")
    })
}

fn arguments(dir: &Path, criu: &Path) -> Vec<OsString> {
    let store = dir.join("checkpoints");
    let named: [(&str, &Path); 3] =
        [("--checkpoint-program", worker()), ("--criu", criu), ("--checkpoints", &store)];
    named.into_iter().flat_map(|(flag, path)| [flag.into(), path.into()]).collect()
}

/// CRIU, if it is there and can do what it should.
fn criu() -> Option<PathBuf> {
    let checked = Command::new("criu").arg("check").output();
    if nix::unistd::geteuid().is_root() && checked.is_ok_and(|checked| checked.status.success()) {
        let places = std::env::var_os("PATH").unwrap_or_default();
        return std::env::split_paths(&places).map(|place| place.join("criu")).find(|path| path.exists());
    }
    // The suite `checkpointing` tries the same in a machine, whoever runs it.
    eprintln!("not tried: no CRIU that works here");
    None
}

/// A real server and CRIU.
fn real(more: &str) -> Option<Grouped> {
    let criu = criu()?;
    let files = |dir: &Path| {
        let file = heir::handing_over("checkpoint", dir, "") + "\n" + ENABLED + more;
        vec![("heir.toml", file)]
    };
    let guest = freezer::start_with(files, |dir| arguments(dir, &criu))?;
    guest.wait("heir", State::Active, None);
    Some(guest)
}

/// Components and the stand-in.
fn standing_in(files: Vec<(&'static str, String)>) -> Option<Grouped> {
    standing_in_with(files, &[])
}

/// The same with more on the supervisor's command line.
fn standing_in_with(files: Vec<(&'static str, String)>, more: &[&str]) -> Option<Grouped> {
    freezer::start_with(
        |_| files,
        |dir| {
            let script = include_str!("checkpoint/criu").replace("@DIR@", &dir.display().to_string());
            write_script(&dir.join("criu"), &script);
            let mut all = arguments(dir, &dir.join("criu"));
            all.extend(more.iter().map(OsString::from));
            all
        },
    )
}

fn behave(guest: &Guest, how: &str) {
    fs::write(guest.dir.path().join("behaviour"), how).expect("a behaviour");
}

fn notes(guest: &Guest) -> Vec<String> {
    let notes = fs::read_to_string(guest.dir.path().join("notes")).unwrap_or_default();
    notes.lines().map(str::to_owned).collect()
}

fn checkpoint(name: &str, after: After) -> Request {
    Request::Checkpoint { name: name.to_owned(), after, timeout_ms: None }
}

fn restore(name: &str, fallback: bool) -> Request {
    Request::Restore { name: name.to_owned(), id: None, fallback, timeout_ms: None }
}

fn upgrade(name: &str) -> Request {
    Request::Upgrade { name: name.to_owned(), fallback: true, queue: false, strategy: None, timeout_ms: None }
}

fn written(answer: Answer) -> Written {
    match answer {
        Answer::Checkpointed { written, .. } => written,
        other => panic!("{other:?}"),
    }
}

/// From what it was made, if it was, and why not.
fn restored(answer: Answer) -> (Option<Made>, Option<String>) {
    match answer {
        Answer::Restored { made, passed_over, .. } => (made, passed_over.map(|why| why.to_string())),
        other => panic!("{other:?}"),
    }
}

fn send(guest: &Guest, signal: &str, pid: i32) {
    let mut kill = guest.command_inside(&["-p", "-m"]);
    let words = ["kill", &format!("-{signal}"), &pid.to_string()].map(str::to_owned);
    assert!(kill.args(words).status().expect("kill").success());
}

/// The letter for the state of a process of the guest.
fn letter(guest: &Guest, pid: i32) -> String {
    let mut cat = guest.command_inside(&["-p", "-m"]);
    let output = cat.args(["cat", &format!("/proc/{pid}/stat")]).output().expect("cat");
    let stat = String::from_utf8_lossy(&output.stdout).into_owned();
    stat.rsplit_once(") ").map(|(_, rest)| rest[..1].to_owned()).unwrap_or_default()
}

#[test]
fn a_real_process_is_written_and_made_again_as_it_was() {
    let Some(guest) = real("") else { return };
    let mut client = Client::new(&guest, 1);
    for number in 1..=3 {
        assert_eq!(client.ask("line"), (number, 1));
    }
    let before = guest.component("heir");
    let written = written(guest.ask(checkpoint("heir", After::Run)));
    assert!(written.bytes > 0 && written.frozen_us > Some(0), "{written:?}");
    assert_eq!(guest.component("heir").pid, before.pid);
    assert_eq!(client.ask("line"), (4, 1), "it runs on");
    drop(client);
    let (made, why) = restored(guest.ask(restore("heir", false)));
    assert_eq!((made.map(|made| made.id), why), (Some(written.id), None));
    let after = guest.component("heir");
    assert_eq!((after.state, after.pid), (State::Active, before.pid), "the number is the same");
    // It goes on from where it was written: what came after that is not in it.
    let mut client = Client::new(&guest, 1);
    assert_eq!(client.ask("line"), (4, 1));
    // It is supervised as any other.
    let revision = guest.revision();
    send(&guest, "KILL", after.pid.expect("a process"));
    guest.wait("heir", State::Active, Some(revision));
}

#[test]
fn clients_see_nothing_of_a_move_but_a_pause() {
    let Some(guest) = real("") else { return };
    let mut idle = Client::new(&guest, 1);
    assert_eq!(idle.ask("first"), (1, 1));
    idle.send("half");
    let mut served = 1;
    for _ in 0..3 {
        let before = guest.component("heir");
        let mut asked = begin(&guest, upgrade("heir"));
        // They come while it is under way.
        let mut clients = Vec::new();
        let end = std::time::Instant::now() + Duration::from_millis(300);
        while std::time::Instant::now() < end {
            clients.push(Client::new(&guest, 1));
            thread::sleep(Duration::from_millis(5));
        }
        for client in &mut clients {
            let (number, _) = client.ask("line");
            served += 1;
            assert_eq!(number, served, "every answer once, and in order");
        }
        let done = done(answer(&mut asked));
        assert_eq!((done.level, &done.passed_over[..]), (UpgradeLevel::Checkpoint, &[][..]), "{done:?}");
        println!("a move of {:?} µs under {} clients", done.gap_us, clients.len());
        assert_eq!(guest.component("heir").pid, before.pid);
        // The next image of the supervisor knows as much of what was moved.
        reexecute(&guest);
    }
    idle.send("\n");
    assert_eq!(idle.receive("half").0, served + 1);
}

#[test]
fn what_is_held_stands_still_until_it_is_to_go_on() {
    let Some(guest) = real("") else { return };
    let mut client = Client::new(&guest, 1);
    assert_eq!(client.ask("line"), (1, 1));
    let pid = guest.component("heir").pid.expect("a process");
    written(guest.ask(checkpoint("heir", After::Hold)));
    assert_eq!(letter(&guest, pid), "T");
    client.send("meanwhile\n");
    assert!(matches!(guest.ask(Request::Continue), Answer::Done { .. }));
    assert_eq!(client.receive("meanwhile").0, 2);
    // Who is told to end while it is held does so.
    written(guest.ask(checkpoint("heir", After::Hold)));
    assert_eq!(letter(&guest, pid), "T");
    let stop = Request::Stop { name: "heir".to_owned(), timeout_ms: None };
    assert!(matches!(guest.ask(stop), Answer::Done { .. }));
    assert_eq!(letter(&guest, pid), "");
}

#[test]
fn a_dump_that_fails_costs_nothing() {
    let Some(guest) = standing_in(vec![("a.toml", sleeper("a", ENABLED))]) else { return };
    guest.wait("a", State::Active, None);
    let pid = guest.component("a").pid;
    behave(&guest, "dump fails");
    assert!(refused(guest.ask(checkpoint("a", After::Run))).contains("CRIU: Can't do it"));
    assert_eq!(guest.component("a").pid, pid);
    behave(&guest, "");
    let written = written(guest.ask(checkpoint("a", After::Run)));
    assert_eq!(written.bytes, "dump\n".len() as u64);
    assert_eq!(guest.component("a").pid, pid);
    // Nothing is left of what failed, and of the descriptors of either.
    let store = guest.dir.path().join("checkpoints/a");
    assert_eq!(fs::read_dir(store).expect("a directory").count(), 1);
}

#[test]
fn all_checkpoints_together_have_no_more_than_the_quota() {
    // Of one the image has five bytes, and what is said of it some hundred: there is room for one and not for two.
    let quota = 1500;
    let files = vec![("a.toml", sleeper("a", ENABLED)), ("b.toml", sleeper("b", ENABLED))];
    let Some(guest) = standing_in_with(files, &["--checkpoint-quota", &quota.to_string()]) else { return };
    let count = |name: &str| {
        let kept = fs::read_dir(guest.dir.path().join("checkpoints").join(name)).into_iter().flatten();
        kept.count()
    };
    guest.wait("a", State::Active, None);
    guest.wait("b", State::Active, None);
    written(guest.ask(checkpoint("a", After::Run)));
    assert_eq!((count("a"), count("b")), (1, 0));
    written(guest.ask(checkpoint("b", After::Run)));
    assert_eq!((count("a"), count("b")), (0, 1), "the oldest goes, whosever it is");
    let Some(guest) = standing_in_with(vec![("a.toml", sleeper("a", ENABLED))], &["--checkpoint-quota", "5"])
    else {
        return;
    };
    guest.wait("a", State::Active, None);
    let said = refused(guest.ask(checkpoint("a", After::Run)));
    assert!(said.contains("and all checkpoints together may have 5: raise the quota"), "{said}");
}

#[test]
fn what_cannot_be_made_again_is_started_anew_unless_that_is_not_wanted() {
    let Some(guest) = standing_in(vec![("a.toml", sleeper("a", ENABLED))]) else { return };
    guest.wait("a", State::Active, None);
    written(guest.ask(checkpoint("a", After::Run)));
    for (behaviour, why) in [
        ("restore fails", "CRIU: Can't do it"),
        ("restore half", "CRIU: Half of it"),
        ("restore short", "its process ended as soon as it was made"),
    ] {
        behave(&guest, behaviour);
        let (made, passed_over) = restored(guest.ask(restore("a", true)));
        let passed_over = passed_over.unwrap_or_default();
        assert!(made.is_none() && passed_over.contains(why), "{behaviour}: {passed_over}");
        assert_eq!(guest.component("a").state, State::Active);
        let members = guest.group("a", "cgroup.procs");
        assert_eq!(members.lines().count(), 1, "{behaviour}: {members}");
    }
    behave(&guest, "restore fails");
    let message = refused(guest.ask(restore("a", false)));
    assert!(message.contains("CRIU: Can't do it"), "{message}");
    assert_eq!(guest.component("a").state, State::Failed);
    // What is made again writes to its log, and is in its group.
    behave(&guest, "");
    let (made, passed_over) = restored(guest.ask(restore("a", false)));
    assert!(made.is_some() && passed_over.is_none(), "{passed_over:?}");
    let log = guest.dir.path().join("state/a.log");
    until("its word", || fs::read_to_string(&log).ok().filter(|text| text.contains("made again")));
    let pid = guest.component("a").pid.expect("a process");
    assert!(["R", "S"].contains(&letter(&guest, pid).as_str()));
    assert_eq!(guest.group("a", "cgroup.procs").lines().count(), 1);
    let revision = guest.revision();
    send(&guest, "KILL", pid);
    guest.wait("a", State::Active, Some(revision));
}

#[test]
fn nothing_is_stopped_for_a_checkpoint_that_cannot_be_used() {
    let Some(guest) = standing_in(vec![("a.toml", sleeper("a", ENABLED))]) else { return };
    guest.wait("a", State::Active, None);
    let pid = guest.component("a").pid;
    let message = refused(guest.ask(restore("a", false)));
    assert!(message.contains("nothing was stopped for it"), "{message}");
    let written = written(guest.ask(checkpoint("a", After::Run)));
    let image = guest.dir.path().join("checkpoints/a").join(&*written.id).join("pages-1.img");
    fs::write(&image, "Dump\n").expect("an image");
    let message = refused(guest.ask(restore("a", false)));
    assert!(message.contains("pages-1.img was changed after it had been written"), "{message}");
    assert_eq!(guest.component("a").pid, pid);
    fs::write(&image, "dump\n").expect("an image");
    assert!(restored(guest.ask(restore("a", false))).0.is_some());
}

#[test]
fn nothing_waits_for_a_worker_that_hangs_or_is_killed() {
    let file = sleeper(
        "a",
        &format!("{ENABLED}[lifecycle]\nhandoff = \"checkpoint\"\n[hotswap]\nshutdown_grace = 600\n"),
    );
    let Some(guest) = standing_in(vec![("a.toml", file)]) else { return };
    guest.wait("a", State::Active, None);
    let late = |guest: &Guest, count: usize| {
        let notes = until("CRIU", || {
            let notes = notes(guest);
            (notes.iter().filter(|note| note.starts_with("late ")).count() == count).then_some(notes)
        });
        notes.last().and_then(|note| note.strip_prefix("late ")?.parse::<i32>().ok()).expect("a number")
    };
    let until_gone = |guest: &Guest, pid: i32| {
        until("its end", || Some(letter(guest, pid)).filter(String::is_empty));
    };
    behave(&guest, "dump late");
    // Its worker is killed: the dump has failed, and everything runs on.
    let pid = guest.component("a").pid;
    let mut asked = begin(&guest, checkpoint("a", After::Run));
    let criu = late(&guest, 1);
    let mut find = guest.command_inside(&["-p", "-m"]);
    let output = find.args(["cat", &format!("/proc/{criu}/stat")]).output().expect("cat");
    let stat = String::from_utf8_lossy(&output.stdout).into_owned();
    let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)).expect("a parent");
    // The process in which CRIU is looked for as a script is a child of the worker.
    send(&guest, "KILL", parent.parse().expect("a number"));
    let message = refused(answer(&mut asked));
    assert!(message.contains("the worker was killed by SIGKILL"), "{message}");
    until_gone(&guest, criu);
    assert_eq!(guest.component("a").pid, pid);
    // The process is stopped meanwhile, which does not wait for CRIU.
    let mut asked = begin(&guest, checkpoint("a", After::Run));
    let criu = late(&guest, 2);
    assert!(matches!(guest.ask(Request::Reexec), Answer::Refused { .. }), "nobody would know of it");
    let stop = Request::Stop { name: "a".to_owned(), timeout_ms: None };
    assert!(matches!(guest.ask(stop), Answer::Done { .. }));
    let message = refused(answer(&mut asked));
    assert!(message.contains("meanwhile") || message.contains("being ended"), "{message}");
    until_gone(&guest, criu);
    // The same of one that is to be ended for its checkpoint.
    let start = || Request::Start { name: "a".to_owned(), timeout_ms: None };
    assert!(matches!(guest.ask(start()), Answer::Done { .. }));
    let mut asked = begin(&guest, upgrade("a"));
    let criu = late(&guest, 3);
    let stop = Request::Stop { name: "a".to_owned(), timeout_ms: None };
    assert!(matches!(guest.ask(stop), Answer::Done { .. }), "long before CRIU's time is over");
    refused(answer(&mut asked));
    until_gone(&guest, criu);
    // So is one that is being made.
    behave(&guest, "");
    assert!(matches!(guest.ask(start()), Answer::Done { .. }));
    written(guest.ask(checkpoint("a", After::Run)));
    behave(&guest, "restore late");
    let _asked = begin(&guest, restore("a", false));
    late(&guest, 4);
    assert!(matches!(guest.ask(Request::Poweroff), Answer::Done { .. }));
}

/// Where the counter is to listen.
const LISTEN: &str = "[[sockets]]\nname = \"http\"\nlisten = \"127.0.0.1:@PORT@\"\n";

/// The arguments that make this program the counter.
const ROLE: [&str; 5] =
    ["--exact", "checkpoint::as_a_component", "--ignored", "--nocapture", "--test-threads=1"];

/// Not a test: a component that counts who connects to the socket that it was given, and says so.
#[test]
#[ignore = "the role of a component in other tests"]
fn as_a_component() {
    let (Ok(path), Ok("1")) = (std::env::var("NOTIFY_SOCKET"), std::env::var("LISTEN_FDS").as_deref()) else {
        return;
    };
    let say = |text: &str| {
        let socket = UnixDatagram::unbound().expect("a socket");
        socket.send_to(text.as_bytes(), &path).expect("the supervisor");
    };
    // SAFETY: it is what was passed, and nobody else has it.
    let listener = unsafe { TcpListener::from_raw_fd(3) };
    say("READY=1");
    for (number, stream) in (1..).zip(listener.incoming()) {
        say(&format!("STATUS=served {number}"));
        writeln!(stream.expect("a client"), "{number}").expect("it reads");
    }
}

/// What a new client of the counter is told.
fn counted(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the supervisor holds the socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("read timeout");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("a number");
    text.trim().to_owned()
}

#[test]
fn a_restored_process_has_what_the_supervisor_holds_and_is_heard() {
    let Some(criu) = criu() else { return };
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let binary = std::env::current_exe().expect("this program").display().to_string();
    let file = format!(
        "[component]\nname = \"counter\"\nbinary = {binary:?}\nargs = {ROLE:?}\n{ENABLED}\
         [lifecycle]\nreadiness = \"notify\"\nhandoff = \"checkpoint\"\n{}",
        LISTEN.replace("@PORT@", &free.to_string())
    );
    let Some(guest) = freezer::start_with(|_| vec![("counter.toml", file)], |dir| arguments(dir, &criu))
    else {
        return;
    };
    guest.wait("counter", State::Active, None);
    let heard = |number: u32| {
        let expected = format!("served {number}");
        until("its word", || {
            (guest.component("counter").status_text.as_ref() == Some(&expected)).then_some(())
        });
    };
    assert_eq!(counted(free), "1");
    heard(1);
    let done = done(guest.ask(upgrade("counter")));
    assert_eq!((done.level, &done.passed_over[..]), (UpgradeLevel::Checkpoint, &[][..]), "{done:?}");
    assert_eq!(counted(free), "2");
    heard(2);
    // A client that comes while there is no process waits in the socket that the supervisor holds.
    written(guest.ask(checkpoint("counter", After::Run)));
    let stop = Request::Stop { name: "counter".to_owned(), timeout_ms: None };
    assert!(matches!(guest.ask(stop), Answer::Done { .. }));
    let client = thread::spawn(move || counted(free));
    let (made, why) = restored(guest.ask(restore("counter", false)));
    assert!(made.is_some(), "{why:?}");
    assert_eq!(client.join().expect("served"), "3");
    heard(3);
}

#[test]
fn what_was_moved_is_upgraded_by_the_next_best_way_when_it_cannot_be_moved_again() {
    let Some(criu) = criu() else { return };
    let files = |dir: &Path| vec![("heir.toml", heir::handing_over("checkpoint", dir, "") + "\n" + ENABLED)];
    let guest = freezer::start_with(files, |dir| {
        let file = dir.join("broken");
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = --version ] || [ ! -e {} ] || exit 1\nexec {} \"$@\"\n",
            file.display(),
            criu.display()
        );
        write_script(&dir.join("criu"), &script);
        arguments(dir, &dir.join("criu"))
    });
    let Some(guest) = guest else { return };
    guest.wait("heir", State::Active, None);
    let mut client = Client::new(&guest, 1);
    assert_eq!(client.ask("line"), (1, 1));
    assert_eq!(done(guest.ask(upgrade("heir"))).level, UpgradeLevel::Checkpoint);
    assert_eq!(client.ask("line"), (2, 1));
    fs::write(guest.dir.path().join("broken"), "").expect("a file");
    let done = done(guest.ask(upgrade("heir")));
    assert_eq!(done.level, UpgradeLevel::FdPassing, "{done:?}");
    assert_eq!(done.passed_over.len(), 1, "{done:?}");
    assert_eq!(client.ask("line").0, 3, "the connection and the count went over");
}

#[test]
fn two_are_written_at_once_and_the_next_has_its_turn_then() {
    let names = ["a", "b", "c"];
    let files = ["a.toml", "b.toml", "c.toml"].into_iter().zip(names);
    let Some(guest) = standing_in(files.map(|(file, name)| (file, sleeper(name, ENABLED))).collect()) else {
        return;
    };
    for name in names {
        guest.wait(name, State::Active, None);
    }
    behave(&guest, "dump late");
    let late = || notes(&guest).iter().filter(|note| note.starts_with("late ")).count();
    let mut asked = begin(&guest, checkpoint("a", After::Run));
    until("the first", || (late() == 1).then_some(()));
    let _second = begin(&guest, checkpoint("b", After::Run));
    until("the second", || (late() == 2).then_some(()));
    let _third = begin(&guest, checkpoint("c", After::Run));
    thread::sleep(Duration::from_millis(300));
    assert_eq!(late(), 2);
    let stopped = Request::Stop { name: "a".to_owned(), timeout_ms: None };
    assert!(matches!(guest.ask(stopped), Answer::Done { .. }));
    refused(answer(&mut asked));
    until("the third", || (late() == 3).then_some(()));
}

#[test]
fn no_kernel_is_executed_but_by_process_1_of_the_machine() {
    let Some(guest) = standing_in(vec![("a.toml", sleeper("a", ""))]) else { return };
    guest.wait("a", State::Active, None);
    let pid = guest.component("a").pid;
    // Whatever is loaded there is another supervisor's business.
    assert!(refused(guest.ask(Request::Kexec)).starts_with("only process 1 of the machine"));
    let status = guest.component("a");
    assert_eq!((status.pid, status.state), (pid, State::Active));
}

/// Fails while a process is being written, and while one is being made.
#[cfg(debug_assertions)]
#[test]
fn a_failure_of_the_supervisor_costs_the_checkpoint_and_nothing_else() {
    let Some(guest) = standing_in(vec![("a.toml", sleeper("a", ENABLED))]) else { return };
    guest.wait("a", State::Active, None);
    let pid = guest.component("a").pid;
    written(guest.ask(checkpoint("a", After::Run)));
    let until_late = |count: usize| {
        until("CRIU", || {
            (notes(&guest).iter().filter(|note| note.starts_with("late ")).count() == count).then_some(())
        });
    };
    behave(&guest, "dump late");
    let mut asked = begin(&guest, checkpoint("a", After::Run));
    until_late(1);
    send(&guest, FAIL_NOW, 1);
    let message = refused(answer(&mut asked));
    assert!(!message.is_empty());
    let status = guest.component("a");
    assert_eq!((status.pid, status.state, status.checkpoint), (pid, State::Active, None));
    // It can be made now.
    behave(&guest, "restore hangs");
    written(guest.ask(checkpoint("a", After::Run)));
    let _asked = begin(&guest, restore("a", true));
    until_late(2);
    let revision = guest.revision();
    send(&guest, FAIL_NOW, 1);
    behave(&guest, "");
    guest.wait("a", State::Active, Some(revision));
    until("one process", || (guest.group("a", "cgroup.procs").lines().count() == 1).then_some(()));
}

#[test]
fn clients_of_what_could_not_be_moved_find_their_end() {
    let Some(criu) = criu() else { return };
    let files = |dir: &Path| vec![("heir.toml", heir::handing_over("checkpoint", dir, "") + "\n" + ENABLED)];
    let guest = freezer::start_with(files, |dir| {
        let script = format!("#!/bin/sh\n[ \"$1\" != restore ] || exit 1\nexec {} \"$@\"\n", criu.display());
        write_script(&dir.join("criu"), &script);
        arguments(dir, &dir.join("criu"))
    });
    let Some(guest) = guest else { return };
    guest.wait("heir", State::Active, None);
    let mut client = Client::new(&guest, 1);
    assert_eq!(client.ask("line"), (1, 1));
    let done = done(guest.ask(upgrade("heir")));
    assert_eq!(done.level, UpgradeLevel::Restart, "{done:?}");
    assert!(client.is_over());
    assert_eq!(Client::new(&guest, done.generation).ask("line"), (1, done.generation));
}

/// Not a test: a component that counts who connects to a unix socket of its own.
#[test]
#[ignore = "the role of a component in other tests"]
fn as_a_unix_component() {
    let Ok(path) = std::env::var("COUNT_AT") else { return };
    let listener = UnixListener::bind(path).expect("a socket");
    for (number, stream) in (1..).zip(listener.incoming()) {
        writeln!(stream.expect("a client"), "{number}").expect("it reads");
    }
}

#[test]
fn a_unix_socket_and_its_name_stay_over_a_move() {
    let Some(criu) = criu() else { return };
    let role = ["--exact", "checkpoint::as_a_unix_component", "--ignored", "--nocapture", "--test-threads=1"];
    let binary = std::env::current_exe().expect("this program").display().to_string();
    let files = |dir: &Path| {
        let path = dir.join("own.sock");
        let file = format!(
            "[component]\nname = \"counter\"\nbinary = {binary:?}\nargs = {role:?}\n{ENABLED}\
             [lifecycle]\nhandoff = \"checkpoint\"\nreadiness_file = {path:?}\n\
             [hotswap]\nenv_vars = [\"COUNT_AT={}\"]\n",
            path.display()
        );
        vec![("counter.toml", file)]
    };
    let Some(guest) = freezer::start_with(files, |dir| arguments(dir, &criu)) else { return };
    guest.wait("counter", State::Active, None);
    let path = guest.dir.path().join("own.sock");
    let counted = || {
        let mut stream = UnixStream::connect(&path).expect("there is always somebody who listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("read timeout");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("a number");
        text.trim().to_owned()
    };
    assert_eq!(counted(), "1");
    let store = guest.dir.path().join("checkpoints/counter");
    let made = || {
        let names = fs::read_dir(&store).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.filter(|name| !name.to_string_lossy().starts_with('.')).count()
    };
    for round in 1..=2 {
        let mut asked = begin(&guest, upgrade("counter"));
        // A connection that is up cannot be written down, so nobody comes before it is done.
        until("the checkpoint", || (made() == round).then_some(()));
        assert_eq!(counted(), (round + 1).to_string());
        let done = done(answer(&mut asked));
        assert_eq!((done.level, &done.passed_over[..]), (UpgradeLevel::Checkpoint, &[][..]), "{done:?}");
    }
}
