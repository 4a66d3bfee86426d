//! `cargo xtask sim`: seeds through the simulation of `yakiros-core`.
//!
//! A seed decides everything: what is declared, what fails, who asks for what and when. Each is
//! run twice and compared. The first failure ends the run; it is shown with everything that was
//! drawn from its seed, its last events, and the command that shows it again.

mod crash;
#[cfg(feature = "mutations")]
mod mutations;
mod seeds;

use std::process::ExitCode;
use std::thread::available_parallelism;

use clap::Parser;
use serde::Serialize;
use yakiros_core::sim;

const EXAMPLES: &str = "\
Examples:
  cargo xtask sim                          a thousand seeds, a few seconds
  cargo xtask sim --seeds 100000           many; progress every ten seconds
  cargo xtask sim --from 100000            others
  cargo xtask sim --seed 4711              one, again
  cargo xtask sim --seed 4711 --trace      everything that happens in it
  cargo xtask sim --seed 4711 --options    what is drawn from it
  cargo xtask sim --mutations              break the engine on purpose: which checker sees it, and how soon
  cargo xtask sim --crash-points --seeds 100
                                           a fault at each step of a hot swap, each by so many seeds
  cargo xtask sim --unchecked              the engine's speed alone

Exit codes: 0 every promise kept, 1 one broken, 2 usage.";

/// Run the supervisor's engine in a fake world, seed by seed, and check every promise it makes
#[derive(Parser)]
#[command(name = "cargo xtask sim", bin_name = "cargo xtask sim", after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
struct Arguments {
    /// How many seeds
    #[arg(long, value_name = "N", default_value_t = 1000)]
    seeds: u64,
    /// The first seed
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    from: u64,
    /// This seed only
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Threads [default: as many as processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Print what is drawn from the seeds, and run nothing
    #[arg(long, conflicts_with_all = ["mutations", "unchecked"])]
    options: bool,
    /// Print everything that goes into the engine and comes out of it
    #[arg(long, requires = "seed", conflicts_with_all = ["options", "mutations", "unchecked", "json"])]
    trace: bool,
    /// Run each seed once and without checkers, to measure the engine
    #[arg(long)]
    unchecked: bool,
    /// Break the engine in every way that is known, and see which checker notices
    #[arg(long, conflicts_with_all = ["seed", "unchecked"])]
    mutations: bool,
    /// Have each step of a hot swap meet each fault, and print who serves then
    #[arg(long, conflicts_with_all = ["options", "trace", "unchecked", "mutations"])]
    crash_points: bool,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    fn range(&self) -> std::ops::Range<u64> {
        match self.seed {
            Some(seed) => seed..seed.saturating_add(1),
            None => self.from..self.from.saturating_add(self.seeds),
        }
    }

    fn jobs(&self) -> usize {
        self.jobs.map_or_else(|| available_parallelism().map_or(1, usize::from), usize::from)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.options {
        return print_options(&arguments);
    }
    if arguments.trace {
        arguments.range().flat_map(sim::trace).for_each(|line| println!("{line}"));
        return ExitCode::SUCCESS;
    }
    // A panic of the engine is an outcome of its seed, and is shown as such.
    std::panic::set_hook(Box::new(|_| {}));
    if arguments.mutations {
        return check_checkers(&arguments);
    }
    if arguments.crash_points {
        return crash::run(&arguments);
    }
    seeds::run(&arguments)
}

fn print_options(arguments: &Arguments) -> ExitCode {
    for seed in arguments.range() {
        let options = sim::Options::of(seed);
        if arguments.json {
            print_json(&serde_json::json!({ "seed": seed, "options": options }));
        } else {
            println!("seed {seed}: {options}");
        }
    }
    ExitCode::SUCCESS
}

#[cfg(feature = "mutations")]
fn check_checkers(arguments: &Arguments) -> ExitCode {
    mutations::run(arguments)
}

#[cfg(not(feature = "mutations"))]
fn check_checkers(_: &Arguments) -> ExitCode {
    eprintln!("this build cannot break the engine: build it with the feature `mutations`");
    ExitCode::from(2)
}

fn print_json(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => println!("{text}"),
        Err(error) => eprintln!("failed to encode the outcome: {error}"),
    }
}
