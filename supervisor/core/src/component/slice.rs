//! `[slice]`: a control group that components share, with limits that hold for all that is in it together.
//!
//! A slice's name is its place: `batch/reports` lies in `batch`. So each has one place, none can lie in itself, and to move
//! one is to rename it. Control groups are named that way by the kernel, and so are the slices of systemd, with a dash for
//! the slash. The directory of each has `.slice` behind its name, which no component's has: a component may be called as a
//! slice is, and who reads `/proc/PID/cgroup` sees what is what.
//!
//! It is declared as a [`Component`] without a process, of the kind [`Kind::Slice`], under the path of its group: names,
//! files and limits are those of components, and so is what becomes of them when a file changes.

use toml::de::DeValue;

use super::keys::SECTIONS;
use super::reader::Reader;
use super::resources::resources;
use super::values::{GROUP_LIMIT, Problem, is_cgroup_file, is_part_of_a_name, text};
use super::{Component, Kind};
use crate::diagnostic::rules;
use crate::mutation::{Mutation, broken};

const S: &str = "slice";

/// The end of the name of each slice's directory.
pub const SUFFIX: &str = ".slice";

/// The longest part of one, in bytes: with its end a name in a directory, which has at most 255.
const PART_LIMIT: usize = 200;

/// What a slice may limit: what the kernel keeps for all in a group together.
const LIMITS: [&str; 10] = [
    "memory_max",
    "memory_high",
    "memory_swap_max",
    "cpu_weight",
    "cpu_max",
    "cpuset",
    "cpuset_mems",
    "io_weight",
    "io_max",
    "pids_max",
];

/// Whether this is the file of a slice.
pub(super) fn is_declared(r: &Reader<'_>) -> bool {
    r.has_section(S)
}

/// Read the file of a slice.
pub(super) fn slice(r: &mut Reader<'_>) -> Option<Component> {
    for section in SECTIONS.iter().filter(|section| ![S, "resources"].contains(&section.name)) {
        let message =
            format!("`{}` has no place in the file of a slice, which has no process", section.head());
        let help = "declare the component in a file of its own, with `slice = \"NAME\"` under [resources]";
        r.report_section(&rules::NOT_IN_A_SLICE, section.name, &message, help);
    }
    let others =
        SECTIONS.iter().filter(|section| section.name == "resources").flat_map(|section| section.keys);
    for key in others.filter(|key| !LIMITS.contains(&key.name)) {
        if r.has("resources", key.name) {
            let message = format!("`resources.{}` has no place in the file of a slice", key.name);
            let help = format!("a slice limits what is in it by {}", LIMITS.join(", "));
            r.report(&rules::NOT_IN_A_SLICE, "resources", key.name, &message, Some(help));
        }
    }
    if !r.has(S, "name") {
        r.missing(S, "name", "write name = \"NAME\" under [slice]");
    }
    let name = r.get(S, "name", path);
    let description = r.get(S, "description", text).map(String::into_boxed_str);
    let resources = resources(r);
    let name = group_of(&name?);
    Some(Component {
        name,
        kind: Kind::Slice,
        description,
        resources: resources.into(),
        ..Component::default()
    })
}

/// The name of a slice, with those that it lies in.
pub(super) fn path(value: &DeValue<'_>) -> Result<String, Problem> {
    let path = text(value)?;
    let fits = |part: &str| {
        is_part_of_a_name(part)
            && part.len() <= PART_LIMIT
            && !part.ends_with(SUFFIX)
            && !is_cgroup_file(&format!("{part}{SUFFIX}"))
    };
    if group_of(&path).len() <= GROUP_LIMIT && path.split('/').all(fits) {
        return Ok(path);
    }
    let help = format!(
        "a slice is named by one or more parts with / between them, from the outermost on; each has letters, digits and \
         . _ - + @ :, does not begin with . or -, does not end in {SUFFIX}, is not the name of a controller and has at most \
         {PART_LIMIT} bytes; the directories of all parts, each with {SUFFIX}, have at most {GROUP_LIMIT} bytes"
    );
    Err(Problem::new(&rules::SLICE_NAME, format!("cannot be {path:?}")).help(help))
}

/// The path of a slice's group.
pub fn group_of(name: &str) -> String {
    let parts: Vec<_> = name.split('/').map(|part| format!("{part}{SUFFIX}")).collect();
    parts.join("/")
}

/// The name of the slice whose group has this path.
pub fn name_of(group: &str) -> String {
    let parts: Vec<_> = group.split('/').map(|part| part.strip_suffix(SUFFIX).unwrap_or(part)).collect();
    parts.join("/")
}

/// Whether a part of a group's path is the directory of a slice.
pub fn is_slice(part: &str) -> bool {
    part.ends_with(SUFFIX)
}

/// What a component in a slice requires of the supervisor, as a capability. It has a blank in it, as none has that a file
/// declares.
pub fn capability(group: &str) -> String {
    format!("slice {}", name_of(group))
}

/// The groups of a slice and of those that it lies in, the outermost first, by the path of its group.
pub fn path_to(group: &str) -> impl Iterator<Item = &str> {
    group.match_indices('/').map(|(end, _)| &group[..end]).chain([group])
}

impl Component {
    /// Whether it is a slice, and has no process.
    pub fn is_slice(&self) -> bool {
        self.kind == Kind::Slice
    }

    /// The path of the group of the slice that it lies in.
    pub fn slice(&self) -> Option<String> {
        self.resources.slice.as_deref().map(group_of)
    }

    /// What has to be up before it is started: what it requires, and the slices that it lies in.
    pub fn needs(&self) -> Vec<String> {
        let slice = self.slice().filter(|_| !broken(Mutation::StartUnsliced));
        let slices = slice.iter().flat_map(|slice| path_to(slice)).map(capability);
        self.requires.iter().cloned().chain(slices).collect()
    }

    /// What it is and how it is called, for messages.
    pub fn title(&self) -> String {
        if self.is_slice() {
            format!("slice {:?}", name_of(&self.name))
        } else {
            format!("component {:?}", self.name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_a_slice_has_a_path_that_the_kernel_takes() {
        let problems = |text: &str| {
            let codes =
                crate::component::parse(text).diagnostics.into_iter().map(|found| found.code.into_owned());
            codes.collect::<Vec<_>>()
        };
        // Each part gets an end: 512 of one byte would be 4,095 bytes, and a slash.
        let (most, more) = (vec!["a"; 128].join("/"), vec!["a"; 129].join("/"));
        assert_eq!((group_of(&most).len(), group_of(&more).len()), (1023, 1031));
        let slice = |name: &str| problems(&format!("[slice]\nname = \"{name}\"\n"));
        assert_eq!((slice(&most), slice(&more)), (Vec::<String>::new(), vec!["Y0244".to_owned()]));
        let web = |resources: &str| {
            problems(&format!("[component]\nname = \"a\"\nbinary = \"/a\"\n[resources]\n{resources}\n"))
        };
        assert_eq!(web(&format!("slice = \"{more}\"")), ["Y0244"]);
        let (most, more) = (vec!["x".repeat(255); 4].join("/"), vec!["x".repeat(255); 5].join("/"));
        assert_eq!(web(&format!("cgroup = \"{most}\"")), Vec::<String>::new());
        assert_eq!(web(&format!("cgroup = \"{more}\"")), ["Y0213"]);
        assert_eq!(web(&format!("cgroup = \"{}\"", "x".repeat(256))), ["Y0213"]);
    }

    #[test]
    fn neither_a_component_nor_its_group_is_called_as_the_group_of_a_slice() {
        for (name, more) in [("x.slice", ""), ("x.slice", "cgroup = \"y\""), ("x", "cgroup = \"y.slice/x\"")]
        {
            let text = format!("[component]\nname = \"{name}\"\nbinary = \"/x\"\n[resources]\n{more}\n");
            let parsed = crate::component::parse(&text);
            let codes: Vec<_> = parsed.diagnostics.iter().map(|found| found.code.as_ref()).collect();
            assert_eq!(codes, ["Y0333"], "{text}");
        }
    }

    #[test]
    fn a_group_and_a_name_stand_for_each_other() {
        for (name, group) in [("batch", "batch.slice"), ("batch/a.b", "batch.slice/a.b.slice")] {
            assert_eq!((&*group_of(name), &*name_of(group)), (group, name));
        }
        assert_eq!(
            path_to("a.slice/b.slice/c.slice").collect::<Vec<_>>(),
            ["a.slice", "a.slice/b.slice", "a.slice/b.slice/c.slice"]
        );
    }
}
