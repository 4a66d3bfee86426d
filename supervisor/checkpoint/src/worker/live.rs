//! Orders about processes.

use std::fs::{self, DirBuilder};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::{Done, failed, named};
use crate::criu::{Action, Criu, CriuError, Figures, Options, Paths};
use crate::order::{Dump, Event, Failure, Restore, Step, Teller};
use crate::preflight::{self, Verdict};
use crate::probe::{self, Report};
use crate::store::{Draft, Facts, ROUNDS_LIMIT, Store};

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
        if let Some(known) = cache.and_then(probe::load) {
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

pub(super) fn preflight<W: Write>(pid: i32, teller: &mut Teller<W>) -> Result<Done, Failure> {
    let verdict = look(pid, teller)?;
    Ok((format!("{} processes, {} things in the way", verdict.processes, verdict.findings.len()), None))
}

pub(super) fn dump<W: Write>(base: &Path, order: &Dump, teller: &mut Teller<W>) -> Result<Done, Failure> {
    let store = teller.step(Step::Open, || Store::make(base))?;
    let criu = teller.step(Step::Criu, || Criu::find(&order.criu))?;
    let verdict = look(order.pid, teller)?;
    if let Some(first) = verdict.findings.first() {
        return Err(Failure { step: Step::Preflight, reason: first.to_string() });
    }
    let options = merged(&order.options, &verdict.options);
    let mut draft = teller.step(Step::Open, || store.begin(&order.component))?;
    rounds(&criu, order, &options, &mut draft, teller)?;
    let action = Action::Dump { pid: order.pid, parent: draft.parent(), leave_running: order.leave_running };
    let paths = Paths { images: draft.images().to_owned(), work: draft.work() };
    let figures = teller.step(Step::Dump, || criu.run(&action, &options, &paths, order.limit))?;
    teller.found(Step::Dump, Event::Counted { step: Step::Dump, figures })?;
    let facts = Facts {
        original_pid: order.pid,
        capabilities: order.capabilities.clone(),
        criu_version: criu.version,
        leave_running: order.leave_running,
        preserve_fds: order.preserve_fds.clone(),
        options,
        figures: figures.dump,
    };
    let metadata = teller.step(Step::Commit, || draft.commit(facts, order.quota))?;
    let (bytes, images) = (metadata.image_size, metadata.images.len());
    let message = format!("wrote {} {}: {images} images with {bytes} bytes", order.component, metadata.id);
    Ok((message, Some(named(&order.component, &metadata.id))))
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
        criu.run(&action, &metadata.options, &paths, order.limit)
            .map_err(|error: CriuError| error.to_string())?;
        read_pid(&pidfile).map_err(|error| failed("read", &pidfile, &error))
    })?;
    teller.found(Step::Restore, Event::Restored { pid })?;
    let id = checkpoint.id();
    let message = format!("restored {} from {id} as process {pid}", order.component);
    Ok((message, Some(named(&order.component, id))))
}

fn look<W: Write>(pid: i32, teller: &mut Teller<W>) -> Result<Verdict, Failure> {
    let read = || preflight::read(pid).map_err(|error| format!("process {pid}: {error}"));
    let verdict = preflight::judge(&teller.step(Step::Preflight, read)?);
    teller.found(Step::Preflight, Event::Judged { verdict: verdict.clone() })?;
    Ok(verdict)
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
fn rounds<W: Write>(
    criu: &Criu,
    order: &Dump,
    options: &Options,
    draft: &mut Draft,
    teller: &mut Teller<W>,
) -> Result<(), Failure> {
    let mut written: Vec<u64> = Vec::new();
    while another(&written, order.rounds.min(ROUNDS_LIMIT)) {
        let figures: Figures = teller.step(Step::PreDump, || -> Result<_, String> {
            let (images, parent) = draft.round().map_err(|error| error.to_string())?;
            let paths = Paths { images, work: draft.work() };
            let action = Action::PreDump { pid: order.pid, parent };
            criu.run(&action, options, &paths, order.limit).map_err(|error| error.to_string())
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
