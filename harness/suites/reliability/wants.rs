//! No room, no memory, no processes, no time that can be relied on.

use std::time::Duration;

use super::{ECHO, REACTION, RECOVERY, SERVICES, converges};
use crate::check;
use crate::failure::Failure;
use crate::load::Load;
use crate::vm::Vm;

const CLIENTS: u64 = 10;
/// More than a probe's interval: each is due meanwhile.
const A_WHILE: Duration = Duration::from_secs(3);

/// Writes more than its log's last page has room for.
const CHATTER: &str = r#"
[component]
name = "chatter"
binary = "/bin/sh"
args = ["-c", "i=0; while :; do i=$((i + 1)); echo line $i of a thousand words that nobody reads; sleep 0.05; done"]
"#;
/// Has its only words when there is no room for a log of its own.
const LATE_WORDS: &str = r#"
[component]
name = "late-words"
type = "oneshot"
binary = "/bin/sh"
args = ["-c", "until [ -e /run/.more ]; do sleep 0.1; done; echo too late"]
"#;
/// Comes when there is room again.
const LATE: &str = "[component]\nname = \"late\"\nbinary = \"/usr/local/bin/test-idle\"\n";
/// Leaves `/run` a little room, so that memory is enough for both whatever the machine has, and takes that of both, to the
/// last page.
const FILL: &str = "set -- $(stat -f -c '%b %f %S' /run); \
    mount -o remount,size=$((($1 - $2) * $3 / 1024 + 4096))k /run; \
    for place in / /run; do \
      dd if=/dev/zero of=$place/.full bs=4k > /dev/null 2>&1 && exit 1; \
      ! echo more > $place/.more 2> /dev/null || exit 1; done";

pub async fn full_file_systems(vm: &Vm) -> Result<(), Failure> {
    let load = Load::begin(vm, "full", ECHO, &format!("--connections {CLIENTS}")).await?;
    vm.declare("chatter.toml", CHATTER).await?;
    vm.declare("late-words.toml", LATE_WORDS).await?;
    vm.wait_state("chatter", "ACTIVE", None, REACTION).await?;
    vm.step("fill both", vm.succeed(&["/bin/sh", "-euc", FILL], RECOVERY)).await?;
    vm.step("without room", without_room(vm)).await?;
    let last = last_line(vm).await?;
    vm.sh("rm -f /.full /.more /run/.full /run/.more").await?;
    // Its verdict needs room as well.
    load.end_clean(vm, CLIENTS).await?;
    vm.declare("late.toml", LATE).await?;
    vm.wait_state("late", "ACTIVE", None, REACTION).await?;
    converges(vm, "full file systems").await?;
    let again = format!("test $(graphctl log chatter -n 1 | sed 's/.*line \\([0-9]*\\) .*/\\1/') -gt {last}");
    vm.until("the log goes on", &again, REACTION).await?;
    vm.graphctl(&["checkpoint", "test-stateful-service"]).await?;
    for file in ["chatter.toml", "late-words.toml", "late.toml"] {
        vm.undeclare(file).await?;
    }
    vm.wait_state("chatter", "REMOVED", None, REACTION).await
}

/// What can be done without room is done, and what cannot is told.
async fn without_room(vm: &Vm) -> Result<(), Failure> {
    for name in ["test-isolated-service", "test-networking", "test-web-server"] {
        vm.graphctl_within(&["restart", name], REACTION).await?;
    }
    for name in ["chatter", "late-words"] {
        let told = format!("graphctl events {name} | grep -q 'room for its log was reached'");
        vm.until("it is told that a log has no room", &told, REACTION).await?;
    }
    let log = vm.graphctl(&["log", "chatter"]).await?;
    check!(log.contains("that nobody reads"), "of what was written before nothing is left: {log}");
    // Of a file that cannot be written whole there is a part, and no component.
    let refused = "! echo '[component]' > /etc/graph.d/late.toml; graphctl status --json | grep -q late.toml";
    vm.until("half a component file is refused", refused, REACTION).await?;
    let made = vm.run(&["graphctl", "checkpoint", "test-stateful-service"], RECOVERY).await?;
    let said = made.error_text();
    check!(!made.success() && said.contains("bytes"), "a checkpoint without room: {said}");
    let before = vm.status().await?;
    // The next image of process 1 has to get all that this one knows, without a place on a disk.
    let said = vm.graphctl_within(&["reexec"], REACTION).await?;
    check!(said.contains("took over in"), "graphctl reexec says `{said}`");
    tokio::time::sleep(A_WHILE).await;
    let error = vm.internal_error().await?;
    check!(error.is_none(), "{error:?}");
    let after = vm.status().await?;
    for name in ["test-isolated-service", "test-echo-server", "test-stateful-service", "chatter"] {
        let (was, is) = (before.component(name)?, after.component(name)?);
        check!(is.state == "ACTIVE" && is.pid == was.pid, "{name} was {was:?} and is {is:?}");
    }
    Ok(())
}

/// The number of the newest line that found its way into the log.
async fn last_line(vm: &Vm) -> Result<u64, Failure> {
    let text = vm.graphctl(&["log", "chatter", "-n", "2"]).await?;
    let number =
        text.lines().rev().find_map(|line| line.split("line ").nth(1)?.split(' ').next()?.parse().ok());
    number.ok_or_else(|| Failure::supervisor(format!("the log ends in {text}")))
}

pub async fn no_memory_left(vm: &Vm) -> Result<(), Failure> {
    let load = Load::begin(vm, "memory", ECHO, &format!("--connections {CLIENTS}")).await?;
    let before = vm.status().await?;
    let glutton = "[component]\nname = \"glutton\"\nbinary = \"/usr/local/bin/test-hog\"\nargs = [\"--kind\", \"memory\"]\n\
                   [lifecycle]\nrestart_max = 1\nrestart_delay = 0.1\n";
    vm.declare("glutton.toml", glutton).await?;
    vm.wait_state("glutton", "FAILED", Some(before.revision), RECOVERY).await?;
    let log = vm.sh("dmesg | grep -c 'Out of memory' || true").await?;
    check!(log.trim() != "0", "the machine had memory left");
    let told = vm.graphctl(&["events", "glutton"]).await?;
    check!(told.contains("memory"), "of the end for want of memory is told: {told}");
    load.end_clean(vm, CLIENTS).await?;
    for name in SERVICES {
        let (old, new) = (before.component(name)?.pid, vm.status().await?.component(name)?.pid);
        check!(old == new, "beside it {name} was ended: it was {old:?} and is {new:?}");
    }
    vm.undeclare("glutton.toml").await?;
    converges(vm, "no memory").await
}

/// A bomb, and somebody who comes late. All in a shell that starts no program: none can be started, nor a thread of the agent's.
const BOMB: &str = r#"
limit=/proc/sys/kernel/threads-max
mkfifo /run/nothing; exec 3<> /run/nothing
pause() { read -t "$1" _ <&3; true; }
# Byte by byte, as a shell reads, there is no more of it than the first.
before=$(cat $limit)
read -r _ _ _ running _ < /proc/loadavg
echo '[component]
name = "bomb"
binary = "/usr/local/bin/test-hog"
args = ["--kind", "processes"]' > /etc/graph.d/bomb.toml
echo $((${running#*/} + 40)) > $limit
held() { while read -r line; do case $line in *held:*) return 0;; esac; done < /run/graph/bomb.log; return 1; }
looks=0
until [ -e /run/graph/bomb.log ] && held; do
  looks=$((looks + 1)); [ $looks -lt 200 ] || { echo $before > $limit; echo never held; exit 1; }
  pause 0.1
done
echo '[component]
name = "late"
binary = "/usr/local/bin/test-idle"' > /etc/graph.d/late.toml
pause 3
[ ! -e /run/asked ] || { echo $before > $limit; echo nobody asked meanwhile; exit 1; }
# Whoever it is that takes all of them, he is told to be somebody else; then there is room again.
echo '[component]
name = "bomb"
binary = "/usr/local/bin/test-idle"' > /etc/graph.d/bomb.toml
# Its grace, and then the end of its group.
pause 10
echo $before > $limit
"#;

pub async fn no_processes_left(vm: &Vm) -> Result<(), Failure> {
    /// Questions to the supervisor meanwhile, by a client that is there before.
    const ASKED: usize = 500;
    let load = Load::begin(vm, "processes", ECHO, &format!("--connections {CLIENTS}")).await?;
    let before = vm.status().await?;
    vm.sh(&format!(
        "setsid sh -c 'test-asker --times {ASKED} --pause-ms 20 > /run/asking 2>&1; mv /run/asking /run/asked' \
         < /dev/null > /dev/null 2>&1 &"
    ))
    .await?;
    vm.step("a bomb, and somebody who comes late", vm.succeed(&["/bin/sh", "-uc", BOMB], RECOVERY)).await?;
    vm.wait_state("late", "ACTIVE", None, RECOVERY).await?;
    let told = vm.graphctl(&["events", "late"]).await?;
    check!(told.contains("resource temporarily unavailable"), "of a start that could not be is told: {told}");
    vm.wait_path("/run/asked", RECOVERY).await?;
    let asked = vm.read("/run/asked").await?;
    let answers: Vec<f64> = serde_json::from_str(&asked)
        .map_err(|error| Failure::supervisor(format!("the supervisor did not answer: {error}: {asked}")))?;
    check!(answers.len() == ASKED, "of {ASKED} questions {} were answered", answers.len());
    for file in ["bomb.toml", "late.toml"] {
        vm.undeclare(file).await?;
    }
    vm.wait_state("bomb", "REMOVED", None, RECOVERY).await?;
    load.end_clean(vm, CLIENTS).await?;
    let after = vm.status().await?;
    for name in SERVICES {
        let (old, new) = (before.component(name)?.pid, after.component(name)?.pid);
        check!(old == new, "meanwhile {name} was ended: it was {old:?} and is {new:?}");
    }
    vm.sh("rm /run/nothing /run/asked").await?;
    converges(vm, "no processes").await
}

pub async fn clock_steps_with_everything_active(vm: &Vm) -> Result<(), Failure> {
    const DAY_S: i64 = 86_400;
    let load = Load::begin(vm, "clock", ECHO, &format!("--connections {CLIENTS}")).await?;
    let before = vm.status().await?;
    for seconds in [DAY_S, -2 * DAY_S, 400 * DAY_S, -399 * DAY_S] {
        vm.sh(&format!("date -s @$(($(date +%s) + ({seconds}))) > /dev/null")).await?;
        tokio::time::sleep(A_WHILE).await;
    }
    let changes = vm.graphctl(&["events", "--since", &before.revision.to_string()]).await?;
    check!(changes.trim().is_empty(), "a wall clock that was set has changed states: {changes}");
    load.end_clean(vm, CLIENTS).await?;
    converges(vm, "steps of the clock").await
}
