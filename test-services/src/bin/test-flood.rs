//! Writes lines, fast: what a log must survive.

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use yakiros_test_services::Error;
use yakiros_test_services::args::{Opt, Program, Values};

const PROGRAM: Program = Program {
    name: "test-flood",
    about: "Writes numbered lines to standard output. SIGTERM ends it as it ends any\n\
            program that does not handle it: it may be stuck in a write.",
    options: &[
        Opt {
            name: "--rate",
            value: Some("N"),
            default: Some("0"),
            help: "lines a second, 0 = as fast as possible",
        },
        Opt {
            name: "--bytes",
            value: Some("N"),
            default: Some("80"),
            help: "length of a line with its newline",
        },
        Opt {
            name: "--lines",
            value: Some("N"),
            default: Some("0"),
            help: "exit after so many lines, 0 = never",
        },
    ],
};

/// Lines are written in bursts this far apart; finer than any log can tell.
const BURST_EVERY: Duration = Duration::from_millis(10);
/// Most lines in one write.
const FULL_BURST: u64 = 256;
/// Shortest line: a number of twelve digits, a space and the newline.
const SHORTEST: usize = 14;
/// Longest line.
const LONGEST: usize = 1 << 20;

fn main() -> ExitCode {
    yakiros_test_services::main(&PROGRAM, run)
}

fn run(values: &Values<'_>) -> Result<ExitCode, Error> {
    let rate: u64 = values.parse("--rate")?;
    let lines: u64 = values.parse("--lines")?;
    let bytes: usize = values.parse("--bytes")?;
    if !(SHORTEST..=LONGEST).contains(&bytes) {
        return Err(Error::Usage(format!("--bytes {bytes}: not between {SHORTEST} and {LONGEST}")));
    }
    let end = if lines == 0 { u64::MAX } else { lines };
    flood(rate, bytes, end).map_err(Error::failed("write to standard output"))?;
    Ok(ExitCode::SUCCESS)
}

fn flood(rate: u64, bytes: usize, end: u64) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let start = Instant::now();
    let mut written = 0;
    let mut burst = Vec::new();
    while written < end {
        let due = if rate == 0 { u64::MAX } else { due(rate, start.elapsed()) };
        let upto = due.min(end).min(written.saturating_add(FULL_BURST)).max(written);
        burst.clear();
        for number in written..upto {
            push_line(&mut burst, number, bytes);
        }
        written = upto;
        out.write_all(&burst)?;
        out.flush()?;
        if written >= due {
            thread::sleep(BURST_EVERY);
        }
    }
    Ok(())
}

/// How many lines should be out after this time; the first one at once.
fn due(rate: u64, elapsed: Duration) -> u64 {
    let lines = u128::from(rate) * elapsed.as_millis() / 1000 + 1;
    u64::try_from(lines).unwrap_or(u64::MAX)
}

fn push_line(burst: &mut Vec<u8>, number: u64, bytes: usize) {
    let number = format!("{number:012} ");
    burst.extend_from_slice(number.as_bytes());
    burst.resize(burst.len() + bytes.saturating_sub(number.len() + 1), b'x');
    burst.push(b'\n');
}
