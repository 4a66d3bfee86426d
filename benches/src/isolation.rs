//! Isolated starts beside plain ones, and beside other programs that isolate; and whether many of them leave anything.
//!
//! The supervisor is process 1 as in [`crate::peers`]. Each way starts `test-stamp`, which notes the monotonic clock at
//! the start of its main; the ways take turns, so what the machine does to one it does to all.

mod ledger;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::Serialize;
use yakiros_core::control::{Answer, Request, Until};
use yakiros_core::journal::State;

use crate::figure::Figure;
use crate::peers::arena::{Arena, Field, cgroup_root, now};
use crate::peers::{RESOLVER, median};
use crate::ways::Way;
use ledger::Ledger;

/// Within this time a service is up or stopped, or it never will be.
const PATIENCE: Duration = Duration::from_secs(30);

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(2);

/// The same in a cycle, of which there are thousands.
const GLANCE: Duration = Duration::from_micros(200);

/// Cycles until progress is told again.
const TOLD: usize = 1_000;

/// What a start is to have, in its component file.
const ISOLATED: &str = "[isolation]\nnamespaces = [\"pid\", \"mount\", \"uts\"]\nhostname = \"bench\"\n\
    [security]\ncapabilities = []\nno_new_privs = true\n";

/// The same of its group, where the machine has the controllers.
const LIMITED: &str = "[resources]\nmemory_max = \"64M\"\npids_max = 16\ncpu_weight = 50\n";

/// The same by a script: a group of its own with what limits the machine has, then the rest.
const SCRIPT: &str = "mkdir -p $0 && for limit in memory.max=67108864 pids.max=16 cpu.weight=50; do \
    if [ -e $0/${limit%=*} ]; then echo ${limit#*=} > $0/${limit%=*} || exit; fi; done; \
    echo $$ > $0/cgroup.procs && exec \"$@\"";

/// What is measured, and how much of it.
#[derive(Debug)]
pub struct Setup {
    /// A folder with graph-resolver and test-stamp, both static.
    pub programs: PathBuf,
    /// The files of Debian's bubblewrap, or why there are none.
    pub bwrap: Result<PathBuf, String>,
    /// Starts in each way.
    pub starts: usize,
    /// Starts and stops of an isolated component after which nothing may be left.
    pub cycles: usize,
    /// Progress in words; goes to standard error.
    pub say: fn(&str),
}

/// All of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// From the request, or from the command, to the service's main.
    pub rows: Vec<Way>,
    /// Whether the machine has the controllers for limits of groups; without, nothing has any.
    pub limited: bool,
    /// Cycles that were made.
    pub cycles: usize,
    /// What was there afterwards and not before, or the other way round.
    pub leftovers: Vec<String>,
    /// Against the bars.
    pub figures: Vec<Figure>,
}

impl Report {
    /// Whether no bar is missed.
    pub fn passed(&self) -> bool {
        self.figures.iter().all(Figure::is_good)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows.iter().try_for_each(|way| write!(f, "{way}"))?;
        writeln!(
            f,
            "\nafter {} isolated starts and stops: {}",
            self.cycles,
            match &self.leftovers[..] {
                [] => "nothing is left, and nothing is lost".to_owned(),
                some => some.join("; "),
            }
        )?;
        if !self.limited {
            writeln!(f, "without limits of groups: this machine has not all of their controllers")?;
        }
        writeln!(f)?;
        self.figures.iter().try_for_each(|figure| writeln!(f, "{figure}"))
    }
}

/// Measure everything. An error is one of the machinery's, or says what the supervisor did not do.
pub fn run(setup: &Setup) -> io::Result<Report> {
    let field = Field::new()?;
    let files = files(&setup.programs)?;
    let stamp = setup.programs.join("test-stamp");
    let arena = field.start(&field.root(files.path(), &stamp)?, RESOLVER.argv)?;
    for name in NAMES {
        wait_for(&arena, name, State::Active)?;
        ask(&arena, stop(name))?;
    }
    (setup.say)(&format!("{} starts in each way", setup.starts));
    let rows = starts(&arena, &stamp, setup)?;
    (setup.say)(&format!("{} isolated starts and stops", setup.cycles));
    let leftovers = cycles(&arena, setup)?;
    let of = |way: usize| median(&rows[way].ms).unwrap_or(f64::INFINITY);
    let figures = vec![
        Figure { what: "an isolated start, in plain starts", bar: 2.0, value: of(1) / of(0) },
        Figure { what: "what is left or lost after the cycles", bar: 0.0, value: leftovers.len() as f64 },
    ];
    Ok(Report { rows, limited: has_controllers()?, cycles: setup.cycles, leftovers, figures })
}

/// The components, the isolated one last.
const NAMES: [&str; 2] = ["plain", "isolated"];

fn files(programs: &Path) -> io::Result<tempfile::TempDir> {
    let files = tempfile::tempdir()?;
    let (sbin, declared) = (files.path().join("usr/sbin"), files.path().join("etc/graph.d"));
    fs::create_dir_all(&sbin)?;
    fs::create_dir_all(&declared)?;
    fs::copy(programs.join("graph-resolver"), sbin.join("graph-resolver"))?;
    let isolated = if has_controllers()? { format!("{ISOLATED}{LIMITED}") } else { ISOLATED.to_owned() };
    for (name, more) in NAMES.into_iter().zip(["", &*isolated]) {
        let text = format!("[component]\nname = {name:?}\nbinary = \"/usr/bin/test-stamp\"\n{more}");
        fs::write(declared.join(format!("{name}.toml")), text)?;
    }
    Ok(files)
}

/// A command that starts the service.
struct Start {
    name: &'static str,
    words: Vec<String>,
    /// Where its libraries are, if that is not where those of the machine are.
    libraries: Option<String>,
}

fn starts(arena: &Arena, stamp: &Path, setup: &Setup) -> io::Result<Vec<Way>> {
    let notes = tempfile::tempdir()?;
    let stamps = notes.path().join("stamps");
    let group = Group::new()?;
    let ways =
        commands(&[&stamp.display().to_string(), "--file", &stamps.display().to_string()], &group, setup);
    let row = |way, skipped| Way { way, ms: Vec::new(), skipped };
    let mut rows = vec![row("graph-resolver, plain", None), row("graph-resolver, isolated", None)];
    rows.extend(ways.iter().map(|way| match way {
        Ok(way) => row(way.name, None),
        Err((name, why)) => row(*name, Some(why.clone())),
    }));
    for _ in 0..setup.starts {
        for (row, name) in rows.iter_mut().zip(NAMES) {
            row.ms.push(component_start(arena, name)?);
        }
        for (row, way) in rows[NAMES.len()..].iter_mut().zip(&ways) {
            match way {
                Ok(way) if row.skipped.is_none() => match command_start(way, &stamps) {
                    Ok(ms) => row.ms.push(ms),
                    Err(error) => row.skipped = Some(error.to_string()),
                },
                _ => {}
            }
        }
    }
    Ok(rows)
}

/// Other ways to the same; those that are not to be had, with the reason.
fn commands(service: &[&str], group: &Group, setup: &Setup) -> Vec<Result<Start, (&'static str, String)>> {
    const UNSHARE: &str = "unshare --pid --mount --uts --fork --kill-child --mount-proc";
    const BWRAP: &str =
        "--die-with-parent --unshare-pid --unshare-uts --cap-drop ALL --dev-bind / / --proc /proc";
    let words = |before: &[&str]| -> Vec<String> {
        let before = before.iter().flat_map(|text| text.split_ascii_whitespace());
        before.chain(service.iter().copied()).map(str::to_owned).collect()
    };
    let way = |name, words| Ok(Start { name, words, libraries: None });
    let restricted = words(&[UNSHARE, "setpriv --bounding-set=-all --inh-caps=-all --no-new-privs"]);
    let group = group.path.display().to_string();
    let shell = ["sh".to_owned(), "-c".to_owned(), SCRIPT.to_owned(), group];
    let bwrap = setup.bwrap.as_ref().map(|root| {
        let folders = ["usr/lib", "lib"].map(|lib| root.join(lib).join(LIBRARIES).display().to_string());
        let words = words(&[&root.join("usr/bin/bwrap").display().to_string(), BWRAP]);
        Start { name: "bwrap", words, libraries: Some(folders.join(":")) }
    });
    vec![
        way("a command, plain", words(&[])),
        way("unshare", words(&[UNSHARE])),
        way(
            "a group by a shell, unshare and setpriv (as systemd-run)",
            shell.into_iter().chain(restricted).collect(),
        ),
        bwrap.map_err(|why| ("bwrap", why.clone())),
    ]
}

/// Debian's folder of libraries for this processor.
const LIBRARIES: &str = if cfg!(target_arch = "aarch64") { "aarch64-linux-gnu" } else { "x86_64-linux-gnu" };

/// Whether groups can have limits.
fn has_controllers() -> io::Result<bool> {
    let Some(root) = cgroup_root() else { return Ok(false) };
    let there = fs::read_to_string(root.join("cgroup.controllers"))?;
    Ok(["memory", "pids", "cpu"].iter().all(|wanted| there.split_whitespace().any(|one| one == *wanted)))
}

/// A group for the processes of one way.
struct Group {
    path: PathBuf,
}

impl Group {
    fn new() -> io::Result<Self> {
        let root =
            cgroup_root().ok_or_else(|| io::Error::other("there are no control groups (version 2)"))?;
        Ok(Self { path: root.join(format!("yakiros-bench-command-{}", std::process::id())) })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let end = Instant::now() + PATIENCE;
        while self.path.exists() && fs::remove_dir(&self.path).is_err() && Instant::now() < end {
            sleep(LOOK);
        }
    }
}

fn component_start(arena: &Arena, name: &str) -> io::Result<f64> {
    let before = arena.stamps().len();
    let begin = now();
    ask(arena, start(name))?;
    let born = until_stamp(|| arena.stamps(), before)?;
    ask(arena, stop(name))?;
    Ok(millis(born - begin))
}

fn command_start(way: &Start, stamps: &Path) -> io::Result<f64> {
    /// Ends what was started, however this does.
    struct Ending(Child);

    impl Drop for Ending {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    let read = || -> Vec<u64> {
        let text = fs::read_to_string(stamps).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    };
    let before = read().len();
    let (program, rest) = way.words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command
        .envs(way.libraries.iter().map(|folders| ("LD_LIBRARY_PATH", folders)))
        .args(rest)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let begin = now();
    let _child = Ending(command.spawn().map_err(|error| io::Error::other(format!("{program}: {error}")))?);
    until_stamp(read, before).map(|born| millis(born - begin))
}

/// The stamp after so many.
fn until_stamp(read: impl Fn() -> Vec<u64>, before: usize) -> io::Result<u64> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(born) = read().get(before) {
            return Ok(*born);
        }
        sleep(LOOK);
    }
    Err(io::Error::other("the service did not come to life"))
}

/// Start and stop the isolated component again and again; what is left of it.
fn cycles(arena: &Arena, setup: &Setup) -> io::Result<Vec<String>> {
    let isolated = NAMES[1];
    // The first makes what stays: its log.
    ask(arena, start(isolated))?;
    ask(arena, stop(isolated))?;
    let before = Ledger::settled(arena.pid)?;
    for cycle in 1..=setup.cycles {
        let noted = arena.noted();
        ask(arena, start(isolated))?;
        // The first process of a namespace gets no signal that it does not take yet, and would be waited for.
        let end = Instant::now() + PATIENCE;
        while arena.noted() == noted {
            if Instant::now() > end {
                return Err(io::Error::other("the service did not come to life"));
            }
            sleep(GLANCE);
        }
        ask(arena, stop(isolated))?;
        if cycle % TOLD == 0 {
            (setup.say)(&format!("{cycle} of {}", setup.cycles));
        }
    }
    Ok(Ledger::settled(arena.pid)?.differences(&before))
}

fn start(name: &str) -> Request {
    Request::Start { name: name.to_owned(), timeout_ms: None }
}

fn stop(name: &str) -> Request {
    Request::Stop { name: name.to_owned(), timeout_ms: None }
}

fn wait_for(arena: &Arena, name: &str, state: State) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    let until = Until::State { name: name.to_owned(), state, since: None };
    let request =
        Request::Wait { until, timeout_ms: Some(u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX)) };
    // The socket comes up a moment after process 1.
    loop {
        match ask(arena, request.clone()) {
            Err(_) if Instant::now() < end => sleep(LOOK),
            result => return result,
        }
    }
}

fn ask(arena: &Arena, request: Request) -> io::Result<()> {
    match arena.ask(request, PATIENCE)? {
        Answer::Done { .. } => Ok(()),
        other => Err(io::Error::other(format!("the supervisor answered {other:?}; {}", arena.output()))),
    }
}

fn millis(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}
