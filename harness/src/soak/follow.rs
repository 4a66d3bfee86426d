//! Reads what a guest writes while it writes it.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use yakiros_reports::event::Culprit;
use yakiros_vm::console::Analyzer;
use yakiros_vm::qemu::Process;

use super::history::Boot;
use super::verdict::Check;

/// Between two looks at the file.
const PAUSE: Duration = Duration::from_millis(250);
/// A guest that has written nothing for so long has stopped: a sample is due each minute of its time, which is never longer
/// than the host's.
const SILENCE: Duration = Duration::from_secs(300);
/// A line is never longer; what is, is no line.
const LINE_BYTES: usize = 1 << 20;
/// Of the console, for people.
const SHOWN_LINES: usize = 15;

/// Why a guest is no longer followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// It has written its last line.
    Ended,
    /// Its QEMU has ended before that.
    Gone(String),
    /// It writes nothing any more.
    Silent,
}

/// Reads to the end, and tells what there is by then after each piece.
pub async fn follow(process: &Process, stream: &Path, mut seen: impl FnMut(&Boot)) -> io::Result<Stop> {
    let (mut boot, mut kept, mut place) = (Boot::default(), Vec::new(), 0);
    let mut heard = Instant::now();
    loop {
        // Looked at before what is read, so that nothing is missed that was written before its end.
        let is_over = process.has_exited();
        let bytes = read_from(stream, place)?;
        place += bytes.len() as u64;
        if !bytes.is_empty() {
            heard = Instant::now();
            kept.extend_from_slice(&bytes);
            take_lines(&mut kept, &mut boot);
        }
        seen(&boot);
        if boot.end.is_some() {
            return Ok(Stop::Ended);
        }
        if is_over {
            return Ok(Stop::Gone(process.stderr()));
        }
        if heard.elapsed() > SILENCE {
            return Ok(Stop::Silent);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn read_from(path: &Path, place: u64) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(place))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Takes whole lines out of what has been read.
fn take_lines(kept: &mut Vec<u8>, boot: &mut Boot) {
    let Some(end) = kept.iter().rposition(|byte| *byte == b'\n') else {
        if kept.len() > LINE_BYTES {
            kept.clear();
            boot.unreadable += 1;
        }
        return;
    };
    let rest = kept.split_off(end + 1);
    String::from_utf8_lossy(kept).lines().for_each(|line| boot.take(line));
    *kept = rest;
}

/// What it means that a guest stopped too early, by its console.
pub fn explain(stop: &Stop, console: &Path) -> Check {
    let mut analyzer = Analyzer::default();
    // A console that cannot be read says nothing.
    analyzer.push(&std::fs::read(console).unwrap_or_default());
    let said = format!("the end of its console:\n{}", analyzer.tail(SHOWN_LINES));
    let fatal = analyzer.findings().iter().find(|finding| finding.class.is_fatal());
    let (culprit, why) = match (fatal, stop) {
        (Some(finding), _) if finding.is_end_of_init() => {
            (Culprit::Supervisor, format!("process 1 of the guest ended: {}", finding.title))
        }
        (Some(finding), _) => (Culprit::GuestKernel, format!("the guest's kernel failed: {}", finding.title)),
        (None, Stop::Silent) => (
            Culprit::Supervisor,
            format!("the guest has written nothing for {} s; {said}", SILENCE.as_secs()),
        ),
        (None, Stop::Gone(stderr)) => {
            return Check::infrastructure(format!("QEMU ended: {stderr}; {said}"));
        }
        (None, Stop::Ended) => return Check::lasts(0),
    };
    Check::broken(why, culprit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_whole_whatever_the_cut() {
        let (mut kept, mut boot) = (Vec::new(), Boot::default());
        for piece in ["{\"k\":\"end\",\"t\":5,", "\"ill\":[],\"failed\":null}", "\n{\"k\":", "\"x\"}\n{"] {
            kept.extend_from_slice(piece.as_bytes());
            take_lines(&mut kept, &mut boot);
        }
        assert_eq!((boot.end.map(|end| end.t), boot.unreadable, kept), (Some(5), 1, b"{".to_vec()));
    }

    #[test]
    fn who_is_to_blame_follows_from_the_console() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        std::fs::write(&path, "Kernel panic - not syncing: Attempted to kill init! exitcode=0x9\n").unwrap();
        let gone = Stop::Gone(String::new());
        assert_eq!(explain(&gone, &path).culprit, Some(Culprit::Supervisor));
        std::fs::write(&path, "hello\n").unwrap();
        assert_eq!(explain(&gone, &path).culprit, Some(Culprit::Vmm));
        assert_eq!(explain(&Stop::Silent, &path).culprit, Some(Culprit::Supervisor));
    }
}
