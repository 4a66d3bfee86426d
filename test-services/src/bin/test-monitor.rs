//! Looks after others: a file says whether all of them answer.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use yakiros_test_services::args::{Opt, Program, Values};
use yakiros_test_services::stop::Signals;
use yakiros_test_services::{Error, ready};

const PROGRAM: Program = Program {
    name: "test-monitor",
    about: "Connects to every target in turn, until SIGTERM or SIGINT. The status file says of each whether it answers; the \
            health file exists as long as looking works.",
    options: &[
        Opt {
            name: "--targets",
            value: Some("LIST"),
            default: Some(""),
            help: "ADDRESS:PORT, with commas between",
        },
        Opt { name: "--status", value: Some("FILE"), default: None, help: "the status file" },
        Opt { name: "--health-file", value: Some("FILE"), default: None, help: "the health file" },
        Opt { name: "--interval-ms", value: Some("N"), default: Some("1000"), help: "between two rounds" },
    ],
};

/// A target that takes longer does not answer.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    yakiros_test_services::main(&PROGRAM, run)
}

fn run(values: &Values<'_>) -> Result<ExitCode, Error> {
    let list: String = values.parse("--targets")?;
    let targets: Result<Vec<SocketAddr>, _> =
        list.split(',').filter(|target| !target.is_empty()).map(str::parse).collect();
    let targets = targets.map_err(|error| Error::Usage(format!("--targets {list}: {error}")))?;
    let status = values.optional_path("--status");
    let health = values.optional_path("--health-file");
    let interval = Duration::from_millis(values.parse("--interval-ms")?);
    let signals = Signals::to_stop().map_err(Error::failed("take signals"))?;
    let mut announced = false;
    loop {
        let look = |target: &SocketAddr| match TcpStream::connect_timeout(target, CONNECT_LIMIT) {
            Ok(_) => format!("{target} answers\n"),
            Err(error) => format!("{target} {error}\n"),
        };
        let text: String = targets.iter().map(look).collect();
        if let Some(path) = &status {
            // Beside it, then moved into place: nobody reads half of it.
            let beside = path.with_extension("new");
            fs::write(&beside, text)
                .and_then(|()| fs::rename(&beside, path))
                .map_err(Error::failed("tell the status"))?;
        }
        if let Some(path) = &health {
            fs::write(path, "").map_err(Error::failed("write the health file"))?;
        }
        if !announced {
            ready::announce(None).map_err(Error::failed("announce readiness"))?;
            announced = true;
        }
        if signals.wait_for(interval).map_err(Error::failed("wait for a signal"))?.is_some() {
            return Ok(ExitCode::SUCCESS);
        }
    }
}
