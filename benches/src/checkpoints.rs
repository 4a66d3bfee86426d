//! Checkpoints by `graph-checkpoint` beside those of CRIU itself, of the same process with the same options; and how long a
//! service with much memory stands still for one, with rounds of memory before it and without. The ways take turns, so what
//! the machine does to one it does to all.

use std::cell::RefCell;
use std::fmt;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use serde::Serialize;
use yakiros_checkpoint::criu::{Action, Known, NAME, Options, Paths, Then, arguments};
use yakiros_checkpoint::order::{After, Dump, Event, Job, Line, Move, Order, Remake, Restore, VERSION};

use crate::figure::Figure;
use crate::peers::median;
use crate::ways::Way;

/// For one call, and for the service to be there.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(2);
/// Memory of the service that stands still for it, in MiB, and how much of it changes, in KiB a second.
const BALLAST: u32 = 256;
const DIRTIED: u32 = 1024;
/// Rounds of memory before a dump: what a component has that says nothing.
const ROUNDS: u32 = 4;
/// What CRIU calls that the kernel tells which memory has changed.
const DIRTY_TRACKING: &str = "mem_dirty_track";

/// What is measured, and how much of it.
#[derive(Debug)]
pub struct Setup {
    /// A folder with graph-checkpoint and test-stateful-service, both static.
    pub programs: PathBuf,
    /// Dumps with a restore in each way.
    pub cycles: usize,
    /// Dumps of the large service in each way.
    pub dumps: usize,
    /// Progress in words; goes to standard error.
    pub say: fn(&str),
}

/// All of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What took how long.
    pub rows: Vec<Way>,
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
        writeln!(f)?;
        self.figures.iter().try_for_each(|figure| writeln!(f, "{figure}"))
    }
}

/// Measure everything. An error is one of the machinery's; what the machine cannot do is skipped with the reason.
pub fn run(setup: &Setup) -> io::Result<Report> {
    let mut rows = Vec::new();
    let mut figures = Vec::new();
    let usable = check(None);
    (setup.say)(&format!("{} dumps and restores in each way", setup.cycles));
    let [plain, moved, synced, kept] = measured(usable.clone(), || overhead(setup))?;
    for (what, ours, theirs) in [
        ("a move by graph-checkpoint, in a dump and a restore by CRIU", &moved, &plain),
        ("a dump that lasts and a restore by graph-checkpoint, in those by CRIU", &kept, &synced),
    ] {
        // Of each turn: what the machine is busy with beside changes from one to the next.
        let ratios: Vec<_> = ours.1.iter().zip(&theirs.1).map(|(ours, theirs)| ours / theirs).collect();
        figures.extend(median(&ratios).map(|value| Figure { what, bar: 1.10, value }));
    }
    rows.push(row("dump and restore, criu", plain));
    rows.push(row("move, graph-checkpoint", moved));
    rows.push(row("dump, its images to the disk, restore, criu", synced));
    rows.push(row("dump that lasts, restore, graph-checkpoint", kept));
    (setup.say)(&format!("{} dumps of {BALLAST} MiB in each way", setup.dumps));
    let usable = usable.and_then(|()| check(Some(DIRTY_TRACKING)));
    let [without, with] = measured(usable, || frozen(setup))?;
    if let (Some(without), Some(with)) = (median(&without.1), median(&with.1)) {
        let what = "time frozen with rounds of memory, in that without";
        figures.push(Figure { what, bar: 0.25, value: with / without });
    }
    rows.push(row("frozen, 256 MiB of which 1 MiB/s changes, no rounds", without));
    rows.push(row("frozen, 256 MiB of which 1 MiB/s changes, rounds", with));
    Ok(Report { rows, figures })
}

/// Milliseconds, or why there are none.
type Samples = (Option<String>, Vec<f64>);

fn measured<const WAYS: usize>(
    usable: Result<(), String>,
    measure: impl FnOnce() -> io::Result<[Vec<f64>; WAYS]>,
) -> io::Result<[Samples; WAYS]> {
    match usable {
        Ok(()) => Ok(measure()?.map(|ms| (None, ms))),
        Err(why) => Ok([(); WAYS].map(|()| (Some(why.clone()), Vec::new()))),
    }
}

fn row(way: &'static str, (skipped, ms): Samples) -> Way {
    Way { way, ms, skipped }
}

/// Whether CRIU can do something here.
fn check(feature: Option<&str>) -> Result<(), String> {
    let mut command = Command::new(NAME);
    command.args(["check", "--no-default-config"]);
    if let Some(feature) = feature {
        command.args(["--feature", feature]);
    }
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("criu check: {}", said.trim().lines().last().unwrap_or("it says nothing")))
        }
        Err(error) => Err(format!("{NAME}: {error}")),
    }
}

/// A service that is written and made again, with the same number each time. It ends with the value.
struct Service {
    folder: tempfile::TempDir,
    pid: Pid,
    /// What CRIU is.
    known: RefCell<Option<Known>>,
}

impl Service {
    fn start(setup: &Setup, more: &[String]) -> io::Result<Self> {
        // What was restored is this process's child again, and waited for.
        set_child_subreaper(true)?;
        let folder = tempfile::tempdir()?;
        let ready = folder.path().join("ready");
        let mut command = Command::new(setup.programs.join("test-stateful-service"));
        command.args(["--listen", "127.0.0.1:0", "--ready-file"]).arg(&ready).args(more);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
        // SAFETY: setsid is a system call and touches no memory.
        unsafe { command.pre_exec(|| Ok(nix::unistd::setsid().map(drop)?)) };
        let child = command.spawn()?;
        let number = i32::try_from(child.id()).map_err(io::Error::other)?;
        let service = Self { folder, pid: Pid::from_raw(number), known: RefCell::default() };
        let begun = Instant::now();
        while !ready.exists() {
            if begun.elapsed() > PATIENCE {
                return Err(io::Error::other("test-stateful-service is not ready"));
            }
            sleep(LOOK);
        }
        Ok(service)
    }

    fn base(&self) -> PathBuf {
        self.folder.path().join("checkpoints")
    }

    /// Have the worker do something; what it told, and how long after its start.
    fn order(&self, setup: &Setup, job: Job) -> io::Result<Vec<(Duration, Event)>> {
        let begun = Instant::now();
        let mut command = Command::new(setup.programs.join("graph-checkpoint"));
        let mut worker = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = serde_json::to_vec(&Order {
            version: VERSION,
            base: self.base(),
            known: self.known.borrow().clone(),
            job,
        })?;
        line.push(b'\n');
        worker.stdin.as_mut().map_or(Ok(()), |stdin| stdin.write_all(&line))?;
        let mut events = Vec::new();
        for line in worker.stdout.take().into_iter().flat_map(|stdout| BufReader::new(stdout).lines()) {
            let Line { event, .. } = serde_json::from_str(&line?)?;
            // As process 1 does.
            if let Event::Known { known } = &event {
                *self.known.borrow_mut() = Some(known.clone());
            }
            events.push((begun.elapsed(), event));
        }
        worker.wait()?;
        match events.last() {
            Some((_, Event::Done { .. })) => Ok(events),
            other => Err(io::Error::other(format!("graph-checkpoint: {other:?}"))),
        }
    }

    /// The same; how long until that is told.
    fn timed(&self, setup: &Setup, job: Job, told: fn(&Event) -> bool) -> io::Result<Duration> {
        let events = self.order(setup, job)?;
        let found = events.iter().find(|(_, event)| told(event)).map(|(after, _)| *after);
        found.ok_or_else(|| io::Error::other(format!("graph-checkpoint has told something else: {events:?}")))
    }

    fn dump(&self, after: After, rounds: u32) -> Dump {
        Dump {
            component: "bench".to_owned(),
            pid: self.pid.as_raw(),
            program: None,
            criu: NAME.into(),
            options: Options::default(),
            rounds,
            after,
            capabilities: Vec::new(),
            preserve_fds: Vec::new(),
            given: Vec::new(),
            limit: PATIENCE,
            quota: None,
            keep: None,
        }
    }

    fn remake(&self) -> Remake {
        let work = self.folder.path().to_owned();
        Remake { work, given: Vec::new(), wait: None, limit: PATIENCE }
    }

    fn restore(&self) -> Job {
        Job::Restore(Restore {
            component: "bench".to_owned(),
            id: None,
            criu: NAME.into(),
            how: self.remake(),
        })
    }

    /// Have it ended and made again in one; how long until it is there again.
    fn moved(&self, setup: &Setup) -> io::Result<Duration> {
        let job = Job::Move(Move { dump: self.dump(After::End, 0), restore: self.remake() });
        let pid = self.pid;
        // Its number has to be free when it is made again.
        let waits = std::thread::spawn(move || waitpid(pid, None).map(drop));
        let took = self.timed(setup, job, |event| matches!(event, Event::Restored { .. }))?;
        waits.join().map_err(|_| io::Error::other("a wait has failed"))??;
        Ok(took)
    }

    /// It has been ended: its number is free again.
    fn ended(&self) -> io::Result<()> {
        Ok(waitpid(self.pid, None).map(drop)?)
    }

    /// What the tree needs, as the worker finds it.
    fn options(&self, setup: &Setup) -> io::Result<Options> {
        let events = self.order(setup, Job::Preflight { criu: NAME.into(), pid: self.pid.as_raw() })?;
        let found = events.into_iter().find_map(|(_, event)| match event {
            Event::Judged { verdict } => Some(verdict.options),
            _ => None,
        });
        found.ok_or_else(|| io::Error::other("graph-checkpoint has judged nothing"))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }
}

/// Of one process that is ended and made again all the time, by one way after the other.
fn overhead(setup: &Setup) -> io::Result<[Vec<f64>; 4]> {
    let service = Service::start(setup, &[])?;
    let options = service.options(setup)?;
    let mut all = [const { Vec::new() }; 4];
    // The first of each finds nothing in the machine's memory yet.
    for cycle in 0..=setup.cycles {
        let plain = by_criu(&service, &options, false)?;
        let moved = service.moved(setup)?;
        let synced = by_criu(&service, &options, true)?;
        let is_done = |event: &Event| matches!(event, Event::Done { .. });
        let dumped = service.timed(setup, Job::Dump(service.dump(After::End, 0)), is_done)?;
        service.ended()?;
        let restored = service.timed(setup, service.restore(), is_done)?;
        fs::remove_dir_all(service.base())?;
        if cycle > 0 {
            for (samples, took) in all.iter_mut().zip([plain, moved, synced, dumped + restored]) {
                samples.push(milliseconds(took));
            }
        }
    }
    Ok(all)
}

/// The same calls without the worker. What lasts is on the disk before the processes are made again.
fn by_criu(service: &Service, options: &Options, lasts: bool) -> io::Result<Duration> {
    let place = service.folder.path().join("plain");
    let paths = Paths { images: place.join("images"), work: place.join("work") };
    fs::create_dir_all(&paths.images)?;
    fs::create_dir_all(&paths.work)?;
    let action = Action::Dump { pid: service.pid.as_raw(), parent: None, then: Then::Run };
    let mut dump = arguments(&action, options, &paths);
    dump.retain(|argument| argument != "--leave-running");
    let dumped = criu(&dump)?;
    service.ended()?;
    let begun = Instant::now();
    if lasts {
        for entry in fs::read_dir(&paths.images)? {
            fs::File::open(entry?.path())?.sync_all()?;
        }
        fs::File::open(&paths.images)?.sync_all()?;
    }
    let synced = begun.elapsed();
    let pidfile = paths.work.join("pid");
    let action = Action::Restore { pidfile, root: None, ask: None, inherit: Vec::new() };
    let restored = criu(&arguments(&action, options, &paths))?;
    fs::remove_dir_all(&place)?;
    Ok(dumped + synced + restored)
}

fn criu(arguments: &[std::ffi::OsString]) -> io::Result<Duration> {
    let begun = Instant::now();
    let output = Command::new(NAME).args(arguments).stdin(Stdio::null()).output()?;
    let took = begun.elapsed();
    if output.status.success() {
        return Ok(took);
    }
    Err(io::Error::other(format!("criu {arguments:?}: {}", String::from_utf8_lossy(&output.stderr))))
}

/// How long one with much memory stands still, without rounds and with them.
fn frozen(setup: &Setup) -> io::Result<[Vec<f64>; 2]> {
    let more = [("--ballast-mib", BALLAST), ("--dirty-kib", DIRTIED)];
    let more: Vec<_> = more.iter().flat_map(|(key, value)| [(*key).to_owned(), value.to_string()]).collect();
    let service = Service::start(setup, &more)?;
    let mut all = [Vec::new(), Vec::new()];
    for _ in 0..setup.dumps {
        for (samples, rounds) in all.iter_mut().zip([0, ROUNDS]) {
            let events = service.order(setup, Job::Dump(service.dump(After::Run, rounds)))?;
            let frozen = events.iter().find_map(|(_, event)| match event {
                Event::Written { figures, .. } => figures.map(|figures| figures.frozen),
                _ => None,
            });
            let frozen = frozen.ok_or_else(|| io::Error::other("CRIU has counted nothing"))?;
            samples.push(milliseconds(Duration::from_micros(frozen)));
            fs::remove_dir_all(service.base())?;
        }
    }
    Ok(all)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
