//! The version of CRIU, asked for once: by starting it, which takes longer than many a dump of memory.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Criu;
use crate::store::Version;

/// The file. No component has such a name.
const FILE: &str = ".criu";
/// What it is written as before.
const NEW: &str = ".criu.new";
/// Most bytes of it: a path and some numbers.
const LIMIT: u64 = 1 << 14;

/// What was said by whom.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    program: PathBuf,
    /// Device, inode, size and the times of the last changes of content and of inode: another program has another.
    file: [i128; 5],
    version: Version,
}

/// What the program at this path said, if it is the same still.
pub fn version(base: &Path, program: &Path) -> Option<Version> {
    let mut bytes = Vec::new();
    File::open(base.join(FILE)).ok()?.take(LIMIT).read_to_end(&mut bytes).ok()?;
    let known: Known = serde_json::from_slice(&bytes).ok()?;
    (known.program == program && file(program) == Some(known.file)).then_some(known.version)
}

/// Keep what it said. Where that cannot be done it is asked again.
pub fn keep(base: &Path, found: &Criu) {
    let Some(file) = file(&found.path) else { return };
    let known = Known { program: found.path.clone(), file, version: found.version };
    // Two that write it at once may damage it, which is seen.
    let beside = base.join(NEW);
    let write = || {
        let bytes = serde_json::to_vec(&known)?;
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(&bytes)?;
        fs::rename(&beside, base.join(FILE))
    };
    if write().is_err() {
        // That it is not there is what is wanted.
        let _ = fs::remove_file(&beside);
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
        let ask = || Criu::find_again(&program, base.path()).expect("it says").version.to_string();
        let times = || fs::read(base.path().join("criu.asked")).expect("it was asked").len();
        say("4.1.1");
        assert_eq!(([ask(), ask(), ask()], times()), (["4.1.1"; 3].map(str::to_owned), 1));
        say("4.2.0");
        assert_eq!(([ask(), ask()], times()), (["4.2.0"; 2].map(str::to_owned), 2));
        fs::write(base.path().join(FILE), "{").expect("it is damaged");
        assert_eq!((ask(), times()), ("4.2.0".to_owned(), 3));
        assert!(!base.path().join(NEW).exists());
    }
}
