//! What a CRIU leaves that was killed in the middle of a dump: connections that are kept from their peers, or in repair, in
//! which nothing is sent.
//!
//! The worker that started it puts that right. If it was killed itself, another does, from what it finds written down.
//! None does so while a third one is at work, whose connections are no mistake.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::mem::size_of_val;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::libc;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::listeners::copy;
use crate::barrier::inode_of;
use crate::criu;
use crate::preflight::{self, Socket};
use crate::store::WORK;

/// In the directory for logs.
const FILE: &str = "before.json";
/// Most bytes of it that are read: names of some ten thousand tables.
const FILE_LIMIT: u64 = 1 << 20;
/// For others to end what they do. What is not put right in this time is left as it is.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks.
pub(super) const LOOK: Duration = Duration::from_millis(50);
/// What the kernel's `linux/tcp.h` calls it.
const REPAIR: libc::c_int = libc::TCP_REPAIR;

/// A worker that has connections in its hands.
#[derive(Debug)]
pub(super) struct Presence(File);

impl Presence {
    /// In this store. Whoever puts something right is waited for, which takes milliseconds.
    pub(super) fn take(base: &Path) -> io::Result<Self> {
        let directory = File::open(base)?;
        flock(&directory, FlockOperation::LockShared)?;
        Ok(Self(directory))
    }

    /// Do something while nobody else has; false if others do not end.
    pub(super) fn alone(&self, work: impl FnOnce()) -> bool {
        self.alone_within(PATIENCE, work)
    }

    /// The same for what can as well be done another time.
    pub(super) fn alone_at_once(&self, work: impl FnOnce()) -> bool {
        self.alone_within(Duration::ZERO, work)
    }

    fn alone_within(&self, patience: Duration, work: impl FnOnce()) -> bool {
        let (begun, mut work) = (Instant::now(), Some(work));
        loop {
            let alone = flock(&self.0, FlockOperation::NonBlockingLockExclusive).is_ok();
            if let Some(work) = work.take_if(|_| alone) {
                work();
            }
            if alone || begun.elapsed() >= patience {
                // Also after an attempt that failed: the lock may be lost by it. Without one others take nobody to be at work.
                let _ = flock(&self.0, FlockOperation::LockShared);
                return alone;
            }
            // Of two that wait, each would see the other at work for as long as both are.
            let _ = flock(&self.0, FlockOperation::Unlock);
            sleep(LOOK);
        }
    }
}

/// What there was before a dump.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Before {
    /// The first process of those that are written.
    pid: i32,
    /// What keeps peers of others waiting.
    tables: BTreeSet<String>,
}

impl Before {
    /// Look, and write it down for who comes later.
    pub(super) fn note(pid: i32, work: &Path) -> io::Result<Self> {
        // Where nf_tables are not there CRIU makes none.
        let before = Self { pid, tables: criu::tables().unwrap_or_default() };
        fs::write(work.join(FILE), serde_json::to_vec(&before)?)?;
        Ok(before)
    }

    /// What was written down of a dump that was left half made; none if it had not come so far.
    fn of(draft: &Path) -> Option<Self> {
        let mut bytes = Vec::new();
        File::open(draft.join(WORK).join(FILE)).ok()?.take(FILE_LIMIT).read_to_end(&mut bytes).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Put right what is not as it was. To be done alone.
    pub(super) fn mend(&self) {
        // In this order: what is sent first is to arrive.
        for table in criu::tables().unwrap_or_default().difference(&self.tables) {
            // It may be gone by itself.
            let _ = criu::unlock_table(table);
        }
        // They may have ended.
        let Ok(tree) = preflight::read(self.pid) else { return };
        let all = tree.processes.iter().flat_map(|process| {
            process.descriptors.iter().map(|descriptor| (process.pid, descriptor.number, &descriptor.target))
        });
        let is_tcp = |target: &str| {
            let socket = inode_of(target).and_then(|inode| tree.sockets.get(&inode));
            matches!(socket, Some(Socket::TcpConnected | Socket::Tcp))
        };
        for (pid, number, _) in all.filter(|(_, _, target)| is_tcp(target)) {
            if let Ok(socket) = copy(pid, number) {
                end_repair(&socket);
            }
        }
    }
}

/// What was left half made is about to be removed: put right what is known of it. To be done alone.
pub(super) fn left(draft: &Path) {
    // What has not come so far has done nothing.
    if let Some(before) = Before::of(draft) {
        before.mend();
    }
}

/// What waits is sent from then on. Of a socket that is not in repair nothing changes.
fn end_repair(socket: &OwnedFd) {
    let mut value: libc::c_int = 0;
    let mut length = size_of_val(&value) as libc::socklen_t;
    let (fd, place) = (socket.as_raw_fd(), (&raw mut value).cast());
    // SAFETY: the kernel writes at most so many bytes, which are there.
    let asked = unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, REPAIR, place, &raw mut length) };
    if asked != 0 || value == 0 {
        return;
    }
    let off: libc::c_int = 0;
    // SAFETY: the kernel reads so many bytes, which are there.
    unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, REPAIR, (&raw const off).cast(), length) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_alone_while_others_are_there() {
        let base = tempfile::tempdir().expect("a directory");
        let one = Presence::take(base.path()).expect("a lock");
        let mut done = 0;
        assert!(one.alone(|| done += 1));
        let other = Presence::take(base.path()).expect("both are there");
        assert!(!other.alone_at_once(|| ()));
        let waits = std::thread::spawn(move || {
            let begun = Instant::now();
            assert!(one.alone(|| ()));
            begun.elapsed()
        });
        sleep(LOOK * 3);
        drop(other);
        assert!(waits.join().expect("it ends") >= LOOK * 2);
        assert_eq!(done, 1);
    }

    #[test]
    fn two_that_wait_do_not_wait_for_each_other() {
        let base = tempfile::tempdir().expect("a directory");
        let both = [(); 2].map(|()| Presence::take(base.path()).expect("a lock"));
        let begun = Instant::now();
        let looks = both.into_iter().map(|one| {
            // Not at the same time: by each look that fails a lock is lost for a moment.
            sleep(LOOK / 2);
            std::thread::spawn(move || one.alone(|| ()))
        });
        assert!(looks.collect::<Vec<_>>().into_iter().all(|one| one.join().expect("it ends")));
        assert!(begun.elapsed() < PATIENCE);
    }

    #[test]
    fn what_is_written_down_is_found() {
        let draft = tempfile::tempdir().expect("a directory");
        let work = draft.path().join(WORK);
        fs::create_dir(&work).expect("a directory");
        // No process has this number.
        Before::note(i32::MAX, &work).expect("it is written");
        assert!(fs::read_to_string(work.join(FILE)).expect("a file").contains("2147483647"));
        let found = Before::of(draft.path()).expect("it is found");
        assert_eq!(found.pid, i32::MAX);
        assert!(Before::of(&work).is_none(), "there is nothing of it");
    }
}
