//! A service that does nothing until it is asked to stop: the smallest well-behaved one.

use std::ffi::CString;
use std::process::ExitCode;

use yakiros_test_services::args::{Opt, Program, Values};
use yakiros_test_services::stop::Signals;
use yakiros_test_services::{Error, ready};

const PROGRAM: Program = Program {
    name: "test-idle",
    about: "Does nothing until SIGTERM or SIGINT, then exits with 0.",
    options: &[
        Opt {
            name: "--name",
            value: Some("NAME"),
            default: None,
            help: "name in the process list, 15 bytes count",
        },
        Opt { name: "--ready-file", value: Some("FILE"), default: None, help: "file to create when ready" },
    ],
};

fn main() -> ExitCode {
    yakiros_test_services::main(&PROGRAM, run)
}

fn run(values: &Values<'_>) -> Result<ExitCode, Error> {
    let signals = Signals::to_stop().map_err(Error::failed("take signals"))?;
    if let Some(name) = values.optional::<String>("--name")? {
        let name = CString::new(name).map_err(|error| Error::Usage(format!("--name: {error}")))?;
        nix::sys::prctl::set_name(&name).map_err(|error| Error::failed("set the name")(error.into()))?;
    }
    ready::announce(values.optional_path("--ready-file").as_deref())
        .map_err(Error::failed("announce readiness"))?;
    signals.wait().map_err(Error::failed("wait for a signal"))?;
    Ok(ExitCode::SUCCESS)
}
