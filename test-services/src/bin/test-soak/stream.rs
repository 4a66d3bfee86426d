//! Where the lines go: to a file, or to an I/O port that the host writes down.
//!
//! A port takes each byte within the instruction that writes it. There is no buffer, no interrupt and nobody to wait for,
//! so that writing costs the machine the same every time.

use std::arch::asm;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use serde_json::Value;

/// Takes lines.
#[derive(Debug)]
pub enum Stream {
    /// Byte by byte, to the port of this number. Only for the thread that has opened it.
    Port(u16),
    /// To a file.
    File(File),
    /// To standard output.
    Output,
}

impl Stream {
    /// Opens what was asked for.
    pub fn open(port: Option<u16>, file: Option<&Path>) -> io::Result<Self> {
        match (port, file) {
            (Some(port), _) => {
                // Not every kernel has a file of its ports. SAFETY: this changes what the thread may do, and no memory.
                Errno::result(unsafe { libc::ioperm(port.into(), 1, 1) })?;
                Ok(Self::Port(port))
            }
            (None, Some(path)) => Ok(Self::File(OpenOptions::new().append(true).create(true).open(path)?)),
            (None, None) => Ok(Self::Output),
        }
    }

    /// One object.
    pub fn line(&mut self, value: &Value) -> io::Result<()> {
        let line = format!("{value}\n");
        match self {
            Self::Port(port) => {
                for byte in line.bytes() {
                    // SAFETY: the port is ours, and takes no memory.
                    unsafe {
                        asm!("out dx, al", in("dx") *port, in("al") byte, options(nomem, nostack, preserves_flags));
                    }
                }
                Ok(())
            }
            Self::File(file) => file.write_all(line.as_bytes()),
            Self::Output => io::stdout().lock().write_all(line.as_bytes()),
        }
    }
}
