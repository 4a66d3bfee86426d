//! Serves the files of a folder over HTTP, and survives upgrades with its connections.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use yakiros_test_services::args::{Opt, Program};
use yakiros_test_services::faults;
use yakiros_test_services::http::{Http, Request, Response, Site};
use yakiros_test_services::server;

const PROGRAM: Program = Program {
    name: "test-web-server",
    about: "Serves the files of a folder over HTTP until SIGTERM or SIGINT; /health answers 200 while the folder can be \
            read. As a component with handoff = \"fd-passing\" it hands its connections to its next version.",
    options: &[
        Opt { name: "--root", value: Some("FOLDER"), default: Some("/srv/www"), help: "what is served" },
        server::LISTEN,
        server::UNIX,
        server::UDP,
        server::UNIX_DATAGRAM,
        server::READY_FILE,
        server::MAX_CLIENTS,
        faults::FAULT,
    ],
};

/// The most bytes of a file: it is held in memory while it is sent.
const FILE_LIMIT: u64 = 1 << 20;

struct Files {
    root: PathBuf,
}

impl Site for Files {
    type State = ();
    const VERSION: u32 = 1;
    const IN_PARTS: bool = true;

    fn respond(&mut self, request: &Request<'_>) -> Response {
        match (request.method, request.path) {
            ("GET", "/health") if fs::read_dir(&self.root).is_ok() => Response::text(200, "well\n"),
            ("GET", "/health") => Response::text(503, "the folder cannot be read\n"),
            ("GET", path) => read(&self.root, path).unwrap_or_else(Response::not_found),
            _ => Response::text(405, "only GET\n"),
        }
    }

    fn state(&self) {}

    fn go_on(&mut self, (): ()) {}
}

/// A file below `root`; nothing that leads out of it.
fn read(root: &Path, path: &str) -> Option<Response> {
    let mut file = root.to_owned();
    for part in Path::new(path.trim_start_matches('/')).components() {
        match part {
            Component::Normal(name) => file.push(name),
            _ => return None,
        }
    }
    if file.is_dir() {
        file.push("index.html");
    }
    let body = fs::metadata(&file).ok().filter(|about| about.is_file() && about.len() <= FILE_LIMIT);
    let body = body.and_then(|_| fs::read(&file).ok())?;
    let kind = match file.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("json") => "application/json",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    };
    Some(Response { status: 200, kind, body })
}

fn main() -> ExitCode {
    yakiros_test_services::main(&PROGRAM, |values| {
        let root = values.path("--root")?;
        server::run(Http(Files { root }), values)
    })
}
