//! Sockets that listen, kept open while the processes that have them are not there.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Uid, fchown};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::sockopt;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::barrier::inode_of;
use crate::order::Given;
use crate::preflight::{Socket, Tree, is_same};

/// Most sockets of a tree that are kept: a server listens on some, one for each thread at most.
const LIMIT: usize = 1024;

/// See the module documentation. They are closed with the value.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    /// Beside these others can listen.
    inet: Vec<OwnedFd>,
    /// These are given again, with their inodes and their paths.
    unix: Vec<(OwnedFd, u64, PathBuf)>,
}

impl Listeners {
    /// Those of a tree, without what is given to it again, and without those that the machine finds at another path than
    /// they do: CRIU makes them anew.
    pub(super) fn keep(tree: &Tree, given: &[Given]) -> Result<Self, String> {
        let mut seen: BTreeSet<_> = given.iter().filter_map(|given| inode_of(&given.role.link)).collect();
        let mut kept = Self::default();
        for process in &tree.processes {
            for descriptor in &process.descriptors {
                let Some(inode) = inode_of(&descriptor.target) else { continue };
                let is_inet = tree.sockets.get(&inode) == Some(&Socket::TcpListening);
                let path = tree.paths.get(&inode).filter(|path| is_at(tree, process.pid, path));
                if !is_inet && path.is_none() || !seen.insert(inode) {
                    continue;
                }
                if kept.inet.len() + kept.unix.len() == LIMIT {
                    return Err(format!("it listens on more than {LIMIT} sockets"));
                }
                let (pid, number) = (process.pid, descriptor.number);
                let copied = copy(pid, number).map_err(|error| {
                    format!("descriptor {number} of process {pid} cannot be kept open meanwhile: {error}")
                })?;
                match path {
                    Some(path) => kept.unix.push((copied, inode, path.clone())),
                    None => kept.inet.push(copied),
                }
            }
        }
        Ok(kept)
    }

    /// Let others listen beside them.
    pub(super) fn make_way(&self) -> Result<(), String> {
        self.inet.iter().try_for_each(|socket| make_way(socket.as_fd()))
    }

    /// What is given to CRIU, by number, with CRIU's name of what it stands for.
    pub(super) fn inherit(&self) -> io::Result<Vec<(i32, String)>> {
        let one = |(socket, inode, _): &(OwnedFd, u64, _)| {
            fcntl_setfd(socket, FdFlags::empty())?;
            Ok((socket.as_raw_fd(), format!("socket:[{inode}]")))
        };
        self.unix.iter().map(one).collect()
    }

    /// Paths that lead to them.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.unix.iter().map(|(_, _, path)| path.as_path())
    }
}

/// Let another socket be bound beside this one, which the kernel does for sockets of one user that all say so: CRIU, which
/// is root, says so of each socket until it listens.
pub(super) fn make_way(socket: BorrowedFd<'_>) -> Result<(), String> {
    let shared = fchown(socket, Some(Uid::ROOT), Some(Gid::ROOT))
        .and_then(|()| sockopt::set_socket_reuseport(socket, true));
    shared.map_err(|error| format!("failed to share what it listens on: {error}"))
}

/// Whether a path leads to the same for a process as it does here.
fn is_at(tree: &Tree, pid: i32, path: &Path) -> bool {
    let rest = path.strip_prefix("/").unwrap_or(path);
    tree.inside.is_empty() || is_same(path, &Path::new("/proc").join(pid.to_string()).join("root").join(rest))
}

/// A process's descriptor, as one of this process.
pub(super) fn copy(pid: i32, descriptor: i32) -> io::Result<OwnedFd> {
    let process = pidfd_open(Pid::from_raw(pid).ok_or(Errno::SRCH)?, PidfdFlags::empty())?;
    Ok(pidfd_getfd(process, descriptor, PidfdGetfdFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd as _;

    use super::*;
    use crate::preflight::{Descriptor, Process, read};
    use crate::store::Role;

    /// A tree of this process alone, with these descriptors.
    fn tree(sockets: &[&TcpListener]) -> Tree {
        let pid = i32::try_from(std::process::id()).expect("a number");
        let mut tree = read(pid).expect("it is there");
        let numbers: Vec<_> = sockets.iter().map(|socket| socket.as_raw_fd()).collect();
        let own = std::mem::take(&mut tree.processes[0].descriptors).into_iter();
        let descriptors: Vec<Descriptor> = own.filter(|one| numbers.contains(&one.number)).collect();
        tree.processes = vec![Process { pid, descriptors, ..Process::default() }];
        tree
    }

    #[test]
    fn a_place_stays_taken_and_clients_wait_there() {
        let first = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let other = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let place = first.local_addr().expect("a place");
        let tree = tree(&[&first, &other]);
        let link =
            format!("socket:[{}]", inode_of(&tree.processes[0].descriptors[1].target).expect("an inode"));
        let given = Given { role: Role::new("held", link), is_end: false };
        let kept = Listeners::keep(&tree, &[given]).expect("kept");
        assert_eq!(kept.inet.len(), 1, "what is given again is not kept");
        drop(first);
        // Nobody listens, and yet nobody is refused.
        let client = TcpStream::connect(place).expect("it waits");
        drop(kept);
        drop(client);
        TcpStream::connect(place).expect_err("nobody listens any more");
    }

    #[test]
    fn what_cannot_be_kept_is_named() {
        let first = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let mut tree = tree(&[&first]);
        tree.processes[0].descriptors[0].number = i32::MAX;
        let said = Listeners::keep(&tree, &[]).expect_err("there is none");
        assert!(said.starts_with("descriptor 2147483647 of process "), "{said}");
    }
}
