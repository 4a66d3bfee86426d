//! The limits of a group: what is to be written for those that a component declares.
//!
//! A component does not run without a limit that it declares, and a limit that nobody declares any more is lifted.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::linux::fs::MetadataExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::rc::Rc;

use nix::libc;
use tracing::warn;
use yakiros_core::component::{IoMax, Resources};

use super::{Group, tree};
use crate::sys;

/// Values by their file, and the device that they are for where there is one for each. What is not in it has what the
/// kernel begins with.
pub(super) type Written = BTreeMap<(&'static str, Option<Rc<str>>), String>;

/// The file that has a limit for each device: one line, and one write, for each.
const IO_MAX: &str = "io.max";

/// The files that name what may be used.
const CPUSET: &str = "cpuset.";

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

/// What one file, or one line of it, is to say.
struct Wanted {
    file: &'static str,
    device: Option<Rc<str>>,
    /// `None` if nothing is declared.
    value: Option<String>,
    /// What the kernel begins with.
    default: &'static str,
}

impl Group {
    /// The limits that are not as they are to be, and all that it has when they are written, if that is known then. What
    /// is not declared is taken back, unless another component has the same group and may declare it. Of a group of
    /// which nothing is known everything is written, but for the devices that it has limits for: those are read.
    pub(super) fn plan(
        &self,
        path: &Path,
        resources: &Resources,
    ) -> io::Result<(Vec<Limit>, Option<Written>)> {
        let shared = self.components > 1;
        let mut after = self.written.clone().or_else(|| (!shared).then(Written::new));
        let mut limits = Vec::new();
        for Wanted { file, device, value, default } in self.table(path, resources)? {
            let declared = value.is_some();
            let value = value.unwrap_or_else(|| default.to_owned());
            let key = (file, device);
            let has = self.written.as_ref().map(|written| written.get(&key).map_or(default, String::as_str));
            if (!declared && shared) || has == Some(&value) {
                continue;
            }
            let line = match &key.1 {
                Some(device) => format!("{device} {value}"),
                None if !declared && file.starts_with(CPUSET) => everything(path, file, default),
                None => value.clone(),
            };
            if let Some(after) = &mut after {
                after.insert(key, value);
            }
            limits.push(Limit { file, value: line, declared });
        }
        Ok((limits, after))
    }

    /// Each file of limits, and each line of those with a line for each device.
    fn table(&self, path: &Path, resources: &Resources) -> io::Result<Vec<Wanted>> {
        let mut table: Vec<_> = resources
            .limit_files()
            .into_iter()
            .map(|(file, value, default)| Wanted { file, device: None, value, default })
            .collect();
        let declared = resources.io_max.iter().map(|max| Ok((number_of(max)?, max.limits())));
        let declared: BTreeMap<Rc<str>, String> = declared.collect::<io::Result<_>>()?;
        let line = |device, value| Wanted {
            file: IO_MAX,
            device: Some(device),
            value,
            default: "rbps=max wbps=max riops=max wiops=max",
        };
        for device in self.limited_devices(path).into_iter().filter(|device| !declared.contains_key(device)) {
            table.push(line(device, None));
        }
        table.extend(declared.into_iter().map(|(device, limits)| line(device, Some(limits))));
        Ok(table)
    }

    /// Devices that the group has limits for.
    fn limited_devices(&self, path: &Path) -> Vec<Rc<str>> {
        let Some(written) = &self.written else {
            let lines = sys::read_small(&path.join(IO_MAX)).unwrap_or_default();
            return lines.lines().filter_map(|line| Some(line.split_once(' ')?.0.into())).collect();
        };
        written.keys().filter_map(|(_, device)| device.clone()).collect()
    }
}

impl Limit {
    /// Whether writing it takes as long as the kernel needs to find memory.
    pub(super) fn may_reclaim(&self) -> bool {
        // Memory is moved to the nodes of a new list.
        self.file.starts_with("memory.") || self.file == "cpuset.mems"
    }

    /// The key of component files that asks for it. All but one are called as the kernel's files are.
    pub(super) fn key(&self) -> String {
        match self.file {
            "cpuset.cpus" => "resources.cpuset".to_owned(),
            file => format!("resources.{}", file.replace('.', "_")),
        }
    }

    /// The controller that has it, if a component asks for it.
    pub(super) fn needs(&self) -> Option<&'static str> {
        self.file.split('.').next().filter(|_| self.declared)
    }

    /// Whether an error is none: without the controller there is no limit to be lifted.
    pub fn forgives(&self, errno: i32) -> bool {
        !self.declared && errno == libc::ENOENT
    }

    /// Write it to a group. A declared limit that cannot be set is an error: the component must not run without it.
    pub(super) fn write(&self, group: &Path) -> io::Result<()> {
        match tree::write(&group.join(self.file), &self.value) {
            Err(error) if !self.forgives(error.raw_os_error().unwrap_or_default()) => {
                warn!("failed to write {} to {}/{}: {error}", self.value.trim(), group.display(), self.file);
                if self.declared { Err(error) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }
}

/// All that a group may use, which takes the place of nothing: the kernel takes no empty list where processes are
/// (`validate_change` in `kernel/cgroup/cpuset.c`).
fn everything(group: &Path, file: &str, default: &str) -> String {
    let above = group.parent().map(|above| above.join(format!("{file}.effective")));
    let all = above.and_then(|file| sys::read_small(&file).ok());
    all.map(|all| all.trim().to_owned()).filter(|all| !all.is_empty()).unwrap_or_else(|| default.to_owned())
}

/// The `MAJOR:MINOR` of a device. A path is one below `/dev`, which is in memory.
fn number_of(max: &IoMax) -> io::Result<Rc<str>> {
    let IoMax { device, .. } = max;
    if !device.starts_with('/') {
        return Ok(device.as_str().into());
    }
    let named = |error: io::Error| {
        warn!("io_max: {device}: {error}");
        error
    };
    let found = fs::metadata(device).map_err(named)?;
    if !found.file_type().is_block_device() {
        return Err(named(io::Error::from_raw_os_error(libc::ENOTBLK)));
    }
    let number = found.st_rdev();
    Ok(format!("{}:{}", libc::major(number), libc::minor(number)).into())
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
    use yakiros_core::component::keys::SECTIONS;

    use super::*;

    /// What is written of some limits to a group of which this is known, as file and value.
    fn written(resources: &Resources, group: &Group) -> (Vec<(&'static str, String)>, Option<Written>) {
        let (limits, after) = group.plan(Path::new("/no-such-group"), resources).expect("no devices");
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
            ("memory.swap.max", "max"),
            ("memory.oom.group", "0"),
            ("cpu.weight", "50"),
            ("io.weight", "default 100"),
            ("cpu.max", "max 100000"),
            ("cpuset.cpus", "\n"),
            ("cpuset.mems", "\n"),
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
    fn each_device_has_a_line_of_its_own_that_goes_with_its_declaration() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let limit = |device: &str, wiops| IoMax { device: device.to_owned(), wiops, ..IoMax::default() };
        let with = |io_max| Resources { io_max, ..Resources::default() };
        let new = Group { written: Some(Written::new()), ..Group::default() };
        let lines = |group: &Group, path: &Path, resources: &Resources| {
            let (limits, after) = group.plan(path, resources).expect("devices by number");
            let lines = limits.into_iter().filter(|limit| limit.file == IO_MAX).map(|limit| limit.value);
            (lines.collect::<Vec<_>>(), Group { written: after, ..Group::default() })
        };
        let both = with(vec![limit("8:16", Some(5)), limit("8:0", Some(7))]);
        let (first, known) = lines(&new, folder.path(), &both);
        let of = |device: &str, wiops: &str| format!("{device} rbps=max wbps=max riops=max wiops={wiops}");
        assert_eq!(first, [of("8:0", "7"), of("8:16", "5")]);
        assert_eq!(lines(&known, folder.path(), &both).0, [""; 0]);
        let (then, known) = lines(&known, folder.path(), &with(vec![limit("8:0", Some(8))]));
        assert_eq!(then, [of("8:16", "max"), of("8:0", "8")]);
        assert_eq!(lines(&known, folder.path(), &Resources::default()).0, [of("8:0", "max")]);
        // Of a group of which nothing is known, the kernel is asked.
        fs::write(folder.path().join(IO_MAX), "7:1 rbps=1 wbps=max riops=max wiops=max\n").expect("file");
        assert_eq!(lines(&Group::default(), folder.path(), &Resources::default()).0, [of("7:1", "max")]);
        let missing = with(vec![limit("/dev/no-such-disk", Some(1))]);
        let error = new.plan(folder.path(), &missing).expect_err("no such device");
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        let no_disk = with(vec![limit("/dev/null", Some(1))]);
        let error = new.plan(folder.path(), &no_disk).expect_err("no block device");
        assert_eq!(error.raw_os_error(), Some(libc::ENOTBLK));
    }

    #[test]
    fn a_set_of_processors_is_lifted_by_all_that_there_are() {
        let folder = tempfile::tempdir().expect("temporary directory");
        fs::write(folder.path().join("cpuset.cpus.effective"), "0-7\n").expect("file");
        let known = |cpus: &str| Group {
            written: Some([(("cpuset.cpus", None), cpus.to_owned())].into()),
            ..Group::default()
        };
        let plan = |group: &Group| {
            let (limits, after) =
                group.plan(&folder.path().join("web"), &Resources::default()).expect("no devices");
            (limits.into_iter().map(|limit| (limit.file, limit.value)).collect::<Vec<_>>(), after)
        };
        let (limits, after) = plan(&known("0"));
        assert_eq!(limits, [("cpuset.cpus", "0-7".to_owned())]);
        assert_eq!(plan(&Group { written: after, ..Group::default() }).0, [], "once");
    }

    #[test]
    fn each_limit_names_a_key_that_there_is() {
        let resources = Resources::default();
        let files = resources.limit_files().into_iter().map(|(file, ..)| file).chain([IO_MAX]);
        for file in files {
            let key = Limit::declared(file, "").key();
            let (section, key) = key.split_once('.').expect("a section");
            let section = SECTIONS.iter().find(|one| one.name == section).expect("a section that there is");
            let known = section.keys.iter().any(|row| row.name == key);
            assert!(known, "{file} is not for {key}");
        }
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
