//! QEMU dies with the harness, however the harness dies. No VM: a program that only sleeps stands in for QEMU.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use yakiros_vm::qemu::{Accelerator, Hardware, Launch, Platform, Process, Qemu};

/// Set in the copy of this program that plays the harness.
const ROLE: &str = "YAKIROS_TEST_HARNESS_FOLDER";
/// The kernel delivers the signal at once; the rest is for a loaded host.
const DEATH_LIMIT: Duration = Duration::from_secs(10);

fn start(folder: &Path) -> Process {
    let program = folder.join("qemu");
    if !program.exists() {
        // By a process of its own: what is open for writing here is inherited by what another test starts at that moment,
        // and cannot be executed until that one executes something itself.
        let script = r#"printf '#!/bin/sh\nexec sleep 1000\n' > "$0" && chmod 755 "$0""#;
        assert!(Command::new("/bin/sh").args(["-c", script]).arg(&program).status().unwrap().success());
    }
    let hardware = Hardware {
        platform: Platform::Microvm,
        cpus: 1,
        memory_mb: 1,
        kernel: "/no/kernel".into(),
        arguments: Vec::new(),
        disks: Vec::new(),
        network: false,
    };
    let file = tempfile::tempfile_in(folder).unwrap();
    let launch = Launch {
        qemu: &Qemu { binary: program, env: Vec::new(), extra_args: Vec::new() },
        accelerator: Accelerator::Tcg,
        hardware: &hardware,
        ram: &file,
        initrd: &file,
        restore: false,
        directory: folder,
        console_log: &folder.join("console.log"),
        alone: None,
    };
    launch.start().unwrap().0
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name in parentheses; a zombie is dead.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn assert_dies(pid: u32) {
    let start = Instant::now();
    while is_alive(pid) {
        assert!(start.elapsed() < DEATH_LIMIT, "QEMU {pid} is still alive");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn it_dies_when_it_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let process = start(folder.path());
        let pid = process.pid;
        assert!(is_alive(pid));
        drop(process);
        // The task that kills it runs when this one waits.
        let start = Instant::now();
        while is_alive(pid) {
            assert!(start.elapsed() < DEATH_LIMIT, "QEMU {pid} is still alive");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn it_dies_when_the_harness_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "play_the_harness", "--nocapture", "--include-ignored"])
        .env(ROLE, folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(harness.stdout.take().unwrap()).lines();
    let pid: u32 = lines
        .map_while(Result::ok)
        .find_map(|line| line.split("qemu is ").nth(1).and_then(|pid| pid.trim().parse().ok()))
        .expect("the harness says its QEMU's pid");
    assert!(is_alive(pid));
    harness.kill().unwrap(); // SIGKILL: no destructor runs
    harness.wait().unwrap();
    assert_dies(pid);
}

/// Not a test of its own: the body of the process that [`it_dies_when_the_harness_is_killed`] kills.
#[test]
#[ignore = "it is the body of another test"]
fn play_the_harness() {
    let folder = std::env::var_os(ROLE).expect("started by it_dies_when_the_harness_is_killed");
    let done = runtime().block_on(async {
        let process = start(Path::new(&folder));
        println!("qemu is {}", process.pid);
        tokio::time::timeout(Duration::from_secs(60), process.exited()).await
    });
    panic!("nobody killed the harness: {done:?}");
}
