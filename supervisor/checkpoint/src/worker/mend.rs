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
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread::{Builder, sleep};
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
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// For who puts something right and removes it, which may be gigabytes. After that nothing is begun.
const TAKE_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks.
pub(super) const LOOK: Duration = Duration::from_millis(50);
/// Tells one boot from another.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// The field of proc_pid_stat(5) with the time of a process's start.
const STARTED: usize = 22;
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

    /// Do something while nobody else has, as soon as the others have ended, within this time; false if they do not.
    pub(super) fn alone_within(&self, patience: Duration, work: impl FnOnce()) -> bool {
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
    /// Since when it runs: its number may be another's by now.
    #[serde(default)]
    started: Option<u64>,
    /// The boot that this was in.
    #[serde(default)]
    boot: String,
    /// Its network.
    #[serde(default)]
    network: Option<Network>,
    /// What keeps peers of others waiting there.
    tables: BTreeSet<String>,
}

/// A network namespace, as long as it is there. Its number may be another's afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Network {
    device: u64,
    inode: u64,
}

impl Network {
    fn of(process: &str) -> Option<Self> {
        let found = fs::metadata(format!("/proc/{process}/ns/net")).ok()?;
        Some(Self { device: found.dev(), inode: found.ino() })
    }
}

impl Before {
    /// Look, and write it down for who comes later.
    pub(super) fn note(pid: i32, work: &Path) -> io::Result<Self> {
        let before = Self {
            pid,
            started: started(pid),
            boot: boot()?,
            network: Network::of(&pid.to_string()),
            // Where nf_tables are not there CRIU makes none.
            tables: in_network_of(pid, criu::tables).unwrap_or_default(),
        };
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
        // Nothing outlasts a boot.
        if boot().is_ok_and(|boot| boot == self.boot) {
            self.mend_here();
        }
    }

    fn mend_here(&self) {
        let lives = self.started.is_some() && started(self.pid) == self.started;
        let unlock = || {
            for table in criu::tables()?.difference(&self.tables) {
                // It may be gone by itself.
                let _ = criu::unlock_table(table);
            }
            Ok(())
        };
        // In this order: what is sent first is to arrive. A network that only they had is gone when they are, and what is
        // elsewhere is others'.
        let _ = match self.network {
            Some(network) if lives && Network::of(&self.pid.to_string()) == Some(network) => {
                in_network_of(self.pid, unlock)
            }
            Some(network) if Network::of("self") == Some(network) => unlock(),
            _ => Ok(()),
        };
        if !lives {
            return;
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

/// Do something in the network namespace of a process: CRIU keeps peers waiting where the connections are.
fn in_network_of<T: Send>(pid: i32, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let network = File::open(format!("/proc/{pid}/ns/net"))?;
    let there = network.metadata()?;
    if Network::of("self") == Some(Network { device: there.dev(), inode: there.ino() }) {
        return work();
    }
    // A thread of its own has one of its own, and takes it along.
    std::thread::scope(|scope| {
        let there = || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        };
        let there = Builder::new().spawn_scoped(scope, there)?;
        there.join().unwrap_or_else(|_| Err(io::Error::other("it ended in the middle")))
    })
}

/// The name of this boot.
fn boot() -> io::Result<String> {
    Ok(fs::read_to_string(BOOT)?.trim().to_owned())
}

/// When a process was started, in the kernel's ticks since the boot.
fn started(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, which is anything, ends with the last of these. The first field behind it is the third of all.
    text.rsplit_once(')')?.1.split_whitespace().nth(STARTED - 3)?.parse().ok()
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
    use crate::alone::alone;

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

    /// A process with a network of its own, until its standard input is closed.
    fn with_own_network() -> std::process::Child {
        let mut child = std::process::Command::new("unshare")
            .args(["-n", "sh", "-c", "echo up; exec cat"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("unshare");
        child.stdout.take().expect("a pipe").read_exact(&mut [0; 3]).expect("it is there");
        child
    }

    fn end(mut child: std::process::Child) {
        drop(child.stdin.take());
        child.wait().expect("its end");
    }

    #[test]
    fn what_keeps_peers_waiting_is_taken_away_in_the_network_where_it_is() {
        use crate::netfilter::tests::make_table;
        alone(
            "worker::mend::tests::what_keeps_peers_waiting_is_taken_away_in_the_network_where_it_is",
            || {
                let child = with_own_network();
                let pid = i32::try_from(child.id()).expect("a number");
                let tables = || in_network_of(pid, criu::tables).expect("a list");
                in_network_of(pid, || make_table("CRIU-of-others")).expect("locked");
                let work = tempfile::tempdir().expect("a directory");
                let before = Before::note(pid, work.path()).expect("noted");
                in_network_of(pid, || make_table("CRIU-of-a-dump")).expect("locked");
                // Elsewhere it is others'.
                make_table("CRIU-of-a-dump").expect("locked");
                let here = || criu::tables().expect("a list").len();
                assert_eq!((tables().len(), here()), (2, 1));
                for other in [
                    Before { boot: "another".to_owned(), ..copy_of(&before) },
                    Before { started: Some(1), ..copy_of(&before) },
                    Before { network: Some(Network { device: 0, inode: 0 }), ..copy_of(&before) },
                ] {
                    other.mend();
                    assert_eq!((tables().len(), here()), (2, 1), "{other:?} is not what is here");
                }
                before.mend();
                assert_eq!((tables(), here()), (["CRIU-of-others".to_owned()].into(), 1));
                end(child);
                before.mend();
                assert_eq!(here(), 1, "its network is gone, and this one is another");
            },
        );
    }

    #[test]
    fn what_a_process_had_that_is_gone_is_put_right_in_the_network_that_it_shared() {
        use crate::netfilter::tests::make_table;
        alone(
            "worker::mend::tests::what_a_process_had_that_is_gone_is_put_right_in_the_network_that_it_shared",
            || {
                let mut child = std::process::Command::new("cat")
                    .stdin(std::process::Stdio::piped())
                    .spawn()
                    .expect("cat");
                let work = tempfile::tempdir().expect("a directory");
                make_table("CRIU-of-others").expect("locked");
                let before =
                    Before::note(i32::try_from(child.id()).expect("a number"), work.path()).expect("noted");
                make_table("CRIU-of-a-dump").expect("locked");
                drop(child.stdin.take());
                child.wait().expect("its end");
                before.mend();
                assert_eq!(criu::tables().expect("a list"), ["CRIU-of-others".to_owned()].into());
            },
        );
    }

    fn copy_of(before: &Before) -> Before {
        let bytes = serde_json::to_vec(before).expect("written");
        serde_json::from_slice(&bytes).expect("read")
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
