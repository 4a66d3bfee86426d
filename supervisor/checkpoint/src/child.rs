//! Programs that are run for a limited time.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Most bytes of a program's output that are read; what these programs say that is longer is not for people.
const OUTPUT_LIMIT: u64 = 1 << 20;

/// How a program ended, and what it wrote to its standard output and error.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    /// None if it was killed because its time was over.
    pub status: Option<ExitStatus>,
    pub output: String,
}

/// Run it to its end, or until its time is over.
pub(crate) fn run(command: &mut Command, limit: Duration) -> io::Result<Ended> {
    // Not a pipe, so that nobody has to read while it runs.
    let mut output = File::from(memfd_create("output", MemfdFlags::CLOEXEC)?);
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
    let mut child = command.spawn()?;
    let status = match wait(&mut child, limit) {
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

fn end(child: &mut Child) -> io::Result<()> {
    child.kill()?;
    child.wait().map(drop)
}

fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    let pidfd: OwnedFd = pidfd_open(pid, PidfdFlags::empty())?;
    let until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(None),
            Ok(_) => return child.wait().map(Some),
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
    fn what_is_not_there_is_an_error() {
        let error =
            run(&mut Command::new("/nowhere/criu"), Duration::from_secs(1)).expect_err("nothing runs");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
