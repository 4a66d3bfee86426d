//! Checkpoints whose images are made up.

use std::fs;
use std::path::{Path, PathBuf};

use yakiros_checkpoint::criu::Options;
use yakiros_checkpoint::preflight::Isolation;
use yakiros_checkpoint::store::{Facts, Metadata, Store, Version};

/// In memory, where there is such a place: what is written to the disk in time is not shown here, and takes long.
pub fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a directory")
}

/// A store in one.
pub fn store() -> (tempfile::TempDir, Store) {
    let directory = directory();
    let store = Store::make(&directory.path().join("checkpoints")).expect("a store");
    (directory, store)
}

/// What a checkpoint says of itself.
pub fn facts() -> Facts {
    Facts {
        original_pid: 4711,
        capabilities: vec!["network.http".to_owned()],
        criu_version: Version { major: 4, minor: 1, patch: 1 },
        leave_running: true,
        preserve_fds: Vec::new(),
        roles: Vec::new(),
        options: Options::default(),
        figures: None,
        isolation: Isolation::default(),
    }
}

/// Make one with two rounds of memory, linked as CRIU does it.
pub fn keep_with_rounds(store: &Store, component: &str) -> Metadata {
    let mut draft = store.begin(component).expect("a draft");
    for _ in 0..2 {
        let (path, parent) = draft.round().expect("a round");
        fs::write(path.join("pages-1.img"), parent.clone().unwrap_or_default()).expect("an image");
        if let Some(parent) = parent {
            std::os::unix::fs::symlink(parent, path.join("parent")).expect("a link");
        }
    }
    std::os::unix::fs::symlink(draft.parent().expect("a round"), draft.images().join("parent"))
        .expect("a link");
    fs::write(draft.images().join("pages-1.img"), "last").expect("an image");
    draft.commit(facts(), None).expect("a checkpoint")
}

/// Every path below a directory, sorted, with what is in files and where links lead.
pub fn everything(base: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut left = vec![base.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let kind = fs::symlink_metadata(&path).expect("a status").file_type();
            let content = if kind.is_symlink() {
                fs::read_link(&path).expect("a link").into_os_string().into_encoded_bytes()
            } else if kind.is_dir() {
                left.push(path.clone());
                Vec::new()
            } else {
                fs::read(&path).expect("a file")
            };
            found.push((path.strip_prefix(base).expect("below").to_owned(), content));
        }
    }
    found.sort();
    found
}
