//! `graph-checkpoint`: reads one order from its standard input, carries it out, and tells of each step on its standard
//! output.
//!
//! Exit codes: 0 done, 1 failed, 2 no order. It is for programs: process 1 starts it with a limit, so that nothing that
//! takes time or can go wrong is done there. CRIU runs it, too, to ask whether it may end what it has written.

use std::io::{self, Read as _};
use std::process::ExitCode;

use yakiros_checkpoint::criu::gate;
use yakiros_checkpoint::order::{ORDER_LIMIT, Order, Teller};
use yakiros_checkpoint::worker;

fn main() -> ExitCode {
    if let Some(work) = std::env::var_os(gate::DOOR) {
        return if gate::ask(&work) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let order = match read() {
        Ok(order) => order,
        Err(message) => {
            eprintln!("graph-checkpoint: {message}");
            return ExitCode::from(2);
        }
    };
    match worker::run(&order, &mut Teller::new(io::stdout().lock())) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("graph-checkpoint: failed to tell what came of it: {error}");
            ExitCode::FAILURE
        }
    }
}

fn read() -> Result<Order, String> {
    let mut bytes = Vec::new();
    let read = io::stdin().lock().take(ORDER_LIMIT + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("failed to read an order from the standard input: {error}"))?;
    if bytes.len() as u64 > ORDER_LIMIT {
        return Err(format!("an order of more than {ORDER_LIMIT} bytes"));
    }
    serde_json::from_slice(&bytes).map_err(|error| format!("no order on the standard input: {error}"))
}
