//! The kernel's books on processes, in `/proc`.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::Serialize;

/// Memory of processes in KiB, as `smaps_rollup` counts it.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Memory {
    /// Proportional set size: what is shared counts by its share.
    pub pss: u64,
    /// The part of it that belongs to no file: heap, stack, written data.
    pub anonymous: u64,
    /// The part of it that is of files: program text and read-only data.
    pub file: u64,
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Time on a processor, in nanoseconds.
    pub cpu: u64,
    /// How often it gave its processor up or lost it: one more each time it was woken.
    pub switches: u64,
}

/// The memory of one process.
pub fn memory(pid: i32) -> io::Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    Ok(Memory {
        pss: number(&text, "Pss:"),
        anonymous: number(&text, "Pss_Anon:"),
        file: number(&text, "Pss_File:") + number(&text, "Pss_Shmem:"),
    })
}

/// What one process has used.
pub fn usage(pid: i32) -> io::Result<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let times = fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    let cpu = times.split_whitespace().next().and_then(|text| text.parse().ok());
    Ok(Usage {
        cpu: cpu.unwrap_or(0),
        switches: number(&status, "\nvoluntary_ctxt_switches:")
            + number(&status, "nonvoluntary_ctxt_switches:"),
    })
}

/// Whether a process is in the namespace whose process 1 is `first`.
pub fn is_inside(pid: i32, first: i32) -> bool {
    matches!((namespace(pid), namespace(first)), (Ok(own), Ok(other)) if own == other)
}

/// The processes of the namespace whose process 1 is `pid`: those with the name `name`, and all others.
pub fn inhabitants(pid: i32, name: &str) -> io::Result<(Vec<i32>, Vec<i32>)> {
    let own = namespace(pid)?;
    let (mut named, mut others) = (Vec::new(), Vec::new());
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(other) = entry.file_name().to_str().and_then(|text| text.parse().ok()) else { continue };
        if !namespace(other).is_ok_and(|namespace| namespace == own) {
            continue;
        }
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        // A link that is executed gives its own name.
        let is_named = comm.trim() == name || comm.trim() == "run";
        if is_named { named.push(other) } else { others.push(other) }
    }
    Ok((named, others))
}

/// What tells a namespace of process numbers from all others.
fn namespace(pid: i32) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid"))
}

/// The number after a key.
fn number(text: &str, key: &str) -> u64 {
    let rest = text.find(key).map(|at| &text[at + key.len()..]);
    rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn keys_are_not_mistaken_for_each_other() {
        let text = "x:\t1\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t3\nPss:   12 kB\nPss_Anon: 5 kB\n";
        assert_eq!(number(text, "\nvoluntary_ctxt_switches:"), 7);
        assert_eq!(number(text, "nonvoluntary_ctxt_switches:"), 3);
        assert_eq!((number(text, "Pss:"), number(text, "Pss_Anon:"), number(text, "None:")), (12, 5, 0));
    }
}
