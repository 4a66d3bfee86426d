//! Telling the supervisor that the service is ready.

use std::env;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{FromRawFd, RawFd};
use std::path::Path;

/// Names the descriptor for the readiness newline.
const NOTIFY_FD: &str = "NOTIFY_FD";

/// Says "ready" in the ways that were asked for: a newline to the descriptor in `NOTIFY_FD`, which is then closed, and a
/// file that appears. Call it once, when the service can do its work.
pub fn announce(ready_file: Option<&Path>) -> io::Result<()> {
    if let Some(text) = env::var_os(NOTIFY_FD) {
        let number = text.to_str().and_then(|text| text.parse().ok()).filter(|&number: &RawFd| number > 2);
        let Some(number) = number else {
            let message = format!("{NOTIFY_FD}={} is not the number of a descriptor above 2", text.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        };
        // SAFETY: the environment gives this descriptor to the service, nothing else in the process uses it, and this
        // function is called once.
        let mut channel = unsafe { File::from_raw_fd(number) };
        channel.write_all(b"\n")?;
    }
    if let Some(path) = ready_file {
        File::create(path)?;
    }
    Ok(())
}
