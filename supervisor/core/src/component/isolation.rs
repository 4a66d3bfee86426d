//! `[isolation]`: what the processes see of the machine.

use serde::{Deserialize, Serialize};
use toml::de::{DeTable, DeValue};

use super::keys::Word;
use super::network::{Network, network};
use super::reader::Reader;
use super::security::ID_MAX;
use super::values::{
    Problem, absolute_path, arguments, host_name, is_absolute, paths, size, truth, whole_integer, words,
};
use crate::diagnostic::rules;

/// The section.
const S: &str = "isolation";

/// The longest name of a secret, in bytes: a file name has at most 255.
pub(super) const SECRET_LIMIT: usize = 255;

/// A namespace of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Namespace {
    /// `mount` or `mnt`.
    Mount,
    /// `pid`.
    Pid,
    /// `net`.
    Net,
    /// `uts`.
    Uts,
    /// `ipc`.
    Ipc,
    /// `user`.
    User,
    /// `cgroup`.
    Cgroup,
    /// `time`.
    Time,
}

impl Namespace {
    /// Its name in a component file.
    pub fn name(self) -> &'static str {
        <Self as Word>::name(self)
    }
}

impl Word for Namespace {
    const WHAT: &'static str = "namespace";
    const WORDS: &'static [(&'static str, Self)] = &[
        ("mount", Self::Mount),
        ("mnt", Self::Mount),
        ("pid", Self::Pid),
        ("net", Self::Net),
        ("network", Self::Net),
        ("uts", Self::Uts),
        ("ipc", Self::Ipc),
        ("user", Self::User),
        ("cgroup", Self::Cgroup),
        ("time", Self::Time),
    ];
}

/// `[isolation]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Isolation {
    /// Namespaces of its own, sorted, each once.
    pub namespaces: Vec<Namespace>,
    /// Host name in its own uts namespace.
    pub hostname: Option<String>,
    /// Root directory to pivot to.
    pub root: Option<String>,
    /// A `/tmp` of its own.
    pub private_tmp: bool,
    /// Below what nothing can be written.
    pub read_only: Vec<String>,
    /// What cannot be seen.
    pub inaccessible: Vec<String>,
    /// What is seen in another place.
    pub binds: Vec<Bind>,
    /// File systems in memory.
    pub tmpfs: Vec<Tmpfs>,
    /// Whether `/proc` shows a process only who may trace it.
    pub hidepid: bool,
    /// Users of the namespace; empty for the first 65536, each as it is.
    pub uid_map: Vec<IdMap>,
    /// Groups of the namespace; the same.
    pub gid_map: Vec<IdMap>,
    /// What the clocks of the namespace show.
    pub time_offsets: TimeOffsets,
    /// How it reaches other networks than its own.
    pub network: Option<Network>,
    /// Whether a process of the supervisor's is the first of the pid namespace, and the program the second.
    pub init: bool,
    /// Files that only the component's user can read: names, and what they are copies of.
    pub secrets: Vec<(String, String)>,
}

impl Isolation {
    /// Whether it has a namespace of its own.
    pub fn has(&self, namespace: Namespace) -> bool {
        self.namespaces.contains(&namespace)
    }
}

/// A part of the file system that is seen in another place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Outside of [`Isolation::root`].
    pub source: String,
    /// Inside of it; it has to be there.
    pub target: String,
    /// Whether nothing can be written there.
    pub read_only: bool,
}

/// A file system in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Where it is mounted; it has to be there.
    pub path: String,
    /// The most it holds, in bytes; half of the machine's memory when absent.
    pub size: Option<u64>,
}

/// A line of user_namespaces(7)' `uid_map` or `gid_map`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// The first id inside.
    pub inside: u32,
    /// What it is outside.
    pub outside: u32,
    /// How many follow each other, with that one.
    pub count: u32,
}

/// Seconds by which the clocks of a time namespace differ from the machine's (time_namespaces(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TimeOffsets {
    /// `CLOCK_MONOTONIC`.
    pub monotonic: i64,
    /// `CLOCK_BOOTTIME`.
    pub boottime: i64,
}

/// The largest offset of a clock, in seconds: a hundred years.
pub(super) const OFFSET_MAX: i64 = 100 * 366 * 24 * 3600;

/// The section.
pub(super) fn isolation(r: &mut Reader<'_>) -> Isolation {
    let namespaces = r.get(S, "namespaces", words::<Namespace>).unwrap_or_default();
    let has_mount = namespaces.contains(&Namespace::Mount);
    let found = Isolation {
        hostname: r.get(S, "hostname", host_name),
        root: r.get(S, "root", absolute_path),
        private_tmp: r.get(S, "private_tmp", truth).unwrap_or(has_mount),
        read_only: r.get(S, "read_only", paths).unwrap_or_default(),
        inaccessible: r.get(S, "inaccessible", paths).unwrap_or_default(),
        binds: r.get(S, "binds", binds).unwrap_or_default(),
        tmpfs: r.get(S, "tmpfs", all_tmpfs).unwrap_or_default(),
        hidepid: r.get(S, "hidepid", truth).unwrap_or(false),
        uid_map: r.get(S, "uid_map", id_maps).unwrap_or_default(),
        gid_map: r.get(S, "gid_map", id_maps).unwrap_or_default(),
        time_offsets: r.get(S, "time_offsets", time_offsets).unwrap_or_default(),
        network: r.get(S, "network", network),
        init: r.get(S, "init", truth).unwrap_or(false),
        secrets: r.get(S, "secrets", secrets).unwrap_or_default(),
        namespaces,
    };
    need_namespaces(r, &found);
    found
}

/// Keys that would change the machine's own without a namespace, or have no effect.
fn need_namespaces(r: &mut Reader<'_>, found: &Isolation) {
    use Namespace::{Mount, Net, Pid, Time, User, Uts};
    let asked = [
        ("hostname", Uts, found.hostname.is_some()),
        ("root", Mount, found.root.is_some()),
        ("private_tmp", Mount, found.private_tmp),
        ("read_only", Mount, !found.read_only.is_empty()),
        ("inaccessible", Mount, !found.inaccessible.is_empty()),
        ("binds", Mount, !found.binds.is_empty()),
        ("tmpfs", Mount, !found.tmpfs.is_empty()),
        ("hidepid", Mount, found.hidepid),
        ("hidepid", Pid, found.hidepid),
        ("uid_map", User, !found.uid_map.is_empty()),
        ("gid_map", User, !found.gid_map.is_empty()),
        ("time_offsets", Time, found.time_offsets != TimeOffsets::default()),
        ("network", Net, found.network.is_some()),
        ("init", Pid, found.init),
        ("secrets", Mount, !found.secrets.is_empty()),
    ];
    for (key, namespace, asked) in asked {
        if asked && !found.has(namespace) {
            let message = format!("`{S}.{key}` needs the namespace {:?}", namespace.name());
            let help = format!(
                "write namespaces = [{:?}]: without it the host's own would change",
                namespace.name()
            );
            r.report(&rules::NEEDS_NAMESPACE, S, key, &message, Some(help));
        }
    }
}

/// Each text of an array, converted.
fn each<T>(
    value: &DeValue<'_>,
    convert: impl Fn(&str) -> Option<T>,
    problem: impl Fn(&str) -> Problem,
) -> Result<Vec<T>, Problem> {
    arguments(value)?.iter().map(|item| convert(item).ok_or_else(|| problem(item))).collect()
}

/// `"/source:/target"`, with `:ro` behind or not.
fn binds(value: &DeValue<'_>) -> Result<Vec<Bind>, Problem> {
    let problem = |item: &str| {
        Problem::new(&rules::NO_BIND, format!("has an item that is none: {item:?}"))
            .help("write \"/source:/target\", or \"/source:/target:ro\"")
    };
    each(value, bind, problem)
}

fn bind(item: &str) -> Option<Bind> {
    let mut parts = item.split(':');
    let (source, target, flag) = (parts.next()?, parts.next()?, parts.next());
    let read_only = match flag {
        None | Some("rw") => false,
        Some("ro") => true,
        Some(_) => return None,
    };
    let whole = parts.next().is_none() && is_absolute(source) && is_absolute(target) && target != "/";
    whole.then(|| Bind { source: source.to_owned(), target: target.to_owned(), read_only })
}

/// `"/path"`, with `:size=BYTES` behind or not.
fn all_tmpfs(value: &DeValue<'_>) -> Result<Vec<Tmpfs>, Problem> {
    let problem = |item: &str| {
        Problem::new(&rules::NO_TMPFS, format!("has an item that is none: {item:?}"))
            .help("write \"/path\", or \"/path:size=16M\"")
    };
    each(value, tmpfs, problem)
}

fn tmpfs(item: &str) -> Option<Tmpfs> {
    let (path, options) = item.split_once(':').map_or((item, None), |(path, options)| (path, Some(options)));
    let size = match options {
        None => None,
        Some(options) => Some(options.strip_prefix("size=").and_then(size).filter(|size| *size > 0)?),
    };
    (is_absolute(path) && path != "/").then(|| Tmpfs { path: path.to_owned(), size })
}

/// `"INSIDE OUTSIDE COUNT"`.
fn id_maps(value: &DeValue<'_>) -> Result<Vec<IdMap>, Problem> {
    let problem = |item: &str| {
        Problem::new(&rules::NO_ID_MAP, format!("has an item that is none: {item:?}")).help(format!(
            "write \"INSIDE OUTSIDE COUNT\", for example \"0 100000 65536\"; ids go up to {ID_MAX}"
        ))
    };
    each(value, id_map, problem)
}

fn id_map(item: &str) -> Option<IdMap> {
    let numbers: Vec<u32> = item.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let [inside, outside, count] = *numbers.as_slice() else { return None };
    let ends = |first: u32| u64::from(first) + u64::from(count) <= ID_MAX + 1;
    (count > 0 && ends(inside) && ends(outside)).then_some(IdMap { inside, outside, count })
}

/// A table of seconds by clock.
fn time_offsets(value: &DeValue<'_>) -> Result<TimeOffsets, Problem> {
    let table = table_of(value, "offsets", "for example { monotonic = 3600, boottime = -60 }")?;
    let mut found = TimeOffsets::default();
    for (name, value) in table {
        let seconds = match value.get_ref() {
            DeValue::Integer(given) => whole_integer(given).filter(|seconds| seconds.abs() <= OFFSET_MAX),
            _ => None,
        };
        let problem = || {
            Problem::new(&rules::NO_TIME_OFFSET, format!("has an offset that is none: {:?}", name.get_ref()))
                .help(format!(
                    "write monotonic or boottime, and whole seconds up to {OFFSET_MAX}, negative or not"
                ))
                .at(value.span())
        };
        let clock = match name.get_ref().as_ref() {
            "monotonic" => &mut found.monotonic,
            "boottime" => &mut found.boottime,
            _ => return Err(problem()),
        };
        *clock = seconds.ok_or_else(problem)?;
    }
    Ok(found)
}

/// A table of paths by name.
fn secrets(value: &DeValue<'_>) -> Result<Vec<(String, String)>, Problem> {
    let table = table_of(value, "paths", "for example { password = \"/etc/web/password\" }")?;
    let one = |(name, value): (&toml::Spanned<std::borrow::Cow<'_, str>>, &toml::Spanned<DeValue<'_>>)| {
        let name = name.get_ref().as_ref();
        let is_file_name = (1..=SECRET_LIMIT).contains(&name.len())
            && !name.starts_with('.')
            && name.chars().all(|c| c != '/' && !c.is_control());
        if !is_file_name {
            let problem =
                Problem::new(&rules::NO_SECRET, format!("has a secret that cannot be called {name:?}"));
            return Err(problem.help("it becomes a file: write a name without / and without . before"));
        }
        let path = absolute_path(value.get_ref()).map_err(|problem| problem.at(value.span()))?;
        Ok((name.to_owned(), path))
    };
    table.iter().map(one).collect()
}

fn table_of<'a, 's>(value: &'a DeValue<'s>, of: &str, example: &str) -> Result<&'a DeTable<'s>, Problem> {
    match value {
        DeValue::Table(table) => Ok(table),
        other => Err(Problem::wrong_type(&format!("a table of {of}"), other).help(example)),
    }
}
