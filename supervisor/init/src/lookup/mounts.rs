//! Which kind of file system a path lies on, told by the kernel's table of mounts alone: asking the file system itself
//! may take for ever.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The table, as proc(5) describes it.
const TABLE: &str = "/proc/self/mountinfo";

/// The most bytes of it that are read: some five thousand mounts. Beyond that nothing is known.
const TABLE_LIMIT: u64 = 1024 * 1024;

/// How far a file system can be trusted to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Everything is in memory: no question waits.
    Memory,
    /// On a disk of this machine: what the kernel holds of it in memory is all there is to know.
    Disk,
}

/// File systems that are trusted. Any other, above all those of the network and of FUSE, may wait for somebody.
const TRUSTED: &[(&str, Kind)] = &[
    ("rootfs", Kind::Memory),
    ("tmpfs", Kind::Memory),
    ("ramfs", Kind::Memory),
    ("devtmpfs", Kind::Memory),
    ("sysfs", Kind::Memory),
    ("cgroup2", Kind::Memory),
    ("ext2", Kind::Disk),
    ("ext3", Kind::Disk),
    ("ext4", Kind::Disk),
    ("xfs", Kind::Disk),
    ("btrfs", Kind::Disk),
    ("f2fs", Kind::Disk),
    ("erofs", Kind::Disk),
    ("squashfs", Kind::Disk),
    ("vfat", Kind::Disk),
];

/// One line of the table.
#[derive(Debug)]
struct Mount {
    id: u32,
    /// The mount that it lies in, or on.
    parent: u32,
    point: PathBuf,
    /// `None` for one that is not trusted.
    kind: Option<Kind>,
}

/// The table of mounts, read again when it has changed.
#[derive(Debug, Default)]
pub struct Mounts {
    /// Open for as long as it is in use: the kernel tells its readers of changes.
    table: Option<File>,
    mounts: Vec<Mount>,
}

impl Mounts {
    /// The mount point that a walk along `path` ends below, and what is mounted there; `None` if that is not known or
    /// not trusted. `path` is absolute, without `..`, and no link is on the way.
    pub fn of(&mut self, path: &Path) -> Option<(&Path, Kind)> {
        self.refresh();
        let mount = last_on_the_way(&self.mounts, path)?;
        Some((&mount.point, mount.kind?))
    }

    fn refresh(&mut self) {
        let changed = match &self.table {
            None => {
                self.table = File::open(TABLE).ok();
                self.table.is_some()
            }
            Some(table) => {
                let mut fds = [PollFd::new(table.as_fd(), PollFlags::POLLPRI)];
                poll(&mut fds, PollTimeout::ZERO) != Ok(0)
            }
        };
        if changed && let Some(table) = &mut self.table {
            let mut bytes = Vec::new();
            let read = table.rewind().and_then(|()| table.take(TABLE_LIMIT).read_to_end(&mut bytes));
            let whole = read.is_ok_and(|count| (count as u64) < TABLE_LIMIT);
            self.mounts = if whole {
                bytes.split(|byte| *byte == b'\n').filter_map(mount).collect()
            } else {
                Vec::new()
            };
        }
    }
}

/// The mount in which a walk ends: from the root, into each mount that lies on the way.
fn last_on_the_way<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let on_the_way = |mount: &&Mount| path.starts_with(&mount.point);
    let known = |id: u32| mounts.iter().any(|mount| mount.id == id);
    let mut here = mounts.iter().find(|mount| mount.point == Path::new("/") && !known(mount.parent))?;
    // Each is entered once.
    for _ in 0..mounts.len() {
        let inside = mounts.iter().filter(|mount| mount.parent == here.id && mount.id != here.id);
        let next = inside.filter(on_the_way).min_by_key(|mount| mount.point.as_os_str().len());
        match next {
            Some(next) => here = next,
            None => return Some(here),
        }
    }
    None
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok();
    let (id, parent) = (number(fields.next()?)?, number(fields.next()?)?);
    let point = unescape(fields.nth(2)?);
    let name = fields.skip_while(|field| *field != b"-").nth(1)?;
    let kind = TRUSTED.iter().find(|(trusted, _)| trusted.as_bytes() == name).map(|(_, kind)| *kind);
    Some(Mount { id, parent, point, kind })
}

/// The kernel writes a blank as `\040`, and so tab, newline and backslash.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\');
        let number = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = number.and_then(|number| u8::from_str_radix(number, 8).ok()) {
            bytes.push(byte);
            rest = &after[3..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "\
1 0 0:1 / / rw - rootfs none rw
20 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
21 20 0:5 / /run rw - tmpfs tmpfs rw
22 20 0:6 / /mnt/far\\040off rw - nfs4 host:/x rw
23 22 0:7 / /mnt/far\\040off/near rw - tmpfs tmpfs rw
24 21 0:8 / /run/a/b rw - tmpfs tmpfs rw
25 21 0:9 / /run/a rw - fuse.sshfs host: rw
26 20 0:10 / /odd rw - tmpfs tmpfs rw
27 26 0:11 / /odd rw - 9p host rw
";

    #[test]
    fn a_walk_ends_in_the_mount_that_hides_the_others() {
        let mounts: Vec<_> = LINES.as_bytes().split(|byte| *byte == b'\n').filter_map(mount).collect();
        assert_eq!(mounts.len(), 9);
        for (path, point, kind) in [
            ("/etc/x", "/", Some(Kind::Disk)),
            ("/run/x", "/run", Some(Kind::Memory)),
            ("/runner", "/", Some(Kind::Disk)),
            ("/mnt/far off", "/mnt/far off", None),
            ("/mnt/far off/x", "/mnt/far off", None),
            ("/mnt/far off/near/x", "/mnt/far off/near", Some(Kind::Memory)),
            // What was mounted later hides what lies below it.
            ("/run/a/b/x", "/run/a", None),
            ("/odd/x", "/odd", None),
        ] {
            let found = last_on_the_way(&mounts, Path::new(path)).expect("a mount");
            assert_eq!((found.point.as_path(), found.kind), (Path::new(point), kind), "{path}");
        }
    }

    #[test]
    fn this_machine_has_a_table() {
        let mut mounts = Mounts::default();
        mounts.refresh();
        assert!(last_on_the_way(&mounts.mounts, Path::new("/")).is_some(), "{mounts:?}");
        assert_eq!(mounts.of(Path::new("/proc/self")).map(|(_, kind)| kind), None, "proc is not trusted");
    }
}
