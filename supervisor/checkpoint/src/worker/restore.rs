//! Processes are made again.

use std::fs;
use std::io::{self, Read as _, Write};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::path::Path;

use rustix::io::{FdFlags, fcntl_setfd};

use super::listeners::{Listeners, make_way};
use super::remount::give_back;
use super::work::Work;
use super::{Done, failed, find_criu, named};
use crate::criu::gate::{Decide, Gate};
use crate::criu::{self, Action, Call, Criu, Known, Paths, Room};
use crate::order::{Ear, Event, Failure, Remake, Restore, Step, Teller};
use crate::preflight::{Isolation, isolation};
use crate::store::{Checkpoint, Metadata, Role, Store};

/// What stands for nothing at the standard input.
const NULL: &str = "/dev/null";
/// A number and a newline.
const PIDFILE_LIMIT: u64 = 32;
/// What a process writes to its own group, in place of its number.
const MYSELF: &str = "0";

pub(super) fn carry_out<W: Write>(
    base: &Path,
    order: &Restore,
    known: Option<&Known>,
    ear: &mut Ear,
    teller: &mut Teller<W>,
) -> Result<Done, Failure> {
    let store = teller.step(Step::Open, || Store::open(base))?;
    let criu = find_criu(&order.criu, known, teller)?;
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
    let made = making.wait(ear, teller).and_then(|()| making.make(&Listeners::default(), teller));
    if made.is_err() {
        making.let_peers_go();
    }
    let pid = made?;
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
        let id = self.checkpoint.id().clone();
        // Only paths concern who waits for this, and there may be many sockets.
        let roles = self.metadata.roles.iter().filter(|role| role.link.starts_with('/')).cloned().collect();
        teller.found(Step::Wait, Event::Waiting { id, roles })?;
        teller.step(Step::Wait, || {
            let Some(group) = ear.go(limit)?.group else { return Ok(()) };
            let list = group.join("cgroup.procs");
            fs::write(&list, MYSELF).map_err(|error| failed("write", &list, &error))
        })
    }

    /// Have CRIU make them, with what is kept by this process. Returns the number of the first. What of it whoever gave the
    /// order holds is told before.
    pub(super) fn make<W: Write>(&self, kept: &Listeners, teller: &mut Teller<W>) -> Result<i32, Failure> {
        let Remake { work, given, limit, .. } = self.how;
        let roles = &self.metadata.roles;
        let pid = teller.step(Step::Restore, || -> Result<i32, String> {
            for (_, descriptor) in given.iter().filter(|(name, _)| inet(roles, name).is_some()) {
                // SAFETY: it was passed to this process, which closes none of those before what they stand for is made.
                make_way(unsafe { BorrowedFd::borrow_raw(*descriptor) })?;
            }
            let work = Work::make(work).map_err(|error| failed("make a directory in", work, &error))?;
            let place = work.path();
            let pidfile = place.join("pid");
            let mut inherit = inherited(given, roles);
            let nulls = nulls(&self.metadata.options.external)
                .map_err(|error| failed("open", Path::new(NULL), &error))?;
            inherit.extend(nulls.iter().map(|(file, name)| (file.as_raw_fd(), name.clone())));
            inherit.extend(kept.inherit().map_err(|error| format!("what it listens on: {error}"))?);
            let paths = roles.iter().filter_map(|role| role.path.as_deref()).chain(kept.paths());
            let names = work.keep(paths).map_err(|error| failed("write to", place, &error))?;
            let room = Room::prepare(&self.metadata.options, place)
                .map_err(|error| failed("make a directory in", place, &error))?;
            let wanted = &self.metadata.isolation;
            let gate = (!wanted.namespaces.is_empty()).then(|| Gate::make(place)).transpose();
            let gate = gate.map_err(|error| failed("make a socket in", place, &error))?;
            let root = room.root().map(Path::to_owned);
            let ask = gate.as_ref().map(|_| Gate::program());
            let action = Action::Restore { pidfile: pidfile.clone(), root, ask, inherit };
            let paths = Paths { images: self.checkpoint.path().to_owned(), work: place.to_owned() };
            let mut lost = None;
            let mut look = |pid: Option<i32>| {
                lost = difference(wanted, pid);
                lost.is_none()
            };
            let gate = gate.as_ref().map(|gate| (gate, &mut look as &mut Decide<'_>));
            let call = Call { limit: *limit, held: self.checkpoint.lock(), gate, room };
            let ran = self.criu.run(&action, &self.metadata.options, &paths, call);
            drop(names);
            ran.map_err(|error| match lost {
                Some(lost) => format!("it is not made again: {lost}"),
                None => error.to_string(),
            })?;
            read_pid(&pidfile).map_err(|error| failed("read", &pidfile, &error))
        })?;
        for (name, _) in given {
            if let Some((pid, number)) = inet(roles, name) {
                teller.found(Step::Restore, Event::Anew { role: name.clone(), pid, number })?;
            }
        }
        Ok(pid)
    }
}

impl Making<'_> {
    /// Close the sockets of others at whose places there are now the processes' own.
    pub(super) fn let_go(&self) {
        for (_, descriptor) in
            self.how.given.iter().filter(|(name, _)| inet(&self.metadata.roles, name).is_some())
        {
            // SAFETY: it was passed to this process for this order, which is carried out; each has a role of its own.
            drop(unsafe { OwnedFd::from_raw_fd(*descriptor) });
        }
    }

    /// Nothing was made: who has a connection to what was written is to find out.
    pub(super) fn let_peers_go(&self) {
        // Where there is no nf_tables nobody was kept waiting.
        let _ = criu::unlock(self.checkpoint.path());
    }
}

/// What a process that was made, and does not run yet, would not have as it was.
fn difference(wanted: &Isolation, pid: Option<i32>) -> Option<String> {
    let Some(pid) = pid else { return Some("CRIU does not say which process it has made".to_owned()) };
    let mended = isolation(pid).and_then(|now| give_back(pid, wanted, &now)).and_then(|()| isolation(pid));
    match mended {
        Ok(now) => wanted.difference(&now),
        Err(error) => Some(format!("what it would have for itself cannot be seen to: {error}")),
    }
}

/// The null device, for each that was opened by who started the processes: by CRIU's name of it.
fn nulls(external: &[String]) -> io::Result<Vec<(fs::File, String)>> {
    let open = |name: &String| {
        let file = fs::File::options().read(true).write(true).open(NULL)?;
        fcntl_setfd(&file, FdFlags::empty())?;
        Ok((file, name.clone()))
    };
    external.iter().filter(|name| name.starts_with("file[")).map(open).collect()
}

/// Where an internet socket is that has this role.
fn inet(roles: &[Role], name: &str) -> Option<(i32, i32)> {
    roles.iter().find(|role| role.name == name)?.inet
}

/// Descriptors with the names of what they stand for. What the processes did not have is left alone, and so is what CRIU
/// makes anew.
fn inherited(given: &[(String, i32)], roles: &[Role]) -> Vec<(i32, String)> {
    let stands_for = |name: &str| roles.iter().find(|role| role.name == name && role.inet.is_none());
    given
        .iter()
        .filter_map(|(name, descriptor)| Some((*descriptor, stands_for(name)?.link.clone())))
        .collect()
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
        let web = Role { inet: Some((50, 3)), ..Role::new("web", "socket:[8]") };
        let roles = [Role::new("log", "pipe:[6]"), Role::new("channel", "socket:[7]"), web];
        let given = [("channel".to_owned(), 5), ("other".to_owned(), 6), ("web".to_owned(), 7)];
        assert_eq!(inherited(&given, &roles), [(5, "socket:[7]".to_owned())]);
        assert_eq!(["channel", "other", "web"].map(|name| inet(&roles, name)), [None, None, Some((50, 3))]);
    }
}
