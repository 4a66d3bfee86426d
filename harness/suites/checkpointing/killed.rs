//! Whoever makes or uses a checkpoint is killed at each step of it.

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::client::Client;
use super::tripwire::{TELL, Tripwire, Work};
use super::{KEPT, REACTION, Restored, STATEFUL, Upgraded, attempt, checkpoint, pid_of};

/// What CRIU says at the steps of a dump, in its order.
const DUMP: [&str; 13] = [
    "Running pre-dump scripts",
    "Seized task",
    "Lock network",
    "Putting parasite blob",
    "Parasite",
    "Dumping opened files",
    "repair on",
    "Dumping pages",
    "Dumping core",
    "Dumping mm",
    "Dumping pstree",
    "Running post-dump scripts",
    "Unfreezing tasks",
];
/// The same of a restore.
const RESTORE: [&str; 8] = [
    "Reading image tree",
    "Running pre-restore scripts",
    "Forking task",
    "Running post-restore scripts",
    "Unlock network",
    "Running pre-resume scripts",
    "Restore finished",
    "Running post-resume scripts",
];

/// What the worker tells, by which its steps are known, while the processes run.
const MAKER: [&str; 3] =
    [r#"begun":{"step":"preflight"#, r#"begun":{"step":"dump"#, r#"ended":{"step":"dump"#];
/// When they are ended, or run on.
const WRITTEN: &str = "written";
/// The same of one that makes a process again.
const REMAKER: [&str; 3] = [r#"begun":{"step":"verify"#, WAITING, r#"begun":{"step":"restore"#];
const WAITING: &str = "waiting";

/// Who serves in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Serves {
    /// The same process.
    Same,
    /// Another process, with what this one knew.
    Next,
    /// One that knows nothing.
    Anew,
}

/// Who is killed, when CRIU or the worker comes to a step.
struct Killed<'a> {
    name: &'static str,
    wire: &'a Tripwire,
    /// What the wire does.
    action: &'static str,
}

pub async fn criu_killed_at_each_step_of_a_checkpoint(vm: &Vm) -> Result<(), Failure> {
    let wire = Tripwire::criu(vm).await?;
    let killed = Killed { name: "CRIU", wire: &wire, action: "kill" };
    let few: &[&str] = &["repair on"];
    killed.at_each(vm, Work::Checkpoint, vm.amount(&DUMP, few), Serves::Same).await?;
    wire.remove(vm).await
}

pub async fn criu_killed_at_each_step_of_a_move(vm: &Vm) -> Result<(), Failure> {
    let wire = Tripwire::criu(vm).await?;
    let killed = Killed { name: "CRIU", wire: &wire, action: "kill" };
    let (few, fewer): (&[&str], &[&str]) = (&["repair on"], &["Forking task"]);
    killed.at_each(vm, Work::Move, vm.amount(&DUMP, few), Serves::Next).await?;
    killed.at_each(vm, Work::Move, vm.amount(&RESTORE, fewer), Serves::Anew).await?;
    wire.remove(vm).await
}

pub async fn criu_killed_at_each_step_of_a_restore(vm: &Vm) -> Result<(), Failure> {
    let wire = Tripwire::criu(vm).await?;
    let killed = Killed { name: "CRIU", wire: &wire, action: "kill" };
    let few: &[&str] = &["Restore finished"];
    killed.at_each(vm, Work::Restore, vm.amount(&RESTORE, few), Serves::Anew).await?;
    wire.remove(vm).await
}

pub async fn the_worker_killed_at_each_step(vm: &Vm) -> Result<(), Failure> {
    let wire = Tripwire::worker(vm).await?;
    let killed = Killed { name: "the worker", wire: &wire, action: "kill" };
    if vm.amount(true, false) {
        killed.at_each(vm, Work::Checkpoint, &MAKER, Serves::Same).await?;
        killed.at_each(vm, Work::Checkpoint, &[WRITTEN], Serves::Same).await?;
        killed.at_each(vm, Work::Move, &MAKER, Serves::Next).await?;
        killed.at_each(vm, Work::Restore, &REMAKER, Serves::Anew).await?;
    }
    killed.at_each(vm, Work::Move, vm.amount(&[WRITTEN, WAITING], &[WRITTEN]), Serves::Anew).await?;
    wire.remove(vm).await?;
    // In the middle of what CRIU does, which ends with it.
    let wire = Tripwire::criu(vm).await?;
    let killed = Killed { name: "the worker", wire: &wire, action: "kill-parent" };
    let few: &[&str] = &["repair on"];
    killed.at_each(vm, Work::Checkpoint, vm.amount(&DUMP, few), Serves::Same).await?;
    if vm.amount(true, false) {
        killed.at_each(vm, Work::Move, &RESTORE, Serves::Anew).await?;
        killed.at_each(vm, Work::Restore, &RESTORE, Serves::Anew).await?;
    }
    wire.remove(vm).await
}

impl Killed<'_> {
    /// All steps are tried, whatever comes of one.
    async fn at_each(&self, vm: &Vm, work: Work, steps: &[&str], serves: Serves) -> Result<(), Failure> {
        let mut wrong = Vec::new();
        for step in steps {
            let name = format!("{work:?}: {} is killed at {step}", self.name);
            if let Err(failure) = vm.step(&name, self.at(vm, work, step, serves)).await {
                wrong.push(format!("{name}: {failure}"));
            }
        }
        check!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    }

    async fn at(&self, vm: &Vm, work: Work, step: &str, serves: Serves) -> Result<(), Failure> {
        self.wire.set(vm, "").await?;
        // The process before may have code of a CRIU in it.
        vm.graphctl_within(&["restart", STATEFUL], REACTION).await?;
        vm.wait_state(STATEFUL, "ACTIVE", None, REACTION).await?;
        let mut client = Client::connect(vm).await?;
        let counted = client.increment(vm).await?;
        let made = checkpoint(vm, STATEFUL).await?;
        let before = pid_of(vm, STATEFUL).await?;
        self.wire.set(vm, &format!("{TELL}{} {step}", self.action)).await?;
        let arguments: &[&str] = match work {
            Work::Checkpoint => &["checkpoint", STATEFUL],
            Work::Move => &["upgrade", STATEFUL, "--json"],
            Work::Restore => &["restore", STATEFUL, &made.id, "--json"],
        };
        let (done, text, error) = attempt(vm, arguments).await?;
        self.wire.was_tripped(vm, step).await?;
        self.wire.set(vm, "").await?;
        let said = format!("{text}{error}");
        check!(said.contains("killed by"), "the reason is not told: {said}");
        vm.wait_state(STATEFUL, "ACTIVE", None, REACTION).await?;
        vm.wait_settled(REACTION).await?;
        self.serves(vm, (work, step), serves, before, (client, counted), &said).await?;
        match work {
            // It was ended for what nobody has heard of: what is said is that it is gone.
            Work::Move if step == WRITTEN => check!(!done, "what was cut off is said to be done: {said}"),
            Work::Checkpoint => check!(!done, "what was cut off is said to be done: {said}"),
            Work::Move => {
                let moved: Upgraded = serde_json::from_str(&text)
                    .map_err(|error| Failure::supervisor(format!("it says {said:?}: {error}")))?;
                let expected = if serves == Serves::Next { "fd-passing" } else { "restart" };
                let why = moved.passed_over.first();
                check!(
                    moved.level == expected && why.is_some_and(|why| why.level == "checkpoint"),
                    "it was upgraded by {moved:?}"
                );
            }
            Work::Restore => {
                let again: Restored = serde_json::from_str(&text)
                    .map_err(|error| Failure::supervisor(format!("it says {said:?}: {error}")))?;
                check!(again.id.is_none() && again.passed_over.is_some(), "it was restored: {again:?}");
            }
        }
        nothing_is_left(vm).await
    }

    async fn serves(
        &self,
        vm: &Vm,
        (work, step): (Work, &str),
        expected: Serves,
        before: i32,
        (mut client, counted): (Client, u64),
        said: &str,
    ) -> Result<(), Failure> {
        let is_same = pid_of(vm, STATEFUL).await? == before;
        let counts = Client::connect(vm).await?.increment(vm).await?;
        let serves = match (is_same, counts == counted + 1) {
            (true, true) => Serves::Same,
            (false, true) => Serves::Next,
            (_, false) => Serves::Anew,
        };
        vm.crash_point(step, &format!("{} is killed in a {work:?}", self.name), &format!("{serves:?}"));
        check!(serves == expected, "{serves:?} serves, and not {expected:?}, with {counts}: {said}");
        // Nobody waits for what does not come.
        let on_its_connection = client.increment(vm).await;
        match (expected, on_its_connection) {
            (Serves::Anew, Err(failure)) if failure.message.contains("connection ended") => Ok(()),
            (Serves::Same | Serves::Next, Ok(counts)) if counts == counted + 2 => Ok(()),
            (_, found) => {
                Err(Failure::supervisor(format!("{serves:?} serves, who was connected has {found:?}")))
            }
        }
    }
}

/// One process serves, as the supervisor's child; and of what was begun there is nothing.
async fn nothing_is_left(vm: &Vm) -> Result<(), Failure> {
    // A command's name in the list of processes has fifteen bytes.
    let processes = "for p in /proc/[0-9]*; do read -r name 2> /dev/null < $p/comm || continue; \
         case $name in test-stateful-s | criu*) \
         awk '/^State|^PPid|^TracerPid/ { printf $2 }' $p/status;; esac; done";
    let condition = format!(
        "left=$(find {KEPT}/ -mindepth 2 -name '.*'; ls /run/graph 2> /dev/null | grep restore-; \
         nft list tables 2> /dev/null | grep CRIU; {processes}); echo \"$left\" >&2; \
         [ \"$left\" = S10 ] || [ \"$left\" = R10 ]"
    );
    vm.until("one process is there, and nothing else", &condition, REACTION).await.map(drop)
}
