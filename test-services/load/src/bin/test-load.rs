//! Puts a server that sends back what it gets under load, and judges what comes back.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;
use yakiros_load::check::{Checker, Verdict};
use yakiros_load::client::{self, IdleState, Load, Pace, Target};
use yakiros_load::{frame, history};

/// Bytes of the history that are kept until they are written.
const BUFFER: usize = 1 << 20;

/// Put a server under load, log every request and reply, and prove from the log that nothing was
/// lost, duplicated, damaged or out of order.
///
/// The server has to send back what it gets. Exit status: 0 if all is clean, 1 if not, 2 if the
/// command line is wrong, 3 if the load could not be made or the history not be read.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:
  test-load run tcp:127.0.0.1:8080 --connections 1000 --for 60
  test-load run unix:/run/echo --connections 50 --rate 2000 --history /tmp/h --json
  test-load check /tmp/h --windows /tmp/upgrades"
)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make load until the time is over or SIGINT or SIGTERM comes, then judge.
    Run(Run),
    /// Judge a history.
    Check(Check),
}

#[derive(Args)]
struct Run {
    /// tcp:ADDRESS:PORT, udp:ADDRESS:PORT, unix:PATH or unix-datagram:PATH
    target: Target,
    /// Connections that ask all the time.
    #[arg(long, value_name = "N", default_value_t = 10)]
    connections: u32,
    /// Further connections that ask only at their begin and end.
    #[arg(long, value_name = "N", default_value_t = 0)]
    idle: u32,
    /// What these are in between.
    #[arg(long, value_enum, default_value_t, value_name = "STATE")]
    idle_state: IdleWord,
    /// Connections that are being established at once, each until it has a reply.
    #[arg(long, value_name = "N", default_value_t = client::CONNECTING, value_parser = clap::value_parser!(u16).range(1..))]
    connecting: u16,
    /// Requests that each connection has under way.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pipeline: u16,
    /// An open loop: so many requests per second in all, whatever comes back.
    #[arg(long, value_name = "N", conflicts_with = "pipeline", value_parser = positive)]
    rate: Option<f64>,
    /// Bytes of a request.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = bytes)]
    bytes: usize,
    /// Send each request in two halves with such a pause between them.
    #[arg(long, value_name = "MS")]
    split_ms: Option<u64>,
    /// End a connection after so many requests, and establish another one.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    requests_per_connection: Option<u64>,
    /// Seconds of load; without it, until a signal comes.
    #[arg(long = "for", value_name = "SECONDS", value_parser = positive)]
    time: Option<f64>,
    /// Seconds that are waited at the end for the last replies.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = positive)]
    drain: f64,
    /// Write the history to this file.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Make this file when all connections have a reply, and idle ones are in their state.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Print the verdict as JSON.
    #[arg(long)]
    json: bool,
}

/// [`IdleState`] in words.
#[derive(Clone, Copy, Default, ValueEnum)]
enum IdleWord {
    /// Nothing under way
    #[default]
    Open,
    /// In the middle of a request
    HalfSent,
    /// Much is asked, nothing more will be, and nothing is read until the end
    HalfClosed,
}

impl From<IdleWord> for IdleState {
    fn from(word: IdleWord) -> Self {
        match word {
            IdleWord::Open => Self::Open,
            IdleWord::HalfSent => Self::HalfSent,
            IdleWord::HalfClosed => Self::HalfClosed,
        }
    }
}

#[derive(Args)]
struct Check {
    /// A file that `run --history` wrote.
    history: PathBuf,
    /// Tell the longest silence of parts of the time separately: a file with begin and end on each
    /// line, in nanoseconds on `CLOCK_MONOTONIC`.
    #[arg(long, value_name = "FILE")]
    windows: Option<PathBuf>,
    /// Print the verdict as JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let (json, result) = match options.command {
        Command::Run(run) => (run.json, make(run)),
        Command::Check(check) => (check.json, judge(&check)),
    };
    let shown = result.and_then(|verdict| {
        let text = if json { serde_json::to_string(&verdict)? } else { verdict.to_string() };
        writeln!(io::stdout(), "{text}")?;
        Ok(verdict.clean)
    });
    match shown {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("test-load: {error}");
            ExitCode::from(3)
        }
    }
}

fn make(run: Run) -> io::Result<Verdict> {
    raise_descriptor_limit()?;
    let pace = match run.rate {
        Some(rate) => {
            Pace::Open { interval: Duration::from_secs_f64(f64::from(run.connections.max(1)) / rate) }
        }
        None => Pace::Closed { pipeline: run.pipeline.into() },
    };
    let load = Load {
        target: run.target,
        connections: run.connections,
        idle: run.idle,
        connecting: run.connecting,
        idle_state: run.idle_state.into(),
        pace,
        bytes: run.bytes,
        split: run.split_ms.map(Duration::from_millis),
        requests_per_connection: run.requests_per_connection,
        drain: Duration::from_secs_f64(run.drain),
        ready_file: run.ready_file,
    };
    let to = run.history.as_deref().map(create).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let time = run.time.map(Duration::from_secs_f64);
    LocalSet::new().block_on(&runtime, async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        client::run(load, to, async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                () = over(time) => {}
            }
        })
        .await
    })
}

async fn over(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

fn create(path: &Path) -> io::Result<Box<dyn Write>> {
    let file = File::create(path).map_err(at(path))?;
    Ok(Box::new(BufWriter::with_capacity(BUFFER, file)))
}

fn judge(check: &Check) -> io::Result<Verdict> {
    let windows = check.windows.as_deref().map(read_windows).transpose()?;
    let mut checker = Checker::new(windows.unwrap_or_default());
    let file = File::open(&check.history).map_err(at(&check.history))?;
    let from = BufReader::with_capacity(BUFFER, file);
    history::read(from, |record| checker.add(record)).map_err(at(&check.history))?;
    Ok(checker.finish())
}

fn read_windows(path: &Path) -> io::Result<Vec<(u64, u64)>> {
    let file = BufReader::new(File::open(path).map_err(at(path))?);
    let mut windows = Vec::new();
    for (number, line) in (1..).zip(file.lines()) {
        let line = line.map_err(at(path))?;
        let numbers: Result<Vec<u64>, _> = line.split_whitespace().map(str::parse).collect();
        match numbers.as_deref() {
            Ok(&[from, to]) if from <= to => windows.push((from, to)),
            _ => {
                let what = "is not the begin and the end of a window, in nanoseconds";
                let what = format!("line {number}: {line:?} {what}");
                return Err(at(path)(io::Error::new(io::ErrorKind::InvalidData, what)));
            }
        }
    }
    Ok(windows)
}

fn at(path: &Path) -> impl Fn(io::Error) -> io::Error + '_ {
    |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Each connection takes a descriptor, and the usual limit is 1,024.
fn raise_descriptor_limit() -> io::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= 1e9 => Ok(number),
        Ok(_) => Err("expected more than 0 and at most 1e9".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn bytes(text: &str) -> Result<usize, String> {
    let (least, most) = (frame::SHORTEST, frame::LONGEST);
    let number = text.parse::<usize>().map_err(|error| error.to_string())?;
    if (least..=most).contains(&number) { Ok(number) } else { Err(format!("expected {least} to {most}")) }
}
