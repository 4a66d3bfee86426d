//! A TCP server that sends back what it gets, and that survives upgrades with its connections.

use std::process::ExitCode;

use yakiros_test_services::args::Program;
use yakiros_test_services::server::{self, App, Flow};

const PROGRAM: Program = Program {
    name: "test-echo-server",
    about: "Listens on TCP and sends back what each connection sends, until SIGTERM or SIGINT. As a component with \
            handoff = \"fd-passing\" it hands its connections to its next version.",
    options: &[server::LISTEN, server::READY_FILE, server::MAX_CLIENTS],
};

/// It knows nothing but what is under way.
struct Echo;

impl App for Echo {
    type State = ();
    const VERSION: u32 = 1;

    fn answer(&mut self, input: &mut Vec<u8>, output: &mut Vec<u8>) -> Flow {
        output.append(input);
        Flow::Go
    }

    fn state(&self) {}

    fn go_on(&mut self, (): ()) {}
}

fn main() -> ExitCode {
    yakiros_test_services::main(&PROGRAM, |values| server::run(Echo, values))
}
