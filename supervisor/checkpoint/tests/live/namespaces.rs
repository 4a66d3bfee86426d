//! Processes with namespaces of their own, by the real CRIU, where there is one and the right to use it.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use yakiros_checkpoint::order::{After, Dump, Event, Job, Restore, Step};
use yakiros_checkpoint::preflight::{Isolation, isolation};

use super::{LONG, World, failure};

/// CRIU's name, if it can do what it should here.
fn criu() -> Option<PathBuf> {
    let mut command = Command::new("criu");
    command.args(["check", "--no-default-config"]).stdout(Stdio::null()).stderr(Stdio::null());
    if nix::unistd::geteuid().is_root() && command.status().is_ok_and(|status| status.success()) {
        return Some("criu".into());
    }
    // The suite `checkpointing` tries the same in a machine, whoever runs it.
    eprintln!("not tried: no CRIU that can be used here");
    None
}

/// A shell in namespaces of its own, and a directory that it shares with the machine. Its standard input is from before.
fn isolated(flags: CloneFlags, script: &str) -> (tempfile::TempDir, World) {
    isolated_at(flags, script, "ready")
}

/// The same with a file that is there when it has begun.
fn isolated_at(flags: CloneFlags, script: &str, ready: &str) -> (tempfile::TempDir, World) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = Command::new("sh");
    command.args(["-ec", script]).current_dir(directory.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: these are system calls, which touch no memory.
    unsafe {
        command.pre_exec(move || {
            nix::unistd::setsid()?;
            Ok(unshare(flags)?)
        });
    }
    let world = World::with(command);
    until("it has begun", || directory.path().join(ready).exists());
    (directory, world)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + LONG;
    while !holds() {
        assert!(std::time::Instant::now() < end, "{what}: not within {LONG:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Something in memory with an open file that has no name any more, and directories that are read-only. It counts lines that
/// are written to it, and starts no other process meanwhile: numbers of those could be taken by others.
const FAMILY: &str = "mount --make-rprivate /; mkfifo lines; exec 6<> lines; mkdir own a a/sub b c; \
    mount -t tmpfs -o size=1m,mode=700 tmpfs own; \
    mount --bind a b; mount -o remount,bind,ro,nosuid b; \
    mount --bind a/sub c; mount -o remount,bind,ro,nosuid c; \
    exec 5> own/gone; rm own/gone; echo ready > begun; mv begun ready; \
    n=0; while read line <&6; do n=$((n+1)); echo $n >&5; echo $n > own/count; done";

/// The same in another root directory, with programs of the machine's: where these lie one in the other, CRIU 4.2 loses that
/// they are read-only.
const JAIL: &str = "mount --make-rprivate /; mkdir jail; mkfifo jail/lines; mount --bind jail jail; cd jail; \
    mkdir old own proc usr bin lib lib64; mount --bind /proc proc; for d in usr bin lib lib64; do if [ -d /$d ]; then \
    mount --bind /$d $d; mount -o remount,bind,ro $d; fi; done; mount -t tmpfs tmpfs own; \
    pivot_root . old; umount -l old; echo ready > begun; mv begun ready; exec chroot . sh -c 'exec 6<> /lines; \
    n=0; while read line <&6; do n=$((n+1)); echo $n > /own/count; done'";

/// Have it count one more.
fn count(directory: &Path) {
    fs::write(directory.join("lines"), "one\n").expect("it reads");
}

fn dump(world: &World, criu: &Path) -> Vec<Event> {
    match world.dump(0, LONG) {
        Job::Dump(dump) => {
            world.order(Job::Dump(Dump { criu: criu.to_owned(), after: After::End, ..dump }), "", "")
        }
        other => panic!("{other:?}"),
    }
}

fn restore(world: &World, criu: &Path) -> Vec<Event> {
    let restore = Restore {
        component: "web".to_owned(),
        id: None,
        criu: criu.to_owned(),
        how: super::Remake { given: Vec::new(), ..world.remake(LONG) },
    };
    world.order(Job::Restore(restore), "", "")
}

/// A process that was restored. It ends with the value.
struct Restored(i32);

impl Restored {
    fn of(events: &[Event]) -> Self {
        let pid = events.iter().find_map(|event| match event {
            Event::Restored { pid } => Some(*pid),
            _ => None,
        });
        Self(pid.unwrap_or_else(|| panic!("{events:?}")))
    }

    /// What a process reads at a path.
    fn seen(pid: i32, path: &Path) -> String {
        let inside = Path::new("/proc").join(pid.to_string()).join("root");
        let path = inside.join(path.strip_prefix("/").expect("a whole path"));
        fs::read_to_string(path).unwrap_or_default()
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0);
        // It may have ended by itself.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    }
}

fn id(world: &World) -> i32 {
    i32::try_from(world.process.id()).expect("a number")
}

fn machine() -> String {
    fs::read_to_string("/proc/self/mountinfo").expect("mounts")
}

#[test]
fn what_a_process_has_for_itself_is_as_it_was() {
    let Some(criu) = criu() else { return };
    let flags = [
        CloneFlags::CLONE_NEWNS,
        CloneFlags::CLONE_NEWUTS,
        CloneFlags::CLONE_NEWIPC,
        CloneFlags::CLONE_NEWCGROUP,
    ];
    let (directory, mut world) = isolated(flags.into_iter().collect(), FAMILY);
    let own_count = directory.path().join("own/count");
    let seen = |pid: i32| Restored::seen(pid, &own_count);
    count(directory.path());
    until("it has counted", || seen(id(&world)) == "1\n");
    let (before, on_machine) = (isolation(id(&world)).expect("it is there"), machine());
    let own: Vec<_> = before.namespaces.iter().map(String::as_str).collect();
    assert_eq!(own, ["cgroup", "ipc", "mnt", "uts"]);
    let events = dump(&world, &criu);
    assert!(matches!(events.last(), Some(Event::Done { .. })), "{events:?}");
    assert_eq!(world.ended(), Some(9));
    assert_eq!(world.metadata().isolation, before);
    let restored = Restored::of(&restore(&world, &criu));
    let after: Isolation = isolation(restored.0).expect("it runs");
    assert_eq!(before.difference(&after), None);
    for path in ["b", "c"] {
        let seen = &after.mounts[directory.path().join(path).to_str().expect("text")];
        assert!(seen.options.contains("nosuid") && seen.options.contains("ro"), "{path}: {seen:?}");
    }
    assert_eq!(seen(restored.0), "1\n", "what it had in memory is there");
    count(directory.path());
    until("it goes on", || seen(restored.0) == "2\n");
    let open = fs::read_link(format!("/proc/{}/fd/5", restored.0)).expect("it is open");
    assert!(open.to_string_lossy().ends_with("own/gone (deleted)"), "{open:?}");
    let lines = fs::read_to_string(format!("/proc/{}/fd/5", restored.0)).expect("a file");
    assert_eq!(lines, "1\n2\n");
    assert_eq!(machine(), on_machine, "something is left mounted");
    assert_eq!(fs::read_dir(world.directory.path()).expect("a directory").count(), 1, "the store");
}

#[test]
fn a_root_directory_of_its_own_is_as_it_was() {
    let Some(criu) = criu() else { return };
    let (directory, mut world) = isolated_at(CloneFlags::CLONE_NEWNS, JAIL, "jail/ready");
    let jail = directory.path().join("jail");
    let seen = |pid: i32| Restored::seen(pid, Path::new("/own/count"));
    until("it has come so far", || fs::read_link(format!("/proc/{}/fd/6", world.process.id())).is_ok());
    count(&jail);
    until("it has counted", || seen(id(&world)) == "1\n");
    let before = isolation(id(&world)).expect("it is there");
    let events = dump(&world, &criu);
    assert!(matches!(events.last(), Some(Event::Done { .. })), "{events:?}");
    assert_eq!(world.ended(), Some(9));
    assert_eq!(world.metadata().options.root.as_deref(), Some(&*jail));
    let restored = Restored::of(&restore(&world, &criu));
    let after = isolation(restored.0).expect("it runs");
    assert_eq!(before.difference(&after), None);
    assert!(after.mounts["/usr"].options.contains("ro"), "{:?}", after.mounts);
    count(&jail);
    until("it goes on", || seen(restored.0) == "2\n");
}

#[test]
fn what_would_not_be_as_it_was_does_not_run() {
    let Some(criu) = criu() else { return };
    let script = "mount --make-rprivate /; mkfifo lines; exec 6<> lines; mkdir a b; mount --bind a b; \
                  mount -o remount,bind,ro b; echo ready > begun; mv begun ready; while read line <&6; do :; done";
    let (directory, mut world) = isolated(CloneFlags::CLONE_NEWNS, script);
    let events = dump(&world, &criu);
    assert!(matches!(events.last(), Some(Event::Done { .. })), "{events:?}");
    assert_eq!(world.ended(), Some(9));
    // It would read that if it ran.
    let mut lines = fs::File::options();
    let lines = lines.read(true).write(true).custom_flags(nix::libc::O_NONBLOCK);
    let mut lines = lines.open(directory.path().join("lines")).expect("a fifo");
    std::io::Write::write_all(&mut lines, b"one\n").expect("room");
    // Another place of the machine's has that name now.
    let place = directory.path().to_owned();
    let events = std::thread::scope(|scope| {
        let elsewhere = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
            let sh = |line: &str| Command::new("sh").args(["-ec", line]).current_dir(&place).status();
            sh("mount --make-rprivate /; mount -t tmpfs tmpfs a").expect("mounted");
            restore(&world, &criu)
        });
        elsewhere.join().expect("it is tried")
    });
    let (step, reason) = failure(&events);
    assert_eq!(step, Step::Restore);
    let at = directory.path().join("b");
    let expected = format!("it is not made again: at {} was mounted ", at.display());
    assert!(reason.starts_with(&expected) && reason.contains("and would be tmpfs / ("), "{reason}");
    let mut left = [0; 4];
    std::io::Read::read_exact(&mut lines, &mut left).expect("it has not run");
    assert!(!Path::new("/proc").join(id(&world).to_string()).join("exe").exists(), "it is left");
}

#[test]
fn what_cannot_be_made_again_is_refused_by_its_name() {
    let Some(criu) = criu() else { return };
    let began = "echo ready > begun; mv begun ready; exec sleep 1000000";
    let disk = format!("mount --make-rprivate /; mkdir d; mount -t ramfs ramfs d; {began}");
    let outside = format!("mount --make-rprivate /; exec 7< /etc/passwd; {began}");
    let user = CloneFlags::CLONE_NEWUSER;
    for (flags, script, expected) in [
        (CloneFlags::CLONE_NEWNS, &*disk, "/d (ramfs): the machine does not have this file system mounted"),
        (user, began, "its user namespace: CRIU cannot mount what is mounted there as one of its users"),
    ] {
        let (_directory, mut world) = isolated(flags, script);
        let events = dump(&world, &criu);
        let (step, reason) = failure(&events);
        assert!(step == Step::Preflight && reason.contains(expected), "{reason}");
        assert_eq!(world.ended(), None);
    }
    // What it opened itself is no obstacle, whatever it is.
    let (_directory, mut world) = isolated(CloneFlags::CLONE_NEWNS, &outside);
    let events = dump(&world, &criu);
    assert!(matches!(events.last(), Some(Event::Done { .. })), "{events:?}");
    assert_eq!(world.ended(), Some(9));
}
