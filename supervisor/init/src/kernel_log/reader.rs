//! The kernel's log as it is written: what it says of kills for want of memory is kept, all else is passed over.
//!
//! `/dev/kmsg` goes on from what was read last. The last of the log in one call, as syslog(2) gives it, costs more the
//! longer the log is, for the kernel first measures every record of it, twice (`find_first_fitting_seq`).

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use nix::errno::Errno;
use nix::libc;
use tracing::warn;

use super::{CHOSEN, KILLED, task_group};

/// What is kept of the log, in bytes: some tens of kills.
const KEPT: usize = 16 * 1024;

/// The longest record in bytes (`CONSOLE_EXT_LOG_MAX`).
const RECORD: usize = 8 * 1024;

/// Groups with kills that nobody has asked for yet. Of those beyond it the kernel tells in its other way.
const GROUPS: usize = 64;

/// What the first field of a record is divided by for who wrote it: 0 is the kernel, and nobody else can be.
const FACILITY: u32 = 8;

/// The kernel's log, from the oldest record that it has.
pub struct Reader {
    /// `None` without the right to read it: then nothing is known.
    file: Option<File>,
    /// Lines about kills, the newest last, as dmesg(1) shows them.
    kept: String,
    /// Groups by their paths in which somebody was killed, since they were asked for.
    killed: BTreeSet<String>,
}

impl Reader {
    /// Before the first record.
    pub fn new() -> Self {
        let open = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg");
        let told = |error: &io::Error| {
            let is_refused =
                [libc::EPERM, libc::EACCES, libc::ENOENT].map(Some).contains(&error.raw_os_error());
            if !is_refused {
                warn!("failed to open the kernel's log, so it names nobody who is killed: {error}");
            }
        };
        Self { file: open.inspect_err(told).ok(), kept: String::new(), killed: BTreeSet::new() }
    }

    /// A descriptor that becomes readable when the log has more.
    pub fn descriptor(&self) -> Option<io::Result<OwnedFd>> {
        Some(self.file.as_ref()?.as_fd().try_clone_to_owned())
    }

    /// Read on, `most` records at most. Whether there may be more.
    pub fn read(&mut self, most: usize) -> bool {
        let mut buffer = [0_u8; RECORD];
        for _ in 0..most {
            let Some(file) = &self.file else { return false };
            match nix::unistd::read(file, &mut buffer) {
                Ok(0) => return false,
                Ok(length) => self.take(&String::from_utf8_lossy(&buffer[..length])),
                // What came next was lost before it was read, or is longer than any record: the kernel passes over it.
                Err(Errno::EPIPE | Errno::EINVAL | Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Lines about kills that were read, the newest last.
    pub fn kept(&self) -> &str {
        &self.kept
    }

    /// Paths of groups in which somebody was killed, by what was read since this was asked last.
    pub fn take_killed(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.killed)
    }

    /// `PRIORITY,NUMBER,MICROSECONDS,FLAGS[,…];TEXT`, and lines of what the record is about, which are not asked for.
    fn take(&mut self, record: &str) {
        let Some((fields, rest)) = record.split_once(';') else { return };
        let mut fields = fields.split(',');
        let priority = fields.next().and_then(|priority| priority.parse::<u32>().ok());
        let time_us = fields.nth(1).and_then(|time| time.parse::<u64>().ok());
        let text = rest.lines().next().unwrap_or_default();
        let (Some(0), Some(time_us)) = (priority.map(|priority| priority / FACILITY), time_us) else {
            return;
        };
        let is_done = text.contains(KILLED);
        if !is_done && !text.starts_with(CHOSEN) {
            return;
        }
        let text = unescaped(text);
        if is_done
            && self.killed.len() < GROUPS
            && let Some(group) = task_group(&self.kept, &text)
        {
            let group = group.to_owned();
            self.killed.insert(group);
        }
        let line = format!("[{:5}.{:06}] {text}\n", time_us / 1_000_000, time_us % 1_000_000);
        self.kept.push_str(&line);
        self.forget_oldest();
    }

    fn forget_oldest(&mut self) {
        while self.kept.len() > KEPT {
            let end = self.kept.find('\n').map_or(self.kept.len(), |end| end + 1);
            self.kept.drain(..end);
        }
    }
}

/// The kernel writes `\xNN` for what is no printable character of ASCII. What would be none in a line stays so.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\\x") {
        bytes.extend_from_slice(before.as_bytes());
        let byte = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let Some(byte) = byte.filter(|byte| !byte.is_ascii_control()) {
            bytes.push(byte);
            rest = &after[2..];
        } else {
            bytes.extend_from_slice(b"\\x");
            rest = after;
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux 6.18 gives them.
    const RECORDS: [&str; 6] = [
        "4,301,123400000,-;tail invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0\n",
        "6,302,123456790,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=a,mems_allowed=0,oom_memcg=/graph/a,task_memcg=/graph/a/x,task=t\\xc3\\xa4\\x0a\\x5c,pid=211,uid=0\n",
        "3,303,123456791,-;Memory cgroup out of memory: Killed process 211 (t\\xc3\\xa4\\x0a\\x5c) total-vm:98304kB\n",
        "14,304,123456792,-;oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/graph/b,task_memcg=/graph/b,task=x,pid=7,uid=0\n",
        "11,305,123456793,-;Memory cgroup out of memory: Killed process 7 (x) total-vm:1kB\n",
        "6,306,123456794,-;eth0: link is up\n SUBSYSTEM=net\n DEVICE=n2\n",
    ];

    fn reader() -> Reader {
        Reader { file: None, kept: String::new(), killed: BTreeSet::new() }
    }

    #[test]
    fn what_the_kernel_says_of_kills_is_kept() {
        let mut reader = reader();
        for record in &RECORDS[..2] {
            reader.take(record);
        }
        assert!(reader.take_killed().is_empty(), "it is chosen, and not yet killed");
        for record in &RECORDS[2..] {
            reader.take(record);
        }
        let lines: Vec<_> = reader.kept().lines().collect();
        assert_eq!(lines.len(), 2, "what was not said by the kernel is not believed: {lines:?}");
        assert!(lines[0].starts_with("[  123.456790] oom-kill:constraint=CONSTRAINT_MEMCG,"), "{lines:?}");
        let found = super::super::kills(reader.kept(), "graph/a", 5, None);
        let [kill] = &found[..] else { panic!("{found:?}") };
        assert_eq!((kill.victim.pid, &*kill.victim.name), (211, "tä\\\\x0a\\\\"));
        assert_eq!(kill.time_us, Some(123_456_790));
        assert_eq!(reader.take_killed().into_iter().collect::<Vec<_>>(), ["/graph/a/x"]);
        assert!(reader.take_killed().is_empty());
    }

    #[test]
    fn what_is_no_record_is_passed_over() {
        let mut reader = reader();
        let odd = ["", ";", "6,1", "6,1,x,-;oom-kill:constraint=", "x,1,1,-;oom-kill:constraint=", " A=b\n"];
        for record in odd {
            reader.take(record);
        }
        assert_eq!(reader.kept(), "");
        reader.take("3,1,1,-;Out of memory: Killed process ");
        assert!(reader.take_killed().is_empty());
        for text in ["a\\", "a\\x", "a\\xg0", "a\\x0a", "\\xä"] {
            assert_eq!(unescaped(text), text);
        }
    }

    #[test]
    fn no_more_is_kept_than_is_needed() {
        let mut reader = reader();
        for number in 0..1000_u64 {
            for record in &RECORDS[1..3] {
                let number = number.to_string();
                reader.take(&record.replace("211", &number).replace("/a/x", &format!("/a/{number}")));
            }
            assert!(reader.kept().len() <= KEPT);
        }
        assert!(reader.kept().starts_with('[') && reader.kept().contains("pid=999,"));
        assert_eq!(reader.take_killed().len(), GROUPS);
    }
}
