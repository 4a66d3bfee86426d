//! A process and all below it, as the kernel lists them: what a control group does not tell where others share it, or where
//! there is none.

use std::collections::{BTreeSet, VecDeque};
use std::fs;

use nix::libc;

use crate::sys;

/// Most processes that are looked for below one, which are many for a service: each costs the supervisor some calls, and
/// together some milliseconds. Of more the nearest are found.
const MEMBERS_LIMIT: usize = 1024;

/// Most threads that are asked, each of which may have made processes.
const THREADS_LIMIT: usize = 4096;

/// Most looks for processes that were made while the others were stopped.
const ROUNDS: usize = 8;

/// The process and all that it and its descendants have made, itself first. What was left by its parent is not among them.
pub fn family(pid: i32) -> BTreeSet<i32> {
    let (mut found, mut left, mut threads) = (BTreeSet::from([pid]), VecDeque::from([pid]), 0);
    while let Some(pid) = left.pop_front() {
        // What ends meanwhile has no children any more.
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for task in tasks.take(THREADS_LIMIT - threads) {
            threads += 1;
            let children = sys::read_small(&task.path().join("children")).unwrap_or_default();
            for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
                if found.len() == MEMBERS_LIMIT {
                    return found;
                }
                if found.insert(child) {
                    left.push_back(child);
                }
            }
        }
    }
    found
}

/// End a child that is not reaped, and all below it. They are stopped first, so that none makes another that is missed.
pub fn end_family(pid: i32) {
    let mut all = BTreeSet::new();
    for _ in 0..ROUNDS {
        let found = family(pid);
        let fresh: Vec<_> = found.difference(&all).copied().collect();
        if fresh.is_empty() {
            break;
        }
        send(fresh.iter().copied(), libc::SIGSTOP);
        all.extend(fresh);
    }
    send(all.into_iter(), libc::SIGKILL);
}

/// A signal to each of them. A number whose process has ended in between is not another's so soon: they are given in turn.
pub fn send(pids: impl Iterator<Item = i32>, number: i32) {
    for pid in pids.filter(|pid| *pid > 1) {
        // SAFETY: a call on two numbers.
        unsafe { libc::kill(pid, number) };
    }
}

#[cfg(test)]
pub mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::process::CommandExt as _;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    /// A process in a group of its own with a child in another session, whose number is returned, too.
    pub fn with_child() -> (Child, i32) {
        let script = "setsid sh -c 'echo $$; exec sleep 1000' & wait";
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdout(Stdio::piped()).process_group(0);
        let mut parent = command.spawn().expect("a shell");
        let mut line = String::new();
        let output = parent.stdout.take().expect("a pipe");
        BufReader::new(output).read_line(&mut line).expect("a number");
        (parent, line.trim().parse().expect("a number"))
    }

    /// The letter for the state of a process, none if it is gone.
    pub fn letter(pid: i32) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    /// Wait until the state of a process is one of these.
    pub fn until_letter(pid: i32, expected: &[Option<char>]) {
        let end = Instant::now() + Duration::from_secs(10);
        while !expected.contains(&letter(pid)) {
            assert!(Instant::now() < end, "process {pid} is {:?} and not {expected:?}", letter(pid));
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn what_left_its_session_is_found_and_ended() {
        let (mut parent, child) = with_child();
        let pid = i32::try_from(parent.id()).expect("a number");
        let found = family(pid);
        assert!(found.contains(&pid) && found.contains(&child), "{found:?}");
        assert!(!found.contains(&i32::try_from(std::process::id()).expect("a number")));
        end_family(pid);
        assert!(!parent.wait().expect("its end").success());
        // Whoever is to reap it may take its time.
        until_letter(child, &[None, Some('Z')]);
    }
}
