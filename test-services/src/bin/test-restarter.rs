//! Has the supervisor restart components again and again, and tells what that took, beside what the start of a program
//! took at the same time.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;
use yakiros_core::control::{Answer, AnswerLine, Request, encode_request};
use yakiros_test_services::Error;
use yakiros_test_services::args::{Opt, Program, Values};
use yakiros_test_services::control::Conversation;

const PROGRAM: Program = Program {
    name: "test-restarter",
    about: "Has the supervisor restart components in turn, round by round, and prints a JSON list with what each round took, \
            in nanoseconds: the restarts, each from connect(2) to its answer; process 1 on a processor meanwhile; and a start \
            of /bin/true after each restart, which tells how quick this machine is at that time.",
    options: &[
        Opt { name: "--rounds", value: Some("N"), default: Some("10"), help: "how often each is restarted" },
        Opt { name: "--names", value: Some("A,B,…"), default: None, help: "what is restarted" },
        Opt {
            name: "--socket",
            value: Some("PATH"),
            default: Some("/run/graph-resolver.sock"),
            help: "the control socket",
        },
    ],
};

/// One round, in nanoseconds.
#[derive(Default, Serialize)]
struct Round {
    /// All restarts.
    restarts: u64,
    /// Process 1 on a processor, for them.
    own: u64,
    /// As many starts of /bin/true.
    starts: u64,
}

fn main() -> ExitCode {
    yakiros_test_services::main(&PROGRAM, run)
}

fn run(values: &Values<'_>) -> Result<ExitCode, Error> {
    let rounds: usize = values.parse("--rounds")?;
    let names: String =
        values.optional("--names")?.ok_or_else(|| Error::Usage("--names is missing".into()))?;
    let socket = values.path("--socket")?;
    let all: io::Result<Vec<Round>> = (0..rounds).map(|_| round(&names, &socket)).collect();
    let all = all.map_err(Error::failed("restart components"))?;
    let text = serde_json::to_string(&all).map_err(|error| Error::failed("print it")(error.into()))?;
    writeln!(io::stdout(), "{text}").map_err(Error::failed("print it"))?;
    Ok(ExitCode::SUCCESS)
}

fn round(names: &str, socket: &Path) -> io::Result<Round> {
    let mut round = Round::default();
    for name in names.split(',') {
        let own = own_time()?;
        round.restarts += nanoseconds(restart(name, socket)?);
        round.own += own_time()?.saturating_sub(own);
        let begun = Instant::now();
        Command::new("/bin/true").stdin(Stdio::null()).status()?;
        round.starts += nanoseconds(begun.elapsed());
    }
    Ok(round)
}

fn restart(name: &str, socket: &Path) -> io::Result<Duration> {
    let request = encode_request(Request::Restart { name: name.to_owned(), timeout_ms: None })?;
    let begun = Instant::now();
    let answer = Conversation::begin(socket)?.ask(&request)?;
    let taken = begun.elapsed();
    let line: AnswerLine = serde_json::from_slice(&answer)?;
    match line.answer {
        Answer::Done { .. } => Ok(taken),
        other => Err(io::Error::other(format!("the restart of {name}: {other:?}"))),
    }
}

/// Nanoseconds of process 1 on a processor.
fn own_time() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/1/schedstat")?;
    let first = text.split_whitespace().next().and_then(|number| number.parse().ok());
    first.ok_or_else(|| io::Error::other(format!("/proc/1/schedstat says {text}")))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
