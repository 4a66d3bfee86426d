//! The supervisor executes itself again and everything runs on: asked for (`graphctl reexec`, which
//! is how process 1 is upgraded in place), or by itself after an internal error.
//!
//! Guarantees:
//! * Components notice nothing: their processes, pipes, sockets, timers and counters go on. So do
//!   clients: who waits gets the answer from the new process image.
//! * A program that cannot take over is never executed in place of this one: it is tried as a child
//!   first, with a copy of the state, and has to tell what only who restored it can know. What is
//!   executed is the very file that was tried. Whatever fails before exec leaves everything as it was.
//! * After an internal error the program that runs takes over from itself. The event that led to it
//!   is dropped, and what was left half done is mended (see `yakiros_core::engine::Facts`). More than
//!   [`FAILURES`] in [`FAILURE_WINDOW`] are one too many, and so is one on the way to the next
//!   process image: then it is the emergency shell's turn.
//!
//! What travels: the state as JSON in a sealed memfd, and the descriptors that it names, which are the
//! only ones that are not closed by exec. Signals stay blocked across it, so none is lost.
//!
//! A state that cannot be read is done without (see [`rebuild`]). What else fails in the new image
//! before it has taken over leads to the emergency shell: the descriptors are open then, and
//! components run on.

mod image;
#[cfg(any(debug_assertions, feature = "fault-injection"))]
mod injection;
mod luggage;
mod program;
pub mod rebuild;
mod trial;

use std::cell::RefCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::task::spawn_local;
use tracing::{error, info};
use yakiros_core::control::Answer;
use yakiros_core::engine::{ClientId, Facts};
use yakiros_core::journal::Exit;

use crate::supervisor::Supervisor;
use crate::{emergency, sys};

use program::Program;

pub use image::{Carried, Rest, State, config, resume};
#[cfg(any(debug_assertions, feature = "fault-injection"))]
pub use injection::Injected;
pub use luggage::Luggage;
pub use program::{beside, note_program};
pub use trial::{TRY_STATE, try_state};

/// The argument that names the descriptor of the state.
pub const STATE_FD: &str = "--state-fd";

/// Internal errors within [`FAILURE_WINDOW`] after which the program takes over from itself.
const FAILURES: usize = 3;

/// See [`FAILURES`]. An error that comes back is caused by what the program does all the time; one
/// a minute apart is rather caused by something rare, and better survived than not.
const FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// There is a supervisor that can be taken over.
static SUPERVISING: AtomicBool = AtomicBool::new(false);

/// What the last internal error was.
static FAILURE: Mutex<String> = Mutex::new(String::new());

/// An internal error has happened, anywhere.
static FAILED: Notify = Notify::const_new();

/// What the supervisor keeps for the next process image.
#[derive(Default)]
pub struct Reexec {
    /// Who asked, and when.
    asked: RefCell<Vec<(ClientId, Duration)>>,
    wanted: Notify,
    /// The child that tries, and who waits for it.
    trial: RefCell<Option<(i32, oneshot::Sender<Exit>)>>,
    /// Times of internal errors.
    failures: RefCell<Vec<Duration>>,
    /// What tests ask for.
    #[cfg(any(debug_assertions, feature = "fault-injection"))]
    pub injected: Injected,
}

impl Reexec {
    /// A client wants it.
    pub fn ask(&self, client: ClientId) {
        self.asked.borrow_mut().push((client, sys::now()));
        self.wanted.notify_one();
    }

    /// A child that tried has ended: the one that is waited for, or one whose time was over.
    pub fn trial_ended(&self, pid: i32, exit: Exit) {
        let trial = self.trial.borrow_mut().take_if(|(tried, _)| *tried == pid);
        if let Some((_, waits)) = trial {
            // Nobody listens any more once its time is over.
            let _ = waits.send(exit);
        }
    }
}

/// Note an internal error. Whether a new process image will take over.
pub fn note_failure(what: &str) -> bool {
    if let Ok(mut failure) = FAILURE.lock() {
        // A record of the journal is one line.
        *failure = what.replace('\n', " ");
    }
    FAILED.notify_one();
    SUPERVISING.load(Ordering::Relaxed)
}

/// Execute the program again whenever that is wanted or needed, for ever.
pub async fn serve(supervisor: Rc<Supervisor>) {
    SUPERVISING.store(true, Ordering::Relaxed);
    spawn_local(follow_failures(Rc::clone(&supervisor)));
    loop {
        supervisor.reexec.wanted.notified().await;
        let asked = supervisor.reexec.asked.take();
        let Err(error) = replace(&supervisor, &asked).await;
        error!("not executed again: {error}");
        for (client, _) in asked {
            let message = format!("{error}; everything runs on as before");
            supervisor.reply(client, Answer::Refused { message, near: Vec::new() });
        }
    }
}

/// Act on the first internal error of any task, this one's neighbours in this module included: it does
/// nothing else, so that it is there.
async fn follow_failures(supervisor: Rc<Supervisor>) {
    FAILED.notified().await;
    after_failure(&supervisor);
}

/// By request. Returns only if it is not possible.
async fn replace(
    supervisor: &Rc<Supervisor>,
    asked: &[(ClientId, Duration)],
) -> io::Result<std::convert::Infallible> {
    let path = program::path()?;
    refuse_while_busy(supervisor)?;
    let mut state = State::of(supervisor).ok_or_else(|| io::Error::other("the state is in use"))?;
    state.asked = asked.to_vec();
    let program = trial::run(supervisor, path, state).await?;
    // It may have changed in the meantime.
    refuse_while_busy(supervisor)?;
    let mut state = State::of(supervisor).ok_or_else(|| io::Error::other("the state is in use"))?;
    state.asked = asked.to_vec();
    info!("executing {} in place", path.display());
    state.execute(&program)
}

/// A process that is being written or made would be nobody's.
fn refuse_while_busy(supervisor: &Supervisor) -> io::Result<()> {
    let busy = supervisor.checkpoints.busy();
    busy.map_or(Ok(()), |what| Err(io::Error::other(format!("{what}: try again when that is over"))))
}

/// After an internal error, with nothing borrowed. Never returns.
pub fn after_failure(supervisor: &Rc<Supervisor>) -> ! {
    // Another one on the way is one too many: nobody else acts on it.
    SUPERVISING.store(false, Ordering::Relaxed);
    let reason = catch_unwind(AssertUnwindSafe(|| execute_from_here(supervisor)));
    give_up(
        &reason.unwrap_or_else(|_| "an internal error, and another one while its state was taken".into()),
    );
}

/// Execute the program that runs with the state as it is. Returns only if that fails, with the reason.
fn execute_from_here(supervisor: &Rc<Supervisor>) -> String {
    let now = sys::now();
    let recent = {
        let mut failures = supervisor.reexec.failures.borrow_mut();
        failures.retain(|time| now.saturating_sub(*time) < FAILURE_WINDOW);
        failures.push(now);
        failures.len()
    };
    let what = FAILURE.lock().map(|what| what.clone()).unwrap_or_default();
    if recent > FAILURES {
        return format!("{recent} internal errors within {FAILURE_WINDOW:?}");
    }
    let Some(mut state) = State::of(supervisor) else {
        return "an internal error while the state was in use".to_owned();
    };
    state.failed = Some(what);
    // The file it came from may be another by now, and the failure is not the time to try it.
    let Err(error) = Program::running().and_then(|program| state.execute(&program));
    format!("an internal error, and {error}")
}

/// Nothing supervises any more. Process 1 must not end; any other is better ended than without
/// supervision. Nothing is closed: what components write is still read in the emergency.
pub fn give_up(reason: &str) -> ! {
    SUPERVISING.store(false, Ordering::Relaxed);
    if std::process::id() == 1 {
        emergency::run(reason);
    }
    error!("{reason}: components run on unsupervised");
    std::process::exit(i32::from(crate::EXIT_FAILURE));
}

/// After the take-over: tell the engine what there is, and those who asked that it is done.
pub fn conclude(supervisor: &Rc<Supervisor>, taken: image::Taken) {
    let image::Taken { asked, failed, failures, files } = taken;
    supervisor.reexec.failures.replace(failures);
    let waiting = supervisor.clients.borrow();
    let told = |client: &ClientId| asked.iter().any(|(other, _)| other == client);
    let clients = waiting.keys().filter(|client| failed.is_some() || !told(client)).copied().collect();
    drop(waiting);
    let facts = Facts {
        failure: failed.as_deref().map(Rc::from),
        processes: supervisor.processes.borrow().alive(),
        probes: supervisor.probes.borrow().pass().into_iter().map(|(probe, ..)| probe).collect(),
        limits: Vec::new(),
        slices: Vec::new(),
        freezing: Vec::new(),
        checkpoints: Vec::new(),
        clients,
    };
    let kept = facts.processes.len();
    if let Some(what) = &failed {
        error!("took over {kept} processes after an internal error, what led to it was dropped: {what}");
    }
    supervisor.dispatch(yakiros_core::engine::Event::Resumed(facts));
    supervisor.take_files_over(&files);
    let version = env!("CARGO_PKG_VERSION");
    for (client, since) in asked {
        let took = sys::now().saturating_sub(since).as_micros();
        let message = format!("{version} took over in {took} µs; {kept} processes kept");
        info!("{message}");
        supervisor.reply(client, Answer::Done { message, revision: supervisor.revision() });
    }
}

/// A panic in user mode: said, and survived while there is a supervisor.
pub fn on_panic_of_user() {
    std::panic::set_hook(Box::new(|info| {
        error!("internal error: {info}");
        note_failure(&info.to_string());
    }));
}
