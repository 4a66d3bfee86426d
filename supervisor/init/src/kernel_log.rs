//! Who was killed for want of memory, and for whose limit, by the kernel's log: nothing else tells.
//!
//! It is read as it is written. Without the right to (`CAP_SYSLOG`) nothing is known.

mod reader;

use std::rc::Rc;

use serde::{Deserialize, Serialize};
use yakiros_core::component::slice;
use yakiros_core::journal::Victim;

pub use reader::Reader;

/// What a line begins with that says who is to be killed (`dump_oom_victim` in `mm/oom_kill.c`).
const CHOSEN: &str = "oom-kill:constraint=";

/// What a line has before the number of a process that is killed (`__oom_kill_process`).
const KILLED: &str = "Killed process ";

/// One kill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// Who.
    pub victim: Victim,
    /// Where there was no room, if that was not the group that is asked about.
    pub scope: Option<Scope>,
    /// When, in microseconds since the kernel began; `None` if its log has no times.
    pub time_us: Option<u64>,
}

/// Where there was no room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A slice that the group lies in, by the end of its group's path.
    Slice(Rc<str>),
    /// A group inside of the one that is asked about, by its path.
    Inner(Rc<str>),
    /// Another group, by its path.
    Group(Rc<str>),
    /// The nodes of memory that it may use.
    Nodes,
    /// The machine.
    Machine,
}

impl Scope {
    /// The group with the path `full`, where `group` was at its end.
    fn of(full: &str, group: &str) -> Self {
        let around = slice::path_to(group).filter(|around| slice::is_slice(around));
        match around.filter(|around| ends_with(full, around)).last() {
            Some(slice) => Self::Slice(slice.into()),
            None if is_within(full, group) => Self::Inner(full.into()),
            None => Self::Group(full.into()),
        }
    }
}

/// The newest kill that was told of a group: where the log has it, what stands before it was told, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pid: i32,
    time_us: Option<u64>,
}

impl Kill {
    /// What is known of it once it is told.
    pub fn told(&self) -> Told {
        Told { pid: self.victim.pid, time_us: self.time_us }
    }

    /// Whether it was told, or is older: by its time, or without times by who it was. What stands before it in the log is
    /// not looked at then.
    fn is_told(&self, told: &Told) -> bool {
        match (self.time_us, told.time_us) {
            (Some(own), Some(told)) => own <= told,
            _ => self.victim.pid == told.pid,
        }
    }
}

/// The last kills in the group whose path ends with `group`, or inside of it, the newest first; no more than `count`, and
/// none that was told before. The kernel does not write of each kill (`oom_rs` in `oom_kill_process`), so that the last it
/// wrote of may be one of those. It writes who is to be killed, counts it, and then writes that it is: where there are
/// more than were counted, one of which the last is not written yet is the next count's.
pub fn kills(log: &str, group: &str, count: u64, told: Option<&Told>) -> Vec<Kill> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let lines = log.lines().rev().filter_map(|line| line.split_once(CHOSEN));
    let kills = lines.filter_map(|(before, fields)| kill(fields, group, time_us(before)));
    let mut new: Vec<_> = kills.take_while(|kill| told.is_none_or(|told| !kill.is_told(told))).collect();
    while new.len() > count && new.first().is_some_and(|newest| !is_done(log, newest)) {
        new.remove(0);
    }
    new.truncate(count);
    new
}

/// Whether the log has the last line of a kill: `Killed process NUMBER (NAME) …` (`__oom_kill_process`).
fn is_done(log: &str, kill: &Kill) -> bool {
    let done = format!("{KILLED}{} (", kill.victim.pid);
    log.lines().rev().any(|line| line.contains(&done))
}

/// `CONSTRAINT_…,nodemask=…,…,oom_memcg=PATH,task_memcg=PATH,task=NAME,pid=NUMBER,uid=NUMBER`, or `global_oom` in place of
/// the group without room (`dump_oom_victim` in `mm/oom_kill.c`, `mem_cgroup_print_oom_context`). The name is the process's
/// own word, so what comes after it is looked for from the end.
fn kill(fields: &str, group: &str, time_us: Option<u64>) -> Option<Kill> {
    let (before, pid) = fields.rsplit_once(",pid=")?;
    let pid = pid.split(',').next()?.parse().ok()?;
    let (before, name) = before.split_once(",task=")?;
    let (before, inside) = before.split_once(",task_memcg=")?;
    if !is_within(inside, group) {
        return None;
    }
    let scope = match (before.split_once(",oom_memcg="), before.split(',').next()) {
        (Some((_, full)), _) if ends_with(full, group) => None,
        (Some((_, full)), _) => Some(Scope::of(full, group)),
        (None, Some("CONSTRAINT_CPUSET" | "CONSTRAINT_MEMORY_POLICY")) => Some(Scope::Nodes),
        (None, _) => Some(Scope::Machine),
    };
    let name = name.chars().flat_map(char::escape_debug).collect::<String>().into();
    Some(Kill { victim: Victim { pid, name }, scope, time_us })
}

/// The time of a line by what it begins with: `<LEVEL>[SECONDS.MICROSECONDS]`, the seconds padded with spaces and always
/// six digits after them (`print_time` in `kernel/printk/printk.c`).
fn time_us(prefix: &str) -> Option<u64> {
    let (_, time) = prefix.split_once('[')?;
    let (seconds, rest) = time.split_once(']')?.0.split_once('.')?;
    let seconds: u64 = seconds.trim_start().parse().ok()?;
    seconds.checked_mul(1_000_000)?.checked_add(rest.parse().ok()?)
}

/// The group of the process that the line `done` says is killed, by the line in which that was chosen.
fn task_group<'a>(log: &'a str, done: &str) -> Option<&'a str> {
    let pid = done.split_once(KILLED)?.1.split(' ').next()?;
    let chosen = format!(",pid={pid},uid=");
    let mut lines = log.lines().rev().filter(|line| line.contains(CHOSEN));
    let line = lines.find(|line| line.contains(&chosen))?;
    Some(line.split_once(",task_memcg=")?.1.split_once(",task=")?.0)
}

/// Whether `path` is a group that ends with `group`, or one inside of such a group.
pub fn is_within(path: &str, group: &str) -> bool {
    ends_with(path, group) || path.contains(&format!("/{group}/"))
}

fn ends_with(path: &str, group: &str) -> bool {
    path.strip_suffix(group).is_some_and(|rest| rest.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux 6.12 writes it, without what stands between.
    const LOG: &str = "\
<4>[  123.400000] hog invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0
<6>[  123.456789] memory: usage 65536kB, limit 65536kB, failcnt 24
<6>[  123.456790] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=hog,mems_allowed=0,oom_memcg=/graph/hog,task_memcg=/graph/hog,task=test-hog,pid=211,uid=0
<3>[  123.456791] Memory cgroup out of memory: Killed process 211 (test-hog) total-vm:98304kB, anon-rss:64512kB
<6>[  124.000000] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/graph/web.slice,task_memcg=/graph/web.slice/shop,task=a,pid=1,uid=0,pid=300,uid=1000
<3>[  124.000001] Memory cgroup out of memory: Killed process 300 (a,pid=1,uid=0) total-vm:8kB, anon-rss:4kB
<6>[  125.000000] oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/graph/hog/inner,task=sh,pid=400,uid=0
<3>[  125.000001] Out of memory: Killed process 400 (sh) total-vm:8kB, anon-rss:4kB
";

    fn named(kill: &Kill) -> (i32, &str, Option<Scope>) {
        (kill.victim.pid, &kill.victim.name, kill.scope.clone())
    }

    #[test]
    fn the_victims_of_a_group_are_found_the_newest_first() {
        let all = kills(LOG, "graph/hog", 5, None);
        let expected = [(400, "sh", Some(Scope::Machine)), (211, "test-hog", None)];
        assert_eq!(all.iter().map(named).collect::<Vec<_>>(), expected);
        assert_eq!(kills(LOG, "graph/hog", 1, None).iter().map(named).collect::<Vec<_>>(), expected[..1]);
        for other in ["graph/hog2", "graph/og", "graph/shop", "graph/inner"] {
            assert_eq!(kills(LOG, other, 5, None), [], "{other}");
        }
    }

    #[test]
    fn what_is_as_old_as_a_kill_that_was_told_is_not_told_again() {
        let at = |pid, time_us| Told { pid, time_us: Some(time_us) };
        let newest = |told: Option<Told>| {
            let found = kills(LOG, "graph/hog", 1, told.as_ref());
            found.first().map(|kill| (kill.victim.pid, kill.time_us))
        };
        assert_eq!(newest(Some(at(211, 123_456_790))), Some((400, Some(125_000_000))));
        assert_eq!(kills(LOG, "graph/hog", 5, Some(&at(211, 123_456_790))).len(), 1);
        assert_eq!(newest(Some(at(400, 125_000_000))), None);
    }

    /// Two kills one after the other, as far as the kernel has come with the second: each is told with its own count.
    #[test]
    fn a_kill_soon_after_another_is_told_with_its_own_count() {
        let chosen = |second: u32, pid: u32| {
            format!(
                "<6>[    {second}.0] oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/graph/a,task_memcg=/graph/a,task=b,pid={pid},uid=0\n"
            )
        };
        let done = |second: u32, pid: u32| {
            format!(
                "<3>[    {second}.1] Memory cgroup out of memory: Killed process {pid} (b) total-vm:1kB\n"
            )
        };
        let timeless = |log: &str| {
            let lines = log.lines().map(|line| line.split_once("] ").map_or(line, |(_, rest)| rest));
            lines.flat_map(|line| ["<6>", line, "\n"]).collect::<String>()
        };
        let first = chosen(1, 5) + &done(1, 5);
        let begun = first.clone() + &chosen(2, 7);
        let both = begun.clone() + &done(2, 7);
        for read in [str::to_owned as fn(&str) -> String, timeless] {
            let mut told = None;
            let mut named = |log: &str, count| {
                let found = kills(&read(log), "graph/a", count, told.as_ref());
                told = found.first().map(Kill::told).or(told.take());
                found.iter().map(|kill| kill.victim.pid).collect::<Vec<_>>()
            };
            // The second is chosen when the first is looked up, and is not counted.
            assert_eq!(named(&begun, 1), [5]);
            assert_eq!(named(&both, 1), [7]);
            assert_eq!(named(&both, 1), [0; 0], "of the third the kernel did not write");
            // Both were counted.
            assert_eq!(kills(&read(&both), "graph/a", 2, None).len(), 2);
            assert_eq!(kills(&read(&begun), "graph/a", 2, None).len(), 2);
        }
    }

    #[test]
    fn the_time_of_a_line_is_read_if_it_has_one() {
        let cases = [
            ("<6>[    0.000007] ", Some(7)),
            ("<6>[123456.000001][  T311] ", Some(123_456_000_001)),
            ("<6>[x.1] ", None),
            ("<6>[1] ", None),
            ("<6>[99999999999999999999.000000] ", None),
            ("<6>[18446744073709551615.000000] ", None),
        ];
        for (prefix, time) in cases {
            assert_eq!(time_us(prefix), time, "{prefix}");
        }
    }

    #[test]
    fn a_name_that_looks_like_a_number_is_a_name() {
        let found = kills(LOG, "graph/web.slice/shop", 1, None);
        let expected = [(300, "a,pid=1,uid=0", Some(Scope::Slice("graph/web.slice".into())))];
        assert_eq!(found.iter().map(named).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_no_report_is_passed_over() {
        for log in
            ["", "oom-kill:constraint=", "oom-kill:constraint=X,task_memcg=/graph/a,task=b,pid=c,uid=0"]
        {
            assert_eq!(kills(log, "graph/a", 1, None), []);
        }
    }
}
