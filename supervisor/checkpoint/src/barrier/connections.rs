//! What processes are connected with.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use super::inode_of;

/// Most connections of one: a hundred thousand take the kernel twenty megabytes.
const PAIRS_LIMIT: usize = 100_000;
/// The largest file that is read, in bytes: as many, each with two addresses.
const FILE_LIMIT: u64 = 16 << 20;
/// Most bytes of the kernel's table of sockets: some hundred thousand.
const TABLE_LIMIT: u64 = 64 << 20;
/// Where the kernel tells of this process.
const OWN: &str = "/proc/self";
/// Write permission of the group or of others.
const OTHERS_WRITE: u32 = 0o022;
/// States of a socket in the kernel's table: nothing yet, or not any more; and one that listens.
const CLOSED: &str = "07";
const LISTENS: &str = "0A";
/// Columns of that table.
const LOCAL: usize = 1;
const REMOTE: usize = 2;
const STATE: usize = 3;
const INODE: usize = 9;

/// Of some processes: what they are connected with, and where they listen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// Their ends, and the others' (which may be theirs as well).
    pub pairs: BTreeSet<(SocketAddr, SocketAddr)>,
    /// Where they listen. It is not written down: below the next kernel nobody has to wait there.
    #[serde(skip)]
    pub listeners: BTreeSet<SocketAddr>,
    /// How many ends they have in network namespaces of their own, where nothing is closed: what has both ends there is
    /// written down in one go.
    #[serde(skip)]
    pub elsewhere: usize,
}

impl Connections {
    /// Those of these processes, by TCP, in this process's network namespace, and how many there are in others. What has
    /// ended has none.
    ///
    /// # Errors
    /// Those of reading the kernel's tables, and more connections than are kept.
    pub fn of(pids: impl IntoIterator<Item = i32>) -> io::Result<Self> {
        let own = fs::read_link("/proc/self/ns/net")?;
        let mut networks: BTreeMap<PathBuf, Network> = BTreeMap::new();
        for pid in pids {
            let folder = Path::new("/proc").join(pid.to_string());
            let Ok(network) = fs::read_link(folder.join("ns/net")) else { continue };
            // What is read of this one does not go with any of them.
            let of = if network == own { OWN.into() } else { folder.clone() };
            let network = networks.entry(network).or_insert_with(|| Network { of, inodes: BTreeSet::new() });
            for descriptor in fs::read_dir(folder.join("fd")).into_iter().flatten().flatten() {
                let link = fs::read_link(descriptor.path()).unwrap_or_default();
                network.inodes.extend(link.to_str().and_then(inode_of));
            }
        }
        let mut found = Self::default();
        for (name, network) in networks {
            let mut here = Self::default();
            // That of others is gone with them.
            let read = network.add_to(&mut here);
            if name == own {
                read?;
                found = Self { elsewhere: found.elsewhere, ..here };
            } else {
                found.elsewhere = found.elsewhere.saturating_add(here.pairs.len());
            }
        }
        if found.pairs.len() > PAIRS_LIMIT {
            return Err(io::Error::other(format!("there are more than {PAIRS_LIMIT} connections")));
        }
        Ok(found)
    }

    /// What there is beyond those.
    pub(super) fn beyond(&self, others: &Self) -> Self {
        Self {
            pairs: self.pairs.difference(&others.pairs).copied().collect(),
            listeners: self.listeners.difference(&others.listeners).copied().collect(),
            elsewhere: 0,
        }
    }

    /// These as well.
    pub fn extend(&mut self, others: Self) {
        self.pairs.extend(others.pairs);
        self.listeners.extend(others.listeners);
        self.elsewhere = self.elsewhere.max(others.elsewhere);
    }

    /// What a table of the kernel's says of the sockets with these inodes.
    fn add(&mut self, table: &str, inodes: &BTreeSet<u64>) {
        for line in table.lines().skip(1) {
            let words: Vec<_> = line.split_whitespace().collect();
            let word = |at: usize| words.get(at).copied().unwrap_or_default();
            if !word(INODE).parse().is_ok_and(|inode| inodes.contains(&inode)) {
                continue;
            }
            let (Some(local), Some(remote)) = (address(word(LOCAL)), address(word(REMOTE))) else { continue };
            match word(STATE) {
                CLOSED => {}
                LISTENS => drop(self.listeners.insert(local)),
                _ => drop(self.pairs.insert((local, remote))),
            }
        }
    }

    /// As it is written down.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Read what was written down. It has to be this user's own, with nobody else allowed to write to it.
    ///
    /// # Errors
    /// Those of reading it, and what is wrong with it.
    pub fn read(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let status = file.metadata()?;
        if !status.is_file() || status.uid() != geteuid().as_raw() || status.mode() & OTHERS_WRITE != 0 {
            return Err(io::Error::other("it is not this user's own file, or others may write to it"));
        }
        let mut bytes = Vec::new();
        file.take(FILE_LIMIT).read_to_end(&mut bytes)?;
        let read: Self = serde_json::from_slice(&bytes)?;
        if read.pairs.len() > PAIRS_LIMIT {
            return Err(io::Error::other(format!("it has more than {PAIRS_LIMIT} connections")));
        }
        Ok(read)
    }
}

/// Processes that have the same network.
struct Network {
    /// Where the kernel tells of a process that has it.
    of: PathBuf,
    /// Their sockets.
    inodes: BTreeSet<u64>,
}

impl Network {
    fn add_to(&self, found: &mut Connections) -> io::Result<()> {
        for name in ["tcp", "tcp6"] {
            let mut table = String::new();
            match File::open(self.of.join("net").join(name)) {
                Ok(file) => drop(file.take(TABLE_LIMIT).read_to_string(&mut table)?),
                // A kernel without IPv6.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            found.add(&table, &self.inodes);
        }
        Ok(())
    }
}

/// Of `0100007F:1F90`: the address as it lies in memory, in numbers of four bytes. IPv4 may be written as IPv6.
pub(super) fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::new();
    for at in (0..address.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    let address: IpAddr = match bytes.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
        16 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(address.to_canonical(), port))
}
