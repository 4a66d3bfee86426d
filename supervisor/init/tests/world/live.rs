//! Changes of the configuration directory while the supervisor runs.

use yakiros_core::control::Until;
use yakiros_core::journal::State;

use crate::guest::{Guest, sleeper};

#[test]
fn files_act_live() {
    let Some(guest) = Guest::start("live") else {
        return;
    };
    guest.wait("steady", State::Active, None);
    let steady = guest.component("steady").pid;
    // Added.
    guest.declare("late.toml", &sleeper("late", ""));
    let added = guest.wait("late", State::Active, None);
    let first = guest.component("late").pid;
    // A change that the process cannot see.
    let health = "[lifecycle]\nrestart_max = 7";
    guest.declare("late.toml", &sleeper("late", health));
    guest.settle();
    assert_eq!(guest.component("late").pid, first);
    // One that it can.
    let other = sleeper("late", health).replace("100000", "200000");
    guest.declare("late.toml", &other);
    let changed = guest.wait("late", State::Active, Some(added));
    assert_ne!(guest.component("late").pid, first);
    // Moved to another file: the same component.
    let second = guest.component("late").pid;
    std::fs::rename(guest.config().join("late.toml"), guest.config().join("later.toml")).expect("rename");
    guest.settle();
    assert_eq!(guest.component("late").pid, second);
    // Removed.
    guest.undeclare("later.toml");
    guest.wait("late", State::Removed, Some(changed));
    assert_eq!(guest.status().0.len(), 1);
    assert_eq!(guest.component("steady").pid, steady);
}

#[test]
fn a_malformed_file_harms_nobody() {
    let Some(guest) = Guest::start("malformed") else {
        return;
    };
    guest.wait("good", State::Active, None);
    let (components, rejected) = guest.status();
    assert_eq!(components.len(), 1);
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].file, guest.config().join("broken.toml").to_string_lossy());
    let finding = &rejected[0].diagnostics[0];
    assert_eq!(finding.line, 3, "{finding:?}");
    // A running component whose file breaks runs on.
    let pid = guest.component("good").pid;
    guest.declare("good.toml", "[component\n");
    guest.wait_until(Until::Rejected { file: "good.toml".to_owned() });
    assert_eq!(guest.component("good").pid, pid);
    // Mended.
    guest.declare("broken.toml", &sleeper("mended", ""));
    guest.wait("mended", State::Active, None);
}

#[test]
fn a_duplicate_name_names_both_files() {
    let Some(guest) = Guest::start("duplicate") else {
        return;
    };
    guest.wait("twin", State::Active, None);
    let (components, rejected) = guest.status();
    assert_eq!(components.len(), 1);
    assert_eq!(rejected.len(), 1);
    let message = &rejected[0].diagnostics[0].message;
    for file in ["one.toml", "two.toml"] {
        assert!(message.contains(file), "{message}");
    }
    // The first one goes: the second takes its place.
    let before = guest.component("twin").pid;
    guest.undeclare("one.toml");
    guest.settle();
    assert_eq!(guest.status().1, []);
    assert_eq!(guest.component("twin").state, State::Active);
    assert_ne!(guest.component("twin").pid, before, "its arguments differ");
}

#[test]
fn an_optional_capability_is_waited_for_only_while_it_may_come() {
    let Some(guest) = Guest::start("optional") else {
        return;
    };
    guest.settle();
    let order = guest.entered(State::Active, 0);
    assert!(order.contains(&"logger".to_owned()));
    let place = |name: &str| order.iter().position(|n| n == name).expect("active");
    assert!(place("logger") < place("app"), "{order:?}");
    // Its provider cannot start, or is not declared: not waited for.
    assert_eq!(guest.component("loner").state, State::Active);
}

#[test]
fn a_file_counts_however_it_appears() {
    use std::os::unix::ffi::OsStrExt as _;
    let Some(guest) = Guest::start("live") else {
        return;
    };
    guest.wait("steady", State::Active, None);
    // Linked into place, and its other name removed: there is no event but its creation.
    let beside = guest.dir.path().join("beside");
    std::fs::write(&beside, sleeper("linked", "")).expect("component file");
    std::fs::hard_link(&beside, guest.config().join("linked.toml")).expect("link");
    std::fs::remove_file(&beside).expect("component file");
    guest.wait("linked", State::Active, None);
    // The same while its writer still has it open under the other name: its end gives no event.
    let mut late = std::fs::File::create(&beside).expect("component file");
    std::fs::hard_link(&beside, guest.config().join("late.toml")).expect("link");
    std::fs::remove_file(&beside).expect("component file");
    std::thread::sleep(std::time::Duration::from_millis(300));
    std::io::Write::write_all(&mut late, sleeper("late", "").as_bytes()).expect("component file");
    drop(late);
    guest.wait("late", State::Active, None);
    // Slowly written: it counts when it is complete, and is not refused before.
    let mut slow = std::fs::File::create(guest.config().join("slow.toml")).expect("component file");
    std::thread::sleep(std::time::Duration::from_millis(300));
    guest.settle();
    assert_eq!(guest.status().1, []);
    std::io::Write::write_all(&mut slow, sleeper("slow", "").as_bytes()).expect("component file");
    drop(slow);
    guest.wait("slow", State::Active, None);
    // What cannot be a component file is refused by name.
    std::os::unix::fs::symlink("/nowhere", guest.config().join("dangling.toml")).expect("link");
    let name = std::ffi::OsStr::from_bytes(b"odd\xff.toml");
    std::fs::write(guest.config().join(name), sleeper("odd", "")).expect("component file");
    guest.wait_until(Until::Rejected { file: "dangling.toml".to_owned() });
    guest.wait_until(Until::Rejected { file: "odd\\xff.toml".to_owned() });
    let messages: Vec<_> = guest.status().1.iter().map(|r| r.diagnostics[0].message.clone()).collect();
    assert!(messages[0].contains("a link to /nowhere"), "{messages:?}");
    assert!(messages[1].contains("not UTF-8"), "{messages:?}");
    guest.undeclare("dangling.toml");
    std::fs::remove_file(guest.config().join(name)).expect("component file");
    guest.settle();
    assert_eq!(guest.status().1, []);
}

#[test]
fn a_directory_that_is_replaced_is_watched_again() {
    let Some(guest) = Guest::start("live") else {
        return;
    };
    let since = guest.wait("steady", State::Active, None);
    let pid = guest.component("steady").pid;
    // The careful way: the new one has what the old one had, and more.
    let (new, old) = (guest.dir.path().join("new"), guest.dir.path().join("old"));
    std::fs::create_dir(&new).expect("directory");
    for file in std::fs::read_dir(guest.config()).expect("directory").flatten() {
        std::fs::copy(file.path(), new.join(file.file_name())).expect("component file");
    }
    std::fs::write(new.join("more.toml"), sleeper("more", "")).expect("component file");
    std::fs::rename(guest.config(), &old).expect("rename");
    std::fs::rename(&new, guest.config()).expect("rename");
    guest.wait("more", State::Active, None);
    assert_eq!(guest.component("steady").pid, pid, "it did not notice");
    // The new one is watched, the old one is not.
    std::fs::write(old.join("stray.toml"), sleeper("stray", "")).expect("component file");
    guest.declare("later.toml", &sleeper("later", ""));
    guest.wait("later", State::Active, None);
    assert!(guest.status().0.iter().all(|component| &*component.name != "stray"));
    // Deleted: its components go, and it is there again.
    std::fs::remove_dir_all(guest.config()).expect("directory");
    guest.wait("steady", State::Removed, Some(since));
    crate::guest::until("the directory", || guest.config().exists().then_some(()));
    guest.declare("back.toml", &sleeper("back", ""));
    guest.wait("back", State::Active, None);
}

#[test]
fn limits_change_on_what_runs() {
    let Some(guest) = Guest::start("live") else {
        return;
    };
    guest.wait("steady", State::Active, None);
    guest.declare("limited.toml", &sleeper("limited", ""));
    guest.wait("limited", State::Active, None);
    let pid = guest.component("limited").pid;
    // By the numbers of the supervisor's own namespace.
    let limit = || {
        let test = format!("grep -q 'open files  *{} ' /proc/{}/limits", 77, pid.expect("running"));
        guest.inside(&["sh", "-c", &test]).success()
    };
    assert!(!limit());
    let before = guest.records(0).len();
    guest.declare("limited.toml", &sleeper("limited", "[resources]\nfiles_max = 77"));
    guest.settle();
    assert!(limit(), "{:?}", guest.component("limited"));
    guest.declare("limited.toml", &sleeper("limited", ""));
    guest.settle();
    let after = guest.component("limited");
    assert_eq!((after.state, after.pid), (State::Active, pid));
    let remarks = guest.records(0).split_off(before);
    if limit() {
        // Root of a user namespace may not raise a limit again: it runs on, and that is said.
        let detail = after.detail.expect("a reason");
        let said = "the new limits do not hold: files_max: Operation not permitted";
        assert!(detail.starts_with(said), "{detail}");
        assert_eq!(remarks.len(), 1, "{remarks:?}");
        assert_eq!((remarks[0].from, remarks[0].to), (State::Active, State::Active));
        assert!(remarks[0].cause.to_string().starts_with(said));
    } else {
        assert_eq!((after.detail, remarks), (None, Vec::new()));
    }
}
