//! What a component says about itself, and its watchdog, with real sockets and processes.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use yakiros_core::control::{Announced, Answer, Health, Request};
use yakiros_core::journal::{Cause, State};

use crate::guest::{Guest, until};
use crate::speaker::{self, start};

const NOTIFY: &str = "[lifecycle]\nreadiness = \"notify\"\nreload_signal = \"SIGWINCH\"\n";

fn descriptors(guest: &Guest) -> usize {
    fs::read_dir(format!("/proc/{}/fd", guest.init_pid())).expect("descriptors").count()
}

#[test]
fn a_component_reports_and_reloads() {
    let Some((guest, mut speaker)) = start(NOTIFY) else {
        return;
    };
    speaker.tell("STATUS=opening");
    until("the status", || (guest.component("speaker").status_text? == "opening").then_some(()));
    assert_eq!(guest.component("speaker").state, State::ReadyWait);
    speaker.tell("READY=1|STATUS=serving");
    guest.wait("speaker", State::Active, None);
    assert_eq!(guest.component("speaker").detail.as_deref(), Some("says \"serving\""));
    let pid = guest.component("speaker").pid;

    let reload = || match guest.ask(Request::Reload { name: Some("speaker".to_owned()) }) {
        Answer::Done { message, .. } => message,
        other => panic!("{other:?}"),
    };
    let answer = std::thread::scope(|scope| {
        let answer = scope.spawn(reload);
        // Long before the end of the notice, and again should it come before the signal.
        until("the announcement", || {
            speaker.tell("RELOADING=1");
            let announced = guest.component("speaker").announced;
            (announced == Some(Announced::Reloading)).then_some(())
        });
        assert_eq!(guest.component("speaker").state, State::Active);
        while !answer.is_finished() {
            speaker.tell("READY=1");
            speaker.tell("RELOADING=1");
        }
        speaker.tell("READY=1");
        answer.join().expect("the client")
    });
    assert_eq!(answer, "speaker has reloaded");
    // What was said too late for the first must not be heard by the second.
    assert_eq!(speaker.tell("barrier -"), "closed 0");
    let answer = reload();
    assert!(answer.contains("announced no reload"), "{answer}");
    assert_eq!(guest.component("speaker").pid, pid);
}

#[test]
fn only_the_component_itself_is_heard() {
    let Some((guest, mut speaker)) = start(NOTIFY) else {
        return;
    };
    let socket = speaker.tell("variable NOTIFY_SOCKET");
    // From outside of the supervisor's namespace, and from inside but from somebody else's session.
    let outside = UnixDatagram::unbound().expect("a socket");
    outside.send_to(b"READY=1\nSTATUS=outside", &socket).expect("sent");
    let words = speaker::once("READY=1|STATUS=stranger", &socket);
    let words: Vec<_> = ["setsid"].into_iter().chain(words.iter().map(String::as_str)).collect();
    assert!(guest.inside(&words).success());
    // Everything before it has been read when a barrier is through.
    assert_eq!(speaker.tell("barrier -"), "closed 0");
    let status = guest.component("speaker");
    assert_eq!((status.state, status.status_text), (State::ReadyWait, None));
    // A child of it is heard; it waits for nothing, but is reaped by its parent only then.
    assert_eq!(speaker.tell("child STATUS=child"), "true");
    speaker.tell("READY=1");
    guest.wait("speaker", State::Active, None);
}

#[test]
fn a_barrier_is_answered_and_no_descriptor_is_kept() {
    let Some((guest, mut speaker)) = start(NOTIFY) else {
        return;
    };
    speaker.tell("READY=1");
    guest.wait("speaker", State::Active, None);
    // From its first line on a component costs one more: the file of its log.
    let log = guest.dir.path().join("state/speaker.log");
    until("its first line", || fs::metadata(&log).is_ok_and(|log| log.len() > 0).then_some(()));
    let before = descriptors(&guest);
    for _ in 0..40 {
        assert_eq!(speaker.tell("barrier -"), "closed 0");
    }
    until("the descriptors", || (descriptors(&guest) <= before).then_some(()));
}

/// For so long the connection that a stranger sends waits when it is closed.
const LINGER: Duration = Duration::from_secs(200);

#[test]
fn what_a_stranger_sends_cannot_hold_up_process_1() {
    let Some((guest, mut speaker)) = start(NOTIFY) else {
        return;
    };
    let path = speaker.tell("variable NOTIFY_SOCKET");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let mut stream = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    let linger = libc::linger { l_onoff: 1, l_linger: LINGER.as_secs() as i32 };
    setsockopt(&stream, sockopt::Linger, &linger).expect("linger");
    stream.set_nonblocking(true).expect("non-blocking");
    while stream.write(&[0; 4096]).is_ok() {}
    // Whoever closes it last has to wait, and that must not be this test.
    guest.freeze();
    for _ in 0..3 {
        speaker::send_descriptor(&path, b"READY=1", stream.as_fd());
    }
    drop(stream);
    let begun = Instant::now();
    guest.thaw();
    assert_eq!(speaker.tell("barrier -"), "closed 0");
    assert_eq!(guest.component("speaker").state, State::ReadyWait);
    assert!(begun.elapsed() < LINGER / 4, "{:?}", begun.elapsed());
}

/// Messages of a flood: more than any socket holds.
const COUNT: u64 = 1200;

/// Questions that are answered while one lasts.
const QUESTIONS: usize = 20;

#[test]
fn a_flood_is_held_up_and_harms_nobody() {
    let Some((guest, mut speaker)) = start(NOTIFY) else {
        return;
    };
    let enough = guest.dir.path().join("enough");
    std::thread::scope(|scope| {
        // It goes on until everything was answered, however long that takes.
        let flood = scope.spawn(|| speaker.tell(&format!("flood-until {}", enough.display())));
        until("the flood", || guest.component("speaker").status_text);
        for _ in 0..QUESTIONS {
            assert_eq!(guest.component("speaker").state, State::ReadyWait);
        }
        fs::write(&enough, "").expect("file");
        assert_eq!(flood.join().expect("the flood"), "said");
    });
    let took: u64 = speaker.tell(&format!("flood {COUNT}")).parse().expect("milliseconds");
    let held: u64 = fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(512);
    // 32 messages are read in 100 ms; what the socket holds comes on top.
    let least = (COUNT - (held + 1).min(COUNT)) / 32 * 100;
    assert!(took + 100 >= least, "{COUNT} messages were taken in {took} ms, not {least}");
    speaker.tell("READY=1");
    guest.wait("speaker", State::Active, None);
}

/// The interval of a watchdog that is held back from being heard for longer.
const INTERVAL: Duration = Duration::from_secs(4);

#[test]
fn a_sign_of_life_that_waits_to_be_read_counts() {
    // On a busy machine the deadline that is to be missed may come before process 1 is stopped; then nothing was tried.
    until("a stop before the deadline", || a_sign_of_life_waits().then_some(()));
}

/// Whether it was tried.
fn a_sign_of_life_waits() -> bool {
    let Some((guest, mut speaker)) = start("[lifecycle]\nwatchdog_interval = \"10m\"\n") else {
        return true;
    };
    guest.wait("speaker", State::Active, None);
    // So many are read in one go.
    for number in 0..30 {
        speaker.tell(&format!("STATUS={number}"));
    }
    until("the last of them", || (guest.component("speaker").status_text? == "29").then_some(()));
    let pid = guest.component("speaker").pid;
    let begun = Instant::now();
    let is_late = || begun.elapsed() >= INTERVAL;
    speaker.tell(&format!("WATCHDOG_USEC={}|WATCHDOG=1", INTERVAL.as_micros()));
    until("the beat", || (guest.component("speaker").health == Health::Healthy || is_late()).then_some(()));
    guest.freeze();
    if is_late() {
        return false;
    }
    // What carries descriptors is left to a child, and does not stand in front of the rest.
    speaker.tell("laden BARRIER=1");
    for number in 0..4 {
        speaker.tell(&format!("STATUS=waiting {number}"));
    }
    speaker.tell("STATUS=alive|WATCHDOG_USEC=600000000|WATCHDOG=1");
    std::thread::sleep(INTERVAL + Duration::from_millis(200));
    guest.thaw();
    until("what was waiting", || (guest.component("speaker").status_text? == "alive").then_some(()));
    assert_eq!((guest.component("speaker").state, guest.component("speaker").pid), (State::Active, pid));
    true
}

/// Components that end at one moment.
const ENDING: usize = 8;

#[test]
fn last_words_of_all_that_end_at_once_are_heard() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let config = dir.path().join("graph.d");
    fs::create_dir(&config).expect("configuration directory");
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/notify/graph.d/speaker.toml");
    let text = fs::read_to_string(case).expect("component file").replace("@VARIABLE@", "SPEAKER=");
    let words =
        speaker::once("STATUS=full|ERRNO=28|STOPPING=1", "$NOTIFY_SOCKET").join(" ").replace('|', "\\|");
    let go = dir.path().join("go");
    let script = format!("until test -e {}; do sleep 0.02; done; exec {words}", go.display());
    let program = format!("binary = \"/bin/sh\"\nargs = [\"-c\", {script:?}]");
    for number in 0..ENDING {
        let text = text
            .replace("binary = \"@SPEAKER@\"", &program)
            .replace("speaker\"", &format!("speaker-{number}\""));
        let more = "[lifecycle]\nwatchdog_interval = \"10m\"\nrestart_max = 0\n";
        fs::write(config.join(format!("speaker-{number}.toml")), text + more).expect("component file");
    }
    let Some(guest) = Guest::start_in(dir) else {
        return;
    };
    guest.settle();
    guest.freeze();
    fs::write(&go, "").expect("file");
    until("the end of all", || (guest.zombies() == ENDING).then_some(()));
    guest.thaw();
    for number in 0..ENDING {
        let name = format!("speaker-{number}");
        guest.wait(&name, State::Backoff, None);
        let detail = guest.component(&name).detail.unwrap_or_default();
        assert!(detail.contains("errno 28"), "{name}: {detail}");
    }
}

#[test]
fn a_watchdog_that_falls_silent_restarts_the_component() {
    let Some((guest, mut speaker)) = start("[lifecycle]\nwatchdog_interval = \"10m\"\n") else {
        return;
    };
    guest.wait("speaker", State::Active, None);
    assert_eq!(speaker.tell("variable WATCHDOG_USEC"), "600000000");
    let pid = guest.component("speaker").pid.expect("running").to_string();
    assert_eq!(speaker.tell("variable WATCHDOG_PID"), pid);
    speaker.tell("WATCHDOG=1");
    until("the beat", || (guest.component("speaker").health == Health::Healthy).then_some(()));
    let revision = guest.records(0).last().expect("records").revision;
    speaker.tell("WATCHDOG_USEC=100000");
    guest.wait("speaker", State::Active, Some(revision));
    speaker.meet();
    let records = guest.records(revision);
    let causes: Vec<_> = records.iter().map(|record| (record.to, record.cause.clone())).collect();
    assert_eq!(causes[0], (State::Stopping, Cause::WatchdogExpired { limit_ms: 100 }), "{causes:?}");
    assert_eq!(causes[1].0, State::Failed, "{causes:?}");
    assert_ne!(guest.component("speaker").pid.expect("running").to_string(), pid);
    // By the process's own word, at once.
    let revision = guest.records(0).last().expect("records").revision;
    speaker.tell("WATCHDOG=trigger");
    guest.wait("speaker", State::Active, Some(revision));
    assert_eq!(guest.records(revision)[0].cause, Cause::WatchdogTriggered);
}
