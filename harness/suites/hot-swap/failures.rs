//! Upgrades that cannot succeed: whatever either side does wrong, the old one serves on, or the new one does.

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::versions::{
    declare_hasty, lead_to, lead_to_faulty, lead_to_script, lead_to_server, refused, serves,
};
use super::{ECHO, ECHO_TARGET, REACTION, pid_of, upgrade};
use crate::load::Load;

/// Programs that are no next version, and what is said of them.
const PROGRAMS: [(&str, &str); 3] = [
    ("/run/nothing", "no such file"),
    // Executable, and not in a format that can be executed (ENOEXEC).
    ("/run/text", "execute the binary"),
    ("/run/forbidden", "execute the binary"),
];

/// Scripts that are none either.
const SCRIPTS: [(&str, &str); 3] = [
    ("sleep 0.2\nexit 3", "exited with status 3"),
    ("exec sleep 1000", "within its time"),
    ("printf nonsense >&4\nexec sleep 1000", "nonsense"),
];

/// What a new version does wrong in the middle.
const FAULTS: [(&str, &str); 8] = [
    ("new.prepare:die", "killed by SIGKILL"),
    ("new.prepare:hang", "is not prepared within its time"),
    ("new.prepare:garbage", "nonsense"),
    ("new.move:die", "killed by SIGKILL"),
    ("new.ready:die", "killed by SIGKILL"),
    ("new.ready:garbage", "nonsense"),
    // It dies when it was told to serve, right after READY.
    ("new.commit:die", "killed by SIGKILL"),
    ("new.commit:garbage", "nonsense"),
];

/// Of these each takes the ten seconds of an upgrade.
const SLOW_FAULTS: [(&str, &str); 3] = [
    ("new.move:hang", "has not got everything within its time"),
    ("new.ready:hang", "is not ready within its time"),
    ("new.commit:hang", "does not serve within its time"),
];

/// What an old version does wrong, after which it serves on when no restart is wanted.
const OLD_SERVES: [(&str, &str); 5] = [
    // It ignores the request.
    ("old.move:hang", "has not given everything within its time"),
    ("old.move:wrong", "a listener that does not listen"),
    ("old.move:garbage", "nonsense"),
    ("old.move:lie", "should be"),
    ("old.ready:garbage", "nonsense"),
];

/// What it does wrong when the new one serves already.
const NEW_SERVES: [&str; 3] = ["old.leave:hang", "old.leave:garbage", "old.leave:die"];

/// How it dies with the connections.
const OLD_DIES: [&str; 3] = ["old.move:half", "old.move:die", "old.ready:die"];

pub async fn failed_upgrades_leave_the_old_version(vm: &Vm) -> Result<(), Failure> {
    let before = declare_hasty(vm).await?;
    vm.sh("printf 'no program' > /run/text; chmod +x /run/text; cp /bin/busybox /run/forbidden; chmod 644 /run/forbidden")
        .await?;
    let load = Load::begin(vm, "1", ECHO_TARGET, "--connections 20").await?;
    for (program, reason) in PROGRAMS {
        lead_to(vm, program).await?;
        refused(vm, program, &[], reason).await?;
        serves(vm, before, program).await?;
    }
    for (script, reason) in SCRIPTS {
        lead_to_script(vm, script).await?;
        refused(vm, script, &[], reason).await?;
        serves(vm, before, script).await?;
    }
    lead_to_server(vm).await?;
    let done = upgrade(vm, ECHO).await?;
    check!(done.level == "fd-passing", "after all of these the upgrade was {done:?}");
    load.end_clean(vm, 20).await.map(drop)
}

pub async fn faults_of_the_new_version(vm: &Vm) -> Result<(), Failure> {
    let before = declare_hasty(vm).await?;
    let load = Load::begin(vm, "1", ECHO_TARGET, "--connections 20").await?;
    let slow = vm.amount(&SLOW_FAULTS[..], &[]);
    for (fault, reason) in FAULTS.iter().chain(slow) {
        lead_to_faulty(vm, fault).await?;
        refused(vm, fault, &[], reason).await?;
        serves(vm, before, fault).await?;
    }
    lead_to_server(vm).await?;
    let done = upgrade(vm, ECHO).await?;
    check!(done.level == "fd-passing", "after all of these the upgrade was {done:?}");
    load.end_clean(vm, 20).await.map(drop)
}

pub async fn faults_of_the_old_version(vm: &Vm) -> Result<(), Failure> {
    declare_hasty(vm).await?;
    let few = |all: usize, few: usize| vm.amount(all, few);
    for &(fault, reason) in &OLD_SERVES[..few(OLD_SERVES.len(), 3)] {
        let old = restart_as(vm, fault).await?;
        let load = Load::begin(vm, fault, ECHO_TARGET, "--connections 20").await?;
        refused(vm, fault, &["--no-fallback"], reason).await?;
        serves(vm, old, fault).await?;
        load.end_clean(vm, 20).await?;
    }
    for fault in &NEW_SERVES[..few(NEW_SERVES.len(), 1)] {
        let old = restart_as(vm, fault).await?;
        let load = Load::begin(vm, fault, ECHO_TARGET, "--connections 20").await?;
        let done = upgrade(vm, ECHO).await?;
        check!(done.level == "fd-passing", "with {fault} the upgrade was {done:?}");
        load.end_clean(vm, 20).await?;
        vm.wait_process_gone(old, fault, REACTION * 2).await?;
    }
    // Nobody has the connections of who dies with them; the component comes back.
    for fault in &OLD_DIES[..few(OLD_DIES.len(), 1)] {
        let old = restart_as(vm, fault).await?;
        let load = Load::begin(vm, fault, ECHO_TARGET, "--connections 20").await?;
        refused(vm, fault, &["--no-fallback"], "the old process").await?;
        vm.wait_process_gone(old, fault, REACTION).await?;
        vm.wait_state(ECHO, "ACTIVE", None, REACTION).await?;
        check!(pid_of(vm, ECHO).await? != old, "after {fault} process {old} is still the component's");
        load.end(vm).await?.check_honest()?;
    }
    let load = Load::begin(vm, "last", ECHO_TARGET, "--connections 20").await?;
    load.end_clean(vm, 20).await.map(drop)
}

/// Start it anew with this fault, and lead to the server as it is.
async fn restart_as(vm: &Vm, fault: &str) -> Result<i32, Failure> {
    lead_to_faulty(vm, fault).await?;
    vm.graphctl_within(&["restart", ECHO], REACTION).await?;
    vm.wait_state(ECHO, "ACTIVE", None, REACTION).await?;
    vm.wait_settled(REACTION).await?;
    lead_to_server(vm).await?;
    pid_of(vm, ECHO).await
}
