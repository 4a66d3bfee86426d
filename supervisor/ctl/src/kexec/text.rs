//! The phases for people.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use yakiros_kexec::phases::{Done, Outcome};

/// One that has ended: a line, and with `verbose` or where it failed one for each thing that it found.
pub fn phase(done: &Done, verbose: bool) -> String {
    let Done { number, name, ok, detail, took_ms, notes } = done;
    let (word, style) = verdict(*ok);
    let seconds = seconds(*took_ms);
    let mut text = format!("{number} {name:<13} {style}{word:<6}{style:#} {seconds:>8}  {detail}\n");
    for note in notes.iter().filter(|note| verbose || !note.ok) {
        let (word, style) = verdict(note.ok);
        let fix = note.fix.as_ref().map(|fix| format!("; {fix}")).unwrap_or_default();
        // A String takes everything.
        let _ = writeln!(text, "    {style}{word:<6}{style:#} {}: {}{fix}", note.name, note.detail);
    }
    text
}

/// What became of it.
pub fn end(outcome: &Outcome, dry_run: bool) -> String {
    let mut text = String::new();
    for back in &outcome.taken_back {
        let _ = match &back.error {
            None => writeln!(text, "  undone: {}", back.what),
            Some(error) => writeln!(text, "  NOT UNDONE: {}: {error}", back.what),
        };
    }
    let took = seconds(outcome.took_ms);
    let undone = outcome.taken_back.iter().all(|back| back.error.is_none());
    text + &match (outcome.is_good(), dry_run, undone) {
        (true, true, _) => {
            format!("Everything up to the jump was done and undone in {took}; every service runs.\n")
        }
        (true, false, _) => format!("The jump was begun after {took}.\n"),
        (false, _, true) => "There is no jump, and everything is as before.\n".to_owned(),
        (false, _, false) => "There is no jump, and not everything could be undone.\n".to_owned(),
    }
}

fn verdict(ok: bool) -> (&'static str, Style) {
    let (word, colour) = if ok { ("ok", AnsiColor::Green) } else { ("FAILED", AnsiColor::Red) };
    (word, Style::new().fg_color(Some(colour.into())))
}

fn seconds(ms: u64) -> String {
    format!("{}.{:02} s", ms / 1000, ms % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use yakiros_kexec::phases::{Note, Phase, TakenBack};

    use super::*;

    #[test]
    fn phases_read_as_lines() {
        let note = |name: &str, ok, fix: Option<&str>| Note {
            name: name.to_owned(),
            ok,
            detail: "found".to_owned(),
            fix: fix.map(str::to_owned),
        };
        let done = |name: Phase, ok, took_ms| Done {
            number: name.number(),
            name,
            ok,
            detail: "what it found".to_owned(),
            took_ms,
            notes: vec![note("kexec", true, None), note("memory", ok, (!ok).then_some("take more"))],
        };
        let back = |error: Option<&str>| TakenBack {
            what: "unload the kernel".to_owned(),
            error: error.map(str::to_owned),
        };
        let outcome = |ok, taken_back| Outcome {
            phases: vec![done(Phase::Loading, ok, 1)],
            taken_back,
            taking_back_ms: 1,
            took_ms: 61_230,
        };
        let shown = [
            phase(&done(Phase::Validation, true, 1234), false),
            phase(&done(Phase::Checkpoint, true, 12_345), true),
            phase(&done(Phase::Loading, false, 5), false),
            end(&outcome(true, vec![back(None)]), true),
            end(&outcome(false, vec![back(None)]), true),
            end(&outcome(false, vec![back(Some("it is busy"))]), false),
            end(&outcome(true, Vec::new()), false),
        ];
        insta::assert_snapshot!(anstream::adapter::strip_str(&shown.concat()));
    }
}
