//! Everything up to the jump, and back.

use std::time::Duration;

use yakiros_guest::protocol::ExitStatus;
use yakiros_vm::agent::Connection;

use super::report::{Report, nothing_is_loaded, run};
use super::{KEPT, OWN, REACTION, TRIAL};
use crate::check;
use crate::failure::Failure;
use crate::ledger::{self, Account};
use crate::vm::{BOOT_INITRD, BOOT_KERNEL, COMPONENTS, Status, Vm};

/// The phases of a trial, in their order.
const PHASES: [&str; 6] =
    ["validation", "information", "checkpoint", "verification", "persistence", "loading"];
/// Components that declare checkpoints.
const SERVICES: usize = 10;
/// What a dry run may take with that many.
const PROMISE: Duration = Duration::from_secs(10);

pub async fn nothing_to_go_on(vm: &Vm) -> Result<(), Failure> {
    vm.sh(&format!("rm {COMPONENTS}/idle-* {COMPONENTS}/counter.toml {COMPONENTS}/echo.toml")).await?;
    vm.wait_settled(TRIAL).await?;
    let before = Before::look(vm).await?;
    let report = run(vm, &OWN, TRIAL).await?;
    all_phases(&report, 0)?;
    let undone: Vec<_> = report.taken_back.iter().map(|back| back.what.as_str()).collect();
    check!(
        undone == ["unload the kernel", "remove manifest and information"],
        "what is undone is {undone:?}"
    );
    before.is_now(vm).await
}

pub async fn seven_phase_sequence(vm: &Vm) -> Result<(), Failure> {
    let mut connection = vm.connect("127.0.0.1:8080").await?;
    echoes(vm, &mut connection, b"before").await?;
    let counted = count(vm).await?;
    let before = Before::look(vm).await?;
    let report = run(vm, &OWN, TRIAL).await?;
    all_phases(&report, SERVICES)?;
    let limit = vm.limit(PROMISE);
    check!(
        Duration::from_millis(report.took_ms) <= limit,
        "it took {} ms, and {limit:?} are promised",
        report.took_ms
    );
    let note = report.note("connections")?;
    check!(
        note.ok && !note.detail.starts_with("0 ends") && note.detail.contains(" of connections and "),
        "of a service with a client it says {note:?}"
    );
    before.is_now(vm).await?;
    // They are the same processes, and have forgotten nothing.
    echoes(vm, &mut connection, b"after").await?;
    let after = count(vm).await?;
    check!(after == counted + 1, "the counter was at {counted}, and goes on at {after}");
    // For people each phase is a line.
    let text = vm.graphctl_within(&[&OWN[..], &["--verbose"]].concat(), TRIAL).await?;
    for (name, number) in PHASES.into_iter().zip(1..) {
        check!(text.contains(&format!("{number} {name}")), "phase {name} has no line: {text}");
    }
    check!(text.contains("passing: it is started anew"), "what does not go on is not named: {text}");
    check!(text.contains("every service runs"), "it ends with: {text}");
    before.is_now(vm).await
}

pub async fn checkpoint_integration(vm: &Vm) -> Result<(), Failure> {
    vm.graphctl_within(&["checkpoint", "counter"], REACTION).await?;
    vm.graphctl_within(&["checkpoint", "idle-1"], REACTION).await?;
    let listed = vm.graphctl(&["kexec", "--list-checkpoints"]).await?;
    check!(
        listed.contains("counter") && listed.contains("idle-1") && listed.contains("Total: 2 components"),
        "it lists {listed}"
    );
    // What somebody else has made stays.
    let report = run(vm, &OWN, TRIAL).await?;
    all_phases(&report, SERVICES)?;
    let again = vm.graphctl(&["kexec", "--list-checkpoints"]).await?;
    check!(again == listed, "after a dry run it lists {again}, not {listed}");
    let file = "/run/manifest.json";
    vm.graphctl(&["kexec", "--create-manifest", file, BOOT_KERNEL, "--initrd", BOOT_INITRD]).await?;
    let text = vm.read(file).await?;
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let entries = manifest["entries"].as_array().cloned().unwrap_or_default();
    let names: Vec<_> = entries.iter().filter_map(|entry| entry["component_name"].as_str()).collect();
    // In the order of the graph, which is not that of the alphabet backwards.
    check!(names == ["counter", "idle-1"], "the manifest names {names:?}: {text}");
    let priority = |at: usize| entries[at]["restore_priority"].as_u64();
    check!(priority(0) < priority(1), "what is needed is restored as late as who needs it: {text}");
    let release = vm.sh("uname -r").await?;
    check!(
        manifest["old_kernel_version"] == release.trim() && manifest["new_kernel_path"] == BOOT_KERNEL,
        "the manifest is {text}"
    );
    for entry in &entries {
        let path = entry["checkpoint_path"].as_str().unwrap_or_default();
        vm.succeed(&["test", "-f", &format!("{path}/metadata.json")], REACTION).await?;
    }
    vm.sh(&format!("rm {file}")).await?;
    nothing_is_loaded(vm).await
}

pub async fn images_on_a_disk(vm: &Vm) -> Result<(), Failure> {
    vm.sh("mkfs.ext4 -q /dev/vda; mkdir -p /var/lib/graph; mount /dev/vda /var/lib/graph").await?;
    let disk = "yakiros.checkpoint=/var/lib/graph/jump";
    let report = run(vm, &[&OWN[..], &["--append", disk]].concat(), TRIAL).await?;
    all_phases(&report, SERVICES)?;
    let loading = &report.phases[5].detail;
    check!(!loading.contains("checkpoints included"), "what is on a disk goes along: {loading}");
    let written = &report.phases[4].detail;
    check!(written.contains("/var/lib/graph/jump/manifest.json"), "the manifest lies elsewhere: {written}");
    let left = vm.sh("ls /var/lib/graph").await?;
    check!(left.trim() == "lost+found", "there is left: {left}");
    vm.sh("umount /var/lib/graph; rmdir /var/lib/graph").await?;
    nothing_is_loaded(vm).await
}

pub async fn a_failure_in_the_middle(vm: &Vm) -> Result<(), Failure> {
    // It comes after those that need it, so eight checkpoints are made before.
    vm.graphctl_within(&["freeze", "counter"], REACTION).await?;
    let before = Before::look(vm).await?;
    let report = run(vm, &OWN, TRIAL).await?;
    check!(!report.ok && report.phases.len() == 3, "with one that is frozen: {report:?}");
    let detail = &report.phases[2].detail;
    check!(detail.starts_with("counter: "), "what failed is not named: {detail}");
    let made = report.phases[2].notes.len();
    check!(
        made >= 8 && report.taken_back.len() == made,
        "{made} were made, and undone: {:?}",
        report.taken_back
    );
    before.is_now(vm).await?;
    vm.graphctl_within(&["thaw", "counter"], REACTION).await.map(drop)
}

pub async fn interrupted(vm: &Vm) -> Result<(), Failure> {
    let before = Before::look(vm).await?;
    let script = format!(
        "graphctl --json {} > /run/said & until ls {KEPT}/*/*/metadata.json >/dev/null 2>&1; do sleep 0.02; done; \
         kill -INT $!; wait $!",
        OWN.join(" ")
    );
    let output = vm.run(&["/bin/sh", "-c", &script], vm.limit(TRIAL)).await?;
    let said = vm.read("/run/said").await?;
    check!(output.status == ExitStatus::Code(1), "it ended with {:?}: {said}", output.status);
    let report: Report =
        serde_json::from_str(&said).map_err(|error| Failure::supervisor(error.to_string()))?;
    let last = report.phases.last().map(|phase| phase.detail.as_str());
    check!(last == Some("it was interrupted"), "it ended so: {report:?}");
    check!(report.taken_back.iter().all(|back| back.error.is_none()), "it was not undone: {report:?}");
    vm.sh("rm /run/said").await?;
    before.is_now(vm).await
}

pub async fn performance(vm: &Vm) -> Result<(), Failure> {
    let runs = vm.amount(5, 1);
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); PHASES.len()];
    let (mut whole, mut slowest) = (Vec::new(), 0);
    for _ in 0..runs {
        let report = run(vm, &OWN, TRIAL).await?;
        all_phases(&report, SERVICES)?;
        for (times, phase) in times.iter_mut().zip(&report.phases) {
            times.push(phase.took_ms as f64);
        }
        whole.push(report.took_ms as f64);
        slowest = slowest.max(report.took_ms);
    }
    for (name, times) in PHASES.into_iter().zip(times) {
        vm.samples(&format!("dry_run_{name}"), "ms", times);
    }
    vm.samples("dry_run", "ms", whole);
    let limit = vm.limit(PROMISE);
    check!(
        Duration::from_millis(slowest) <= limit,
        "a dry run took {slowest} ms, and {limit:?} are promised"
    );
    nothing_is_loaded(vm).await
}

/// What has to be the same afterwards.
struct Before {
    status: Status,
    account: Account,
    files: String,
}

/// What a jump would leave, and the processes' own.
const FILES: &str = "ls -d /checkpoint /var/lib/graph 2>/dev/null || true; find /run /tmp -xdev ! -name '*.log*' ! -name criu.kdat | sort";

impl Before {
    async fn look(vm: &Vm) -> Result<Self, Failure> {
        let status = vm.status().await?;
        Ok(Self { status, account: ledger::take(vm).await?, files: vm.sh(FILES).await? })
    }

    /// Every process is the one it was, nothing is loaded, and nothing is there that was not.
    async fn is_now(&self, vm: &Vm) -> Result<(), Failure> {
        nothing_is_loaded(vm).await?;
        let now = vm.status().await?;
        for was in &self.status.components {
            let is = now.component(&was.name)?;
            check!(
                is.pid == was.pid && is.state == was.state && is.restarts == was.restarts,
                "{was:?} has become {is:?}"
            );
        }
        let files = vm.sh(FILES).await?;
        check!(files == self.files, "the files were {}, and are {files}", self.files);
        let findings = ledger::compare(&self.account, &ledger::take(vm).await?).findings;
        check!(findings.is_empty(), "it has left {findings:?}");
        Ok(())
    }
}

/// Everything was done, with so many services, and undone.
fn all_phases(report: &Report, services: usize) -> Result<(), Failure> {
    check!(report.ok, "it was not done: {report:?}");
    let names: Vec<_> = report.phases.iter().map(|phase| phase.name.as_str()).collect();
    check!(names == PHASES, "the phases are {names:?}");
    for (phase, number) in report.phases.iter().zip(1..) {
        check!(phase.ok && phase.number == number, "a phase is {phase:?}");
    }
    for at in [2, 3] {
        let phase = &report.phases[at];
        check!(
            phase.notes.len() == services,
            "of {services} services {} was for {:?}",
            phase.name,
            phase.notes
        );
    }
    check!(report.taken_back.len() == services + 2, "what is undone is {:?}", report.taken_back);
    check!(report.taken_back.iter().all(|back| back.error.is_none()), "it could not be undone: {report:?}");
    Ok(())
}

async fn echoes(vm: &Vm, connection: &mut Connection, line: &[u8]) -> Result<(), Failure> {
    vm.ask("send to the service", REACTION, connection.send(line)).await?;
    let answer = async { connection.receive(vm.limit(REACTION)).await };
    let answer = vm.ask("wait for the answer", REACTION, answer).await?;
    check!(answer.as_deref() == Some(line), "the answer is {answer:?} and not {line:?}");
    Ok(())
}

/// Lets the counter count; gives where it is.
pub async fn count(vm: &Vm) -> Result<u64, Failure> {
    let text = vm.sh("wget -q -O - --post-data= http://127.0.0.1:8081/increment").await?;
    let said: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    said["counter"].as_u64().ok_or_else(|| Failure::supervisor(format!("the counter says {text}")))
}
