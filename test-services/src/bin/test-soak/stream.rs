//! Where the lines go: to a file, or to an I/O port that the host writes down.
//!
//! A port takes each byte within the instruction that writes it. There is no buffer, no interrupt and nobody to wait for,
//! so that writing costs the machine the same every time.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde_json::Value;

/// The kernel's file of all ports: a byte at an offset is a byte to that port.
const PORTS: &str = "/dev/port";

/// Takes lines.
#[derive(Debug)]
pub enum Stream {
    /// Byte by byte, to the port of this number.
    Port(File, u64),
    /// To a file.
    File(File),
    /// To standard output.
    Output,
}

impl Stream {
    /// Opens what was asked for.
    pub fn open(port: Option<u16>, file: Option<&Path>) -> io::Result<Self> {
        match (port, file) {
            (Some(port), _) => Ok(Self::Port(OpenOptions::new().write(true).open(PORTS)?, port.into())),
            (None, Some(path)) => Ok(Self::File(OpenOptions::new().append(true).create(true).open(path)?)),
            (None, None) => Ok(Self::Output),
        }
    }

    /// One object.
    pub fn line(&mut self, value: &Value) -> io::Result<()> {
        let line = format!("{value}\n");
        match self {
            Self::Port(ports, port) => {
                // One byte each: a longer write would go on at the next port.
                line.as_bytes().chunks(1).try_for_each(|byte| ports.write_all_at(byte, *port))
            }
            Self::File(file) => file.write_all(line.as_bytes()),
            Self::Output => io::stdout().lock().write_all(line.as_bytes()),
        }
    }
}
