//! No VM: a program that only sleeps stands in for QEMU, and tasks for its channels.

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use yakiros_guest::frame::{Decoder, Frame, Kind};
use yakiros_guest::protocol::{GuestError, Reply, Request};

use super::*;
use crate::qemu::{Clock, Platform};
use crate::silence::silence;

/// For a fake to answer.
const SOON: Duration = Duration::from_secs(5);
/// The clock of silence, in these tests.
const SILENT_FOR: Duration = Duration::from_millis(100);

/// What the channels of a guest lead to.
struct Fake {
    /// Whether the agent answers.
    answers: Arc<AtomicBool>,
    /// What QEMU tells of.
    events: mpsc::UnboundedSender<String>,
    _console: UnixStream,
    _folder: tempfile::TempDir,
}

impl Fake {
    fn answers(&self, answers: bool) {
        self.answers.store(answers, Ordering::Relaxed);
    }

    fn opens_port(&self, open: bool) {
        let event = format!(r#"{{"event": "VSERPORT_CHANGE", "data": {{"id": "agent", "open": {open}}}}}"#);
        self.events.send(event).unwrap();
    }
}

async fn guest() -> (Guest, Fake) {
    let folder = tempfile::tempdir().unwrap();
    let sleeps = ["-c", "exec sleep 1000"].map(Into::into).into();
    let qemu = Qemu { binary: "/bin/sh".into(), env: Vec::new(), extra_args: sleeps };
    let hardware = Hardware {
        platform: Platform::Microvm,
        cpus: 1,
        memory_mb: 1,
        kernel: "/no/kernel".into(),
        arguments: Vec::new(),
        disks: Vec::new(),
        network: false,
    };
    let machine = Machine::new(Host { qemu, accelerator: Accelerator::Tcg }.into(), hardware, &[]).unwrap();
    let alone = Alone { stream: folder.path().join("stream"), clock: Clock::Real };
    let process = machine.run_alone(&alone, folder.path(), &folder.path().join("console.log")).unwrap();
    let [(console, console_end), (agent, agent_end), (qmp, qmp_end)] =
        std::array::from_fn(|_| UnixStream::pair().unwrap());
    let (answers, (events, told)) = (Arc::new(AtomicBool::new(true)), mpsc::unbounded_channel());
    tokio::spawn(fake_qmp(qmp_end, told));
    tokio::spawn(fake_agent(agent_end, Arc::clone(&answers)));
    let (console, agent) = (Console::watch(console), Agent::attach(agent));
    let (qmp, ram) = (Qmp::connect(qmp).await.unwrap(), Arc::new(anonymous_file("ram", 0).unwrap()));
    let unready = Unready { machine, ram, process, qmp, console, agent };
    let guest = unready.greet("greet the fake", Instant::now(), None, SOON).await.unwrap();
    (guest, Fake { answers, events, _console: console_end, _folder: folder })
}

/// Does nothing that it is told, and says so; tells of events.
async fn fake_qmp(stream: UnixStream, mut events: mpsc::UnboundedReceiver<String>) {
    let (read, mut write) = stream.into_split();
    let mut commands = BufReader::new(read).lines();
    loop {
        let line = tokio::select! {
            command = commands.next_line() => {
                let Ok(Some(command)) = command else { return };
                let id = &serde_json::from_str::<Value>(&command).unwrap()["id"];
                format!(r#"{{"return": {{}}, "id": {id}}}"#)
            }
            Some(event) = events.recv() => event,
        };
        write.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }
}

/// Greets and tells the time, while it answers at all.
async fn fake_agent(mut stream: UnixStream, answers: Arc<AtomicBool>) {
    let (mut decoder, mut buffer) = (Decoder::default(), vec![0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        decoder.push(&buffer[..count]);
        while let Some(frame) = decoder.next_frame() {
            if frame.kind != Kind::Open || !answers.load(Ordering::Relaxed) {
                continue;
            }
            let reply = match serde_json::from_slice(&frame.payload).unwrap() {
                Request::Hello { nonce, .. } => Reply::Hello { nonce, kernel_release: "fake".into() },
                Request::Clock { .. } => Reply::Clock { realtime_ns: 0, monotonic_ns: 0, boottime_ns: 0 },
                other => panic!("{other:?}"),
            };
            let payload = serde_json::to_vec(&Ok::<_, GuestError>(reply)).unwrap();
            let done = Frame { kind: Kind::Done, stream: frame.stream, payload };
            stream.write_all(&done.encode()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn who_has_come_back_has_to_answer() {
    let (guest, fake) = guest().await;
    assert!(!guest.may_be_silent());
    guest.greet_again(SOON).await.unwrap();
    fake.answers(false);
    // That may have been the one before, which is about to end.
    let silent = tokio::time::timeout(SILENT_FOR * 5, silence(&guest, SILENT_FOR)).await;
    assert!(silent.is_err(), "{silent:?}");
    fake.answers(true);
    guest.greet_again(SOON).await.unwrap();
    guest.is_back();
    fake.answers(false);
    let error = tokio::time::timeout(SOON, silence(&guest, SILENT_FOR)).await.unwrap();
    assert!(matches!(error.kind, VmErrorKind::Silent { .. }), "{error}");
}

#[tokio::test]
async fn an_agent_that_ends_is_lost_once_it_has_come_back() {
    let (guest, fake) = guest().await;
    let mut failure = std::pin::pin!(guest.failure(|_| false));
    guest.greet_again(SOON).await.unwrap();
    fake.opens_port(false);
    // Nobody has the port open for longer than is forgiven, and nobody is missed.
    let early = tokio::time::timeout(PORT_GRACE + SILENT_FOR, &mut failure).await;
    assert!(early.is_err(), "{early:?}");
    fake.opens_port(true);
    guest.greet_again(SOON).await.unwrap();
    guest.is_back();
    let early = tokio::time::timeout(SILENT_FOR, &mut failure).await;
    assert!(early.is_err(), "{early:?}");
    fake.opens_port(false);
    let error = tokio::time::timeout(PORT_GRACE + SOON, failure).await.unwrap();
    assert!(matches!(error.kind, VmErrorKind::AgentLost(_)), "{error}");
}
