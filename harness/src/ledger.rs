//! The conservation ledger: after a scenario nothing is there, and nothing is missing, that nobody owns.
//!
//! Counted before each scenario of every suite and after it, at rest. The comparison is by ownership and not by number: a
//! scenario may leave three more components than it found, and each of them has its process, its control group, its log
//! and so many descriptors of process 1; but a process, a group or a descriptor that belongs to no component that is
//! declared, to no agent, and was not there before fails the scenario, as does what process 1 had of its own and has no
//! more. See [`balance`] for the rules.
//!
//! What has just ended may still be on its way out. So an account that does not balance is taken again until it does, or
//! until the time for that is over: what is lost stays lost, however long one waits.

mod balance;
mod descriptors;
mod owners;
mod things;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Deserialize;
use yakiros_guest::ledger::Ledger;
use yakiros_reports::event::{self, ms};

use crate::failure::Failure;
use crate::vm::{COMPONENTS, Component, Status, Vm};

pub use balance::{Balance, Finding, compare};

/// For everything to come to rest after a scenario: the usual grace of a process to end, and a little.
const REST: Duration = Duration::from_secs(12);
/// For the agent to count. It takes milliseconds, or some tens with hundreds of processes.
const COUNT: Duration = Duration::from_secs(10);
/// The pause before the second look; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// See [`FIRST_PAUSE`].
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// States in which a component is on its way to another.
const MOVING: [&str; 3] = ["STARTING", "READY_WAIT", "STOPPING"];

/// What there is, and whose it may be.
#[derive(Debug, Clone, Default)]
pub struct Account {
    /// What the agent counted.
    pub ledger: Ledger,
    /// What the supervisor says there is.
    pub components: Vec<Component>,
    /// Components that are declared to be in another control group than that of their name, below the supervisor's.
    pub groups: BTreeMap<String, String>,
}

/// Counts.
pub async fn take(vm: &Vm) -> Result<Account, Failure> {
    let status = vm.status().await?;
    with(vm, status).await
}

async fn with(vm: &Vm, status: Status) -> Result<Account, Failure> {
    let ledger = vm.ask("count what there is", COUNT, vm.guest.agent.ledger()).await?;
    Ok(Account { ledger, components: status.components, groups: BTreeMap::new() })
}

/// Counts again, at rest, and tells the difference. What nobody owns fails the scenario. There is no `status` of a machine
/// that has ended.
pub async fn settle(vm: &Vm, before: &Account, status: Option<Status>) -> Result<(), Failure> {
    let Some(mut status) = status else {
        let not_taken = Some("the machine ended".to_owned());
        vm.ledger(event::Ledger { not_taken, ..event::Ledger::default() });
        return Ok(());
    };
    let (start, mut pause, mut times) = (Instant::now(), FIRST_PAUSE, Vec::new());
    let balance = loop {
        let began = Instant::now();
        let balance = look(vm, before, status).await?;
        times.push(began.elapsed());
        if balance.findings.is_empty() || start.elapsed() > vm.limit(REST) {
            break balance;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        status = vm.status().await?;
    };
    times.sort_unstable();
    let findings: Vec<String> = balance.findings.iter().map(|finding| finding.text.clone()).collect();
    let told = event::Ledger {
        rows: balance.rows,
        findings: findings.clone(),
        looks: times.len() as u32,
        look_ms: times.get(times.len() / 2).copied().map_or(0.0, ms),
        ..event::Ledger::default()
    };
    vm.ledger(told);
    match &findings[..] {
        [] => Ok(()),
        [first, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
            Err(Failure::supervisor(format!("the ledger does not balance: {first}{more}")))
        }
    }
}

async fn look(vm: &Vm, before: &Account, status: Status) -> Result<Balance, Failure> {
    let moving: Vec<String> = status
        .components
        .iter()
        .filter(|component| MOVING.contains(&component.state.as_str()))
        .map(|component| format!("{} is still {}", component.name, component.state))
        .collect();
    let mut after = with(vm, status).await?;
    let mut balance = compare(before, &after);
    if balance.findings.iter().any(Finding::is_about_groups) {
        after.groups = declared_groups(vm).await?;
        balance = compare(before, &after);
    }
    balance.findings.extend(moving.into_iter().map(Finding::unsettled));
    Ok(balance)
}

/// What component files say about control groups.
async fn declared_groups(vm: &Vm) -> Result<BTreeMap<String, String>, Failure> {
    #[derive(Deserialize)]
    struct File {
        component: Named,
        #[serde(default)]
        resources: Resources,
    }
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    #[derive(Default, Deserialize)]
    struct Resources {
        #[serde(alias = "cgroup_path")]
        cgroup: Option<String>,
    }
    /// Between two files; no line of a component file.
    const MARK: &str = "\u{1}";
    let script = format!("for file in {COMPONENTS}/*.toml; do cat \"$file\"; printf '\\n\\001'; done");
    let text = vm.sh(&script).await?;
    // What cannot be read declares nothing.
    let files = text.split(MARK).filter_map(|text| toml::from_str::<File>(text).ok());
    Ok(files.filter_map(|file| Some((file.component.name, file.resources.cgroup?))).collect())
}
