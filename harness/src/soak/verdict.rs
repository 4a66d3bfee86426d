//! What a soak comes to: one check for everything that could be wrong, under the outcomes that scenarios have.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use yakiros_reports::event::{Culprit, Outcome};

use super::history::{Boot, Done};
use super::series::{Rule, WATCHED, Watched, cycles_per_hour, series};
use super::trend::{self, Verdict};

/// Of a boot's samples so many hundredths come first, while everything still finds its place.
const WARM_UP: usize = 10;
/// Of what went wrong so many are told.
const TOLD: usize = 5;

/// Whether it came to its end.
const LASTS: &str = "it_lasts";

/// One thing that was judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// Its name among scenarios.
    pub name: String,
    /// How it came out.
    pub outcome: Outcome,
    /// Why not, or what was seen.
    pub reason: Option<String>,
    /// Who is to blame.
    pub culprit: Option<Culprit>,
    /// What was seen, also of what passed.
    pub seen: String,
}

impl Check {
    fn passed(name: impl Into<String>, seen: impl Into<String>) -> Self {
        let (name, seen) = (name.into(), seen.into());
        Self { name, outcome: Outcome::Passed, reason: None, culprit: None, seen }
    }

    fn failed(name: impl Into<String>, reason: String) -> Self {
        let name = name.into();
        let seen = reason.clone();
        Self {
            name,
            outcome: Outcome::Failed,
            reason: Some(reason),
            culprit: Some(Culprit::Supervisor),
            seen,
        }
    }

    fn skipped(name: impl Into<String>, reason: impl Into<String>) -> Self {
        let (name, reason) = (name.into(), reason.into());
        let seen = reason.clone();
        Self { name, outcome: Outcome::Skipped, reason: Some(reason), culprit: None, seen }
    }

    /// It has run for as long as it was to.
    pub fn lasts(passed_ms: u64) -> Self {
        Self::passed(LASTS, format!("{} s", passed_ms / 1000))
    }

    /// Whether it is about how long it was.
    pub fn is_about_time(&self) -> bool {
        self.name == LASTS
    }

    /// It was ended before that by who wanted it to.
    pub fn interrupted(passed_ms: u64) -> Self {
        Self::skipped(LASTS, format!("interrupted after {} s", passed_ms / 1000))
    }

    /// It has not.
    pub fn broken(reason: String, culprit: Culprit) -> Self {
        Self { culprit: Some(culprit), ..Self::failed(LASTS, reason) }
    }

    /// It could not be judged, because the machinery failed.
    pub fn infrastructure(reason: String) -> Self {
        Self { outcome: Outcome::InfraFailed, ..Self::broken(reason, Culprit::Vmm) }
    }

    fn unless(name: &str, wrong: &[String], seen: String) -> Self {
        if wrong.is_empty() { Self::passed(name, seen) } else { Self::failed(name, told(wrong)) }
    }
}

/// The first of many.
fn told(all: &[String]) -> String {
    let mut text = all.iter().take(TOLD).cloned().collect::<Vec<_>>().join("; ");
    if all.len() > TOLD {
        let _infallible = write!(text, "; and {} more", all.len() - TOLD);
    }
    text
}

/// Everything about some time of some boots. Trends are judged over all that was `so_far`, from the beginning on; `whole` says
/// that nothing comes after it, and what is only so at the end is judged as well.
pub fn checks(boots: &[Boot], so_far: &[Boot], whole: bool) -> Vec<Check> {
    let mut checks = vec![comes_up(boots)];
    checks.extend(kinds(boots));
    checks.push(clients(boots));
    if whole {
        checks.push(journal(boots));
        checks.push(end(boots));
    }
    let judged = WATCHED.iter().filter(|one| !matches!(one.rule, Rule::Shown(_)));
    checks.extend(judged.filter_map(|one| flat(so_far, one)));
    checks
}

fn comes_up(boots: &[Boot]) -> Check {
    // One before the last that has said nothing went with the harness while it booted.
    let spoke = |(place, boot): (usize, &Boot)| match &boot.start {
        Some(start) => start.failed.clone(),
        None => (place + 1 == boots.len()).then(|| "the guest has said nothing".into()),
    };
    let wrong: Vec<String> = boots.iter().enumerate().filter_map(spoke).collect();
    let kernel = boots.iter().find_map(|boot| boot.start.as_ref()).map(|start| start.kernel.clone());
    Check::unless("the_machine_comes_up", &wrong, format!("kernel {}", kernel.unwrap_or_default()))
}

/// A check for each kind of event.
fn kinds(boots: &[Boot]) -> Vec<Check> {
    let mut by_kind: BTreeMap<&str, Vec<&Done>> = BTreeMap::new();
    for event in boots.iter().flat_map(|boot| &boot.events) {
        by_kind.entry(&event.kind).or_default().push(event);
    }
    let mut checks: Vec<Check> = by_kind.iter().map(|(kind, events)| of_kind(kind, events)).collect();
    let left_out = boots.iter().filter_map(|boot| boot.start.as_ref()).flat_map(|start| &start.left_out);
    for left in left_out {
        let name = every(&left.kind);
        if checks.iter().all(|check| check.name != name) {
            checks.push(Check::skipped(name, format!("this machine cannot: {}", left.why)));
        }
    }
    checks
}

fn every(kind: &str) -> String {
    format!("every_{kind}_ends_well")
}

fn of_kind(kind: &str, events: &[&Done]) -> Check {
    let wrong: Vec<String> = events
        .iter()
        .filter_map(|event| {
            let why = event.failed.as_ref()?;
            let target = event.target.as_deref().map(|target| format!(" {target}")).unwrap_or_default();
            Some(format!("after {} s{target}: {why}", event.t / 1000))
        })
        .collect();
    let mut took: Vec<u64> = events.iter().map(|event| event.us).collect();
    took.sort_unstable();
    let middle = took.get(took.len() / 2).copied().unwrap_or(0) / 1000;
    let longest = took.last().copied().unwrap_or(0) / 1000;
    let mut check = Check::unless(
        &every(kind),
        &wrong,
        format!("{} of them, median {middle} ms, longest {longest} ms", events.len()),
    );
    if let Some(reason) = &mut check.reason {
        *reason = format!("{} of {} went wrong: {reason}", wrong.len(), events.len());
    }
    check
}

/// Who asks what is upgraded and moved gets every answer.
fn clients(boots: &[Boot]) -> Check {
    const NAME: &str = "clients_lose_nothing";
    let span = |boot: &Boot, name: &str| {
        let (_, values) = boot.series(name);
        values.last().copied().unwrap_or(0.0) - values.first().copied().unwrap_or(0.0)
    };
    let all = |name| boots.iter().map(|boot| span(boot, name)).sum::<f64>();
    let (replies, failures) = (all("load_replies"), all("load_failures"));
    let complaints: Vec<String> = boots
        .iter()
        .flat_map(|boot| &boot.samples)
        .flat_map(|sample| {
            sample.lost.iter().map(move |lost| format!("before {} s: {lost}", sample.t / 1000))
        })
        .collect();
    if failures > 0.0 || !complaints.is_empty() {
        return Check::failed(
            NAME,
            format!(
                "{failures} requests of {} had no good answer: {}",
                replies + failures,
                told(&complaints)
            ),
        );
    }
    if replies == 0.0 {
        return Check::skipped(NAME, "nothing was asked so far");
    }
    Check::passed(NAME, format!("{replies} replies"))
}

fn journal(boots: &[Boot]) -> Check {
    let wrong: Vec<String> = boots
        .iter()
        .flat_map(|boot| {
            let torn = (boot.unreadable > 0).then(|| format!("{} lines cannot be read", boot.unreadable));
            boot.lost_records.iter().cloned().chain(torn)
        })
        .collect();
    let records: u64 = boots.iter().map(|boot| boot.records).sum();
    Check::unless("the_journal_is_whole", &wrong, format!("{records} records"))
}

fn end(boots: &[Boot]) -> Check {
    const NAME: &str = "all_are_well_at_the_end";
    let Some(end) = boots.last().and_then(|boot| boot.end.as_ref()) else {
        return Check::skipped(NAME, "the end was not reached");
    };
    let wrong: Vec<String> = end.ill.iter().cloned().chain(end.failed.clone()).collect();
    Check::unless(NAME, &wrong, String::new())
}

/// The worst of the boots.
fn flat(boots: &[Boot], one: &Watched) -> Option<Check> {
    let name = format!("{}_stays", one.name);
    let mut seen = Vec::new();
    let mut rising = Vec::new();
    for boot in boots {
        let (hours, values) = series(boot, one.name);
        let warm = values.len() * WARM_UP / 100;
        let (hours, values) = (&hours[warm..], &values[warm..]);
        let cycles = cycles_per_hour(boot);
        let least = one.rule.least_per_hour(cycles)?;
        let turned: Vec<f64> = values.iter().map(|value| value * one.rule.sign()).collect();
        let describe = |trend: trend::Trend| {
            let first = values.first().copied().unwrap_or(0.0);
            let last = values.last().copied().unwrap_or(0.0);
            let each = if cycles > 0.0 { trend.slope / cycles } else { 0.0 };
            format!(
                "{:+.2} {} an hour, {each:+.4} for each of {cycles:.0} cycles an hour; at least {:+.2} with a confidence of \
                 one in a thousand, {least:.2} matters; from {first} to {last}",
                trend.slope * one.rule.sign(),
                one.unit,
                trend.lower * one.rule.sign(),
            )
        };
        match trend::judge(hours, &turned, least) {
            Verdict::Rising(trend) => rising.push(describe(trend)),
            Verdict::Flat(trend) => seen.push(describe(trend)),
            Verdict::TooFew => {}
        }
    }
    Some(if !rising.is_empty() {
        let verb = if one.rule.sign() > 0.0 { "rises" } else { "falls" };
        Check::failed(name, format!("it {verb}: {}", rising.join("; ")))
    } else if seen.is_empty() {
        let too_few = format!("a trend needs {} samples after the first {WARM_UP} %", trend::LEAST_SAMPLES);
        Check::skipped(name, too_few)
    } else {
        Check::passed(name, seen.join("; "))
    })
}

#[cfg(test)]
mod tests;
