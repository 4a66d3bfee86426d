//! The supervisor executes itself again: in order, when it cannot, and after an internal error.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use yakiros_core::control::{Answer, Request, Until, encode_request};
use yakiros_core::journal::{Cause, State};

use crate::guest::{Guest, PATIENCE, answer, begin, copy_program, sleeper, unshare_flags, until};

/// What all of them look at: they run from the start and are never to change.
const STEADY: [&str; 4] = ["steady", "user", "writer", "probed"];

/// These wait to become ready.
const WAITING: [&str; 3] = ["by-command", "by-fd", "by-file"];

/// Signals with which a program with debug assertions fails.
pub const FAIL_NOW: &str = "63";
const FAIL_LATER: &str = "62";
const FAIL_TAKING: &str = "61";
/// On this one it leaves a state that cannot be read.
pub const FAIL_STATELESS: &str = "59";

/// A signal after which it loses some descriptors when it executes itself.
const LOSE: &str = "60";

pub fn reexecute(guest: &Guest) {
    match guest.ask(Request::Reexec) {
        Answer::Done { message, .. } => assert!(message.contains("processes kept"), "{message}"),
        other => panic!("{other:?}"),
    }
}

fn start() -> Option<Guest> {
    let guest = Guest::start("reexec")?;
    for name in STEADY {
        guest.wait(name, State::Active, None);
    }
    // So all are executed, and nothing of their starts is left to be passed on.
    for name in WAITING {
        guest.wait(name, State::ReadyWait, None);
    }
    Some(guest)
}

fn pids(guest: &Guest) -> Vec<Option<i32>> {
    STEADY.iter().map(|name| guest.component(name).pid).collect()
}

/// The last of the numbers that the writer wrote, which have to follow one another; the first may take its time.
fn check_log(guest: &Guest) -> u64 {
    until("the first line", || last_written(guest))
}

fn last_written(guest: &Guest) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(guest.dir.path().join("state").join(name)).unwrap_or_default();
    let text = read("writer.log.1") + &read("writer.log");
    let lines = text.lines().map(|line| line.rsplit(' ').next().unwrap_or_default());
    let numbers: Vec<u64> = lines.filter_map(|word| word.parse().ok()).collect();
    for pair in numbers.windows(2) {
        assert_eq!(pair[1], pair[0] + 1, "lines are missing or came twice");
    }
    numbers.last().copied()
}

fn until_state(name: &str, state: State) -> Request {
    let until = Until::State { name: name.to_owned(), state, since: None };
    Request::Wait { until, timeout_ms: None }
}

#[test]
fn nothing_is_seen_of_a_re_execution() {
    let Some(guest) = start() else { return };
    let victim = guest.component("user").pid.expect("running");
    let before = guest.revision();
    guest.kill(victim, "KILL");
    guest.wait("user", State::Active, Some(before));
    let mut clients = WAITING.map(|name| begin(&guest, until_state(name, State::Active)));
    // A request of which only a part has come.
    let line = encode_request(until_state("steady", State::Active)).expect("request");
    let mut half = UnixStream::connect(guest.socket()).expect("control socket");
    half.write_all(&line[..7]).expect("half a request");
    let (pids_before, uptime) = (pids(&guest), guest.component("steady").uptime_ms);
    let records = guest.records(0);
    let written = check_log(&guest);
    for _ in 0..10 {
        reexecute(&guest);
    }
    assert_eq!(guest.records(0), records, "nothing happened");
    assert_eq!(pids(&guest), pids_before);
    let user = guest.component("user");
    assert_eq!(user.restarts, 1, "counts are kept");
    assert!(guest.component("steady").uptime_ms >= uptime);
    fs::write(guest.dir.path().join("go"), "").expect("the file");
    for (name, client) in WAITING.iter().zip(&mut clients) {
        match answer(client) {
            Answer::Done { .. } => assert_eq!(guest.component(name).state, State::Active),
            other => panic!("{name}: {other:?}"),
        }
    }
    half.write_all(&line[7..]).expect("the rest");
    assert!(matches!(answer(&mut BufReader::new(half)), Answer::Done { .. }));
    until("new lines", || (check_log(&guest) > written + 10).then_some(()));
    assert_eq!(guest.component("probed").state, State::Active);
    // Files are watched, and processes too.
    guest.declare("new.toml", &sleeper("new", ""));
    let since = guest.wait("new", State::Active, None);
    guest.kill(user.pid.expect("running"), "KILL");
    guest.wait("user", State::Active, Some(since));
    guest.undeclare("new.toml");
    guest.wait("new", State::Removed, Some(since));
}

#[test]
fn what_ends_meanwhile_is_noticed() {
    let Some(guest) = start() else { return };
    for round in 0..20 {
        let before = Some(guest.revision());
        let pid = guest.component("user").pid.expect("running").to_string();
        let mut client = begin(&guest, Request::Reexec);
        assert!(guest.inside(&["kill", "-KILL", &pid]).success());
        assert!(matches!(answer(&mut client), Answer::Done { .. }), "round {round}");
        guest.wait("user", State::Failed, before);
        guest.ask(Request::Start { name: "user".to_owned(), timeout_ms: None });
    }
}

/// Re-executions, each of which must leave nothing behind.
const MANY: usize = 200;
/// Children and descriptors that come and go: probes, looks at files, connections. Far fewer than one
/// for each of [`MANY`].
const COMING_AND_GOING: usize = 20;

#[test]
fn many_re_executions_leave_nothing_behind() {
    let Some(guest) = start() else { return };
    let before = pids(&guest);
    let counts = || {
        let init = guest.init_pid();
        let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children")).expect("children");
        let fds = fs::read_dir(format!("/proc/{init}/fd")).expect("descriptors");
        (children.split_whitespace().count(), fds.count())
    };
    reexecute(&guest);
    let first = counts();
    for _ in 0..MANY {
        reexecute(&guest);
    }
    let last = counts();
    let grown = |first: usize, last: usize| last > first + COMING_AND_GOING;
    assert!(!grown(first.0, last.0) && !grown(first.1, last.1), "{first:?} became {last:?}");
    assert_eq!(pids(&guest), before);
    check_log(&guest);
}

#[test]
fn a_program_that_cannot_take_over_changes_nothing() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let program = dir.path().join("program");
    let good = Path::new(env!("CARGO_BIN_EXE_graph-resolver"));
    copy_program(good, &program);
    fs::create_dir(dir.path().join("graph.d")).expect("configuration directory");
    fs::write(dir.path().join("graph.d/a.toml"), sleeper("a", "")).expect("component file");
    let Some(flags) = unshare_flags() else { return };
    let guest = Guest::start_program(dir, flags, &program);
    guest.wait("a", State::Active, None);
    let pid = guest.component("a").pid;
    let beside = program.with_extension("new");
    let put = |from: &str| {
        copy_program(Path::new(from), &beside);
        fs::rename(&beside, &program).expect("another program");
    };
    let text = beside.with_extension("text");
    fs::write(&text, "no program").expect("a text");
    let text = text.to_str().expect("a path").to_owned();
    let others = [
        ("/bin/false", "exited with status 1"),
        ("/bin/true", "does not answer as one that has restored the state"),
        // It answers with its arguments.
        ("/bin/echo", "does not answer as one that has restored the state"),
        (text.as_str(), "Permission denied"),
        ("", "No such file"),
    ];
    for (other, part) in others {
        match other {
            "" => fs::remove_file(&program).expect("no program"),
            other => put(other),
        }
        match guest.ask(Request::Reexec) {
            Answer::Refused { message, .. } => {
                assert!(message.contains(part), "{message}");
                assert!(message.contains("everything runs on as before"), "{message}");
            }
            other => panic!("{part}: {other:?}"),
        }
        assert_eq!(guest.component("a").pid, pid);
    }
    put(good.to_str().expect("a path"));
    reexecute(&guest);
    assert_eq!(guest.component("a").pid, pid);
    let name = fs::read_to_string(format!("/proc/{}/comm", guest.init_pid())).expect("a name");
    assert_eq!(name, "graph-resolver\n");
}

/// Sets it, also when a test fails.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The file changes all the time, also between the trial and the execution.
#[test]
fn what_is_executed_is_what_was_tried() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = |name: &str| dir.path().join(name);
    copy_program(Path::new(env!("CARGO_BIN_EXE_graph-resolver")), &path("good"));
    copy_program(Path::new("/bin/true"), &path("bad"));
    fs::hard_link(path("good"), path("program")).expect("a program");
    fs::create_dir(path("graph.d")).expect("configuration directory");
    fs::write(path("graph.d/a.toml"), sleeper("a", "")).expect("component file");
    let (good, bad, beside, program) = (path("good"), path("bad"), path("beside"), path("program"));
    let Some(flags) = unshare_flags() else { return };
    let guest = Guest::start_program(dir, flags, &program);
    guest.wait("a", State::Active, None);
    let pid = guest.component("a").pid;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for from in [&bad, &good].into_iter().cycle() {
                fs::hard_link(from, &beside).expect("a link");
                fs::rename(&beside, &program).expect("another program");
                std::thread::sleep(Duration::from_millis(2));
                if over.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let _over = SetAtEnd(&over);
        let mut outcomes = [0; 2];
        while outcomes.iter().any(|count| *count < 20) {
            match guest.ask(Request::Reexec) {
                Answer::Done { .. } => outcomes[0] += 1,
                Answer::Refused { .. } => outcomes[1] += 1,
                other => panic!("{other:?}"),
            }
        }
    });
    assert_eq!(guest.component("a").pid, pid);
}

#[test]
#[cfg(debug_assertions)]
fn an_internal_error_is_survived() {
    let Some(guest) = start() else { return };
    let before = pids(&guest);
    let mut client = begin(&guest, until_state("by-file", State::Active));
    for signal in [FAIL_NOW, FAIL_LATER] {
        let seen = guest.log().matches("after an internal error").count();
        let since = Some(guest.revision());
        assert!(guest.inside(&["kill", &format!("-{signal}"), "1"]).success());
        // What fails later does so over the next event.
        guest.declare("new.toml", &sleeper("new", &format!("# {signal}")));
        until("the take-over", || {
            (guest.log().matches("after an internal error").count() > seen).then_some(())
        });
        guest.wait("new", State::Active, None);
        guest.undeclare("new.toml");
        guest.wait("new", State::Removed, since);
        assert_eq!(pids(&guest), before);
    }
    let records = guest.records(0);
    let named: Vec<_> = records.iter().filter(|record| &*record.component == "kernel").collect();
    assert_eq!(named.len(), 2, "{named:?}");
    for text in named.iter().map(|record| record.cause.to_string()) {
        assert!(text.contains("a test asked for it") && !text.contains('\n'), "{text:?}");
    }
    fs::write(guest.dir.path().join("go"), "").expect("the file");
    assert!(matches!(answer(&mut client), Answer::Done { .. }));
    check_log(&guest);
}

/// The emergency shell must not find the console of who runs this test.
#[cfg(debug_assertions)]
fn hide_console(guest: &Guest) {
    let console = "/dev/console";
    if Path::new(console).exists() {
        assert!(guest.inside(&["mount", "--bind", "/dev/null", console]).success());
    }
}

/// The writer starts another child after each of its lines.
#[cfg(debug_assertions)]
fn check_goes_on(guest: &Guest, writer: i32) {
    let path = format!("/proc/{}/root/proc/{writer}/task/{writer}/children", guest.init_pid());
    let mut seen = std::collections::BTreeSet::new();
    until("more lines of the writer", || {
        seen.insert(fs::read_to_string(&path).unwrap_or_default());
        (seen.len() > 20).then_some(())
    });
}

#[test]
#[cfg(debug_assertions)]
fn what_is_lost_on_the_way_costs_only_whom_it_belongs_to() {
    let Some(guest) = start() else { return };
    let mut first = begin(&guest, until_state("by-file", State::Active));
    let mut second = begin(&guest, until_state("by-file", State::Active));
    let (before, others) = (pids(&guest), ["by-fd", "by-file"]);
    let others_before = others.map(|name| guest.component(name).pid);
    let lost = guest.component("by-command").pid;
    assert!(guest.inside(&["kill", &format!("-{LOSE}"), "1"]).success());
    reexecute(&guest);
    // The first process, the first client and the listener.
    let mut line = String::new();
    assert_eq!(first.read_line(&mut line).ok(), Some(0), "cut off: {line}");
    until("another process", || guest.component("by-command").pid.filter(|pid| Some(*pid) != lost));
    assert_eq!(pids(&guest), before);
    assert_eq!(others.map(|name| guest.component(name).pid), others_before);
    for part in ["by-command is ended, for its output was lost", "of a client was lost", "is opened anew"] {
        assert_eq!(guest.log().matches(part).count(), 1, "{part}: {}", guest.log());
    }
    reexecute(&guest);
    fs::write(guest.dir.path().join("go"), "").expect("the file");
    assert!(matches!(answer(&mut second), Answer::Done { .. }));
    check_log(&guest);
}

#[test]
#[cfg(debug_assertions)]
fn a_take_over_that_is_not_possible_closes_nothing() {
    let Some(guest) = start() else { return };
    let writer = guest.component("writer").pid.expect("running");
    assert!(guest.inside(&["kill", &format!("-{LOSE}"), "1"]).success());
    let mut client = UnixStream::connect(guest.socket()).expect("control socket");
    // The listener is lost, and cannot be opened anew.
    fs::remove_file(guest.socket()).expect("the socket's name");
    fs::create_dir(guest.socket()).expect("a directory in its place");
    hide_console(&guest);
    client.write_all(&encode_request(Request::Reexec).expect("request")).expect("request");
    until("the emergency shell", || guest.log().contains("a shell is on the console").then_some(()));
    check_goes_on(&guest, writer);
}

/// The task that acts on internal errors is not the one that has them.
#[test]
#[cfg(debug_assertions)]
fn an_internal_error_of_a_requested_take_over_is_survived() {
    let Some(guest) = start() else { return };
    let before = pids(&guest);
    assert!(guest.inside(&["kill", &format!("-{FAIL_TAKING}"), "1"]).success());
    match guest.ask(Request::Reexec) {
        Answer::Refused { message, .. } => assert!(message.contains("ask again"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(guest.log().matches("after an internal error").count(), 1, "{}", guest.log());
    reexecute(&guest);
    assert_eq!(pids(&guest), before);
    check_log(&guest);
}

#[test]
#[cfg(debug_assertions)]
fn an_internal_error_on_the_way_to_the_next_image_leads_to_the_emergency_shell() {
    let Some(guest) = start() else { return };
    let writer = guest.component("writer").pid.expect("running");
    hide_console(&guest);
    for signal in [FAIL_TAKING, FAIL_NOW] {
        assert!(guest.inside(&["kill", &format!("-{signal}"), "1"]).success());
    }
    until("the emergency shell", || guest.log().contains("a shell is on the console").then_some(()));
    check_goes_on(&guest, writer);
    // Any other process ends instead.
    let mut user = User::start();
    assert!(matches!(user.ask(until_state("a", State::Active)), Answer::Done { .. }));
    let pid = user.pid_of_a().expect("running").to_string();
    let kill = |signal: &str, pid: &str| {
        let status = Command::new("kill").args([&format!("-{signal}"), pid]).status().expect("kill");
        assert!(status.success());
    };
    for signal in [FAIL_TAKING, FAIL_NOW] {
        kill(signal, &user.child.id().to_string());
    }
    let status = until("the end", || user.child.try_wait().expect("status"));
    kill("KILL", &pid);
    assert_eq!(status.code(), Some(70));
}

/// What somebody has started and not the supervisor, which is process 1 to it all the same.
fn forge(guest: &Guest, component: &str) -> i32 {
    let pid = guest.dir.path().join(format!("forged-{component}"));
    let script = format!("echo $$ > {}; exec sleep 100000", pid.display());
    let environment = format!("GRAPH_COMPONENT={component}");
    let words = ["env", &environment, "GRAPH_GENERATION=1", "setsid", "-f", "sh", "-c", &script];
    assert!(guest.inside(&words).success());
    until("its number", || fs::read_to_string(&pid).ok()?.trim().parse().ok())
}

#[test]
#[cfg(debug_assertions)]
fn without_a_state_what_runs_is_found() {
    let Some(guest) = start() else { return };
    let before = pids(&guest);
    let (ghost, double) = (forge(&guest, "ghost"), forge(&guest, "steady"));
    let written = check_log(&guest);
    let mut client = begin(&guest, until_state("by-file", State::Active));
    assert!(guest.inside(&["kill", &format!("-{FAIL_STATELESS}"), "1"]).success());
    let mut line = String::new();
    client.read_line(&mut line).expect("the end");
    assert_eq!(line, "", "who waited is told by the end of the connection");
    until("the take-over", || guest.log().contains("the state is lost").then_some(()));
    for name in STEADY {
        guest.wait(name, State::Active, None);
    }
    assert_eq!(pids(&guest), before, "what ran is taken");
    for pid in [ghost, double] {
        let is_gone = || !guest.inside(&["test", "-e", &format!("/proc/{pid}")]).success();
        until("the end of what nobody started", || is_gone().then_some(()));
    }
    until("new lines", || (check_log(&guest) > written + 10).then_some(()));
    // The journal says what happened, and leads there.
    let records = guest.records(0);
    assert!(records[0].cause.to_string().contains("lost its state"), "{:?}", records[0]);
    let user = records.iter().rfind(|record| &*record.component == "user").expect("a record");
    assert_eq!((&user.cause, user.after), (&Cause::Adopted, Some(records[0].revision)));
    // It looks after them as before.
    let since = guest.revision();
    guest.kill(before[0].expect("running"), "KILL");
    guest.wait("user", State::Active, Some(since));
    guest.undeclare("writer.toml");
    guest.wait("writer", State::Removed, Some(since));
    reexecute(&guest);
}

/// How many processes inside were started for a component that starts none itself.
fn processes_of(guest: &Guest, component: &str) -> usize {
    let script = format!(
        "grep -s -l -z -x GRAPH_COMPONENT={component} /proc/[0-9]*/environ > {}/found; true",
        guest.dir.path().display()
    );
    assert!(guest.inside(&["sh", "-c", &script]).success());
    fs::read_to_string(guest.dir.path().join("found")).expect("a list").lines().count()
}

#[test]
#[cfg(debug_assertions)]
fn what_cannot_be_taken_is_ended_and_what_is_gone_starts_anew() {
    let Some(guest) = start() else { return };
    guest.declare("base.toml", &sleeper("base", "[provides]\ncapabilities = [\"base\"]"));
    guest.declare("top.toml", &sleeper("top", "[requires]\ncapabilities = [\"base\"]"));
    guest.wait("top", State::Active, None);
    let before = pids(&guest);
    let gone = before[0].expect("running").to_string();
    // While it is stopped process 1 sees neither that a file goes nor that a process ends. Of the
    // signals that it then finds, the lowest number comes first.
    guest.freeze();
    assert!(guest.inside(&["kill", "-KILL", &gone]).success());
    guest.undeclare("base.toml");
    assert!(guest.inside(&["kill", &format!("-{FAIL_STATELESS}"), "1"]).success());
    guest.thaw();
    until("the take-over", || guest.log().contains("the state is lost").then_some(()));
    for name in STEADY {
        guest.wait(name, State::Active, None);
    }
    for name in ["steady", "user"] {
        assert_eq!(processes_of(&guest, name), 1, "{name}");
    }
    assert_ne!(guest.component("steady").pid, before[0]);
    assert_eq!(guest.component("writer").pid, before[2]);
    // What it needs is not declared any more.
    assert_eq!(guest.component("top").state, State::Inactive);
    for name in ["base", "top"] {
        until("its end", || (processes_of(&guest, name) == 0).then_some(()));
    }
}

/// A supervisor in user mode, ended with the test.
struct User {
    child: Child,
    dir: tempfile::TempDir,
}

impl User {
    fn command(dir: &Path) -> Command {
        Self::arguments(Command::new(env!("CARGO_BIN_EXE_graph-resolver")), dir)
    }

    fn arguments(mut command: Command, dir: &Path) -> Command {
        command
            .args(["--config-dir", "graph.d", "--control-socket", "sock", "--state-dir", "state"])
            .args(["--cgroup-root", "no-cgroups"])
            .current_dir(dir)
            .stdin(Stdio::null());
        command
    }

    fn start() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("graph.d")).expect("configuration directory");
        fs::write(path("graph.d/a.toml"), sleeper("a", "")).expect("component file");
        let log = fs::File::create(path("log")).expect("log");
        let child = Self::command(dir.path()).stderr(log).spawn().expect("graph-resolver");
        until("the control socket", || UnixStream::connect(dir.path().join("sock")).ok());
        Self { child, dir }
    }

    fn ask(&self, request: Request) -> Answer {
        let mut stream = UnixStream::connect(self.dir.path().join("sock")).expect("control socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("read timeout");
        stream.write_all(&encode_request(request).expect("request")).expect("request");
        answer(&mut BufReader::new(stream))
    }

    fn pid_of_a(&self) -> Option<i32> {
        match self.ask(Request::Status { name: Some("a".to_owned()), after: None }) {
            Answer::Status(page) => page.components[0].pid,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[cfg(debug_assertions)]
fn a_state_that_is_lost_again_and_again_ends_it() {
    let mut user = User::start();
    assert!(matches!(user.ask(until_state("a", State::Active)), Answer::Done { .. }));
    let pid = user.pid_of_a();
    let supervisor = user.child.id().to_string();
    let fail =
        || Command::new("kill").args([&format!("-{FAIL_STATELESS}"), &supervisor]).status().expect("kill");
    assert!(fail().success());
    let said = || fs::read_to_string(user.dir.path().join("log")).unwrap_or_default();
    until("the take-over", || said().contains("the state is lost").then_some(()));
    assert!(matches!(user.ask(until_state("a", State::Active)), Answer::Done { .. }));
    assert_eq!(user.pid_of_a(), pid);
    assert!(fail().success());
    let status = until("the end", || user.child.try_wait().expect("status"));
    assert_eq!(status.code(), Some(70));
    let pid = pid.expect("running").to_string();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().is_ok());
}

#[test]
fn user_mode_does_it_too_and_gives_up_at_last() {
    let mut user = User::start();
    assert!(matches!(user.ask(until_state("a", State::Active)), Answer::Done { .. }));
    let pid = user.pid_of_a();
    for _ in 0..3 {
        assert!(matches!(user.ask(Request::Reexec), Answer::Done { .. }));
        assert_eq!(user.pid_of_a(), pid);
    }
    if cfg!(debug_assertions) {
        let supervisor = user.child.id().to_string();
        for errors in 1..=4 {
            assert!(Command::new("kill").args([&format!("-{FAIL_NOW}"), &supervisor]).status().is_ok());
            let said = || fs::read_to_string(user.dir.path().join("log")).unwrap_or_default();
            until("the error", || (said().matches("internal error: ").count() == errors).then_some(()));
            if errors < 4 {
                assert_eq!(user.pid_of_a(), pid, "after {errors} errors");
            }
        }
        let status = until("the end", || user.child.try_wait().expect("status"));
        assert_eq!(status.code(), Some(70));
    }
    let pid = pid.expect("running").to_string();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().is_ok());
}

#[test]
fn a_second_supervisor_takes_nothing_from_the_first() {
    let mut first = User::start();
    let dir = first.dir.path().to_owned();
    let socket = dir.join("sock");
    let mut limited = Command::new("timeout");
    limited.arg(PATIENCE.as_secs().to_string()).arg(env!("CARGO_BIN_EXE_graph-resolver"));
    let second = User::arguments(limited, &dir).output().expect("graph-resolver");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(70), "{said}");
    assert!(said.contains(&format!("process {} listens there already", first.child.id())), "{said}");
    assert!(matches!(first.ask(until_state("a", State::Active)), Answer::Done { .. }));
    // One that finds no socket there opens its own, and keeps it when the first one ends.
    fs::remove_file(&socket).expect("the name of the socket");
    let mut third = User::command(&dir).spawn().expect("graph-resolver");
    until("the other socket", || UnixStream::connect(&socket).ok());
    let end = |child: &mut Child| {
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
        until("its end", || child.try_wait().expect("status"))
    };
    assert!(end(&mut first.child).success());
    let answers = UnixStream::connect(&socket).is_ok();
    assert!(end(&mut third).success());
    assert!(answers, "the socket of the one is gone with the other");
    assert!(!socket.exists(), "its own goes with it");
}
