//! What a kernel in trouble prints: one row for each form.
//!
//! The forms are those of Linux 5.x and 6.x: kernel/panic.c, arch/x86/kernel/dumpstack.c, kernel/hung_task.c,
//! kernel/watchdog.c, kernel/rcu/tree_stall.h, mm/oom_kill.c. Each row has a log in `tests/console/`.

/// What kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The kernel gave up.
    Panic,
    /// A fault in the kernel: BUG, oops, general protection fault.
    Oops,
    /// A process that has been stuck in the kernel for two minutes, or a processor that does not schedule.
    Hang,
    /// The kernel doubts itself but goes on.
    Warning,
    /// The OOM killer ran: a fact, not a fault.
    OutOfMemory,
}

impl Class {
    /// After this the guest is of no use.
    pub fn is_fatal(self) -> bool {
        matches!(self, Self::Panic | Self::Oops | Self::Hang)
    }

    /// As in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Oops => "oops",
            Self::Hang => "hang",
            Self::Warning => "warning",
            Self::OutOfMemory => "out_of_memory",
        }
    }
}

enum Form {
    /// The line begins with this.
    Starts(&'static str),
    /// The line begins with the first and contains the second.
    StartsAndHas(&'static str, &'static str),
}

use Form::{Starts, StartsAndHas};

/// In this order; the first that fits decides. A line must *begin* with its form, so that a service which quotes a
/// kernel's message does not end the scenario.
const PATTERNS: [(Class, Form); 14] = [
    (Class::Panic, Starts("Kernel panic - not syncing")),
    (Class::Oops, Starts("BUG: ")),
    (Class::Oops, Starts("kernel BUG at ")),
    (Class::Oops, Starts("Oops: ")),
    (Class::Oops, StartsAndHas("general protection fault", "[#")),
    (Class::Oops, StartsAndHas("int3: ", "[#")),
    (Class::Oops, StartsAndHas("divide error: ", "[#")),
    (Class::Oops, StartsAndHas("invalid opcode: ", "[#")),
    (Class::Hang, StartsAndHas("INFO: task ", " blocked for more than ")),
    (Class::Hang, Starts("watchdog: BUG: soft lockup")),
    (Class::Warning, StartsAndHas("rcu: INFO: ", "detected stall")),
    (Class::Warning, Starts("WARNING: CPU: ")),
    (Class::OutOfMemory, StartsAndHas("Out of memory: ", "Killed process ")),
    (Class::OutOfMemory, StartsAndHas("Memory cgroup out of memory: ", "Killed process ")),
];

/// The class of a line without its time stamp.
pub fn classify(text: &str) -> Option<Class> {
    let fits = |form: &Form| match form {
        Starts(start) => text.starts_with(start),
        StartsAndHas(start, part) => text.starts_with(start) && text.contains(part),
    };
    PATTERNS.iter().find(|(_, form)| fits(form)).map(|(class, _)| *class)
}

/// The line without the kernel's `[   12.345678] ` and the caller's `[  T1] ` before its text.
pub fn without_timestamp(line: &str) -> &str {
    let mut rest = line.trim_start();
    while let Some((stamp, text)) = rest.strip_prefix('[').and_then(|inner| inner.split_once("] ")) {
        let is_stamp = !stamp.is_empty() && stamp.chars().all(|c| c.is_ascii_digit() || " .TC".contains(c));
        if !is_stamp {
            break;
        }
        rest = text.trim_start();
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stamps_and_callers_are_taken_off() {
        assert_eq!(without_timestamp("[    1.234567] Oops: 0"), "Oops: 0");
        assert_eq!(without_timestamp("[    1.234567][    T1] Oops: 0"), "[    1.234567][    T1] Oops: 0");
        assert_eq!(without_timestamp("[    1.234567] [    T1] Oops: 0"), "Oops: 0");
        assert_eq!(without_timestamp("[drm] BUG: no"), "[drm] BUG: no");
    }

    #[test]
    fn a_service_that_quotes_a_panic_is_no_panic() {
        assert_eq!(classify("logger: saw Kernel panic - not syncing"), None);
    }
}
