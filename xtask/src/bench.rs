//! `cargo xtask bench`: the core's speed against its bars, supervisors side by side, hot swaps, isolated starts, or checkpoints.

use clap::Args;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Serialize;
use yakiros_benches::peers::{self, Contestant, FLOOR, Init, PEERS, RESOLVER, Setup};
use yakiros_benches::speed::{self, PROGRAMS, ROUND_TRIP};
use yakiros_benches::{checkpoints, isolation, swaps};
use yakiros_harness::programs::Programs;
use yakiros_harness::progress::Preparation;
use yakiros_reports::{EXIT_FAILED, EXIT_INFRA, EXIT_PASSED};
use yakiros_vm::cache::Cache;
use yakiros_vm::packages::{Unpacked, unpacked};

/// Seconds for which idle and probing supervisors are watched.
const WATCH_SECONDS: u64 = 30;

/// Upgrades in a row, with no client and under load: enough for a 99th percentile.
const UPGRADES: usize = 100;

/// Connections under full load, and connections that are only moved.
const BUSY: usize = 1_000;
const IDLE: usize = 10_000;

/// Isolated starts and stops after which nothing may be left, and starts in each way whose median counts.
const CYCLES: usize = 10_000;
const STARTS: usize = 100;

/// Dumps and restores whose medians count, and dumps of a large service.
const CHECKPOINTS: usize = 20;
const LARGE_CHECKPOINTS: usize = 5;

/// Seconds of load without an upgrade: some hundred thousand requests, for the slowest thousandth of them.
const PLAIN_SECONDS: u64 = 10;

#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub struct Bench {
    /// Only benchmarks of the core with this in their name, such as resolve, flip/random or simulation
    #[arg(value_name = "FILTER", conflicts_with = "peers")]
    filter: Option<String>,
    /// Measure supervisors side by side: graph-resolver, and of Debian finit, s6 and runit. Needs root
    #[arg(long)]
    peers: bool,
    /// Measure hot swaps: what an upgrade takes, and what clients see of it. Needs root
    #[arg(long, conflicts_with_all = ["peers", "filter"])]
    hot_swap: bool,
    /// Measure isolated starts beside plain ones, and whether many of them leave anything. Needs root
    #[arg(long, conflicts_with_all = ["peers", "hot_swap", "filter"])]
    isolation: bool,
    /// Measure checkpoints beside those of CRIU itself, and what rounds of memory save. Needs root, and criu on PATH
    #[arg(long, conflicts_with_all = ["peers", "hot_swap", "isolation", "filter"])]
    checkpoint: bool,
    /// Isolated starts and stops after which nothing may be left
    #[arg(long, value_name = "N", default_value_t = CYCLES, requires = "isolation")]
    cycles: usize,
    /// A folder with usr/sbin/dinit and its libraries, to be dinit's root: Debian has no package of it
    #[arg(long, value_name = "FOLDER", requires = "peers")]
    dinit: Option<PathBuf>,
    /// Only graph-resolver, and the floor
    #[arg(long, requires = "peers")]
    alone: bool,
    /// A folder with graph-resolver, the test services and test-load, all static, instead of those built now
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
    /// Starts of 100 services of which the median counts
    #[arg(long, value_name = "N", default_value_t = 5, requires = "peers")]
    rounds: usize,
    /// Seconds for which idle and probing supervisors are watched
    #[arg(long, value_name = "N", default_value_t = WATCH_SECONDS, requires = "peers")]
    watch: u64,
    /// All figures as JSON
    #[arg(long)]
    json: bool,
}

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

pub fn run(arguments: &Bench) -> i32 {
    if arguments.peers {
        let report = measure_peers(arguments);
        print(arguments, report, peers::Report::passed)
    } else if arguments.isolation {
        print(arguments, measure_isolation(arguments), isolation::Report::passed)
    } else if arguments.checkpoint {
        print(arguments, measure_checkpoints(arguments), checkpoints::Report::passed)
    } else if arguments.hot_swap {
        print(arguments, measure_swaps(arguments), swaps::Report::passed)
    } else {
        let report = measure_core(arguments);
        print(arguments, report, speed::Report::passed)
    }
}

fn print<R: Serialize + Display>(arguments: &Bench, report: Outcome<R>, passed: fn(&R) -> bool) -> i32 {
    match report {
        Ok(report) => {
            if arguments.json {
                println!("{}", serde_json::to_string_pretty(&report).unwrap_or_default());
            } else {
                println!("{report}");
            }
            if passed(&report) { EXIT_PASSED } else { EXIT_FAILED }
        }
        Err(error) => {
            eprintln!("error: {error}");
            EXIT_INFRA
        }
    }
}

/// Criterion's own lines are the progress; its files are read for the table.
fn measure_core(arguments: &Bench) -> Outcome<speed::Report> {
    let folder = tempfile::tempdir()?;
    let filter = arguments.filter.as_deref();
    let mut command = crate::test::command(&["bench", "--package", "yakiros-benches", "--bench", "core"]);
    command.args(["--", "--quiet"]).args(filter).env("CRITERION_HOME", folder.path());
    if filter.is_none_or(|filter| ROUND_TRIP.contains(filter) || filter.contains(ROUND_TRIP)) {
        command.env(PROGRAMS, programs(arguments)?);
    }
    let status = command.stdout(Stdio::from(std::io::stderr())).status()?;
    if !status.success() {
        return Err(format!("cargo bench ended with {status}").into());
    }
    let report = speed::Report::read(folder.path(), filter)?;
    match filter {
        Some(filter) if report.rows.is_empty() => {
            Err(format!("no benchmark has {filter:?} in its name").into())
        }
        _ => Ok(report),
    }
}

/// The folder of the programs under test.
fn programs(arguments: &Bench) -> Outcome<PathBuf> {
    match &arguments.programs {
        Some(folder) => Ok(std::path::absolute(folder)?),
        None => Ok(Programs::build()?.folder().to_path_buf()),
    }
}

fn measure_peers(arguments: &Bench) -> Outcome<peers::Report> {
    let programs = programs(arguments)?;
    let folder = tempfile::tempdir()?;
    let ours = [(&RESOLVER, "graph-resolver"), (&FLOOR, "test-floor")];
    let ours = ours.map(|(init, name)| own(init, &programs.join(name), &folder.path().join(init.name)));
    let mut contestants = ours.into_iter().collect::<Result<Vec<_>, _>>()?;
    let cache = Cache::from_env()?;
    let mut leases = Vec::new();
    for init in PEERS.iter().filter(|_| !arguments.alone) {
        let given = arguments.dinit.clone().filter(|_| init.name == "dinit");
        contestants.push(match given {
            Some(root) => Contestant { init, version: "given".into(), root: Ok(root) },
            None => peer(init, &cache, &mut leases),
        });
    }
    let setup = Setup {
        contestants,
        service: programs.join("test-stamp"),
        rounds: arguments.rounds,
        watch_seconds: arguments.watch,
        say: |text| eprintln!("{text}"),
    };
    Ok(peers::run(&setup)?)
}

fn measure_isolation(arguments: &Bench) -> Outcome<isolation::Report> {
    let cache = Cache::from_env()?;
    let bwrap = unpacked(&cache, &["bubblewrap"], &Preparation::default());
    let setup = isolation::Setup {
        programs: programs(arguments)?,
        bwrap: bwrap.as_ref().map(|found| found.root.clone()).map_err(ToString::to_string),
        starts: STARTS,
        cycles: arguments.cycles,
        say: |text| eprintln!("{text}"),
    };
    Ok(isolation::run(&setup)?)
}

fn measure_checkpoints(arguments: &Bench) -> Outcome<checkpoints::Report> {
    let setup = checkpoints::Setup {
        programs: programs(arguments)?,
        cycles: CHECKPOINTS,
        dumps: LARGE_CHECKPOINTS,
        say: |text| eprintln!("{text}"),
    };
    Ok(checkpoints::run(&setup)?)
}

fn measure_swaps(arguments: &Bench) -> Outcome<swaps::Report> {
    let setup = swaps::Setup {
        programs: programs(arguments)?,
        upgrades: UPGRADES,
        busy: BUSY,
        idle: IDLE,
        plain_seconds: PLAIN_SECONDS,
        say: |text| eprintln!("{text}"),
    };
    Ok(swaps::run(&setup)?)
}

/// A program of our own, as it is in the guest.
fn own(init: &'static Init, program: &Path, folder: &Path) -> std::io::Result<Contestant> {
    let sbin = folder.join("usr/sbin");
    std::fs::create_dir_all(&sbin)?;
    std::fs::copy(program, sbin.join(program.file_name().unwrap_or_default()))?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Ok(Contestant { init, version, root: Ok(folder.to_path_buf()) })
}

fn peer(init: &'static Init, cache: &Cache, leases: &mut Vec<Unpacked>) -> Contestant {
    if init.packages.is_empty() {
        return skipped(init, "Debian has no package of it; give a folder with its program".into());
    }
    match unpacked(cache, init.packages, &Preparation::default()) {
        Ok(found) => {
            let (version, root) = (found.version.clone(), found.root.clone());
            leases.push(found);
            Contestant { init, version, root: Ok(root) }
        }
        Err(error) => skipped(init, error.to_string()),
    }
}

fn skipped(init: &'static Init, reason: String) -> Contestant {
    Contestant { init, version: String::new(), root: Err(reason) }
}
