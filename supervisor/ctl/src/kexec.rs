//! Another kernel: whether it could be loaded here, and the way into it with every service as it is.

pub mod arguments;
mod figures;
mod kept;
mod machine;
mod prerequisites;
mod text;

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{Flock, FlockArg};
use serde_json::json;
use yakiros_checkpoint::barrier::ON_THE_WAY;
use yakiros_core::control::VERSION;
use yakiros_kexec::load;
use yakiros_kexec::phases::{self, Outcome};

use crate::Failure;
use crate::client::Client;
use crate::output::Output;
use arguments::Kexec;
use machine::{Machine, Wish};

/// Somebody wants it to end. What was done is taken back first.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Carry it out.
pub fn run(wanted: &Kexec, client: &mut Client, output: &Output) -> Result<ExitCode, Failure> {
    let Kexec { kernel, initrd, .. } = wanted;
    if wanted.check_prereq {
        return Ok(prerequisites::run(kernel.as_deref(), initrd.as_deref(), output));
    }
    if wanted.list_checkpoints {
        return kept::list(&wanted.place.dir, output);
    }
    if let Some(file) = &wanted.create_manifest {
        return kept::create(file, &wanted.place.dir, kernel.as_deref(), initrd.as_deref(), client, output);
    }
    match kernel {
        Some(kernel) => go(wanted, kernel, client, output),
        None => unload(output),
    }
}

fn unload(output: &Output) -> Result<ExitCode, Failure> {
    load::unload().map_err(|error| refused(&error))?;
    if output.is_json() {
        Output::value(&json!({ "version": VERSION, "loaded": false }));
    } else {
        Output::text("no kernel is loaded\n");
    }
    Ok(ExitCode::SUCCESS)
}

/// The way into another kernel, or up to it and back.
fn go(wanted: &Kexec, kernel: &Path, client: &mut Client, output: &Output) -> Result<ExitCode, Failure> {
    // On standard error, so that what is printed can be kept in a file meanwhile.
    let terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
    if !wanted.dry_run && !wanted.force && !terminal {
        let message = "a jump into another kernel has to be confirmed, and there is no terminal: give --force, or try it with \
                       --dry-run";
        return Err(Failure::Refused { message: message.to_owned(), near: Vec::new() });
    }
    // Two at once would take back each other's kernel.
    let _alone = alone(Path::new(ON_THE_WAY))?;
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed))
        .map_err(|error| Failure::Broken(format!("failed to prepare for Ctrl-C: {error}")))?;
    let wish = Wish {
        kernel: kernel.to_owned(),
        initrd: wanted.initrd.clone(),
        append: wanted.append.clone().unwrap_or_default(),
        limit: wanted.timeout,
        dir: wanted.place.dir.clone(),
        criu: wanted.criu.clone(),
        ask: !wanted.dry_run && !wanted.force,
    };
    let mut machine = Machine::new(client.another(), wish, &INTERRUPTED)
        .map_err(|error| Failure::Broken(format!("failed to name the jump: {error}")))?;
    let (json, verbose) = (output.is_json(), wanted.verbose);
    let outcome = phases::carry_out(&mut machine, wanted.dry_run, &mut |done| {
        if !json {
            // Nobody who reads it is no reason to stop halfway.
            let _ = Output::stream(&text::phase(done, verbose));
        }
    });
    tell(wanted.dry_run, &outcome, output);
    Ok(if outcome.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(dry_run: bool, outcome: &Outcome, output: &Output) {
    let good = outcome.is_good();
    if output.is_json() {
        let Outcome { phases, taken_back, taking_back_ms, took_ms } = outcome;
        Output::value(&json!({
            "version": VERSION, "dry_run": dry_run, "ok": good, "phases": phases, "taken_back": taken_back,
            "taking_back_ms": taking_back_ms, "took_ms": took_ms,
        }));
    } else {
        Output::text(&text::end(outcome, dry_run));
    }
}

/// The lock, as long as it lives. Who may not have it is told so by the first phase, with all else that is missing.
fn alone(path: &Path) -> Result<Option<Flock<File>>, Failure> {
    let Ok(file) = File::open(path) else { return Ok(None) };
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err(_) => Err(refused(&"another `graphctl kexec` is under way")),
    }
}

fn refused(why: &dyn std::fmt::Display) -> Failure {
    Failure::Refused { message: why.to_string(), near: Vec::new() }
}

/// The file with this name in the working directory, as everybody else would name it.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
