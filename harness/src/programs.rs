//! The programs that run in the guest, built statically from this workspace.

use std::fmt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use serde::Deserialize;

use crate::options;

/// Packages whose programs go into the guest.
const PACKAGES: [&str; 6] = [
    "yakiros-guest",
    "yakiros-init",
    "yakiros-ctl",
    "yakiros-checkpoint",
    "yakiros-test-services",
    "yakiros-load",
];
/// The package of the supervisor, its program, and its feature for programs that fail on request.
const SUPERVISOR: [&str; 3] = ["yakiros-init", "graph-resolver", "fault-injection"];
/// The supervisor with that feature.
const FAULTY: &str = "graph-resolver-faulty";
/// What only that one has to say.
const FAULTY_SAYS: &[u8] = b"a test asked for it";
/// How the programs are built: the profiles of `Cargo.toml`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Build {
    /// As they are shipped: small, optimised over all crates, which takes minutes.
    #[default]
    Shipped,
    /// From the same code in a third of the time.
    Quick,
}

impl Build {
    fn profile(self) -> &'static str {
        match self {
            Self::Shipped => "guest",
            Self::Quick => "guest-quick",
        }
    }
}

/// In order of preference: musl makes smaller processes, gnu is there in every Rust installation.
const TARGETS: [&str; 2] = ["x86_64-unknown-linux-musl", "x86_64-unknown-linux-gnu"];

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    folder: PathBuf,
}

/// They could not be built.
#[derive(Debug)]
pub struct BuildError(String);

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to build the guest's programs: {}", self.0)
    }
}

impl std::error::Error for BuildError {}

impl Programs {
    /// Builds what has changed, as it is shipped. Cargo's own output goes to the terminal.
    pub fn build() -> Result<Self, BuildError> {
        Self::build_as(Build::Shipped)
    }

    /// Builds what has changed.
    pub fn build_as(build: Build) -> Result<Self, BuildError> {
        let programs = Self::of(build, &PACKAGES, &[])?;
        // The folder also serves builds of the faulty one.
        if programs.can_be_made_to_fail(SUPERVISOR[1])? {
            return Err(BuildError("the supervisor that is shipped has code that makes it fail".into()));
        }
        Ok(programs)
    }

    /// Builds all that any suite has, and gives nothing but whether it was built: for who will ask for it later.
    pub fn build_ahead(build: Build) -> Result<(), BuildError> {
        Self::build_faulty(build)?;
        Self::build_as(build).map(drop)
    }

    /// Builds a second supervisor, which fails on request. The others are to be built after it.
    pub fn build_faulty(build: Build) -> Result<(), BuildError> {
        let [package, program, feature] = SUPERVISOR;
        let feature = format!("{package}/{feature}");
        // One program of all packages: with other packages, what they depend on would have other features, and be built anew.
        let programs = Self::of(build, &PACKAGES, &["--bin", program, "--features", &feature])?;
        if !programs.can_be_made_to_fail(program)? {
            return Err(BuildError("the supervisor that is to fail has no code for it".into()));
        }
        std::fs::copy(programs.path(program), programs.faulty_supervisor())
            .map_err(|error| BuildError(format!("{FAULTY}: {error}")))?;
        Ok(())
    }

    /// Where [`Programs::build_faulty`] puts it.
    pub fn faulty_supervisor(&self) -> PathBuf {
        self.folder.join(FAULTY)
    }

    fn can_be_made_to_fail(&self, program: &str) -> Result<bool, BuildError> {
        let bytes =
            std::fs::read(self.path(program)).map_err(|error| BuildError(format!("{program}: {error}")))?;
        Ok(bytes.windows(FAULTY_SAYS.len()).any(|window| window == FAULTY_SAYS))
    }

    fn of(build: Build, packages: &[&str], more: &[&str]) -> Result<Self, BuildError> {
        let target = choose_target()?;
        // A folder of their own: other flags than the host's programs, and no waiting for their lock.
        let target_dir = options::target().join("guest");
        let mut command = cargo();
        command.current_dir(options::workspace()).args(["build", "--quiet", "--profile", build.profile()]);
        command.args(["--target", target]).arg("--target-dir").arg(&target_dir);
        for package in packages {
            command.args(["--package", package]);
        }
        command.args(more);
        command.env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
        ends_with_its_thread(&mut command);
        let status = command.status().map_err(|error| BuildError(format!("cargo: {error}")))?;
        if !status.success() {
            return Err(BuildError(format!("cargo ended with {status}")));
        }
        Ok(Self { folder: target_dir.join(target).join(build.profile()) })
    }

    /// Where all of them are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A program by its name.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The test services, by name.
    pub fn test_services(&self) -> std::io::Result<Vec<PathBuf>> {
        // By their sources: the target's folder may still hold programs that are no more.
        let mut programs = Vec::new();
        for sources in ["test-services/src/bin", "test-services/load/src/bin"] {
            for entry in std::fs::read_dir(options::workspace().join(sources))? {
                programs.extend(entry?.path().file_stem().map(|name| self.folder.join(name)));
            }
        }
        programs.sort();
        Ok(programs)
    }
}

/// The command is told to end when the thread that starts it does: nothing else would end it when the harness is told to.
pub fn ends_with_its_thread(command: &mut Command) {
    // SAFETY: prctl is safe after fork and touches no memory.
    unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGTERM)?)) };
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The first target whose standard library is installed.
fn choose_target() -> Result<&'static str, BuildError> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let installed = |target: &&str| {
        let output = Command::new(&rustc).args(["--print", "target-libdir", "--target", target]).output();
        output.is_ok_and(|output| {
            let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            output.status.success() && !folder.is_empty() && Path::new(&folder).exists()
        })
    };
    TARGETS.into_iter().find(installed).ok_or_else(|| {
        BuildError(format!("rustc has the standard library of none of: {}", TARGETS.join(", ")))
    })
}
