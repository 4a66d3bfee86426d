//! What is left when the supervisor itself has failed.

use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};

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
    // As the handler of faults leaves it.
    fcntl(&read, FcntlArg::F_SETFD(FdFlag::empty())).expect("flags");
    let mut child = Command::new("unshare")
        .args([flags, "--mount-proc", "--kill-child", "/bin/sh", "-c"])
        // Its shell must not find the console of who runs this test.
        .arg("mount -t tmpfs none /dev && exec \"$0\" --emergency")
        .arg(env!("CARGO_BIN_EXE_graph-resolver"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("unshare");
    drop(read);
    let (done, written) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = done.send(std::fs::File::from(write).write_all(&vec![b'x'; OUTPUT]).is_ok());
    });
    let outcome = written.recv_timeout(PATIENCE);
    child.kill().expect("kill");
    child.wait().expect("status");
    assert_eq!(outcome, Ok(true), "neither an end by SIGPIPE nor a wait for ever");
}
