//! A server that sends back what it gets, and that survives upgrades with its connections.

use std::process::ExitCode;

use yakiros_test_services::args::{Opt, Program};
use yakiros_test_services::faults;
use yakiros_test_services::server::{self, App, Flow};

const PROGRAM: Program = Program {
    name: "test-echo-server",
    about: "Listens on TCP and sends back what each connection sends, until SIGTERM or SIGINT. As a component with \
            handoff = \"fd-passing\" it hands its connections to its next version.",
    options: &[
        server::LISTEN,
        server::UNIX,
        server::UDP,
        server::UNIX_DATAGRAM,
        LINES,
        server::READY_FILE,
        server::MAX_CLIENTS,
        faults::FAULT,
    ],
};

const LINES: Opt = Opt {
    name: "--lines",
    value: None,
    default: None,
    help: "send back whole lines only, each when it has ended",
};

/// It knows nothing but what is under way.
struct Echo {
    lines: bool,
}

impl App for Echo {
    type State = ();
    const VERSION: u32 = 1;
    const IN_PARTS: bool = true;

    fn answer(&mut self, input: &mut Vec<u8>, output: &mut Vec<u8>) -> Flow {
        let whole = |input: &[u8]| input.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let end = if self.lines { whole(input) } else { input.len() };
        output.extend(input.drain(..end));
        Flow::Go
    }

    fn state(&self) {}

    fn go_on(&mut self, (): ()) {}
}

fn main() -> ExitCode {
    yakiros_test_services::main(&PROGRAM, |values| {
        server::run(Echo { lines: values.switch(LINES.name) }, values)
    })
}
