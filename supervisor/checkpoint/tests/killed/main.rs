//! `graph-checkpoint` killed before each of its system calls: what was there is there, what was made is there whole or
//! not at all, and nothing else is left once somebody has cleaned up.

#[path = "../storage/common.rs"]
mod common;

use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{directory, everything, keep_with_rounds, store};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use yakiros_checkpoint::archive::export;
use yakiros_checkpoint::order::{Job, Order, VERSION};
use yakiros_checkpoint::store::{Policy, Store};

/// More than any of the orders takes.
const STOPS_LIMIT: usize = 5000;

/// Whether it came to its end with fewer than this many stops at system calls; otherwise it was killed at that one.
fn run_until(order: &Order, stops: usize) -> bool {
    let mut command = Command::new(env!("CARGO_BIN_EXE_graph-checkpoint"));
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    // SAFETY: ptrace is a system call and touches no memory.
    unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
    // Spawning returns when it executes the program, where it stops.
    #[expect(clippy::zombie_processes, reason = "it is waited for by its number, with its stops")]
    let mut child = command.spawn().expect("it starts");
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a number"));
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(&serde_json::to_vec(order).expect("an order")).expect("it is read");
    drop(stdin);
    assert_eq!(waitpid(pid, None), Ok(WaitStatus::Stopped(pid, Signal::SIGTRAP)));
    for _ in 0..stops {
        ptrace::syscall(pid, None).expect("it goes on");
        match waitpid(pid, None).expect("it is a child") {
            WaitStatus::Exited(_, code) => {
                assert_eq!(code, 0, "{order:?} failed");
                return true;
            }
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
            other => panic!("{other:?}"),
        }
    }
    kill(pid, Signal::SIGKILL).expect("it can be killed");
    assert_eq!(waitpid(pid, None), Ok(WaitStatus::Signaled(pid, Signal::SIGKILL, false)));
    false
}

/// Carry an order out on copies of a store, killed at each step.
fn kill_everywhere(base: &Path, order: impl Fn(PathBuf) -> Order) {
    let before = everything(base);
    let mut met = [0; 2];
    let whole = copy(base);
    assert!(run_until(&order(whole.path().to_owned()), STOPS_LIMIT), "it ends");
    let after = everything(whole.path());
    assert_ne!(before, after, "it does something");
    // It stops before and after each call: the latter is as before the next.
    for stops in (1..STOPS_LIMIT).step_by(2) {
        let copied = copy(base);
        let ended = run_until(&order(copied.path().to_owned()), stops);
        let store = Store::open(copied.path()).expect("a store");
        // Every checkpoint that can be seen is whole, before anybody has cleaned up.
        for outline in store.list(None).expect("a list") {
            let checkpoint = store.find(&outline.component, Some(&outline.id)).expect("it is there");
            checkpoint.verify().unwrap_or_else(|error| panic!("killed at stop {stops}: {error}"));
        }
        store.sweep().expect("it cleans up");
        let found = everything(copied.path());
        let which = [&before, &after].iter().position(|content| **content == found);
        let which = which.unwrap_or_else(|| panic!("neither old nor new, killed at stop {stops}: {found:?}"));
        met[which] += 1;
        if ended {
            assert!(met.iter().all(|times| *times > 1), "{met:?}");
            return;
        }
    }
    panic!("it does not end");
}

fn copy(base: &Path) -> tempfile::TempDir {
    let to = directory();
    let status = Command::new("cp").arg("-a").arg(base.join(".")).arg(to.path()).status();
    assert!(status.is_ok_and(|status| status.success()));
    to
}

fn order(base: PathBuf, job: Job) -> Order {
    Order { version: VERSION, base, known: None, job }
}

#[test]
fn taking_in() {
    let (_elsewhere, there) = store();
    keep_with_rounds(&there, "web");
    let archive = tempfile::NamedTempFile::new().expect("a file");
    export(&there.find("web", None).expect("it is there"), archive.as_file()).expect("an archive");
    let base = directory();
    keep_with_rounds(&Store::make(base.path()).expect("a store"), "web");
    let job = Job::Import { from: archive.path().to_owned(), quota: None };
    kill_everywhere(base.path(), |base| order(base, job.clone()));
}

#[test]
fn removing() {
    let base = directory();
    let store = Store::make(base.path()).expect("a store");
    let (first, _) = (keep_with_rounds(&store, "web"), keep_with_rounds(&store, "database"));
    let job = Job::Remove { component: "web".to_owned(), id: first.id };
    kill_everywhere(base.path(), |base| order(base, job.clone()));
}

#[test]
fn cleaning_up() {
    let base = directory();
    let store = Store::make(base.path()).expect("a store");
    keep_with_rounds(&store, "web");
    keep_with_rounds(&store, "web");
    let policy = Policy { per_component: 1, ..Policy::default() };
    kill_everywhere(base.path(), |base| order(base, Job::Cleanup { policy, component: None }));
    // What is left half removed goes, too.
    fs::create_dir_all(base.path().join("web/.old-x/pre-1")).expect("a directory");
    assert!(run_until(&order(base.path().to_owned(), Job::Cleanup { policy, component: None }), STOPS_LIMIT));
    assert!(everything(base.path()).iter().all(|(path, _)| !path.to_string_lossy().contains("/.")));
}
