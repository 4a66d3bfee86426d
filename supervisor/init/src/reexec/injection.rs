//! Failing on request, for tests: only in a program with debug assertions or the feature
//! `fault-injection`, and never in one that is shipped.

use std::cell::Cell;

/// Fail at once, between two events.
pub const FAIL_NOW: i32 = 63;

/// Fail in the midst of the next event, between what it changes and what follows from that.
pub const FAIL_LATER: i32 = 62;

/// Fail when the state is taken next.
pub const FAIL_TAKING: i32 = 61;

/// Lose some descriptors when this program executes itself.
pub const LOSE: i32 = 60;

/// Fail at once, and leave a state that cannot be read.
pub const FAIL_STATELESS: i32 = 59;

/// Names a variable of the environment, which the kernel fills from its command line: so many bytes are lost with each
/// start of a component.
const LEAK: &str = "yakiros_leak";

/// More than this is no leak but a flood.
const LEAK_LIMIT: usize = 1 << 20;

/// What was asked for.
#[derive(Default)]
pub struct Injected {
    fails: Cell<bool>,
    fails_taking: Cell<bool>,
    loses: Cell<bool>,
    spoils: Cell<bool>,
}

impl Injected {
    /// Take a signal. Whether it was one of these.
    pub fn take(&self, signal: i32) -> bool {
        let asked = match signal {
            FAIL_LATER => &self.fails,
            FAIL_TAKING => &self.fails_taking,
            LOSE => &self.loses,
            FAIL_NOW => panic!("a test asked for it"),
            FAIL_STATELESS => {
                self.spoils.set(true);
                panic!("a test asked for it");
            }
            _ => return false,
        };
        asked.set(true);
        true
    }

    /// Fail between an event and its effects if that was asked for.
    pub fn fail_if_asked_to(&self) {
        assert!(!self.fails.take(), "a test asked for it");
    }

    /// Fail while the state is taken if that was asked for.
    pub fn fail_taking_if_asked_to(&self) {
        assert!(!self.fails_taking.take(), "a test asked for it");
    }

    /// Lose memory if that was asked for: written to, so that the kernel has to keep it.
    pub fn leak_if_asked_to() {
        let bytes = std::env::var(LEAK).ok().and_then(|bytes| bytes.parse().ok());
        std::mem::forget(vec![0xa5_u8; bytes.unwrap_or(0).min(LEAK_LIMIT)]);
    }

    /// Whether descriptors are to be lost.
    pub fn loses(&self) -> bool {
        self.loses.get()
    }

    /// Whether the next process image is not to be able to read the state.
    pub fn spoils(&self) -> bool {
        self.spoils.get()
    }
}
