//! Which processes were released: another one serves in their place, and they are about to end.
//!
//! It is written down beside the sockets of components, for a supervisor that has lost its state and finds two processes
//! of one component.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use tracing::warn;

/// Where there is an empty file for each of them, below the state directory.
const DIRECTORY: &str = "released";

/// A process is told to end.
pub fn note(state_dir: &Path, pid: i32) {
    let directory = state_dir.join(DIRECTORY);
    let noted = fs::create_dir_all(&directory).and_then(|()| File::create(directory.join(pid.to_string())));
    if let Err(error) = noted {
        warn!("failed to note that process {pid} is released: {error}");
    }
}

/// A process is reaped: its number may be another's.
pub fn forget(state_dir: &Path, pid: i32) {
    // Most were never noted.
    let _ = fs::remove_file(state_dir.join(DIRECTORY).join(pid.to_string()));
}

/// All that have not ended.
pub fn all(state_dir: &Path) -> HashSet<i32> {
    let entries = fs::read_dir(state_dir.join(DIRECTORY)).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Forget those of a supervisor before this one.
pub fn clear(state_dir: &Path) {
    if let Err(error) = fs::remove_dir_all(state_dir.join(DIRECTORY))
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!("failed to remove what a supervisor before this one has noted: {error}");
    }
}
