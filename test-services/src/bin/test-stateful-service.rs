//! A service whose whole worth is what it remembers, and that forgets nothing in an upgrade.

use std::collections::VecDeque;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use serde_json::json;
use yakiros_test_services::args::{Opt, Program};
use yakiros_test_services::http::{Http, Request, Response, Site};
use yakiros_test_services::server;

const PROGRAM: Program = Program {
    name: "test-stateful-service",
    about: "Counts and remembers, over HTTP, until SIGTERM or SIGINT: GET / and /status tell, POST /increment counts, \
            POST /message keeps the body. As a component with hand-over its next version goes on from there.",
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
        server::READY_FILE,
        server::MAX_CLIENTS,
    ],
};

/// Messages that are kept; the oldest goes first.
const MESSAGES: usize = 1000;

#[derive(Default, Clone, Serialize, Deserialize)]
struct Memory {
    counter: u64,
    messages: VecDeque<String>,
    /// How often another version went on from here.
    upgrades: u64,
    ballast: String,
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
            (_, "/" | "/status" | "/increment" | "/message") => Response::text(405, "another method\n"),
            _ => Response::not_found(),
        }
    }

    fn state(&self) -> Self {
        self.clone()
    }

    fn go_on(&mut self, state: Self) {
        *self = state;
        self.upgrades += 1;
    }
}

impl Memory {
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

fn main() -> ExitCode {
    yakiros_test_services::main(&PROGRAM, |values| {
        let ballast: usize = values.parse("--ballast-mib")?;
        let memory = Memory { ballast: "b".repeat(ballast << 20), ..Memory::default() };
        server::run(Http(memory), values)
    })
}
