//! Namespaces of a component: what it has for itself, what is mounted there, and whether that is the same afterwards.
//!
//! Of what is mounted in a namespace CRIU takes a part from the machine again, as it finds the same file systems there; the
//! rest it makes anew, with the files of those in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Kinds of file systems that CRIU makes anew.
const MADE: [&str; 5] = ["tmpfs", "proc", "sysfs", "devpts", "mqueue"];
/// The one that a cgroup namespace shows a part of.
const GROUPS: &str = "cgroup2";
/// The one whose files it keeps.
const IN_MEMORY: &str = "tmpfs";
/// Options of a file system that decide what can be seen or done there. Others depend on the machine and its kernel.
const DECIDING: [&str; 7] = ["size", "mode", "uid", "gid", "nr_inodes", "hidepid", "subset"];

/// A line of `/proc/PID/mountinfo`. Paths are escaped as they are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// Its number.
    pub id: u64,
    /// That of what it is mounted upon.
    pub parent: u64,
    /// The number of its file system.
    pub device: String,
    /// Which directory of that.
    pub root: String,
    /// Where.
    pub target: String,
    /// Options of the mount.
    pub options: String,
    /// It hears of what is mounted elsewhere, or tells of it.
    pub is_shared: bool,
    /// The type of its file system.
    pub kind: String,
    /// Options of that.
    pub data: String,
}

/// What a component has for itself, to be compared after a restore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Isolation {
    /// Kinds of namespaces that are its own, as `/proc/PID/ns` calls them.
    pub namespaces: BTreeSet<String>,
    /// What is mounted, by path, if it has a mount namespace.
    pub mounts: BTreeMap<String, Seen>,
}

/// What is seen at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The type of the file system.
    pub kind: String,
    /// Which directory of it.
    pub root: String,
    /// What can be done there.
    pub options: String,
}

/// All lines of `mountinfo` that make sense.
pub(super) fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(line).collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`.
fn line(line: &str) -> Option<Mount> {
    let (own, of_kind) = line.split_once(" - ")?;
    let mut own = own.split(' ');
    let mut next = || own.next();
    let (id, parent) = (next()?.parse().ok()?, next()?.parse().ok()?);
    let (device, root, target, options) = (next()?, next()?, next()?, next()?);
    let is_shared = own.any(|word| word.starts_with("shared:") || word.starts_with("master:"));
    let mut of_kind = of_kind.split(' ');
    let (kind, data) = (of_kind.next()?, of_kind.nth(1).unwrap_or_default());
    let [device, root, target, options, kind, data] =
        [device, root, target, options, kind, data].map(str::to_owned);
    Some(Mount { id, parent, device, root, target, options, is_shared, kind, data })
}

/// What is on top at each path.
pub(super) fn seen(mounts: &[Mount]) -> BTreeMap<String, Seen> {
    let covers = |above: &Mount, below: &Mount| above.parent == below.id && above.target == below.target;
    let on_top = mounts.iter().filter(|below| !mounts.iter().any(|above| covers(above, below)));
    on_top.map(|mount| (mount.target.clone(), Seen::of(mount))).collect()
}

impl Seen {
    /// The path that is meant by a key of [`Isolation::mounts`].
    pub fn path(key: &str) -> PathBuf {
        unescaped(key).into()
    }

    fn of(mount: &Mount) -> Self {
        let mut options: Vec<&str> = mount.options.split(',').collect();
        if MADE.contains(&&*mount.kind) {
            let decides = |option: &&str| DECIDING.contains(&option.split('=').next().unwrap_or_default());
            options.extend(mount.data.split(',').filter(decides));
        }
        options.sort_unstable();
        options.dedup();
        Self { kind: mount.kind.clone(), root: mount.root.clone(), options: options.join(",") }
    }
}

impl Isolation {
    /// What is not as it was, in words. More namespaces than before are no harm.
    pub fn difference(&self, now: &Self) -> Option<String> {
        if let Some(kind) = self.namespaces.difference(&now.namespaces).next() {
            return Some(format!("it would have no {kind} namespace of its own"));
        }
        let text = |seen: Option<&Seen>| match seen {
            Some(Seen { kind, root, options }) => format!("{kind} {root} ({options})"),
            None => "nothing".to_owned(),
        };
        let paths: BTreeSet<_> = self.mounts.keys().chain(now.mounts.keys()).collect();
        paths.into_iter().find_map(|path| {
            let (was, is) = (self.mounts.get(path), now.mounts.get(path));
            (was != is).then(|| format!("at {path} was mounted {}, and would be {}", text(was), text(is)))
        })
    }
}

/// Why one of the mounts `inside` cannot be made again, if so; `outside` are those of the machine.
pub(super) fn obstacle(
    mount: &Mount,
    inside: &[Mount],
    outside: &[Mount],
) -> Option<(&'static str, &'static str)> {
    if mount.is_shared {
        let why = "what is mounted there is seen elsewhere, or the other way round";
        return Some((why, "have it make its mounts private"));
    }
    if mount.kind == GROUPS && mount.root != "/" {
        let why = "CRIU would mount all of the machine's groups in its place";
        return Some((why, "do without `cgroup` in its namespaces, or without checkpoints"));
    }
    if is_outside(mount, outside) {
        return None;
    }
    if !MADE.contains(&&*mount.kind) {
        let why = "the machine does not have this file system mounted, and it cannot be mounted anew";
        return Some((why, "have the machine mount it, and give it by `binds`"));
    }
    let is_whole = |other: &Mount| other.device == mount.device && other.root == "/";
    if !inside.iter().any(is_whole) {
        return Some((
            "the whole of this file system is mounted nowhere any more",
            "have it mounted elsewhere, too",
        ));
    }
    None
}

/// Whether these have files that are kept by tar(1).
pub(super) fn keeps_files(inside: &[Mount], outside: &[Mount]) -> bool {
    inside.iter().any(|mount| mount.kind == IN_MEMORY && !is_outside(mount, outside))
}

fn is_outside(mount: &Mount, outside: &[Mount]) -> bool {
    outside.iter().any(|other| other.device == mount.device && below(&mount.root, &other.root).is_some())
}

/// Where the machine has the directory of its file system that is mounted at `/` inside: each place that may be it.
pub(super) fn roots<'a>(inside: &'a [Mount], outside: &'a [Mount]) -> impl Iterator<Item = PathBuf> + 'a {
    let root = inside.iter().rfind(|mount| mount.target == "/");
    let of = move |other: &'a Mount| {
        let root = root.filter(|root| root.device == other.device)?;
        let rest = below(&root.root, &other.root)?;
        Some(PathBuf::from(unescaped(&format!("{}/{rest}", other.target.trim_end_matches('/')))))
    };
    outside.iter().filter_map(of)
}

/// The rest of a path that is at or below another one.
fn below<'a>(path: &'a str, above: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(above.trim_end_matches('/'))?;
    (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_start_matches('/'))
}

/// Of `a\040b`: what is no letter is written as three digits.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut path = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.split_at_checked(3).map(|(digits, rest)| (u8::from_str_radix(digits, 8), rest));
        let (byte, rest) = match byte {
            Some((Ok(byte), rest)) => (char::from(byte), rest),
            _ => ('\\', part),
        };
        path.push(byte);
        path.push_str(rest);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTSIDE: &str = "1 0 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n\
                           2 1 0:21 / /proc rw - proc proc rw\n\
                           3 1 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    const INSIDE: &str = "65 64 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n\
                          66 65 0:21 / /proc rw - proc proc rw\n\
                          67 66 0:45 / /proc ro,nosuid - proc proc rw,hidepid=invisible\n\
                          68 65 254:0 /etc /etc ro,relatime - ext4 /dev/vda rw,discard\n\
                          69 65 0:38 /graph/a /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
                          70 65 0:46 / /tmp/a\\040b rw - tmpfs tmpfs rw,size=4k,inode64\n";

    #[test]
    fn what_is_on_top_counts_with_what_can_be_done_there() {
        let seen = seen(&parse(INSIDE));
        let of = |path: &str| format!("{} {}", seen[path].kind, seen[path].options);
        assert_eq!(of("/proc"), "proc hidepid=invisible,nosuid,ro");
        assert_eq!(of("/tmp/a\\040b"), "tmpfs rw,size=4k");
        assert_eq!(of("/etc"), "ext4 relatime,ro");
        assert_eq!(seen.len(), 5);
    }

    #[test]
    fn what_is_not_as_it_was_is_found() {
        let own = |kinds: &[&str], text: &str| Isolation {
            namespaces: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
            mounts: seen(&parse(text)),
        };
        let was = own(&["mnt", "pid"], INSIDE);
        let of = |kinds: &[&str], text: &str| was.difference(&own(kinds, text)).unwrap_or_default();
        let other_numbers = INSIDE.replace("0:4", "0:9").replace("inode64", "inode32");
        assert_eq!(of(&["mnt", "pid", "time"], &other_numbers), "");
        assert_eq!(of(&["mnt"], INSIDE), "it would have no pid namespace of its own");
        let whole = INSIDE.replace("/graph/a /sys", "/ /sys");
        let said = "at /sys/fs/cgroup was mounted cgroup2 /graph/a (rw), and would be cgroup2 / (rw)";
        assert_eq!(of(&["mnt", "pid"], &whole), said);
        let writable = INSIDE.replace("/etc ro", "/etc rw");
        assert!(of(&["mnt", "pid"], &writable).starts_with("at /etc was mounted ext4 /etc (relatime,ro)"));
        let more = format!("{INSIDE}71 65 254:0 / /mnt rw - ext4 /dev/vda rw\n");
        assert!(of(&["mnt", "pid"], &more).starts_with("at /mnt was mounted nothing"));
        let uncovered = INSIDE.replace("67 66 0:45 / /proc", "67 66 0:45 / /elsewhere");
        assert!(of(&["mnt", "pid"], &uncovered).contains("at /elsewhere was mounted nothing"));
    }

    #[test]
    fn what_cannot_be_made_again_is_told_from_what_can() {
        let (inside, outside) = (parse(&INSIDE.replace("/graph/a /sys", "/ /sys")), parse(OUTSIDE));
        for mount in &inside {
            assert_eq!(obstacle(mount, &inside, &outside), None, "{mount:?}");
        }
        let of = |line: &str| {
            let more = [inside.clone(), parse(line)].concat();
            obstacle(more.last().expect("one"), &more, &outside).map_or("", |(why, _)| why)
        };
        assert!(of("71 65 8:1 / /mnt rw - ext4 /dev/sda1 rw").contains("cannot be mounted anew"));
        assert!(of("71 65 0:99 / /mnt rw - overlay overlay rw").contains("cannot be mounted anew"));
        assert!(
            of("71 65 0:38 /graph/a /mnt rw - cgroup2 cgroup2 rw").contains("all of the machine's groups")
        );
        assert!(of("71 65 254:0 / /mnt rw master:1 - ext4 /dev/vda rw").contains("seen elsewhere"));
        assert!(of("71 65 0:99 /a /mnt rw - tmpfs tmpfs rw").contains("mounted nowhere"));
        assert_eq!(of("71 65 0:46 /a /mnt rw - tmpfs tmpfs rw"), "");
        assert!(keeps_files(&inside, &outside) && !keeps_files(&inside[..5], &outside));
    }

    #[test]
    fn the_root_directory_is_found_on_the_machine() {
        let outside = parse(&format!("{OUTSIDE}4 1 8:1 /sub /data\\040x rw - ext4 /dev/sda1 rw\n"));
        let of = |text: &str| roots(&parse(text), &outside).collect::<Vec<_>>();
        assert_eq!(of(INSIDE), [PathBuf::from("/")]);
        assert_eq!(of("9 8 254:0 /srv/jail / rw - ext4 /dev/vda rw"), [PathBuf::from("/srv/jail")]);
        assert_eq!(of("9 8 8:1 /sub/jail / rw - ext4 /dev/sda1 rw"), [PathBuf::from("/data x/jail")]);
        assert!(of("9 8 8:1 /subjail / rw - ext4 /dev/sda1 rw").is_empty());
        assert!(of("").is_empty());
    }
}
