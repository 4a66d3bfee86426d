//! Taking over without a state: what runs is found, and led on from there.
//!
//! The kernel still knows the children of this process and what they were executed with. The process
//! of a component leads a session of its own and was given `GRAPH_COMPONENT` and `GRAPH_GENERATION`.
//! An environment can be forged and a control group cannot: where there are groups, it also has to be
//! in that of its component. Its log and its socket are told by their identity at both ends.
//!
//! Guarantees:
//! * Everything that is declared is started as at boot, in the order of its requirements. Where the
//!   process of a component is found, that one is taken instead of a new one and not touched; so no
//!   component ever has two.
//! * Of two processes of a component, in the middle of a hot swap, one is taken: the channels end with the state, so
//!   whoever does not serve ends by itself, or was released before. If both stay it is the older one.
//! * What runs and belongs to nothing that is declared is ended before anything is started. What
//!   nothing has taken once everything has come to rest, or after [`ADOPTION_TIME`], is ended then, for
//!   its requirements are not up: nothing stays without supervision.
//! * What has not executed anything yet belonged to a start, a probe or a look that nobody knows of any
//!   more, and is killed; the start is made anew.
//! * The journal begins with what was lost, and `graphctl why` leads there.
//!
//! Lost are the journal, counts and pauses, who was stopped by a user (it is started), which oneshots
//! were done (they run again), what a component had said of itself (it is taken for ready), the channels of hot swaps
//! (the next upgrade is a restart), and the requests of clients.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::socket::{UnixAddr, getsockname};
use nix::unistd::Pid;
use tokio::task::spawn_local;
use tokio::time::sleep;
use tracing::{error, info, warn};
use yakiros_core::component::Component;
use yakiros_core::engine::{Event, FileChange, FileContent, RunId};

use super::image::Lost;
use super::{FAILURES, Luggage};
use crate::cgroup::Cgroup;
use crate::handover::released;
use crate::notify::Socket;
use crate::processes::FoundProcess;
use crate::supervisor::Supervisor;
use crate::sys;

/// Time for what belongs to nothing to end by itself, before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// Time for what was killed to be gone. What is left then hangs in the kernel.
const KILL_TIME: Duration = Duration::from_secs(5);

/// Pause between two looks whether it is gone.
const STEP: Duration = Duration::from_millis(20);

/// Time for the components that others need to come up again, so that the processes of those are
/// taken. As long as an orderly shutdown may take.
const ADOPTION_TIME: Duration = Duration::from_secs(60);

/// Pause between two looks whether everything has come to rest.
const ADOPTION_STEP: Duration = Duration::from_millis(200);

/// Set in the flags of a process that was forked and has not executed anything (Linux,
/// `include/linux/sched.h`).
const PF_FORKNOEXEC: u32 = 0x40;

/// What runs of a component, by its own word.
struct Claim {
    component: String,
    generation: u64,
    process: FoundProcess,
}

/// What was found. See the module documentation.
pub struct Found {
    reason: String,
    claims: Vec<Claim>,
    /// Children that belong to a component and are not its process: commands of probes.
    commands: Vec<i32>,
    last_run: u64,
}

impl Found {
    /// No new run may have a number up to this one: sockets are named after them.
    pub fn last_run(&self) -> RunId {
        RunId(self.last_run)
    }
}

/// Look at all children. To be called in the event loop, before anything is started.
pub fn find(lost: Lost) -> Found {
    let Lost { reason, mut luggage } = lost;
    let mut pipes: HashMap<PathBuf, RawFd> = HashMap::new();
    let mut sockets: HashMap<PathBuf, RawFd> = HashMap::new();
    let mut last_run = 0;
    for fd in luggage.left() {
        if sys::is_reading_pipe(fd) {
            pipes.extend(fs::read_link(format!("/proc/self/fd/{fd}")).ok().map(|name| (name, fd)));
        } else if let Some((run, path)) = bound_to(fd) {
            last_run = last_run.max(run);
            sockets.insert(path, fd);
        }
    }
    let mut found = Found { reason, claims: Vec::new(), commands: Vec::new(), last_run };
    let own = program("self");
    for child in children() {
        let pid = child.pid;
        // What the process of a component has forked runs another program.
        if child.unexecuted && program(pid) == own {
            // It is not reaped, so the number is its own.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            continue;
        }
        if !child.leads {
            continue;
        }
        let environment = environment(pid);
        let Some(component) = environment.get("GRAPH_COMPONENT") else { continue };
        let Some(generation) = environment.get("GRAPH_GENERATION") else {
            found.commands.push(pid);
            continue;
        };
        let log = log_of(pid, &pipes).and_then(|fd| luggage.pipe(fd).ok());
        let socket =
            environment.get("NOTIFY_SOCKET").and_then(|path| socket_at(path, &sockets, &mut luggage));
        let process = FoundProcess { pid, log, socket, cgroup: None };
        let generation = generation.parse().unwrap_or(0);
        found.claims.push(Claim { component: component.clone(), generation, process });
    }
    luggage.finish();
    found
}

/// The run that a socket was bound for, and the name that it has by now: it is bound by the number of
/// its run, and then renamed (see [`Socket::open`]).
fn bound_to(fd: RawFd) -> Option<(u64, PathBuf)> {
    // SAFETY: the luggage keeps it open meanwhile.
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    sys::kind_of(socket).ok().filter(|kind| *kind == libc::S_IFSOCK)?;
    let address: UnixAddr = getsockname(fd).ok()?;
    let run = address.path()?.file_name()?.to_str()?.parse().ok()?;
    let file = sys::socket_file(socket).ok()?;
    let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    Some((run, path))
}

fn socket_at(path: &str, sockets: &HashMap<PathBuf, RawFd>, luggage: &mut Luggage) -> Option<Socket> {
    let path = PathBuf::from(path);
    let fd = *sockets.get(&path)?;
    Socket::take((fd, path), luggage).ok()
}

/// The pipe that the output of a process goes to, among those that are held here.
fn log_of(pid: i32, pipes: &HashMap<PathBuf, RawFd>) -> Option<RawFd> {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    let mut names = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
    names.find_map(|name| pipes.get(&name).copied())
}

/// A child of this process that is not dead.
struct Child {
    pid: i32,
    /// It leads a session.
    leads: bool,
    /// It was forked and has not executed anything.
    unexecuted: bool,
}

/// All of them by number: the older first, as long as numbers have not begun anew.
fn children() -> Vec<Child> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let own = std::process::id().to_string();
    let child = |pid: i32| {
        let stat = sys::read_small(Path::new(&format!("/proc/{pid}/stat"))).ok()?;
        // The name before may contain anything.
        let fields: Vec<_> = stat.rsplit(") ").next()?.split(' ').collect();
        let [state, parent, _, session, _, _, flags, ..] = &fields[..] else { return None };
        let flags: u32 = flags.parse().ok()?;
        let there = *state != "Z" && *parent == own;
        let unexecuted = flags & PF_FORKNOEXEC != 0;
        there.then(|| Child { pid, leads: *session == pid.to_string(), unexecuted })
    };
    let mut children: Vec<Child> = numbers.filter_map(child).collect();
    children.sort_unstable_by_key(|child| child.pid);
    children
}

/// The path of the program that a process runs, also if another file has that name by now.
fn program(pid: impl std::fmt::Display) -> Option<PathBuf> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let path = path.into_os_string().into_vec();
    Some(OsString::from_vec(path.strip_suffix(b" (deleted)").unwrap_or(&path).to_vec()).into())
}

/// What a process was executed with. A variable that is no text is left out.
fn environment(pid: i32) -> HashMap<String, String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let variables = bytes.split(|byte| *byte == 0).filter_map(|text| std::str::from_utf8(text).ok());
    let pairs = variables.filter_map(|text| text.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Start what is declared, with what was found.
pub fn begin(supervisor: &Rc<Supervisor>, found: Found) {
    let Found { reason, claims, commands, .. } = found;
    // How many errors there were is lost too; so that the same one cannot come back for ever, the next
    // one within a minute is the last.
    supervisor.reexec.failures.replace(vec![sys::now(); FAILURES]);
    error!("the state is lost: {reason}; {} processes of components were found", claims.len());
    supervisor.dispatch(Event::StateLost { reason: reason.into(), found: claims.len() });
    for pid in commands {
        // What they answer is not waited for any more. They are not reaped: the numbers are their own.
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let changes = supervisor.declarations.borrow_mut().read_all();
    let released = released::all(&supervisor.state_dir);
    let (leaving, claims): (Vec<_>, _) =
        claims.into_iter().partition(|claim| released.contains(&claim.process.pid));
    let mut strangers: Vec<_> = leaving.iter().map(|claim| claim.process.pid).collect();
    let supervisor = Rc::clone(supervisor);
    spawn_local(async move {
        let claims = one_of_each(claims, &mut strangers).await;
        strangers.extend(keep(&supervisor, &changes, claims));
        let groups = supervisor.processes.borrow().groups_of_nobody();
        end(&supervisor, &strangers, &groups).await;
        supervisor.dispatch(Event::Files(changes));
        wait_until(ADOPTION_TIME, ADOPTION_STEP, || supervisor.is_settled()).await;
        supervisor.processes.borrow_mut().end_found();
    });
}

/// One process of each component: the one that is left of two, or else the older one. The others go to the strangers.
async fn one_of_each(mut claims: Vec<Claim>, strangers: &mut Vec<i32>) -> Vec<Claim> {
    claims.sort_by(|one, other| (&one.component, one.generation).cmp(&(&other.component, other.generation)));
    let two = claims.windows(2).filter(|two| two[0].component == two[1].component);
    let pairs: Vec<_> = two.map(|two| [two[0].process.pid, two[1].process.pid]).collect();
    let is_there = |pid: i32| Path::new(&format!("/proc/{pid}")).exists();
    wait_until(GRACE, STEP, || !pairs.iter().any(|two| two.iter().all(|pid| is_there(*pid)))).await;
    let mut one_of_each: Vec<Claim> = Vec::new();
    for claim in claims.into_iter().filter(|claim| is_there(claim.process.pid)) {
        if one_of_each.last().is_some_and(|last| last.component == claim.component) {
            strangers.push(claim.process.pid);
        } else {
            one_of_each.push(claim);
        }
    }
    one_of_each
}

/// Keep the processes of what is declared for its starts; returns those of nothing.
fn keep(supervisor: &Rc<Supervisor>, changes: &[FileChange], claims: Vec<Claim>) -> Vec<i32> {
    let component = |change: &'_ FileChange| match &change.content {
        FileContent::Component(component) => Some(component.clone()),
        _ => None,
    };
    let declared: BTreeMap<String, Box<Component>> =
        changes.iter().filter_map(component).map(|component| (component.name.clone(), component)).collect();
    let mut own = supervisor.processes.borrow_mut();
    let mut strangers = Vec::new();
    for Claim { component, process, .. } in claims {
        let pid = process.pid;
        let kept = declared.get(&component).is_some_and(|declared| own.keep_found(declared, process));
        if !kept {
            warn!("{component}: process {pid} is of nothing that is declared, and is ended");
            strangers.push(pid);
        }
    }
    strangers
}

/// End processes and groups: asked first, then killed.
async fn end(supervisor: &Rc<Supervisor>, strangers: &[i32], groups: &[Cgroup]) {
    let left = || {
        let there = |pid: &&i32| Path::new(&format!("/proc/{pid}")).exists();
        strangers.iter().filter(there).count() + groups.iter().filter(|group| group.has_processes()).count()
    };
    let signal_all = |signal| {
        for child in children().iter().filter(|child| strangers.contains(&child.pid)) {
            // A child that is not reaped: the number is its own.
            let _ = killpg(Pid::from_raw(child.pid), signal);
        }
    };
    signal_all(Signal::SIGTERM);
    if !wait_until(GRACE, STEP, || left() == 0).await {
        signal_all(Signal::SIGKILL);
        supervisor.processes.borrow_mut().end_groups(groups);
        if !wait_until(KILL_TIME, STEP, || left() == 0).await {
            warn!("processes of nothing that is declared outlive their kill by {KILL_TIME:?}");
        }
    }
    groups.iter().for_each(Cgroup::remove);
    info!("what belongs to nothing that is declared has ended");
}

async fn wait_until(limit: Duration, step: Duration, done: impl Fn() -> bool) -> bool {
    let mut waited = Duration::ZERO;
    while !done() {
        if waited >= limit {
            return false;
        }
        sleep(step).await;
        waited += step;
    }
    true
}
