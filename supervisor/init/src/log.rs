//! Messages of the supervisor: `graph-resolver: …` lines with a kernel priority.
//!
//! A message never blocks and never fails the caller: what cannot be written is dropped. To
//! `/dev/kmsg` each message is one write, which the kernel makes one record.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;

use nix::libc;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::options::LogTarget;

/// Longest message in bytes. The kernel cuts a record off at about 976.
const MESSAGE_LIMIT: usize = 960;

/// `tracing` events become lines; spans are not used.
struct Lines {
    kmsg: Option<File>,
}

/// Send all messages of this process to `target` from now on.
pub fn install(target: LogTarget) {
    let kmsg = match target {
        LogTarget::Stderr => None,
        LogTarget::Kmsg => open_kmsg(),
    };
    // Only fails when one is installed already, and then that one serves.
    let _ = tracing::subscriber::set_global_default(Lines { kmsg });
}

fn open_kmsg() -> Option<File> {
    // By default the kernel drops all but ten of our messages in five seconds. It takes a whole line only.
    let _ = std::fs::write("/proc/sys/kernel/printk_devkmsg", "on\n");
    OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open("/dev/kmsg").ok()
}

/// syslog(3) priorities.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = String::with_capacity(128);
        event.record(&mut Text(&mut text));
        let mut end = text.len().min(MESSAGE_LIMIT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = text[..end].replace('\n', " ");
        let priority = priority(*event.metadata().level());
        if let Some(mut kmsg) = self.kmsg.as_ref() {
            let line = format!("<{priority}>graph-resolver: {text}\n");
            let _ = kmsg.write(line.as_bytes());
        } else {
            let line = format!("graph-resolver: {text}\n");
            let _ = io::stderr().write(line.as_bytes());
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The message, then `key=value` for each field.
struct Text<'a>(&'a mut String);

impl Visit for Text<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = if field.name() == "message" {
            write!(self.0, "{value:?}")
        } else {
            write!(self.0, " {}={value:?}", field.name())
        };
    }
}
