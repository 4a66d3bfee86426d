//! Limits that change while a component runs: its control group's files, and its limit of open
//! files.
//!
//! The files are written by a child with a time limit. Lowering a limit of memory makes the kernel
//! reclaim before the write returns, for as long as it takes: nothing that process 1 may wait for.
//! The child keeps none of the supervisor's descriptors, so that nothing stays open for it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::task::{AbortHandle, spawn_local};
use yakiros_core::component::{Component, Resources};
use yakiros_core::engine::{Event, RunId};
use yakiros_core::journal::Exit;

use crate::cgroup;
use crate::supervisor::Supervisor;
use crate::sys;

/// Time for the kernel to take all new limits. Reclaiming gigabytes to a slow disk takes seconds;
/// what takes longer is told as a failure.
const TIME: Duration = Duration::from_secs(10);

/// A limit for the child to write.
struct Write {
    /// Its name in the control group.
    file: &'static str,
    path: CString,
    value: CString,
    /// It is declared. What is only lifted may be missing with its controller.
    declared: bool,
}

/// A child that writes.
struct Change {
    files: Vec<&'static str>,
    report: OwnedFd,
    time: AbortHandle,
}

/// Changes under way, by the run they are for. The engine has one at a time for each.
#[derive(Default)]
pub struct Changes(RefCell<HashMap<RunId, Change>>);

type Outcome = Result<(), Rc<str>>;

/// Give a process the limits that are declared now, and report what became of it.
pub fn begin(supervisor: &Rc<Supervisor>, run: RunId, component: &Component) {
    let resources = &component.resources;
    let limited = supervisor.processes.borrow().limit_files(run, resources.files_max);
    if let Err(error) = limited {
        return over(supervisor, run, Err(format!("files_max: {error}").into()));
    }
    let writes = supervisor
        .processes
        .borrow_mut()
        .give_away_cgroup(run)
        .map(|(path, shared)| writes(&path, resources, shared));
    // Without control groups limits do not hold, which was said at the start.
    let Some(writes) = writes else {
        return over(supervisor, run, Ok(()));
    };
    match start(&writes) {
        Err(error) => over(supervisor, run, Err(format!("failed to create a process: {error}").into())),
        Ok((pid, report)) => {
            let time = spawn_local(async move {
                tokio::time::sleep(TIME).await;
                // It is not reaped, or this task would have been ended: the number is its own.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            });
            let files = writes.iter().map(|write| write.file).collect();
            let change = Change { files, report, time: time.abort_handle() };
            supervisor.changes.0.borrow_mut().insert(run, change);
            supervisor.processes.borrow_mut().expect_limits(pid, run);
        }
    }
}

/// The child of a change has ended.
pub fn reaped(supervisor: &Rc<Supervisor>, run: RunId, exit: Exit) {
    let Some(change) = supervisor.changes.0.borrow_mut().remove(&run) else {
        return;
    };
    change.time.abort();
    over(supervisor, run, judge(&change.files, &change.report, exit));
}

fn over(supervisor: &Rc<Supervisor>, run: RunId, outcome: Outcome) {
    supervisor.dispatch(Event::Limited(run, outcome));
}

fn judge(files: &[&str], report: &OwnedFd, exit: Exit) -> Outcome {
    if exit == Exit::Code(0) {
        return Ok(());
    }
    let mut message = [0_u8; 8];
    let told = matches!(sys::read_now(report, &mut message), Ok(Some(8)));
    let (number, errno) = message.split_at(4);
    let number = number.try_into().map_or(u32::MAX, u32::from_ne_bytes);
    let errno = errno.try_into().map_or(0, i32::from_ne_bytes);
    match files.get(number as usize).filter(|_| told) {
        Some(file) => Err(format!("{file}: {}", io::Error::from_raw_os_error(errno)).into()),
        None => Err(format!("not written within {TIME:?}").into()),
    }
}

/// Everything there is to write. In a shared group the limits that are not declared here may be
/// declared there.
fn writes(group: &Path, resources: &Resources, shared: bool) -> Vec<Write> {
    let limits = cgroup::limits(resources).into_iter();
    let limits = limits.filter(|(_, value, _)| value.is_some() || !shared);
    let write = |(file, value, default): cgroup::Limit| {
        let declared = value.is_some();
        let value = value.unwrap_or_else(|| default.to_owned());
        let path = CString::new(group.join(file).as_os_str().as_bytes()).ok()?;
        Some(Write { file, path, value: CString::new(value).ok()?, declared })
    };
    limits.filter_map(write).collect()
}

/// Start the child. Its first failure comes through the pipe; it goes on with the rest.
fn start(writes: &[Write]) -> io::Result<(i32, OwnedFd)> {
    let (read, report) = sys::pipe()?;
    // SAFETY: the child makes plain system calls on what was prepared, and ends.
    match unsafe { sys::clone_child(None, 0) }? {
        // SAFETY: this is the child.
        0 => unsafe { write_all(writes, report.as_raw_fd()) },
        pid => Ok((pid, read)),
    }
}

/// The child's whole life.
///
/// # Safety
/// Only in a child process.
unsafe fn write_all(writes: &[Write], report: libc::c_int) -> ! {
    // SAFETY: as the caller promises.
    unsafe { sys::close_all_but(&[report]) };
    let mut failed = false;
    for (number, write) in (0_u32..).zip(writes) {
        // SAFETY: as the caller promises.
        let errno = unsafe { write_one(&write.path, &write.value) };
        let missing = errno == libc::ENOENT && !write.declared;
        if errno == 0 || missing || failed {
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

    fn end_of(pid: i32) -> Exit {
        loop {
            match signals::take(pid) {
                Some(exit) => return exit,
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Write the limits of a made-up group; what is read back, and what is said.
    fn change(resources: &Resources, shared: bool) -> (Vec<Option<String>>, Outcome) {
        let group = tempfile::tempdir().expect("temporary directory");
        let files = ["memory.max", "memory.high", "cpu.weight", "pids.max"];
        for file in files {
            fs::write(group.path().join(file), "12345678").expect("file");
        }
        let writes = writes(group.path(), resources, shared);
        let (pid, report) = start(&writes).expect("a child");
        let names: Vec<_> = writes.iter().map(|write| write.file).collect();
        let said = judge(&names, &report, end_of(pid));
        (files.map(|file| fs::read_to_string(group.path().join(file)).ok()).to_vec(), said)
    }

    #[test]
    fn declared_limits_are_written_and_others_lifted_unless_shared() {
        let some = |text: &str| Some(text.to_owned());
        let resources = Resources { memory_max: Some(4096), cpu_weight: Some(7), ..Resources::default() };
        let (files, said) = change(&resources, false);
        assert_eq!(said, Ok(()));
        assert_eq!(files, [some("4096"), some("max"), some("7"), some("max")]);
        let (files, said) = change(&resources, true);
        assert_eq!(said, Ok(()));
        assert_eq!(files, [some("4096"), some("12345678"), some("7"), some("12345678")]);
    }

    #[test]
    fn a_limit_that_cannot_be_written_is_named_and_the_rest_is_written() {
        let resources = Resources { io_weight: Some(7), pids_max: Some(9), ..Resources::default() };
        let (files, said) = change(&resources, false);
        assert_eq!(said, Err("io.weight: No such file or directory (os error 2)".into()));
        assert_eq!(files[3].as_deref(), Some("9"));
    }

    #[test]
    fn a_write_that_hangs_is_told_once_it_is_killed() {
        let group = tempfile::tempdir().expect("temporary directory");
        // Nobody reads: opening it does not return.
        nix::unistd::mkfifo(&group.path().join("memory.max"), nix::sys::stat::Mode::S_IRWXU).expect("pipe");
        let resources = Resources { memory_max: Some(4096), ..Resources::default() };
        let (pid, report) = start(&writes(group.path(), &resources, true)).expect("a child");
        let open = || fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").count();
        let give_up = std::time::Instant::now() + Duration::from_secs(30);
        while open() > 1 {
            assert!(std::time::Instant::now() < give_up, "it keeps {} descriptors of its parent", open() - 1);
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(signals::take(pid), None, "it hangs");
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill");
        assert_eq!(judge(&["memory.max"], &report, end_of(pid)), Err("not written within 10s".into()));
    }
}
