//! A supervisor in namespaces of its own, and how to talk to it.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use yakiros_core::control::{
    Answer, AnswerLine, ComponentStatus, GraphNode, RejectedFile, Request, Until, encode_request,
};
use yakiros_core::journal::{Record, State};

/// Far above what any step takes on a busy machine; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// One supervisor under test. Dropping it ends everything inside.
pub struct Guest {
    child: Child,
    pub dir: tempfile::TempDir,
}

impl Guest {
    /// Start with the component files of `tests/cases/<case>/graph.d`; `None` (with the reason
    /// printed) where namespaces are not to be had.
    pub fn start(case: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("temporary directory");
        let config = dir.path().join("graph.d");
        fs::create_dir(&config).expect("configuration directory");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(case).join("graph.d");
        if let Ok(files) = fs::read_dir(&source) {
            for file in files.flatten() {
                let text = fs::read_to_string(file.path()).expect("component file");
                let text = text.replace("@DIR@", &dir.path().display().to_string());
                fs::write(config.join(file.file_name()), text).expect("component file");
            }
        }
        Self::start_in(dir)
    }

    /// Start with the component files that are in `dir/graph.d` already.
    pub fn start_in(dir: tempfile::TempDir) -> Option<Self> {
        let program = Path::new(env!("CARGO_BIN_EXE_graph-resolver"));
        Some(Self::start_program(dir, unshare_flags()?, program))
    }

    /// Start in the namespaces that these flags of unshare(1) ask for.
    pub fn start_as(dir: tempfile::TempDir, flags: &str) -> Self {
        Self::start_program(dir, flags, Path::new(env!("CARGO_BIN_EXE_graph-resolver")))
    }

    /// The same with another program than the one under test.
    pub fn start_program(dir: tempfile::TempDir, flags: &str, program: &Path) -> Self {
        let none = dir.path().join("no-cgroups");
        Self::start_below(dir, flags, program, &none)
    }

    /// The same with control groups below this one.
    pub fn start_below(dir: tempfile::TempDir, flags: &str, program: &Path, groups: &Path) -> Self {
        Self::start_with(dir, flags, program, groups, &[])
    }

    /// The same with more arguments.
    pub fn start_with(
        dir: tempfile::TempDir,
        flags: &str,
        program: &Path,
        groups: &Path,
        more: &[&OsStr],
    ) -> Self {
        let path = |name: &str| dir.path().join(name);
        let log = fs::File::create(path("supervisor.log")).expect("log");
        let mut command = Command::new("unshare");
        // SAFETY: the child makes system calls on numbers.
        unsafe { command.pre_exec(inherit_nothing) };
        // A test that is killed takes its guest with it.
        // SAFETY: the same.
        unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
        let child = command
            .args([flags, "--mount-proc", "--kill-child"])
            .arg(program)
            .arg("--config-dir")
            .arg(path("graph.d"))
            .arg("--control-socket")
            .arg(path("sock"))
            .arg("--state-dir")
            .arg(path("state"))
            .arg("--cgroup-root")
            .arg(groups)
            .args(["--log", "stderr"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("unshare");
        let guest = Self { child, dir };
        until("the control socket", || UnixStream::connect(guest.socket()).ok());
        guest
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("sock")
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("graph.d")
    }

    /// What the supervisor itself said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("supervisor.log")).unwrap_or_default()
    }

    /// Write a component file the way a careful tool does: beside it, then moved into place.
    pub fn declare(&self, file: &str, text: &str) {
        let beside = self.dir.path().join(file);
        fs::write(&beside, text).expect("component file");
        fs::rename(beside, self.config().join(file)).expect("component file");
    }

    pub fn undeclare(&self, file: &str) {
        fs::remove_file(self.config().join(file)).expect("component file");
    }

    pub fn ask(&self, request: Request) -> Answer {
        let mut stream = UnixStream::connect(self.socket()).expect("control socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("read timeout");
        let line = encode_request(request).expect("request");
        stream.write_all(&line).expect("request");
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).expect("answer");
        serde_json::from_str::<AnswerLine>(&answer)
            .unwrap_or_else(|error| panic!("{error}: {answer:?}"))
            .answer
    }

    pub fn status(&self) -> (Vec<ComponentStatus>, Vec<RejectedFile>) {
        let (mut components, mut rejected) = (Vec::new(), Vec::new());
        let mut after = None;
        loop {
            let Answer::Status(page) = self.ask(Request::Status { name: None, after }) else {
                panic!("no status");
            };
            components.extend(page.components);
            rejected.extend(page.rejected);
            after = page.next;
            if after.is_none() {
                return (components, rejected);
            }
        }
    }

    /// The declared graph, the pseudo-component included.
    pub fn graph(&self) -> Vec<GraphNode> {
        let mut nodes = Vec::new();
        let mut after = None;
        loop {
            let Answer::Graph(page) = self.ask(Request::Graph { after }) else {
                panic!("no graph");
            };
            nodes.extend(page.components);
            after = page.next;
            if after.is_none() {
                return nodes;
            }
        }
    }

    pub fn component(&self, name: &str) -> ComponentStatus {
        let all = self.status().0;
        let found = all.iter().find(|c| &*c.name == name);
        found.unwrap_or_else(|| panic!("{name} is not in {all:?}")).clone()
    }

    /// Wait for a state; with `since` for a change newer than that revision.
    pub fn wait(&self, name: &str, state: State, since: Option<u64>) -> u64 {
        let until = Until::State { name: name.to_owned(), state, since };
        self.wait_until(until)
    }

    /// The newest revision.
    pub fn revision(&self) -> u64 {
        self.records(0).last().map_or(0, |record| record.revision)
    }

    pub fn settle(&self) -> u64 {
        self.wait_until(Until::Settled)
    }

    pub fn wait_until(&self, until: Until) -> u64 {
        let timeout_ms = Some(PATIENCE.as_millis() as u64 / 2);
        match self.ask(Request::Wait { until, timeout_ms }) {
            Answer::Done { revision, .. } => revision,
            other => panic!("{other:?}\n{}", self.log()),
        }
    }

    pub fn records(&self, mut since: u64) -> Vec<Record> {
        let mut all = Vec::new();
        loop {
            let Answer::Events(page) = self.ask(Request::Events { since }) else {
                panic!("no events");
            };
            all.extend(page.records);
            match page.next {
                Some(next) => since = next,
                None => return all,
            }
        }
    }

    /// Revisions at which components entered a state, by name, in order.
    pub fn entered(&self, state: State, since: u64) -> Vec<String> {
        let records = self.records(since).into_iter();
        let records = records.filter(|record| record.to == state);
        records.map(|record| record.component.to_string()).collect()
    }

    /// Send a signal from inside: a process of the host's numbers is found by those inside.
    pub fn kill(&self, pid: i32, signal: &str) {
        let pid = pid.to_string();
        assert!(self.inside(&["kill", &format!("-{signal}"), &pid]).success());
    }

    /// Run a program in the namespaces of the supervisor and wait for it.
    pub fn inside(&self, words: &[&str]) -> ExitStatus {
        let mut command = self.command_inside(&["-U", "-p", "-m"]);
        command.args(words).stdout(Stdio::null()).status().expect("nsenter")
    }

    /// A command that is to run in these namespaces of the supervisor (flags of nsenter(1)), as the
    /// user that it sees as root.
    pub fn command_inside(&self, namespaces: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(namespaces).args(["--preserve-credentials", "-t", &self.init_pid().to_string()]);
        command
    }

    /// The supervisor's number outside.
    pub fn init_pid(&self) -> i32 {
        let unshare = self.child.id();
        let path = format!("/proc/{unshare}/task/{unshare}/children");
        until("process 1", || {
            let children = fs::read_to_string(&path).ok()?;
            children.split_whitespace().next()?.parse().ok()
        })
    }

    /// Stop process 1. When this returns it does nothing more until it is continued.
    pub fn freeze(&self) {
        let init = self.init_pid();
        kill(Pid::from_raw(init), Signal::SIGSTOP).expect("stopped");
        until("the stop", || {
            let stat = fs::read_to_string(format!("/proc/{init}/stat")).ok()?;
            stat.rsplit_once(") ")?.1.starts_with('T').then_some(())
        });
    }

    /// Continue process 1.
    pub fn thaw(&self) {
        kill(Pid::from_raw(self.init_pid()), Signal::SIGCONT).expect("continued");
    }

    /// Children of process 1 that have ended and are not reaped.
    pub fn zombies(&self) -> usize {
        let init = self.init_pid();
        let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap_or_default();
        let state = |pid: &str| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        children.split_whitespace().filter(|pid| state(pid).contains(") Z ")).count()
    }

    /// Wait for the end of the whole namespace; the signal says how process 1 ended it.
    pub fn ended(mut self) -> (Option<i32>, String) {
        let status = until("the end", || self.child.try_wait().ok().flatten());
        let signal = status.signal().or(status.code().map(|code| code - 128));
        (signal, self.log())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // `--kill-child` takes the namespace down with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the supervisor said:\n{}", self.log());
        }
    }
}

/// What whoever runs the tests has left open to all children is not the supervisor's.
fn inherit_nothing() -> std::io::Result<()> {
    // SAFETY: the flag only marks descriptors; none is closed while it may be in use.
    let result = unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Ask again and again for something that has no other signal than being there.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("{what} did not come within {PATIENCE:?}");
}

/// Set to do without these tests where there are no namespaces. It must be said: a test that does not run and passes
/// is worse than none.
const SKIP: &str = "YAKIROS_SKIP_NAMESPACE_TESTS";

/// How to unshare here: with a user namespace, or as root without one. `None` if the user does without.
pub fn unshare_flags() -> Option<&'static str> {
    let mut reasons = String::new();
    for flags in ["-Urpmf", "-pmf"] {
        let tried =
            Command::new("unshare").args([flags, "--mount-proc", "true"]).stdin(Stdio::null()).output();
        match tried {
            Ok(output) if output.status.success() => return Some(flags),
            Ok(output) => reasons.push_str(&String::from_utf8_lossy(&output.stderr)),
            Err(error) => reasons.push_str(&error.to_string()),
        }
    }
    assert!(
        std::env::var_os(SKIP).is_some(),
        "no pid and mount namespaces to test in: {reasons}; allow user namespaces, run as root, or set {SKIP}=1"
    );
    None
}

/// A request whose answer is read later.
pub fn begin(guest: &Guest, request: Request) -> BufReader<UnixStream> {
    let mut stream = UnixStream::connect(guest.socket()).expect("control socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("read timeout");
    stream.write_all(&encode_request(request).expect("request")).expect("request");
    BufReader::new(stream)
}

/// That answer.
pub fn answer(client: &mut BufReader<UnixStream>) -> Answer {
    let mut line = String::new();
    client.read_line(&mut line).expect("answer");
    serde_json::from_str::<AnswerLine>(&line).unwrap_or_else(|error| panic!("{error}: {line:?}")).answer
}

/// Copy a program that is to be executed. Another process does it: a descriptor for writing would be
/// inherited by what other tests start at that moment, and the program could not be executed while
/// one of them has it ("text file busy").
pub fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("cp").arg(from).arg(to).status().expect("cp");
    assert!(status.success(), "cp: {status}");
}

/// Write a script that is to be executed; for the same reason not as a program.
pub fn write_script(to: &Path, text: &str) {
    let beside = to.with_extension("text");
    fs::write(&beside, text).expect("a script");
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).expect("its mode");
    copy_program(&beside, to);
}

/// A component that sleeps, with more lines of its file.
pub fn sleeper(name: &str, more: &str) -> String {
    format!("[component]\nname = {name:?}\nbinary = \"/bin/sleep\"\nargs = [\"100000\"]\n{more}\n")
}
