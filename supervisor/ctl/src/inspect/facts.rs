//! What the kernel says of a process, read from `/proc` and its control group.
//!
//! Reading takes several calls: what they say belongs together only if the process is the same before and after, for
//! which there is [`Facts::is_current`].

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::unistd::gethostname;
use yakiros_core::component::Namespace;

use super::mounts::{self, Mount};

/// Where each kind of namespace lies in `/proc/PID/ns`.
pub const NAMESPACES: [(Namespace, &str); 8] = [
    (Namespace::Mount, "mnt"),
    (Namespace::Pid, "pid"),
    (Namespace::Net, "net"),
    (Namespace::Uts, "uts"),
    (Namespace::Ipc, "ipc"),
    (Namespace::User, "user"),
    (Namespace::Cgroup, "cgroup"),
    (Namespace::Time, "time"),
];

/// The directory of all groups of a supervisor.
const SUBTREE: &str = "graph";

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Facts {
    /// The process.
    pub pid: i32,
    /// When it began, in ticks since the machine did.
    began: u64,
    /// Numbers of its namespaces.
    pub namespaces: BTreeMap<&'static str, u64>,
    /// `/proc/PID/status`, by its words.
    pub status: BTreeMap<String, String>,
    /// `/proc/PID/limits`: soft and hard, where `None` is no limit.
    pub limits: BTreeMap<String, (Option<u64>, Option<u64>)>,
    /// Nice value, policy and real-time priority.
    pub scheduling: (i64, u64, u64),
    /// Class and level of ioprio_get(2).
    pub io_class: Option<(u8, u8)>,
    /// `oom_score_adj`.
    pub oom_score_adjust: Option<i64>,
    /// Its mounts.
    pub mounts: Vec<Mount>,
    /// Number of its root directory and of the device that has it.
    pub root: Option<(u64, u64)>,
    /// Its users' and its groups' numbers: first inside, first outside, how many.
    pub id_maps: [Vec<[u32; 3]>; 2],
    /// Seconds by which its clocks differ: monotonic, boot time.
    pub time_offsets: Option<(i64, i64)>,
    /// The host name that it sees.
    pub host_name: Option<String>,
    /// The component's group, if the machine has groups.
    pub group: Option<PathBuf>,
}

impl Facts {
    /// Read them. The component's group is the one that is called `declared`.
    pub fn read(pid: i32, declared: &str) -> io::Result<Self> {
        let place = PathBuf::from(format!("/proc/{pid}"));
        let text = |file: &str| fs::read_to_string(place.join(file));
        let stat = text("stat")?;
        let maps =
            ["uid_map", "gid_map"].map(|file| text(file).map(|lines| id_maps(&lines)).unwrap_or_default());
        let namespaces = namespaces(&place)?;
        let facts = Self {
            pid,
            began: field(&stat, 22).unwrap_or_default(),
            status: words(&text("status")?),
            limits: limits(&text("limits")?),
            scheduling: (
                field(&stat, 19).unwrap_or_default(),
                field(&stat, 41).unwrap_or_default(),
                field(&stat, 40).unwrap_or_default(),
            ),
            io_class: io_class(pid),
            oom_score_adjust: text("oom_score_adj").ok().and_then(|score| score.trim().parse().ok()),
            mounts: mounts::parse(&text("mountinfo")?),
            root: fs::metadata(place.join("root/.")).ok().map(|root| (root.dev(), root.ino())),
            id_maps: maps,
            time_offsets: text("timens_offsets").ok().and_then(|lines| time_offsets(&lines)),
            host_name: host_name(&place),
            group: group(&text("cgroup")?, declared),
            namespaces,
        };
        Ok(facts)
    }

    /// Whether the process is still there: another one may get its number.
    pub fn is_current(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        field(&stat, 22) == Some(self.began)
    }

    /// A file of the component's group.
    pub fn group_file(&self, file: &str) -> Option<String> {
        let text = fs::read_to_string(self.group.as_ref()?.join(file)).ok()?;
        Some(text.trim().to_owned())
    }
}

/// Numbers of namespaces that a process is in, by their names in `/proc/PID/ns`.
pub fn namespaces(place: &Path) -> io::Result<BTreeMap<&'static str, u64>> {
    let number = |(_, name): (Namespace, &'static str)| match fs::metadata(place.join("ns").join(name)) {
        Ok(namespace) => Some(Ok((name, namespace.ino()))),
        // A kernel without that kind.
        Err(error) if error.kind() == io::ErrorKind::NotFound && place.exists() => None,
        Err(error) => Some(Err(error)),
    };
    NAMESPACES.into_iter().filter_map(number).collect()
}

/// A field of `/proc/PID/stat`, counted from 1 as in proc_pid_stat(5). The second may have blanks and parentheses in it.
fn field<T: std::str::FromStr>(stat: &str, number: usize) -> Option<T> {
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

/// Lines of a word, a colon and the rest.
fn words(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(word, rest)| (word.to_owned(), rest.trim().to_owned())).collect()
}

/// The table of `/proc/PID/limits`: names have blanks in them, and columns begin where those of the header do.
fn limits(text: &str) -> BTreeMap<String, (Option<u64>, Option<u64>)> {
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let (Some(soft), Some(hard)) = (header.find("Soft"), header.find("Hard")) else {
        return BTreeMap::new();
    };
    let read = |line: &str| {
        let number = |from| line.get(from..)?.split_ascii_whitespace().next();
        let limit = |from| match number(from)? {
            "unlimited" => Some(None),
            number => number.parse().ok().map(Some),
        };
        Some((line.get(..soft)?.trim().to_owned(), (limit(soft)?, limit(hard)?)))
    };
    lines.filter_map(read).collect()
}

/// Lines of three numbers.
fn id_maps(text: &str) -> Vec<[u32; 3]> {
    let read = |line: &str| {
        let numbers: Vec<_> =
            line.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect();
        <[u32; 3]>::try_from(numbers).ok()
    };
    text.lines().filter_map(read).collect()
}

/// Lines of a clock, seconds and nanoseconds.
fn time_offsets(text: &str) -> Option<(i64, i64)> {
    let seconds = |clock: &str| {
        let line = text.lines().find(|line| line.starts_with(clock))?;
        line.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    Some((seconds("monotonic")?, seconds("boottime")?))
}

/// Its class and level (`ioprio_get(2)`: the class is in the bits above the thirteenth).
fn io_class(pid: i32) -> Option<(u8, u8)> {
    const WHO_PROCESS: libc::c_int = 1;
    const CLASS_SHIFT: u32 = 13;
    // SAFETY: a call on numbers, which changes nothing.
    let value = unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, pid) };
    let value = u32::try_from(value).ok()?;
    Some(((value >> CLASS_SHIFT) as u8, (value & 7) as u8))
}

/// What its uts namespace is called: only who is in it can tell, so a thread goes there.
fn host_name(place: &Path) -> Option<String> {
    let namespace = fs::File::open(place.join("ns/uts")).ok()?;
    let visit = move || {
        setns(&namespace, CloneFlags::CLONE_NEWUTS).ok()?;
        gethostname().ok()?.into_string().ok()
    };
    std::thread::spawn(visit).join().ok().flatten()
}

/// The component's group in the hierarchy of version 2, of this path below the supervisor's: the process may be in one
/// inside of it, for each generation may have its own, and a component may have divided what was given to it.
pub fn group(text: &str, declared: &str) -> Option<PathBuf> {
    around(&own_group(text)?, declared).map(Path::to_owned)
}

/// The outermost is the declared one: what is inside of it may be called as the component likes.
fn around<'a>(own: &'a Path, declared: &str) -> Option<&'a Path> {
    let below = Path::new(SUBTREE).join(declared);
    own.ancestors().filter(|around| around.ends_with(&below)).last()
}

/// The group that a process is in.
fn own_group(text: &str) -> Option<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mounts = mounts::parse(&fs::read_to_string("/proc/self/mountinfo").ok()?);
    let hierarchy = mounts.into_iter().find(|mount| mount.kind == "cgroup2")?;
    let own = Path::new(&hierarchy.path).join(path);
    own.join("cgroup.procs").exists().then_some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_is_one_field() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 -5 1 0 4711 1 1";
        assert_eq!((field(stat, 19), field(stat, 22)), (Some(-5_i64), Some(4711)));
        assert_eq!(field::<u64>(stat, 3), None, "a letter");
        assert_eq!(field::<u64>("", 3), None);
    }

    #[test]
    fn limits_are_read_by_the_columns_of_their_header() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max open files            1024                 524288               files     \n\
                    Max core file size        0                    unlimited            bytes     \n\
                    Max nice priority         0                    0                    \n";
        let read = limits(text);
        assert_eq!(read["Max open files"], (Some(1024), Some(524_288)));
        assert_eq!(read["Max core file size"], (Some(0), None));
        assert_eq!(read["Max nice priority"], (Some(0), Some(0)));
    }

    #[test]
    fn the_group_of_a_component_is_the_declared_one_however_it_is_divided() {
        for (own, declared, group) in [
            ("/c/graph/web", "web", Some("/c/graph/web")),
            ("/c/graph/web/.gen-7", "web", Some("/c/graph/web")),
            ("/c/graph/tenant/supervisor", "tenant", Some("/c/graph/tenant")),
            ("/c/graph/supervisor/supervisor", "supervisor", Some("/c/graph/supervisor")),
            ("/c/graph/graph", "graph", Some("/c/graph/graph")),
            ("/c/graph/batch.slice/a/b/own", "batch.slice/a/b", Some("/c/graph/batch.slice/a/b")),
            ("/c/graph/other", "web", None),
            ("/c/web", "web", None),
        ] {
            assert_eq!(around(Path::new(own), declared), group.map(Path::new), "{own}");
        }
    }

    #[test]
    fn maps_and_clocks_are_lines_of_numbers() {
        assert_eq!(id_maps("         0     100000      65536\nx\n"), [[0, 100_000, 65_536]]);
        assert_eq!(
            time_offsets("monotonic           5         0\nboottime           -7         0\n"),
            Some((5, -7))
        );
        assert_eq!(time_offsets(""), None);
    }

    #[test]
    fn this_process_can_be_read() {
        let pid = std::process::id().cast_signed();
        let facts = Facts::read(pid, "none").expect("this process");
        assert!(
            facts.is_current()
                && !Facts { began: 1, ..Facts::read(pid, "none").expect("again") }.is_current()
        );
        assert!(facts.namespaces.contains_key("mnt") && facts.limits.contains_key("Max open files"));
        assert!(facts.mounts.iter().any(|mount| mount.path == "/proc"));
        assert!(facts.status.contains_key("CapBnd") && facts.root.is_some());
    }
}
