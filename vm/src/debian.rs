//! Debian packages without root and without touching the system: private apt directories, the system's own sources,
//! proxies and keys.
//!
//! Guarantees: `apt` checks the signature of the index, every package is checked against the index here as well, and
//! name, version and hash of each are recorded. All state lives in a work directory that the caller removes.

mod sources;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::artifacts::{ArtifactRecord, Origin};
use crate::fetch::{
    FETCH_LIMIT, LOCAL_LIMIT, Watch, check_file, ensure_space, find_program, is_root, run, run_to_end,
};
use crate::image::{ImageError, IoContext, Progress, human_bytes};

/// Debian's name for the guest's architecture.
const ARCHITECTURE: &str = "amd64";
/// Space that a suite's index takes while it is in use: Debian's main has 10 MB packed and 50 unpacked.
const INDEX_BYTES: u64 = 80 << 20;
/// What a package is estimated to take unpacked, times its packed size: 4 for code, up to 6 for text.
const UNPACK_FACTOR: u64 = 6;
/// How long `apt-get install` waits for another package manager, in seconds.
const INSTALL_LOCK_WAIT: u32 = 120;

/// Which packages to look at.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Suite<'a> {
    /// Those of the system's own release.
    System,
    /// Those of another release of the same distribution.
    Named(&'a str),
}

/// A private apt with a fresh index.
pub(crate) struct Apt<'a> {
    options: Vec<String>,
    doing: String,
    progress: &'a dyn Progress,
}

/// A package that can be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    pub name: String,
    pub version: String,
}

impl Package {
    /// Whether it holds shared libraries, by Debian's rule for names.
    pub(crate) fn is_library(&self) -> bool {
        self.name.starts_with("lib") || self.name.starts_with("zlib")
    }
}

/// A fetched package.
#[derive(Debug)]
pub(crate) struct Deb {
    pub path: PathBuf,
    pub record: ArtifactRecord,
}

impl<'a> Apt<'a> {
    /// Prepares private directories in `work` and fetches the index of `suite`.
    /// `doing` and `instead` are for errors: what is being done, and what to give when this system has no apt.
    pub(crate) fn open(
        suite: Suite<'_>,
        work: &Path,
        doing: &str,
        instead: &str,
        progress: &'a dyn Progress,
    ) -> Result<Self, ImageError> {
        for tool in ["apt-get", "apt-config", "dpkg-deb"] {
            if find_program(tool).is_none() {
                let reason = format!("this system has no `{tool}`, so Debian's packages cannot be fetched");
                return Err(ImageError::unsupported(doing, reason, instead));
            }
        }
        ensure_space(doing, work, INDEX_BYTES)?;
        let dir = work.join("apt");
        for part in ["state/lists/partial", "cache/archives/partial", "empty"] {
            let part = dir.join(part);
            fs::create_dir_all(&part).at(doing, &part)?;
        }
        let status = dir.join("status");
        fs::write(&status, "").at(doing, &status)?;
        let list = dir.join("private.sources");
        let text = sources::derive(suite, doing, instead, progress)?;
        fs::write(&list, text).at(doing, &list)?;
        let apt = Self { options: private_options(&dir, &status, &list), doing: doing.into(), progress };
        let suite = match suite {
            Suite::System => "this system's release",
            Suite::Named(name) => name,
        };
        progress.step(&format!("fetch the package index of {suite}"));
        let mut update = apt.command("apt-get");
        update.arg("update");
        let lists = dir.join("state/lists");
        let watch = Watch { label: "package index", dir: &lists, total: None };
        run(doing, update, FETCH_LIMIT, Some(&watch), progress)?;
        Ok(apt)
    }

    /// `packages` and all that they depend on, without recommendations, on a system that has nothing installed.
    pub(crate) fn closure(&self, packages: &[&str]) -> Result<Vec<Package>, ImageError> {
        let mut command = self.command("apt-get");
        command.args(["--simulate", "--no-install-recommends", "install"]).args(packages);
        let text = run(&self.doing, command, LOCAL_LIMIT, None, self.progress)?;
        Ok(text.lines().filter_map(parse_inst).collect())
    }

    /// Fetches `packages` into `dir` and checks them.
    pub(crate) fn fetch(&self, packages: &[Package], dir: &Path) -> Result<Vec<Deb>, ImageError> {
        fs::create_dir_all(dir).at(&self.doing, dir)?;
        let wanted: Vec<String> = packages.iter().map(|p| format!("{}={}", p.name, p.version)).collect();
        let mut command = self.command("apt-get");
        command.args(["download", "--print-uris"]).args(&wanted);
        let announced = run(&self.doing, command, LOCAL_LIMIT, None, self.progress)?;
        let files: Vec<Announced> = announced.lines().filter_map(Announced::parse).collect();
        if files.len() != packages.len() {
            let reason =
                format!("the index announces {} of {} packages with a SHA-256", files.len(), packages.len());
            return Err(ImageError::format(&self.doing, dir, reason));
        }
        let total = files.iter().map(|file| file.size).sum();
        ensure_space(&self.doing, dir, total * (1 + UNPACK_FACTOR))?;
        let label = match packages {
            [one] => format!("{} {}", one.name, one.version),
            many => format!("{} packages", many.len()),
        };
        self.progress.step(&format!("fetch {label} ({}) from Debian", human_bytes(total)));
        let mut command = self.command("apt-get");
        command.arg("download").args(&wanted).current_dir(dir);
        let watch = Watch { label: &label, dir, total: Some(total) };
        run(&self.doing, command, FETCH_LIMIT, Some(&watch), self.progress)?;
        files.into_iter().map(|file| self.check(file, packages, dir)).collect()
    }

    fn check(&self, file: Announced, packages: &[Package], dir: &Path) -> Result<Deb, ImageError> {
        let path = dir.join(&file.name);
        check_file(&self.doing, &file.name, &path, Some(file.size), &file.sha256)?;
        let name = file.name.split('_').next().unwrap_or_default();
        let version = packages.iter().find(|p| p.name == name).map_or("", |p| p.version.as_str());
        let record = ArtifactRecord {
            name: name.into(),
            version: version.into(),
            sha256: file.sha256,
            origin: Origin::SignedIndex,
            size: file.size,
        };
        Ok(Deb { path, record })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(find_program(program).unwrap_or_else(|| program.into()));
        command.args(&self.options);
        command
    }
}

/// Options on the command line win over every configuration file of the system.
fn private_options(dir: &Path, status: &Path, list: &Path) -> Vec<String> {
    let empty = dir.join("empty");
    let paths = [
        ("Dir::State", dir.join("state")),
        ("Dir::State::status", status.to_path_buf()),
        ("Dir::Cache", dir.join("cache")),
        ("Dir::Etc::sourcelist", list.to_path_buf()),
        ("Dir::Etc::sourceparts", empty.clone()),
        // Pins are meant for the system, not for a look at another release.
        ("Dir::Etc::preferences", empty.join("preferences")),
        ("Dir::Etc::preferencesparts", empty),
    ];
    let texts = [
        ("APT::Architecture", ARCHITECTURE),
        ("APT::Architectures", ARCHITECTURE),
        // Nobody but the owner can read the work directory; apt would become `_apt` when run by root.
        ("APT::Sandbox::User", ""),
        // A part of the index that cannot be fetched is an error, not a warning.
        ("APT::Update::Error-Mode", "any"),
        ("Acquire::Languages", "none"),
        ("Acquire::Retries", "2"),
        ("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false"),
        ("Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled", "false"),
    ];
    let paths = paths.into_iter().map(|(key, path)| format!("-o{key}={}", path.display()));
    paths.chain(texts.into_iter().map(|(key, text)| format!("-o{key}={text}"))).collect()
}

/// Libraries of the C library itself. A program of this system's release runs with the system's own: a second one in
/// the search path would not fit the program loader.
pub(crate) fn is_libc(name: &str) -> bool {
    const LIBC: [&str; 8] =
        ["libc", "libm", "libpthread", "libdl", "librt", "libresolv", "libutil", "ld-linux-x86-64"];
    name.split_once(".so").is_some_and(|(stem, _)| LIBC.contains(&stem))
}

/// Unpacks a package into `dir`. Owners are lost and no maintainer script runs.
pub(crate) fn unpack(deb: &Path, dir: &Path, doing: &str, progress: &dyn Progress) -> Result<(), ImageError> {
    fs::create_dir_all(dir).at(doing, dir)?;
    let mut command = Command::new("dpkg-deb");
    command.arg("-x").arg(deb).arg(dir);
    run(doing, command, LOCAL_LIMIT, None, progress).map(|_| ())
}

/// Installs a package on this system, where this process may. Says why when that fails, and gives `false`: what can be
/// unpacked into the cache does not depend on a package manager that is locked or broken.
pub(crate) fn installed(package: &str, doing: &str, progress: &dyn Progress) -> bool {
    if !is_root() || find_program("apt-get").is_none() {
        return false;
    }
    let result = install(package, doing, progress);
    if let Err(error) = &result {
        progress.step(&format!("{package} cannot be installed, so it is unpacked into the cache ({error})"));
    }
    result.is_ok()
}

fn install(package: &str, doing: &str, progress: &dyn Progress) -> Result<(), ImageError> {
    progress.step(&format!("install {package} with apt-get"));
    let apt_get = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
        run_to_end(doing, command, FETCH_LIMIT, None, progress)
    };
    let wait = format!("-oDPkg::Lock::Timeout={INSTALL_LOCK_WAIT}");
    let arguments = [wait.as_str(), "install", "-y", "--no-install-recommends", package];
    if apt_get(&arguments).is_ok() {
        return Ok(());
    }
    // Fresh containers come without an index, and an old one names packages that are gone.
    apt_get(&["update"])?;
    apt_get(&arguments).map(|_| ())
}

/// `Inst libc6 (2.41-12 Debian:13.1/stable [amd64])`
fn parse_inst(line: &str) -> Option<Package> {
    let mut words = line.strip_prefix("Inst ")?.split_whitespace();
    let name = words.next()?.split(':').next()?.to_owned();
    let version = words.find_map(|word| word.strip_prefix('('))?.trim_end_matches(')').to_owned();
    Some(Package { name, version })
}

/// One line of `apt-get download --print-uris`: `'URI' name size SHA256:hash`.
struct Announced {
    name: String,
    size: u64,
    sha256: String,
}

impl Announced {
    fn parse(line: &str) -> Option<Self> {
        let (_uri, rest) = line.strip_prefix('\'')?.split_once("' ")?;
        let mut words = rest.split_whitespace();
        let name = words.next()?.to_owned();
        let size = words.next()?.parse().ok()?;
        let sha256 = words.next()?.strip_prefix("SHA256:")?.to_ascii_lowercase();
        Some(Self { name, size, sha256 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simulated_installations_are_read() {
        let line = "Inst libc6 (2.41-12+deb13u4 Debian:13.6/stable [amd64]) []";
        let expected = Package { name: "libc6".into(), version: "2.41-12+deb13u4".into() };
        assert_eq!(parse_inst(line), Some(expected));
        let held = "Inst zlib1g [1:1.2] (1:1.3 Debian:13 [amd64])";
        assert_eq!(parse_inst(held).map(|p| p.version).as_deref(), Some("1:1.3"));
        assert_eq!(parse_inst("Conf libc6 (2.41-12)"), None);
    }

    #[test]
    fn announced_files_need_a_sha256() {
        let file = Announced::parse("'scheme:/pool/criu_4.deb' criu_4.deb 560280 SHA256:F3AB").unwrap();
        assert_eq!((file.name.as_str(), file.size, file.sha256.as_str()), ("criu_4.deb", 560_280, "f3ab"));
        assert!(Announced::parse("'scheme:/pool/criu_4.deb' criu_4.deb 560280 MD5Sum:00").is_none());
    }
}
