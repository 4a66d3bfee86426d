//! The verdict as a file.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{IP, Report, TAR};
use crate::criu::resolve;
use crate::store::metadata::hash;

/// Most bytes that are read of it: a score of features with a line each.
const SIZE_LIMIT: u64 = 1 << 20;
/// With a module in each line.
const MODULES: &str = "/proc/modules";
/// With this process's rights.
const STATUS: &str = "/proc/self/status";
/// Programs that CRIU calls.
const TOOLS: [&str; 2] = [TAR, IP];
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
    /// Hash of the names of the kernel's modules that are loaded: what was missing may have come with one.
    pub modules: String,
    /// Programs that CRIU calls, each with what tells it from another, or nothing if it is not there.
    pub tools: Vec<(String, Option<(i128, u64)>)>,
    /// The capabilities of who asks, as the kernel writes them.
    pub rights: String,
    /// Of this program, as the questions may be others.
    pub asked_by: String,
}

impl Key {
    /// What holds now.
    pub fn now(criu: &Path) -> Self {
        let name = rustix::system::uname();
        let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
        let tool = |name: &str| fs::metadata(resolve(Path::new(name))?).ok().as_ref().map(changed);
        Self {
            release: text(name.release()),
            version: text(name.version()),
            boot: fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned(),
            criu: criu.to_owned(),
            program: fs::metadata(criu).ok().as_ref().map(changed),
            tools: TOOLS.iter().map(|name| ((*name).to_owned(), tool(name))).collect(),
            modules: modules(&fs::read_to_string(MODULES).unwrap_or_default()),
            rights: rights(&fs::read_to_string(STATUS).unwrap_or_default()),
            asked_by: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// When a program was changed, in nanoseconds since 1970, and its size.
fn changed(status: &fs::Metadata) -> (i128, u64) {
    (i128::from(status.mtime()) * 1_000_000_000 + i128::from(status.mtime_nsec()), status.len())
}

/// Only names: how often a module is used changes all the time.
fn modules(list: &str) -> String {
    let mut names: Vec<_> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    names.sort_unstable();
    hash(names.join("\n").as_bytes())
}

fn rights(status: &str) -> String {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.unwrap_or_default().trim().to_owned()
}

/// What was found before of the CRIU at this path or with this name, if it holds. One that cannot be read is as good as
/// none.
pub fn load(path: &Path, criu: &Path) -> Option<Report> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(SIZE_LIMIT).read_to_end(&mut bytes).ok()?;
    let report: Report = serde_json::from_slice(&bytes).ok()?;
    let holds = report.criu.is_some() && report.key == Key::now(&resolve(criu)?);
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
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::probe::Found;
    use crate::store::Version;

    #[test]
    fn a_verdict_holds_until_something_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let (program, path) = (directory.path().join("criu"), directory.path().join("probe.json"));
        let loaded = |path: &Path| load(path, &program);
        assert_eq!(loaded(&path), None);
        fs::write(&program, "one").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let criu = Some(Found { path: program.clone(), version: Version::default() });
        let report = Report { key: Key::now(&program), criu, features: Vec::new() };
        save(&path, &report).unwrap();
        assert_eq!(loaded(&path), Some(report.clone()));
        // Of another CRIU nothing is known.
        let other = directory.path().join("other");
        fs::copy(&program, &other).unwrap();
        assert_eq!(load(&path, &other), None);
        for change in [
            |key: &mut Key| key.release.push('x'),
            |key: &mut Key| key.version.push('x'),
            |key: &mut Key| key.boot.push('x'),
            |key: &mut Key| key.modules = modules("nf_tables 1 0 - Live 0x0\n"),
            |key: &mut Key| key.tools.clear(),
            |key: &mut Key| key.rights.push('x'),
            |key: &mut Key| key.asked_by.push('x'),
        ] {
            let mut other = report.clone();
            change(&mut other.key);
            save(&path, &other).unwrap();
            assert_eq!(loaded(&path), None, "{other:?}");
        }
        save(&path, &report).unwrap();
        fs::write(&program, "another").unwrap();
        assert_eq!(loaded(&path), None);
        fs::write(&path, "{").unwrap();
        assert_eq!(loaded(&path), None);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
    }

    #[test]
    fn modules_are_the_same_however_often_they_are_used() {
        let one = modules("nfnetlink 20480 3 nf_tables, Live 0x0\nnf_tables 1 0 - Live 0x0\n");
        assert_eq!(one, modules("nf_tables 1 7 - Live 0x0\nnfnetlink 20480 9 nf_tables, Live 0x0\n"));
        assert_ne!(one, modules("nfnetlink 20480 3 - Live 0x0\n"));
    }
}
