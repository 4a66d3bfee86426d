//! The examples of the handoff crate, as their users run them: declared, and upgraded under their clients.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;

use yakiros_core::control::{Request, UpgradeLevel};
use yakiros_core::journal::State;

use crate::guest::{Guest, PATIENCE, until};
use crate::handover::done;

/// An example, which cargo builds for the tests of its package and puts beside them.
pub fn built(name: &str) -> String {
    let tests = std::env::current_exe().expect("this program");
    let profile = tests.ancestors().nth(2).map(PathBuf::from).expect("a folder of the profile");
    let example = profile.join("examples").join(name);
    assert!(example.exists(), "{} is missing: cargo build -p yakiros-init --examples", example.display());
    example.display().to_string()
}

/// An address that is this test's alone, of the machine's own ones.
pub fn own_address(number: u8) -> String {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    format!("127.{}.{middle}.{low}:{}", high.saturating_add(1), 7000 + u16::from(number))
}

pub fn ask(mut client: &TcpStream, text: &str) {
    client.write_all(text.as_bytes()).expect("the server listens");
    hear(client, text);
}

fn hear(mut client: &TcpStream, text: &str) {
    let mut answer = vec![0; text.len()];
    client.read_exact(&mut answer).expect("an answer");
    assert_eq!(String::from_utf8_lossy(&answer), text);
}

/// Clients that were connected before stay so; also one that does not read, which holds nobody up.
fn survives_upgrades(example: &str, number: u8) {
    let (binary, address) = (built(example), own_address(number));
    let dir = tempfile::tempdir().expect("temporary directory");
    std::fs::create_dir(dir.path().join("graph.d")).expect("configuration directory");
    let text = format!(
        "[component]\nname = \"echo\"\nbinary = {binary:?}\nargs = [{address:?}]\n[lifecycle]\n\
         handoff = \"fd-passing\"\n"
    );
    std::fs::write(dir.path().join("graph.d/echo.toml"), text).expect("file");
    let Some(guest) = Guest::start_in(dir) else { return };
    guest.wait("echo", State::Active, None);
    let connect = || {
        let client = until("a connection", || TcpStream::connect(&address).ok());
        client.set_read_timeout(Some(PATIENCE)).expect("read timeout");
        client
    };
    let clients = [connect(), connect()];
    ask(&clients[0], "first");
    ask(&clients[1], "second");
    let deaf = connect();
    deaf.set_nonblocking(true).expect("mode");
    // Until it waits for a reader, or does not.
    until("a full connection, or none", || (&deaf).write(&[b'x'; 16384]).err());
    for generation in 2..=4 {
        let request = Request::Upgrade {
            name: "echo".to_owned(),
            fallback: false,
            queue: false,
            strategy: None,
            timeout_ms: None,
        };
        let done = done(guest.ask(request));
        assert_eq!((done.level, done.generation), (UpgradeLevel::FdPassing, generation), "{done:?}");
        assert!(done.descriptors >= Some(3), "a listener and two connections: {done:?}");
        for client in &clients {
            ask(client, &format!("after {generation}"));
        }
        ask(&connect(), "new");
    }
    for mut client in &clients {
        client.shutdown(Shutdown::Write).expect("a connection");
        assert_eq!(client.read(&mut [0]).expect("its end"), 0);
    }
}

#[test]
fn the_short_server_survives_upgrades_with_its_connections() {
    survives_upgrades("handoff-echo", 1);
}

#[test]
fn the_server_of_tokio_survives_upgrades_with_its_connections() {
    survives_upgrades("handoff-echo-tokio", 2);
}
