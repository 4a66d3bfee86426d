//! The kernel kills for want of memory: it is named, counted once, and followed by what is declared.

use std::time::Duration;

use serde::Deserialize;

use super::{REACTION, journal};
use crate::check;
use crate::failure::Failure;
use crate::measure::percentile;
use crate::vm::Vm;

/// A shell that has a child which wants all memory when it is told to, and goes on without it.
const PARENT: &str = r#"
[component]
name = "parent"
binary = "/bin/sh"
args = ["-c", """
while :; do
  until [ -e /run/hungry ]; do sleep 0.05; done
  rm /run/hungry
  tail /dev/zero
done
"""]

[resources]
memory_max = "16M"
memory_swap_max = 0
"#;

/// A process of its own that wants all memory, once.
const HOG: &str = r#"
[component]
name = "hog"
binary = "/bin/sh"
args = ["-c", "[ -e /run/fed ] && exec /usr/local/bin/test-idle; touch /run/fed; exec tail /dev/zero"]

[resources]
memory_max = "16M"
memory_swap_max = 0
"#;

#[derive(Deserialize)]
struct Status {
    components: Vec<Kills>,
}

#[derive(Deserialize)]
struct Kills {
    name: String,
    #[serde(default)]
    oom_kills: u64,
}

pub async fn kills_for_want_of_memory_are_named(vm: &Vm) -> Result<(), Failure> {
    note_kills(vm).await?;
    vm.step("of a process of its own", own_process(vm)).await?;
    for (policy, after) in [("continue", "ACTIVE"), ("restart", "ACTIVE"), ("stop", "FAILED")] {
        vm.step(&format!("of a child, {policy}"), child(vm, policy, after)).await?;
    }
    vm.step("a limit of processes that is reached is told", forks(vm)).await?;
    vm.step("what stays FAILED is started when it is asked for", async {
        vm.graphctl(&["start", "parent"]).await?;
        vm.wait_state("parent", "ACTIVE", None, REACTION).await
    })
    .await?;
    note_no_kills(vm).await
}

/// It cannot have as many processes as it wants, and goes on.
const FORKS: &str = r#"
[component]
name = "forks"
binary = "/bin/sh"
args = ["-c", "while :; do (for n in 1 2 3 4 5 6; do sleep 1 & done; wait) 2>/dev/null; sleep 1; done"]

[resources]
pids_max = 4
"#;

async fn forks(vm: &Vm) -> Result<(), Failure> {
    let before = vm.status().await?.revision;
    vm.declare("forks.toml", FORKS).await?;
    vm.wait_state("forks", "ACTIVE", Some(before), REACTION).await?;
    told(vm, "forks", before, "pids.max").await?;
    let status = vm.status().await?;
    let forks = status.component("forks")?;
    check!(
        forks.state == "ACTIVE" && forks.restarts == 0,
        "what reached its limit of processes is {forks:?}"
    );
    Ok(())
}

/// Wants all memory so many times, and goes on without it. The kernel's log has no more than ten kills in five seconds
/// (`oom_rs` in `oom_kill_process`), so there is a pause between two.
const HUNGRY: &str = r#"
[component]
name = "hungry"
binary = "/bin/sh"
args = ["-c", """
n=0
while [ $n -lt COUNT ]; do
  sleep 0.4
  tail /dev/zero
  n=$((n+1))
done
touch /run/fed-up
exec /usr/local/bin/test-idle
"""]

[resources]
memory_max = "16M"
memory_swap_max = 0
on_oom = "continue"
"#;

/// From the kernel's kill to the journal: half of some kills take no longer, on a slow host either. What else happens there
/// makes single ones longer.
const TOLD: Duration = Duration::from_millis(20);

pub async fn kills_are_told_at_once(vm: &Vm) -> Result<(), Failure> {
    let count = vm.amount(20, 4);
    note_kills(vm).await?;
    let before = vm.status().await?.revision;
    vm.declare("hungry.toml", &HUNGRY.replace("COUNT", &count.to_string())).await?;
    // Nothing else is done in the guest meanwhile.
    vm.wait_path("/run/fed-up", count * REACTION).await?;
    let (killed, told) = (killed_at_ms(vm).await?, told_at_ms(vm, "hungry", before).await?);
    let count = count as usize;
    check!(
        killed.len() == count && told.len() == count,
        "{count} kills are {} by the kernel's word, and {} in the journal",
        killed.len(),
        told.len()
    );
    let times: Vec<f64> = told.iter().zip(&killed).map(|(told, killed)| told - killed).collect();
    let (median, limit) = (percentile(&times, 50), TOLD.as_secs_f64() * 1e3);
    vm.metric("longest from a kill to the journal", "ms", percentile(&times, 100));
    vm.samples("from a kill to the journal", "ms", times);
    let is_quick = median <= limit;
    check!(is_quick, "half of the kills are told after {median:.1} ms or more, not {limit:.0}");
    note_no_kills(vm).await
}

async fn own_process(vm: &Vm) -> Result<(), Failure> {
    let before = vm.status().await?.revision;
    vm.declare("hog.toml", HOG).await?;
    vm.wait_state("hog", "FAILED", Some(before), 4 * REACTION).await?;
    vm.wait_state("hog", "ACTIVE", None, REACTION).await?;
    named(vm, "hog", before, "(tail)").await?;
    counted(vm, "hog", 1).await
}

async fn child(vm: &Vm, policy: &str, after: &str) -> Result<(), Failure> {
    vm.declare("parent.toml", &format!("{PARENT}on_oom = \"{policy}\"\n")).await?;
    vm.wait_state("parent", "ACTIVE", None, REACTION).await?;
    let before = vm.status().await?;
    let pid = before.component("parent")?.running_pid()?;
    vm.write("/run/hungry", "").await?;
    told(vm, "parent", before.revision, "out-of-memory").await?;
    if policy != "continue" {
        vm.wait_state("parent", after, Some(before.revision), REACTION).await?;
    }
    named(vm, "parent", before.revision, "(tail), not its first process").await?;
    counted(vm, "parent", 1).await?;
    let now = vm.status().await?;
    let parent = now.component("parent")?;
    let same = parent.pid == Some(pid);
    check!(
        parent.state == after && same == (policy == "continue"),
        "with {policy}, process {pid} is {parent:?}"
    );
    if policy != "stop" {
        // What it has counted goes with it.
        vm.undeclare("parent.toml").await?;
        vm.wait_state("parent", "REMOVED", Some(now.revision), 2 * REACTION).await?;
    }
    Ok(())
}

/// Until the journal has it.
async fn told(vm: &Vm, name: &str, since: u64, what: &str) -> Result<(), Failure> {
    let records = format!("graphctl events --since {since} --json | grep '\"component\":\"{name}\"'");
    vm.until(&format!("{what} in {name} is told"), &format!("{records} | grep -q '{what}'"), 2 * REACTION)
        .await
        .map(drop)
}

/// The journal names the limit and the victim, within a moment of the kernel's own word on it.
async fn named(vm: &Vm, name: &str, since: u64, victim: &str) -> Result<(), Failure> {
    let text = vm.graphctl(&["events", "--since", &since.to_string()]).await?;
    let line = text.lines().find(|line| line.contains(name) && line.contains("out of memory"));
    let line = line.ok_or_else(|| Failure::supervisor(format!("no kill of {name} is told: {text}")))?;
    for part in ["memory.max 16M", "usage ", victim] {
        check!(line.contains(part), "{part:?} is missing in {line:?}");
    }
    let (killed, told) = (killed_at_ms(vm).await?, told_at_ms(vm, name, since).await?);
    let (killed, told) = killed.last().zip(told.last()).ok_or_else(|| {
        Failure::supervisor(format!("the kernel or the journal has no kill of {name}: {text}"))
    })?;
    vm.metric("time from the kernel's kill to the journal", "ms", told - killed);
    Ok(())
}

/// By when the journal was told of each kill in a component: the end of the millisecond that it has.
async fn told_at_ms(vm: &Vm, name: &str, since: u64) -> Result<Vec<f64>, Failure> {
    let records = journal(vm, since).await?;
    let kills = records.into_iter().filter(|record| record.component == name && record.is_kill());
    Ok(kills.map(|record| (record.time_ms + 1) as f64).collect())
}

/// Where the kernel traces.
const TRACING: &str = "/sys/kernel/tracing";
/// What it traces for us alone.
const TRACE: &str = "/sys/kernel/tracing/instances/kills";

/// Have the kernel note each kill by the journal's clock. That of its log is another, and stands still from tick to tick
/// where the processor's counter is not trusted, as under emulation.
async fn note_kills(vm: &Vm) -> Result<(), Failure> {
    let script = format!(
        "mount -t tracefs tracefs {TRACING}; mkdir {TRACE}
         echo mono >{TRACE}/trace_clock; echo 1 >{TRACE}/events/oom/mark_victim/enable"
    );
    vm.sh(&script).await.map(drop)
}

/// As it was before [`note_kills`].
async fn note_no_kills(vm: &Vm) -> Result<(), Failure> {
    vm.sh(&format!("rmdir {TRACE}; umount {TRACING}")).await.map(drop)
}

/// When the kernel has killed, of all that it has noted: `COMMAND-NUMBER [CPU] FLAGS SECONDS.MICROSECONDS: mark_victim: …`.
async fn killed_at_ms(vm: &Vm) -> Result<Vec<f64>, Failure> {
    let text = vm.sh(&format!("cat {TRACE}/trace")).await?;
    let before = text.lines().filter_map(|line| line.split_once(": mark_victim: "));
    let time = |(before, _): (&str, &str)| before.rsplit_once(' ')?.1.parse::<f64>().ok();
    Ok(before.filter_map(time).map(|seconds| seconds * 1e3).collect())
}

async fn counted(vm: &Vm, name: &str, kills: u64) -> Result<(), Failure> {
    let text = vm.graphctl(&["status", name, "--json"]).await?;
    let status: Status = serde_json::from_str(&text)
        .map_err(|error| Failure::supervisor(format!("graphctl status --json printed {error}: {text}")))?;
    let counted = status.components.iter().find(|component| component.name == name);
    let counted = counted.map_or(0, |component| component.oom_kills);
    check!(counted == kills, "{kills} kill of {name} is counted as {counted}");
    Ok(())
}
