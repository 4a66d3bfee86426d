//! The verdict as a file.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Report;

/// Most bytes that are read of it: a score of features with a line each.
const SIZE_LIMIT: u64 = 1 << 20;
/// Of a boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A verdict holds as long as all of this is the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// As `uname -r` says it.
    pub release: String,
    /// As `uname -v` says it.
    pub version: String,
    /// Modules may have come or gone with another.
    pub boot: String,
    /// CRIU's program.
    pub criu: PathBuf,
    /// When that was changed, in nanoseconds since 1970, and its size; nothing if it is not there.
    pub program: Option<(i128, u64)>,
    /// Of this program, as the questions may be others.
    pub asked_by: String,
}

impl Key {
    /// What holds now.
    pub fn now(criu: &Path) -> Self {
        let name = rustix::system::uname();
        let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
        let changed = |status: &fs::Metadata| {
            (i128::from(status.mtime()) * 1_000_000_000 + i128::from(status.mtime_nsec()), status.len())
        };
        Self {
            release: text(name.release()),
            version: text(name.version()),
            boot: fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned(),
            criu: criu.to_owned(),
            program: fs::metadata(criu).ok().as_ref().map(changed),
            asked_by: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// What was found before, if it holds. One that cannot be read is as good as none.
pub fn load(path: &Path) -> Option<Report> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(SIZE_LIMIT).read_to_end(&mut bytes).ok()?;
    let report: Report = serde_json::from_slice(&bytes).ok()?;
    let holds = report.criu.is_some() && report.key == Key::now(&report.key.criu);
    holds.then_some(report)
}

/// Keep it. A reader sees the old one or the new one.
pub fn save(path: &Path, report: &Report) -> io::Result<()> {
    let bytes = serde_json::to_vec(report)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let write = || {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(&bytes)?;
        fs::rename(&beside, path)
    };
    write().inspect_err(|_| {
        // That it is not there is what is wanted.
        let _ = fs::remove_file(&beside);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Found;
    use crate::store::Version;

    #[test]
    fn a_verdict_holds_until_something_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let (program, path) = (directory.path().join("criu"), directory.path().join("probe.json"));
        assert_eq!(load(&path), None);
        fs::write(&program, "one").unwrap();
        let criu = Some(Found { path: program.clone(), version: Version::default() });
        let report = Report { key: Key::now(&program), criu, features: Vec::new() };
        save(&path, &report).unwrap();
        assert_eq!(load(&path), Some(report.clone()));
        for change in [
            |key: &mut Key| key.release.push('x'),
            |key: &mut Key| key.version.push('x'),
            |key: &mut Key| key.boot.push('x'),
            |key: &mut Key| key.asked_by.push('x'),
        ] {
            let mut other = report.clone();
            change(&mut other.key);
            save(&path, &other).unwrap();
            assert_eq!(load(&path), None, "{other:?}");
        }
        save(&path, &report).unwrap();
        fs::write(&program, "another").unwrap();
        assert_eq!(load(&path), None);
        fs::write(&path, "{").unwrap();
        assert_eq!(load(&path), None);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
