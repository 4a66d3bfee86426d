//! The machine as process 1 finds it, and as it needs it.
//!
//! Every step is done only if it is not done yet, for whatever ran before may have done some. A
//! step that fails is reported and the rest goes on: a half-prepared machine with a control
//! socket can be mended, one without cannot.

use std::ffi::CStr;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::libc;
use nix::mount::{MsFlags, mount};

use crate::NO_FILES;
use crate::spawn::Common;
use crate::sys::FILES_WANTED;

/// The OOM score of process 1 of a namespace: its end would be that of all in it. Process 1 of the machine is never chosen
/// by the kernel, and with an ordinary score its children need not change theirs.
const OOM_SCORE: &str = "-1000";

/// The number after which the first component's process comes, at least. Processes are restored with the numbers that
/// they had, and on another kernel its own threads have the first ones: some hundreds, with each processor more.
const FIRST_NUMBER: i32 = 5000;

/// The setting with the last number that a process got.
pub const LAST_NUMBER: &str = "/proc/sys/kernel/ns_last_pid";

/// Messages that a datagram socket holds before its senders are held up: as many as systemd sets as process 1. The
/// kernel's own 10 hold a component up whenever its supervisor is busy for a moment.
const DATAGRAMS: u32 = 512;

/// An early file system: kind, place, flags, options.
type Early = (&'static str, &'static str, MsFlags, &'static str);

const SAFE: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// The option of a hierarchy of control groups by which who is in a cgroup namespace cannot change the limits of its root.
const DELEGATE: &str = "nsdelegate";

/// The other options of such a hierarchy (`Documentation/admin-guide/cgroup-v2.rst`).
const HIERARCHY_OPTIONS: [&str; 5] = [
    "favordynmods",
    "memory_localevents",
    "memory_recursiveprot",
    "memory_hugetlb_accounting",
    "pids_localevents",
];

/// In order: later ones lie in earlier ones.
const EARLY: &[Early] = &[
    ("proc", "/proc", SAFE, ""),
    ("sysfs", "/sys", SAFE, ""),
    ("devtmpfs", "/dev", MsFlags::MS_NOSUID, "mode=0755"),
    ("devpts", "/dev/pts", MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC), "gid=5,mode=0620,ptmxmode=0666"),
    ("tmpfs", "/run", MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV), "mode=0755"),
];

/// Make sure that 0, 1 and 2 are open, so that no later descriptor gets one of these numbers.
pub fn open_standard_descriptors() {
    for number in 0..3 {
        // SAFETY: asking for the flags of a number has no effect.
        let open = unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0;
        if !open {
            // SAFETY: the lowest free number is this one, for those below are open. It stays
            // open for the life of the process. Without /dev the call fails, and so what.
            unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
        }
    }
}

/// Mounts, loopback, limits. Returns what did not work, for a log that is not open yet.
pub fn prepare(cgroup_root: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    for (kind, place, flags, options) in EARLY {
        if let Err(error) = mount_early(kind, Path::new(place), *flags, options) {
            problems.push(format!("failed to mount {kind} on {place}: {error}"));
        }
    }
    // The root may be a directory inside a hierarchy that is mounted already.
    let kind = nix::sys::statfs::statfs(cgroup_root).map(|stat| stat.filesystem_type());
    if kind != Ok(nix::sys::statfs::CGROUP2_SUPER_MAGIC)
        && let Err(error) = mount_early("cgroup2", cgroup_root, SAFE, DELEGATE)
    {
        let place = cgroup_root.display();
        problems.push(format!("failed to mount cgroup2 on {place}: {error}"));
    }
    // Below another init it is that one's business.
    if is_whole_machine()
        && let Err(error) = delegate(cgroup_root)
    {
        problems.push(format!("a component in a cgroup namespace can lift its limits: {error}"));
    }
    open_standard_descriptors();
    if let Err(error) = raise_loopback() {
        problems.push(format!("failed to bring the loopback interface up: {error}"));
    }
    if !is_whole_machine()
        && let Err(error) = fs::write("/proc/self/oom_score_adj", OOM_SCORE)
    {
        problems.push(format!("failed to lower the OOM score: {error}"));
    }
    if let Err(error) = lengthen_queues(Path::new("/proc/sys/net/unix/max_dgram_qlen")) {
        problems.push(format!("failed to lengthen the queues of sockets: {error}"));
    }
    // Below another init it is that one's business. Without the setting there are no checkpoints either.
    let numbers = Path::new(LAST_NUMBER);
    if is_whole_machine()
        && numbers.exists()
        && let Err(error) = begin_after(numbers, FIRST_NUMBER)
    {
        problems.push(format!("failed to keep numbers free for threads of another kernel: {error}"));
    }
    // ctrl-alt-del sends SIGINT instead of restarting at once.
    // SAFETY: a call on a number; without the right to it nothing happens.
    unsafe { libc::reboot(libc::LINUX_REBOOT_CMD_CAD_OFF) };
    problems
}

fn mount_early(kind: &str, place: &Path, flags: MsFlags, options: &str) -> io::Result<()> {
    if is_mount_point(place) {
        return Ok(());
    }
    fs::create_dir_all(place)?;
    let options = (!options.is_empty()).then_some(options);
    match mount(Some(kind), place, Some(kind), flags, options) {
        // Somebody has it mounted in a way that does not show.
        Err(nix::errno::Errno::EBUSY) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Have the roots of cgroup namespaces keep the limits that they have from outside, whoever has mounted the hierarchy.
fn delegate(cgroup_root: &Path) -> io::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let place = cgroup_root.to_string_lossy();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mut own =
        fields.filter(|fields| fields.get(1) == Some(&&*place) && fields.get(2) == Some(&"cgroup2"));
    // The root may be a directory inside of a hierarchy.
    let Some(options) = own.next_back().and_then(|fields| fields.get(3).copied()) else { return Ok(()) };
    if options.split(',').any(|option| option == DELEGATE) {
        return Ok(());
    }
    // A remount sets all options of the hierarchy anew.
    let kept = options.split(',').filter(|option| HIERARCHY_OPTIONS.contains(option));
    let all = kept.chain([DELEGATE]).collect::<Vec<_>>().join(",");
    let flags = SAFE | MsFlags::MS_REMOUNT;
    Ok(mount(None::<&str>, cgroup_root, None::<&str>, flags, Some(all.as_str()))?)
}

/// Let datagram sockets that are made from now on hold [`DATAGRAMS`], unless they hold more already.
fn lengthen_queues(setting: &Path) -> io::Result<()> {
    let now: u32 = fs::read_to_string(setting)?.trim().parse().map_err(io::Error::other)?;
    if now < DATAGRAMS { fs::write(setting, DATAGRAMS.to_string()) } else { Ok(()) }
}

/// Have the next process get a number after this one, and after those that were given.
///
/// # Errors
/// Those of the setting.
pub fn begin_after(setting: &Path, number: i32) -> io::Result<()> {
    let last: i32 = fs::read_to_string(setting)?.trim().parse().map_err(io::Error::other)?;
    if last < number { fs::write(setting, number.to_string()) } else { Ok(()) }
}

/// Whether something is mounted on `place`: it lies on another device than its parent.
fn is_mount_point(place: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    let parent = place.parent().unwrap_or(Path::new("/"));
    match (device(place), device(parent)) {
        (Ok(own), Ok(parent)) => own.0 != parent.0,
        _ => false,
    }
}

/// An interface request as the kernel takes it: a name and the flags.
#[repr(C)]
struct InterfaceFlags {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

fn raise_loopback() -> io::Result<()> {
    let mut request = InterfaceFlags { name: [0; libc::IFNAMSIZ], flags: 0, rest: [0; 22] };
    request.name[..2].copy_from_slice(b"lo");
    // SAFETY: a new descriptor that nobody else owns; the requests get a structure of the size
    // that the kernel copies.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        let socket = OwnedFd::from_raw_fd(socket);
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request) != 0 {
            return Err(io::Error::last_os_error());
        }
        let up = libc::IFF_UP as libc::c_short;
        if request.flags & up != 0 {
            return Ok(());
        }
        request.flags |= up;
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw mut request) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// What every child is lent; raises the supervisor's own limit of open files on the way.
pub fn common() -> io::Result<Common> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let lowered =
        fs::read_to_string("/proc/self/oom_score_adj").is_ok_and(|score| score.trim().starts_with('-'));
    Ok(Common { null: null.into(), files: raise_file_limit(), oom_lowered: lowered })
}

/// Raise the limit of open files as far as allowed, and return the one before.
fn raise_file_limit() -> libc::rlimit {
    let mut before = NO_FILES;
    // SAFETY: the pointers are to locals.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut before);
        let wanted = libc::rlimit {
            rlim_cur: FILES_WANTED.max(before.rlim_cur),
            rlim_max: FILES_WANTED.max(before.rlim_max),
        };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const wanted) != 0 {
            let allowed = libc::rlimit { rlim_cur: before.rlim_max, rlim_max: before.rlim_max };
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const allowed);
        }
    }
    before
}

/// Why no other kernel can be executed in place of this one, if none can.
pub fn kexec_refusal() -> Option<&'static str> {
    let is_first = std::process::id() == 1 && is_whole_machine();
    kexec_refusal_of(is_first, is_kernel_loaded())
}

fn kexec_refusal_of(is_first: bool, is_loaded: bool) -> Option<&'static str> {
    match (is_first, is_loaded) {
        (false, _) => {
            Some("only process 1 of the machine executes another kernel, and this supervisor is not it")
        }
        (true, false) => Some("no kernel is loaded: graphctl kexec loads one, and asks for this itself"),
        (true, true) => None,
    }
}

fn is_kernel_loaded() -> bool {
    fs::read_to_string("/sys/kernel/kexec_loaded").is_ok_and(|text| text.trim() == "1")
}

/// Whether this is the first process namespace: only there the machine's own file systems are
/// ours to take down.
pub fn is_whole_machine() -> bool {
    /// `PROC_PID_INIT_INO` of the kernel.
    const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;
    fs::metadata("/proc/self/ns/pid").is_ok_and(|meta| meta.ino() == FIRST_PID_NAMESPACE)
}

/// The console, for those who have to talk to a person.
pub const CONSOLE: &CStr = c"/dev/console";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_kernel_is_executed_by_process_1_of_the_machine_once_it_is_loaded() {
        let refusal = |is_first, is_loaded| kexec_refusal_of(is_first, is_loaded).unwrap_or_default();
        assert!(refusal(false, true).starts_with("only process 1 of the machine"));
        assert!(refusal(false, false).starts_with("only process 1 of the machine"));
        assert!(refusal(true, false).starts_with("no kernel is loaded"));
        assert_eq!(kexec_refusal_of(true, true), None);
        // Whoever runs the tests is not process 1.
        assert_eq!(kexec_refusal(), kexec_refusal_of(false, false));
    }

    #[test]
    fn numbers_begin_above_those_of_threads() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let setting = dir.path().join("ns_last_pid");
        for (before, after) in [("100\n", "5000"), ("5000\n", "5000\n"), ("30000\n", "30000\n")] {
            fs::write(&setting, before).expect("a setting");
            begin_after(&setting, FIRST_NUMBER).expect("set");
            assert_eq!(fs::read_to_string(&setting).expect("a setting"), after);
        }
        assert!(begin_after(&dir.path().join("none"), FIRST_NUMBER).is_err());
    }

    #[test]
    fn queues_are_lengthened_and_never_shortened() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let setting = dir.path().join("max_dgram_qlen");
        for (before, after) in [("10\n", "512"), ("511\n", "512"), ("512\n", "512\n"), ("4096\n", "4096\n")] {
            fs::write(&setting, before).expect("a setting");
            lengthen_queues(&setting).expect("lengthened");
            assert_eq!(fs::read_to_string(&setting).expect("a setting"), after);
        }
        assert!(lengthen_queues(&dir.path().join("none")).is_err());
    }
}
