//! What process 1 has the kernel tell of files, by `/proc/1/fdinfo` (proc_pid_fdinfo(5), inotify entries).

use std::collections::HashMap;
use std::fs;
use std::os::linux::fs::MetadataExt as _;
use std::path::Path;

use yakiros_guest::ledger::{Descriptor, DescriptorKind, Watch};

use super::{GROUPS, lines};

/// Files of a control group that tell of what happens in it.
const FILES: [&str; 3] = ["cgroup.events", "memory.events", "pids.events"];
/// Where the kernel's own numbers of devices have the major number (`MINORBITS` of `include/linux/kdev_t.h`).
const MINOR_BITS: u32 = 20;

/// All watches, in the order of descriptors. A file of a control group is told by its path as long as it is there.
pub fn all(descriptors: &[Descriptor], groups: &[String]) -> Vec<Watch> {
    let inotify = descriptors.iter().filter(|one| one.kind == DescriptorKind::Inotify);
    let found: Vec<(u64, u64)> = inotify
        .flat_map(|one| lines(&format!("/proc/1/fdinfo/{}", one.number)))
        .filter_map(|line| watched(&line))
        .collect();
    let Some(device) = fs::metadata(GROUPS).ok().map(|root| root.st_dev()) else { return Vec::new() };
    let names: HashMap<u64, String> = groups.iter().flat_map(|group| files(group)).collect();
    found
        .into_iter()
        .map(|(inode, of)| Watch {
            of_groups: of == device,
            file: names.get(&inode).filter(|_| of == device).cloned(),
        })
        .collect()
}

/// The files of a group by inode.
fn files(group: &str) -> impl Iterator<Item = (u64, String)> {
    FILES.into_iter().filter_map(move |file| {
        let inode = fs::metadata(Path::new(GROUPS).join(group).join(file)).ok()?.st_ino();
        Some((inode, format!("{group}/{file}")))
    })
}

/// The inode and the device of `inotify wd:1 ino:1f sdev:1a mask:2 …`, in hexadecimal.
fn watched(line: &str) -> Option<(u64, u64)> {
    let fields = line.strip_prefix("inotify ")?;
    let field = |name: &str| {
        let value = fields.split_whitespace().find_map(|field| field.strip_prefix(name))?;
        u64::from_str_radix(value, 16).ok()
    };
    let device = field("sdev:")?;
    let (major, minor) = (device >> MINOR_BITS, device & ((1 << MINOR_BITS) - 1));
    Some((field("ino:")?, nix::sys::stat::makedev(major, minor)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_of_an_inode_and_a_device() {
        let line = "inotify wd:3 ino:1f4 sdev:1a mask:2 ignored_mask:0 fhandle-bytes:8 fhandle-type:fe f_handle:f401";
        assert_eq!(watched(line), Some((0x1f4, 0x1a)));
        assert_eq!(watched("inotify wd:1 ino:2 sdev:800010 mask:2"), Some((2, 0x810)));
        assert_eq!(watched("pos:\t0"), None);
    }
}
