//! Damage, processes that have much, and very many cycles.

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::client::Client;
use super::{KEPT, REACTION, STATEFUL, attempt, checkpoint, pid_of, restore, upgrade};

pub async fn a_damaged_image_is_refused(vm: &Vm) -> Result<(), Failure> {
    let mut client = Client::connect(vm).await?;
    client.increment(vm).await?;
    let made = checkpoint(vm, STATEFUL).await?;
    let directory = format!("{KEPT}/{STATEFUL}/{}", made.id);
    let files = vm.sh(&format!("cd {directory} && find . -type f -size +0c ! -name '*.lock'")).await?;
    let files: Vec<_> = files.lines().map(|name| name.trim_start_matches("./").to_owned()).collect();
    check!(files.len() > 10, "the images are {files:?}");
    let pid = pid_of(vm, STATEFUL).await?;
    // All of them, or as many as say the same about each kind.
    let step = vm.amount(1, files.len() / 4);
    for file in files.iter().step_by(step) {
        flip_a_bit(vm, &format!("{directory}/{file}")).await?;
        let (done, text, error) = attempt(vm, &["restore", STATEFUL, &made.id, "--no-fallback"]).await?;
        check!(!done, "with a flipped bit in {file} it was restored: {text}");
        check!(error.contains(file.as_str()), "of the flipped bit in {file} it says {error:?}");
        check!(
            pid_of(vm, STATEFUL).await? == pid,
            "for a checkpoint that cannot be used, with a flipped bit in {file}, the service was stopped"
        );
        flip_a_bit(vm, &format!("{directory}/{file}")).await?;
    }
    check!(client.increment(vm).await? == 2, "the service has lost its count");
    // Each bit is as it was.
    let again = restore(vm, STATEFUL, &made.id).await?;
    check!(again.passed_over.is_none(), "what is mended is not used: {again:?}");
    let counted = Client::connect(vm).await?.count(vm).await?;
    check!(counted == 1, "it goes on at {counted}");
    Ok(())
}

/// The last bit of the byte in the middle.
pub async fn flip_a_bit(vm: &Vm, path: &str) -> Result<(), Failure> {
    let script = format!(
        "at=$(( $(stat -c %s {path}) / 2 )); \
         byte=$(dd if={path} bs=1 skip=$at count=1 2> /dev/null | od -An -tu1 | tr -d ' '); \
         printf \"\\\\x$(printf %02x $(( byte ^ 1 )))\" | dd of={path} bs=1 seek=$at conv=notrunc 2> /dev/null"
    );
    vm.sh(&script).await.map(drop)
}

/// A shell with children and files: one that is open and gone by its name, one that was renamed. Each count is put in its
/// place whole, for it may be read at any moment.
const FAMILY: &str = "exec 5> /run/family/gone; rm /run/family/gone; \
    exec 6> /run/family/old; mv /run/family/old /run/family/new; \
    sh -c 'n=0; while :; do n=$((n+1)); echo child $n >&6; echo $n > /run/family/c; mv /run/family/c /run/family/child; \
    sleep 0.05; done' & \
    n=0; while :; do n=$((n+1)); echo line $n >&5; echo $n > /run/family/p; mv /run/family/p /run/family/parent; \
    sleep 0.05; done";

pub async fn whatever_a_process_has(vm: &Vm) -> Result<(), Failure> {
    a_family(vm, "plain", "").await?;
    let isolated = "[isolation]\nnamespaces = [\"pid\", \"uts\", \"ipc\"]\nhostname = \"moved\"\n\
                    [resources]\nmemory_max = \"64M\"\npids_max = 20\n";
    a_family(vm, "isolated", isolated).await?;
    threads(vm).await
}

/// Each thread of a process counts on, as itself.
async fn threads(vm: &Vm) -> Result<(), Failure> {
    const NAME: &str = "threads";
    const COUNT: usize = 4;
    let declaration = format!(
        "[component]\nname = \"{NAME}\"\nbinary = \"/usr/local/bin/test-threads\"\n\
         args = [\"--threads\", \"{COUNT}\", \"--into\", \"/run/threads\"]\nhandoff = \"checkpoint\"\n\
         [lifecycle]\nreadiness = \"notify\"\n\
         [checkpoint]\nenabled = true\n"
    );
    vm.sh("mkdir /run/threads").await?;
    vm.declare("threads.toml", &declaration).await?;
    vm.wait_state(NAME, "ACTIVE", None, REACTION).await?;
    let pid = pid_of(vm, NAME).await?;
    let all = async || -> Result<(String, Vec<u64>), Failure> {
        let names = vm.sh(&format!("cat /proc/{pid}/task/*/comm")).await?;
        let counts = vm.sh(&format!("for n in $(seq {COUNT}); do cat /run/threads/$n; echo; done")).await?;
        Ok((names, counts.lines().filter_map(|line| line.parse().ok()).collect()))
    };
    let least = |least: u64| {
        format!(
            "for n in $(seq {COUNT}); do [ $(cat /run/threads/$n || echo 0) -ge {least} ] || exit 1; done"
        )
    };
    vm.until("its threads count", &format!("({})", least(5)), REACTION).await?;
    let (names, before) = all().await?;
    check!(names.lines().count() == COUNT + 1, "its threads are {names:?}");
    let done = upgrade(vm, NAME).await?;
    check!(done.level == "checkpoint", "a process with threads was moved by {done:?}");
    check!(pid_of(vm, NAME).await? == pid, "it is another process");
    let (names_after, after) = all().await?;
    check!(names_after == names, "its threads were {names:?} and are {names_after:?}");
    let went_on = before.len() == COUNT && before.iter().zip(&after).all(|(before, after)| before <= after);
    check!(went_on, "its threads had counted {before:?} and go on with {after:?}");
    let newest = after.iter().max().copied().unwrap_or_default();
    vm.until("its threads count on", &format!("({})", least(newest + 3)), REACTION).await?;
    vm.undeclare("threads.toml").await?;
    vm.wait_state(NAME, "REMOVED", None, REACTION).await?;
    vm.sh("rm -r /run/threads").await.map(drop)
}

/// It counts on in parent and child after a move, and each file goes on where it was.
async fn a_family(vm: &Vm, kind: &str, more: &str) -> Result<(), Failure> {
    let name = format!("family-{kind}");
    vm.sh("rm -rf /run/family && mkdir /run/family").await?;
    let script = FAMILY.replace('\n', " ");
    let declaration = format!(
        "[component]\nname = \"{name}\"\nbinary = \"/bin/sh\"\nargs = [\"-c\", {script:?}]\n\
         handoff = \"checkpoint\"\n\
         [checkpoint]\nenabled = true\n{more}"
    );
    vm.declare("family.toml", &declaration).await?;
    vm.wait_state(&name, "ACTIVE", None, REACTION).await?;
    let counts = |least: u64| {
        format!(
            "[ $(cat /run/family/child || echo 0) -ge {least} ] && [ $(cat /run/family/parent || echo 0) -ge {least} ]"
        )
    };
    vm.until("the family counts", &counts(5), REACTION).await?;
    let mut pid = pid_of(vm, &name).await?;
    let done = upgrade(vm, &name).await?;
    check!(done.level == "checkpoint", "the {kind} family was moved by {done:?}");
    // In a pid namespace of its own it is number 1 again, and any number outside of that.
    let before = std::mem::replace(&mut pid, pid_of(vm, &name).await?);
    check!(pid == before || !more.is_empty(), "the {kind} family's first process is {pid} and was {before}");
    let before = vm.sh("cat /run/family/child").await?.trim().parse::<u64>().unwrap_or_default();
    check!(before >= 5, "the {kind} family was started anew, and counts {before}");
    vm.until("it counts on after the move", &counts(before + 3), REACTION).await?;
    let gone = vm.sh(&format!("readlink /proc/{pid}/fd/5; tail -n 1 /proc/{pid}/fd/5")).await?;
    check!(gone.contains("deleted") && gone.contains("line "), "the file without a name is {gone}");
    let renamed = vm.sh("tail -n 1 /run/family/new").await?;
    check!(renamed.starts_with("child "), "the file with a new name ends with {renamed}");
    if !more.is_empty() {
        let host = vm.sh(&format!("nsenter -t {pid} -u hostname")).await?;
        check!(host.trim() == "moved", "it is called {}", host.trim());
        let own = vm.sh(&format!("readlink /proc/{pid}/ns/pid; readlink /proc/1/ns/pid")).await?;
        let differ = own.split_once('\n').is_some_and(|(own, machine)| own.trim() != machine.trim());
        check!(differ, "it is in the machine's pid namespace: {own}");
        // The limits are those of the component's group, in which each of its processes has one.
        let group = format!("/graph/{name}");
        let own = vm.read(&format!("/proc/{pid}/cgroup")).await?;
        check!(own.contains(&group), "its group is {own}");
        let limit = vm.read(&format!("/sys/fs/cgroup{group}/memory.max")).await?;
        check!(limit.trim() == "67108864", "its limit of memory is {}", limit.trim());
    }
    vm.undeclare("family.toml").await?;
    vm.wait_state(&name, "REMOVED", None, REACTION).await?;
    vm.sh("rm -r /run/family").await.map(drop)
}

pub async fn many_cycles_lose_nothing(vm: &Vm) -> Result<(), Failure> {
    let mut client = Client::connect(vm).await?;
    let mut gaps = Vec::new();
    let cycles = vm.planned("move_cycles")?;
    for cycle in 1..=cycles {
        let done = upgrade(vm, STATEFUL).await?;
        check!(done.level == "checkpoint", "cycle {cycle} was {done:?}");
        gaps.push(done.gap_us.unwrap_or_default() as f64);
        let counted = client.increment(vm).await?;
        check!(counted == cycle, "after {cycle} cycles it has counted {counted}");
    }
    vm.samples("cycle_gap", "us", gaps);
    Ok(())
}
