//! `graph-resolver`: process 1, or a supervisor in user mode.
//!
//! It performs what `yakiros-core` decides. One thread, one event loop; what may block for long
//! (paths that components declare, file systems at the end) is left to children with a limit.
//! Process 1 never ends: an internal panic or a failed start leads to a shell on the console (see
//! [`emergency`]), the signals that report faults are ignored when somebody sends them, and every
//! orphan is reaped whatever happens.

mod admission;
mod alarm;
mod cgroup;
mod checkpoint;
mod control;
mod declarations;
mod emergency;
mod faults;
mod freezer;
mod handover;
mod health;
mod kernel_log;
mod limits;
mod log;
mod lookup;
mod machine;
mod memory;
mod notify;
mod options;
mod output;
mod processes;
mod readiness;
mod reexec;
mod shutdown;
mod signals;
mod spawn;
mod store;
mod supervisor;
mod sys;

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::rc::Rc;

use nix::libc;
use nix::sys::stat::{Mode, umask};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, timeout_at};
use tracing::{error, info, warn};
use yakiros_core::engine::{Engine, Halt};

use crate::alarm::Alarm;
use crate::cgroup::Cgroups;
use crate::declarations::{Declarations, LOOK_AGAIN};
use crate::options::{Command, LogTarget, Options, UsageError};
use crate::output::Logs;
use crate::reexec::{Carried, rebuild};
use crate::shutdown::Held;
use crate::supervisor::Supervisor;

/// Descriptors that the event loop is told of at once; of more it is told when these were dealt with. Logs, which are
/// many, are one descriptor here.
const IO_EVENTS: usize = 128;

/// Nobody but the owner writes to what the supervisor creates, whatever it was started with: a directory that anybody may
/// write to would let them have process 1 write where they like.
const UMASK: Mode = Mode::from_bits_truncate(0o022);

/// sysexits(3): the command line makes no sense.
const EXIT_USAGE: u8 = 64;

/// sysexits(3): an internal error, or something needed is missing.
const EXIT_FAILURE: u8 = 70;

/// The program that makes checkpoints, beside this one.
const WORKER: &str = "graph-checkpoint";

/// The argument with which a fault's handler executes the program again.
const EMERGENCY: &str = "--emergency";

fn main() -> ExitCode {
    // One that was executed by a descriptor is called by its number otherwise. It cannot fail.
    let _ = nix::sys::prctl::set_name(c"graph-resolver");
    // Before anything is opened: descriptors have come along.
    let carried = reexec::resume();
    let taken_over = if carried.is_some() { 2 } else { 0 };
    let args = || std::env::args_os().skip(1 + taken_over);
    if std::process::id() == 1 {
        if args().next().is_some_and(|arg| arg == EMERGENCY) {
            // What failed once may fail again, and must not end process 1 then either.
            faults::take_over();
            log::install(LogTarget::Kmsg);
            emergency::on_panic();
            emergency::run("a fault of its own");
        }
        let (options, mistakes) = options::parse_as_init(args());
        run_as_init(&options, &mistakes, carried)
    }
    if args().next().is_some_and(|arg| arg == reexec::TRY_STATE) {
        return reexec::try_state();
    }
    match options::parse(args()) {
        Ok(Command::Run(options)) => run_as_user(&options, carried),
        Ok(Command::Help) => print(options::HELP),
        Ok(Command::Version) => print(concat!("graph-resolver ", env!("CARGO_PKG_VERSION"), "\n")),
        Err(error) => {
            eprintln!("graph-resolver: {error}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn print(text: &str) -> ExitCode {
    use std::io::Write as _;
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Process 1: from the first mount to power-off. Never returns.
fn run_as_init(options: &Options, mistakes: &[UsageError], carried: Option<Carried>) -> ! {
    machine::open_standard_descriptors();
    sys::default_signals();
    faults::take_over();
    let again = carried.is_some();
    // All of that is done once.
    let problems = if again { Vec::new() } else { machine::prepare(&options.cgroup_root) };
    log::install(options.log.unwrap_or(LogTarget::Kmsg));
    for problem in problems {
        warn!("{problem}");
    }
    for mistake in mistakes.iter().filter(|_| !again) {
        warn!("ignored on the command line: {mistake}");
    }
    emergency::on_panic();
    // Nothing is to leave this function, not even a panic of the event loop itself.
    match catch_unwind(AssertUnwindSafe(|| run(options, carried))) {
        Ok(Ok((halt, held))) => shutdown::finish(halt, &held),
        Ok(Err(error)) => emergency::run(&error.to_string()),
        Err(_) => emergency::run("an internal error"),
    }
}

/// Any other process: the same without the machine.
fn run_as_user(options: &Options, carried: Option<Carried>) -> ExitCode {
    machine::open_standard_descriptors();
    sys::default_signals();
    log::install(options.log.unwrap_or(LogTarget::Stderr));
    if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
        error!("orphans of components will not be reaped here: {error}");
    }
    reexec::on_panic_of_user();
    match run(options, carried) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error}");
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

/// What was before this process image.
enum Before {
    Nothing,
    State(Box<reexec::Rest>),
    /// A state that could not be read, and what runs.
    Found(rebuild::Found),
}

/// Supervise until everything is stopped but what is held for the next kernel.
fn run(options: &Options, carried: Option<Carried>) -> io::Result<(Halt, Held)> {
    let at = |what: String| move |error: io::Error| io::Error::other(format!("failed to {what}: {error}"));
    let inherited = umask(UMASK);
    if std::process::id() != 1 {
        // A user's own may be stricter.
        umask(inherited | UMASK);
    }
    let blocked = sys::block_signals().map_err(at("block signals".into()))?;
    let signals = sys::signalfd(&blocked).map_err(at("open a signal descriptor".into()))?;
    let common = machine::common().map_err(at("open /dev/null".into()))?;
    let table_taken = spawn::prepare_lanes(&common.null).unwrap_or_else(|error| {
        warn!("children copy all descriptors: {error}");
        None
    });
    let state_dir = std::path::absolute(&options.state_dir)?;
    let created = std::fs::create_dir_all(&state_dir);
    match created.map_err(at(format!("create {}", state_dir.display()))) {
        // What runs already goes on, without its logs.
        Err(error) if carried.is_some() => error!("{error}"),
        created => created?,
    }
    let declarations = match carried {
        None => Declarations::new(&options.config_dir),
        Some(_) => Declarations::resume(&options.config_dir),
    };
    reexec::note_program();
    let cgroups = Cgroups::new(&options.cgroup_root);
    let logs = Logs::new().map_err(at("prepare to watch output".into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_io_events_per_tick(IO_EVENTS)
        .on_thread_park(memory::before_wait)
        .build()
        .map_err(at("build the event loop".into()))?;
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let socket = &options.control_socket;
        let signals = sys::watch(signals)?;
        let alarm = Alarm::new()?;
        let open = || {
            let listener = control::open(socket, options.control_group.as_deref());
            listener.map_err(at(format!("open {}", socket.display())))
        };
        let config = reexec::config();
        let (engine, listener, before) = match carried {
            None => (Engine::new(config), open()?, Before::Nothing),
            Some(Ok((engine, state, luggage))) => {
                let (listener, rest) = state.unpack(luggage);
                let again = |error| {
                    error!("the control socket was lost on the way and is opened anew: {error}");
                    open()
                };
                // From within: nothing that has come along is closed.
                let listener =
                    listener.or_else(again).unwrap_or_else(|error| reexec::give_up(&error.to_string()));
                (engine, listener, Before::State(Box::new(rest)))
            }
            Some(Err(lost)) => {
                let found = rebuild::find(lost);
                let listener = open().unwrap_or_else(|error| reexec::give_up(&error.to_string()));
                (Engine::numbering_from(config, found.last_run()), listener, Before::Found(found))
            }
        };
        let listener = Rc::new(listener);
        let places = checkpoint::Places {
            program: options.checkpoint_program.clone().unwrap_or_else(|| reexec::beside(WORKER)),
            criu: options.criu.clone(),
            store: std::path::absolute(&options.checkpoints)?,
            quota: options.checkpoint_quota,
        };
        let supervisor = Supervisor::new(
            engine,
            state_dir,
            (declarations, places),
            (cgroups, common, Rc::clone(&logs)),
            Rc::clone(&listener),
        );
        let again = !matches!(before, Before::Nothing);
        // It reaps the first child already.
        spawn_local(signals::serve(Rc::clone(&supervisor), signals));
        let mut connections = Vec::new();
        match before {
            Before::Nothing => {
                notify::clear(&supervisor.state_dir);
                handover::released::clear(&supervisor.state_dir);
                checkpoint::carried::take(&supervisor).await;
                supervisor.read_files();
                checkpoint::carried::are_declared(&supervisor);
            }
            Before::State(rest) => {
                let (taken, taken_over) = rest.take_over(&supervisor);
                reexec::conclude(&supervisor, taken);
                connections = taken_over;
            }
            Before::Found(found) => rebuild::begin(&supervisor, found),
        }
        spawn_local(alarm::serve(Rc::clone(&supervisor), alarm));
        spawn_local(reexec::serve(Rc::clone(&supervisor)));
        spawn_local(control::serve(Rc::clone(&supervisor), listener, connections));
        spawn_local(follow_files(Rc::clone(&supervisor)));
        spawn_local(processes::follow_cgroups(Rc::clone(&supervisor)));
        spawn_local(processes::follow_kernel_log(Rc::clone(&supervisor)));
        spawn_local(copy_logs(Rc::clone(&supervisor), logs));
        spawn_local(settle_loans(Rc::clone(&supervisor), table_taken));
        spawn_local(async {
            tokio::time::sleep(memory::SETTLE_AFTER).await;
            memory::settle();
        });
        if !again {
            info!("{} ready, watching {}", env!("CARGO_PKG_VERSION"), options.config_dir.display());
        }
        let halt = supervisor.halted().await;
        // The client that asked for it gets its answer.
        tokio::time::sleep(shutdown::LAST_ANSWERS).await;
        control::close(socket);
        // Process 1 has none to leave them to.
        if std::process::id() != 1 {
            supervisor.processes.borrow_mut().forget_all();
        }
        let held = match halt {
            Halt::Kexec => supervisor.processes.borrow().left(),
            Halt::PowerOff | Halt::Reboot => Held::default(),
        };
        Ok((halt, held))
    })
}

/// Copy output for ever.
async fn copy_logs(supervisor: Rc<Supervisor>, logs: Rc<Logs>) {
    if let Err(error) = logs.copy(supervisor).await {
        error!("failed to wait for output, which is lost from now on: {error}");
    }
}

/// Take back what children were lent for their start, for ever.
async fn settle_loans(supervisor: Rc<Supervisor>, table_taken: Option<OwnedFd>) {
    let Some(table_taken) = table_taken else { return };
    if let Err(error) = processes::settle_loans(supervisor, table_taken).await {
        error!("failed to wait for children that have started: {error}");
    }
}

/// Act on file changes for ever.
async fn follow_files(supervisor: Rc<Supervisor>) {
    let descriptor = supervisor.declarations.borrow().descriptor();
    let watched = match descriptor {
        None => return,
        Some(descriptor) => descriptor.and_then(sys::watch),
    };
    let watched = match watched {
        Ok(watched) => watched,
        Err(error) => return error!("failed to wait for file changes: {error}"),
    };
    let mut due = None;
    loop {
        let wanted = supervisor.declarations.borrow().wants_another_look();
        due = wanted.then(|| due.unwrap_or_else(|| Instant::now() + LOOK_AGAIN));
        let readable = watched.readable();
        let woken = match due {
            None => Ok(readable.await),
            Some(at) => timeout_at(at, readable).await,
        };
        // By the clock, for a flood of events would put it off for ever.
        if due.take_if(|at| *at <= Instant::now()).is_some() {
            supervisor.look_for_files_again();
        }
        match woken {
            Err(_) => continue,
            Ok(Ok(mut ready)) => ready.clear_ready(),
            Ok(Err(error)) => return error!("failed to wait for file changes: {error}"),
        }
        while supervisor.take_file_changes() {
            tokio::task::yield_now().await;
        }
    }
}

/// What nix has no name for on every platform: a typed zero for `rlimit`.
const NO_FILES: libc::rlimit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
