//! A load that runs in the guest beside a scenario.

use std::time::Duration;

use serde::Deserialize;

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

/// For a history to be judged.
const JUDGEMENT: Duration = Duration::from_secs(20);
/// For thousands of connections to be established, or to end, on an emulated processor.
pub const MANY: Duration = Duration::from_secs(60);

/// A load under way.
pub struct Load {
    name: String,
}

/// The part of `test-load`'s verdict that is looked at.
#[derive(Debug, Deserialize)]
pub struct Verdict {
    clean: bool,
    pub counts: Counts,
    pub latency_ns: Times,
    pub windows_silence_ns: Option<Times>,
    #[serde(skip)]
    text: String,
}

#[derive(Debug, Deserialize)]
pub struct Counts {
    pub connections: u64,
    pub replies: u64,
    duplicated: u64,
    reordered: u64,
    damaged: u64,
    strangers: u64,
    invented: u64,
    senseless: u64,
}

#[derive(Debug, Deserialize)]
pub struct Times {
    pub count: u64,
    pub p50: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

impl Verdict {
    /// What `test-load --json` has printed.
    pub fn read(text: String) -> Result<Self, Failure> {
        let verdict: Self = serde_json::from_str(&text)
            .map_err(|error| Failure::supervisor(format!("test-load printed {text}: {error}")))?;
        Ok(Self { text, ..verdict })
    }

    /// Every request has its reply, in order and once, and no connection ended.
    pub fn check_clean(&self) -> Result<(), Failure> {
        check!(self.clean, "clients saw it: {}", self.text);
        Ok(())
    }

    /// What came was right, though connections ended: with who held them, nobody can go on.
    pub fn check_honest(&self) -> Result<(), Failure> {
        let Counts { duplicated, reordered, damaged, strangers, invented, senseless, .. } = self.counts;
        let wrong = [duplicated, reordered, damaged, strangers, invented, senseless];
        check!(wrong == [0; 6], "clients were told what is wrong: {}", self.text);
        Ok(())
    }
}

impl Load {
    /// Begin it, and wait until each of its connections has a reply and is where the options want it. The name tells
    /// loads of one guest apart.
    pub async fn begin(vm: &Vm, name: &str, target: &str, options: &str) -> Result<Self, Failure> {
        let load = Self { name: name.to_owned() };
        // The limit of descriptors is raised for those with thousands of connections.
        let script = format!(
            "ulimit -n 65536; rm -f {ready} {said} {pid} {end}; setsid sh -c 'test-load run {target} {options} --json --ready-file {ready} \
             > {said} 2>&1 < /dev/null & echo $! > {pid}; wait $!; mv {said} {end}' < /dev/null > /dev/null 2>&1 &",
            ready = load.file("ready"),
            said = load.file("said"),
            pid = load.file("pid"),
            end = load.file("end"),
        );
        vm.sh(&script).await?;
        vm.wait_path(&load.file("ready"), MANY).await?;
        Ok(load)
    }

    /// Nothing more is asked; the verdict about all that was.
    pub async fn end(self, vm: &Vm) -> Result<Verdict, Failure> {
        vm.sh(&format!("kill -TERM $(cat {})", self.file("pid"))).await?;
        vm.wait_path(&self.file("end"), MANY).await?;
        Verdict::read(vm.read(&self.file("end")).await?)
    }

    /// The same for a load of which nothing may be wrong, and whose `connections` must have been enough.
    pub async fn end_clean(self, vm: &Vm, connections: u64) -> Result<Verdict, Failure> {
        let verdict = self.end(vm).await?;
        verdict.check_clean()?;
        let used = verdict.counts.connections;
        check!(used == connections, "{used} connections were needed for {connections}");
        Ok(verdict)
    }

    fn file(&self, what: &str) -> String {
        format!("/run/load.{}.{what}", self.name)
    }
}

/// The verdict about a history with windows of time, in nanoseconds of the guest's monotonic clock.
pub async fn in_windows(vm: &Vm, history: &str, windows: &[(u64, u64)]) -> Result<Verdict, Failure> {
    let lines: Vec<String> = windows.iter().map(|(from, to)| format!("{from} {to}")).collect();
    vm.write("/run/windows", &lines.join("\n")).await?;
    let text = vm
        .succeed(&["test-load", "check", history, "--windows", "/run/windows", "--json"], JUDGEMENT)
        .await?;
    Verdict::read(text)
}
