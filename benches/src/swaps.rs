//! Hot swaps under our own supervisor: what an upgrade takes, and what clients see of it.
//!
//! The supervisor is process 1 as in [`crate::peers`]; the service is `test-echo-server`, the clients are `test-load` in
//! the same network namespace, which proves from its log that nothing was lost.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use yakiros_core::control::{Answer, Request, UpgradeLevel, Upgraded};
use yakiros_load::check::{Checker, Verdict};
use yakiros_load::history::{self, Kind};

use crate::figure::Figure;
use crate::peers::arena::{Arena, Field, now};
use crate::peers::{RESOLVER, median, worst};

/// The component, and where it listens.
const NAME: &str = "echo";
const ADDRESS: &str = "127.0.0.1:8080";

/// Descriptors that the service may have: those of the most connections, and some for itself.
const FILES_MAX: u64 = 12_000;

/// Within this time the service is up, the load has its first replies, or an upgrade is over; or they never will be.
const PATIENCE: Duration = Duration::from_secs(30);

/// Pause between two looks, and between two upgrades: the process before leaves meanwhile.
const LOOK: Duration = Duration::from_millis(20);

/// Upgrades with the most connections. Each takes as long as the others.
const OF_MANY: usize = 5;

/// What is measured, and how much of it.
#[derive(Debug)]
pub struct Setup {
    /// A folder with graph-resolver, test-stamp, test-echo-server and test-load, all static.
    pub programs: PathBuf,
    /// Upgrades in a row with no client, and under load.
    pub upgrades: usize,
    /// Connections under full load.
    pub busy: usize,
    /// Connections that are only moved.
    pub idle: usize,
    /// Seconds of load without an upgrade, before that with upgrades.
    pub plain_seconds: u64,
    /// Progress in words; goes to standard error.
    pub say: fn(&str),
}

/// All of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Upgrades without a client: from the request to its answer, in milliseconds.
    pub alone_ms: Vec<f64>,
    /// The same: how long nobody served, in milliseconds.
    pub alone_gap_ms: Vec<f64>,
    /// Upgrades with many idle connections: how long nobody served, in milliseconds.
    pub moved_gap_ms: Vec<f64>,
    /// Descriptors that each of those moved.
    pub moved: u32,
    /// What the clients of the busy connections saw.
    pub load: Load,
    /// Against the bars.
    pub figures: Vec<Figure>,
}

/// What clients saw.
#[derive(Debug, Serialize)]
pub struct Load {
    /// Connections.
    pub connections: usize,
    /// Upgrades.
    pub upgrades: usize,
    /// Replies that came, without and with upgrades.
    pub replies: [u64; 2],
    /// Requests that were lost, doubled, damaged or out of order, and connections that ended.
    pub faults: u64,
    /// The slowest thousandth of requests without upgrades took longer than this, in milliseconds.
    pub plain_p999_ms: f64,
    /// The longest silence that any client heard, for each upgrade, in milliseconds.
    pub silence_ms: Vec<f64>,
}

impl Report {
    /// Whether no bar is missed.
    pub fn passed(&self) -> bool {
        self.figures.iter().all(Figure::is_good)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, what: &str, values: &[f64]| {
            let [middle, most] = [median(values), worst(values)].map(Option::unwrap_or_default);
            writeln!(f, "{what:<58} median {middle:>8.2} ms  worst {most:>8.2} ms  of {}", values.len())
        };
        let Load { connections, upgrades, replies: [plain, with], .. } = self.load;
        line(f, "an upgrade without clients", &self.alone_ms)?;
        line(f, "  nobody serves for", &self.alone_gap_ms)?;
        line(f, &format!("{} descriptors moved, nobody serves for", self.moved), &self.moved_gap_ms)?;
        line(f, &format!("{connections} busy connections, the longest silence"), &self.load.silence_ms)?;
        writeln!(
            f,
            "  {plain} replies without and {with} with {upgrades} upgrades; plain p99.9 {:.2} ms\n",
            self.load.plain_p999_ms
        )?;
        for figure in &self.figures {
            writeln!(f, "{figure}")?;
        }
        Ok(())
    }
}

/// Measure everything. An error is one of the machinery's, or says what the supervisor did not do.
pub fn run(setup: &Setup) -> io::Result<Report> {
    let field = Field::new()?;
    let site = Site::new(setup)?;
    (setup.say)(&format!("{} upgrades without clients", setup.upgrades));
    let (alone_ms, alone_gap_ms) = alone(&site.open(&field)?, setup.upgrades)?;
    (setup.say)(&format!("{OF_MANY} upgrades with {} idle connections", setup.idle));
    let (moved_gap_ms, moved) = moved(&site.open(&field)?, setup.idle)?;
    (setup.say)(&format!("{} upgrades with {} busy connections", setup.upgrades, setup.busy));
    let load = under_load(&site.open(&field)?, setup)?;
    let mut report = Report { alone_ms, alone_gap_ms, moved_gap_ms, moved, load, figures: Vec::new() };
    report.figures = judge(&report);
    Ok(report)
}

fn judge(report: &Report) -> Vec<Figure> {
    let silence = percentile(&report.load.silence_ms, 0.99);
    let of = |values: &[f64]| median(values).unwrap_or(f64::INFINITY);
    let figure = |what, bar, value| Figure { what, bar, value };
    vec![
        figure("an upgrade without clients, median, ms", 5.0, of(&report.alone_ms)),
        figure("all connections moved, median, ms", 200.0, of(&report.moved_gap_ms)),
        figure("requests and connections that failed", 0.0, report.load.faults as f64),
        figure("longest silence, p99 of upgrades, in plain p99.9", 3.0, silence / report.load.plain_p999_ms),
    ]
}

/// The value that so large a part of all is not above.
fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or(f64::INFINITY)
}

fn alone(place: &Place, upgrades: usize) -> io::Result<(Vec<f64>, Vec<f64>)> {
    let (mut times, mut gaps) = (Vec::new(), Vec::new());
    for _ in 0..upgrades {
        let begin = now();
        let done = place.upgrade()?;
        times.push(millis(now() - begin));
        gaps.push(gap(&done));
        sleep(LOOK);
    }
    Ok((times, gaps))
}

fn moved(place: &Place, idle: usize) -> io::Result<(Vec<f64>, u32)> {
    let client = place.load(1, idle)?;
    let mut gaps = Vec::new();
    let mut least = u32::MAX;
    for _ in 0..OF_MANY {
        let done = place.upgrade()?;
        least = least.min(done.descriptors.unwrap_or_default());
        gaps.push(gap(&done));
        sleep(LOOK);
    }
    let verdict = client.judge(&[])?;
    if !verdict.clean || (least as usize) < idle {
        return Err(io::Error::other(format!("of {idle} connections {least} were moved: {verdict:?}")));
    }
    Ok((gaps, least))
}

fn under_load(place: &Place, setup: &Setup) -> io::Result<Load> {
    let plain = place.load(setup.busy, 0)?;
    sleep(Duration::from_secs(setup.plain_seconds));
    let plain = plain.judge(&[])?;
    let client = place.load(setup.busy, 0)?;
    let mut windows = Vec::new();
    for _ in 0..setup.upgrades {
        let begin = now();
        place.upgrade()?;
        windows.push((begin, now()));
        sleep(LOOK);
    }
    let with = client.judge(&windows)?;
    Ok(Load {
        connections: setup.busy,
        upgrades: setup.upgrades,
        replies: [plain.counts.replies, with.counts.replies],
        faults: faults(&plain) + faults(&with),
        plain_p999_ms: millis(plain.latency_ns.p999),
        silence_ms: with.windows.iter().map(|window| millis(window.silence.ns)).collect(),
    })
}

/// What is started again for each measurement.
struct Site {
    programs: PathBuf,
    /// Of the supervisor.
    files: tempfile::TempDir,
}

impl Site {
    fn new(setup: &Setup) -> io::Result<Self> {
        let files = tempfile::tempdir()?;
        let sbin = files.path().join("usr/sbin");
        fs::create_dir_all(&sbin)?;
        for name in ["graph-resolver", "test-echo-server"] {
            fs::copy(setup.programs.join(name), sbin.join(name))?;
        }
        let folder = files.path().join("etc/graph.d");
        fs::create_dir_all(&folder)?;
        let text = format!(
            "[component]\nname = \"{NAME}\"\nbinary = \"/sbin/test-echo-server\"\nargs = [\"--listen\", \"{ADDRESS}\"]\n\
             handoff = \"fd-passing\"\n\n[resources]\nfiles_max = {FILES_MAX}\n"
        );
        fs::write(folder.join(format!("{NAME}.toml")), text)?;
        Ok(Self { programs: setup.programs.clone(), files })
    }

    fn open(&self, field: &Field) -> io::Result<Place> {
        let root = field.root(self.files.path(), &self.programs.join("test-stamp"))?;
        let arena = field.start(&root, RESOLVER.argv)?;
        let place = Place { arena, load: self.programs.join("test-load"), notes: tempfile::tempdir()? };
        // The first one shows that the service has said what it can.
        let begin = Instant::now();
        while let Err(error) = place.upgrade() {
            if begin.elapsed() > PATIENCE {
                return Err(io::Error::other(format!("{error}; {}", place.arena.output())));
            }
            sleep(LOOK);
        }
        Ok(place)
    }
}

/// A supervisor with the service.
struct Place {
    arena: Arena,
    /// The program.
    load: PathBuf,
    /// What the load writes.
    notes: tempfile::TempDir,
}

impl Place {
    /// Upgrade the service by passing its descriptors on.
    fn upgrade(&self) -> io::Result<Upgraded> {
        let request = Request::Upgrade {
            name: NAME.into(),
            fallback: false,
            queue: false,
            strategy: None,
            timeout_ms: None,
        };
        match self.arena.ask(request, PATIENCE)? {
            Answer::Upgraded(done) if done.level == UpgradeLevel::FdPassing => Ok(done),
            other => Err(io::Error::other(format!("the upgrade was answered by {other:?}"))),
        }
    }

    /// Put the service under load, and wait until all connections stand.
    fn load(&self, busy: usize, idle: usize) -> io::Result<Client> {
        let [history, errors] = ["history", "errors"].map(|name| self.notes.path().join(name));
        let pid = self.arena.pid.to_string();
        File::create(&history)?;
        let child = Command::new("nsenter")
            .args(["--target", &pid, "--net", "--"])
            .arg(&self.load)
            .args(["run", &format!("tcp:{ADDRESS}"), "--history"])
            .arg(&history)
            .args(["--connections", &busy.to_string(), "--idle", &idle.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&errors)?)
            .spawn()?;
        let mut client = Client { child, history, errors };
        client.wait_until_opened(busy + idle)?;
        Ok(client)
    }
}

/// A load under way.
struct Client {
    child: Child,
    history: PathBuf,
    errors: PathBuf,
}

impl Client {
    fn wait_until_opened(&mut self, connections: usize) -> io::Result<()> {
        let begin = Instant::now();
        while count_opened(&self.history)? < connections {
            if self.child.try_wait()?.is_some() || begin.elapsed() > PATIENCE {
                let errors = fs::read_to_string(&self.errors).unwrap_or_default();
                return Err(io::Error::other(format!(
                    "not all of {connections} connections stand: {errors}"
                )));
            }
            sleep(LOOK);
        }
        Ok(())
    }

    /// End it, and judge what it saw; how long the longest silence was in each window.
    fn judge(mut self, windows: &[(u64, u64)]) -> io::Result<Verdict> {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM)?;
        self.child.wait()?;
        let mut checker = Checker::new(windows.iter().copied());
        history::read(BufReader::new(File::open(&self.history)?), |record| checker.add(record))?;
        Ok(checker.finish())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connections that stand by what is written so far; the load writes once a second.
fn count_opened(history: &Path) -> io::Result<usize> {
    let mut opened = 0;
    let read = history::read(BufReader::new(File::open(history)?), |record| {
        opened += usize::from(record.kind == Kind::Opened);
    });
    match read {
        // It has not begun.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        read => read.map(|()| opened),
    }
}

/// Faults of every kind.
fn faults(verdict: &Verdict) -> u64 {
    let counts = &verdict.counts;
    counts.unended
        + counts.lost
        + counts.duplicated
        + counts.reordered
        + counts.damaged
        + counts.strangers
        + counts.invented
        + counts.refused
        + counts.closed
        + counts.broken
        + counts.senseless
}

/// How long nobody served, in milliseconds.
fn gap(done: &Upgraded) -> f64 {
    done.gap_us.map_or(f64::INFINITY, |gap| gap as f64 / 1e3)
}

fn millis(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}
