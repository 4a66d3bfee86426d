//! From the creation of a process to its program.
//!
//! That the program runs is told once, before anything that it says or does is; so is the step that failed before it.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use tokio::task::spawn_local;
use tracing::warn;
use yakiros_core::engine::{Event, RunId};

use super::{Processes, Role, pressure};
use crate::spawn;
use crate::supervisor::Supervisor;
use crate::sys;

/// Wait for exec to close the report pipe, or for the step that failed.
pub(super) async fn watch_exec(supervisor: Rc<Supervisor>, run: RunId) {
    let report = supervisor.processes.borrow().runs.get(&run).and_then(|process| process.report.clone());
    let Some(report) = report else { return };
    Processes::make_way(&supervisor, run);
    loop {
        let Ok(mut ready) = report.readable().await else {
            return;
        };
        if take_report(&supervisor, run) {
            return;
        }
        ready.clear_ready();
    }
}

/// A process has sent a signal: that it is executed was told before that.
pub fn take_report_of(supervisor: &Rc<Supervisor>, pid: i32) {
    let role = supervisor.processes.borrow().pids.get(&pid).copied();
    if let Some(Role::Component(run)) = role {
        take_report(supervisor, run);
    }
}

/// Take back what children were lent of the table of descriptors, for ever. An error is one of the event loop's.
pub async fn settle_loans(supervisor: Rc<Supervisor>, woken: OwnedFd) -> io::Result<()> {
    let woken = sys::watch(woken)?;
    loop {
        let mut ready = woken.readable().await?;
        ready.clear_ready();
        // How often it was told does not matter; what comes after this wakes again.
        let mut count = [0; size_of::<u64>()];
        sys::read_now(woken.get_ref(), &mut count)?;
        supervisor.processes.borrow_mut().settle_loans();
    }
}

/// Read the report pipe if something has come. Whether the report is complete.
pub(super) fn take_report(supervisor: &Rc<Supervisor>, run: RunId) -> bool {
    let mut buffer = [0_u8; 8];
    let executed = loop {
        let mut own = supervisor.processes.borrow_mut();
        let own = &mut *own;
        let Some(process) = own.runs.get_mut(&run) else {
            return true;
        };
        let Some(report) = &process.report else {
            return true;
        };
        // As long as the other end is open here, there is no end to be seen.
        if let Some(loan) = process.pid.and_then(|pid| own.loans.get_mut(&pid)) {
            loan.settle();
        }
        break match sys::read_now(report.get_ref(), &mut buffer) {
            Ok(None) => return false,
            Ok(Some(count)) if count > 0 => {
                match spawn::read_report(&buffer[..count], &process.steps) {
                    Some(passed) if passed.passed_over => {
                        let (name, error) = (&process.name, io::Error::from_raw_os_error(passed.errno));
                        warn!("{name} runs without what is optional: failed to {}: {error}", passed.step);
                        continue;
                    }
                    failure => process.failure = failure.map(|failure| (failure.step, failure.errno)),
                }
                process.report = None;
                false
            }
            // The end of the pipe. An error cannot happen to a pipe of ours; then exec is
            // taken for done, and the exit tells the rest.
            result => {
                process.report = None;
                if let (Ok(_), Some(pid)) = (result, process.pid) {
                    // SAFETY: the kernel has closed the pipe, which it does after taking the memory away.
                    unsafe { own.end_loan(pid) };
                }
                true
            }
        };
    };
    if executed {
        supervisor.dispatch(Event::Executed(run));
        listen(supervisor, run);
    }
    true
}

/// The program runs: what it says counts from now on, and so does what tells that it is ready. Before that
/// a check would have asked about something else.
pub fn listen(supervisor: &Rc<Supervisor>, run: RunId) {
    let component = supervisor.started_with(run);
    let mut own = supervisor.processes.borrow_mut();
    let (Some(process), Some(component)) = (own.runs.get_mut(&run), component) else { return };
    if let Some(socket) = &process.socket {
        let speaks = Rc::clone(socket).serve(Rc::clone(supervisor), run);
        process.speaking = Some(spawn_local(speaks).abort_handle());
    }
    if let Some(channel) = &process.channel {
        let watch = Rc::clone(channel).watch(supervisor, run, &component);
        process.watching = Some(spawn_local(watch).abort_handle());
    }
    supervisor.handovers.listen(supervisor, run);
    drop(own);
    if let Err(reason) = pressure::watch(supervisor, run, &component.resources) {
        supervisor.dispatch(Event::Limited(run, Err(reason)));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use yakiros_core::engine::{Config, Engine, FileChange, FileContent};

    use super::*;
    use crate::cgroup::Cgroups;
    use crate::cgroup::fake::{Bench as Groups, component};
    use crate::declarations::Declarations;
    use crate::output::Logs;

    /// A supervisor of these components, without groups; `test` comes before the event loop.
    fn supervised<T: Future<Output = ()>>(texts: &[&str], test: impl FnOnce(Rc<Supervisor>) -> T) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("event loop");
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let dir = tempfile::tempdir().expect("temporary directory");
            let listener = tokio::net::UnixListener::bind(dir.path().join("sock")).expect("a socket");
            let common = crate::machine::common().expect("/dev/null");
            let system = (Cgroups::new(Path::new("/nonexistent")), common, Logs::new().expect("epoll"));
            let engine = Engine::new(Config::default());
            let declarations = Declarations::new(dir.path());
            let state_dir = dir.path().to_owned();
            let places = crate::checkpoint::Places {
                program: "/nonexistent".into(),
                criu: "/nonexistent".into(),
                store: "/nonexistent".into(),
                quota: None,
            };
            let declarations = (declarations, places);
            let supervisor = Supervisor::new(engine, state_dir, declarations, system, Rc::new(listener));
            let changes = texts.iter().enumerate().map(|(number, text)| {
                let component = yakiros_core::component::parse(text).component.expect("a component");
                let content = FileContent::Component(Box::new(component));
                FileChange { file: format!("{number}.toml"), content }
            });
            supervisor.dispatch(Event::Files(changes.collect()));
            test(Rc::clone(&supervisor)).await;
            let runs: Vec<_> = supervisor.processes.borrow().runs.keys().copied().collect();
            for run in runs {
                supervisor.processes.borrow_mut().kill(run);
            }
        });
    }

    #[test]
    fn readiness_is_watched_and_words_are_heard_once_the_program_runs() {
        let text = "[component]\nname = \"a\"\nbinary = \"/bin/sleep\"\nargs = [\"1000\"]\n\
                    [lifecycle]\nreadiness_check = \"true\"\nwatchdog_interval = \"10m\"\n";
        supervised(&[text], |supervisor| async move {
            let stands = || {
                let own = supervisor.processes.borrow();
                let process = own.runs.values().next().expect("a process");
                (process.report.is_none(), process.watching.is_some(), process.speaking.is_some())
            };
            assert_eq!(stands(), (false, false, false), "exec is under way");
            while !stands().0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(stands(), (true, true, true));
        });
    }

    #[test]
    fn pressure_that_cannot_be_watched_keeps_no_limit_from_being_written() {
        let text = "[component]\nname = \"a\"\nbinary = \"/bin/sleep\"\nargs = [\"1000\"]\n";
        supervised(&[text], |supervisor| async move {
            let mut groups = Groups::new();
            let group = groups.start("a", "a");
            // It has a group of no kernel's, whose pressure is unknown.
            groups.offer("a", "pids");
            let file = groups.path("a/pids.max");
            std::fs::write(&file, "max").expect("file");
            let run = {
                let mut own = supervisor.processes.borrow_mut();
                own.cgroups = groups.all;
                let (run, process) = own.runs.iter_mut().next().expect("a process");
                process.cgroup = Some(group);
                *run
            };
            let declared = "pids_max = 9\nmemory_pressure = \"some 150ms 1s\"";
            crate::limits::begin(&supervisor, run, &component("a", "a", declared));
            let child = {
                let own = supervisor.processes.borrow();
                own.pids.iter().find(|(_, role)| matches!(role, Role::Limits(_))).map(|(pid, _)| *pid)
            };
            let exit = crate::signals::wait_for(child.expect("a child that writes"));
            assert_eq!(std::fs::read_to_string(file).expect("file"), "9");
            // Which is told nevertheless.
            let told = || serde_json::to_string(&supervisor.snapshot()).expect("a snapshot");
            assert!(!told().contains("memory.pressure is not watched"));
            crate::limits::reaped(&supervisor, crate::limits::Writer::Run(run), exit);
            assert!(told().contains("memory.pressure is not watched: No such file"), "{}", told());
        });
    }

    #[test]
    fn what_follows_a_start_finds_its_group_made_and_no_other_does() {
        let text = |name: &str, more: &str| {
            format!("[component]\nname = {name:?}\nbinary = \"/bin/sleep\"\nargs = [\"1000\"]\n{more}\n")
        };
        let needs = |capability: &str| format!("[requires]\ncapabilities = [{capability:?}]");
        // It never becomes ready.
        let provider = "[provides]\ncapabilities = [\"x\"]\n[lifecycle]\nreadiness_check = \"false\"";
        let shares = format!("{}\n[resources]\ncgroup = \"shared\"", needs("x"));
        let texts = [
            text("a", provider),
            text("next", &needs("x")),
            text("other", &needs("y")),
            text("sharer", &shares),
        ];
        supervised(&texts.each_ref().map(String::as_str), |supervisor| async move {
            let groups = Groups::new();
            // Processes cannot be born in these; the one of "a" is without a group already.
            supervisor.processes.borrow_mut().cgroups = groups.all;
            let is_over = || {
                let own = supervisor.processes.borrow();
                own.runs.values().all(|process| process.report.is_none())
            };
            while !is_over() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let made = |name: &str| groups.root.path().join("graph").join(name).exists();
            assert_eq!(["a", "next", "other", "shared"].map(made), [false, true, false, false]);
            assert!(supervisor.processes.borrow().pipes.is_some());
            assert_eq!(supervisor.processes.borrow().runs.len(), 1, "it follows, and was not started");
            // Who is no longer declared leaves nothing.
            supervisor.processes.borrow_mut().forget("next");
            assert!(!made("next"));
        });
    }
}
