use super::*;
use crate::image::Silent;

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

#[test]
fn output_comes_back() {
    let text = run("try", shell("echo one; echo two >&2"), LOCAL_LIMIT, None, &Silent).unwrap();
    assert_eq!(text, "one\n");
}

#[test]
fn failures_carry_status_and_last_lines() {
    let error = run("try it", shell("echo the cause >&2; exit 7"), LOCAL_LIMIT, None, &Silent).unwrap_err();
    assert!(matches!(error.kind(), ImageErrorKind::Command { .. }), "{error}");
    let text = error.to_string();
    assert!(text.starts_with("try it: `sh -c"), "{text}");
    assert!(text.contains("exit code 7\n  | the cause"), "{text}");
}

#[test]
fn an_unreachable_server_is_told_apart() {
    let script = "echo \"Temporary failure resolving 'host'\" >&2; exit 100";
    let error = run("try", shell(script), LOCAL_LIMIT, None, &Silent).unwrap_err();
    assert!(matches!(error.kind(), ImageErrorKind::Network { .. }), "{error}");
}

#[test]
fn a_missing_program_is_named() {
    let error = run("try", Command::new("/nonexistent/tool"), LOCAL_LIMIT, None, &Silent).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/tool"), "{error}");
}

#[test]
fn a_command_that_takes_too_long_is_killed_with_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("pid");
    let script = format!("sleep 600 & echo $! > {}; wait", mark.display());
    let limit = Duration::from_millis(500);
    let error = run("try", shell(&script), limit, None, &Silent).unwrap_err();
    assert!(matches!(error.kind(), ImageErrorKind::CommandTimeout { .. }), "{error}");
    let pid = fs::read_to_string(&mark).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    // A killed orphan stays visible until it is reaped by whoever inherits it.
    let gone = (0..100).any(|_| {
        thread::sleep(Duration::from_millis(20));
        fs::read_to_string(&stat).map_or(true, |text| text.contains(") Z "))
    });
    assert!(gone, "the grandchild survived");
}

#[test]
fn an_orphan_that_holds_the_output_does_not_block() {
    let start = Instant::now();
    run("try", shell("sleep 600 &"), LOCAL_LIMIT, None, &Silent).unwrap();
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn settings_are_left_out_of_messages() {
    let mut command = Command::new("/usr/bin/apt-get");
    command.args(["-oDir::State=/long", "update"]);
    assert_eq!(command_line(&command), "apt-get update");
}

#[test]
fn wrong_and_truncated_files_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let sha = hash_bytes(b"right");
    fs::write(&path, "wrong").unwrap();
    let error = check_file("fetch", "thing", &path, Some(5), &sha).unwrap_err();
    let ImageErrorKind::Hash { name, expected, found, .. } = error.kind() else { panic!("{error}") };
    assert_eq!((name.as_str(), expected, found), ("thing", &sha, &hash_bytes(b"wrong")));
    assert!(!path.exists());

    fs::write(&path, "rig").unwrap();
    let error = check_file("fetch", "thing", &path, Some(5), &sha).unwrap_err();
    assert!(matches!(error.kind(), ImageErrorKind::Truncated { expected: 5, found: 3, .. }), "{error}");
    assert!(!path.exists());

    fs::write(&path, "right").unwrap();
    assert_eq!(check_file("fetch", "thing", &path, Some(5), &sha).unwrap(), 5);
}

#[test]
fn space_is_asked_for_first() {
    let error = ensure_space("fetch", Path::new("/"), u64::MAX).unwrap_err();
    assert!(matches!(error.kind(), ImageErrorKind::NoSpace { needed: Some(_), .. }), "{error}");
    // A directory that does not exist yet is on its parent's file system.
    assert!(ensure_space("fetch", Path::new("/tmp/not/there/yet"), 1).is_ok());
}

#[test]
fn a_full_device_is_reported_as_full() {
    let mut full = File::options().write(true).open("/dev/full").unwrap();
    let error = hash_copy(&mut &b"data"[..], &mut full).at("store", Path::new("/dev/full")).unwrap_err();
    assert!(matches!(error.kind(), ImageErrorKind::NoSpace { needed: None, .. }), "{error}");
}

#[test]
fn output_is_bounded() {
    let long = vec![b'x'; 100_000];
    assert_eq!(read_bounded(&long[..], 10, false).len(), 10);
    let mut text = long.clone();
    text.extend_from_slice(b"end");
    assert_eq!(read_bounded(&text[..], 5, true), b"xxend");
}
