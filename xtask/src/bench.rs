//! `cargo xtask bench`.

use clap::Args;
use std::path::{Path, PathBuf};

use yakiros_benches::peers::{self, Contestant, FLOOR, Init, PEERS, RESOLVER, Setup};
use yakiros_harness::programs::Programs;
use yakiros_harness::progress::Preparation;
use yakiros_reports::{EXIT_FAILED, EXIT_INFRA, EXIT_PASSED};
use yakiros_vm::cache::Cache;
use yakiros_vm::packages::{Unpacked, unpacked};

/// Seconds for which idle and probing supervisors are watched.
const WATCH_SECONDS: u64 = 30;

#[derive(Args)]
pub struct Bench {
    /// Measure supervisors side by side: graph-resolver, and of Debian finit, s6 and runit. Needs root
    #[arg(long, required = true)]
    peers: bool,
    /// A folder with usr/sbin/dinit and its libraries, to be dinit's root: Debian has no package of it
    #[arg(long, value_name = "FOLDER")]
    dinit: Option<PathBuf>,
    /// Only graph-resolver, and the floor
    #[arg(long)]
    alone: bool,
    /// A folder with graph-resolver, test-floor and test-stamp, all static, instead of those built now
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
    /// Starts of 100 services of which the median counts
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Seconds for which idle and probing supervisors are watched
    #[arg(long, value_name = "N", default_value_t = WATCH_SECONDS)]
    watch: u64,
    /// All figures as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Bench) -> i32 {
    match measure(arguments) {
        Ok(report) => {
            if arguments.json {
                println!("{}", serde_json::to_string_pretty(&report).unwrap_or_default());
            } else {
                println!("{report}");
            }
            if report.passed() { EXIT_PASSED } else { EXIT_FAILED }
        }
        Err(error) => {
            eprintln!("error: {error}");
            EXIT_INFRA
        }
    }
}

fn measure(arguments: &Bench) -> Result<peers::Report, Box<dyn std::error::Error>> {
    let built = if arguments.programs.is_none() { Some(Programs::build()?) } else { None };
    let program = |name: &str| match (&arguments.programs, &built) {
        (Some(folder), _) => folder.join(name),
        (None, Some(programs)) => programs.path(name),
        (None, None) => PathBuf::from(name),
    };
    let folder = tempfile::tempdir()?;
    let ours = [(&RESOLVER, "graph-resolver"), (&FLOOR, "test-floor")];
    let ours = ours.map(|(init, name)| own(init, &program(name), &folder.path().join(init.name)));
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
        service: program("test-stamp"),
        rounds: arguments.rounds,
        watch_seconds: arguments.watch,
        say: |text| eprintln!("{text}"),
    };
    Ok(peers::run(&setup)?)
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
