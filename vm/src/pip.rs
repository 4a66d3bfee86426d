//! Fetches a pinned wheel with the user's own `pip`, whose configuration (index, proxy, certificates) is honoured.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::artifacts::{AlpineWheel, PipPackage, artifacts};
use crate::cache::{Built, Cache, Entry, Workspace};
use crate::debian::{self, Apt, Package, Suite};
use crate::fetch::{FETCH_LIMIT, LOCAL_LIMIT, Watch, ensure_space, find_program, hash_bytes, run};
use crate::image::{ImageError, IoContext, KEY_LEN, Progress, human_bytes};

/// Ways to start pip, in the order they are tried: the interpreter's own module is the least likely to be stale.
const WAYS: [(&str, &[&str]); 3] = [("python3", &["-m", "pip"]), ("pip3", &[]), ("pip", &[])];

const DOING: &str = "find pip";
const INSTEAD: &str = "install pip for Python 3, or name kernel and root file system of your own";
/// Where libraries of an unpacked Python lie.
const LIBRARY_DIRS: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];

/// How to start pip.
#[derive(Debug)]
pub(crate) struct Pip {
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(&'static str, OsString)>,
    _lease: Option<Entry>,
}

impl Pip {
    /// The system's pip, else one installed by root, else one unpacked from Debian's packages into the cache.
    pub(crate) fn provide(cache: &Cache, progress: &dyn Progress) -> Result<Self, ImageError> {
        if let Some(pip) = Self::find(progress) {
            return Ok(pip);
        }
        let package = &artifacts().pip;
        if debian::installed(&package.package, DOING, progress)
            && let Some(pip) = Self::find(progress)
        {
            return Ok(pip);
        }
        let key = hash_bytes(format!("{} {:?}", package.package, package.also).as_bytes());
        let name = format!("debian-pip-{}", &key[..KEY_LEN]);
        let entry = cache.entry(&name, progress, &|space| unpack(package, space, progress))?;
        Ok(Self::unpacked(entry))
    }

    /// The pip on this system's PATH, tried by asking for its version.
    fn find(progress: &dyn Progress) -> Option<Self> {
        WAYS.iter().find_map(|(program, args)| {
            let pip = Self {
                program: find_program(program)?,
                args: args.iter().map(ToString::to_string).collect(),
                env: Vec::new(),
                _lease: None,
            };
            pip.works(progress).then_some(pip)
        })
    }

    fn unpacked(entry: Entry) -> Self {
        let libraries = LIBRARY_DIRS.map(|dir| entry.path(dir));
        Self {
            program: entry.path("usr/bin/python3"),
            args: vec!["-m".into(), "pip".into()],
            env: vec![
                ("PYTHONHOME", entry.path("usr").into()),
                ("LD_LIBRARY_PATH", std::env::join_paths(libraries).unwrap_or_default()),
                // Compiled files in the cache entry would change it.
                ("PYTHONDONTWRITEBYTECODE", "1".into()),
            ],
            _lease: Some(entry),
        }
    }

    fn works(&self, progress: &dyn Progress) -> bool {
        let mut command = self.command();
        command.arg("--version");
        run(DOING, command, LOCAL_LIMIT, None, progress).is_ok()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.env.iter().map(|(key, value)| (key, value)));
        command
    }
}

/// Unpacks Python with pip: its own libraries, not the C library.
fn unpack(package: &PipPackage, space: &Workspace, progress: &dyn Progress) -> Result<Built, ImageError> {
    let apt = Apt::open(Suite::System, &space.work, DOING, INSTEAD, progress)?;
    let wanted = |found: &Package| {
        let name = found.name.as_str();
        let named = name == package.package || package.also.iter().any(|also| also == name);
        (named || name.starts_with("python3") || found.is_library()) && !name.starts_with("libc6")
    };
    let closure: Vec<Package> = apt.closure(&[&package.package])?.into_iter().filter(wanted).collect();
    let debs = apt.fetch(&closure, &space.work.join("debs"))?;
    progress.step("unpack pip into the cache");
    for deb in &debs {
        debian::unpack(&deb.path, &space.out, DOING, progress)?;
    }
    Ok(Built { records: debs.into_iter().map(|deb| deb.record).collect(), ..Built::default() })
}

/// Downloads `wheel` into `dir` and returns the file. Its content is for the caller to check.
pub(crate) fn download(
    pip: &Pip,
    wheel: &AlpineWheel,
    dir: &Path,
    progress: &dyn Progress,
) -> Result<PathBuf, ImageError> {
    let label = format!("{} {}", wheel.package, wheel.version);
    let doing = format!("fetch {label}");
    // Pip keeps the download in its temporary directory and then copies it to the destination.
    ensure_space(&doing, dir, 2 * wheel.size)?;
    progress.step(&format!("fetch {label} ({}) from the Python package index", human_bytes(wheel.size)));
    let temporary = dir.join("pip-tmp");
    let target = dir.join("wheel");
    for path in [&temporary, &target] {
        fs::create_dir_all(path).at(&doing, path)?;
    }
    let mut command = pip.command();
    command
        .args(["download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input"])
        // A copy in pip's own cache would be a second 86 MB that nobody needs again.
        .args(["--no-cache-dir", "--progress-bar=off", "--ignore-requires-python"])
        .arg(format!("--platform={}", wheel.platform))
        .arg("--dest")
        .arg(&target)
        .arg(format!("{}=={}", wheel.package, wheel.version))
        .env("TMPDIR", &temporary);
    let watch = Watch { label: &label, dir: &temporary, total: Some(wheel.size) };
    run(&doing, command, FETCH_LIMIT, Some(&watch), progress)?;
    let files = fs::read_dir(&target).at(&doing, &target)?;
    let found =
        files.flatten().map(|item| item.path()).find(|path| path.extension().is_some_and(|e| e == "whl"));
    found.ok_or_else(|| ImageError::format(doing, &target, "pip reported success, yet brought no wheel"))
}
