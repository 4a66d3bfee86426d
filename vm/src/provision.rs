//! Provides QEMU: the one on PATH, else one installed by root, else one unpacked from Debian's packages.
//!
//! The unpacked one needs no privilege and changes nothing outside the cache. It is reduced to what machines here
//! use: the program, the libraries it loads, the TCG accelerator and the firmware of x86 machines.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::artifacts::{ArtifactRecord, Origin, QemuPackage, artifacts};
use crate::cache::{Built, Cache, Entry, Workspace};
use crate::debian::{self, Apt, Package, Suite, is_libc};
use crate::fetch::{LOCAL_LIMIT, find_program, hash_bytes, hash_file, run};
use crate::image::{ImageError, IoContext, KEY_LEN, Progress, elf};
use crate::qemu::Qemu;

const DOING: &str = "provide QEMU";
const DOING_NAMED: &str = "start the QEMU that YAKIROS_QEMU names";
const INSTEAD: &str = "install qemu-system-x86_64, or name one with YAKIROS_QEMU=PATH";
/// Part of the key of the unpacked QEMU: raise it when what is kept of it changes.
const REVISION: u32 = 1;
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const MODULES: &str = "usr/lib/x86_64-linux-gnu/qemu";
/// Loadable parts that are kept: the accelerator, without which no guest runs.
const KEPT_MODULES: &str = "accel-tcg-x86_64";
/// Firmware directories, and what the names of files kept in them begin with. The rest is for other processors.
const FIRMWARE: [(&str, &[&str]); 3] = [
    ("usr/share/qemu", &["bios-microvm", "kvmvapic", "linuxboot", "multiboot", "pvh", "qboot"]),
    ("usr/share/seabios", &["bios", "vgabios-stdvga"]),
    ("usr/lib/ipxe/qemu", &["efi-virtio", "pxe-virtio"]),
];

/// Which QEMU to use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum QemuChoice {
    /// The first that works of: PATH, installation by root, packages unpacked into the cache.
    #[default]
    Auto,
    /// This program.
    Program(PathBuf),
    /// Packages unpacked into the cache, whatever else there is.
    Unpacked,
}

impl QemuChoice {
    /// `$YAKIROS_QEMU`: a path, `unpack`, or unset for [`QemuChoice::Auto`].
    pub fn from_env() -> Self {
        match env::var_os("YAKIROS_QEMU") {
            None => Self::Auto,
            Some(text) if text.is_empty() => Self::Auto,
            Some(text) if text == "unpack" => Self::Unpacked,
            Some(path) => Self::Program(path.into()),
        }
    }
}

/// Where a QEMU came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QemuOrigin {
    /// The user named it.
    Named,
    /// It was on PATH.
    Path,
    /// It was just installed with apt-get.
    Installed,
    /// It is in the cache.
    Unpacked,
}

impl fmt::Display for QemuOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Named => "named by the user",
            Self::Path => "found on PATH",
            Self::Installed => "installed with apt-get",
            Self::Unpacked => "unpacked into the cache",
        })
    }
}

/// A QEMU that has answered. An unpacked one stays in the cache as long as this value lives.
#[derive(Debug, Clone)]
pub struct ProvidedQemu {
    /// How to start it.
    pub qemu: Qemu,
    /// Its version, such as `7.2.22`.
    pub version: String,
    /// Where it came from.
    pub origin: QemuOrigin,
    /// The packages it was unpacked from, or the program itself.
    pub records: Vec<ArtifactRecord>,
    _lease: Option<Entry>,
}

/// Provides a QEMU that runs.
pub fn provision_qemu(
    cache: &Cache,
    choice: &QemuChoice,
    progress: &dyn Progress,
) -> Result<ProvidedQemu, ImageError> {
    let package = &artifacts().qemu;
    match choice {
        QemuChoice::Program(path) => return system_qemu(path, QemuOrigin::Named, progress),
        QemuChoice::Unpacked => return unpacked_qemu(cache, package, progress),
        QemuChoice::Auto => {}
    }
    let on_path = |origin| find_program(&package.binary).map(|path| system_qemu(&path, origin, progress));
    if let Some(Ok(found)) = on_path(QemuOrigin::Path) {
        return Ok(found);
    }
    if debian::installed(&package.package, DOING, progress)
        && let Some(Ok(found)) = on_path(QemuOrigin::Installed)
    {
        return Ok(found);
    }
    unpacked_qemu(cache, package, progress)
}

fn system_qemu(path: &Path, origin: QemuOrigin, progress: &dyn Progress) -> Result<ProvidedQemu, ImageError> {
    let qemu = Qemu { binary: path.to_path_buf(), env: Vec::new(), extra_args: Vec::new() };
    let doing = if origin == QemuOrigin::Named { DOING_NAMED } else { DOING };
    let version = version(doing, &qemu, progress)?;
    let (sha256, size) = hash_file(path)?;
    let record = ArtifactRecord {
        name: "qemu".into(),
        version: version.clone(),
        sha256,
        origin: if origin == QemuOrigin::Named { Origin::UserFile } else { Origin::System },
        size,
    };
    Ok(ProvidedQemu { qemu, version, origin, records: vec![record], _lease: None })
}

fn unpacked_qemu(
    cache: &Cache,
    package: &QemuPackage,
    progress: &dyn Progress,
) -> Result<ProvidedQemu, ImageError> {
    let key = hash_bytes(format!("{REVISION} {} {:?}", package.package, package.also).as_bytes());
    let name = format!("debian-qemu-{}", &key[..KEY_LEN]);
    let entry = cache.entry(&name, progress, &|space| unpack(package, space, progress))?;
    let root = entry.path("");
    Ok(ProvidedQemu {
        qemu: qemu_below(&root, &package.binary),
        version: entry.note("version").to_owned(),
        origin: QemuOrigin::Unpacked,
        records: entry.records().to_vec(),
        _lease: Some(entry),
    })
}

/// How to start the QEMU that was unpacked to `root`.
fn qemu_below(root: &Path, binary: &str) -> Qemu {
    let firmware = FIRMWARE.iter().flat_map(|(dir, _)| ["-L".into(), root.join(dir).into()]);
    Qemu {
        binary: root.join("usr/bin").join(binary),
        env: vec![
            ("LD_LIBRARY_PATH".into(), root.join(LIBRARIES).into()),
            ("QEMU_MODULE_DIR".into(), root.join(MODULES).into()),
        ],
        extra_args: firmware.collect(),
    }
}

fn unpack(package: &QemuPackage, space: &Workspace, progress: &dyn Progress) -> Result<Built, ImageError> {
    let apt = Apt::open(Suite::System, &space.work, DOING, INSTEAD, progress)?;
    let wanted = |found: &Package| {
        let name = found.name.as_str();
        let named = name == package.package || package.also.iter().any(|also| also == name);
        (named || found.is_library()) && !name.starts_with("libc6")
    };
    let closure: Vec<Package> = apt.closure(&[&package.package])?.into_iter().filter(wanted).collect();
    let debs = apt.fetch(&closure, &space.work.join("debs"))?;
    progress.step("unpack QEMU into the cache");
    let root = space.work.join("root");
    for deb in &debs {
        debian::unpack(&deb.path, &root, DOING, progress)?;
    }
    reduce(&root, &space.out, &package.binary)?;
    let version = version(DOING, &qemu_below(&space.out, &package.binary), progress)?;
    let mut built = Built { records: debs.into_iter().map(|deb| deb.record).collect(), ..Built::default() };
    built.notes.insert("version".into(), version);
    Ok(built)
}

/// Copies what is used from the unpacked packages at `root` to `out`, under the same paths: QEMU finds its parts
/// relative to its program.
fn reduce(root: &Path, out: &Path, binary: &str) -> Result<(), ImageError> {
    let program = Path::new("usr/bin").join(binary);
    let mut files = vec![program];
    files.extend(matching(root, MODULES, &[KEPT_MODULES])?);
    for (dir, prefixes) in FIRMWARE {
        files.extend(matching(root, dir, prefixes)?);
    }
    for file in &files {
        copy(&root.join(file), &out.join(file))?;
    }
    let programs: Vec<PathBuf> =
        files.iter().filter(|file| is_code(file)).map(|file| root.join(file)).collect();
    for (name, path) in elf::closure(root, &programs, &is_libc)? {
        copy(&path, &out.join(LIBRARIES).join(name))?;
    }
    Ok(())
}

fn is_code(file: &Path) -> bool {
    file.starts_with("usr/bin") || file.extension().is_some_and(|extension| extension == "so")
}

/// Files in `dir` whose names begin with one of `prefixes`; none when the packages hold no such directory.
fn matching(root: &Path, dir: &str, prefixes: &[&str]) -> Result<Vec<PathBuf>, ImageError> {
    let full = root.join(dir);
    if !full.exists() {
        return Ok(Vec::new());
    }
    let items = fs::read_dir(&full).at(DOING, &full)?;
    let names = items.flatten().map(|item| item.file_name());
    let kept = names.filter(|name| prefixes.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)));
    Ok(kept.map(|name| Path::new(dir).join(name)).collect())
}

fn copy(from: &Path, to: &Path) -> Result<(), ImageError> {
    let parent = to.parent().unwrap_or(to);
    fs::create_dir_all(parent).at(DOING, parent)?;
    fs::copy(from, to).map(|_| ()).at(DOING, from)
}

/// Asks QEMU for its version; this shows as well that it runs at all.
fn version(doing: &str, qemu: &Qemu, progress: &dyn Progress) -> Result<String, ImageError> {
    let mut command = Command::new(&qemu.binary);
    command.envs(qemu.env.iter().map(|(key, value)| (key, value))).arg("--version");
    let text = run(doing, command, LOCAL_LIMIT, None, progress)?;
    parse_version(&text).ok_or_else(|| {
        ImageError::format(
            doing,
            &qemu.binary,
            format!("not QEMU: it says {:?}", text.lines().next().unwrap_or_default()),
        )
    })
}

/// `QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)` → `7.2.22`
fn parse_version(text: &str) -> Option<String> {
    let rest = text.strip_prefix("QEMU emulator version ")?;
    Some(rest.split_whitespace().next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let text = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright\n";
        assert_eq!(parse_version(text).as_deref(), Some("7.2.22"));
        assert_eq!(parse_version("something else"), None);
    }

    #[test]
    fn the_c_library_is_the_systems_own() {
        assert!(is_libc("libc.so.6") && is_libc("ld-linux-x86-64.so.2"));
        assert!(!is_libc("libcapstone.so.4") && !is_libc("libmd.so.0"));
    }
}
