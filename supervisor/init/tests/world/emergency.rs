//! What is left when the supervisor itself has failed.

use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use command_fds::{CommandFdExt as _, FdMapping};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::guest::{PATIENCE, unshare_flags};

/// More than a pipe holds.
const OUTPUT: usize = 100 * 1024;

#[test]
fn components_write_on_after_a_fault_of_the_supervisor() {
    let Some(flags) = unshare_flags() else {
        return;
    };
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).expect("pipe");
    assert!(read.as_raw_fd() > 2);
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("flags");
    let mut command = Command::new("unshare");
    // As the handler of faults leaves it; within the child alone, for other tests start children meanwhile.
    let number = read.as_raw_fd();
    let pass = FdMapping { parent_fd: read, child_fd: number };
    command.fd_mappings(vec![pass]).expect("a mapping");
    let mut child = command
        .args([flags, "--mount-proc", "--kill-child", "/bin/sh", "-c"])
        // Its shell must not find the console of who runs this test.
        .arg("mount -t tmpfs none /dev && exec \"$0\" --emergency")
        .arg(env!("CARGO_BIN_EXE_graph-resolver"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("unshare");
    // Its copy of the reading end goes with it.
    drop(command);
    let (done, written) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = done.send(std::fs::File::from(write).write_all(&vec![b'x'; OUTPUT]).is_ok());
    });
    let outcome = written.recv_timeout(PATIENCE);
    child.kill().expect("kill");
    child.wait().expect("status");
    assert_eq!(outcome, Ok(true), "neither an end by SIGPIPE nor a wait for ever");
}
