//! A task that leaves a trace and ends.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use yakiros_test_services::Error;
use yakiros_test_services::args::{Opt, Program, Values};

const PROGRAM: Program = Program {
    name: "test-oneshot",
    about: "Appends the line \"pid=PID time=SECONDS component=NAME\" to a file and exits.",
    options: &[
        Opt {
            name: "--append",
            value: Some("FILE"),
            default: None,
            help: "file that gets the line (required)",
        },
        Opt { name: "--exit-code", value: Some("N"), default: Some("0"), help: "exit code, 0 to 255" },
        Opt {
            name: "--sleep-ms",
            value: Some("N"),
            default: Some("0"),
            help: "time between the line and the exit",
        },
    ],
};

fn main() -> ExitCode {
    yakiros_test_services::main(&PROGRAM, run)
}

fn run(values: &Values<'_>) -> Result<ExitCode, Error> {
    let path = values.path("--append")?;
    let code: u8 = values.parse("--exit-code")?;
    let sleep = Duration::from_millis(values.parse("--sleep-ms")?);
    // A clock before 1970 is no reason to fail.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let component = std::env::var("GRAPH_COMPONENT").unwrap_or_default();
    let line = format!(
        "pid={} time={}.{:06} component={component}\n",
        std::process::id(),
        now.as_secs(),
        now.subsec_micros()
    );
    // One write to a file that is open for appending: lines of several tasks do not mix.
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .map_err(Error::failed(format!("append to {}", path.display())))?;
    std::thread::sleep(sleep);
    Ok(ExitCode::from(code))
}
