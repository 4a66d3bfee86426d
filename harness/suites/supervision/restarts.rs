//! Services that fall over again and again.

use std::time::Duration;

use super::{REACTION, Record, idle, journal};
use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

const SIGKILL: i32 = 9;
/// The first two pauses of the restart rule, in seconds.
const PAUSES_S: [u64; 2] = [30, 60];
/// For the first pause to be over, and for what follows it.
pub const PAUSE_LIMIT: Duration = Duration::from_secs(40);

/// Falls over at once, always.
const CRASHER: &str = r#"
[component]
name = "crasher"
binary = "/usr/local/bin/test-exit"
args = ["--after-ms", "50", "--code", "7"]

[lifecycle]
restart_max = 3
restart_window = 60
"#;

/// Falls over while it is sick, and runs on when it is well.
const PATIENT: &str = r#"
[component]
name = "patient"
binary = "/bin/sh"
args = ["-c", "[ ! -e /run/sick ] || exit 7; exec /usr/local/bin/test-idle"]

[lifecycle]
restart_max = 1
restart_window = 2
"#;

pub async fn flapping_service_backs_off(vm: &Vm) -> Result<(), Failure> {
    vm.write("/run/sick", "").await?;
    for (name, file) in [("crasher", CRASHER), ("patient", PATIENT)] {
        vm.declare(&format!("{name}.toml"), file).await?;
        vm.wait_state(name, "BACKOFF", None, REACTION).await?;
        let detail = vm.status().await?.component(name)?.detail.clone().unwrap_or_default();
        let expected = format!("next attempt in {} s; last: the process exited with status 7", PAUSES_S[0]);
        check!(detail.contains(&expected), "{name} backs off with the reason {detail:?}, not {expected:?}");
    }
    vm.sh("rm /run/sick").await?;
    vm.step("a user's start wipes the slate", slate_is_wiped(vm)).await?;
    vm.step("the first pause ends in time, the next is longer", pauses_grow(vm)).await?;
    vm.step("a healthy window is forgotten", window_is_forgotten(vm)).await
}

async fn slate_is_wiped(vm: &Vm) -> Result<(), Failure> {
    vm.declare("kicked.toml", &idle("kicked", "[lifecycle]\nrestart_max = 1\nrestart_window = 60")).await?;
    vm.wait_state("kicked", "ACTIVE", None, REACTION).await?;
    kill(vm, "kicked", "ACTIVE").await?;
    kill(vm, "kicked", "BACKOFF").await?;
    vm.graphctl(&["start", "kicked"]).await?;
    kill(vm, "kicked", "ACTIVE").await
}

async fn pauses_grow(vm: &Vm) -> Result<(), Failure> {
    let first = vm.status().await?;
    let revision = first.revision;
    vm.wait_state("crasher", "STARTING", Some(revision), PAUSE_LIMIT).await?;
    vm.wait_state("crasher", "BACKOFF", Some(revision), REACTION).await?;
    let detail = vm.status().await?.component("crasher")?.detail.clone().unwrap_or_default();
    let expected = format!("next attempt in {} s", PAUSES_S[1]);
    check!(detail.contains(&expected), "the second pause is {detail:?}, not {expected:?}");

    let starts = first_pause_is_right(vm, "crasher").await?;
    check!(starts == 4, "with a restart_max of 3 it was started {starts} times before it backed off");
    Ok(())
}

/// By the journal, the first pause of a component lasted as long as it should. Gives the number of starts before it.
pub async fn first_pause_is_right(vm: &Vm, name: &str) -> Result<usize, Failure> {
    let records: Vec<Record> =
        journal(vm, 0).await?.into_iter().filter(|record| record.component == name).collect();
    let rest = records.iter().position(|record| record.to == "BACKOFF").unwrap_or(0);
    let pause = records.get(rest + 1).map_or(0, |next| next.time_ms.saturating_sub(records[rest].time_ms));
    // The next one would be as long as this may be late.
    let fair = (PAUSES_S[0] * 1000..PAUSES_S[1] * 1000).contains(&pause);
    check!(fair, "the pause of {} s was {pause} ms long", PAUSES_S[0]);
    Ok(records[..rest].iter().filter(|record| record.to == "STARTING").count())
}

/// One more failure would be followed by the longer pause, had the first ones not been forgotten.
async fn window_is_forgotten(vm: &Vm) -> Result<(), Failure> {
    vm.wait_state("patient", "ACTIVE", None, REACTION).await?;
    let before = vm.status().await?.component("patient")?.restarts;
    // Its window, and a little.
    vm.sh("sleep 2.2").await?;
    kill(vm, "patient", "ACTIVE").await?;
    let restarts = vm.status().await?.component("patient")?.restarts;
    check!(
        restarts == before + 1,
        "its restarts were {before} and are {restarts}: they are counted for ever"
    );
    Ok(())
}

/// Leaves a child behind that nothing but the end of its control group ends.
const LEAVER: &str = r#"
[component]
name = "leaver"
binary = "/bin/sh"
args = ["-c", "setsid sleep 10000 & while :; do sleep 1; done"]
"#;

/// Ends by nothing but SIGKILL.
const STUBBORN: &str = r#"
[component]
name = "stubborn"
binary = "/usr/local/bin/test-stubborn"

[hotswap]
shutdown_grace = 0.3
"#;

pub async fn killed_group_runs_again(vm: &Vm) -> Result<(), Failure> {
    vm.declare("leaver.toml", LEAVER).await?;
    vm.wait_state("leaver", "ACTIVE", None, REACTION).await?;
    for round in 1..=2 {
        let child = vm.until("it has a child", "pgrep -fx 'sleep 10000'", REACTION).await?;
        let child = child.trim().parse().map_err(|_| Failure::harness(format!("pgrep said {child}")))?;
        kill(vm, "leaver", "ACTIVE").await?;
        vm.wait_process_gone(child, "what the killed service left behind", REACTION).await?;
        let restarts = vm.status().await?.component("leaver")?.restarts;
        check!(restarts == round, "killed {round} times, the service was restarted {restarts} times");
    }
    vm.declare("stubborn.toml", STUBBORN).await?;
    vm.wait_state("stubborn", "ACTIVE", None, REACTION).await?;
    for round in 1..=2 {
        let first = vm.status().await?.component("stubborn")?.running_pid()?;
        vm.graphctl(&["restart", "stubborn"]).await?;
        let after = vm.status().await?;
        let after = after.component("stubborn")?;
        check!(
            after.pid != Some(first) && after.state == "ACTIVE" && after.restarts == 0,
            "after restart {round} of what had to be killed it is {after:?}"
        );
        check!(!vm.exists(first).await?, "the process {first} that was killed is still there");
    }
    Ok(())
}

/// Kills a service, which is to become this.
async fn kill(vm: &Vm, name: &str, state: &str) -> Result<(), Failure> {
    let before = vm.status().await?;
    vm.signal(before.component(name)?.running_pid()?, SIGKILL).await?;
    vm.wait_state(name, state, Some(before.revision), REACTION).await
}
