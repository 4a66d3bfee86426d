//! Programs that are run for a limited time, and not longer than this process lives: neither they nor what they started in
//! their process group.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, kill_process_group, pidfd_open, set_parent_process_death_signal,
};

/// Most bytes of a program's output that are read; what these programs say that is longer is not for people.
const OUTPUT_LIMIT: u64 = 1 << 20;

/// How a program ended, and what it wrote to its standard output and error.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    /// None if it was killed because its time was over.
    pub status: Option<ExitStatus>,
    pub output: String,
}

/// Something that is asked of this process while the program runs.
pub(crate) struct Asked<'a> {
    /// Becomes readable with the question.
    pub by: BorrowedFd<'a>,
    /// Answers it, once; the program's time stands still meanwhile.
    pub answer: &'a mut dyn FnMut(),
}

/// Run it to its end, or until its time is over.
pub(crate) fn run(command: &mut Command, limit: Duration) -> io::Result<Ended> {
    run_with(command, limit, None, None)
}

/// The same for a program that holds a descriptor as long as it lives, and may have something to ask.
pub(crate) fn run_with(
    command: &mut Command,
    limit: Duration,
    held: Option<BorrowedFd<'_>>,
    asked: Option<Asked<'_>>,
) -> io::Result<Ended> {
    // Not a pipe, so that nobody has to read while it runs.
    let mut output = File::from(memfd_create("output", MemfdFlags::CLOEXEC)?);
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
    // Its own group, so that at the end of its time what it started goes with it.
    command.process_group(0);
    die_with_this_process(command, held);
    let mut child = command.spawn()?;
    let status = match wait(&mut child, limit, asked) {
        Ok(status) => status,
        Err(error) => {
            end(&mut child)?;
            return Err(error);
        }
    };
    if status.is_none() {
        end(&mut child)?;
    }
    output.rewind()?;
    let mut bytes = Vec::new();
    output.take(OUTPUT_LIMIT).read_to_end(&mut bytes)?;
    Ok(Ended { status, output: String::from_utf8_lossy(&bytes).into_owned() })
}

/// Have it killed when this process ends in whatever way, and let it hold a descriptor until then.
fn die_with_this_process(command: &mut Command, held: Option<BorrowedFd<'_>>) {
    let (parent, held) = (getpid(), held.map(|held| held.as_raw_fd()));
    let set_up = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // Before that it may have ended already.
        if getppid() != Some(parent) {
            return Err(Errno::SRCH.into());
        }
        if let Some(held) = held {
            // SAFETY: the child has a copy of each descriptor that the parent lent for the time of the spawn.
            fcntl_setfd(unsafe { BorrowedFd::borrow_raw(held) }, FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: these are system calls, which touch no memory.
    unsafe { command.pre_exec(set_up) };
}

/// With all of its process group: as long as it is not waited for, its number is nobody else's.
fn end(child: &mut Child) -> io::Result<()> {
    match kill_process_group(number(child)?, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => return Err(error.into()),
    }
    child.wait().map(drop)
}

fn number(child: &Child) -> io::Result<Pid> {
    Ok(i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?)
}

fn wait(child: &mut Child, limit: Duration, mut asked: Option<Asked<'_>>) -> io::Result<Option<ExitStatus>> {
    let pidfd: OwnedFd = pidfd_open(number(child)?, PidfdFlags::empty())?;
    let mut until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut watched = vec![PollFd::new(&pidfd, PollFlags::IN)];
        watched.extend(asked.as_ref().map(|asked| PollFd::from_borrowed_fd(asked.by, PollFlags::IN)));
        match poll(&mut watched, Some(&timeout)) {
            Ok(0) => return Ok(None),
            Ok(_) if !watched[0].revents().is_empty() => return child.wait().map(Some),
            Ok(_) => {
                let begun = Instant::now();
                if let Some(asked) = asked.take() {
                    (asked.answer)();
                }
                until += begun.elapsed();
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Ended {
        run(Command::new("sh").args(["-c", script]), limit).expect("it runs")
    }

    #[test]
    fn what_a_program_says_and_how_it_ends_is_told() {
        let ended = shell("echo out; echo err >&2; exit 3", Duration::from_secs(600));
        assert_eq!(ended.status.and_then(|status| status.code()), Some(3));
        assert_eq!(ended.output, "out\nerr\n");
    }

    #[test]
    fn its_time_ends() {
        let ended = shell("echo before; exec sleep 1000000", Duration::from_millis(300));
        assert!(ended.status.is_none(), "{ended:?}");
    }

    #[test]
    fn what_it_started_ends_with_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("pid");
        // It waits for what it started until its time is over.
        let script = format!("sleep 1000000 & echo $! > {0}.new; mv {0}.new {0}; wait", path.display());
        let mut limit = Duration::from_millis(300);
        // How soon the shell comes so far is nobody's promise.
        while !path.exists() {
            assert!(shell(&script, limit).status.is_none());
            limit *= 2;
        }
        let pid: i32 = std::fs::read_to_string(&path).expect("a number").trim().parse().expect("a number");
        // It is somebody else's child now, who may take their time to wait for it.
        if let Ok(pidfd) = pidfd_open(Pid::from_raw(pid).expect("a number"), PidfdFlags::empty()) {
            let long = Timespec { tv_sec: 600, tv_nsec: 0 };
            assert_eq!(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&long)), Ok(1));
        }
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let error =
            run(&mut Command::new("/nowhere/criu"), Duration::from_secs(1)).expect_err("nothing runs");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
