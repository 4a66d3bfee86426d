//! The agent: carries out the host's requests over the virtio-serial port.
//!
//! - It depends on nothing but the kernel: not on PID 1, not on a mounted /proc.
//! - It cannot be chosen by the OOM killer, and gives its children the usual chance of it back.
//! - One stream that hangs holds up no other, since each has a thread of its own; but a program that does not read its
//!   input does once 4 MiB wait for it, because the channel has no flow control for each stream.

mod error;
mod exec;
mod files;
mod ledger;
mod machine;
mod port;
mod relay;
mod serve;
mod stream;

use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "-1000") {
        eprintln!("agent: failed to leave the OOM killer's list: {error}");
    }
    let port = port::open()?;
    println!("ready");
    serve::serve(port)
}
