//! A model run for the tests: the events of a run that has everything in it, and what they must come to.

use crate::event::*;

/// What the model run must come to: suite, scenario, outcome, culprit, attempts.
pub const EXPECTED: [(&str, &str, Outcome, Option<Culprit>, usize); 7] = [
    ("basic", "boots", Outcome::Passed, None, 1),
    ("basic", "orphan-is-reaped", Outcome::Failed, Some(Culprit::Supervisor), 2),
    ("basic", "power-off", Outcome::Flaky, Some(Culprit::Component), 2),
    ("basic", "many-components", Outcome::Flaky, Some(Culprit::Vmm), 2),
    ("hot-swap", "no-gap", Outcome::InfraFailed, Some(Culprit::Vmm), 1),
    ("hot-swap", "two-at-once", Outcome::Skipped, None, 1),
    ("hot-swap", "never-began", Outcome::InfraFailed, Some(Culprit::Harness), 0),
];

pub const MACHINE: &str = "alpine-512m-2cpu";
pub const REPRODUCE: &str = "cargo xtask vm-test --scenario basic/orphan-is-reaped --seed 42";

/// Turns events into records, half a second apart.
#[derive(Default)]
pub struct Stream(pub Vec<Record>);

impl Stream {
    pub fn push(&mut self, event: Event) {
        let seq = self.0.len() as u64;
        self.0.push(Record {
            schema: SCHEMA_VERSION,
            seq,
            t_us: seq * 500_000,
            wall: format!("2026-11-21T14:30:{:02}.{:06}Z", 10 + seq / 2, (seq % 2) * 500_000),
            event,
        });
    }

    pub fn start(&mut self, suite: &str, name: &str, attempt: u32) {
        self.push(Event::ScenarioStarted(ScenarioStarted {
            suite: suite.into(),
            name: name.into(),
            machine: MACHINE.into(),
            attempt,
            start: StartKind::Clone,
        }));
    }

    pub fn step(&mut self, suite: &str, scenario: &str, name: &str, outcome: Outcome) {
        self.push(Event::Step(Step {
            suite: suite.into(),
            scenario: scenario.into(),
            name: name.into(),
            t_ms: 250.0,
            duration_ms: 1500.5,
            outcome,
        }));
    }

    pub fn finish(
        &mut self,
        suite: &str,
        name: &str,
        outcome: Outcome,
        duration_ms: f64,
        why: Option<(&str, Culprit)>,
    ) {
        let failed = !matches!(outcome, Outcome::Passed | Outcome::Skipped);
        self.push(Event::ScenarioFinished(ScenarioFinished {
            suite: suite.into(),
            name: name.into(),
            outcome,
            duration_ms,
            reason: why.map(|(reason, _)| reason.into()),
            culprit: why.filter(|_| failed).map(|(_, culprit)| culprit),
            capsule: failed.then(|| format!("capsules/{suite}-{name}")),
            reproduce: failed
                .then(|| REPRODUCE.replace("basic/orphan-is-reaped", &format!("{suite}/{name}"))),
            host_cpu_ms: Some(duration_ms / 2.0),
        }));
    }
}

/// The whole model run.
pub fn model_run() -> Vec<Record> {
    let mut stream = Stream::default();
    preamble(&mut stream);
    stream.start("basic", "boots", 1);
    stream.step("basic", "boots", "wait until all is active", Outcome::Passed);
    stream.finish("basic", "boots", Outcome::Passed, 1800.0, None);
    for attempt in 1..=2 {
        stream.start("basic", "orphan-is-reaped", attempt);
        stream.step("basic", "orphan-is-reaped", "start the orphan", Outcome::Passed);
        stream.step("basic", "orphan-is-reaped", "wait until the orphan is reaped", Outcome::Failed);
        stream.push(panic_of("basic", "orphan-is-reaped"));
        let why = (
            "process 123 is still a zombie 5 s after it exited, and PID 1 is asleep in do_wait",
            Culprit::Supervisor,
        );
        stream.finish("basic", "orphan-is-reaped", Outcome::Failed, 4100.25, Some(why));
    }
    stream.start("basic", "power-off", 1);
    stream.finish(
        "basic",
        "power-off",
        Outcome::Failed,
        900.0,
        Some(("the last line is missing", Culprit::Component)),
    );
    stream.start("basic", "power-off", 2);
    stream.finish("basic", "power-off", Outcome::Passed, 800.0, None);
    stream.start("basic", "many-components", 1);
    let why = ("QEMU ended with signal 9", Culprit::Vmm);
    stream.finish("basic", "many-components", Outcome::InfraFailed, 10.0, Some(why));
    stream.start("basic", "many-components", 2);
    stream.finish("basic", "many-components", Outcome::Passed, 65_000.0, None);
    stream.start("hot-swap", "no-gap", 1);
    stream.finish("hot-swap", "no-gap", Outcome::InfraFailed, 10.0, Some(why));
    let why = ("needs a kernel with 9p", Culprit::Harness);
    stream.finish("hot-swap", "two-at-once", Outcome::Skipped, 0.0, Some(why));
    stream.push(Event::log(Level::Warn, "the host is busy: 3.2 of 2 processors are in use"));
    stream.push(Event::log(Level::Debug, "not in any report"));
    for (step, fault, outcome) in [
        ("prepare", "old dies", "restarted"),
        ("prepare", "new dies", "old serves"),
        ("move", "new dies", "old serves"),
    ] {
        stream.push(Event::CrashPoint(CrashPoint {
            suite: "hot-swap".into(),
            scenario: "no-gap".into(),
            step: step.into(),
            fault: fault.into(),
            outcome: outcome.into(),
        }));
    }
    stream.push(Event::Ledger(Ledger {
        suite: "basic".into(),
        scenario: "orphan-is-reaped".into(),
        not_taken: None,
        rows: vec![
            LedgerRow { what: "processes".into(), before: 12, after: 13, unowned: 1 },
            LedgerRow { what: "mounts".into(), before: 7, after: 7, unowned: 0 },
        ],
        findings: vec!["a zombie too much: process 123 (orphan), which process 1 has not reaped".into()],
        looks: 14,
        look_ms: 12.5,
    }));
    let summary = crate::fold(&stream.0);
    stream.push(Event::RunFinished(crate::closing(&summary, 84_250.0, false)));
    stream.0
}

/// From the start of the run to its first scenario.
fn preamble(stream: &mut Stream) {
    stream.push(Event::RunStarted(RunStarted {
        run_id: "20261121-143010-7f3a".into(),
        version: "0.1.0".into(),
        command_line: vec!["cargo".into(), "xtask".into(), "vm-test".into()],
        git_commit: Some("0123456789abcdef0123456789abcdef01234567".into()),
        seed: Some(42),
        host: Host {
            os: "Debian GNU/Linux 12".into(),
            kernel: "6.1.0-40-amd64".into(),
            cpus: 2,
            memory_mb: 7_900,
        },
        acceleration: Some(Acceleration {
            kind: "tcg".into(),
            reason: "/dev/kvm does not boot a kernel".into(),
        }),
        qemu_version: Some("QEMU emulator version 7.2.19 (Debian 1:7.2+dfsg-7+deb12u16)".into()),
    }));
    for (name, version, size_bytes) in
        [("alpine-kernel", "6.18.2-0-virt", 12_345_678), ("guest-initramfs", "", 2_800_000)]
    {
        stream.push(Event::Artifact(Artifact {
            name: name.into(),
            version: version.into(),
            sha256: "0123456789abcdef".repeat(4),
            origin: "built here".into(),
            size_bytes,
        }));
    }
    let planned = |&(suite, name, ..): &(&str, &str, _, _, _)| PlannedScenario {
        suite: suite.into(),
        name: name.into(),
        machine: MACHINE.into(),
    };
    let left_out = LeftOut { suite: "kexec".into(), name: "jump".into(), reason: "takes minutes".into() };
    stream.push(Event::Plan(Plan {
        scenarios: EXPECTED.iter().map(planned).collect(),
        left_out: vec![left_out],
    }));
    stream.push(Event::Goals(goals()));
    stream.push(Event::MachineReady(MachineReady {
        machine: MACHINE.into(),
        os: Some("Alpine Linux v3.23".into()),
        kernel_release: "6.18.2-0-virt".into(),
        how: MachineOrigin::Cold,
        boot_ms: 2000.0,
        ready_ms: 2300.0,
        memory_mb: 512,
        cpus: 2,
    }));
    for ms in [80.0, 100.0, 90.0] {
        stream.push(Event::CloneReady(CloneReady { machine: MACHINE.into(), ms }));
    }
    for (scenario, value) in [(None, 1100.0), (Some("boots"), 12.5), (Some("no-gap"), 14.5)] {
        stream.push(Event::Metric(Metric {
            suite: scenario.map(|_| "basic".into()),
            scenario: scenario.map(Into::into),
            name: if scenario.is_some() { "restart".into() } else { "yakiros_memory_kb".into() },
            unit: if scenario.is_some() { "ms".into() } else { "kb".into() },
            value,
            samples: None,
        }));
    }
    stream.push(Event::Series(Series {
        suite: Some("basic".into()),
        scenario: Some("boots".into()),
        name: "pid1_memory".into(),
        unit: "KiB".into(),
        t_s: vec![0.0, 10.0, 20.0],
        values: vec![1100.0, 1104.0, 1100.0],
    }));
}

/// Targets that are met, missed by our own bar, missed by the plan's, and not measured; criteria of each verdict.
pub fn goals() -> Goals {
    let target = |name: &str, metric: &str, unit: &str, floor, bar| Target {
        name: name.into(),
        what: format!("what {metric} is about"),
        metric: metric.into(),
        scenario: None,
        unit: unit.into(),
        statistic: Statistic::Max,
        direction: Direction::AtMost,
        bars: Bars { floor: Some(floor), bar: Some(bar) },
        key: None,
        key_factor: 1.0,
    };
    let memory = Target {
        key: Some("memory_mb".into()),
        key_factor: 1.0 / 1024.0,
        ..target("memory", "yakiros_memory_kb", "kb", 51_200.0, 4_096.0)
    };
    let criterion =
        |part, text: &str, evidence| Criterion { part, text: text.into(), evidence, when_available: false };
    let scenario = |id: &str| Evidence::Scenario(id.into());
    let named = |name: &str| Evidence::Target(name.into());
    Goals {
        profile: Some(ProfileGoal { name: "ci".into(), budget_s: Some(60.0) }),
        targets: vec![
            memory,
            target("restart", "restart", "ms", 2_000.0, 14.0),
            target("slow", "restart", "ms", 10.0, 1.0),
            target("gap", "gap", "ms", 5_000.0, 100.0),
        ],
        criteria: vec![
            criterion(Part::Functional, "It boots", vec![scenario("basic/boots")]),
            criterion(
                Part::Functional,
                "Orphans <are> reaped",
                vec![scenario("basic/boots"), scenario("basic/orphan-is-reaped")],
            ),
            criterion(Part::Performance, "Memory stays low", vec![named("memory")]),
            criterion(Part::Performance, "Hot swaps are quick", vec![named("gap"), named("memory")]),
            criterion(Part::Performance, "Restarts are quick", vec![named("slow")]),
            criterion(Part::Reliability, "It lasts", vec![]),
        ],
    }
}

fn panic_of(suite: &str, scenario: &str) -> Event {
    Event::ConsoleFinding(ConsoleFinding {
        suite: Some(suite.into()),
        scenario: Some(scenario.into()),
        class: "panic".into(),
        title: "Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b".into(),
        excerpt: (0..10)
            .map(|n| format!("[    3.10000{n}] Call Trace: \u{1b}[31mline {n} of an excerpt that is wider than the terminal is"))
            .collect(),
    })
}
