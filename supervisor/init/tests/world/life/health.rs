//! Health probes of every kind against real sockets, files, commands and signals.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, setsockopt, socket, sockopt,
};
use yakiros_core::control::Health;
use yakiros_core::journal::{Cause, State};

use crate::guest::{Guest, until};

/// What each probe asks, outside of the guest (only its network is shared), ill or well on command.
struct Servers {
    tcp: Option<TcpListener>,
    tcp_address: String,
    /// Keeps the port while nobody listens there.
    _port: OwnedFd,
    http_address: String,
    http_well: Arc<AtomicBool>,
}

impl Servers {
    fn start() -> Self {
        let (port, tcp_address) = reserve();
        let tcp = TcpListener::bind(&tcp_address).expect("the port");
        let http = TcpListener::bind("127.0.0.1:0").expect("a port");
        let http_address = http.local_addr().expect("an address").to_string();
        let http_well = Arc::new(AtomicBool::new(true));
        let well = Arc::clone(&http_well);
        // Ends with the test's process.
        thread::spawn(move || {
            for mut client in http.incoming().flatten() {
                let mut request = [0_u8; 1024];
                let count = client.read(&mut request).unwrap_or(0);
                let asked = request[..count].starts_with(b"GET /status HTTP/1.1\r\n");
                let status = if asked && well.load(Ordering::Relaxed) { "200 OK" } else { "503 Sick" };
                let _ = write!(client, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            }
        });
        Self { tcp: Some(tcp), tcp_address, _port: port, http_address, http_well }
    }

    fn set(&mut self, dir: &Path, well: bool) {
        self.http_well.store(well, Ordering::Relaxed);
        if well {
            fs::write(dir.join("well"), "").expect("the file");
            let address = &self.tcp_address;
            self.tcp.get_or_insert_with(|| TcpListener::bind(address).expect("the port again"));
        } else {
            fs::remove_file(dir.join("well")).expect("the file");
            let _ = fs::remove_file(dir.join("unix"));
            self.tcp = None;
        }
    }
}

/// A port that nobody else gets, and at which nobody listens yet.
fn reserve() -> (OwnedFd, String) {
    let port = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    // Who listens sets it too.
    setsockopt(&port, sockopt::ReuseAddr, &true).expect("a shared address");
    bind(port.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("a port");
    let address: SockaddrIn = getsockname(port.as_raw_fd()).expect("an address");
    (port, address.to_string())
}

fn start(case: &str, servers: &Servers) -> Option<Guest> {
    let dir = tempfile::tempdir().expect("temporary directory");
    let config = dir.path().join("graph.d");
    fs::create_dir(&config).expect("configuration directory");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(case).join("graph.d");
    for file in fs::read_dir(&source).expect("the case").flatten() {
        let text = fs::read_to_string(file.path()).expect("component file");
        let text = text.replace("@DIR@", &dir.path().display().to_string());
        let text = text.replace("@TCP@", &servers.tcp_address).replace("@HTTP@", &servers.http_address);
        fs::write(config.join(file.file_name()), text).expect("component file");
    }
    fs::write(dir.path().join("well"), "").expect("the file");
    Guest::start_in(dir)
}

const KINDS: [(&str, &str); 6] = [
    ("by-command", "health_check exited with status 1"),
    ("by-file", "health_file"),
    ("by-tcp", "onnection refused"),
    ("by-http", "the server answered 503"),
    ("by-unix", "health_unix"),
    ("by-signal", "health_signal signal 34: did not come within"),
];

#[test]
fn every_kind_of_probe_fails_and_recovers() {
    let mut servers = Servers::start();
    let Some(guest) = start("health", &servers) else {
        return;
    };
    let socket = UnixListener::bind(guest.dir.path().join("unix")).expect("the socket");
    for (name, _) in KINDS {
        guest.wait(name, State::Active, None);
        until(name, || (guest.component(name).health == Health::Healthy).then_some(()));
    }
    let pids = || KINDS.map(|(name, _)| guest.component(name).pid);
    let before = pids();

    servers.set(guest.dir.path(), false);
    for (name, reason) in KINDS {
        guest.wait(name, State::Degraded, None);
        let status = guest.component(name);
        assert_eq!(status.health, Health::Failing, "{name}");
        let detail = status.detail.expect("a reason");
        assert!(detail.contains(reason), "{name}: {detail}");
    }

    drop(socket);
    let revision = guest.records(0).last().map(|record| record.revision);
    servers.set(guest.dir.path(), true);
    let _socket = UnixListener::bind(guest.dir.path().join("unix")).expect("the socket");
    for (name, _) in KINDS {
        guest.wait(name, State::Active, revision);
        until(name, || (guest.component(name).health == Health::Healthy).then_some(()));
    }
    assert_eq!(pids(), before, "nothing was restarted");

    let broken = guest.component("no-command");
    assert_eq!(broken.state, State::Degraded);
    let detail = broken.detail.expect("a reason");
    assert!(detail.contains("failed to execute the binary: No such file"), "{detail}");
}

#[test]
fn a_hanging_command_is_killed_and_the_component_restarted() {
    let Some(guest) = start("health", &Servers::start()) else {
        return;
    };
    let failed = guest.wait("restarted", State::Failed, Some(0));
    guest.wait("restarted", State::Active, Some(failed));
    assert!(guest.component("restarted").restarts >= 1);
    let records = guest.records(0);
    let own: Vec<_> = records.iter().filter(|record| &*record.component == "restarted").collect();
    assert!(own.iter().any(|record| record.to == State::Degraded));
    let stop = own.iter().find(|record| record.to == State::Stopping).expect("a stop");
    match &stop.cause {
        Cause::Unhealthy { failures: 3, reason } => assert!(reason.contains("no answer within 200ms")),
        other => panic!("{other:?}"),
    }
    // At most the one probe under way is left of all that hung.
    until("the end of what hung", || {
        guest.inside(&["sh", "-c", "test $(pgrep -fx 'sleep 1000' | wc -l) -le 1"]).success().then_some(())
    });
}

#[test]
fn what_cannot_be_set_is_not_started_without() {
    let Some(guest) = Guest::start("refused") else {
        return;
    };
    guest.wait("free", State::Active, None);
    for (name, what) in [
        ("user", "failed to find the user \"no-such-user\" in /etc/passwd: no such entry"),
        ("root", "failed to make /no/such/directory the root directory: no such file or directory"),
        ("bind", "failed to bind /etc to /no/such/directory: no such file or directory"),
    ] {
        guest.wait(name, State::Failed, None);
        let status = guest.component(name);
        let detail = status.detail.expect("a reason");
        assert!(detail.starts_with(what), "{name}: {detail}");
        assert_eq!(status.pid, None, "{name}");
    }
}
