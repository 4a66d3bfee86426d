//! The limits of a group: what is to be written for those that a component declares.
//!
//! A component does not run without a limit that it declares, and a limit that nobody declares any more is lifted.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use nix::libc;
use tracing::warn;
use yakiros_core::component::Resources;

use super::{Group, tree};

/// Values by their file. A file that is not in it has what the kernel begins with.
pub(super) type Written = BTreeMap<&'static str, String>;

/// A limit of a group.
#[derive(Debug)]
pub struct Limit {
    /// Its name in the group.
    pub file: &'static str,
    /// As the kernel takes it.
    pub value: String,
    /// Otherwise it is only lifted.
    declared: bool,
}

impl Group {
    /// The limits that are not as they are to be, and all that it has when they are written, if that is known then. What
    /// is not declared is taken back, unless another component has the same group and may declare it. Of a group of
    /// which nothing is known everything is written.
    pub(super) fn plan(&self, resources: &Resources) -> (Vec<Limit>, Option<Written>) {
        let shared = self.components > 1;
        let mut after = self.written.clone().or_else(|| (!shared).then(Written::new));
        let mut limits = Vec::new();
        for (file, value, default) in table(resources) {
            let declared = value.is_some();
            let value = value.unwrap_or_else(|| default.to_owned());
            let has = self.written.as_ref().map(|written| written.get(file).map_or(default, String::as_str));
            if (!declared && shared) || has == Some(&value) {
                continue;
            }
            if let Some(after) = &mut after {
                after.insert(file, value.clone());
            }
            limits.push(Limit { file, value, declared });
        }
        (limits, after)
    }
}

impl Limit {
    /// Whether writing it takes as long as the kernel needs to find memory.
    pub(super) fn may_reclaim(&self) -> bool {
        self.file.starts_with("memory.")
    }

    /// Whether an error is none: without the controller there is no limit to be lifted.
    pub fn forgives(&self, errno: i32) -> bool {
        !self.declared && errno == libc::ENOENT
    }

    /// Write it to a group. A declared limit that cannot be set is an error: the component must not run without it.
    pub(super) fn write(&self, group: &Path) -> io::Result<()> {
        match tree::write(&group.join(self.file), &self.value) {
            Err(error) if !self.forgives(error.raw_os_error().unwrap_or_default()) => {
                warn!("failed to write {} to {}/{}: {error}", self.value, group.display(), self.file);
                if self.declared { Err(error) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }
}

/// Each file of limits, what is declared for it, and what the kernel begins with.
fn table(resources: &Resources) -> [(&'static str, Option<String>, &'static str); 6] {
    let text = |value: Option<u64>| value.map(|value| value.to_string());
    let cpu_max = resources.cpu_max.map(|max| {
        let quota = text(max.quota).unwrap_or_else(|| "max".to_owned());
        format!("{quota} {}", max.period)
    });
    [
        ("memory.max", text(resources.memory_max), "max"),
        ("memory.high", text(resources.memory_high), "max"),
        ("cpu.weight", text(resources.cpu_weight.map(u64::from)), "100"),
        ("io.weight", text(resources.io_weight.map(u64::from)), "default 100"),
        ("cpu.max", cpu_max, "max 100000"),
        ("pids.max", text(resources.pids_max), "max"),
    ]
}

#[cfg(test)]
impl Limit {
    /// One that a component asks for.
    pub fn declared(file: &'static str, value: &str) -> Self {
        Self { file, value: value.to_owned(), declared: true }
    }

    /// One that nobody asks for any more.
    pub fn lifted(file: &'static str, value: &str) -> Self {
        Self { declared: false, ..Self::declared(file, value) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What is written of some limits to a group of which this is known, as file and value.
    fn written(resources: &Resources, group: &Group) -> (Vec<(&'static str, String)>, Option<Written>) {
        let (limits, after) = group.plan(resources);
        (limits.into_iter().map(|limit| (limit.file, limit.value)).collect(), after)
    }

    #[test]
    fn what_differs_is_written_and_what_is_no_longer_declared_is_lifted() {
        let own = |(file, value): &(&'static str, &str)| (*file, (*value).to_owned());
        let resources = Resources { cpu_weight: Some(50), ..Resources::default() };
        let unknown = Group::default();
        let (files, after) = written(&resources, &unknown);
        let all = [
            ("memory.max", "max"),
            ("memory.high", "max"),
            ("cpu.weight", "50"),
            ("io.weight", "default 100"),
            ("cpu.max", "max 100000"),
            ("pids.max", "max"),
        ];
        assert_eq!(files, all.iter().map(own).collect::<Vec<_>>());
        let known = Group { written: after, ..Group::default() };
        assert_eq!(written(&resources, &known).0, []);
        let other = Resources { memory_max: Some(7), ..Resources::default() };
        let (files, after) = written(&other, &known);
        assert_eq!(files, [("memory.max", "7"), ("cpu.weight", "100")].iter().map(own).collect::<Vec<_>>());
        // What another component may have declared is left, and not known.
        let shared = Group { components: 2, written: after, ..Group::default() };
        assert_eq!(written(&resources, &shared).0, [own(&("cpu.weight", "50"))]);
        let unknown = Group { components: 2, ..Group::default() };
        assert_eq!(written(&resources, &unknown), (vec![own(&("cpu.weight", "50"))], None));
    }

    #[test]
    fn only_a_declared_limit_has_to_be_written() {
        let group = tempfile::tempdir().expect("temporary directory");
        let limit = Limit::declared("io.weight", "50");
        assert!(limit.write(group.path()).is_err());
        assert!(Limit::lifted("io.weight", "50").write(group.path()).is_ok());
        let file = group.path().join("io.weight");
        fs::write(&file, "default 100").expect("file");
        assert!(limit.write(group.path()).is_ok());
        assert_eq!(fs::read_to_string(file).expect("file"), "50");
    }
}
