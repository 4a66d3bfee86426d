//! What a CRIU leaves that was killed in the middle of a dump: connections that are kept from their peers, or in repair, in
//! which nothing is sent.
//!
//! The worker that started it puts that right. If it was killed itself, another does, from what it finds written down.
//! None does so while a third one is at work, whose connections are no mistake.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::mem::size_of_val;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::libc;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
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
/// For who puts something right and removes it, which may be gigabytes. After that nothing is begun.
const TAKE_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks.
pub(super) const LOOK: Duration = Duration::from_millis(50);
/// What the kernel's `linux/tcp.h` calls it.
const REPAIR: libc::c_int = libc::TCP_REPAIR;

/// A worker that has connections in its hands.
#[derive(Debug)]
pub(super) struct Presence(File);

impl Presence {
    /// In this store. Whoever puts something right is waited for, which takes milliseconds, and longer if there is much to
    /// remove.
    pub(super) fn take(base: &Path) -> io::Result<Self> {
        let (directory, begun) = (File::open(base)?, Instant::now());
        while let Err(error) = flock(&directory, FlockOperation::NonBlockingLockShared) {
            if error != Errno::WOULDBLOCK {
                return Err(error.into());
            }
            if begun.elapsed() > TAKE_LIMIT {
                let why = format!("what others left there is not removed within {} s", TAKE_LIMIT.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            sleep(LOOK);
        }
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
        let before = Self { pid, tables: in_network_of(pid, criu::tables).unwrap_or_default() };
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
        // In this order: what is sent first is to arrive. A network that only they had is gone when they are.
        let _ = in_network_of(self.pid, || {
            for table in criu::tables()?.difference(&self.tables) {
                // It may be gone by itself.
                let _ = criu::unlock_table(table);
            }
            Ok(())
        });
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

/// Do something in the network namespace of a process: CRIU keeps peers waiting where the connections are. What a process
/// that is gone had is the machine's for who asks.
fn in_network_of<T: Send>(pid: i32, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let path = format!("/proc/{pid}/ns/net");
    let (there, here) = (fs::read_link(&path), fs::read_link("/proc/self/ns/net")?);
    if there.is_err() || there.is_ok_and(|there| there == here) {
        return work();
    }
    let network = File::open(path)?;
    // A thread of its own has one of its own, and takes it along.
    std::thread::scope(|scope| {
        let there = scope.spawn(|| {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        });
        there.join().unwrap_or_else(|_| Err(io::Error::other("it ended in the middle")))
    })
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
    fn what_keeps_peers_waiting_is_taken_away_in_the_network_where_it_is() {
        use crate::netfilter::{Attributes, Batch, CREATE, Kind, TABLE_NAME};
        let hold = std::process::Command::new("unshare")
            .args(["-n", "sh", "-c", "echo up; exec cat"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn();
        let Ok(mut child) = hold else { return };
        let mut said = [0; 3];
        if child.stdout.take().is_some_and(|mut out| out.read_exact(&mut said).is_ok()) {
            let pid = i32::try_from(child.id()).expect("a number");
            let lock = |name: &'static str| {
                let about = Attributes::new().text(TABLE_NAME, name);
                in_network_of(pid, || Batch::new().add(Kind::NewTable, CREATE, &about).send())
            };
            let tables = || in_network_of(pid, criu::tables).expect("a list");
            // Without nf_tables, or the right to them, there is nothing to be left.
            if lock("CRIU-of-others").is_ok() {
                let work = tempfile::tempdir().expect("a directory");
                let before = Before::note(pid, work.path()).expect("noted");
                lock("CRIU-of-a-dump").expect("locked");
                assert_eq!(tables().len(), 2);
                assert!(!criu::tables().expect("a list").contains("CRIU-of-a-dump"), "it is not here");
                before.mend();
                assert_eq!(tables(), ["CRIU-of-others".to_owned()].into());
            }
        }
        drop(child.stdin.take());
        child.wait().expect("its end");
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
