//! Reading, writing and waiting for files.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use yakiros_guest::frame::Kind;
use yakiros_guest::protocol::{ErrorKind, GuestError, Reply};

use crate::error::{invalid, system};
use crate::port;
use crate::stream::{Input, Stream};

/// How often a path is looked for. Not inotify: paths in /proc, /sys and /dev, which this is mostly used for, do not
/// report their changes.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Writes the stream's data to a file.
pub fn write(path: &str, mode: u32, atomic: bool, stream: &Stream) -> Result<Reply, GuestError> {
    let target = Path::new(path);
    let place = if atomic { hidden_beside(target)? } else { target.to_path_buf() };
    let result = receive(&place, mode, stream).and_then(|bytes| {
        if atomic {
            fs::rename(&place, target)?;
        }
        Ok(bytes)
    });
    if atomic && result.is_err() {
        drop(fs::remove_file(&place));
    }
    match result {
        Ok(bytes) => Ok(Reply::Written { bytes }),
        Err(error) => Err(system(&format!("write {path}"), &error)),
    }
}

fn hidden_beside(target: &Path) -> Result<PathBuf, GuestError> {
    let name =
        target.file_name().ok_or_else(|| invalid(format!("write {}: it has no name", target.display())))?;
    Ok(target.with_file_name(format!(".{}.partial", name.to_string_lossy())))
}

fn receive(place: &Path, mode: u32, stream: &Stream) -> io::Result<u64> {
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(place)?;
    // The mode at creation is cut by the umask.
    file.set_permissions(Permissions::from_mode(mode))?;
    let mut written = 0;
    loop {
        match stream.input.recv() {
            Ok(Input::Data(bytes)) => {
                file.write_all(&bytes)?;
                written += bytes.len() as u64;
            }
            Ok(Input::End) => return Ok(written),
            Ok(Input::Cancel) | Err(_) => return Err(io::Error::other("the host gave up")),
            Ok(Input::Resize(_) | Input::Exited(_) | Input::OutputClosed) => {}
        }
    }
}

/// Sends a file's content as data.
pub fn read(path: &str, limit_bytes: u64, stream: &Stream) -> Result<Reply, GuestError> {
    let error = |error: io::Error| system(&format!("read {path}"), &error);
    let mut file = File::open(path).map_err(error)?;
    let mut buffer = port::payload_buffer();
    let mut sent = 0;
    loop {
        let room = usize::try_from(limit_bytes - sent).unwrap_or(usize::MAX).min(buffer.len());
        let count = match file.read(&mut buffer[..room.max(1)]) {
            Err(again) if again.kind() == io::ErrorKind::Interrupted => continue,
            other => other.map_err(error)?,
        };
        if count == 0 || room == 0 {
            return Ok(Reply::Read { bytes: sent, truncated: count > 0 });
        }
        stream.output.send(Kind::Data, buffer[..count].to_vec()).map_err(error)?;
        sent += count as u64;
    }
}

/// Waits until a path is there, or gone.
pub fn wait(path: &str, absent: bool, timeout_ms: u64, stream: &Stream) -> Result<Reply, GuestError> {
    let start = Instant::now();
    let limit = Duration::from_millis(timeout_ms);
    loop {
        // The link itself counts, not where it points.
        let there = fs::symlink_metadata(path).is_ok();
        if there != absent {
            return Ok(Reply::Waited { elapsed_ms: start.elapsed().as_millis() as u64 });
        }
        if start.elapsed() >= limit {
            let what = if absent { "is still there" } else { "is not there" };
            let message = format!("wait for {path}: it {what} after {timeout_ms} ms");
            return Err(GuestError { kind: ErrorKind::TimedOut, message });
        }
        match stream.input.recv_timeout(LOOK_EVERY) {
            Ok(Input::Cancel) | Err(RecvTimeoutError::Disconnected) => {
                return Err(invalid(format!("wait for {path}: the host gave up")));
            }
            _ => {}
        }
    }
}
