//! A file system that never answers: FUSE with nobody behind it, as a dead network mount is.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};

use yakiros_core::control::{Answer, Request};
use yakiros_core::journal::State;

use crate::guest::{Guest, answer, begin, copy_program, sleeper, unshare_flags, until};
#[cfg(debug_assertions)]
use crate::reexec::FAIL_STATELESS;

/// One child for each path that is asked about: one that was killed may be held for ever, and is not to be one of many.
const CHILDREN: usize = 3;

/// A mount in the supervisor's namespaces that answers nothing until this is dropped; then everybody who waits for it
/// gets an error.
struct Dead {
    holder: Child,
}

impl Dead {
    /// `None` (with the reason printed) where there is no FUSE.
    fn mount(guest: &Guest, on: &Path) -> Option<Self> {
        // FUSE is to be opened by who mounts it.
        let script = "true 9<> /dev/fuse || exit; exec 9<> /dev/fuse
            mount -i -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0 dead \"$0\" && echo mounted
            exec sleep 100000";
        // With its own number here, by which it is ended.
        let mut holder = guest.command_inside(&["-U", "-m"]);
        holder.args(["sh", "-c", script]).arg(on).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut holder = holder.spawn().expect("nsenter");
        let mut said = String::new();
        let stdout: ChildStdout = holder.stdout.take().expect("its output");
        BufReader::new(stdout).read_line(&mut said).expect("its output");
        let dead = Self { holder };
        if said != "mounted\n" {
            eprintln!("skipped: without FUSE there is no file system that never answers");
            return None;
        }
        Some(dead)
    }
}

impl Drop for Dead {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Children of process 1 by the name of what they run, by their numbers out here.
fn children(guest: &Guest, name: &str) -> Vec<String> {
    let init = guest.init_pid();
    let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap_or_default();
    let runs = |pid: &&str| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name)
    };
    children.split_whitespace().filter(runs).map(str::to_owned).collect()
}

/// Those that look at paths.
fn looking(guest: &Guest) -> usize {
    children(guest, "graph-lookup").len()
}

/// Those that have executed nothing yet.
fn unexecuted(guest: &Guest) -> Vec<String> {
    children(guest, "graph-resolver")
}

/// A supervisor of one component, and a folder that answers nothing.
fn start() -> Option<(Guest, PathBuf, Dead)> {
    let guest = Guest::start("dead-file-system")?;
    guest.wait("steady", State::Active, None);
    let point = guest.dir.path().join("dead");
    fs::create_dir(&point).expect("mount point");
    let dead = Dead::mount(&guest, &point)?;
    Some((guest, point, dead))
}

fn stop(guest: &Guest, name: &str) {
    match guest.ask(Request::Stop { name: name.to_owned(), timeout_ms: None }) {
        Answer::Done { .. } => assert_eq!(guest.component(name).state, State::Inactive),
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn a_dead_file_system_holds_nobody_up() {
    let Some((guest, point, dead)) = start() else { return };
    let path = |name: &str| point.join(name).display().to_string();
    let probed = |key: &str| {
        format!(
            "[lifecycle]\n{key} = {:?}\nhealth_interval = 0.1\nhealth_timeout = 0.3\n\
             health_fail_threshold = 2\nhealth_restart_threshold = 1000000\n",
            path(key)
        )
    };
    for key in ["health_file", "health_unix"] {
        guest.declare(&format!("{key}.toml"), &sleeper(key, &probed(key)));
    }
    let ready = format!("[lifecycle]\nreadiness_file = {:?}\n", path("ready"));
    guest.declare("ready.toml", &sleeper("ready", &ready));
    let program = format!("[component]\nname = \"program\"\nbinary = {:?}\n", path("program"));
    guest.declare("program.toml", &program);
    for name in ["health_file", "health_unix"] {
        guest.wait(name, State::Degraded, None);
        let detail = guest.component(name).detail.unwrap_or_default();
        assert!(detail.contains("no answer within 300ms"), "{name}: {detail}");
    }
    for round in 0..5 {
        let since = guest.revision();
        guest.kill(guest.component("steady").pid.expect("running"), "KILL");
        guest.wait("steady", State::Active, Some(since));
        // A look that takes too long ends a start, which is made again.
        let states = [State::Starting, State::Failed, State::Backoff];
        assert!(states.contains(&guest.component("ready").state), "{:?}", guest.component("ready"));
        assert_eq!(guest.component("program").state, State::Starting);
        assert!(looking(&guest) <= CHILDREN, "round {round}: {} children look", looking(&guest));
        match guest.ask(Request::Reexec) {
            Answer::Done { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    // What waits can be given up.
    stop(&guest, "ready");
    stop(&guest, "program");
    guest.ask(Request::Start { name: "ready".to_owned(), timeout_ms: Some(1) });
    drop(dead);
    // Its file system says by now that it is gone, which is not the file.
    guest.wait("ready", State::ReadyWait, None);
    for name in ["ready", "health_file", "health_unix"] {
        guest.undeclare(&format!("{name}.toml"));
        guest.wait(name, State::Removed, None);
    }
    until("the end of those that look", || (looking(&guest) == 0).then_some(()));
}

#[test]
fn a_program_on_a_dead_file_system_takes_nothing_over() {
    let dir = tempfile::tempdir().expect("temporary directory");
    for folder in ["graph.d", "bin"] {
        fs::create_dir(dir.path().join(folder)).expect("folder");
    }
    let program = dir.path().join("bin/program");
    copy_program(Path::new(env!("CARGO_BIN_EXE_graph-resolver")), &program);
    fs::write(dir.path().join("graph.d/a.toml"), sleeper("a", "")).expect("component file");
    let Some(flags) = unshare_flags() else { return };
    let guest = Guest::start_program(dir, flags, &program);
    guest.wait("a", State::Active, None);
    let Some(_dead) = Dead::mount(&guest, &guest.dir.path().join("bin")) else { return };
    let mut client = begin(&guest, Request::Reexec);
    // What others wait to see closed is not held meanwhile: it has its three files and its report.
    until("its descriptors to be closed", || {
        let pid = unexecuted(&guest).into_iter().next()?;
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
        (descriptors == 4).then_some(())
    });
    // While it is tried, everything goes on.
    let since = guest.revision();
    guest.kill(guest.component("a").pid.expect("running"), "KILL");
    guest.wait("a", State::Active, Some(since));
    match answer(&mut client) {
        Answer::Refused { message, .. } => assert!(message.contains("within 10s"), "{message}"),
        other => panic!("{other:?}"),
    }
}

/// A start that hangs before it executes anything, while process 1 forgets that it was begun.
#[test]
#[cfg(debug_assertions)]
fn a_start_that_was_forgotten_is_not_made_twice() {
    let Some((guest, point, dead)) = start() else { return };
    let program = point.join("program").display().to_string();
    guest.declare("program.toml", &format!("[component]\nname = \"program\"\nbinary = {program:?}\n"));
    let starts = || unexecuted(&guest).len();
    guest.wait("program", State::Starting, None);
    until("its start", || (starts() == 1).then_some(()));
    assert!(guest.inside(&["kill", &format!("-{FAIL_STATELESS}"), "1"]).success());
    until("the take-over", || guest.log().contains("the state is lost").then_some(()));
    guest.wait("steady", State::Active, None);
    guest.wait("program", State::Starting, None);
    until("the end of the first", || (starts() == 1).then_some(()));
    stop(&guest, "program");
    drop(dead);
}
