//! Suites: a folder each, with `suite.toml`, `components/` and the scenarios' code.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use yakiros_vm::qemu::Platform;

use crate::scenario::Scenario;
use crate::suites;

/// All suites, in the order in which they run and are listed.
pub static SUITES: [Suite; 13] = [
    Suite { name: "basic", scenarios: &suites::basic::SCENARIOS },
    Suite { name: "graph-analysis", scenarios: &suites::graph_analysis::SCENARIOS },
    Suite { name: "health-checks", scenarios: &suites::health_checks::SCENARIOS },
    Suite { name: "supervision", scenarios: &suites::supervision::SCENARIOS },
    Suite { name: "isolation", scenarios: &suites::isolation::SCENARIOS },
    Suite { name: "hot-swap", scenarios: &suites::hot_swap::SCENARIOS },
    Suite { name: "checkpointing", scenarios: &suites::checkpointing::SCENARIOS },
    Suite { name: "kexec", scenarios: &suites::kexec::SCENARIOS },
    Suite { name: "kexec-jumps", scenarios: &suites::kexec_jumps::SCENARIOS },
    Suite { name: "performance", scenarios: &suites::performance::SCENARIOS },
    Suite { name: "reliability", scenarios: &suites::reliability::SCENARIOS },
    Suite { name: "access", scenarios: &suites::access::SCENARIOS },
    Suite { name: "examples", scenarios: &suites::examples::SCENARIOS },
];

/// A suite as code knows it.
#[derive(Clone, Copy)]
pub struct Suite {
    /// Its name and its folder's.
    pub name: &'static str,
    /// In the order in which they are listed.
    pub scenarios: &'static [Scenario],
}

/// A suite as `suite.toml` describes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// In one line.
    pub description: String,
    /// The machine that its scenarios start from.
    pub machine: MachineConfig,
    /// Its limits.
    pub limits: LimitsConfig,
}

/// `[machine]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is something that a machine has or has not")]
pub struct MachineConfig {
    /// "microvm" or "q35".
    pub platform: PlatformName,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mb: u32,
    /// Kernel modules that the preinit loads.
    #[serde(default)]
    pub modules: Vec<String>,
    /// A network card. Its network has the guest alone: an address by DHCP, a gateway that answers, and no way out.
    #[serde(default)]
    pub network: bool,
    /// Arguments of the supervisor as process 1; another init under test gets none.
    #[serde(default)]
    pub init_arguments: Vec<String>,
    /// Has [`crate::vm::FAULTY_SUPERVISOR`] too, beside the supervisor that is shipped.
    #[serde(default)]
    pub fault_injection: bool,
    /// Has HAProxy, wrk and runit of Debian, too.
    #[serde(default)]
    pub daemons: bool,
    /// Has [`crate::vm::BOOT_KERNEL`] and [`crate::vm::BOOT_INITRD`], to be booted once more from inside.
    #[serde(default)]
    pub boot_files: bool,
    /// Beside them [`crate::vm::BOOT_OTHER_KERNEL`]: Debian's kernel in a guest with Alpine's, and the other way round.
    #[serde(default)]
    pub other_kernel: bool,
    /// The folder of the component files, seen from the suite's.
    #[serde(default = "usual_components")]
    pub components: PathBuf,
}

fn usual_components() -> PathBuf {
    "components".into()
}

/// `[limits]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    /// Seconds from the agent's first answer until the supervisor has settled.
    pub settle_s: u64,
}

/// A [`Platform`] in a file.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlatformName {
    /// [`Platform::Microvm`].
    Microvm,
    /// [`Platform::Q35`].
    Q35,
}

impl From<PlatformName> for Platform {
    fn from(name: PlatformName) -> Self {
        match name {
            PlatformName::Microvm => Self::Microvm,
            PlatformName::Q35 => Self::Q35,
        }
    }
}

impl LimitsConfig {
    /// See `settle_s`.
    pub fn settle(&self) -> Duration {
        Duration::from_secs(self.settle_s)
    }
}

/// A suite that cannot be used.
#[derive(Debug)]
pub struct SuiteError {
    path: PathBuf,
    message: String,
}

impl fmt::Display for SuiteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to read {}: {}", self.path.display(), self.message)
    }
}

impl std::error::Error for SuiteError {}

impl Suite {
    fn folder(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("suites").join(self.name)
    }

    /// Reads `suite.toml`.
    pub fn config(&self) -> Result<Config, SuiteError> {
        let path = self.folder().join("suite.toml");
        let text = fs::read_to_string(&path)
            .map_err(|error| SuiteError { path: path.clone(), message: error.to_string() })?;
        toml::from_str(&text).map_err(|error| SuiteError { path, message: error.to_string() })
    }

    /// The component files of its machine, by name.
    pub fn components(&self) -> Result<Vec<PathBuf>, SuiteError> {
        let folder = self.folder().join(self.config()?.machine.components);
        let failed = |error: std::io::Error| SuiteError { path: folder.clone(), message: error.to_string() };
        let mut files = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed)? {
            files.push(entry.map_err(failed)?.path());
        }
        files.sort();
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_can_be_read() {
        for suite in &SUITES {
            suite.config().unwrap();
            assert!(!suite.components().unwrap().is_empty(), "{}", suite.name);
        }
    }

    #[test]
    fn names_are_unique() {
        for suite in &SUITES {
            let mut names: Vec<_> = suite.scenarios.iter().map(|scenario| scenario.name).collect();
            names.sort_unstable();
            let before = names.len();
            names.dedup();
            assert_eq!(before, names.len(), "{}", suite.name);
        }
    }

    #[test]
    fn the_specification_names_only_proofs_that_exist() {
        let root = crate::options::workspace();
        let text = fs::read_to_string(root.join("SPECIFICATION.md")).unwrap();
        let mut named = 0;
        for proof in text.split('`').skip(1).step_by(2) {
            if let Some(case) = proof.strip_prefix("case:") {
                assert!(root.join("supervisor/init/tests/cases").join(case).exists(), "{proof}");
                named += 1;
            }
            // What else is written as code there: paths with a dot, commands with a blank, and the pattern itself.
            let Some((suite, name)) = proof.split_once('/').filter(|_| !proof.contains([' ', '.', 'S']))
            else {
                continue;
            };
            if root.join(proof).exists() {
                continue;
            }
            let suite = SUITES.iter().find(|known| known.name == suite);
            let scenarios = suite.map_or(&[][..], |suite| suite.scenarios);
            assert!(scenarios.iter().any(|scenario| scenario.name == name), "{proof}");
            named += 1;
        }
        let scenarios: usize = SUITES.iter().map(|suite| suite.scenarios.len()).sum();
        assert!(named >= scenarios, "{named} proofs are named, there are {scenarios} scenarios");
    }
}
