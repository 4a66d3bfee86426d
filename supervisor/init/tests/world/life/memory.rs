//! What use leaves behind: memory that belongs to no file, before and after.
//!
//! Only growth that use explains is allowed for: the journal's ring fills once, and pages are whole. A leak of a kilobyte
//! for each operation is above both bounds.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use yakiros_core::control::{Answer, Request};

use super::frugal::{IDLE, start};
use crate::guest::{Guest, until};

/// Restarts until the journal's 2,048 records are all of restarts, each of which makes four, and so take the same memory
/// from then on.
const FILLING: usize = 600;

/// Restarts after that.
const RESTARTS: usize = 400;

/// What a restart may leave behind, in bytes: half of the leak that has to be found.
const EACH_RESTART: usize = 512;

/// Re-executions between two looks.
const RE_EXECUTIONS: usize = 100;

/// What a re-execution may leave behind, in bytes.
const EACH_RE_EXECUTION: usize = 512;

/// After so long what starting needed is given back.
const SETTLED: Duration = Duration::from_secs(2);

/// Pages that are used in part: neither the heap's end nor its holes lie at the same place twice.
const PAGES: usize = 48 * 1024;

/// Memory of process 1 that belongs to no file, in bytes.
fn anonymous(guest: &Guest) -> usize {
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", guest.init_pid())).expect("smaps_rollup");
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<usize>().ok());
    kilobytes.unwrap_or_else(|| panic!("{text}")) * 1024
}

/// What it comes to within a while. What grows for good never comes to it.
fn comes_to(guest: &Guest, bound: usize) {
    until(&format!("anonymous memory of at most {bound} bytes, now {}", anonymous(guest)), || {
        (anonymous(guest) <= bound).then_some(())
    });
}

fn done(guest: &Guest, request: Request) {
    match guest.ask(request) {
        Answer::Done { .. } => {}
        other => panic!("{other:?}"),
    }
}

/// Restart one component after the other; look at all, and read all files anew, once a round.
fn use_it(guest: &Guest, restarts: usize) {
    for _ in 0..restarts / IDLE {
        for number in 0..IDLE {
            done(guest, Request::Restart { name: format!("s{number}"), timeout_ms: None });
        }
        guest.settle();
        guest.status();
        done(guest, Request::Reload { name: None });
    }
}

#[test]
fn a_thousand_restarts_leave_nothing_behind() {
    let Some(guest) = start() else { return };
    use_it(&guest, FILLING);
    let before = anonymous(&guest);
    use_it(&guest, RESTARTS);
    comes_to(&guest, before + RESTARTS * EACH_RESTART + PAGES);
}

#[test]
fn a_hundred_re_executions_leave_nothing_behind() {
    let Some(guest) = start() else { return };
    // The first one has its state from a process that was not executed again itself.
    done(&guest, Request::Reexec);
    sleep(SETTLED);
    let before = anonymous(&guest);
    for _ in 0..RE_EXECUTIONS {
        done(&guest, Request::Reexec);
    }
    comes_to(&guest, before + RE_EXECUTIONS * EACH_RE_EXECUTION + PAGES);
}
