//! Gives mounts the options back that CRIU loses. Of what it takes from the machine and finds inside of another mount of the
//! same file system with the same options, it sets none (`do_bind_mount_v2` of CRIU 4.2): a directory that is mounted
//! read-only within one that is read-only could be written to.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::{io, thread};

use rustix::mount::{MountFlags, mount_remount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::preflight::{Isolation, Seen};

/// Options of a mount, as `mountinfo` calls them. Without any of those about times these are set whenever a file is read.
const OPTIONS: [(&str, MountFlags); 7] = [
    ("ro", MountFlags::RDONLY),
    ("nosuid", MountFlags::NOSUID),
    ("nodev", MountFlags::NODEV),
    ("noexec", MountFlags::NOEXEC),
    ("noatime", MountFlags::NOATIME),
    ("nodiratime", MountFlags::NODIRATIME),
    ("relatime", MountFlags::RELATIME),
];
/// That of times that is said by none.
const STRICT: MountFlags = MountFlags::STRICTATIME;
const OF_TIMES: MountFlags = MountFlags::NOATIME.union(MountFlags::RELATIME);

/// Give what is mounted for this process, which does not run yet, the options that are wanted, where all else is as wanted.
pub(super) fn give_back(pid: i32, wanted: &Isolation, now: &Isolation) -> io::Result<()> {
    let is_other = |was: &Seen, is: &Seen| was != is && (&was.kind, &was.root) == (&is.kind, &is.root);
    let pairs = wanted.mounts.iter().filter_map(|(path, was)| Some((path, was, now.mounts.get(path)?)));
    let lost = pairs.filter(|(_, was, is)| is_other(was, is));
    let lost: Vec<(PathBuf, MountFlags)> =
        lost.map(|(path, was, _)| (Seen::path(path), flags(&was.options))).collect();
    if lost.is_empty() {
        return Ok(());
    }
    let namespace = File::open(Path::new("/proc").join(pid.to_string()).join("ns/mnt"))?;
    // Only a thread of its own can be elsewhere than the others.
    let work = || {
        // SAFETY: it is this thread's view of the file system that is no longer that of the others.
        unsafe { unshare_unsafe(UnshareFlags::FS) }?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
        lost.iter().try_for_each(|(path, flags)| Ok(mount_remount(path, MountFlags::BIND | *flags, "")?))
    };
    thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|_| Err(io::Error::other("the thread for it has failed")))
}

fn flags(options: &str) -> MountFlags {
    let known = options.split(',').filter_map(|word| OPTIONS.iter().find(|(name, _)| *name == word));
    let flags = known.fold(MountFlags::empty(), |all, (_, flag)| all | *flag);
    if flags.intersects(OF_TIMES) { flags } else { flags | STRICT }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_those_of_the_mount() {
        let expected = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::RELATIME;
        assert_eq!(flags("nosuid,relatime,ro,size=4k"), expected);
        assert_eq!(flags("rw"), STRICT);
    }

    #[test]
    fn where_nothing_is_lost_nothing_is_done() {
        give_back(i32::MAX, &Isolation::default(), &Isolation::default())
            .expect("no such process is looked for");
    }
}
