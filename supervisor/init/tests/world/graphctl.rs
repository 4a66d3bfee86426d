//! `graphctl` against a real supervisor: what people and scripts see.

mod inspect;
mod journal;
mod lifecycle;
mod log;
mod terminal;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};

use crate::guest::{Guest, PATIENCE};

/// The program. It belongs to another package, whose programs cargo does not build for these
/// tests; an up-to-date one costs a moment.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let folder = Path::new(env!("CARGO_BIN_EXE_graph-resolver")).parent().expect("a folder");
        let target = folder.parent().expect("the target directory");
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "yakiros-ctl", "--bin", "graphctl", "--target-dir"])
            .arg(target)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(status.expect("cargo").success(), "graphctl was not built");
        target.join("debug/graphctl")
    })
}

impl Guest {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.env("GRAPHCTL_SOCKET", self.socket()).args(arguments).stdin(Stdio::null());
        command
    }

    /// Run `graphctl` to its end.
    pub fn graphctl(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("graphctl")
    }

    /// What `graphctl` prints when it succeeds.
    pub fn says(&self, arguments: &[&str]) -> String {
        let output = self.graphctl(arguments);
        let (text, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "graphctl {arguments:?}: {errors}{text}");
        text.into_owned()
    }

    /// The same as JSON, one value.
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let text = self.says(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    /// The exit code and what was said on standard error.
    pub fn fails(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.graphctl(arguments);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Run `graphctl` and read its lines as they come.
    pub fn follow(&self, arguments: &[&str]) -> Follower {
        let mut child =
            self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("graphctl");
        let stdout = child.stdout.take().expect("its output");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Follower { child, lines }
    }
}

/// A `graphctl` that runs on.
pub struct Follower {
    child: Child,
    lines: Receiver<String>,
}

impl Follower {
    /// The next line.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line in time")
    }

    /// Skip lines until one has `part` in it.
    pub fn line_with(&self, part: &str) -> String {
        loop {
            let line = self.line();
            if line.contains(part) {
                return line;
            }
        }
    }
}

impl Follower {
    /// Its exit code, once it ends by itself. What it printed until then is passed over.
    pub fn code(&mut self) -> Option<i32> {
        while self.lines.recv_timeout(PATIENCE).is_ok() {}
        let status = crate::guest::until("the end", || self.child.try_wait().ok().flatten());
        status.code()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
