//! The virtio-serial port.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use yakiros_guest::frame::{Frame, Kind, MAX_PAYLOAD_BYTES};
use yakiros_guest::protocol::PORT_NAME;

/// A driver that is there finds its ports within milliseconds; the rest is for slow emulation.
const APPEAR_LIMIT: Duration = Duration::from_secs(8);
const APPEAR_PAUSE: Duration = Duration::from_millis(5);
/// While no host is connected the port reads as empty instead of blocking.
const NO_HOST_PAUSE: Duration = Duration::from_millis(5);

/// Opens the port that the host named, waiting for its driver.
pub fn open() -> io::Result<File> {
    let deadline = Instant::now() + APPEAR_LIMIT;
    loop {
        if let Some(path) = find() {
            return OpenOptions::new().read(true).write(true).open(path);
        }
        if Instant::now() >= deadline {
            let message = format!("no virtio-serial port named {PORT_NAME} in {APPEAR_LIMIT:?}");
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        std::thread::sleep(APPEAR_PAUSE);
    }
}

fn find() -> Option<PathBuf> {
    let ports = fs::read_dir("/sys/class/virtio-ports").ok()?;
    ports
        .flatten()
        .find(|port| fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim() == PORT_NAME))
        .map(|port| PathBuf::from("/dev").join(port.file_name()))
        .filter(|device| device.exists())
}

/// Reads some bytes; waits while no host is connected.
pub fn read_some(port: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match port.read(buffer) {
            Ok(0) => std::thread::sleep(NO_HOST_PAUSE),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// The way to the host, shared by all streams. A frame is written whole or not at all.
#[derive(Debug, Clone)]
pub struct Sender {
    port: Arc<Mutex<File>>,
}

impl Sender {
    pub fn new(port: File) -> Self {
        Self { port: Arc::new(Mutex::new(port)) }
    }

    /// Sends one frame. The payload must be within [`MAX_PAYLOAD_BYTES`].
    pub fn send(&self, kind: Kind, stream: u32, payload: Vec<u8>) -> io::Result<()> {
        let bytes = Frame { kind, stream, payload }.encode();
        // A panic elsewhere leaves no half frame behind, so a poisoned lock is still good.
        self.port.lock().unwrap_or_else(PoisonError::into_inner).write_all(&bytes)
    }
}

/// A buffer of the size of a frame's payload.
pub fn payload_buffer() -> Vec<u8> {
    vec![0; MAX_PAYLOAD_BYTES]
}
