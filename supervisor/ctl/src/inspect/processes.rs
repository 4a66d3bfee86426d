//! Processes by the supervisor's numbers, which are not this program's where the supervisor is process 1 of a container.

use std::fs;

/// The number here of a process that is `pid` to the supervisor, which is `supervisor` here.
pub fn seen_from_here(pid: i32, supervisor: i32) -> Option<i32> {
    let level = numbers(supervisor)?.len();
    if level == 1 {
        return Some(pid);
    }
    let all =
        fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut same =
        all.filter(|other| numbers(*other).is_some_and(|numbers| numbers.get(level - 1) == Some(&pid)));
    same.find(|other| descends(*other, supervisor))
}

/// The only child of a process.
pub fn child(pid: i32) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_ascii_whitespace().next()?.parse().ok()
}

/// Its numbers in the namespaces that it is in, from this program's on inwards.
fn numbers(pid: i32) -> Option<Vec<i32>> {
    Some(line(pid, "NSpid:")?.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect())
}

/// Whether a process is another one, or comes from it.
fn descends(mut pid: i32, from: i32) -> bool {
    while pid != from {
        match line(pid, "PPid:").and_then(|parent| parent.trim().parse().ok()) {
            Some(parent @ 1..) if parent != pid => pid = parent,
            _ => return false,
        }
    }
    true
}

fn line(pid: i32, word: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(word)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_beside_the_supervisor_has_the_same_number() {
        let own = std::process::id().cast_signed();
        assert!(descends(own, own) && descends(own, 1) && !descends(1, own));
        assert_eq!(numbers(own).and_then(|numbers| numbers.first().copied()), Some(own));
        assert_eq!(child(own), None);
    }
}
