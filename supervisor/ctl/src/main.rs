//! `graphctl`: asks and commands the supervisor.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 usage, 3 no supervisor. Nothing is read from the
//! terminal and every call has a time limit but those that wait on purpose (`wait` without `--timeout`, `-f`,
//! `--watch`, `top`), so it is safe in scripts.

mod arguments;
mod audit;
mod checkpoints;
mod client;
mod clock;
mod files;
mod freeze;
mod graph;
mod inspect;
mod journal;
mod kexec;
mod lifecycle;
mod log;
mod manual;
mod output;
mod slices;
mod tables;
mod top;
mod tree;
mod upgrade;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

use clap::FromArgMatches as _;
use yakiros_core::control::{Answer, Request, Until};
use yakiros_core::journal::State;

use arguments::{Arguments, Command};
use client::{Client, ClientError};
use output::Output;

/// What went wrong, by exit code.
enum Failure {
    /// 1: the supervisor refused, or the condition did not come true.
    Refused { message: String, near: Vec<String> },
    /// 1: the supervisor or the connection broke off.
    Broken(String),
    /// 2: the arguments make no sense together.
    Usage(String),
    /// 3: nobody answers.
    Absent(String),
}

impl Failure {
    /// Exit code, message, and what may have been meant.
    fn parts(self) -> (u8, String, Vec<String>) {
        match self {
            Self::Refused { message, near } => (1, message, near),
            Self::Broken(message) => (1, message, Vec::new()),
            Self::Usage(message) => (2, message, Vec::new()),
            Self::Absent(message) => (3, message, Vec::new()),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Absent { .. } => Self::Absent(error.to_string()),
            ClientError::Broken(_) => Self::Broken(error.to_string()),
        }
    }
}

fn main() -> ExitCode {
    let mut matches = manual::command().get_matches();
    let arguments = Arguments::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.exit());
    let output = Output::new(arguments.json);
    match run(&arguments, &output) {
        Ok(code) => code,
        Err(failure) => report(&output, failure),
    }
}

fn report(output: &Output, failure: Failure) -> ExitCode {
    let (code, message, near) = failure.parts();
    output.error(&message, &near);
    ExitCode::from(code)
}

fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode, Failure> {
    let mut client = Client::new(&arguments.socket);
    match &arguments.command {
        Command::Status { name, watch: Some(pace) } => {
            watch::run(&mut client, output, name.as_deref(), pace.limit())?;
        }
        Command::Status { name, watch: None } => {
            let status = client.status(name.as_deref())?;
            output.status(&status);
        }
        Command::Caps => output.capabilities(&client.graph()?),
        Command::Pending => output.pending(&client.graph()?),
        Command::Tree { name } => {
            let nodes = client.graph()?;
            match tree::of(&nodes, name) {
                Some(tree) => output.tree(&tree),
                None => return Err(unknown(client.status(Some(name)))),
            }
        }
        Command::Start { name, timeout } => {
            let (name, timeout_ms) = (name.clone(), Some(milliseconds(*timeout)));
            act(&mut client, output, Request::Start { name, timeout_ms }, *timeout)?;
        }
        Command::Stop { name, timeout } => {
            let (name, timeout_ms) = (name.clone(), Some(milliseconds(*timeout)));
            act(&mut client, output, Request::Stop { name, timeout_ms }, *timeout)?;
        }
        Command::Restart { name, timeout } => {
            let (name, timeout_ms) = (name.clone(), Some(milliseconds(*timeout)));
            act(&mut client, output, Request::Restart { name, timeout_ms }, *timeout)?;
        }
        Command::Upgrade { names, all, queue, no_fallback, strategy, timeout } => {
            let wish = upgrade::Wish {
                fallback: !no_fallback,
                queue: *queue,
                strategy: strategy.map(Into::into),
                timeout: *timeout,
            };
            let names = if *all { None } else { Some(&names[..]) };
            return upgrade::run(&mut client, output, names, &wish);
        }
        Command::Freeze { names, timeout } => {
            return freeze::run(&mut client, output, names, freeze::Wish::Freeze(*timeout));
        }
        Command::Thaw { names } => return freeze::run(&mut client, output, names, freeze::Wish::Thaw),
        Command::Readiness { name } => lifecycle::readiness(&mut client, output, name.as_deref())?,
        Command::Reload { name } => {
            let name = name.clone();
            // A component that announces its reload has its own limit for it.
            let limit = if name.is_some() { client::NO_LIMIT } else { Duration::ZERO };
            act(&mut client, output, Request::Reload { name }, limit)?;
        }
        Command::Resolve => act(&mut client, output, Request::Resolve, Duration::ZERO)?,
        Command::Log(log) => {
            let lines = log.count.or(log.lines);
            let wanted = log::Selection { name: &log.name, lines, since: log.since, follow: log.follow };
            log::run(&mut client, output, &wanted)?;
        }
        Command::Wait(wait) => {
            let until = condition(wait)?;
            let timeout_ms = wait.timeout.map(milliseconds);
            let limit = wait.timeout.unwrap_or(client::NO_LIMIT);
            act(&mut client, output, Request::Wait { until, timeout_ms }, limit)?;
        }
        Command::Events { name, since, follow } => {
            let wanted = journal::Selection { name: name.as_deref(), since: *since, follow: *follow };
            journal::events(&mut client, output, &wanted)?;
        }
        Command::Why { name } => journal::why(&mut client, output, name)?,
        Command::Slices => slices::run(&mut client, output)?,
        Command::Top(wanted) => top::run(&mut client, output, wanted)?,
        Command::Inspect { name } => return inspect::run(&mut client, output, name),
        Command::Audit { name, threshold } => {
            return audit::run(&mut client, output, name.as_deref(), *threshold);
        }
        Command::Graph(question) => return graph::run(question, &mut client, output),
        Command::Files(command) => return files::run(command, output),
        Command::Checkpoints(command) => return checkpoints::run(command, &mut client, output),
        Command::Kexec(wanted) => return kexec::run(wanted, &mut client, output),
        Command::Reexec => act(&mut client, output, Request::Reexec, Duration::ZERO)?,
        Command::Poweroff => act(&mut client, output, Request::Poweroff, Duration::ZERO)?,
        Command::Reboot => act(&mut client, output, Request::Reboot, Duration::ZERO)?,
        Command::Completions { shell } => manual::completions(*shell, manual::command(), output),
        Command::Man { dir } => {
            let target = dir.as_deref().map_or(manual::Target::Output, manual::Target::Directory);
            manual::pages(manual::command(), &target, output)?;
        }
        Command::Names => output.names(&client.status(None)?),
    }
    Ok(ExitCode::SUCCESS)
}

fn condition(wait: &arguments::Wait) -> Result<Until, Failure> {
    if wait.settled {
        return Ok(Until::Settled);
    }
    if let Some(file) = &wait.rejected {
        return Ok(Until::Rejected { file: file.clone() });
    }
    let (Some(name), Some(word)) = (&wait.name, &wait.state) else {
        let usage = "give NAME --state STATE, or --settled, or --rejected FILE";
        return Err(Failure::Usage(usage.to_owned()));
    };
    let state = State::from_name(word).ok_or_else(|| {
        let names: Vec<_> = State::ALL.iter().map(|state| state.name()).collect();
        Failure::Usage(format!("{word:?} is no state; it is one of {}", names.join(", ")))
    })?;
    Ok(Until::State { name: name.clone(), state, since: wait.since })
}

/// Send a request that is answered by done or not.
fn act(client: &mut Client, output: &Output, request: Request, limit: Duration) -> Result<(), Failure> {
    match client.ask(request, limit)? {
        Answer::Done { message, revision } => {
            output.done(&message, revision);
            Ok(())
        }
        other => Err(unexpected(other)),
    }
}

/// An answer that is not the one hoped for.
fn unexpected(answer: Answer) -> Failure {
    match answer {
        Answer::Refused { message, near } | Answer::TimedOut { message, near, .. } => {
            Failure::Refused { message, near }
        }
        _ => Failure::Broken("the supervisor gave an answer to another question".to_owned()),
    }
}

fn unknown(answer: Result<client::Status, Failure>) -> Failure {
    match answer {
        Err(failure) => failure,
        Ok(_) => Failure::Broken("the component has just been declared; try again".to_owned()),
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
