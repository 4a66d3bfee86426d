//! A small database: what it has confirmed is on the disk.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::libc;
use yakiros_test_services::args::{Opt, Program, Values};
use yakiros_test_services::stop::Signals;
use yakiros_test_services::wal::{Change, Store};
use yakiros_test_services::{Error, ready};

const PROGRAM: Program = Program {
    name: "test-database",
    about: "Keeps keys and values, until SIGTERM or SIGINT. Over TCP, a line each: SET KEY VALUE, GET KEY, DEL KEY, COUNT. \
            The answer to a change comes when it is on the disk.",
    options: &[
        Opt {
            name: "--listen",
            value: Some("ADDR"),
            default: Some("0.0.0.0:8082"),
            help: "address and port",
        },
        Opt { name: "--file", value: Some("FILE"), default: None, help: "the write-ahead file" },
        Opt { name: "--ready-file", value: Some("FILE"), default: None, help: "file to create when ready" },
        Opt {
            name: "--beat",
            value: Some("N"),
            default: None,
            help: "send the parent this signal while well",
        },
        Opt { name: "--beat-ms", value: Some("N"), default: Some("1000"), help: "time between two of them" },
    ],
};

/// Stack of a client's thread.
const STACK_BYTES: usize = 128 << 10;
/// The longest line of a client, in bytes.
const LINE_LIMIT: u64 = 64 << 10;
/// A client that says nothing for so long is given up.
const SILENCE_LIMIT: Duration = Duration::from_secs(3600);

fn main() -> ExitCode {
    yakiros_test_services::main(&PROGRAM, run)
}

fn run(values: &Values<'_>) -> Result<ExitCode, Error> {
    let address: SocketAddr = values.parse("--listen")?;
    let beat: Option<i32> = values.optional("--beat")?;
    let step = Duration::from_millis(values.parse("--beat-ms")?);
    // Before any thread: they all inherit the mask.
    let signals = Signals::to_stop().map_err(Error::failed("take signals"))?;
    let store = Store::open(&values.path("--file")?).map_err(Error::failed("open the write-ahead file"))?;
    println!("{} keys", store.len());
    let store = Arc::new(Mutex::new(store));
    let listener = TcpListener::bind(address).map_err(Error::failed(format!("listen on {address}")))?;
    println!("listening on {}", listener.local_addr().map_err(Error::failed("read the address"))?);
    let served = Arc::clone(&store);
    thread::spawn(move || accept(&listener, &served));
    ready::announce(values.optional_path("--ready-file").as_deref())
        .map_err(Error::failed("announce readiness"))?;
    while signals.wait_for(step).map_err(Error::failed("wait for a signal"))?.is_none() {
        if let Some(signal) = beat {
            // SAFETY: calls on numbers; real-time signals have no name in the wrapper.
            unsafe { libc::kill(libc::getppid(), signal) };
        }
    }
    // No change is cut off in the middle.
    let _last = store.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(ExitCode::SUCCESS)
}

fn accept(listener: &TcpListener, store: &Arc<Mutex<Store>>) {
    for stream in listener.incoming() {
        let store = Arc::clone(store);
        let started = stream.and_then(|stream| {
            // A client that goes away in the middle is its own affair.
            thread::Builder::new().stack_size(STACK_BYTES).spawn(move || drop(serve(&stream, &store)))
        });
        if let Err(error) = started {
            eprintln!("test-database: failed to serve a client: {error}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn serve(stream: &TcpStream, store: &Mutex<Store>) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE_LIMIT))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        io::Read::take(&mut reader, LINE_LIMIT).read_line(&mut line)?;
        let Some(line) = line.strip_suffix('\n') else {
            return Ok(());
        };
        let answer = answer(line, &mut store.lock().unwrap_or_else(PoisonError::into_inner));
        writeln!(&mut &*stream, "{answer}")?;
    }
}

fn answer(line: &str, store: &mut Store) -> String {
    let words: Vec<&str> = line.splitn(3, ' ').collect();
    let changed = match words[..] {
        ["GET", key] => return store.get(key).map_or("NONE".to_owned(), |value| format!("VALUE {value}")),
        ["COUNT"] => return format!("VALUE {}", store.len()),
        ["SET", key, value] => store.change(Change::Set(key, value)),
        ["DEL", key] => store.change(Change::Delete(key)),
        _ => return "ERROR expected SET KEY VALUE, GET KEY, DEL KEY or COUNT".to_owned(),
    };
    match changed {
        Ok(()) => "OK".to_owned(),
        Err(error) => format!("ERROR {error}"),
    }
}
