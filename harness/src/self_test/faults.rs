//! Guests that are made to fail, and work in them that takes too long: whoever waits has to be told at once, and what it was,
//! with the lines that show it.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use yakiros_guest::protocol::Exec;
use yakiros_vm::error::VmError;
use yakiros_vm::machine::{Guest, Machine, Saved};

use super::COMMAND;
use crate::attempt::limited;
use crate::failure::Failure;
use crate::limits::FIRST_BOOT;

/// What is waited for meanwhile; nothing of it may pass unused.
const WAIT: Duration = Duration::from_secs(300);
/// "At once": for the kernel to print its report on an emulated processor.
const AT_ONCE: Duration = Duration::from_secs(20);
/// For the rest of a report.
const REPORT: Duration = Duration::from_secs(5);
/// For a guest that answers nothing. Scenarios allow more.
const SILENCE: Duration = Duration::from_secs(10);
/// For a boot that is to take longer than it may.
const SHORT_BOOT: Duration = Duration::from_millis(200);
/// For a step that is.
const SHORT_STEP: Duration = Duration::from_secs(2);
/// For a scenario that is.
const SHORT_BUDGET: Duration = Duration::from_secs(4);

/// Lines of the console that are shown with what was not seen.
const CONSOLE_LINES: usize = 20;

/// How a guest is made to fail.
#[derive(Clone, Copy)]
enum Means {
    /// A shell in the guest does this.
    Shell(&'static str),
    /// Its QEMU is killed.
    KillQemu,
    /// Its processors are stopped.
    Stop,
    /// Nothing is done: what waits has this much time for a step, and for all.
    Late(Duration, Duration),
}

/// A kind of failure.
struct Fault {
    name: &'static str,
    means: Means,
    /// What the failure has to say.
    says: &'static str,
    /// Whose it is, see [`yakiros_reports::event::Culprit::name`].
    culprit: &'static str,
    /// A line of the console that is kept with it.
    line: Option<&'static str>,
}

/// In the order in which they are tried. A line of the kernel's log is on the console as the kernel's own is; what belongs
/// together is one record, since the shell ends with who waits for it.
const FAULTS: [Fault; 9] = [
    Fault {
        name: "a panic",
        means: Means::Shell("echo c > /proc/sysrq-trigger"),
        says: "Kernel panic - not syncing",
        culprit: "guest_kernel",
        line: Some("sysrq"),
    },
    Fault {
        name: "an oops",
        means: Means::Shell("printf '<0>Oops: 0000 [#1] SMP\\nRIP: 0010:f+0x1/0x2\\n' > /dev/kmsg"),
        says: "Oops: 0000 [#1] SMP",
        culprit: "guest_kernel",
        line: Some("RIP: 0010:f+0x1/0x2"),
    },
    Fault {
        name: "a hung task",
        means: Means::Shell(
            "printf '<0>INFO: task test:77 blocked for more than 120 seconds.\\nCall Trace: for_ever\\n' > /dev/kmsg",
        ),
        says: "task test:77 blocked for more than 120 seconds",
        culprit: "guest_kernel",
        line: Some("Call Trace: for_ever"),
    },
    Fault {
        name: "a power-off",
        means: Means::Shell("echo o > /proc/sysrq-trigger"),
        says: "the guest ended by itself",
        culprit: "supervisor",
        line: None,
    },
    Fault {
        name: "a lost agent",
        means: Means::Shell("kill -9 $(pidof yakiros-agent)"),
        says: "the agent is lost",
        culprit: "supervisor",
        line: None,
    },
    Fault { name: "a dead QEMU", means: Means::KillQemu, says: "QEMU ended", culprit: "vmm", line: None },
    Fault {
        name: "silence",
        means: Means::Stop,
        says: "the guest is stuck",
        culprit: "guest_kernel",
        line: None,
    },
    Fault {
        name: "a step that takes too long",
        means: Means::Late(SHORT_STEP, WAIT),
        says: "no answer in 2.0s",
        culprit: "budget",
        line: None,
    },
    Fault {
        name: "a scenario that takes too long",
        means: Means::Late(WAIT, SHORT_BUDGET),
        says: "the scenario's 4s are over",
        culprit: "budget",
        line: None,
    },
];

/// Makes a clone fail in each way, once while its agent is asked something and once while it is not, prints what was seen,
/// and gives how many were not seen as they should.
pub async fn provoke(machine: &Machine, saved: &Saved, work: &Path) -> Result<usize, VmError> {
    let mut unseen = usize::from(!slow_boot(machine, work).await);
    for fault in &FAULTS {
        for asks in [true, false] {
            // Without a request there is no step that could take too long.
            if !asks && matches!(fault.means, Means::Late(SHORT_STEP, _)) {
                continue;
            }
            let guest = saved.clone_guest(&work.join("faults.log"), FIRST_BOOT).await?;
            let (after, failure) = waited(&guest, fault.means, asks).await;
            let within = if matches!(fault.means, Means::Stop) { SILENCE + AT_ONCE } else { AT_ONCE };
            let is_kept = match fault.line {
                Some(line) => is_excerpt(&guest, line).await,
                None => true,
            };
            let is_seen = failure.to_string().contains(fault.says)
                && failure.culprit.name() == fault.culprit
                && after <= within
                && is_kept;
            let how = if asks { "" } else { ", while nothing is asked" };
            print(&format!("{}{how}", fault.name), is_seen, after, &failure);
            if !is_seen {
                println!("{}", guest.console.tail(CONSOLE_LINES));
            }
            unseen += usize::from(!is_seen);
        }
    }
    Ok(unseen)
}

fn print(name: &str, is_seen: bool, after: Duration, failure: &Failure) {
    let verdict = if is_seen { "seen" } else { "NOT SEEN" };
    let said = failure.to_string();
    let first = said.lines().next().unwrap_or_default();
    println!("{name}: {verdict} after {:.1} s, {}: {first}", after.as_secs_f64(), failure.culprit);
}

/// Whether a line with this part is kept with the finding, once the kernel has said all.
async fn is_excerpt(guest: &Guest, part: &str) -> bool {
    let is_kept = || {
        let finding = guest.console.fatal_finding();
        finding.is_some_and(|finding| finding.excerpt.iter().any(|line| line.contains(part)))
    };
    let kept = async {
        while !is_kept() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(REPORT, kept).await.is_ok()
}

/// A boot that is given less time than it takes.
async fn slow_boot(machine: &Machine, work: &Path) -> bool {
    let started = Instant::now();
    let failure = match machine.boot(work, &work.join("slow.log"), SHORT_BOOT).await {
        Ok(_) => Failure::harness("it answered in time"),
        Err(error) => Failure::before_hand_over(error),
    };
    let after = started.elapsed();
    let is_seen = failure.to_string().contains("no answer in 200.0ms")
        && failure.culprit.name() == "vmm"
        && after <= SHORT_BOOT + COMMAND;
    print("a boot that takes too long", is_seen, after, &failure);
    is_seen
}

/// Waits in the guest for longer than anybody would, while it fails: how long that took, and what came of it.
async fn waited(guest: &Guest, means: Means, asks: bool) -> (Duration, Failure) {
    let (step, budget) = if let Means::Late(step, budget) = means { (step, budget) } else { (WAIT, WAIT) };
    let started = Instant::now();
    let work = async {
        let waiting = async {
            if !asks {
                return std::future::pending().await;
            }
            let wait = guest.agent.wait_path("/nowhere", false, WAIT);
            match guest.watched("wait for what never comes", step, wait).await {
                Ok(_) => Failure::harness("the wait ended by itself"),
                Err(error) => error.into(),
            }
        };
        let failing = async {
            // What is to be seen is the wait's failure, not that of the command that caused it.
            let _consequence = provoked(guest, means).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            failure = waiting => Err(failure),
            () = failing => Ok(()),
        }
    };
    let result = limited(guest, budget, SILENCE, |_| false, work).await;
    (started.elapsed(), result.err().unwrap_or_else(|| Failure::harness("nothing failed")))
}

async fn provoked(guest: &Guest, means: Means) -> Result<(), VmError> {
    match means {
        Means::Shell(script) => {
            let argv = ["/bin/sh", "-c", script].map(String::from).to_vec();
            guest.exec(Exec { argv, ..Exec::default() }, COMMAND).await.map(drop)
        }
        Means::KillQemu => {
            let pid = Pid::from_raw(guest.qemu_pid() as i32);
            kill(pid, Signal::SIGKILL).map_err(|error| VmError::host("kill QEMU")(error.into()))
        }
        Means::Stop => guest.qmp().stop().await,
        Means::Late(..) => Ok(()),
    }
}
