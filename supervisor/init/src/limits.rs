//! Limits of control groups that are written while processes are in the group, and the limit of open files of what runs.
//!
//! The files are written by a child with a time limit. Lowering a limit of memory makes the kernel
//! reclaim before the write returns, for as long as it takes: nothing that process 1 may wait for.
//! The child keeps none of the supervisor's descriptors, so that nothing stays open for it. It ends with the run that it
//! writes for, and nothing is started in the group before it has.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::rc::Rc;
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, spawn_local};
use yakiros_core::component::Component;
use yakiros_core::engine::{Event, RunId};
use yakiros_core::journal::Exit;

use crate::cgroup::{Limit, Refusal, Work};
use crate::processes::pressure;
use crate::supervisor::Supervisor;
use crate::sys;

/// Time for the kernel to take all new limits. Reclaiming gigabytes to a slow disk takes seconds;
/// what takes longer is told as a failure.
const TIME: Duration = Duration::from_secs(10);

/// A limit for the child to write.
struct Write<'a> {
    limit: &'a Limit,
    path: CString,
    value: CString,
}

/// A child that writes.
struct Change {
    work: Work,
    pid: i32,
    report: OwnedFd,
    time: AbortHandle,
    asked: AskedBy,
}

/// Who is told what became of a change.
enum AskedBy {
    /// The engine, for a process that runs; and what of it that is no file to write was refused.
    Engine(Result<(), Rc<str>>),
    /// The engine, for the slice whose group has this path.
    Slice(Rc<str>),
    /// A start that waits for it.
    Start(oneshot::Sender<Result<(), Failure>>),
    /// Nobody any more.
    Nobody,
}

/// Why limits do not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Failure {
    /// The first that could not be written; `None` if the child did not come to its end.
    file: Option<&'static str>,
    errno: i32,
}

/// Whose change it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Writer {
    /// That of a run, which has one at a time.
    Run(RunId),
    /// That of a slice, by its number: none is used twice.
    Slice(u64),
}

/// Changes under way.
#[derive(Default)]
pub struct Changes {
    all: RefCell<HashMap<Writer, Change>>,
    /// The number of the last one of a slice.
    last: Cell<u64>,
}

/// Give a process the limits that are declared now, and report what became of it.
pub fn begin(supervisor: &Rc<Supervisor>, run: RunId, component: &Component) {
    let resources = &component.resources;
    let limited = supervisor.processes.borrow().limit_files(run, resources.files_max);
    let limited = limited.map_err(|error| format!("files_max: {error}").into());
    let watched = pressure::watch(supervisor, run, resources);
    // What is refused here keeps no other limit from being written, and is told with what becomes of them.
    let others = limited.and(watched);
    let work = supervisor.processes.borrow().limits_to_write(run, resources);
    // Without control groups limits do not hold, which was said at the start.
    let work = match work {
        None => return over(supervisor, run, others),
        Some(Err(Refusal { step, error })) => {
            return over(supervisor, run, Err(format!("failed to {step}: {error}").into()));
        }
        Some(Ok(work)) => work,
    };
    if let Err(error) = launch(supervisor, Writer::Run(run), work, AskedBy::Engine(others)) {
        over(supervisor, run, Err(format!("failed to create a process: {error}").into()));
    }
}

/// Give the group of a slice, if anything is in it, the limits that are declared now, and report what became of it.
pub fn begin_slice(supervisor: &Rc<Supervisor>, slice: &Component) {
    let group: Rc<str> = slice.name.as_str().into();
    let over = |outcome| supervisor.dispatch(Event::SliceLimited(Rc::clone(&group), outcome));
    let work = supervisor.processes.borrow().slice_to_write(slice);
    let work = match work {
        // What comes to be in it finds them.
        None => return over(Ok(())),
        Some(Err(Refusal { step, error })) => return over(Err(format!("failed to {step}: {error}").into())),
        Some(Ok(work)) if work.limits.is_empty() => return over(Ok(())),
        Some(Ok(work)) => work,
    };
    let number = supervisor.changes.last.get() + 1;
    supervisor.changes.last.set(number);
    if let Err(error) = launch(supervisor, Writer::Slice(number), work, AskedBy::Slice(Rc::clone(&group))) {
        over(Err(format!("failed to create a process: {error}").into()));
    }
}

/// Write limits before a start. A caller that waits no longer ends it.
pub async fn write(supervisor: &Rc<Supervisor>, run: RunId, work: Work) -> io::Result<()> {
    /// Ends the child of a run.
    struct Ending<'a>(&'a Supervisor, RunId);

    impl Drop for Ending<'_> {
        fn drop(&mut self) {
            self.0.changes.abandon(self.1);
        }
    }

    let (sender, answer) = oneshot::channel();
    launch(supervisor, Writer::Run(run), work, AskedBy::Start(sender))?;
    let _ending = Ending(supervisor, run);
    let gone = Failure { file: None, errno: libc::ECANCELED };
    let written = answer.await.unwrap_or(Err(gone));
    written.map_err(|failure| io::Error::from_raw_os_error(failure.errno))
}

impl Changes {
    /// End the child that writes for a run, if there is one: nobody asks for it any more.
    pub fn abandon(&self, run: RunId) {
        if let Some(change) = self.all.borrow_mut().get_mut(&Writer::Run(run)) {
            change.asked = AskedBy::Nobody;
            // It is not reaped, or it would not be among them: the number is its own.
            let _ = kill(Pid::from_raw(change.pid), Signal::SIGKILL);
        }
    }
}

fn launch(supervisor: &Rc<Supervisor>, writer: Writer, mut work: Work, asked: AskedBy) -> io::Result<()> {
    let (pid, report) = start(&work)?;
    let time = spawn_local(async move {
        tokio::time::sleep(TIME).await;
        // It is not reaped, or this task would have been ended: the number is its own.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    });
    supervisor.processes.borrow_mut().limits_begun(pid, writer, &mut work);
    let change = Change { work, pid, report, time: time.abort_handle(), asked };
    supervisor.changes.all.borrow_mut().insert(writer, change);
    Ok(())
}

/// The child of a change has ended.
pub fn reaped(supervisor: &Rc<Supervisor>, writer: Writer, exit: Exit) {
    let Some(change) = supervisor.changes.all.borrow_mut().remove(&writer) else {
        return;
    };
    change.time.abort();
    let outcome = judge(&change.work.limits, &change.report, exit);
    supervisor.processes.borrow_mut().limits_written(change.work, outcome.is_ok());
    let told = || outcome.map_err(|failure| failure.to_string().into());
    match (change.asked, writer) {
        (AskedBy::Engine(others), Writer::Run(run)) => over(supervisor, run, told().and(others)),
        (AskedBy::Slice(group), _) => supervisor.dispatch(Event::SliceLimited(group, told())),
        // It may have been given up.
        (AskedBy::Start(sender), _) => drop(sender.send(outcome)),
        (AskedBy::Nobody | AskedBy::Engine(_), _) => {}
    }
}

fn over(supervisor: &Rc<Supervisor>, run: RunId, outcome: Result<(), Rc<str>>) {
    supervisor.dispatch(Event::Limited(run, outcome));
}

fn judge(limits: &[Limit], report: &OwnedFd, exit: Exit) -> Result<(), Failure> {
    if exit == Exit::Code(0) {
        return Ok(());
    }
    let mut message = [0_u8; 8];
    let told = matches!(sys::read_now(report, &mut message), Ok(Some(8)));
    let (number, errno) = message.split_at(4);
    let number = number.try_into().map_or(u32::MAX, u32::from_ne_bytes);
    let errno = errno.try_into().map_or(0, i32::from_ne_bytes);
    match limits.get(number as usize).filter(|_| told) {
        Some(limit) => Err(Failure { file: Some(limit.file), errno }),
        None => Err(Failure { file: None, errno: libc::ETIMEDOUT }),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.file {
            Some(file) => write!(f, "{file}: {}", io::Error::from_raw_os_error(self.errno)),
            None => write!(f, "not written within {TIME:?}"),
        }
    }
}

/// Start the child. Its first failure comes through the pipe; it goes on with the rest.
fn start(work: &Work) -> io::Result<(i32, OwnedFd)> {
    let write = |limit| prepare(work, limit);
    let writes = work.limits.iter().map(write).collect::<Result<Vec<_>, _>>()?;
    let (read, report) = sys::pipe()?;
    // SAFETY: the child makes plain system calls on what was prepared, and ends.
    match unsafe { sys::clone_child(None, 0) }? {
        // SAFETY: this is the child.
        0 => unsafe { write_all(&writes, report.as_raw_fd()) },
        pid => Ok((pid, read)),
    }
}

fn prepare<'a>(work: &Work, limit: &'a Limit) -> io::Result<Write<'a>> {
    let path = CString::new(work.path.join(limit.file).as_os_str().as_bytes())?;
    Ok(Write { limit, path, value: CString::new(limit.value.as_str())? })
}

/// The child's whole life.
///
/// # Safety
/// Only in a child process.
unsafe fn write_all(writes: &[Write<'_>], report: libc::c_int) -> ! {
    // SAFETY: as the caller promises.
    unsafe { sys::close_all_but(&[report]) };
    let mut failed = false;
    for (number, write) in (0_u32..).zip(writes) {
        // SAFETY: as the caller promises.
        let errno = unsafe { write_one(&write.path, &write.value) };
        if errno == 0 || write.limit.forgives(errno) || failed {
            continue;
        }
        failed = true;
        let mut message = [0_u8; 8];
        message[..4].copy_from_slice(&number.to_ne_bytes());
        message[4..].copy_from_slice(&errno.to_ne_bytes());
        // SAFETY: the buffer is a local.
        unsafe { libc::write(report, message.as_ptr().cast(), message.len()) };
    }
    // SAFETY: nothing of the parent's is run on the way out.
    unsafe { libc::_exit(i32::from(failed)) }
}

/// Write a value to a file that exists. Returns the error number, or 0.
///
/// # Safety
/// Only in a child process.
unsafe fn write_one(path: &CStr, value: &CStr) -> i32 {
    let bytes = value.to_bytes();
    // SAFETY: plain calls on valid pointers; the descriptor is closed by the end of the process.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_TRUNC | libc::O_CLOEXEC);
        if fd < 0 || libc::write(fd, bytes.as_ptr().cast(), bytes.len()) < 0 {
            let errno = *libc::__errno_location();
            return errno.max(1);
        }
        libc::close(fd);
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals;
    use std::fs;
    use std::path::Path;

    fn work(group: &Path, limits: Vec<Limit>) -> Work {
        Work::new(group.into(), limits)
    }

    #[test]
    fn limits_are_written_but_for_those_to_be_lifted_whose_controller_is_missing() {
        let group = tempfile::tempdir().expect("temporary directory");
        for file in ["memory.max", "pids.max"] {
            fs::write(group.path().join(file), "12345678").expect("file");
        }
        let write = |io| {
            let limits = vec![Limit::declared("memory.max", "4096"), io, Limit::declared("pids.max", "9")];
            let work = work(group.path(), limits);
            let (pid, report) = start(&work).expect("a child");
            judge(&work.limits, &report, signals::wait_for(pid))
        };
        assert_eq!(write(Limit::lifted("io.weight", "default 100")), Ok(()));
        let read = |file| fs::read_to_string(group.path().join(file)).expect("file");
        assert_eq!([read("memory.max"), read("pids.max")], ["4096", "9"]);
        // One that cannot be written is named, and the rest is written.
        fs::write(group.path().join("pids.max"), "12345678").expect("file");
        let said = write(Limit::declared("io.weight", "50")).expect_err("no file");
        assert_eq!(said.to_string(), "io.weight: No such file or directory (os error 2)");
        assert_eq!(read("pids.max"), "9");
    }

    #[test]
    fn a_write_that_hangs_is_told_once_it_is_killed() {
        let group = tempfile::tempdir().expect("temporary directory");
        // Nobody reads: opening it does not return.
        nix::unistd::mkfifo(&group.path().join("memory.max"), nix::sys::stat::Mode::S_IRWXU).expect("pipe");
        let work = work(group.path(), vec![Limit::declared("memory.max", "4096")]);
        let (pid, report) = start(&work).expect("a child");
        let open = || fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").count();
        let give_up = std::time::Instant::now() + Duration::from_secs(30);
        while open() > 1 {
            assert!(std::time::Instant::now() < give_up, "it keeps {} descriptors of its parent", open() - 1);
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(signals::take(pid), None, "it hangs");
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill");
        let said = judge(&work.limits, &report, signals::wait_for(pid)).expect_err("it hung");
        assert_eq!(said.to_string(), "not written within 10s");
    }
}
