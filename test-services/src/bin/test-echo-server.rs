//! A TCP server that sends back what it gets: one thread for each connection, stopped by a signal.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use yakiros_test_services::args::{Opt, Program, Values};
use yakiros_test_services::stop::Signals;
use yakiros_test_services::{Error, ready};

const PROGRAM: Program = Program {
    name: "test-echo-server",
    about: "Listens on TCP and sends back what each connection sends, until SIGTERM or SIGINT.",
    options: &[
        Opt {
            name: "--listen",
            value: Some("ADDR"),
            default: Some("0.0.0.0:8080"),
            help: "address and port, 0 = any port",
        },
        Opt { name: "--ready-file", value: Some("FILE"), default: None, help: "file to create when ready" },
        Opt {
            name: "--max-clients",
            value: Some("N"),
            default: Some("256"),
            help: "further connections are closed at once",
        },
    ],
};

/// Stack of a connection's thread: it only copies.
const STACK_BYTES: usize = 64 << 10;
/// A connection that is silent for so long is given up, so that forgotten clients do not use up the limit.
const SILENCE_LIMIT: Duration = Duration::from_secs(3600);
/// Pause after a failed accept: without descriptors it would fail again at once, for ever.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    yakiros_test_services::main(&PROGRAM, run)
}

fn run(values: &Values<'_>) -> Result<ExitCode, Error> {
    // Numbers only: a resolver has no place in a small static program.
    let address: SocketAddr = values.parse("--listen")?;
    let limit: usize = values.parse("--max-clients")?;
    // Before any thread: they all inherit the mask.
    let signals = Signals::to_stop().map_err(Error::failed("take signals"))?;
    let listener = TcpListener::bind(address).map_err(Error::failed(format!("listen on {address}")))?;
    let address = listener.local_addr().map_err(Error::failed("read the address"))?;
    println!("listening on {address}");
    ready::announce(values.optional_path("--ready-file").as_deref())
        .map_err(Error::failed("announce readiness"))?;
    thread::Builder::new()
        .name("accept".into())
        .spawn(move || accept(&listener, limit))
        .map_err(Error::failed("start a thread"))?;
    signals.wait().map_err(Error::failed("wait for a signal"))?;
    Ok(ExitCode::SUCCESS)
}

fn accept(listener: &TcpListener, limit: usize) {
    let clients = Arc::new(AtomicUsize::new(0));
    loop {
        match listener.accept() {
            Ok((stream, _)) => serve(stream, &clients, limit),
            Err(error) => {
                eprintln!("test-echo-server: failed to accept a connection: {error}");
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

/// Gives the connection a thread, or closes it when there are too many.
fn serve(stream: TcpStream, clients: &Arc<AtomicUsize>, limit: usize) {
    if clients.fetch_add(1, Ordering::Relaxed) >= limit {
        clients.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    let own = Arc::clone(clients);
    let echo = move || {
        // A client that goes away in the middle is its own affair.
        let _ = echo(&stream);
        own.fetch_sub(1, Ordering::Relaxed);
    };
    if let Err(error) = thread::Builder::new().stack_size(STACK_BYTES).spawn(echo) {
        clients.fetch_sub(1, Ordering::Relaxed);
        eprintln!("test-echo-server: failed to start a thread: {error}");
    }
}

fn echo(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE_LIMIT))?;
    // Small answers must not wait for more to come.
    stream.set_nodelay(true)?;
    io::copy(&mut &*stream, &mut &*stream)?;
    stream.shutdown(Shutdown::Both)
}
