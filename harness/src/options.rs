//! What a run was asked to do.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use yakiros_vm::image::{ImageRequest, Kernel};
use yakiros_vm::qemu::{Accelerator, Platform};

/// How much of a scenario's work is done where there may be more or less of it: hundreds of upgrades, thousands of
/// connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Profile {
    /// As much as is promised.
    #[default]
    Full,
    /// As much as shows a fault that was made, for each change.
    Ci,
}

/// Everything that decides a run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only these suites; all when empty.
    pub suites: Vec<String>,
    /// Only scenarios whose name contains one of these; all when empty.
    pub scenarios: Vec<String>,
    /// Kernel and root file system.
    pub image: ImageRequest,
    /// The init under test, a path in the guest.
    pub init: Option<String>,
    /// The accelerator; found out when not given.
    pub accelerator: Option<Accelerator>,
    /// The machine type; the suite's own when not given.
    pub platform: Option<Platform>,
    /// Scenarios at a time; as many as the host has processors and memory for when not given.
    pub jobs: Option<usize>,
    /// Boot a machine for each scenario instead of cloning a saved one.
    pub cold: bool,
    /// Keep disks and saved states, and the folders of scenarios that passed.
    pub keep: bool,
    /// Print each step.
    pub verbose: bool,
    /// How much is done.
    pub profile: Profile,
    /// All limits are multiplied by this; 1 when not given.
    pub timeout_scale: Option<f64>,
    /// As the user typed it, for the report.
    pub command_line: Vec<String>,
}

impl Options {
    /// The command that runs one scenario the way this run did.
    pub fn reproduce(&self, suite: &str, scenario: &str) -> String {
        let mut command = format!("cargo xtask vm-test --suite {suite} --scenario {scenario}");
        if self.image.kernel == Kernel::Debian {
            command.push_str(" --kernel debian");
        }
        let files = [
            ("--kernel-file", &self.image.kernel_file),
            ("--initrd", &self.image.initrd),
            ("--rootfs", &self.image.rootfs),
        ];
        for (option, path) in files {
            if let Some(path) = path {
                let _infallible = write!(command, " {option} {}", quoted(&path.to_string_lossy()));
            }
        }
        if let Some(mirror) = &self.image.alpine_mirror {
            let _infallible = write!(command, " --alpine-mirror {mirror}");
        }
        if let Some(init) = &self.init {
            let _infallible = write!(command, " --init {init}");
        }
        if let Some(platform) = self.platform {
            let _infallible = write!(command, " --machine {}", platform.name());
        }
        if let Some(accelerator) = self.accelerator {
            let _infallible = write!(command, " --accel {}", accelerator.name());
        }
        if let Some(scale) = self.timeout_scale {
            let _infallible = write!(command, " --timeout-scale {scale}");
        }
        if self.profile == Profile::Ci {
            command.push_str(" --profile ci");
        }
        if self.cold {
            command.push_str(" --cold");
        }
        command
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=,@".contains(c);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// The folder of the workspace: its top `Cargo.toml`.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Where cargo and the harness put what they make.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => workspace().join(target),
        None => workspace().join("target"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_has_what_changes_the_guest() {
        let mut options = Options::default();
        assert_eq!(options.reproduce("basic", "x"), "cargo xtask vm-test --suite basic --scenario x");
        options.image.kernel = Kernel::Debian;
        options.cold = true;
        options.profile = Profile::Ci;
        assert!(options.reproduce("basic", "x").ends_with(" --kernel debian --profile ci --cold"));
    }
}
