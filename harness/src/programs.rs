//! The programs that run in the guest, built statically from this workspace.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde_json::Value;

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
/// Packages whose unit tests run in a guest, too, each with what of it has them.
pub const TESTED: [(&str, &str); 2] = [("yakiros-core", "--lib"), ("yakiros-init", "--bins")];
/// The folder of the programs that are their tests, each with its package's name.
const UNIT_TESTS: &str = "unit-tests";

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
        fs::copy(programs.path(program), programs.faulty_supervisor())
            .map_err(|error| BuildError(format!("{FAULTY}: {error}")))?;
        Ok(())
    }

    /// Where [`Programs::build_faulty`] puts it.
    pub fn faulty_supervisor(&self) -> PathBuf {
        self.folder.join(FAULTY)
    }

    fn can_be_made_to_fail(&self, program: &str) -> Result<bool, BuildError> {
        let bytes =
            fs::read(self.path(program)).map_err(|error| BuildError(format!("{program}: {error}")))?;
        Ok(bytes.windows(FAULTY_SAYS.len()).any(|window| window == FAULTY_SAYS))
    }

    /// Builds the unit tests of [`TESTED`], as quickly as can be: nobody ships them.
    pub fn build_unit_tests(&self) -> Result<(), BuildError> {
        let folder = self.folder.join(UNIT_TESTS);
        let failed = |path: &Path, error: io::Error| BuildError(format!("{}: {error}", path.display()));
        fs::create_dir_all(&folder).map_err(|error| failed(&folder, error))?;
        for (package, part) in TESTED {
            let (_, mut command) = cargo_for_guest("test", Build::Quick)?;
            // Those beside the code: the others are about a whole supervisor, which is what the guest has.
            command.args(["--no-run", part, "--message-format=json", "--package", package]);
            let output = command.stderr(Stdio::inherit()).output();
            let output = output.map_err(|error| BuildError(format!("cargo: {error}")))?;
            if !output.status.success() {
                return Err(BuildError(format!("cargo ended with {}", output.status)));
            }
            let text = String::from_utf8_lossy(&output.stdout);
            let programs: Vec<String> = text.lines().filter_map(test_program).collect();
            let [program] = &programs[..] else {
                return Err(BuildError(format!("the unit tests of {package} are {programs:?}")));
            };
            let program = Path::new(program);
            fs::copy(program, folder.join(package)).map_err(|error| failed(program, error))?;
        }
        Ok(())
    }

    /// The unit tests of one of [`TESTED`], once they are built.
    pub fn unit_tests(&self, package: &str) -> PathBuf {
        self.folder.join(UNIT_TESTS).join(package)
    }

    fn of(build: Build, packages: &[&str], more: &[&str]) -> Result<Self, BuildError> {
        let (folder, mut command) = cargo_for_guest("build", build)?;
        for package in packages {
            command.args(["--package", package]);
        }
        let status = command.args(more).status().map_err(|error| BuildError(format!("cargo: {error}")))?;
        if !status.success() {
            return Err(BuildError(format!("cargo ended with {status}")));
        }
        Ok(Self { folder })
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
    pub fn test_services(&self) -> io::Result<Vec<PathBuf>> {
        // By their sources: the target's folder may still hold programs that are no more.
        let mut programs = Vec::new();
        for sources in ["test-services/src/bin", "test-services/load/src/bin"] {
            for entry in fs::read_dir(options::workspace().join(sources))? {
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

/// Cargo, about to do that for the guest, and where the programs go.
fn cargo_for_guest(what: &str, build: Build) -> Result<(PathBuf, Command), BuildError> {
    let target = choose_target()?;
    // A folder of their own: other flags than the host's programs, and no waiting for their lock.
    let target_dir = options::target().join("guest");
    let mut command = cargo();
    command.current_dir(options::workspace()).args([what, "--quiet", "--profile", build.profile()]);
    command.args(["--target", target]).arg("--target-dir").arg(&target_dir);
    command.env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    ends_with_its_thread(&mut command);
    Ok((target_dir.join(target).join(build.profile()), command))
}

/// The program that a line of cargo's tells of, if it is of tests.
fn test_program(line: &str) -> Option<String> {
    let message: Value = serde_json::from_str(line).ok()?;
    let is_test = message["profile"]["test"].as_bool()?;
    message["executable"].as_str().filter(|_| is_test).map(str::to_owned)
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
