//! Signals to the supervisor, and the reaping of every child, ours and orphans alike.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use nix::libc;
use tokio::io::unix::AsyncFd;
use tracing::{error, info};
use yakiros_core::engine::{Event, Halt};
use yakiros_core::journal::Exit;

use crate::processes;
use crate::supervisor::Supervisor;
use crate::sys::{self, Received};

/// Children reaped before everybody else gets a chance: a fork bomb's remains must not stop the
/// control socket.
const REAP_BUDGET: usize = 128;

/// Pause after a signal could not be read: it may fail again at once.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Act on signals for ever.
pub async fn serve(supervisor: Rc<Supervisor>, signals: AsyncFd<OwnedFd>) {
    // Those that ended before this process image began gave their signal to the one before.
    reap(&supervisor).await;
    loop {
        let mut ready = match signals.readable().await {
            Ok(ready) => ready,
            Err(error) => {
                error!("failed to wait for signals: {error}");
                return;
            }
        };
        match sys::read_signal(signals.get_ref()) {
            Ok(Some(received)) => act(&supervisor, received).await,
            Ok(None) => ready.clear_ready(),
            Err(error) => {
                error!("failed to read a signal: {error}");
                tokio::time::sleep(ERROR_PAUSE).await;
                // Children that ended in the meantime are not to wait for a signal to be read.
                reap(&supervisor).await;
            }
        }
    }
}

async fn act(supervisor: &Rc<Supervisor>, received: Received) {
    // The kernel's word on a child, which no component can give.
    if received.signal == libc::SIGCHLD {
        return reap(supervisor).await;
    }
    processes::take_report_of(supervisor, received.sender);
    let ready = supervisor.processes.borrow_mut().ready_by_signal(received.sender, received.signal);
    if let Some(run) = ready {
        return supervisor.dispatch(Event::Ready(run));
    }
    if supervisor.processes.borrow_mut().take_beat(received.sender, received.signal) {
        return;
    }
    #[cfg(any(debug_assertions, feature = "fault-injection"))]
    if supervisor.reexec.injected.take(received.signal) {
        return;
    }
    match received.signal {
        libc::SIGTERM => {
            info!("SIGTERM: stopping everything");
            supervisor.dispatch(Event::Halt(Halt::PowerOff));
        }
        libc::SIGINT => {
            info!("SIGINT: stopping everything, then restart");
            supervisor.dispatch(Event::Halt(Halt::Reboot));
        }
        libc::SIGUSR1 => supervisor.read_files(),
        libc::SIGUSR2 => supervisor.dump(),
        // Everything else means nothing to a supervisor.
        _ => {}
    }
}

/// Reap every child that has ended; each status goes to whom it belongs.
async fn reap(supervisor: &Rc<Supervisor>) {
    loop {
        for _ in 0..REAP_BUDGET {
            let Some(pid) = next_ended() else {
                return;
            };
            processes::take_last_words(supervisor, pid);
            supervisor.processes.borrow().end_group_before_reaping(pid);
            if let Some(exit) = take(pid) {
                processes::reaped(supervisor, pid, exit);
            }
        }
        tokio::task::yield_now().await;
    }
}

/// A child that has ended and is still unreaped.
pub fn next_ended() -> Option<i32> {
    // SAFETY: the structure is plain data, which the call fills; zero is valid for it.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        let result = libc::waitid(libc::P_ALL, 0, &raw mut info, options);
        let pid = info.si_pid();
        (result == 0 && pid > 0).then_some(pid)
    }
}

/// Reap one child that has ended.
pub fn take(pid: i32) -> Option<Exit> {
    let mut status = 0;
    // SAFETY: the pointer is to a local integer.
    let reaped = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) };
    if reaped != pid {
        return None;
    }
    if libc::WIFSIGNALED(status) {
        return Some(Exit::Signal(libc::WTERMSIG(status)));
    }
    Some(Exit::Code(libc::WEXITSTATUS(status)))
}

/// How a child ends, for a test that has nothing else to do.
#[cfg(test)]
pub fn wait_for(pid: i32) -> Exit {
    loop {
        match take(pid) {
            Some(exit) => return exit,
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}
