//! The state as it travels from one process image to the next.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek as _, Write};
use std::mem::take;
use std::os::fd::{AsRawFd as _, FromRawFd as _, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::{error, warn};
use yakiros_core::engine::{ClientId, Config, Engine, ProbeId, RunId, Snapshot};

use super::program::Program;
use super::{Luggage, STATE_FD};
use crate::checkpoint;
use crate::control::{self, Connection};
use crate::health;
use crate::processes::{self, PassedProcesses};
use crate::store::Passed as PassedStore;
use crate::supervisor::Supervisor;
use crate::sys;

/// The most bytes of a state: 30,000 components with everything that is known of them, or 10,000 and
/// as many clients as there may be, none of which reads its page. What cannot be held twice in the
/// memory of a small machine is refused before anything is done; clients that do not read are cut
/// off first.
const LIMIT: u64 = 64 * 1024 * 1024;

/// Everything that outlives a process image. A field that is added needs `#[serde(default)]`.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    /// Taken once an engine is made of it.
    engine: Option<Snapshot>,
    /// The component files that the engine knows.
    #[serde(skip)]
    files: Vec<String>,
    /// Nobody is to be able to read it, for a test.
    #[cfg(any(debug_assertions, feature = "fault-injection"))]
    #[serde(skip)]
    pub(super) spoiled: bool,
    processes: PassedProcesses,
    probes: Vec<(ProbeId, i32, RawFd)>,
    /// Children that look at file systems. What they find is asked for again.
    #[serde(default)]
    lookups: Vec<(i32, PathBuf)>,
    /// Channels of hot swaps.
    #[serde(default)]
    handovers: Vec<(RunId, RawFd)>,
    /// Inodes of the processes' ends of them.
    #[serde(default)]
    handover_inodes: Vec<(RunId, u64)>,
    /// Checkpoints that are being made, or restored.
    #[serde(default)]
    checkpoints: checkpoint::Passed,
    /// What is held for components.
    #[serde(default)]
    stores: Vec<PassedStore>,
    connections: Vec<control::Passed>,
    listener: RawFd,
    last_client: u64,
    fds: Vec<RawFd>,
    /// Who asked for the take-over, and when.
    pub(super) asked: Vec<(ClientId, Duration)>,
    /// The internal error that made it necessary.
    pub(super) failed: Option<String>,
    /// Times of internal errors.
    failures: Vec<Duration>,
    /// For a test.
    #[cfg(any(debug_assertions, feature = "fault-injection"))]
    #[serde(skip)]
    loses: bool,
}

/// The answer of a program that was tried with a state.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Proof {
    /// The journal's revision in the restored engine.
    revision: u64,
    /// Connections that came with the state.
    connections: usize,
}

/// What is left to be done once everything has its place.
pub struct Taken {
    pub(super) asked: Vec<(ClientId, Duration)>,
    pub(super) failed: Option<String>,
    pub(super) failures: Vec<Duration>,
    pub(super) files: Vec<String>,
}

impl State {
    /// Everything there is now; `None` while something of it is in use.
    pub(super) fn of(supervisor: &Supervisor) -> Option<Self> {
        #[cfg(any(debug_assertions, feature = "fault-injection"))]
        supervisor.reexec.injected.fail_taking_if_asked_to();
        let mut state = Self {
            engine: Some(supervisor.snapshot()?),
            files: Vec::new(),
            #[cfg(any(debug_assertions, feature = "fault-injection"))]
            spoiled: supervisor.reexec.injected.spoils(),
            processes: supervisor.processes.try_borrow().ok()?.pass(),
            probes: supervisor.probes.try_borrow().ok()?.pass(),
            lookups: supervisor.lookups.pass(),
            handovers: supervisor.handovers.pass(),
            handover_inodes: supervisor.handovers.pass_inodes(),
            checkpoints: {
                let processes = supervisor.processes.try_borrow().ok()?;
                supervisor.checkpoints.pass(|group| processes.is_shared(group))
            },
            stores: supervisor.stores.pass(),
            connections: supervisor.connections.try_borrow().ok()?.pass(),
            listener: supervisor.listener.as_raw_fd(),
            last_client: supervisor.last_client.get(),
            fds: Vec::new(),
            asked: Vec::new(),
            failed: None,
            failures: supervisor.reexec.failures.borrow().clone(),
            #[cfg(any(debug_assertions, feature = "fault-injection"))]
            loses: supervisor.reexec.injected.loses(),
        };
        let probes = state.probes.iter().map(|(_, _, fd)| *fd);
        let connections = state.connections.iter().map(control::Passed::fd);
        let handovers = state.handovers.iter().map(|(_, fd)| *fd);
        let stores = state.stores.iter().flat_map(PassedStore::fds);
        state.fds = state
            .processes
            .fds()
            .chain(handovers)
            .chain(stores)
            .chain(probes)
            .chain(connections)
            .chain([state.listener])
            .collect();
        Some(state)
    }

    /// Into memory that nobody can change. Without clients that have not read their answers, if the
    /// rest fits then.
    pub(super) fn write(&mut self) -> io::Result<File> {
        match self.write_all() {
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge && self.cut_off() => self.write_all(),
            written => written,
        }
    }

    /// Leave clients behind that have not read their answers. Whether there were any.
    fn cut_off(&mut self) -> bool {
        let (left, kept): (Vec<_>, _) =
            take(&mut self.connections).into_iter().partition(control::Passed::is_unread);
        self.connections = kept;
        self.fds.retain(|fd| !left.iter().any(|passed| passed.fd() == *fd));
        if !left.is_empty() {
            warn!("the state is too large with what clients have not read: {} are cut off", left.len());
        }
        !left.is_empty()
    }

    fn write_all(&self) -> io::Result<File> {
        let file = sys::memory_file(c"graph-resolver-state")?;
        let mut writer = BufWriter::new(Bounded { file: &file, left: LIMIT });
        #[cfg(any(debug_assertions, feature = "fault-injection"))]
        if self.spoiled {
            writer.write_all(b"spoiled")?;
        }
        serde_json::to_writer(&mut writer, self)?;
        writer.flush()?;
        drop(writer);
        sys::seal(&file)?;
        Ok(file)
    }

    /// From memory that nobody can have changed.
    pub(super) fn read(mut file: &File) -> io::Result<Self> {
        if !sys::is_sealed(file) {
            return Err(io::Error::other("the state is not sealed"));
        }
        file.rewind()?;
        let mut bytes = Vec::new();
        file.take(LIMIT).read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Make an engine of it, and tell what only who has done so can know.
    pub(super) fn try_out(self) -> io::Result<Proof> {
        let connections = self.connections.len();
        let (engine, _) = self.restore()?;
        Ok(Proof { revision: engine.journal().revision(), connections })
    }

    /// Make an engine of it.
    fn restore(mut self) -> io::Result<(Engine, Self)> {
        let snapshot = self.engine.take().ok_or_else(|| io::Error::other("the state has no engine"))?;
        self.files = snapshot.files().map(str::to_owned).collect();
        let engine = Engine::restore(config(), snapshot).map_err(io::Error::other)?;
        Ok((engine, self))
    }

    /// What a program that can take over answers to this state of `supervisor`.
    pub(super) fn proof(&self, supervisor: &Supervisor) -> Proof {
        Proof { revision: supervisor.revision(), connections: self.connections.len() }
    }

    /// Execute `program` with this state in place of this process. Returns only if that fails, and
    /// then everything is as before.
    pub(super) fn execute(&mut self, program: &Program) -> io::Result<std::convert::Infallible> {
        let file = self.write()?;
        let state = file.as_raw_fd();
        let number = state.to_string();
        let mut words = vec![OsStr::new("graph-resolver").to_owned(), STATE_FD.into(), number.into()];
        words.extend(arguments());
        let words = words.iter().map(|word| CString::new(word.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        #[cfg(any(debug_assertions, feature = "fault-injection"))]
        if self.loses {
            let client = self.connections.first().map(control::Passed::fd);
            lose(self.processes.fds().next().into_iter().chain(client).chain([self.listener]))?;
        }
        let outcome = self.open_on_exec(state).and_then(|()| program.execute(&words));
        for fd in self.fds.iter().copied() {
            // It is ours and open.
            let _ = sys::set_close_on_exec(fd, true);
        }
        outcome
    }

    fn open_on_exec(&self, state: RawFd) -> io::Result<()> {
        self.fds.iter().copied().chain([state]).try_for_each(|fd| sys::set_close_on_exec(fd, false))
    }
}

/// For a test, have descriptors lead nowhere.
#[cfg(any(debug_assertions, feature = "fault-injection"))]
fn lose(fds: impl Iterator<Item = RawFd>) -> io::Result<()> {
    let null = File::open("/dev/null")?;
    for fd in fds {
        // SAFETY: a call on two open descriptors of this process, which ends with exec.
        unsafe { nix::libc::dup2(null.as_raw_fd(), fd) };
    }
    Ok(())
}

/// The arguments that this image was given by whoever started the first one.
fn arguments() -> impl Iterator<Item = std::ffi::OsString> {
    let taken_over = std::env::args_os().nth(1).is_some_and(|arg| arg == STATE_FD);
    std::env::args_os().skip(if taken_over { 3 } else { 1 })
}

/// How the engine is set up.
pub fn config() -> Config {
    Config { owner: nix::unistd::geteuid().as_raw() }
}

/// What is left of a state that nobody can read.
pub struct Lost {
    /// Why.
    pub reason: String,
    /// Every descriptor that came along.
    pub luggage: Luggage,
}

/// The state of the process image before, with the engine that was made of it.
pub type Carried = Result<(Engine, State, Luggage), Lost>;

/// The state that came with this image, if one did. To be called before any descriptor is opened.
pub fn resume() -> Option<Carried> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != STATE_FD {
        return None;
    }
    let number = args.next().and_then(|text| text.to_str()?.parse::<RawFd>().ok()).filter(|fd| *fd > 2);
    // An engine that is made of what nobody foresaw may fail; there is nobody yet to catch that.
    let read = std::panic::catch_unwind(|| read_from(number));
    let read = read.unwrap_or_else(|_| Err(io::Error::other("an internal error over the state")));
    // SAFETY: nothing else has been opened yet; what there is was passed to be owned.
    Some(unsafe {
        match read {
            Ok((engine, state)) => {
                let luggage = Luggage::new(&state.fds);
                Ok((engine, state, luggage))
            }
            Err(error) => Err(Lost { reason: error.to_string(), luggage: Luggage::of_everything() }),
        }
    })
}

fn read_from(number: Option<RawFd>) -> io::Result<(Engine, State)> {
    let number =
        number.ok_or_else(|| io::Error::other(format!("{STATE_FD} needs the number of a descriptor")))?;
    // SAFETY: nothing has been opened yet; the number was passed to be owned.
    let file = unsafe { File::from_raw_fd(number) };
    State::read(&file)?.restore()
}

/// The listening socket unless it was lost, and the rest of a state.
pub type Unpacked = (io::Result<tokio::net::UnixListener>, Rest);

/// What needs a supervisor to be taken over.
pub struct Rest {
    processes: PassedProcesses,
    probes: Vec<(ProbeId, i32, RawFd)>,
    lookups: Vec<(i32, PathBuf)>,
    handovers: Vec<(RunId, RawFd)>,
    handover_inodes: Vec<(RunId, u64)>,
    checkpoints: checkpoint::Passed,
    stores: Vec<PassedStore>,
    connections: Vec<control::Passed>,
    last_client: u64,
    luggage: Luggage,
    taken: Taken,
}

impl State {
    /// Take it apart, in the event loop.
    pub fn unpack(self, mut luggage: Luggage) -> Unpacked {
        let listener = luggage.socket(self.listener);
        let listener = listener.and_then(|fd| tokio::net::UnixListener::from_std(fd.into()));
        let taken =
            Taken { asked: self.asked, failed: self.failed, failures: self.failures, files: self.files };
        let rest = Rest {
            processes: self.processes,
            probes: self.probes,
            lookups: self.lookups,
            handovers: self.handovers,
            handover_inodes: self.handover_inodes,
            checkpoints: self.checkpoints,
            stores: self.stores,
            connections: self.connections,
            last_client: self.last_client,
            luggage,
            taken,
        };
        (listener, rest)
    }
}

impl Rest {
    /// Give everything its place. What is left is for [`super::conclude`].
    ///
    /// A descriptor that did not come along, or is not what it should be, costs whom it belongs to: a
    /// process is ended, a probe made again, a client cut off, each with a word in the log.
    pub fn take_over(mut self, supervisor: &Rc<Supervisor>) -> (Taken, Vec<Rc<Connection>>) {
        for (pid, path) in self.lookups {
            supervisor.lookups.abandon(pid, path);
        }
        supervisor.handovers.take_over(self.handovers, &mut self.luggage);
        supervisor.handovers.take_inodes(self.handover_inodes);
        self.checkpoints.take_over(supervisor);
        supervisor.stores.take_over(self.stores, &mut self.luggage);
        processes::take_over(supervisor, self.processes, &mut self.luggage);
        health::take_over(supervisor, self.probes, &mut self.luggage);
        supervisor.last_client.set(self.last_client);
        let mut connections = Vec::new();
        for passed in self.connections {
            match Connection::take(passed, &mut self.luggage) {
                Ok((connection, client)) => {
                    supervisor.clients.borrow_mut().extend(client);
                    connections.push(Rc::new(connection));
                }
                Err(error) => error!("the connection of a client was lost on the way: {error}"),
            }
        }
        self.luggage.finish();
        (self.taken, connections)
    }
}

/// Writes so many bytes and no more.
struct Bounded<'a> {
    file: &'a File,
    left: u64,
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
            let message = format!("the state has more than {LIMIT} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        };
        let written = self.file.write(bytes)?;
        self.left = left;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission;
    use serde_json::{Value, json};
    use yakiros_core::control::{PAGE_BYTES, REQUEST_LIMIT};

    /// All that a state has but the engine, as it was written when its form was new, with every
    /// variant. Every later program has to read it: if the test of it fails, a field was added
    /// without `#[serde(default)]`, or one was renamed or removed.
    const FIRST: &str = include_str!("tests/version-1.json");

    /// See there: the same for the engine.
    const ENGINE: &str = include_str!("../../../core/src/engine/snapshot/tests/version-1.json");

    fn first() -> Value {
        let mut value: Value = serde_json::from_str(FIRST).expect("JSON");
        value["engine"] = serde_json::from_str(ENGINE).expect("JSON");
        value
    }

    fn state(value: Value) -> State {
        serde_json::from_value(value).expect("a state")
    }

    /// Whether `all` has everything that `part` has.
    fn has(all: &Value, part: &Value) -> bool {
        match (all, part) {
            (Value::Object(all), Value::Object(part)) => {
                part.iter().all(|(key, value)| all.get(key).is_some_and(|all| has(all, value)))
            }
            (Value::Array(all), Value::Array(part)) => {
                all.len() == part.len() && all.iter().zip(part).all(|(all, part)| has(all, part))
            }
            (all, part) => all == part,
        }
    }

    #[test]
    fn the_first_version_is_still_read() {
        let mut first = first();
        let again = serde_json::to_value(state(first.clone())).expect("plain data");
        // The core has its own test of this.
        first["engine"].take();
        for (field, value) in first.as_object().expect("fields") {
            assert!(field == "engine" || has(&again[field], value), "{field}: {}", again[field]);
        }
    }

    #[test]
    fn it_is_tried_out_with_the_answer_that_proves_it() {
        let proof = state(first()).try_out().expect("a sound state");
        assert_eq!(proof.connections, 3);
        let other = Proof { revision: proof.revision + 1, ..proof };
        assert_ne!(other, state(first()).try_out().expect("a sound state"));
    }

    /// A client that has not read its answer, and has sent most of the next request.
    fn deaf(answer: usize) -> Value {
        let text = |bytes: usize| "+".repeat(bytes.div_ceil(3) * 4);
        json!({
            "fd": 100,
            "unread": text(REQUEST_LIMIT),
            "phase": { "writing": { "bytes": text(answer), "last": false } },
        })
    }

    fn with_clients(clients: Vec<Value>) -> State {
        let mut value = first();
        value["connections"].as_array_mut().expect("connections").extend(clients);
        value["fds"].as_array_mut().expect("descriptors").push(json!(100));
        state(value)
    }

    #[test]
    fn clients_that_do_not_read_are_passed_on_as_long_as_they_fit() {
        let mut full = with_clients(vec![deaf(PAGE_BYTES); admission::LIMIT]);
        let file = full.write().expect("it fits");
        assert!(file.metadata().expect("a size").len() < LIMIT * 2 / 3, "and many components beside them");
        assert_eq!(full.connections.len(), admission::LIMIT + 3, "all of them");
        let mut too_full = with_clients(vec![deaf(3 * PAGE_BYTES); admission::LIMIT]);
        let file = too_full.write().expect("it fits without them");
        let kept = State::read(&file).expect("a state");
        assert_eq!(kept.connections.len(), 2, "those who wait for an answer, or have asked nothing");
        assert!(!kept.fds.contains(&100) && kept.fds.contains(&18), "{:?}", kept.fds);
    }
}
