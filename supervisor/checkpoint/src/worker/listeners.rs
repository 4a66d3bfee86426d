//! Sockets that listen, kept open while the processes that have them are not there.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Gid, Uid, fchown};
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::order::Given;
use crate::preflight::{Socket, Tree};

/// Most sockets of a tree that are kept: a server listens on some, one for each thread at most.
const LIMIT: usize = 1024;

/// See the module documentation. They are closed with the value.
#[derive(Debug)]
pub(super) struct Listeners(Vec<OwnedFd>);

impl Listeners {
    /// Those of a tree, without what is given to it again as it is.
    pub(super) fn keep(tree: &Tree, given: &[Given]) -> Result<Self, String> {
        let mut seen: BTreeSet<_> = given.iter().filter_map(|given| inode_of(&given.role.link)).collect();
        let mut kept = Vec::new();
        for process in &tree.processes {
            for descriptor in &process.descriptors {
                let Some(inode) = inode_of(&descriptor.target) else { continue };
                if tree.sockets.get(&inode) != Some(&Socket::TcpListening) || !seen.insert(inode) {
                    continue;
                }
                if kept.len() == LIMIT {
                    return Err(format!("it listens on more than {LIMIT} sockets"));
                }
                let (pid, number) = (process.pid, descriptor.number);
                let copied = copy(pid, number);
                kept.push(copied.map_err(|error| {
                    format!("descriptor {number} of process {pid} cannot be kept open meanwhile: {error}")
                })?);
            }
        }
        Ok(Self(kept))
    }

    /// Let others listen beside them, which the kernel does for sockets of one user that all say so: CRIU, which is root,
    /// says so of each socket until it listens.
    pub(super) fn make_way(&self) -> Result<(), String> {
        let one = |socket: &OwnedFd| {
            fchown(socket, Some(Uid::ROOT), Some(Gid::ROOT))?;
            sockopt::set_socket_reuseport(socket, true)
        };
        self.0
            .iter()
            .try_for_each(one)
            .map_err(|error| format!("failed to share what it listens on: {error}"))
    }
}

fn copy(pid: i32, descriptor: i32) -> io::Result<OwnedFd> {
    let process = pidfd_open(Pid::from_raw(pid).ok_or(Errno::SRCH)?, PidfdFlags::empty())?;
    Ok(pidfd_getfd(process, descriptor, PidfdGetfdFlags::empty())?)
}

/// Of `socket:[4711]`.
pub(super) fn inode_of(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
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
        let given = Given { role: Role { name: "held".to_owned(), link }, is_end: false };
        let kept = Listeners::keep(&tree, &[given]).expect("kept");
        assert_eq!(kept.0.len(), 1, "what is given again is not kept");
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
