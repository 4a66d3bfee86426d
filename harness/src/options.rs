//! What a run was asked to do.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use yakiros_vm::image::{ImageRequest, Kernel};
use yakiros_vm::qemu::{Accelerator, Platform};

use crate::profile::{self, Profile};

/// Everything that decides a run.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is something that a user asks for or does not")]
pub struct Options {
    /// Only these suites, by name, part of it or pattern; those of the profile when empty.
    pub suites: Vec<String>,
    /// Only these scenarios, by name, part of it or pattern, or by `suite/scenario`; those of the profile when empty.
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
    /// What is run, and how much of it is done.
    pub profile: Profile,
    /// Rounds; as many as the profile says when not given.
    pub repeat: Option<u32>,
    /// Rounds until something fails, `repeat` at most where that is given.
    pub until_fail: bool,
    /// Nothing more begins once something has failed.
    pub fail_fast: bool,
    /// How often a scenario that failed is tried again. One that passes then is flaky, which is not green.
    pub retries: u32,
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
        if !["", profile::USUAL].contains(&self.profile.name.as_str()) {
            let _infallible = write!(command, " --profile {}", self.profile.name);
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
        options.profile.name = "ci".into();
        assert!(options.reproduce("basic", "x").ends_with(" --kernel debian --profile ci --cold"));
    }
}
