//! Processes are written.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::live::{look, merged};
use super::mend::{self, Before, Presence};
use super::{Done, failed, find_criu, named};
use crate::barrier::{self, inode_of};
use crate::criu::gate::{Decide, Gate};
use crate::criu::{
    Action, Call, Criu, CriuError, DumpFigures, Figures, Known, NetworkLock, Options, Paths, Room, Then,
};
use crate::order::{After, Dump, Event, Failure, Given, Step, Teller, micros};
use crate::preflight::{self, Socket, Tree, Verdict};
use crate::probe::{lacks, tracks_memory};
use crate::store::{Draft, Facts, Metadata, ROUNDS_LIMIT, Role, Store};

/// With less room, in bytes, any of CRIU's files may have failed: some are written by 64 KiB.
const FULL: u64 = 64 << 10;

/// Pages of memory that are copied so quickly that another round before saves nothing: 1 MiB.
const SMALL: u64 = 256;

/// Processes with less memory, in bytes, are written without rounds before: they stand still for less than 0.1 s for it at
/// the speed of a slow disk cache, and each call of CRIU costs several times that.
const WORTH_ROUNDS: u64 = 32 << 20;

/// The part of the time for a call of CRIU in which further rounds begin. PID 1 has no more time for all of them.
const ROUNDS_SHARE: u32 = 4;

pub(super) fn carry_out<W: Write>(
    base: &Path,
    order: &Dump,
    known: Option<&Known>,
    teller: &mut Teller<W>,
) -> Result<Done, Failure> {
    let begun = Instant::now();
    let ready = prepare(base, order, known, teller)?;
    let (metadata, _held) = ready.write(order, begun, false, teller)?;
    ready.retain(order, teller)?;
    let (bytes, images) = (metadata.image_size, metadata.images.len());
    let message = format!("wrote {} {}: {images} images with {bytes} bytes", order.component, metadata.id);
    Ok((message, Some(named(&order.component, &metadata.id))))
}

/// What a dump needs, and who is to be dumped.
pub(super) struct Ready {
    pub(super) store: Store,
    pub(super) criu: Criu,
    pub(super) tree: Tree,
    verdict: Verdict,
    presence: Presence,
}

/// See that nothing is in the way.
pub(super) fn prepare<W: Write>(
    base: &Path,
    order: &Dump,
    known: Option<&Known>,
    teller: &mut Teller<W>,
) -> Result<Ready, Failure> {
    let (store, presence) = teller.step(Step::Open, || -> Result<_, String> {
        let store = Store::make(base).map_err(|error| error.to_string())?;
        let presence = Presence::take(base).map_err(|error| failed("lock", base, &error))?;
        Ok((store, presence))
    })?;
    let criu = find_criu(&order.criu, known, teller)?;
    let (verdict, tree) = look(order.pid, criu.version, teller)?;
    if let Some(first) = verdict.findings.first() {
        return Err(Failure { step: Step::Preflight, reason: first.to_string() });
    }
    if let Some(first) = lacks(&tree.kinds()).into_iter().next() {
        return Err(Failure { step: Step::Preflight, reason: first });
    }
    if let Some(program) =
        order.program.as_deref().filter(|program| preflight::is_replaced(order.pid, program))
    {
        let reason = format!("its program, {}, has changed since it was started", program.display());
        return Err(Failure { step: Step::Preflight, reason });
    }
    Ok(Ready { store, criu, tree, verdict, presence })
}

impl Ready {
    /// Do as is ordered, and tell of it. What is made again `at_once` is not yet on the disk. What was made does not go, for
    /// want of room or for its age, as long as what is given with it is open.
    pub(super) fn write<W: Write>(
        &self,
        order: &Dump,
        begun: Instant,
        at_once: bool,
        teller: &mut Teller<W>,
    ) -> Result<(Metadata, OwnedFd), Failure> {
        let (roles, outside) =
            given(&order.given, &self.tree).map_err(|reason| Failure { step: Step::Preflight, reason })?;
        let mut options = merged(&order.options, &self.verdict.options);
        options.external.extend(outside);
        options.network_lock = lock(order, &self.tree, barrier::is_raised);
        let (mut draft, held, note) = teller.step(Step::Open, || -> Result<_, String> {
            // What a machine left that lost its power takes room as well. What cannot be removed is in nobody's way.
            self.presence.alone_at_once(|| drop(self.store.sweep_with(mend::left)));
            self.see_room()?;
            let draft = self.store.begin(&order.component).map_err(|error| error.to_string())?;
            let held = draft.hold().map_err(|error| error.to_string())?;
            let work = draft.work();
            let note = Before::note(order.pid, &work).map_err(|error| failed("write to", &work, &error))?;
            Ok((draft, held, note))
        })?;
        if at_once {
            draft.sync_later();
        }
        let (criu, before, presence) = (&self.criu, &self.tree, &self.presence);
        let dumping = Dumping { criu, order, options: &options, roles: &roles, before, note, presence };
        rounds(&dumping, &mut draft, teller)?;
        let (metadata, figures) = match order.after {
            After::Run => dumping.leave(&draft, teller)?,
            After::Hold => dumping.hold(&draft, teller)?,
            After::End => dumping.end(&draft, teller)?,
        };
        drop(draft);
        let (id, bytes) = (metadata.id.clone(), metadata.image_size);
        let written = Event::Written { id, bytes, figures, micros: micros(begun.elapsed()) };
        let told = teller.found(Step::Commit, written);
        // Who does not hear that they are held would leave them so.
        if order.after == After::Hold && told.is_err() {
            preflight::resume(&self.tree);
        }
        told?;
        Ok((metadata, held))
    }

    /// What is too many of the component's checkpoints goes.
    pub(super) fn retain<W: Write>(&self, order: &Dump, teller: &mut Teller<W>) -> Result<(), Failure> {
        if let Some(policy) = &order.keep {
            teller.step(Step::Retain, || self.store.retain(policy, Some(&order.component)))?;
        }
        Ok(())
    }
}

impl Ready {
    /// What the processes have in memory has to fit. What others write meanwhile may yet take the room.
    fn see_room(&self) -> Result<(), String> {
        let free = self.store.room().map_err(|error| error.to_string())?;
        let needed = preflight::written(&self.tree);
        if needed <= free {
            return Ok(());
        }
        let place = self.store.path().display();
        Err(format!(
            "its memory has {needed} bytes, and there is room for {free} in {place}: remove something"
        ))
    }
}

/// How connections are kept from their peers. Who is held below a barrier has them closed already, until the processes are
/// there again: CRIU's own lock would take a tenth of the time of a dump, and once more of that of its restore. The barrier
/// is in this process's network alone.
fn lock(order: &Dump, tree: &Tree, is_closed: impl FnOnce() -> bool) -> NetworkLock {
    let may_be_closed = order.after == After::Hold && !tree.isolation.namespaces.contains("net");
    if may_be_closed && is_closed() { NetworkLock::Skip } else { order.options.network_lock }
}

/// That there is no room any more, if that is so.
fn is_full(place: &Path) -> Option<String> {
    let free =
        rustix::fs::statvfs(place).map(|status| status.f_bavail.saturating_mul(status.f_frsize)).ok()?;
    let why = || format!("{}: {free} bytes are free in {}", io::Error::from(Errno::NOSPC), place.display());
    (free < FULL).then(why)
}

/// What processes still have of what they were given, and what stays outside, as CRIU names it.
fn given(given: &[Given], tree: &Tree) -> Result<(Vec<Role>, Vec<String>), String> {
    let (mut roles, mut outside) = (Vec::new(), Vec::new());
    for Given { role, is_end } in given {
        let holder = tree.processes.iter().find_map(|process| {
            let found = process.descriptors.iter().find(|descriptor| descriptor.target == role.link)?;
            Some((process.pid, found.number))
        });
        if holder.is_none() && !role.link.starts_with('/') {
            continue;
        }
        let inode = inode_of(&role.link);
        outside.extend(inode.filter(|_| *is_end).map(|inode| format!("unix[{inode}]")));
        let mut role = role.clone();
        match inode.and_then(|inode| tree.sockets.get(&inode)) {
            Some(Socket::Unix) => role.path = inode.and_then(|inode| tree.paths.get(&inode).cloned()),
            Some(Socket::Tcp | Socket::TcpListening | Socket::Udp) => role.inet = holder,
            Some(Socket::TcpConnected | Socket::Raw | Socket::Packet | Socket::Netlink) => {
                return Err(format!(
                    "{} ({}) is held outside as well, and cannot be there twice",
                    role.name, role.link
                ));
            }
            None => {}
        }
        roles.push(role);
    }
    Ok((roles, outside))
}

/// A dump under way.
struct Dumping<'a> {
    criu: &'a Criu,
    order: &'a Dump,
    options: &'a Options,
    /// What they were given and still have.
    roles: &'a [Role],
    /// The processes as they were.
    before: &'a Tree,
    /// The rest as it was.
    note: Before,
    presence: &'a Presence,
}

/// What was made, and what CRIU counted.
type Made = (Metadata, Option<DumpFigures>);

impl Dumping<'_> {
    /// Write them and let them run on.
    fn leave<W: Write>(&self, draft: &Draft, teller: &mut Teller<W>) -> Result<Made, Failure> {
        let action = Action::Dump { pid: self.order.pid, parent: draft.parent(), then: Then::Run };
        let run = || self.run(&action, draft.images().to_owned(), draft, None);
        let figures = teller.step(Step::Dump, run)?;
        teller.found(Step::Dump, Event::Counted { step: Step::Dump, figures })?;
        let metadata =
            teller.step(Step::Commit, || draft.keep(self.facts(figures.dump), self.order.quota))?;
        Ok((metadata, figures.dump))
    }

    /// Write them, and stop them before they run again. What is not kept in the end goes on.
    fn hold<W: Write>(&self, draft: &Draft, teller: &mut Teller<W>) -> Result<Made, Failure> {
        let held = self.try_hold(draft, teller);
        if held.is_err() {
            preflight::resume(self.before);
        }
        held
    }

    fn try_hold<W: Write>(&self, draft: &Draft, teller: &mut Teller<W>) -> Result<Made, Failure> {
        let work = draft.work();
        let mut stopped = Ok(());
        let figures = teller.step(Step::Dump, || {
            let gate = Gate::make(&work).map_err(|error| failed("make a socket in", &work, &error))?;
            let then = Then::Stop(Gate::program());
            let action = Action::Dump { pid: self.order.pid, parent: draft.parent(), then };
            let mut stop = |_| {
                stopped = preflight::stop(self.order.pid);
                stopped.is_ok()
            };
            let ran = self.run(&action, draft.images().to_owned(), draft, Some((&gate, &mut stop)));
            ran.map_err(|error| match &stopped {
                Ok(()) => error.to_string(),
                Err(why) => format!("failed to stop the processes: {why}"),
            })
        })?;
        teller.found(Step::Dump, Event::Counted { step: Step::Dump, figures })?;
        let metadata =
            teller.step(Step::Commit, || draft.keep(self.facts(figures.dump), self.order.quota))?;
        Ok((metadata, figures.dump))
    }

    /// Write them, put the checkpoint in its place while they are frozen, and only then have CRIU end them. Whatever fails
    /// before lets them run on; nothing that fails afterwards takes the checkpoint away.
    fn end<W: Write>(&self, draft: &Draft, teller: &mut Teller<W>) -> Result<Made, Failure> {
        let here = |reason: String| Failure { step: Step::Dump, reason };
        let work = draft.work();
        let gate = Gate::make(&work).map_err(|error| here(failed("make a socket in", &work, &error)))?;
        let first =
            end_of(self.order.pid).map_err(|error| here(format!("process {}: {error}", self.order.pid)))?;
        let then = Then::End(Gate::program());
        let action = Action::Dump { pid: self.order.pid, parent: draft.parent(), then };
        let mut dumped = Some(teller.begin(Step::Dump)?);
        let mut kept = None;
        let mut keep = |_| {
            let begun = dumped.take().unwrap_or_else(Instant::now);
            let told = teller.end(Step::Dump, begun);
            let keep = |()| teller.step(Step::Commit, || draft.keep(self.facts(None), self.order.quota));
            kept.insert(told.and_then(keep)).is_ok()
        };
        let ran = self.run(&action, draft.images().to_owned(), draft, Some((&gate, &mut keep)));
        let metadata = match (kept, &ran) {
            (Some(kept), _) => kept?,
            (None, Err(error)) => return Err(here(error.to_string())),
            // It has not asked, so they may be gone: what there is of them is kept.
            (None, Ok(_)) => teller.step(Step::Commit, || draft.keep(self.facts(None), self.order.quota))?,
        };
        let ended = ran
            .map_err(|error| error.to_string())
            .and_then(|figures| await_end(&first, self.order.limit).map(|()| figures));
        match ended {
            Ok(figures) => {
                // That nobody listens changes nothing any more.
                let _ = teller.found(Step::End, Event::Counted { step: Step::Dump, figures });
                Ok((metadata, figures.dump))
            }
            Err(reason) => {
                let reason =
                    format!("checkpoint {} is kept, but the processes may run on: {reason}", metadata.id);
                Err(Failure { step: Step::End, reason })
            }
        }
    }

    /// Call CRIU, and see that it leaves nothing stopped if it has to be killed.
    fn run<'a>(
        &'a self,
        action: &Action,
        images: PathBuf,
        draft: &'a Draft,
        gate: Option<(&'a Gate, &'a mut Decide<'a>)>,
    ) -> Result<Figures, CriuError> {
        let paths = Paths { images, work: draft.work() };
        let call = Call { limit: self.order.limit, held: draft.lock(), gate, room: Room::default() };
        let mut ran = self.criu.run(action, self.options, &paths, call);
        if let Err(CriuError::Refused(reasons)) = &mut ran {
            // What CRIU has to say of that may not have found room, either.
            reasons.splice(0..0, is_full(draft.images()));
        }
        if let Err(CriuError::Late(_) | CriuError::Killed(_)) = ran {
            preflight::resume(self.before);
            if !self.presence.alone(|| self.note.mend()) {
                eprintln!("peers of {} may be kept waiting: others do not end", self.order.component);
            }
        }
        ran
    }

    fn facts(&self, figures: Option<DumpFigures>) -> Facts {
        let order = self.order;
        Facts {
            original_pid: order.pid,
            capabilities: order.capabilities.clone(),
            criu_version: self.criu.version,
            leave_running: order.after != After::End,
            preserve_fds: order.preserve_fds.clone(),
            roles: self.roles.to_vec(),
            options: self.options.clone(),
            figures,
            isolation: self.before.isolation.clone(),
        }
    }
}

/// Becomes readable when the process has ended.
fn end_of(pid: i32) -> io::Result<OwnedFd> {
    Ok(pidfd_open(Pid::from_raw(pid).ok_or(Errno::SRCH)?, PidfdFlags::empty())?)
}

/// CRIU has sent a signal to it, and it takes a moment to end.
fn await_end(first: &OwnedFd, limit: Duration) -> Result<(), String> {
    let timeout = Timespec::try_from(limit).map_err(|error| error.to_string())?;
    loop {
        match poll(&mut [PollFd::new(first, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(format!("the first had not ended after {} s", limit.as_secs_f64())),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Copy memory while the processes run, until little of it changes from one round to the next. Without a kernel that tells
/// what has changed there are none.
fn rounds<W: Write>(dumping: &Dumping<'_>, draft: &mut Draft, teller: &mut Teller<W>) -> Result<(), Failure> {
    let begun = Instant::now();
    let most = dumping.order.rounds.min(ROUNDS_LIMIT);
    if most == 0 || preflight::resident(dumping.before) < WORTH_ROUNDS || !tracks_memory(dumping.criu) {
        return Ok(());
    }
    let in_time = || begun.elapsed() < dumping.order.limit / ROUNDS_SHARE;
    let mut written: Vec<u64> = Vec::new();
    while another(&written, most) && (written.is_empty() || in_time()) {
        let figures: Figures = teller.step(Step::PreDump, || -> Result<_, String> {
            let (images, parent) = draft.round().map_err(|error| error.to_string())?;
            let action = Action::PreDump { pid: dumping.order.pid, parent };
            dumping.run(&action, images, draft, None).map_err(|error| error.to_string())
        })?;
        written.push(figures.dump.map_or(0, |figures| figures.pages_written));
        teller.found(Step::PreDump, Event::Counted { step: Step::PreDump, figures })?;
    }
    Ok(())
}

/// Whether another round is worth its while after those that wrote so many pages each: there is something left to copy,
/// and the last one copied clearly less than that before it.
fn another(written: &[u64], most: u32) -> bool {
    if written.len() >= most as usize {
        return false;
    }
    match written {
        [] => true,
        [only] => *only > SMALL,
        [.., before, last] => *last > SMALL && *last < before / 4 * 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::{Descriptor, Process};

    #[test]
    fn rounds_end_when_they_save_nothing() {
        // Pages that rounds wrote, and whether there is another.
        let cases: [(&[u64], bool); 8] = [
            (&[], true),
            (&[SMALL], false),
            (&[65_536], true),
            (&[65_536, 300], true),
            (&[65_536, 60_000], false),
            (&[65_536, 1000, 200], false),
            (&[65_536, 10_000, 2000], true),
            (&[65_536, 20_000, 10_000, 5000], false),
        ];
        for (written, expected) in cases {
            assert_eq!(another(written, 4), expected, "{written:?}");
        }
        assert!(!another(&[], 0));
    }

    #[test]
    fn connections_that_are_closed_already_are_not_locked() {
        let mut order = Dump {
            component: "web".to_owned(),
            pid: 50,
            program: None,
            criu: "criu".into(),
            options: Options::default(),
            rounds: 0,
            after: After::Hold,
            capabilities: Vec::new(),
            preserve_fds: Vec::new(),
            given: Vec::new(),
            limit: Duration::from_secs(1),
            quota: None,
            keep: None,
        };
        let mut tree = Tree::default();
        assert_eq!(lock(&order, &tree, || true), NetworkLock::Skip);
        assert_eq!(lock(&order, &tree, || false), NetworkLock::Nftables);
        // What comes there is not seen from here.
        tree.isolation.namespaces.insert("net".to_owned());
        assert_eq!(lock(&order, &tree, || true), NetworkLock::Nftables);
        // Who goes on or ends may be talked to before everything is there again.
        for after in [After::Run, After::End] {
            order.after = after;
            assert_eq!(lock(&order, &Tree::default(), || true), NetworkLock::Nftables);
        }
    }

    #[test]
    fn what_is_no_longer_open_is_not_given_again() {
        let descriptor = Descriptor { target: "socket:[7]".to_owned(), ..Descriptor::default() };
        let process = Process { descriptors: vec![descriptor], ..Process::default() };
        let tree = Tree { processes: vec![Process::default(), process], ..Tree::default() };
        let one = |name: &str, link: &str, is_end| Given { role: Role::new(name, link), is_end };
        let all = [
            one("log", "pipe:[6]", false),
            one("channel", "socket:[7]", true),
            one("other", "socket:[9]", true),
            one("notify", "/run/notify/x", false),
        ];
        let (roles, outside) = given(&all, &tree).expect("nothing is in the way");
        assert_eq!(roles, [all[1].role.clone(), all[3].role.clone()]);
        assert_eq!(outside, ["unix[7]"]);
    }

    #[test]
    fn sockets_that_are_held_outside_are_told_apart() {
        let target = |inode: u64| format!("socket:[{inode}]");
        let open = |number: i32, inode| Descriptor { number, target: target(inode), ..Descriptor::default() };
        let descriptors = vec![open(3, 7), open(4, 8)];
        let processes = vec![Process { pid: 50, descriptors, ..Process::default() }];
        let mut tree = Tree { processes, ..Tree::default() };
        tree.sockets.extend([(7, Socket::TcpListening), (8, Socket::Unix)]);
        tree.paths.insert(8, "/run/x".into());
        let held = |inode| Given { role: Role::new("held", target(inode)), is_end: false };
        let (roles, _) = given(&[held(7), held(8)], &tree).expect("nothing is in the way");
        assert_eq!((roles[0].inet, &roles[0].path), (Some((50, 3)), &None));
        assert_eq!((roles[1].inet, roles[1].path.as_deref()), (None, Some(Path::new("/run/x"))));
        tree.sockets.insert(7, Socket::TcpConnected);
        let said = given(&[held(7)], &tree).expect_err("it cannot be restored");
        assert!(said.starts_with("held (socket:[7]) is held outside"), "{said}");
    }
}
