//! Processes are made again.

use std::fs::{self, DirBuilder};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::{Done, failed, named};
use crate::criu::{Action, Call, Criu, Paths};
use crate::order::{Ear, Event, Failure, Remake, Restore, Step, Teller};
use crate::store::{Checkpoint, Metadata, Role, Store};

/// A number and a newline.
const PIDFILE_LIMIT: u64 = 32;
/// What a process writes to its own group, in place of its number.
const MYSELF: &str = "0";

pub(super) fn carry_out<W: Write>(
    base: &Path,
    order: &Restore,
    ear: &mut Ear,
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
    let making = Making { criu: &criu, checkpoint: &checkpoint, metadata: &metadata, how: &order.how };
    making.wait(ear, teller)?;
    let pid = making.make(teller)?;
    teller.found(Step::Restore, Event::Restored { pid })?;
    let id = checkpoint.id();
    let message = format!("restored {} from {id} as process {pid}", order.component);
    Ok((message, Some(named(&order.component, id))))
}

/// What processes are made from, and how.
pub(super) struct Making<'a> {
    pub(super) criu: &'a Criu,
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) metadata: &'a Metadata,
    pub(super) how: &'a Remake,
}

impl Making<'_> {
    /// Wait for the word, and go where they are to be born.
    pub(super) fn wait<W: Write>(&self, ear: &mut Ear, teller: &mut Teller<W>) -> Result<(), Failure> {
        let Some(limit) = self.how.wait else { return Ok(()) };
        let (id, roles) = (self.checkpoint.id().clone(), self.metadata.roles.clone());
        teller.found(Step::Wait, Event::Waiting { id, roles })?;
        teller.step(Step::Wait, || {
            let Some(group) = ear.go(limit)?.group else { return Ok(()) };
            let list = group.join("cgroup.procs");
            fs::write(&list, MYSELF).map_err(|error| failed("write", &list, &error))
        })
    }

    /// Have CRIU make them. Returns the number of the first.
    pub(super) fn make<W: Write>(&self, teller: &mut Teller<W>) -> Result<i32, Failure> {
        teller.step(Step::Restore, || -> Result<i32, String> {
            let Remake { work, given, limit, .. } = self.how;
            let work = Work::make(work).map_err(|error| failed("make a directory in", work, &error))?;
            let pidfile = work.0.join("pid");
            let inherit = inherited(given, &self.metadata.roles);
            let action = Action::Restore { pidfile: pidfile.clone(), inherit };
            let paths = Paths { images: self.checkpoint.path().to_owned(), work: work.0.clone() };
            let call = Call { limit: *limit, held: self.checkpoint.lock(), gate: None };
            let ran = self.criu.run(&action, &self.metadata.options, &paths, call);
            ran.map_err(|error| error.to_string())?;
            read_pid(&pidfile).map_err(|error| failed("read", &pidfile, &error))
        })
    }
}

/// Descriptors with the names of what they stand for. What the processes did not have is left alone.
fn inherited(given: &[(String, i32)], roles: &[Role]) -> Vec<(i32, String)> {
    let link = |name: &str| roles.iter().find(|role| role.name == name).map(|role| role.link.clone());
    given.iter().filter_map(|(name, descriptor)| Some((*descriptor, link(name)?))).collect()
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
    fn what_is_given_takes_the_place_of_what_was_given() {
        let role = |name: &str, link: &str| Role { name: name.to_owned(), link: link.to_owned() };
        let roles = [role("log", "pipe:[6]"), role("channel", "socket:[7]")];
        let given = [("channel".to_owned(), 5), ("other".to_owned(), 6)];
        assert_eq!(inherited(&given, &roles), [(5, "socket:[7]".to_owned())]);
    }
}
