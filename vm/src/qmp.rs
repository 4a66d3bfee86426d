//! QEMU's machine protocol: JSON lines on a unix socket, as in QEMU's `docs/interop/qmp-spec`.
//!
//! Commands carry an id, so several may be under way. Every command has a limit: QEMU's main loop answers in
//! milliseconds, and one that does not is stuck.

use std::collections::HashMap;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{oneshot, watch};

use crate::error::{VmError, VmErrorKind};

/// For any one command. On a machine whose cores are all taken by other guests QEMU has been seen to need a second.
const COMMAND_LIMIT: Duration = Duration::from_secs(20);
/// How often a state that QEMU announces by no event is asked for.
const STATE_PAUSE: Duration = Duration::from_millis(2);
/// The agent's port, as QEMU's events name it.
pub const PORT_ID: &str = "agent";

#[derive(Debug, Serialize)]
struct Command<'a> {
    execute: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<Value>,
    id: u64,
}

/// Any line that QEMU sends. Which one it is shows in which field is there.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    id: Option<u64>,
    #[serde(rename = "return")]
    result: Option<Value>,
    error: Option<ErrorLine>,
    event: Option<String>,
    data: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct ErrorLine {
    class: String,
    desc: String,
}

/// Why a guest has ended, QEMU's `ShutdownCause`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShutdownCause {
    /// The guest powered itself off.
    GuestShutdown,
    /// The guest reset itself, and QEMU was told to end instead.
    GuestReset,
    /// The guest's kernel has panicked.
    GuestPanic,
    /// QMP `quit`.
    HostQmpQuit,
    /// QMP `system_reset`.
    HostQmpSystemReset,
    /// A signal to QEMU.
    HostSignal,
    /// Any other.
    #[serde(other)]
    Other,
}

impl ShutdownCause {
    /// The guest did it, not the host.
    pub fn by_guest(&self) -> bool {
        matches!(self, Self::GuestShutdown | Self::GuestReset | Self::GuestPanic)
    }

    /// In words.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::GuestShutdown => "it powered off",
            Self::GuestReset => "it reset",
            Self::GuestPanic => "its kernel panicked",
            Self::HostQmpQuit => "QEMU was told to quit",
            Self::HostQmpSystemReset => "QEMU was told to reset it",
            Self::HostSignal => "a signal ended QEMU",
            Self::Other => "for a cause that QEMU does not name",
        }
    }
}

#[derive(Debug, Deserialize)]
struct ShutdownData {
    reason: ShutdownCause,
}

/// Of `VSERPORT_CHANGE`: somebody in the guest has opened or closed a port.
#[derive(Debug, Deserialize)]
struct PortData {
    id: String,
    open: bool,
}

#[derive(Debug, Deserialize)]
struct Status {
    status: String,
}

#[derive(Debug, Deserialize)]
struct MigrationStatus {
    status: Option<String>,
    #[serde(rename = "error-desc")]
    error: Option<String>,
}

type Waiting = HashMap<u64, oneshot::Sender<Result<Value, String>>>;

#[derive(Debug, Default)]
struct Shared {
    /// `None` once the connection is closed.
    waiting: Mutex<Option<Waiting>>,
}

/// A connection to one QEMU.
#[derive(Debug)]
pub struct Qmp {
    write: tokio::sync::Mutex<OwnedWriteHalf>,
    shared: Arc<Shared>,
    next_id: std::sync::atomic::AtomicU64,
    shutdown: watch::Receiver<Option<ShutdownCause>>,
    /// Whether the agent's port was opened in the guest, and closed again.
    port_closed: watch::Receiver<bool>,
}

impl Qmp {
    /// Takes over a connected socket and leaves QMP's negotiation mode.
    pub async fn connect(stream: UnixStream) -> Result<Self, VmError> {
        let (read, write) = stream.into_split();
        let shared = Arc::new(Shared { waiting: Mutex::new(Some(HashMap::new())) });
        let (tell_shutdown, shutdown) = watch::channel(None);
        let (tell_port, port_closed) = watch::channel(false);
        tokio::spawn(read_lines(read, Arc::clone(&shared), tell_shutdown, tell_port));
        let qmp = Self { write: write.into(), shared, next_id: 1.into(), shutdown, port_closed };
        qmp.execute("qmp_capabilities", None).await?;
        Ok(qmp)
    }

    /// Why the guest has ended, once QEMU has said so.
    pub fn shutdown_cause(&self) -> Option<ShutdownCause> {
        self.shutdown.borrow().clone()
    }

    /// Waits until QEMU has closed the connection and everything before that is known.
    pub async fn closed(&self) {
        let mut shutdown = self.shutdown.clone();
        while shutdown.changed().await.is_ok() {}
    }

    /// Whether nobody in the guest has the agent's port open: the agent has ended, or another kernel is on its way.
    pub fn port_is_closed(&self) -> bool {
        *self.port_closed.borrow()
    }

    /// Ends when nobody in the guest has had the agent's port open for that long; never once QEMU has ended.
    pub async fn port_closed_for(&self, time: Duration) {
        let mut closed = self.port_closed.clone();
        while closed.wait_for(|closed| *closed).await.is_ok() {
            let opened = tokio::time::timeout(time, closed.wait_for(|closed| !closed)).await;
            match opened.map(|result| result.is_ok()) {
                Err(_) => return,
                Ok(true) => {}
                Ok(false) => break,
            }
        }
        std::future::pending::<()>().await;
    }

    /// Stops the guest's processors.
    pub async fn stop(&self) -> Result<(), VmError> {
        self.execute("stop", None).await.map(drop)
    }

    /// Lets the guest's processors run.
    pub async fn cont(&self) -> Result<(), VmError> {
        self.execute("cont", None).await.map(drop)
    }

    /// Cuts the guest's power and gives it back: what was not on a disk is gone. QEMU goes on.
    pub async fn cut_power(&self) -> Result<(), VmError> {
        // It was told to end at a reset, whoever asks for that.
        self.execute("set-action", Some(json!({"reboot": "reset"}))).await?;
        self.execute("system_reset", None).await?;
        self.execute("set-action", Some(json!({"reboot": "shutdown"}))).await.map(drop)
    }

    /// Ends QEMU.
    pub async fn quit(&self) -> Result<(), VmError> {
        self.execute("quit", None).await.map(drop)
    }

    /// Leaves memory that the host already shares out of saving and restoring.
    pub async fn ignore_shared_memory(&self) -> Result<(), VmError> {
        let capability = json!({"capabilities": [{"capability": "x-ignore-shared", "state": true}]});
        self.execute("migrate-set-capabilities", Some(capability)).await.map(drop)
    }

    /// Writes the machine's state to a file in QEMU's working directory. The guest has to be stopped.
    pub async fn save_state(&self, file: &str) -> Result<(), VmError> {
        self.execute("migrate", Some(json!({"uri": format!("exec:cat > {file}")}))).await?;
        self.until("save the machine", || async {
            let state: MigrationStatus = self.query("query-migrate").await?;
            match state.status.as_deref() {
                Some("completed") => Ok(true),
                Some("failed" | "cancelled") => {
                    let why = state.error.unwrap_or_else(|| "QEMU gives no reason".into());
                    Err(VmError::new("save the machine", VmErrorKind::Qmp(why)))
                }
                _ => Ok(false),
            }
        })
        .await
    }

    /// Reads the machine's state from a file in QEMU's working directory, in a QEMU that was started to wait for it.
    pub async fn load_state(&self, file: &str) -> Result<(), VmError> {
        self.execute("migrate-incoming", Some(json!({"uri": format!("exec:cat {file}")}))).await?;
        self.until("restore the machine", || async {
            let status: Status = self.query("query-status").await?;
            Ok(status.status != "inmigrate")
        })
        .await
    }

    /// Forwards a port of the host's loopback, which the host chooses, to one of the guest on the network of this id; the
    /// host's address. QEMU listens there with a queue of one, and the host forgets who comes beyond it and believes to be
    /// connected: clients have to come one after the other, each when the one before has a reply.
    pub async fn forward_port(&self, network: &str, guest: SocketAddrV4) -> Result<SocketAddr, VmError> {
        let (address, port) = (guest.ip(), guest.port());
        let add = format!("hostfwd_add {network} tcp:127.0.0.1:0-{address}:{port}");
        let refused = self.human(&add).await?;
        if !refused.trim().is_empty() {
            return Err(VmError::new("forward a port", VmErrorKind::Qmp(refused)));
        }
        // There is no command for programs that tells it.
        let table = self.human("info usernet").await?;
        forwarded(&table, guest)
            .ok_or_else(|| VmError::new("find the forwarded port", VmErrorKind::Qmp(table)))
    }

    async fn human(&self, line: &str) -> Result<String, VmError> {
        let said = self.execute("human-monitor-command", Some(json!({"command-line": line}))).await?;
        Ok(said.as_str().unwrap_or_default().to_owned())
    }

    async fn until<F>(&self, attempt: &str, done: impl Fn() -> F) -> Result<(), VmError>
    where
        F: Future<Output = Result<bool, VmError>>,
    {
        let deadline = tokio::time::Instant::now() + COMMAND_LIMIT;
        while !done().await? {
            if tokio::time::Instant::now() > deadline {
                let kind = VmErrorKind::TimedOut { limit: COMMAND_LIMIT, console: String::new() };
                return Err(VmError::new(attempt, kind));
            }
            tokio::time::sleep(STATE_PAUSE).await;
        }
        Ok(())
    }

    async fn query<T: DeserializeOwned>(&self, command: &str) -> Result<T, VmError> {
        let value = self.execute(command, None).await?;
        serde_json::from_value(value).map_err(|error| {
            VmError::new(format!("read the answer to {command}"), VmErrorKind::Qmp(error.to_string()))
        })
    }

    /// Executes any command and gives its return value.
    pub async fn execute(&self, command: &str, arguments: Option<Value>) -> Result<Value, VmError> {
        let failed = |kind| VmError::new(format!("execute QMP {command}"), kind);
        let id = self.next_id.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        match self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(waiting) => drop(waiting.insert(id, answer)),
            None => return Err(failed(VmErrorKind::Qmp("the connection is closed".into()))),
        }
        let line = serde_json::to_string(&Command { execute: command, arguments, id })
            .map_err(|error| failed(VmErrorKind::Qmp(error.to_string())))?;
        let exchange = async {
            let written = self.write.lock().await.write_all(format!("{line}\n").as_bytes()).await;
            written.map_err(|error| error.to_string())?;
            answered.await.unwrap_or_else(|_| Err("the connection is closed".into()))
        };
        match tokio::time::timeout(COMMAND_LIMIT, exchange).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(message)) => Err(failed(VmErrorKind::Qmp(message))),
            Err(_) => Err(failed(VmErrorKind::TimedOut { limit: COMMAND_LIMIT, console: String::new() })),
        }
    }
}

/// The host's address in the line of `info usernet` about this one of the guest: protocol, descriptor, source and
/// destination with their ports.
fn forwarded(table: &str, guest: SocketAddrV4) -> Option<SocketAddr> {
    table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [kind, _, from, from_port, to, to_port, ..] = words[..] else { return None };
        let is_it = kind == "TCP[HOST_FORWARD]" && format!("{to}:{to_port}") == guest.to_string();
        format!("{from}:{from_port}").parse().ok().filter(|_| is_it)
    })
}

async fn read_lines(
    read: OwnedReadHalf,
    shared: Arc<Shared>,
    shutdown: watch::Sender<Option<ShutdownCause>>,
    port_closed: watch::Sender<bool>,
) {
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(text)) = lines.next_line().await {
        let Ok(line) = serde_json::from_str::<Line>(&text) else {
            continue; // the command that waits for it will say so by its limit
        };
        if line.event.as_deref() == Some("SHUTDOWN") {
            let data = line.data.and_then(|data| serde_json::from_value::<ShutdownData>(data).ok());
            let cause = data.map_or(ShutdownCause::Other, |data| data.reason);
            // With -no-reboot a reset is followed by the end of QEMU; the first cause is the real one.
            shutdown.send_if_modified(|known| known.is_none() && known.replace(cause).is_none());
        } else if line.event.as_deref() == Some("VSERPORT_CHANGE") {
            let data = line.data.and_then(|data| serde_json::from_value::<PortData>(data).ok());
            if let Some(data) = data.filter(|data| data.id == PORT_ID) {
                port_closed.send_replace(!data.open);
            }
        } else if let Some(id) = line.id {
            let answer = match line.error {
                Some(error) => Err(format!("{}: {}", error.class, error.desc)),
                None => Ok(line.result.unwrap_or(Value::Null)),
            };
            let waiting = shared
                .waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .as_mut()
                .and_then(|w| w.remove(&id));
            if let Some(waiting) = waiting {
                drop(waiting.send(answer));
            }
        }
    }
    // Whoever still waits is told by the drop of its sender.
    shared.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A QEMU that answers each command with the next of `lines`, `ID` replaced by the command's id.
    async fn fake(stream: UnixStream, lines: Vec<&'static str>) {
        let (read, mut write) = stream.into_split();
        write.write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n").await.unwrap();
        let mut commands = BufReader::new(read).lines();
        for answer in lines {
            let Some(command) = commands.next_line().await.unwrap() else { return };
            let id = serde_json::from_str::<Value>(&command).unwrap()["id"].to_string();
            write.write_all(format!("{}\n", answer.replace("ID", &id)).as_bytes()).await.unwrap();
        }
    }

    async fn connected(lines: Vec<&'static str>) -> Qmp {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut all = vec![r#"{"return": {}, "id": ID}"#];
        all.extend(lines);
        tokio::spawn(fake(theirs, all));
        Qmp::connect(ours).await.unwrap()
    }

    #[tokio::test]
    async fn an_error_names_command_class_and_description() {
        let qmp =
            connected(vec![r#"{"error": {"class": "GenericError", "desc": "no such thing"}, "id": ID}"#])
                .await;
        let error = qmp.stop().await.unwrap_err().to_string();
        assert_eq!(error, "failed to execute QMP stop: QMP: GenericError: no such thing");
    }

    #[tokio::test]
    async fn a_forwarded_port_is_found_in_the_table() {
        let guest = SocketAddrV4::new([10, 0, 2, 15].into(), 8080);
        let table = r#"{"return": "Hub -1 (network):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  TCP[HOST_FORWARD]  13       127.0.0.1 40001       10.0.2.15  8081     0     0\r\n  TCP[HOST_FORWARD]  12       127.0.0.1 40002       10.0.2.15  8080     0     0\r\n", "id": ID}"#;
        let added = r#"{"return": "", "id": ID}"#;
        let qmp = connected(vec![added, table]).await;
        let address = qmp.forward_port("network", guest).await.unwrap();
        assert_eq!(address.to_string(), "127.0.0.1:40002");
        let refused = r#"{"return": "could not set up host forwarding rule", "id": ID}"#;
        let error = connected(vec![refused]).await.forward_port("network", guest).await.unwrap_err();
        assert!(error.to_string().contains("could not set up"), "{error}");
    }

    #[tokio::test]
    async fn events_between_answers_are_no_answers() {
        let event = "{\"event\": \"STOP\"}\n{\"return\": {}, \"id\": ID}";
        connected(vec![event]).await.stop().await.unwrap();
    }

    #[tokio::test]
    async fn the_first_cause_of_a_shutdown_is_kept() {
        let lines = "{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": \"guest-reset\"}}\n\
                     {\"event\": \"SHUTDOWN\", \"data\": {\"guest\": false, \"reason\": \"host-signal\"}}\n\
                     {\"return\": {}, \"id\": ID}";
        let qmp = connected(vec![lines]).await;
        qmp.stop().await.unwrap();
        assert_eq!(qmp.shutdown_cause(), Some(ShutdownCause::GuestReset));
    }

    #[tokio::test]
    async fn the_agents_port_is_closed_when_it_stays_so() {
        const SOON: Duration = Duration::from_millis(20);
        let changes = |opens: &[bool]| {
            let line = |open| {
                format!(r#"{{"event": "VSERPORT_CHANGE", "data": {{"id": "agent", "open": {open}}}}}"#)
            };
            let events: Vec<String> = opens.iter().map(line).collect();
            let text = format!("{}\n{{\"return\": {{}}, \"id\": ID}}", events.join("\n"));
            &*Box::leak(text.into_boxed_str())
        };
        for (opens, is_closed) in
            [(&[true][..], false), (&[true, false], true), (&[true, false, true], false)]
        {
            let qmp = connected(vec![changes(opens), r#"{"return": {}, "id": ID}"#]).await;
            qmp.stop().await.unwrap();
            assert_eq!(qmp.port_is_closed(), is_closed, "{opens:?}");
            // The other end stays open while it waits for a second command.
            let seen = tokio::time::timeout(SOON * 10, qmp.port_closed_for(SOON)).await;
            assert_eq!(seen.is_ok(), is_closed, "{opens:?}");
        }
    }

    #[tokio::test]
    async fn a_closed_connection_fails_at_once() {
        let qmp = connected(vec![]).await;
        assert!(qmp.stop().await.is_err());
        let error = qmp.cont().await.unwrap_err().to_string();
        assert!(error.contains("closed"), "{error}");
    }
}
