//! Components that take as much as they can get, beside one that is to notice nothing.

use std::time::Duration;

use super::{GROUPS, REACTION, component, group_number, hog};
use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

/// For megabytes to be touched, and hundreds of processes to be made, on an emulated processor.
pub const SLOW: Duration = Duration::from_secs(20);
pub async fn memory_limit_enforcement(vm: &Vm) -> Result<(), Failure> {
    const LIMIT: u64 = 24 << 20;
    let before = vm.status().await?.revision;
    let limits = format!("[lifecycle]\nrestart_max = 1\n[resources]\nmemory_max = {LIMIT}");
    vm.declare("glutton.toml", &hog("glutton", "memory", &limits)).await?;
    vm.wait_state("glutton", "FAILED", Some(before), SLOW).await?;
    vm.graphctl(&["stop", "glutton"]).await?;
    let peak = group_number(vm, "glutton", "memory.peak", None).await?;
    check!(peak <= LIMIT, "with a limit of {LIMIT} bytes {peak} were in use");
    let journal = vm.graphctl(&["events", "--since", &before.to_string()]).await?;
    // How the kill is named has a scenario of its own, in `supervision`.
    let killed = |line: &str| line.contains("SIGKILL") || line.contains("out of memory");
    let told = journal.lines().any(|line| line.contains("glutton: ACTIVE → FAILED") && killed(line));
    check!(told, "of the kill the journal says: {journal}");
    untouched(vm).await
}

/// The suite's neighbour runs in the same process, and answers.
pub async fn untouched(vm: &Vm) -> Result<(), Failure> {
    let status = vm.status().await?;
    let neighbour = status.component("neighbour")?;
    check!(neighbour.state == "ACTIVE" && neighbour.restarts == 0, "the neighbour is {neighbour:?}");
    let mut connection = vm.connect("127.0.0.1:8080").await?;
    let answer = async {
        connection.send(b"are you well?").await?;
        connection.receive(vm.limit(REACTION)).await
    };
    let answer = vm.ask("ask the neighbour", REACTION, answer).await?;
    check!(answer.as_deref() == Some(&b"are you well?"[..]), "the neighbour answers {answer:?}");
    Ok(())
}

pub async fn process_limits(vm: &Vm) -> Result<(), Failure> {
    const LIMIT: u64 = 40;
    let limits = format!("[resources]\npids_max = {LIMIT}\nmemory_max = \"64M\"");
    vm.declare("bomb.toml", &hog("bomb", "processes", &limits)).await?;
    vm.wait_state("bomb", "ACTIVE", None, REACTION).await?;
    let full = format!("[ $(cat {GROUPS}/bomb/pids.current) -eq {LIMIT} ]");
    vm.until("a fork bomb is held at its limit", &full, SLOW).await?;
    let held = group_number(vm, "bomb", "pids.events", Some("max")).await?;
    check!(held > 0, "the kernel says that the bomb was never held");
    untouched(vm).await?;
    vm.graphctl_within(&["stop", "bomb"], SLOW).await?;
    let left = group_number(vm, "bomb", "pids.current", None).await?;
    check!(left == 0, "after its stop the bomb has {left} processes");
    Ok(())
}

pub async fn processor_hog(vm: &Vm) -> Result<(), Failure> {
    /// A fifth of one processor.
    const SHARE: f64 = 0.2;
    const SPAN: Duration = Duration::from_secs(2);
    let spinner = |limits: &str| {
        component("spinner", "/usr/local/bin/test-hog", &["--kind", "cpu", "--threads", "4"], limits)
    };
    vm.declare("spinner.toml", &spinner("")).await?;
    vm.wait_state("spinner", "ACTIVE", None, REACTION).await?;
    let free = vm.step("what spins without a limit", share(vm, SPAN)).await?;
    vm.declare("spinner.toml", &spinner("[resources]\ncpu_max = \"20000 100000\"\ncpu_weight = 1")).await?;
    let set = format!("grep -q '^20000 100000' {GROUPS}/spinner/cpu.max");
    vm.until("the limit is set", &set, REACTION).await?;
    let held = vm.step("what spins with a limit", share(vm, SPAN)).await?;
    vm.metric("spinner_share_free", "ratio", free);
    vm.metric("spinner_share_held", "ratio", held);
    // A period that had begun may end without the limit, and its slices are counted when they end.
    let fair = held < SHARE * 1.5;
    check!(fair, "with a fifth of a processor it used {held:.2} of one");
    let is_hog = free > SHARE * 2.5;
    check!(is_hog, "without a limit it used only {free:.2} of a processor: it is no hog");
    untouched(vm).await?;
    vm.graphctl(&["stop", "spinner"]).await.map(drop)
}

/// What the spinner uses of one processor, both by the guest's clock.
async fn share(vm: &Vm, span: Duration) -> Result<f64, Failure> {
    let look = format!("cut -d' ' -f1 /proc/uptime; sed -n 's/^usage_usec //p' {GROUPS}/spinner/cpu.stat");
    let script = format!("{look}; sleep {}; {look}", span.as_secs_f64());
    let text = vm.succeed(&["/bin/sh", "-euc", &script], span * 4).await?;
    let numbers: Vec<f64> = text.lines().filter_map(|line| line.parse().ok()).collect();
    let &[from, used_from, to, used_to] = &numbers[..] else {
        return Err(Failure::harness(format!("the guest's accounts are not what they should be: {text}")));
    };
    Ok((used_to - used_from) / 1e6 / (to - from))
}

pub async fn file_hog(vm: &Vm) -> Result<(), Failure> {
    const LIMIT: u64 = 32 << 20;
    // The file is memory, and counts for who writes it.
    let writer = component(
        "writer",
        "/usr/local/bin/test-hog",
        &["--kind", "io", "--path", "/var/hog"],
        &format!("[resources]\nmemory_max = {LIMIT}\ncpu_weight = 1"),
    );
    vm.declare("writer.toml", &writer).await?;
    vm.wait_state("writer", "ACTIVE", None, REACTION).await?;
    vm.until("it writes", "[ $(stat -c %s /var/hog 2>/dev/null || echo 0) -ge 4194304 ]", SLOW).await?;
    untouched(vm).await?;
    let status = vm.status().await?;
    let writer = status.component("writer")?;
    check!(writer.state == "ACTIVE" && writer.restarts == 0, "the writer is {writer:?}");
    let peak = group_number(vm, "writer", "memory.peak", None).await?;
    check!(peak <= LIMIT, "with a limit of {LIMIT} bytes {peak} were in use");
    vm.graphctl(&["stop", "writer"]).await?;
    vm.sh("rm /var/hog").await.map(drop)
}

pub async fn descriptor_hog(vm: &Vm) -> Result<(), Failure> {
    const LIMIT: usize = 64;
    vm.declare("opener.toml", &hog("opener", "files", &format!("[resources]\nfiles_max = {LIMIT}"))).await?;
    vm.wait_state("opener", "ACTIVE", None, REACTION).await?;
    vm.until("it is held", "grep -q 'held at' /run/graph/opener.log", REACTION).await?;
    let pid = vm.status().await?.component("opener")?.running_pid()?;
    let open = vm.sh(&format!("ls /proc/{pid}/fd | wc -l")).await?;
    check!(open.trim() == LIMIT.to_string(), "with a limit of {LIMIT} it has {} open", open.trim());
    let log = vm.read("/run/graph/opener.log").await?;
    let expected = format!("held at {} files: Too many open files", LIMIT - 3);
    check!(log.contains(&expected), "it says {log:?}, not {expected:?}");
    untouched(vm).await
}
