//! A client that keeps one connection for all of its life, and writes down the answers that it got on it.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use yakiros_test_services::Error;
use yakiros_test_services::args::{Opt, Program, Values};

const PROGRAM: Program = Program {
    name: "test-talker",
    about: "Sends the lines \"1\", \"2\", ... over one TCP connection, and waits for each to come back. Ends with 1 when the\n\
            connection does, or when something else comes back, or in another order.",
    options: &[
        Opt { name: "--to", value: Some("ADDR"), default: None, help: "address and port (required)" },
        Opt { name: "--file", value: Some("FILE"), default: None, help: "append each answer" },
        Opt { name: "--interval-ms", value: Some("N"), default: Some("100"), help: "time between two lines" },
        Opt {
            name: "--ahead",
            value: Some("N"),
            default: Some("1"),
            help: "lines that are under way at once",
        },
        Opt { name: "--print", value: Some("N"), default: None, help: "print every so many answers" },
    ],
};

fn main() -> ExitCode {
    yakiros_test_services::main(&PROGRAM, run)
}

fn run(values: &Values<'_>) -> Result<ExitCode, Error> {
    let path = values.optional_path("--file");
    let address: std::net::SocketAddr = values.parse("--to")?;
    let interval = Duration::from_millis(values.parse("--interval-ms")?);
    let ahead: u64 = values.parse("--ahead")?;
    let every: Option<u64> = values.optional("--print")?;
    let open = |path: PathBuf| {
        let open = OpenOptions::new().append(true).create(true).open(&path);
        open.map_err(Error::failed(format!("open {}", path.display())))
    };
    let mut file = path.map(open).transpose()?;
    let mut stream = TcpStream::connect(address).map_err(Error::failed(format!("connect to {address}")))?;
    let reading = stream.try_clone().map_err(Error::failed("read from the connection"))?;
    let mut answers = BufReader::new(reading);
    for number in 1_u64.. {
        stream.write_all(format!("{number}\n").as_bytes()).map_err(Error::failed("send"))?;
        if let Some(answered) = (number + 1).checked_sub(ahead.max(1)).filter(|answered| *answered > 0) {
            let line = format!("{answered}\n");
            let mut answer = String::new();
            answers.read_line(&mut answer).map_err(Error::failed("receive"))?;
            if answer != line {
                eprintln!("test-talker: in place of {line:?} came back {answer:?}");
                return Ok(ExitCode::FAILURE);
            }
            if let Some(file) = &mut file {
                file.write_all(line.as_bytes()).map_err(Error::failed("append"))?;
            }
            if every.is_some_and(|every| answered.is_multiple_of(every)) {
                print!("{line}");
            }
        }
        thread::sleep(interval);
    }
    Ok(ExitCode::SUCCESS)
}
