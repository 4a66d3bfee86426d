//! Whether another kernel could be loaded here. The kernel and the files are asked, so no supervisor is.

use std::path::Path;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use serde_json::json;
use yakiros_core::control::VERSION;
use yakiros_kexec::load::Image;
use yakiros_kexec::machine::{Check, checks};

use crate::output::Output;
use crate::tables::{Cell, draw};

/// Look, and tell.
pub fn run(kernel: Option<&Path>, initrd: Option<&Path>, output: &Output) -> ExitCode {
    let mut found = checks();
    found.extend(kernel.map(|kernel| files(kernel, initrd)));
    let usable = found.iter().all(|check| check.ok);
    if output.is_json() {
        Output::value(&json!({ "version": VERSION, "usable": usable, "checks": found }));
    } else {
        Output::text(&text(&found, usable));
    }
    if usable { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The files, as they would be loaded.
fn files(kernel: &Path, initrd: Option<&Path>) -> Check {
    const FIX: &str = "give the bzImage of a kernel, and the initrd that was made for it";
    match Image::open(kernel, initrd) {
        Ok(image) => {
            let release = image.header().release().unwrap_or("a kernel that does not tell its release");
            Check::new("files", true, format!("{release}, {} bytes with its initrd", image.bytes()), FIX)
        }
        Err(error) => Check::new("files", false, error.to_string(), FIX),
    }
}

fn text(checks: &[Check], usable: bool) -> String {
    let rows = checks.iter().map(|Check { name, ok, detail, fix }| {
        let (word, colour) = if *ok { ("yes", AnsiColor::Green) } else { ("NO", AnsiColor::Red) };
        let fix = fix.map(|fix| format!("; {fix}")).unwrap_or_default();
        let style = Style::new().fg_color(Some(colour.into()));
        vec![Cell::plain(*name), Cell::styled(word, style), Cell::plain(format!("{detail}{fix}"))]
    });
    let tail = if usable { "A kernel can be loaded here.\n" } else { "No kernel can be loaded here.\n" };
    draw(&["NEEDED", "THERE", "FOUND"], &rows.collect::<Vec<_>>()) + tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_shown_with_what_would_help() {
        let folder = tempfile::tempdir().expect("a folder");
        let script = folder.path().join("script");
        std::fs::write(&script, "#!/bin/sh\n").expect("a file");
        let check = files(&script, None);
        assert!(!check.ok && check.detail.contains("it is no kernel for x86"), "{check:?}");
        let there = Check::new("kexec", true, "the kernel can load another", "unused");
        let shown = text(&[there, check], false);
        assert!(shown.contains("NO"), "{shown}");
        assert!(
            shown
                .contains("it is no kernel for x86: it has no header of the boot protocol; give the bzImage"),
            "{shown}"
        );
        assert!(shown.ends_with("No kernel can be loaded here.\n") && !shown.contains("unused"), "{shown}");
    }
}
