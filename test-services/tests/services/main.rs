//! Runs every service as a process and looks at what it does.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use support::{ALL, Service, output, path_text, until};

#[test]
fn every_service_explains_itself() {
    for (name, program) in ALL {
        let help = output(program, &["--help"]);
        assert!(help.status.success(), "{name}");
        let text = String::from_utf8(help.stdout).unwrap();
        assert!(text.contains(&format!("Usage: {name}")), "{name}: {text}");
    }
}

#[test]
fn every_service_refuses_a_wrong_command_line() {
    for (name, program) in ALL {
        let refused = output(program, &["--wrong"]);
        assert_eq!(refused.status.code(), Some(2), "{name}");
        let expected = format!("{name}: unknown option --wrong; see {name} --help\n");
        assert_eq!(String::from_utf8(refused.stderr).unwrap(), expected);
    }
}

#[test]
fn echo_server_echoes_to_many_at_once_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let ready = folder.path().join("ready");
    let mut server = Service::start(
        env!("CARGO_BIN_EXE_test-echo-server"),
        &["--listen", "127.0.0.1:0", "--ready-file", path_text(&ready)],
    );
    let address = server.address();
    until("the server is ready", || ready.exists());
    let mut clients: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(&address).unwrap()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.write_all(format!("{number:04}").as_bytes()).unwrap();
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let mut answer = [0; 4];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, format!("{number:04}").as_bytes());
    }
    assert_eq!(server.stop(Signal::SIGTERM).code(), Some(0));
}

#[test]
fn echo_server_lets_clients_wait_when_there_are_too_many() {
    let mut server = Service::start(
        env!("CARGO_BIN_EXE_test-echo-server"),
        &["--listen", "127.0.0.1:0", "--max-clients", "1"],
    );
    let address = server.address();
    let echo = |client: &mut TcpStream| {
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
    };
    let mut first = TcpStream::connect(&address).unwrap();
    echo(&mut first);
    let mut second = TcpStream::connect(&address).unwrap();
    second.write_all(b"y").unwrap();
    second.set_nonblocking(true).unwrap();
    for _ in 0..20 {
        echo(&mut first);
        assert_eq!(second.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    drop(first);
    second.set_nonblocking(false).unwrap();
    second.read_exact(&mut [0]).unwrap();
    assert_eq!(server.stop(Signal::SIGTERM).code(), Some(0));
}

#[test]
fn echo_server_says_why_it_cannot_listen() {
    // An address for documentation, which no machine has.
    let failed = output(env!("CARGO_BIN_EXE_test-echo-server"), &["--listen", "192.0.2.1:80"]);
    assert_eq!(failed.status.code(), Some(1));
    let message = String::from_utf8(failed.stderr).unwrap();
    assert!(message.starts_with("test-echo-server: failed to listen on 192.0.2.1:80: "), "{message}");
    let refused = output(env!("CARGO_BIN_EXE_test-echo-server"), &["--listen", "nowhere"]);
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn idle_is_named_and_stops_at_once() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let folder = tempfile::tempdir().unwrap();
        let ready = folder.path().join("ready");
        let idle = Service::start(
            env!("CARGO_BIN_EXE_test-idle"),
            &["--name", "idle-17", "--ready-file", path_text(&ready)],
        );
        until("the service is ready", || ready.exists());
        let name = fs::read_to_string(format!("/proc/{}/comm", idle.pid())).unwrap();
        assert_eq!(name, "idle-17\n");
        assert_eq!(idle.stop(signal).code(), Some(0));
    }
}

#[test]
fn ready_reports_once_the_gate_is_open_and_only_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let socket = UnixDatagram::bind(path("socket")).unwrap();
    socket.set_nonblocking(true).unwrap();
    let (gate, file) = (path("gate"), path("file"));
    let shell = format!(
        "exec 7>&1; NOTIFY_FD=7 NOTIFY_SOCKET={} exec {} --socket --gate {} --file {}",
        path_text(&path("socket")),
        env!("CARGO_BIN_EXE_test-ready"),
        path_text(&gate),
        path_text(&file)
    );
    let service = Service::start("/bin/sh", &["-c", &shell]);
    let mut message = [0; 64];
    assert!(!file.exists() && socket.recv(&mut message).is_err(), "the gate is closed");
    fs::write(&gate, "").unwrap();
    until("the file", || file.exists());
    let count = socket.recv(&mut message).unwrap();
    assert_eq!(&message[..count], b"READY=1\n");
    assert_eq!(service.stop(Signal::SIGTERM).code(), Some(0));
}

#[test]
fn readiness_is_a_newline_on_the_descriptor_that_was_named() {
    let shell = format!("exec 7>&1; NOTIFY_FD=7 exec {} >/dev/null", env!("CARGO_BIN_EXE_test-idle"));
    let mut service = Service::start("/bin/sh", &["-c", &shell]);
    assert_eq!(service.line(), "\n");
    assert_eq!(service.line(), "", "the descriptor is closed");
    assert_eq!(service.stop(Signal::SIGTERM).code(), Some(0));
    let refused = Command::new(env!("CARGO_BIN_EXE_test-idle")).env("NOTIFY_FD", "1").output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        String::from_utf8(refused.stderr).unwrap().contains("NOTIFY_FD=1 is not the number of a descriptor")
    );
}

#[test]
fn oneshot_leaves_a_line_and_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trace");
    for code in ["0", "7"] {
        let program = env!("CARGO_BIN_EXE_test-oneshot");
        let status = Command::new(program)
            .args(["--append", path_text(&file), "--exit-code", code])
            .env("GRAPH_COMPONENT", "migrate")
            .status()
            .unwrap();
        assert_eq!(status.code(), code.parse().ok());
    }
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 2);
    assert!(
        text.lines().all(|line| line.starts_with("pid=") && line.ends_with(" component=migrate")),
        "{text}"
    );
    assert_eq!(output(env!("CARGO_BIN_EXE_test-oneshot"), &[]).status.code(), Some(2));
    let unwritable = output(env!("CARGO_BIN_EXE_test-oneshot"), &["--append", "/nowhere/file"]);
    assert_eq!(unwritable.status.code(), Some(1));
}

#[test]
fn orphan_is_inherited_and_ends_when_the_file_appears() {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [pid_file, until_file] = ["pid", "until"].map(|name| folder.path().join(name));
    let args = ["--pid-file", path_text(&pid_file), "--until", path_text(&until_file)];
    // Not `output`: the orphan keeps standard output open.
    assert!(Command::new(env!("CARGO_BIN_EXE_test-orphan")).args(args).status().unwrap().success());
    let pid = Pid::from_raw(fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap());
    assert!(kill(pid, None).is_ok(), "the grandchild outlives its parents");
    fs::write(&until_file, "").unwrap();
    assert_eq!(waitpid(pid, None), Ok(WaitStatus::Exited(pid, 0)));
}

#[test]
fn orphan_does_not_wait_for_ever_and_its_service_can_stay() {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [pid_file, until_file] = ["pid", "until"].map(|name| folder.path().join(name));
    let args =
        ["--stay", "--limit-ms", "50", "--pid-file", path_text(&pid_file), "--until", path_text(&until_file)];
    let service = Service::start(env!("CARGO_BIN_EXE_test-orphan"), &args);
    until("the orphan is there", || pid_file.exists());
    let pid = Pid::from_raw(fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap());
    until("the orphan belongs to us", || parent_of(pid) == Some(std::process::id()));
    assert_eq!(waitpid(pid, None), Ok(WaitStatus::Exited(pid, 3)));
    assert_eq!(service.stop(Signal::SIGTERM).code(), Some(0));
}

/// The parent of a process, from the field after its name and state.
fn parent_of(pid: Pid) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn flood_writes_what_was_asked_for() {
    let all = output(env!("CARGO_BIN_EXE_test-flood"), &["--lines", "1000", "--bytes", "20"]).stdout;
    assert_eq!(all.len(), 20_000);
    let text = String::from_utf8(all).unwrap();
    for (number, line) in text.lines().enumerate() {
        assert_eq!(line, format!("{number:012} xxxxxx"));
    }
    for wrong in ["13", "1048577", "x"] {
        assert_eq!(output(env!("CARGO_BIN_EXE_test-flood"), &["--bytes", wrong]).status.code(), Some(2));
    }
}

#[test]
fn flood_keeps_its_rate_and_dies_of_sigterm() {
    let start = Instant::now();
    output(env!("CARGO_BIN_EXE_test-flood"), &["--rate", "100", "--lines", "21"]);
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
    let mut flood = Service::start(env!("CARGO_BIN_EXE_test-flood"), &[]);
    flood.line();
    assert_eq!(flood.stop(Signal::SIGTERM).signal(), Some(Signal::SIGTERM as i32));
}

#[test]
fn exit_ends_as_it_was_told() {
    let program = env!("CARGO_BIN_EXE_test-exit");
    assert_eq!(output(program, &[]).status.code(), Some(0));
    assert_eq!(output(program, &["--code", "42"]).status.code(), Some(42));
    for (name, signal) in [("SEGV", Signal::SIGSEGV), ("SIGTERM", Signal::SIGTERM), ("KILL", Signal::SIGKILL)]
    {
        assert_eq!(output(program, &["--signal", name]).status.signal(), Some(signal as i32));
    }
    let start = Instant::now();
    assert_eq!(output(program, &["--after-ms", "100"]).status.code(), Some(0));
    assert!(start.elapsed() >= Duration::from_millis(100));
    for wrong in [&["--code", "256"][..], &["--signal", "NONE"], &["--code", "1", "--signal", "TERM"]] {
        assert_eq!(output(program, wrong).status.code(), Some(2), "{wrong:?}");
    }
    assert_eq!(output(program, &["--signal", "CHLD"]).status.code(), Some(1));
}

#[test]
fn stubborn_stays_until_it_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let ready = folder.path().join("ready");
    let mut service =
        Service::start(env!("CARGO_BIN_EXE_test-stubborn"), &["--ready-file", path_text(&ready)]);
    until("the service is ready", || ready.exists());
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        kill(service.pid(), signal).unwrap();
        assert_eq!(service.line(), format!("ignored {signal}\n"));
    }
    assert_eq!(service.stop(Signal::SIGKILL).signal(), Some(Signal::SIGKILL as i32));
    let end = output(env!("CARGO_BIN_EXE_test-stubborn"), &["--limit-s", "0"]);
    assert_eq!(end.status.code(), Some(0));
}

#[test]
fn writer_ends_its_file_properly() {
    let folder = tempfile::tempdir().unwrap();
    let [file, ready] = ["file", "ready"].map(|name| folder.path().join(name));
    let args = ["--file", path_text(&file), "--interval-ms", "1", "--ready-file", path_text(&ready)];
    let writer = Service::start(env!("CARGO_BIN_EXE_test-writer"), &args);
    until("the first line is there", || ready.exists());
    until("there are more lines", || fs::read_to_string(&file).unwrap().lines().count() > 5);
    assert_eq!(writer.stop(Signal::SIGTERM).code(), Some(0));
    let lines: Vec<String> =
        BufReader::new(fs::File::open(&file).unwrap()).lines().map(Result::unwrap).collect();
    let (last, numbered) = lines.split_last().unwrap();
    assert_eq!(*last, format!("last {}", numbered.len()));
    for (number, line) in (1..).zip(numbered) {
        assert_eq!(*line, format!("{number}"));
    }
}

#[test]
fn writer_stops_at_its_limit_and_still_waits_for_the_signal() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let args = ["--file", path_text(&file), "--interval-ms", "0", "--max-lines", "3"];
    let writer = Service::start(env!("CARGO_BIN_EXE_test-writer"), &args);
    until("all lines are there", || fs::read_to_string(&file).is_ok_and(|text| text == "1\n2\n3\n"));
    assert_eq!(writer.stop(Signal::SIGTERM).code(), Some(0));
    assert_eq!(fs::read_to_string(&file).unwrap(), "1\n2\n3\nlast 3\n");
}

#[test]
fn stamp_notes_its_birth_beside_those_of_others_and_lets_in_who_connects() {
    let folder = tempfile::tempdir().unwrap();
    let [file, socket] = ["file", "socket"].map(|name| folder.path().join(name));
    fs::write(&file, "1\n").unwrap();
    let args = ["--file", path_text(&file), "--unix", path_text(&socket)];
    let stamp = Service::start(env!("CARGO_BIN_EXE_test-stamp"), &args);
    until("there are two lines", || fs::read_to_string(&file).unwrap().lines().count() == 2);
    let text = fs::read_to_string(&file).unwrap();
    let born: u64 = text.lines().last().unwrap().parse().unwrap();
    assert!(text.starts_with("1\n") && born > 1, "{text:?}");
    // It is seen off, which is the end of the stream.
    let mut end = Vec::new();
    UnixStream::connect(&socket).unwrap().read_to_end(&mut end).unwrap();
    assert_eq!((end.as_slice(), stamp.stop(Signal::SIGTERM).code()), (&[][..], Some(0)));
}

#[test]
fn floor_runs_the_wanted_number_of_programs_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let [program, count, file] = ["program", "count", "file"].map(|name| folder.path().join(name));
    fs::write(&count, "3\n").unwrap();
    // By a process of its own: what is open for writing here is inherited by what another test starts at that moment, and
    // cannot be executed until that one executes something itself.
    let lines = format!("#!/bin/sh\\necho $PPID >> {}\\nexec sleep 1000\\n", path_text(&file));
    let script = format!("printf '{lines}' > \"$0\" && chmod 755 \"$0\"");
    let written = Command::new("/bin/sh").args(["-c", &script]).arg(&program).status();
    assert!(written.unwrap().success());
    let args = ["--program", path_text(&program), "--count-file", path_text(&count)];
    let floor = Service::start(env!("CARGO_BIN_EXE_test-floor"), &args);
    let parent = floor.pid();
    let children = format!("/proc/{parent}/task/{parent}/children");
    let children = || -> Vec<i32> {
        let text = fs::read_to_string(&children).unwrap();
        text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    };
    let lines = || fs::read_to_string(&file).unwrap_or_default();
    until("three run", || lines().lines().count() == 3);
    kill(Pid::from_raw(children()[0]), Signal::SIGKILL).unwrap();
    until("another one runs", || lines().lines().count() == 4);
    assert_eq!((lines(), children().len()), (format!("{parent}\n").repeat(4), 3));
    let left = children();
    floor.stop(Signal::SIGKILL);
    for pid in left {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
}

#[test]
fn health_demo_falls_ill_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let (ill, well) = (folder.path().join("ill"), folder.path().join("well"));
    let unix = folder.path().join("unix");
    let program = env!("CARGO_BIN_EXE_test-health-demo");
    let demo = Service::start(
        program,
        &[
            "--ill-file",
            path_text(&ill),
            "--health-file",
            path_text(&well),
            "--unix",
            path_text(&unix),
            "--step-ms",
            "2",
        ],
    );
    let connects = || UnixStream::connect(&unix).is_ok();
    until("it is well", || well.exists() && connects());
    fs::write(&ill, "").unwrap();
    until("it is ill", || !well.exists() && !connects());
    fs::remove_file(&ill).unwrap();
    until("it is well again", || well.exists() && connects());
    assert!(demo.stop(Signal::SIGTERM).success());
}

/// What is answered to one request on a connection of its own.
fn ask(address: &str, request: &str) -> String {
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(request.as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn web_server_serves_its_folder_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("www");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("index.html"), "hello").unwrap();
    fs::write(folder.path().join("secret"), "secret").unwrap();
    let mut server = Service::start(
        env!("CARGO_BIN_EXE_test-web-server"),
        &["--listen", "127.0.0.1:0", "--root", path_text(&root)],
    );
    let address = server.address();
    let get = |path: &str| ask(&address, &format!("GET {path} HTTP/1.1\r\n\r\n"));
    assert!(get("/").ends_with("\r\n\r\nhello"));
    assert!(get("/index.html").starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/html"));
    for path in ["/../secret", "/nothing", "//etc/passwd", "/./.."] {
        assert!(get(path).starts_with("HTTP/1.1 404 "), "{path}");
    }
    assert!(get("/health").starts_with("HTTP/1.1 200 "));
    fs::remove_dir_all(&root).unwrap();
    assert!(get("/health").starts_with("HTTP/1.1 503 "));
    assert!(ask(&address, "POST / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    assert_eq!(server.stop(Signal::SIGTERM).code(), Some(0));
}

#[test]
fn stateful_service_counts_and_remembers() {
    let mut server =
        Service::start(env!("CARGO_BIN_EXE_test-stateful-service"), &["--listen", "127.0.0.1:0"]);
    let address = server.address();
    for _ in 0..3 {
        ask(&address, "POST /increment HTTP/1.1\r\n\r\n");
    }
    ask(&address, "POST /message HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi");
    let status = ask(&address, "GET /status HTTP/1.1\r\n\r\n");
    let body: serde_json::Value = serde_json::from_str(status.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!((&body["counter"], &body["last_message"]), (&3.into(), &"hi".into()), "{body}");
    assert!(ask(&address, "GET /increment HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    assert_eq!(server.stop(Signal::SIGTERM).code(), Some(0));
}

#[test]
fn database_keeps_what_it_has_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wal");
    let args = ["--listen", "127.0.0.1:0", "--file", path_text(&file)];
    let mut database = Service::start(env!("CARGO_BIN_EXE_test-database"), &args);
    assert_eq!(database.line(), "0 keys\n");
    let address = database.address();
    assert_eq!(ask(&address, "SET a 1 2\nSET b 3\nDEL b\nGET a\nGET b\nCOUNT\nwhat\n").lines().count(), 7);
    assert_eq!(ask(&address, "GET a\n"), "VALUE 1 2\n");
    assert_eq!(database.stop(Signal::SIGKILL).signal(), Some(9));
    let mut database = Service::start(env!("CARGO_BIN_EXE_test-database"), &args);
    assert_eq!(database.line(), "1 keys\n");
    assert_eq!(ask(&database.address(), "GET a\nGET b\n"), "VALUE 1 2\nNONE\n");
    assert_eq!(database.stop(Signal::SIGTERM).code(), Some(0));
}

#[test]
fn monitor_says_who_answers() {
    let folder = tempfile::tempdir().unwrap();
    let (status, health) = (folder.path().join("status"), folder.path().join("health"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let monitor = Service::start(
        env!("CARGO_BIN_EXE_test-monitor"),
        &[
            "--targets",
            &target,
            "--interval-ms",
            "10",
            "--status",
            path_text(&status),
            "--health-file",
            path_text(&health),
        ],
    );
    let says =
        |what: &str| fs::read_to_string(&status).is_ok_and(|text| text == format!("{target} {what}\n"));
    until("it answers", || says("answers"));
    until("the health file", || health.exists());
    drop(listener);
    until("it does not answer", || says("Connection refused (os error 111)"));
    assert_eq!(monitor.stop(Signal::SIGTERM).code(), Some(0));
}

#[test]
fn networking_tells_whether_an_interface_is_up() {
    let program = env!("CARGO_BIN_EXE_test-networking");
    assert_eq!(output(program, &["--check", "--interface", "no-such"]).status.code(), Some(1));
    assert_eq!(
        output(program, &["--check", "--interface", "a-name-that-is-too-long"]).status.code(),
        Some(2)
    );
    // In a network of its own it is down, and the service takes it up.
    let script = format!(
        "{program} --check && exit 9; {program} --interval-ms 10 & until {program} --check; do sleep 0.01; done; kill $!; wait $!"
    );
    let own = output("unshare", &["-rn", "sh", "-c", &script]);
    let said = String::from_utf8_lossy(&own.stderr);
    if said.contains("unshare failed") {
        eprintln!("skipped: there is no network namespace to be had");
        return;
    }
    assert_eq!(own.status.code(), Some(0), "{said}");
}
