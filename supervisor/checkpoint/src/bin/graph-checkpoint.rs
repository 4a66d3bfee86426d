//! `graph-checkpoint`: reads one order, carries it out, and tells of each step on its standard output.
//!
//! The order comes from its standard input, or from the descriptor that `--order FD` names. Exit codes: 0 done, 1 failed,
//! 2 no order. It is for programs: process 1 starts it with a limit, so that nothing that takes time or can go wrong is
//! done there. CRIU runs it, too, to ask whether it may end what it has written.

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd as _, RawFd};
use std::process::ExitCode;

use yakiros_checkpoint::criu::gate;
use yakiros_checkpoint::order::{Ear, Teller};
use yakiros_checkpoint::worker;

fn main() -> ExitCode {
    if let Some(work) = std::env::var_os(gate::DOOR) {
        return if gate::ask(&work) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let heard = ear().and_then(|mut ear| Ok((ear.order()?, ear)));
    let (order, mut ear) = match heard {
        Ok(heard) => heard,
        Err(message) => {
            eprintln!("graph-checkpoint: {message}");
            return ExitCode::from(2);
        }
    };
    match worker::run(&order, &mut ear, &mut Teller::new(io::stdout().lock())) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("graph-checkpoint: failed to tell what came of it: {error}");
            ExitCode::FAILURE
        }
    }
}

fn ear() -> Result<Ear, String> {
    let mut args = std::env::args_os().skip(1);
    let number: RawFd = match args.next() {
        None => 0,
        Some(flag) if flag == "--order" => {
            let number = args.next().and_then(|text| text.to_str()?.parse().ok());
            number.filter(|fd: &RawFd| *fd > 2).ok_or("--order needs the number of a descriptor")?
        }
        Some(other) => return Err(format!("unknown argument {}", other.display())),
    };
    // Nothing that it starts is to hold it.
    // SAFETY: nothing was opened yet: the number is of a descriptor that was passed to be owned, or of none.
    let file = unsafe { File::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::CLOEXEC)
        .map_err(|error| format!("descriptor {number}: {error}"))?;
    Ok(Ear::new(file))
}
