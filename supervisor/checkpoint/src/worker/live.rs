//! Orders about processes.

use std::fs::{self, DirBuilder};
use std::io::{self, Read as _, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{Done, failed, named};
use crate::criu::gate::Gate;
use crate::criu::{Action, Call, Criu, CriuError, DumpFigures, Figures, Options, Paths};
use crate::order::{Dump, Event, Failure, Restore, Step, Teller};
use crate::preflight::{self, Tree, Verdict};
use crate::probe::{self, Report};
use crate::store::{Draft, Facts, Metadata, ROUNDS_LIMIT, Store, Version};

/// Pages of memory that are copied so quickly that another round before saves nothing: 1 MiB.
const SMALL: u64 = 256;
/// A number and a newline.
const PIDFILE_LIMIT: u64 = 32;

pub(super) fn check<W: Write>(
    criu: &Path,
    cache: Option<&Path>,
    teller: &mut Teller<W>,
) -> Result<Done, Failure> {
    let report = teller.step(Step::Probe, || -> Result<_, String> {
        if let Some(known) = cache.and_then(|cache| probe::load(cache, criu)) {
            return Ok(known);
        }
        let report = Report::make(criu);
        if let Some(cache) = cache {
            probe::save(cache, &report).map_err(|error| failed("write", cache, &error))?;
        }
        Ok(report)
    })?;
    let usable = report.is_usable();
    teller.found(Step::Probe, Event::Probed { report })?;
    let message = if usable { "checkpoints can be made here" } else { "no checkpoints can be made here" };
    Ok((message.to_owned(), None))
}

pub(super) fn preflight<W: Write>(criu: &Path, pid: i32, teller: &mut Teller<W>) -> Result<Done, Failure> {
    let criu = teller.step(Step::Criu, || Criu::find(criu))?;
    let (verdict, _) = look(pid, criu.version, teller)?;
    Ok((format!("{} processes, {} things in the way", verdict.processes, verdict.findings.len()), None))
}

pub(super) fn dump<W: Write>(base: &Path, order: &Dump, teller: &mut Teller<W>) -> Result<Done, Failure> {
    let store = teller.step(Step::Open, || Store::make(base))?;
    let criu = teller.step(Step::Criu, || Criu::find(&order.criu))?;
    let (verdict, before) = look(order.pid, criu.version, teller)?;
    if let Some(first) = verdict.findings.first() {
        return Err(Failure { step: Step::Preflight, reason: first.to_string() });
    }
    let options = merged(&order.options, &verdict.options);
    let mut draft = teller.step(Step::Open, || store.begin(&order.component))?;
    let dumping = Dumping { criu: &criu, order, options: &options, before: &before };
    rounds(&dumping, &mut draft, teller)?;
    let metadata =
        if order.leave_running { dumping.leave(&draft, teller)? } else { dumping.end(&draft, teller)? };
    let (bytes, images) = (metadata.image_size, metadata.images.len());
    let message = format!("wrote {} {}: {images} images with {bytes} bytes", order.component, metadata.id);
    Ok((message, Some(named(&order.component, &metadata.id))))
}

/// A dump under way.
struct Dumping<'a> {
    criu: &'a Criu,
    order: &'a Dump,
    options: &'a Options,
    /// The processes as they were.
    before: &'a Tree,
}

impl Dumping<'_> {
    /// Write them and let them run on.
    fn leave<W: Write>(&self, draft: &Draft, teller: &mut Teller<W>) -> Result<Metadata, Failure> {
        let action = Action::Dump { pid: self.order.pid, parent: draft.parent(), end: None };
        let run = || self.run(&action, draft.images().to_owned(), draft, None);
        let figures = teller.step(Step::Dump, run)?;
        teller.found(Step::Dump, Event::Counted { step: Step::Dump, figures })?;
        teller.step(Step::Commit, || draft.keep(self.facts(figures.dump), self.order.quota))
    }

    /// Write them, put the checkpoint in its place while they are frozen, and only then have CRIU end them. Whatever fails
    /// before lets them run on; nothing that fails afterwards takes the checkpoint away.
    fn end<W: Write>(&self, draft: &Draft, teller: &mut Teller<W>) -> Result<Metadata, Failure> {
        let here = |reason: String| Failure { step: Step::Dump, reason };
        let work = draft.work();
        let gate = Gate::make(&work).map_err(|error| here(failed("make a socket in", &work, &error)))?;
        let first =
            end_of(self.order.pid).map_err(|error| here(format!("process {}: {error}", self.order.pid)))?;
        let action = Action::Dump { pid: self.order.pid, parent: draft.parent(), end: Some(Gate::program()) };
        let mut dumped = Some(teller.begin(Step::Dump)?);
        let mut kept = None;
        let mut keep = || {
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
                Ok(metadata)
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
        gate: Option<(&'a Gate, &'a mut dyn FnMut() -> bool)>,
    ) -> Result<Figures, CriuError> {
        let paths = Paths { images, work: draft.work() };
        let call = Call { limit: self.order.limit, held: draft.lock(), gate };
        let ran = self.criu.run(action, self.options, &paths, call);
        if let Err(CriuError::Late(_)) = ran {
            preflight::resume(self.before);
        }
        ran
    }

    fn facts(&self, figures: Option<DumpFigures>) -> Facts {
        let order = self.order;
        Facts {
            original_pid: order.pid,
            capabilities: order.capabilities.clone(),
            criu_version: self.criu.version,
            leave_running: order.leave_running,
            preserve_fds: order.preserve_fds.clone(),
            options: self.options.clone(),
            figures,
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

pub(super) fn restore<W: Write>(
    base: &Path,
    order: &Restore,
    teller: &mut Teller<W>,
) -> Result<Done, Failure> {
    let store = teller.step(Step::Open, || Store::open(base))?;
    let criu = teller.step(Step::Criu, || Criu::find(&order.criu))?;
    let checkpoint = teller.step(Step::Find, || store.find(&order.component, order.id.as_ref()))?;
    let metadata = teller.step(Step::Verify, || checkpoint.verify())?;
    if metadata.criu_version > criu.version {
        let reason = format!(
            "its images were written by CRIU {}, and here is CRIU {}: install a newer one",
            metadata.criu_version, criu.version
        );
        return Err(Failure { step: Step::Verify, reason });
    }
    let pid = teller.step(Step::Restore, || -> Result<i32, String> {
        let work =
            Work::make(&order.work).map_err(|error| failed("make a directory in", &order.work, &error))?;
        let pidfile = work.0.join("pid");
        let action = Action::Restore { pidfile: pidfile.clone(), inherit: order.inherit.clone() };
        let paths = Paths { images: checkpoint.path().to_owned(), work: work.0.clone() };
        let call = Call { limit: order.limit, held: checkpoint.lock(), gate: None };
        criu.run(&action, &metadata.options, &paths, call).map_err(|error: CriuError| error.to_string())?;
        read_pid(&pidfile).map_err(|error| failed("read", &pidfile, &error))
    })?;
    teller.found(Step::Restore, Event::Restored { pid })?;
    let id = checkpoint.id();
    let message = format!("restored {} from {id} as process {pid}", order.component);
    Ok((message, Some(named(&order.component, id))))
}

fn look<W: Write>(pid: i32, criu: Version, teller: &mut Teller<W>) -> Result<(Verdict, Tree), Failure> {
    let read = || preflight::read(pid).map_err(|error| format!("process {pid}: {error}"));
    let tree = teller.step(Step::Preflight, read)?;
    let verdict = preflight::judge(&tree, criu);
    teller.found(Step::Preflight, Event::Judged { verdict: verdict.clone() })?;
    Ok((verdict, tree))
}

/// What is wanted, and what the tree needs.
fn merged(wanted: &Options, needed: &Options) -> Options {
    Options {
        tcp_established: wanted.tcp_established || needed.tcp_established,
        file_locks: wanted.file_locks || needed.file_locks,
        shell_job: wanted.shell_job || needed.shell_job,
        ghost_limit: wanted.ghost_limit.max(needed.ghost_limit),
        ..wanted.clone()
    }
}

/// Copy memory while the processes run, until little of it changes from one round to the next.
fn rounds<W: Write>(dumping: &Dumping<'_>, draft: &mut Draft, teller: &mut Teller<W>) -> Result<(), Failure> {
    let mut written: Vec<u64> = Vec::new();
    while another(&written, dumping.order.rounds.min(ROUNDS_LIMIT)) {
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

/// A directory for CRIU's log and the number of the process, which are gone with the value.
struct Work(PathBuf);

impl Work {
    fn make(below: &Path) -> io::Result<Self> {
        let path = below.join(format!("restore-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // It holds nothing that anybody looks for.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn read_pid(path: &Path) -> io::Result<i32> {
    let mut text = String::new();
    fs::File::open(path)?.take(PIDFILE_LIMIT).read_to_string(&mut text)?;
    text.trim().parse().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn what_the_tree_needs_is_added_to_what_is_wanted() {
        let wanted = Options { link_remap: true, ghost_limit: Some(5), ..Options::default() };
        let needed = Options { tcp_established: true, ghost_limit: Some(9), ..Options::default() };
        let merged = merged(&wanted, &needed);
        assert!(merged.link_remap && merged.tcp_established && !merged.file_locks);
        assert_eq!(merged.ghost_limit, Some(9));
    }
}
