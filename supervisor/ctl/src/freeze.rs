//! `freeze` and `thaw` of one component or of several, one after the other. The first failure ends it, and what was and
//! was not done is said.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};
use yakiros_core::control::{Answer, Request, VERSION};
use yakiros_core::engine::FREEZE_LIMIT;

use crate::client::Client;
use crate::output::Output;
use crate::{Failure, milliseconds, unexpected};

/// What is wanted of each.
#[derive(Clone, Copy)]
pub enum Wish {
    /// That it stands still, within this time.
    Freeze(Duration),
    /// That it runs again.
    Thaw,
}

impl Wish {
    fn request(self, name: &str) -> Request {
        let name = name.to_owned();
        match self {
            Self::Freeze(limit) => Request::Freeze { name, timeout_ms: Some(milliseconds(limit)) },
            Self::Thaw => Request::Thaw { name },
        }
    }
}

/// Freeze these, or thaw them.
pub fn run(client: &mut Client, output: &Output, names: &[String], wish: Wish) -> Result<ExitCode, Failure> {
    let mut done = Vec::new();
    for (at, name) in names.iter().enumerate() {
        // The supervisor has its own limit, which it may have begun before.
        match client.ask(wish.request(name), FREEZE_LIMIT)? {
            Answer::Done { message, revision } => {
                if !output.is_json() {
                    Output::text(&format!("{message}\n"));
                }
                done.push(json!({"component": name, "message": message, "revision": revision}));
            }
            other => return Ok(stopped(output, &done, name, &names[at + 1..], unexpected(other))),
        }
    }
    if output.is_json() {
        Output::value(&report(&done, &Value::Null, &[]));
    }
    Ok(ExitCode::SUCCESS)
}

fn stopped(output: &Output, done: &[Value], name: &str, left: &[String], failure: Failure) -> ExitCode {
    let (code, mut message, near) = failure.parts();
    if output.is_json() {
        let failed = json!({"component": name, "message": message, "near": near});
        Output::value(&report(done, &failed, left));
    } else {
        if !left.is_empty() {
            message = format!("{message}\nnot tried: {}", left.join(", "));
        }
        output.error(&message, &near);
    }
    ExitCode::from(code)
}

fn report(done: &[Value], failed: &Value, left: &[String]) -> Value {
    json!({"version": VERSION, "done": done, "failed": failed, "left": left})
}
