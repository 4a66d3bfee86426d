//! `[security]`: whose processes they are, and what they may ask of the kernel.

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::capability::{CapabilitySet, capability_set};
use super::keys::Word;
use super::reader::Reader;
use super::seccomp::{SeccompAction, rules_of};
use super::values::{Problem, list, number, paths, truth, word, words};
use crate::diagnostic::rules;

/// The section.
const S: &str = "security";

/// The highest user or group; one more means none.
pub(super) const ID_MAX: u64 = u32::MAX as u64 - 1;

/// `[security]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// Whose processes they are; the supervisor's own user when absent.
    pub user: Option<Account>,
    /// Their group; without, that of the user.
    pub group: Option<Account>,
    /// Their other groups.
    pub groups: Vec<Account>,
    /// Whether exec may give privileges, by set-user-ID bits and file capabilities. `None` when not said: see
    /// [`Security::keeps_privileges`].
    pub no_new_privs: Option<bool>,
    /// All that they may ever have: the bounding, permitted and effective sets. `None` for the supervisor's own.
    pub capabilities: Option<CapabilitySet>,
    /// What they keep over exec although they are not root's: the ambient and the inheritable set.
    pub ambient_capabilities: CapabilitySet,
    /// How root differs from others (capabilities(7)).
    pub securebits: Vec<SecureBit>,
    /// System calls that may be made, or with `~`, may not; empty for no filter.
    pub seccomp: Vec<String>,
    /// What becomes of one that may not be made.
    pub seccomp_action: SeccompAction,
    /// Below what may be read; empty for everything.
    pub landlock_read: Vec<String>,
    /// Below what may be written; empty for everything.
    pub landlock_write: Vec<String>,
    /// Below what may be executed; empty for everything.
    pub landlock_execute: Vec<String>,
    /// Without what a process is started if the kernel does not give it.
    pub optional: Vec<Restriction>,
}

impl Security {
    /// Whether no exec may give privileges: as declared, or else with a filter of system calls, which needs it of who has
    /// no CAP_SYS_ADMIN.
    pub fn keeps_privileges(&self) -> bool {
        self.no_new_privs.unwrap_or(!self.seccomp.is_empty())
    }

    /// Whether its processes belong to another user or other groups than the supervisor.
    pub fn has_account(&self) -> bool {
        self.user.is_some() || self.group.is_some() || !self.groups.is_empty()
    }

    /// Whether Landlock restricts anything.
    pub fn has_landlock(&self) -> bool {
        [&self.landlock_read, &self.landlock_write, &self.landlock_execute]
            .iter()
            .any(|paths| !paths.is_empty())
    }
}

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Account {
    /// Its number.
    Id(u32),
    /// Its name in `/etc/passwd` or `/etc/group`, which is looked up at each start.
    Name(String),
}

/// A security bit of capabilities(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecureBit {
    /// `SECBIT_NOROOT`: root gets no capabilities by exec.
    Noroot,
    /// Its lock.
    NorootLocked,
    /// `SECBIT_NO_SETUID_FIXUP`: a change of user does not change capabilities.
    NoSetuidFixup,
    /// Its lock.
    NoSetuidFixupLocked,
    /// `SECBIT_KEEP_CAPS`: a change from root to another user does not.
    KeepCaps,
    /// Its lock.
    KeepCapsLocked,
    /// `SECBIT_NO_CAP_AMBIENT_RAISE`: none is added to the ambient set.
    NoCapAmbientRaise,
    /// Its lock.
    NoCapAmbientRaiseLocked,
}

impl SecureBit {
    /// Its bit, as in `include/uapi/linux/securebits.h`.
    pub fn bit(self) -> u32 {
        1 << self as u32
    }
}

impl Word for SecureBit {
    const WHAT: &'static str = "security bit";
    const WORDS: &'static [(&'static str, Self)] = &[
        ("noroot", Self::Noroot),
        ("noroot-locked", Self::NorootLocked),
        ("no-setuid-fixup", Self::NoSetuidFixup),
        ("no-setuid-fixup-locked", Self::NoSetuidFixupLocked),
        ("keep-caps", Self::KeepCaps),
        ("keep-caps-locked", Self::KeepCapsLocked),
        ("no-cap-ambient-raise", Self::NoCapAmbientRaise),
        ("no-cap-ambient-raise-locked", Self::NoCapAmbientRaiseLocked),
    ];
}

/// What a start may go without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restriction {
    /// `security.landlock_*`.
    Landlock,
    /// `security.seccomp`.
    Seccomp,
    /// `security.securebits`.
    Securebits,
    /// `isolation.read_only`.
    ReadOnly,
    /// `isolation.inaccessible`.
    Inaccessible,
    /// `isolation.binds`.
    Binds,
    /// `isolation.tmpfs` and `isolation.private_tmp`.
    Tmpfs,
    /// The `/proc`, `/sys` and `/sys/fs/cgroup` that come with namespaces.
    Kernelfs,
    /// `isolation.hostname`.
    Hostname,
    /// The interface `lo` that comes up with the namespace `net`.
    Loopback,
    /// `resources.rlimits`.
    Rlimits,
    /// `resources.nice`, `scheduling`, `io_class`, `cpu_affinity` and `oom_score_adjust`.
    Scheduling,
}

impl Word for Restriction {
    const WHAT: &'static str = "restriction";
    const WORDS: &'static [(&'static str, Self)] = &[
        ("landlock", Self::Landlock),
        ("seccomp", Self::Seccomp),
        ("securebits", Self::Securebits),
        ("read-only", Self::ReadOnly),
        ("inaccessible", Self::Inaccessible),
        ("binds", Self::Binds),
        ("tmpfs", Self::Tmpfs),
        ("kernelfs", Self::Kernelfs),
        ("hostname", Self::Hostname),
        ("loopback", Self::Loopback),
        ("rlimits", Self::Rlimits),
        ("scheduling", Self::Scheduling),
    ];
}

/// The section.
pub(super) fn security(r: &mut Reader<'_>) -> Security {
    let found = Security {
        user: r.get(S, "user", account),
        group: r.get(S, "group", account),
        groups: r.get(S, "groups", accounts).unwrap_or_default(),
        no_new_privs: r.get(S, "no_new_privs", truth),
        capabilities: r.get(S, "capabilities", capability_set),
        ambient_capabilities: r.get(S, "ambient_capabilities", capability_set).unwrap_or_default(),
        securebits: r.get(S, "securebits", words::<SecureBit>).unwrap_or_default(),
        seccomp: r.get(S, "seccomp", rules_of).unwrap_or_default(),
        seccomp_action: r.get(S, "seccomp_action", word::<SeccompAction>).unwrap_or_default(),
        landlock_read: r.get(S, "landlock_read", paths).unwrap_or_default(),
        landlock_write: r.get(S, "landlock_write", paths).unwrap_or_default(),
        landlock_execute: r.get(S, "landlock_execute", paths).unwrap_or_default(),
        optional: r.get(S, "optional", words::<Restriction>).unwrap_or_default(),
    };
    if found.seccomp.is_empty() {
        r.without(S, "seccomp_action", "there is no filter of system calls");
    }
    agree(r, &found);
    found
}

/// What the sets demand of each other.
fn agree(r: &mut Reader<'_>, found: &Security) {
    let kept = found.capabilities.unwrap_or(CapabilitySet::ALL);
    let ambient = found.ambient_capabilities;
    let lost = ambient.without(kept);
    if !lost.is_empty() {
        let message =
            format!("`security.ambient_capabilities` has {lost}, which `security.capabilities` takes away");
        let help = Some("name it in both".to_owned());
        r.report(&rules::AMBIENT_NOT_KEPT, S, "ambient_capabilities", &message, help);
    }
    let is_root =
        matches!(found.user, None | Some(Account::Id(0))) || found.user == Some(Account::Name("root".into()));
    let unused = found.capabilities.unwrap_or_default().without(ambient);
    if !is_root && !unused.is_empty() {
        let message = format!("the program does not get {unused}: it is not root's");
        let help = Some("name what it is to have in `ambient_capabilities` too".to_owned());
        r.report(&rules::LOST_CAPABILITIES, S, "capabilities", &message, help);
    }
}

/// A user or a group: a number, or a name.
fn account(value: &DeValue<'_>) -> Result<Account, Problem> {
    match value {
        DeValue::Integer(_) => id(value).map(Account::Id),
        DeValue::String(text) => named(text),
        other => Err(Problem::wrong_type("a name or a number", other)),
    }
}

fn accounts(value: &DeValue<'_>) -> Result<Vec<Account>, Problem> {
    list(value)?.iter().map(|text| named(text)).collect()
}

/// A number below [`ID_MAX`].
fn id(value: &DeValue<'_>) -> Result<u32, Problem> {
    number(0, ID_MAX)(value).map(|id| u32::try_from(id).unwrap_or(u32::MAX))
}

/// What can stand in the first column of `/etc/passwd`. Digits alone are a number.
fn named(text: &str) -> Result<Account, Problem> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let id = text.parse().ok().filter(|id| u64::from(*id) <= ID_MAX);
    if let Some(id) = id.filter(|_| digits) {
        return Ok(Account::Id(id));
    }
    let is_name = !text.is_empty()
        && !digits
        && !text.starts_with('-')
        && text.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != ':' && c != '/');
    let problem = || Problem::new(&rules::NO_ACCOUNT, format!("is no user or group: {text:?}"));
    is_name
        .then(|| Account::Name(text.to_owned()))
        .ok_or_else(|| problem().help(format!("write a name, or a number of at most {ID_MAX}")))
}
