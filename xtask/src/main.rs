//! `cargo xtask`: everything that is done with this workspace, one command each.

mod bench;
mod image;
mod sim;
mod soak;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use yakiros_harness::options::Options;
use yakiros_harness::profile::{self, Profile};
use yakiros_harness::shell::{self, Put};
use yakiros_harness::{dry_run, list, self_test};
use yakiros_reports::EXIT_USAGE;
use yakiros_vm::image::{ImageRequest, Kernel};
use yakiros_vm::qemu::{Accelerator, Platform};

const EXAMPLES: &str = "\
Examples:
  cargo xtask vm-test                                 everything, on Alpine's kernel
  cargo xtask vm-test --kernel debian                 the same on Debian's kernel
  cargo xtask vm-test --scenario power --verbose      scenarios with \"power\" in their name, step by step
  cargo xtask vm-test --profile ci                    most of it, with as much as shows a fault, as CI does
  cargo xtask vm-test --profile smoke                 does each part work at all? in under a minute
  cargo xtask vm-test --suite 'h*' --repeat 10        suites by pattern, ten rounds
  cargo xtask vm-test --list                          what there is
  cargo xtask vm-test --profile ci --dry-run          what would run, in which order, and for how long
  cargo xtask shell                                   a shell in a guest, next to the running supervisor
  cargo xtask shell -- graphctl status                one command in a fresh guest
  cargo xtask shell --put echo:/usr/bin/echo-server --put echo.toml:/etc/graph.d/echo.toml
                                                      a service of your own in it (docs/tutorial.md)
  cargo xtask sim --seeds 10000                       ten thousand lives of the engine in a fake world
  cargo xtask soak --virtual-time                     24 hours of everything by the guest's clock, in minutes
  cargo xtask test                                    what CI runs
  cargo xtask bench resolve                           how fast is the core? what has \"resolve\" in its name
  cargo xtask image list                              what is in the cache";

const EXIT_CODES: &str = "\
Exit codes: 0 all passed, 1 some failed, were flaky or missed a bar of the plan, 2 usage, 69 the
infrastructure failed, 130 interrupted.
Reports: target/vm-test/<run-id>/ with report.html, report.json, junit.xml, summary.md and events.jsonl;
target/vm-test/latest is the newest.
Environment: YAKIROS_CACHE_DIR (downloads), YAKIROS_QEMU (a program, or \"unpack\"), NO_COLOR,
GITHUB_STEP_SUMMARY (a file that the summary is added to).";

/// Build, boot, test and measure YakirOS.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Boot the supervisor as PID 1 in VMs, run scenarios, report
    #[command(after_help = EXIT_CODES)]
    VmTest(VmTest),
    /// Boot a guest and give a shell in it, next to the running supervisor
    Shell(Shell),
    /// Boot and clone many times, to see how often the machinery itself fails
    SelfTest(SelfTest),
    /// Keep one machine busy for hours, with everything that it has in use, and judge by a trend test what it loses
    #[command(after_help = soak::EXAMPLES)]
    Soak(soak::Soak),
    /// Run the supervisor's engine in a fake world, seed by seed; `--help` says more
    #[command(disable_help_flag = true)]
    Sim {
        /// Passed on to the simulation
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<String>,
    },
    /// Format, lint, unit, property, simulation and namespace tests, then the VM suites: what CI runs
    Test,
    /// Measure the core, with --peers whole supervisors side by side, with --hot-swap upgrades, with --isolation isolated
    /// starts, or with --checkpoint checkpoints; exits with 1 when a bar is missed
    Bench(bench::Bench),
    /// The guest image in the cache
    Image {
        #[command(subcommand)]
        command: image::Command,
    },
    /// Make the reports again from a run's events.jsonl
    Report {
        /// The run's folder
        #[arg(default_value = "target/vm-test/latest")]
        folder: PathBuf,
    },
}

#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
struct VmTest {
    /// Only this suite: a name, a part of one, or a pattern with * and ?; may be repeated
    #[arg(long = "suite", value_name = "NAME")]
    suites: Vec<String>,
    /// Only this scenario: a name, a part of one, a pattern with * and ?, or suite/name; may be repeated. What is named is
    /// run whatever the profile leaves out
    #[arg(long = "scenario", value_name = "NAME")]
    scenarios: Vec<String>,
    #[command(flatten)]
    guest: Guest,
    /// Scenarios at a time [default: as many as processors and memory allow]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Boot a machine for each scenario instead of cloning a saved one
    #[arg(long)]
    cold: bool,
    /// List profiles, suites and scenarios and end
    #[arg(long)]
    list: bool,
    /// Print what would run, in which order and for how long, and end
    #[arg(long, conflicts_with = "list")]
    dry_run: bool,
    /// Run everything N times; a scenario that fails in one round and passes in another is flaky [default: as the
    /// profile says, mostly 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST_ROUNDS))]
    repeat: Option<u32>,
    /// Run everything again and again until something fails, with --repeat that often at most; on several kernels a round on
    /// each in turn
    #[arg(long)]
    until_fail: bool,
    /// Begin nothing more once something has failed; what has not begun is reported as skipped
    #[arg(long)]
    fail_fast: bool,
    /// Try a scenario that failed up to N times more. One that passes then is flaky, which is not green
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=MOST_RETRIES))]
    retries: u32,
    /// Keep disks, saved states and the folders of scenarios that passed
    #[arg(long)]
    keep: bool,
    /// Print each step
    #[arg(long, short)]
    verbose: bool,
    /// What is run and how much of it is done: smoke, ci, full or nightly (harness/profiles.toml)
    #[arg(long, value_name = "NAME", default_value = profile::USUAL)]
    profile: String,
    /// Multiply all limits, for hosts that are slower than their first boot suggests
    #[arg(long, value_name = "FACTOR", value_parser = factor)]
    timeout_scale: Option<f64>,
}

/// What is booted.
#[derive(Args)]
struct Guest {
    /// Whose kernel [default: alpine, or those of the profile]
    #[arg(long, value_enum)]
    kernel: Option<KernelName>,
    /// A kernel image of your own: a bzImage, or a vmlinux with PVH entry
    #[arg(long, value_name = "FILE")]
    kernel_file: Option<PathBuf>,
    /// An initramfs of your own, in place of Alpine's tree
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// A root file system of your own, in place of Alpine's: a folder, a tar archive or an ext4 image
    #[arg(long, value_name = "PATH")]
    rootfs: Option<PathBuf>,
    /// Alpine's kernel and mini root file system from this mirror, in place of the pinned image: the address above
    /// its branches (http, https or file), or a folder
    #[arg(long, value_name = "URL")]
    alpine_mirror: Option<String>,
    /// Another program as process 1, a path in the guest; the suites so far ask for graph-resolver's interface
    /// [default: /sbin/graph-resolver]
    #[arg(long, value_name = "PATH")]
    init: Option<String>,
    /// QEMU's machine type [default: the suite's own, microvm mostly]
    #[arg(long, value_enum)]
    machine: Option<MachineName>,
    /// How QEMU runs the guest [default: KVM if a kernel really boots with it, else emulation]
    #[arg(long, value_enum)]
    accel: Option<AcceleratorName>,
}

#[derive(Args)]
struct Shell {
    /// The suite whose machine is booted [default: basic]
    #[arg(long, value_name = "NAME")]
    suite: Option<String>,
    #[command(flatten)]
    guest: Guest,
    /// Put a file of this machine into the guest before; may be given again. What lands in /etc/graph.d is a component
    #[arg(long, value_name = "FILE:PATH")]
    put: Vec<Put>,
    /// Run this instead of a shell
    #[arg(last = true)]
    argv: Vec<String>,
}

#[derive(Args)]
struct SelfTest {
    /// Cold boots in a row
    #[arg(long, default_value_t = 20)]
    boots: usize,
    /// Clones in a row
    #[arg(long, default_value_t = 100)]
    clones: usize,
    /// Make guests fail, too: a panic, an oops, a hung task, a lost agent, a dead QEMU, silence, and a boot, a step and a
    /// scenario that take too long. Each has to be seen at once, as what it is
    #[arg(long)]
    faults: bool,
    #[command(flatten)]
    guest: Guest,
}

#[derive(Clone, Copy, ValueEnum)]
enum KernelName {
    /// Of the pinned Alpine image
    Alpine,
    /// Debian's for virtual machines
    Debian,
}

impl From<KernelName> for Kernel {
    fn from(name: KernelName) -> Self {
        match name {
            KernelName::Alpine => Self::Alpine,
            KernelName::Debian => Self::Debian,
        }
    }
}

/// More rounds than anybody waits for.
const MOST_ROUNDS: i64 = 1_000_000;
/// Who needs more retries has no flaky scenario but a broken one.
const MOST_RETRIES: i64 = 10;

#[derive(Clone, Copy, ValueEnum)]
enum MachineName {
    /// Few devices, boots quickest
    Microvm,
    /// A PC with PCI
    Q35,
}

#[derive(Clone, Copy, ValueEnum)]
enum AcceleratorName {
    Kvm,
    Tcg,
}

impl Guest {
    fn request(&self) -> ImageRequest {
        ImageRequest {
            kernel: self.kernel.map(Kernel::from).unwrap_or_default(),
            kernel_file: self.kernel_file.clone(),
            initrd: self.initrd.clone(),
            rootfs: self.rootfs.clone(),
            alpine_mirror: self.alpine_mirror.clone(),
            ..ImageRequest::default()
        }
    }

    fn options(&self) -> Options {
        Options {
            image: self.request(),
            init: self.init.clone(),
            accelerator: self.accel.map(|name| match name {
                AcceleratorName::Kvm => Accelerator::Kvm,
                AcceleratorName::Tcg => Accelerator::Tcg,
            }),
            platform: self.machine.map(|name| match name {
                MachineName::Microvm => Platform::Microvm,
                MachineName::Q35 => Platform::Q35,
            }),
            command_line: command_line(),
            ..Options::default()
        }
    }
}

impl VmTest {
    fn options(&self) -> Result<Options, String> {
        Ok(Options {
            suites: self.suites.clone(),
            scenarios: self.scenarios.clone(),
            jobs: self.jobs.map(usize::from),
            cold: self.cold,
            keep: self.keep,
            verbose: self.verbose,
            profile: Profile::named(&self.profile)?,
            repeat: self.repeat,
            until_fail: self.until_fail,
            fail_fast: self.fail_fast,
            retries: self.retries,
            timeout_scale: self.timeout_scale,
            ..self.guest.options()
        })
    }

    /// The kernels to run on: that of the command line, else those of the profile.
    fn kernels(&self, profile: &Profile) -> Vec<Kernel> {
        match self.guest.kernel {
            Some(kernel) => vec![kernel.into()],
            None if profile.kernels.is_empty() => vec![Kernel::default()],
            None => profile.kernels.clone(),
        }
    }

    fn run(&self) -> i32 {
        let options = match self.options() {
            Ok(options) => options,
            Err(message) => {
                eprintln!("error: {message}");
                return EXIT_USAGE;
            }
        };
        let kernels = self.kernels(&options.profile);
        if self.list {
            list(&options)
        } else if self.dry_run {
            dry_run(&options, &kernels)
        } else {
            yakiros_harness::run_on(&options, &kernels)
        }
    }
}

/// As the user typed it, not as cargo passed it on.
fn command_line() -> Vec<String> {
    ["cargo".into(), "xtask".into()].into_iter().chain(std::env::args().skip(1)).collect()
}

fn factor(text: &str) -> Result<f64, String> {
    /// More than this hides a hang instead of allowing for a slow host.
    const MOST: f64 = 100.0;
    let factor: f64 = text.parse().map_err(|_| format!("'{text}' is no number"))?;
    let sound = factor > 0.0 && factor <= MOST;
    if sound { Ok(factor) } else { Err(format!("a factor is above 0 and at most {MOST}")) }
}

fn main() -> ExitCode {
    let code = match Cli::parse().command {
        None => {
            // Nothing to do about a standard output that is closed.
            let _closed = Cli::command().print_long_help();
            0
        }
        Some(Command::VmTest(arguments)) => arguments.run(),
        Some(Command::Shell(arguments)) => {
            let suites = arguments.suite.iter().cloned().collect();
            let options = Options { suites, ..arguments.guest.options() };
            shell::run(&options, &arguments.put, &arguments.argv)
        }
        Some(Command::SelfTest(arguments)) => {
            let counts = self_test::Counts {
                boots: arguments.boots,
                clones: arguments.clones,
                faults: arguments.faults,
            };
            self_test::run(&arguments.guest.options(), counts)
        }
        Some(Command::Soak(arguments)) => arguments.run(),
        Some(Command::Sim { arguments }) => sim::run(&arguments),
        Some(Command::Test) => test::run(),
        Some(Command::Bench(arguments)) => bench::run(&arguments),
        Some(Command::Image { command }) => image::run(&command),
        Some(Command::Report { folder }) => yakiros_harness::report(&folder),
    };
    // All codes are within a byte, see EXIT_CODES.
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_factor_is_a_sound_number() {
        assert!(factor("2.5").is_ok());
        for bad in ["0", "-1", "NaN", "inf", "x", "1000"] {
            assert!(factor(bad).is_err(), "{bad}");
        }
    }
}
