//! The version of CRIU, asked for once: by starting it, which takes longer than many a dump of memory.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Criu;
use crate::store::Version;

/// What a program said of itself, for who gives the next order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    program: PathBuf,
    /// Device, inode, size and the times of the last changes of content and of inode: another program has another.
    file: [i128; 5],
    version: Version,
}

impl Known {
    /// Nothing if it is gone meanwhile.
    pub(super) fn of(found: &Criu) -> Option<Self> {
        Some(Self { program: found.path.clone(), file: file(&found.path)?, version: found.version })
    }

    /// What the program at this path said, if it is the same still.
    pub(super) fn version(&self, program: &Path) -> Option<Version> {
        (self.program == program && file(program) == Some(self.file)).then_some(self.version)
    }
}

fn file(program: &Path) -> Option<[i128; 5]> {
    let status = fs::metadata(program).ok()?;
    let time = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    Some([
        status.dev().into(),
        status.ino().into(),
        status.len().into(),
        time(status.mtime(), status.mtime_nsec()),
        time(status.ctime(), status.ctime_nsec()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_again_when_it_is_another() {
        let base = tempfile::tempdir().expect("a directory");
        let program = base.path().join("criu");
        let say = |version: &str| {
            use std::os::unix::fs::PermissionsExt as _;
            let text = format!("#!/bin/sh\necho Version: {version}\necho >>{}.asked\n", program.display());
            let beside = base.path().join("new");
            fs::write(&beside, text).expect("it is written");
            fs::set_permissions(&beside, fs::Permissions::from_mode(0o700)).expect("it may be run");
            fs::rename(&beside, &program).expect("it takes the place");
        };
        let mut known = None;
        let mut ask = || {
            let (criu, news) = Criu::find_again(&program, known.as_ref()).expect("it says");
            // As it goes to who gives orders, and comes back with the next.
            let news = news.map(|news| serde_json::to_string(&news).expect("a line"));
            known = news.map(|line| serde_json::from_str(&line).expect("the same")).or(known.take());
            criu.version.to_string()
        };
        let times = || fs::read(base.path().join("criu.asked")).expect("it was asked").len();
        say("4.1.1");
        assert_eq!(([ask(), ask(), ask()], times()), (["4.1.1"; 3].map(str::to_owned), 1));
        say("4.2.0");
        assert_eq!(([ask(), ask()], times()), (["4.2.0"; 2].map(str::to_owned), 2));
    }
}
