//! A service that can be asked in every way whether it is well, and that falls ill on command.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use nix::libc;
use yakiros_test_services::args::{Opt, Program, Values};
use yakiros_test_services::stop::Signals;
use yakiros_test_services::{Error, ready};

const PROGRAM: Program = Program {
    name: "test-health-demo",
    about: "Answers health probes in the ways that are asked for, until SIGTERM or SIGINT. While the ill file exists it is \
            ill: HTTP answers 503, ports are closed, the health file is gone and no signal is sent.",
    options: &[
        Opt { name: "--ill-file", value: Some("FILE"), default: None, help: "ill while this exists" },
        Opt {
            name: "--http",
            value: Some("ADDR"),
            default: None,
            help: "answer HTTP here: 200 when well, 503 when ill",
        },
        Opt { name: "--tcp", value: Some("ADDR"), default: None, help: "listen here while well" },
        Opt { name: "--unix", value: Some("FILE"), default: None, help: "listen on this socket while well" },
        Opt {
            name: "--health-file",
            value: Some("FILE"),
            default: None,
            help: "a file that exists while well",
        },
        Opt {
            name: "--beat",
            value: Some("N"),
            default: None,
            help: "send the parent this signal with each step while well",
        },
        Opt {
            name: "--step-ms",
            value: Some("N"),
            default: Some("20"),
            help: "time between two looks at everything",
        },
    ],
};

/// A client that says nothing for so long is given up.
const CLIENT_LIMIT: Duration = Duration::from_secs(1);
/// Of a request only the first line counts.
const REQUEST_BYTES: usize = 1024;

fn main() -> ExitCode {
    yakiros_test_services::main(&PROGRAM, run)
}

/// Everything that can be asked.
struct Demo {
    ill_file: PathBuf,
    http: Option<TcpListener>,
    tcp_address: Option<SocketAddr>,
    tcp: Option<TcpListener>,
    unix_path: Option<PathBuf>,
    unix: Option<UnixListener>,
    health_file: Option<PathBuf>,
    beat: Option<i32>,
}

fn run(values: &Values<'_>) -> Result<ExitCode, Error> {
    let step = Duration::from_millis(values.parse("--step-ms")?);
    let signals = Signals::to_stop().map_err(Error::failed("take signals"))?;
    let http: Option<SocketAddr> = values.optional("--http")?;
    let mut demo = Demo {
        ill_file: values.path("--ill-file")?,
        http: http.map(listen).transpose().map_err(Error::failed("listen for HTTP"))?,
        tcp_address: values.optional("--tcp")?,
        tcp: None,
        unix_path: values.optional_path("--unix"),
        unix: None,
        health_file: values.optional_path("--health-file"),
        beat: values.optional("--beat")?,
    };
    let mut was_ill = demo.ill_file.exists();
    demo.turn(was_ill).map_err(Error::failed("open what is asked"))?;
    ready::announce(None).map_err(Error::failed("announce readiness"))?;
    loop {
        if signals.wait_for(step).map_err(Error::failed("wait for a signal"))?.is_some() {
            return Ok(ExitCode::SUCCESS);
        }
        let ill = demo.ill_file.exists();
        if ill != was_ill {
            println!("{}", if ill { "ill" } else { "well" });
            demo.turn(ill).map_err(Error::failed("change what is asked"))?;
            was_ill = ill;
        }
        demo.answer(ill);
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Demo {
    /// Opens or closes what says by its existence that all is well.
    fn turn(&mut self, ill: bool) -> io::Result<()> {
        self.tcp = None;
        self.unix = None;
        for path in [&self.unix_path, &self.health_file].into_iter().flatten() {
            remove(path)?;
        }
        if ill {
            return Ok(());
        }
        self.tcp = self.tcp_address.map(listen).transpose()?;
        if let Some(path) = &self.unix_path {
            let listener = UnixListener::bind(path)?;
            listener.set_nonblocking(true)?;
            self.unix = Some(listener);
        }
        if let Some(path) = &self.health_file {
            fs::write(path, "")?;
        }
        Ok(())
    }

    /// Serves everybody who waits.
    fn answer(&self, ill: bool) {
        while let Some(Ok((mut client, _))) = self.http.as_ref().map(TcpListener::accept) {
            // A client that goes away in the middle is its own affair.
            let _ = client.set_nonblocking(false).and_then(|()| client.set_read_timeout(Some(CLIENT_LIMIT)));
            let _ = client.read(&mut [0; REQUEST_BYTES]);
            let status = if ill { "503 Service Unavailable" } else { "200 OK" };
            let _ = write!(client, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        while let Some(Ok(_)) = self.tcp.as_ref().map(TcpListener::accept) {}
        while let Some(Ok(_)) = self.unix.as_ref().map(UnixListener::accept) {}
        if let Some(signal) = self.beat.filter(|_| !ill) {
            // SAFETY: calls on numbers; real-time signals have no name in the wrapper.
            unsafe { libc::kill(libc::getppid(), signal) };
        }
    }
}

/// Removes a file that may be gone already.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
