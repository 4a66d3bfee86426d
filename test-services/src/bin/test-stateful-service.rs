//! A service whose whole worth is what it remembers, and that forgets nothing in an upgrade.

use std::collections::VecDeque;
use std::hint::black_box;
use std::process::ExitCode;
use std::thread::{sleep, spawn};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use yakiros_test_services::args::{Opt, Program};
use yakiros_test_services::faults;
use yakiros_test_services::http::{Http, Request, Response, Site};
use yakiros_test_services::server;

const PROGRAM: Program = Program {
    name: "test-stateful-service",
    about: "Counts and remembers, over HTTP, until SIGTERM or SIGINT: GET / and /status tell, POST /increment counts, \
            POST /message keeps the body, GET /digest tells of the ballast. As a component with hand-over its next version goes on from there.",
    options: &[
        Opt {
            name: "--listen",
            value: Some("ADDR"),
            default: Some("0.0.0.0:8081"),
            help: "address and port",
        },
        Opt {
            name: "--ballast-mib",
            value: Some("N"),
            default: Some("0"),
            help: "so much more state, to see what its size costs",
        },
        Opt {
            name: "--dirty-kib",
            value: Some("N"),
            default: Some("0"),
            help: "so much of more memory changes each second, page by page",
        },
        server::UNIX,
        server::UDP,
        server::UNIX_DATAGRAM,
        server::READY_FILE,
        server::MAX_CLIENTS,
        faults::FAULT,
    ],
};

/// Memory that changes, in bytes: a page is not written again within some seconds.
const CHANGING: usize = 16 << 20;
/// What changes at once, in bytes.
const PAGE: usize = 4096;
/// How often a second some of it changes.
const TICKS: u32 = 10;

/// Messages that are kept; the oldest goes first.
const MESSAGES: usize = 1000;

#[derive(Default, Serialize, Deserialize)]
struct Memory {
    counter: u64,
    messages: VecDeque<String>,
    /// How often another version went on from here.
    upgrades: u64,
    #[serde(skip)]
    ballast: Vec<u8>,
}

impl Site for Memory {
    type State = Self;
    const VERSION: u32 = 1;

    fn respond(&mut self, request: &Request<'_>) -> Response {
        match (request.method, request.path) {
            ("GET", "/") => {
                Response::text(200, "test-stateful-service: /status, POST /increment, POST /message\n")
            }
            ("GET", "/status") => self.status(),
            ("POST", "/increment") => {
                self.counter += 1;
                self.status()
            }
            ("POST", "/message") => match str::from_utf8(request.body) {
                Ok(text) => {
                    if self.messages.len() == MESSAGES {
                        self.messages.pop_front();
                    }
                    self.messages.push_back(text.to_owned());
                    self.status()
                }
                Err(_) => Response::text(400, "a message is text\n"),
            },
            ("GET", "/digest") => {
                Response::text(200, format!("{} {:016x}\n", self.ballast.len(), self.digest()))
            }
            (_, "/" | "/status" | "/increment" | "/message" | "/digest") => {
                Response::text(405, "another method\n")
            }
            _ => Response::not_found(),
        }
    }

    fn state(&self) -> Self {
        // The ballast moves by itself.
        let Self { counter, messages, upgrades, ballast: _ } = self;
        Self { counter: *counter, messages: messages.clone(), upgrades: *upgrades, ballast: Vec::new() }
    }

    fn go_on(&mut self, state: Self) {
        *self = Self { upgrades: state.upgrades + 1, ballast: std::mem::take(&mut self.ballast), ..state };
    }

    fn bulk(&mut self) -> Option<&mut Vec<u8>> {
        Some(&mut self.ballast)
    }
}

impl Memory {
    /// With bytes that no other process has: each has a number of its own.
    fn with_ballast(mib: usize) -> Self {
        let mut state = u64::from(std::process::id()) | 1;
        let mut ballast = Vec::with_capacity(mib << 20);
        while ballast.len() < mib << 20 {
            // Xorshift (Marsaglia 2003).
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ballast.extend_from_slice(&state.to_le_bytes());
        }
        Self { ballast, ..Self::default() }
    }

    /// Of every byte of the ballast: a changed one changes it, since each step can be undone.
    fn digest(&self) -> u64 {
        let words = self.ballast.chunks(8).map(|bytes| {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            u64::from_le_bytes(word)
        });
        words.fold(0xcbf2_9ce4_8422_2325, |sum, word| (sum ^ word).wrapping_mul(0x0100_0000_01b3))
    }

    fn status(&self) -> Response {
        Response::json(&json!({
            "counter": self.counter,
            "messages": self.messages.len(),
            "last_message": self.messages.back(),
            "upgrades": self.upgrades,
            "ballast": self.ballast.len(),
        }))
    }
}

/// Write to memory without end, and to as many pages a second as that takes.
fn change(kib: usize) {
    let mut memory = vec![1_u8; CHANGING];
    let mut place = 0;
    loop {
        for _ in 0..(kib << 10) / PAGE / TICKS as usize {
            memory[place] = memory[place].wrapping_add(1);
            place = (place + PAGE) % CHANGING;
        }
        black_box(&mut memory);
        sleep(Duration::from_secs(1) / TICKS);
    }
}

fn main() -> ExitCode {
    yakiros_test_services::main(&PROGRAM, |values| {
        let ballast: usize = values.parse("--ballast-mib")?;
        let dirty: usize = values.parse("--dirty-kib")?;
        if dirty > 0 {
            spawn(move || change(dirty));
        }
        server::run(Http(Memory::with_ballast(ballast)), values)
    })
}
