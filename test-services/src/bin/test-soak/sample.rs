//! What process 1 and the machine have at one moment, by the kernel's own accounts.
//!
//! A number that the kernel does not tell is missing from the sample: it is not 0.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Numbers by their names. KiB where the name ends in `_kib`, counts elsewhere.
pub type Sample = BTreeMap<&'static str, i64>;

/// `/proc/1/smaps_rollup`: resident memory is exact there, unlike in `status`.
const ROLLUP: [(&str, &str); 3] =
    [("Rss:", "pid1_resident_kib"), ("Pss:", "pid1_share_kib"), ("Anonymous:", "pid1_anonymous_kib")];
/// `/proc/1/status`.
const STATUS: [(&str, &str); 3] =
    [("VmData:", "pid1_data_kib"), ("VmPTE:", "pid1_page_tables_kib"), ("Threads:", "pid1_threads")];
/// `/proc/meminfo`.
const MEMORY: [(&str, &str); 9] = [
    ("MemAvailable:", "guest_available_kib"),
    ("AnonPages:", "guest_anonymous_kib"),
    ("Shmem:", "guest_shared_kib"),
    ("Slab:", "guest_slab_kib"),
    ("SUnreclaim:", "guest_slab_kept_kib"),
    ("KernelStack:", "guest_kernel_stacks_kib"),
    ("PageTables:", "guest_page_tables_kib"),
    ("Percpu:", "guest_percpu_kib"),
    ("VmallocUsed:", "guest_vmalloc_kib"),
];
/// What descriptors of process 1 are, by what their links begin with.
const DESCRIPTORS: [(&str, &str); 7] = [
    ("socket:", "pid1_sockets"),
    ("pipe:", "pid1_pipes"),
    ("anon_inode:[pidfd]", "pid1_pidfds"),
    ("anon_inode:[timerfd]", "pid1_timers"),
    ("anon_inode:[eventpoll]", "pid1_polls"),
    ("anon_inode:inotify", "pid1_watches"),
    ("/memfd:", "pid1_memory_files"),
];
const CGROUPS: &str = "/sys/fs/cgroup/cgroup.stat";
/// What the supervisor keeps in files: logs, sockets, checkpoints.
const STATE: [&str; 2] = ["/run/graph", "/var/lib/graph"];
/// Folders deeper than this are not the supervisor's.
const DEPTH: u32 = 8;

/// The kernel's release.
pub fn kernel() -> String {
    read("/proc/sys/kernel/osrelease").trim().to_owned()
}

/// Looks at everything.
pub fn take() -> Sample {
    let mut sample = Sample::new();
    for (text, keys) in [
        (read("/proc/1/smaps_rollup"), &ROLLUP[..]),
        (read("/proc/1/status"), &STATUS[..]),
        (read("/proc/meminfo"), &MEMORY[..]),
        (read(CGROUPS), &[("nr_descendants ", "cgroups"), ("nr_dying_descendants ", "cgroups_dying")][..]),
        (read("/proc/net/sockstat"), &[("sockets: used ", "sockets"), ("TCP: inuse ", "sockets_tcp")][..]),
        (read("/proc/sys/fs/file-nr"), &[("", "files")][..]),
        (read("/proc/sys/fs/inode-nr"), &[("", "inodes")][..]),
    ] {
        for (key, name) in keys {
            sample.extend(number(&text, key).map(|number| (*name, number)));
        }
    }
    let on_processor = number(&read("/proc/1/schedstat"), "");
    sample.extend(on_processor.map(|nanoseconds| ("pid1_processor_us", nanoseconds / 1000)));
    sample.insert("mounts", read("/proc/self/mounts").lines().count() as i64);
    descriptors(&mut sample);
    processes(&mut sample);
    let (mut files, mut bytes) = (0, 0);
    for folder in STATE {
        count(Path::new(folder), 0, &mut files, &mut bytes);
    }
    sample.insert("state_files", files);
    sample.insert("state_kib", bytes / 1024);
    sample
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The number that follows a key at the beginning of a line.
fn number(text: &str, key: &str) -> Option<i64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn descriptors(sample: &mut Sample) {
    let Ok(entries) = fs::read_dir("/proc/1/fd") else { return };
    let links: Vec<String> = entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .map(|link| link.to_string_lossy().into_owned())
        .collect();
    sample.insert("pid1_descriptors", links.len() as i64);
    for (prefix, name) in DESCRIPTORS {
        sample.insert(name, links.iter().filter(|link| link.starts_with(prefix)).count() as i64);
    }
}

fn processes(sample: &mut Sample) {
    let Ok(entries) = fs::read_dir("/proc") else { return };
    let (mut processes, mut threads, mut zombies) = (0, 0, 0);
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(|first: char| first.is_ascii_digit()) {
            continue;
        }
        // One that has just ended is missing.
        let Ok(text) = fs::read_to_string(entry.path().join("status")) else { continue };
        // The kernel's own threads have no memory; how many of them idle is its own affair.
        if !text.contains("VmSize:") {
            zombies += i64::from(text.contains("\nState:\tZ"));
            continue;
        }
        processes += 1;
        threads += number(&text, "Threads:").unwrap_or(0);
    }
    sample.insert("processes", processes);
    sample.insert("threads", threads);
    sample.insert("zombies", zombies);
}

fn count(folder: &Path, depth: u32, files: &mut i64, bytes: &mut i64) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Ok(found) = entry.metadata() else { continue };
        if found.is_dir() && depth < DEPTH {
            count(&entry.path(), depth + 1, files, bytes);
        } else if found.is_file() {
            *files += 1;
            *bytes += found.len() as i64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_their_keys() {
        assert_eq!(number("Rss:    1132 kB\nPss: 7 kB\n", "Pss:"), Some(7));
        assert_eq!(number("1234\t0\t999\n", ""), Some(1234));
        assert_eq!(number("Rss: many\n", "Rss:"), None);
        assert_eq!(number("", "Rss:"), None);
    }

    #[test]
    fn a_sample_of_this_machine_has_what_every_machine_has() {
        let sample = take();
        for name in ["guest_available_kib", "files", "inodes", "sockets", "processes", "mounts"] {
            assert!(sample.get(name).is_some_and(|number| *number > 0), "{name}: {sample:?}");
        }
        assert!(sample["threads"] >= sample["processes"], "{sample:?}");
    }
}
