//! What is in the directories for things that do not last.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;

use yakiros_guest::ledger::{File, MAX_FILES};

/// Where they are.
const PLACES: [&str; 2] = ["/run", "/tmp"];

/// All of them by path, no more than the limit.
pub fn all() -> Vec<File> {
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> = PLACES.iter().map(PathBuf::from).collect();
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if found.len() >= MAX_FILES {
                break;
            }
            if kind.is_dir() {
                waiting.push(entry.path());
            }
            found.push(File { path: entry.path().to_string_lossy().into_owned(), kind: name(kind).into() });
        }
    }
    found.sort_unstable();
    found
}

fn name(kind: fs::FileType) -> &'static str {
    match kind {
        kind if kind.is_dir() => "dir",
        kind if kind.is_symlink() => "link",
        kind if kind.is_socket() => "socket",
        kind if kind.is_file() => "file",
        _ => "other",
    }
}
