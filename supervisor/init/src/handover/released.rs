//! Which processes were released: another one serves in their place, and they are about to end.
//!
//! It is written down beside the sockets of components, for a supervisor that has lost its state and finds two processes
//! of one component. A number may be another process's later, so the time at which it was started is written down too.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

use tracing::warn;

use crate::sys;

/// Where there is a file for each of them, named by its number, below the state directory.
const DIRECTORY: &str = "released";

/// The start time among the words of `/proc/PID/stat` after the name, which may have blanks (proc_pid_stat(5), field 22).
const START_TIME: usize = 19;

/// A process is told to end.
pub fn note(state_dir: &Path, pid: i32) {
    let directory = state_dir.join(DIRECTORY);
    let noted = started(pid).and_then(|started| {
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(pid.to_string()), started)
    });
    if let Err(error) = noted {
        warn!("failed to note that process {pid} is released: {error}");
    }
}

/// A process is reaped.
pub fn forget(state_dir: &Path, pid: i32) {
    // Most were never noted.
    let _ = fs::remove_file(state_dir.join(DIRECTORY).join(pid.to_string()));
}

/// All that have not ended. The notes of those that have are removed.
pub fn all(state_dir: &Path) -> HashSet<i32> {
    let entries = fs::read_dir(state_dir.join(DIRECTORY)).into_iter().flatten().flatten();
    let number = |entry: fs::DirEntry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()));
    let (alive, gone): (Vec<_>, Vec<_>) = entries.filter_map(number).partition(|(pid, path)| {
        started(*pid).ok().is_some_and(|now| fs::read_to_string(path).ok() == Some(now))
    });
    for (_, path) in gone {
        let _ = fs::remove_file(path);
    }
    alive.into_iter().map(|(pid, _)| pid).collect()
}

/// Forget those of a supervisor before this one.
pub fn clear(state_dir: &Path) {
    if let Err(error) = fs::remove_dir_all(state_dir.join(DIRECTORY))
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!("failed to remove what a supervisor before this one has noted: {error}");
    }
}

/// When a process was started, in clock ticks since boot.
fn started(pid: i32) -> io::Result<String> {
    let stat = sys::read_small(Path::new(&format!("/proc/{pid}/stat")))?;
    let words = stat.rsplit_once(')').map_or("", |(_, words)| words);
    let time = words.split_whitespace().nth(START_TIME);
    time.map(str::to_owned).ok_or_else(|| io::Error::other("no start time in /proc/PID/stat"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_of_one_process_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let own = i32::try_from(std::process::id()).expect("a number");
        note(dir.path(), own);
        assert_eq!(all(dir.path()), HashSet::from([own]));
        // As left by a process that had this number before.
        let path = dir.path().join(DIRECTORY).join(own.to_string());
        fs::write(&path, "1").expect("a note");
        assert_eq!(all(dir.path()), HashSet::new());
        assert!(!path.exists(), "and nothing is left of it");
    }
}
