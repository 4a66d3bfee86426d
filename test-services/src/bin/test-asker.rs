//! Asks the supervisor for its state again and again, and tells how long each answer took by the clock of this machine.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use yakiros_core::control::{Answer, AnswerLine, Request, encode_request};
use yakiros_test_services::Error;
use yakiros_test_services::args::{Opt, Program, Values};
use yakiros_test_services::control::Conversation;

const PROGRAM: Program = Program {
    name: "test-asker",
    about: "Asks the supervisor for its state again and again, and prints how long each answer took, as a JSON list of \
            nanoseconds: from connect(2) to the last byte of the last page or, with --command, from the start of that \
            program to its end.",
    options: &[
        Opt { name: "--times", value: Some("N"), default: Some("100"), help: "how often" },
        Opt {
            name: "--socket",
            value: Some("PATH"),
            default: Some("/run/graph-resolver.sock"),
            help: "the control socket",
        },
        Opt {
            name: "--command",
            value: Some("PATH"),
            default: None,
            help: "have `PATH status --json` ask in place of this program",
        },
        Opt { name: "--pause-ms", value: Some("N"), default: Some("5"), help: "time between two questions" },
    ],
};

fn main() -> ExitCode {
    yakiros_test_services::main(&PROGRAM, run)
}

fn run(values: &Values<'_>) -> Result<ExitCode, Error> {
    let times: usize = values.parse("--times")?;
    let pause = Duration::from_millis(values.parse("--pause-ms")?);
    let (socket, command) = (values.path("--socket")?, values.optional_path("--command"));
    let mut all = Vec::with_capacity(times);
    for _ in 0..times {
        let taken = match &command {
            Some(program) => by_command(program, &socket),
            None => by_socket(&socket),
        };
        all.push(taken.map_err(Error::failed("get the supervisor's state"))?.as_nanos());
        std::thread::sleep(pause);
    }
    let text = serde_json::to_string(&all).map_err(|error| Error::failed("print it")(error.into()))?;
    writeln!(io::stdout(), "{text}").map_err(Error::failed("print it"))?;
    Ok(ExitCode::SUCCESS)
}

/// One conversation of its own, with all pages.
fn by_socket(socket: &Path) -> io::Result<Duration> {
    let mut request = encode_request(Request::Status { name: None, after: None })?;
    let start = Instant::now();
    let mut supervisor = Conversation::begin(socket)?;
    loop {
        let answer = supervisor.ask(&request)?;
        let taken = start.elapsed();
        let line: AnswerLine = serde_json::from_slice(&answer)?;
        match line.answer {
            Answer::Status(page) if page.next.is_none() => return Ok(taken),
            Answer::Status(page) => {
                request = encode_request(Request::Status { name: None, after: page.next })?;
            }
            other => return Err(io::Error::other(format!("{other:?} is no state"))),
        }
    }
}

fn by_command(program: &Path, socket: &Path) -> io::Result<Duration> {
    let mut command = Command::new(program);
    command.arg("--socket").arg(socket).args(["status", "--json"]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let start = Instant::now();
    let status = command.status()?;
    let taken = start.elapsed();
    if status.success() {
        Ok(taken)
    } else {
        Err(io::Error::other(format!("{} {status}", program.display())))
    }
}
