//! A client that keeps one connection for all of its life, and writes down each answer that it got on it.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use yakiros_test_services::Error;
use yakiros_test_services::args::{Opt, Program, Values};

const PROGRAM: Program = Program {
    name: "test-talker",
    about: "Sends the lines \"1\", \"2\", ... over one TCP connection, waits for each to come back, and appends it to a\n\
            file. Ends with 1 when the connection does, or when something else comes back.",
    options: &[
        Opt { name: "--to", value: Some("ADDR"), default: None, help: "address and port (required)" },
        Opt { name: "--file", value: Some("FILE"), default: None, help: "file to append to (required)" },
        Opt { name: "--interval-ms", value: Some("N"), default: Some("100"), help: "time between two lines" },
    ],
};

fn main() -> ExitCode {
    yakiros_test_services::main(&PROGRAM, run)
}

fn run(values: &Values<'_>) -> Result<ExitCode, Error> {
    let path = values.path("--file")?;
    let address: std::net::SocketAddr = values.parse("--to")?;
    let interval = Duration::from_millis(values.parse("--interval-ms")?);
    let open = OpenOptions::new().append(true).create(true).open(&path);
    let mut file = open.map_err(Error::failed(format!("open {}", path.display())))?;
    let mut stream = TcpStream::connect(address).map_err(Error::failed(format!("connect to {address}")))?;
    let reading = stream.try_clone().map_err(Error::failed("read from the connection"))?;
    let mut answers = BufReader::new(reading);
    for number in 1_u64.. {
        let line = format!("{number}\n");
        stream.write_all(line.as_bytes()).map_err(Error::failed("send"))?;
        let mut answer = String::new();
        answers.read_line(&mut answer).map_err(Error::failed("receive"))?;
        if answer != line {
            eprintln!("test-talker: to {number} came back {answer:?}");
            return Ok(ExitCode::FAILURE);
        }
        file.write_all(line.as_bytes()).map_err(Error::failed("append"))?;
        thread::sleep(interval);
    }
    Ok(ExitCode::SUCCESS)
}
