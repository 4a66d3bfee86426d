//! What the guest image is made of: the pins of `artifacts.toml`, and the record of what was really taken.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// The text of `artifacts.toml`; part of the key of everything built from it.
const TEXT: &str = include_str!("../artifacts.toml");

/// One artifact as it was taken: enough to say exactly what was booted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactRecord {
    /// What it is, such as `alpine-wheel` or the name of a Debian package.
    pub name: String,
    /// Its version; for a user's file, its path.
    pub version: String,
    /// SHA-256 of the file as fetched, in hex; empty for a directory of the user's.
    pub sha256: String,
    /// Why its content is trusted.
    pub origin: Origin,
    /// Size in bytes as fetched.
    pub size: u64,
}

/// Why an artifact's content is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Its SHA-256 is in `artifacts.toml`.
    Pinned,
    /// Its SHA-256 is in a package index whose signature was checked.
    SignedIndex,
    /// Its checksum was published by the mirror that the user named.
    Mirror,
    /// The user named the file.
    UserFile,
    /// It was installed on this system already.
    System,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pinned => "pinned",
            Self::SignedIndex => "signed index",
            Self::Mirror => "mirror",
            Self::UserFile => "user file",
            Self::System => "system",
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Artifacts {
    pub alpine: AlpineWheel,
    pub alpine_mirror: AlpineMirror,
    pub debian_kernel: DebianKernel,
    pub debian_tools: DebianTools,
    pub debian_daemons: DebianTools,
    pub qemu: QemuPackage,
    pub pip: PipPackage,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AlpineWheel {
    pub package: String,
    pub version: String,
    pub platform: String,
    pub size: u64,
    pub sha256: String,
    pub members: BTreeMap<String, Member>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Member {
    pub path: String,
    pub size: u64,
    pub sha256: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AlpineMirror {
    pub branch: String,
    pub architecture: String,
    pub flavor: String,
    pub repository: String,
    pub package: String,
    pub kernel: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DebianKernel {
    pub meta: String,
    pub prefix: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DebianTools {
    pub suite: String,
    pub skip: Vec<String>,
    #[serde(rename = "program")]
    pub programs: Vec<Program>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Program {
    pub package: String,
    pub path: String,
    /// Where else it is found, for those who name it by the path that it has elsewhere.
    pub link: Option<String>,
    /// Whose package it is, where that is not the suite of the others.
    pub suite: Option<String>,
}

impl Program {
    /// All that decides what comes of it, as a line of the layer's key.
    pub(crate) fn key_line(&self) -> String {
        let link = self.link.as_deref().unwrap_or_default();
        let suite = self.suite.as_ref().map(|suite| format!(" {suite}")).unwrap_or_default();
        format!("{} {} {link}{suite}\n", self.package, self.path)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct QemuPackage {
    pub package: String,
    pub binary: String,
    pub also: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PipPackage {
    pub package: String,
    pub also: Vec<String>,
}

/// The pins. The file is compiled in and checked by a test, so that it cannot fail to parse.
pub(crate) fn artifacts() -> &'static Artifacts {
    static PARSED: OnceLock<Artifacts> = OnceLock::new();
    PARSED.get_or_init(|| toml::from_str(TEXT).expect("artifacts.toml is checked by this module's tests"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pins_are_complete() {
        let artifacts = artifacts();
        let hex = |s: &str| s.len() == 64 && s.bytes().all(|b| b.is_ascii_hexdigit());
        assert!(hex(&artifacts.alpine.sha256));
        for name in ["kernel", "initrd", "image"] {
            assert!(hex(&artifacts.alpine.members[name].sha256), "{name}");
        }
        assert!(artifacts.debian_tools.programs.iter().any(|p| p.package == "criu"));
    }
}
