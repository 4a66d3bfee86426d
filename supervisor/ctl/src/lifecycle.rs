//! `readiness` and `upgrade`.

mod steps;

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use yakiros_core::component::Strategy;
use yakiros_core::control::{
    Answer, ComponentReadiness, Readiness, Request, UpgradeForm, UpgradeLevel, Upgraded, VERSION,
};

use crate::client::Client;
use crate::output::{Output, count, state_cell, uptime};
use crate::tables::{Cell, draw};
use crate::upgrade::Wish;
use crate::{Failure, milliseconds, unexpected};
use steps::Steps;

/// Print how components say that they are ready, and whether they have.
pub fn readiness(client: &mut Client, output: &Output, name: Option<&str>) -> Result<(), Failure> {
    let all = pages(client, name)?;
    if output.is_json() {
        Output::value(&json!({"version": VERSION, "components": all}));
    } else {
        Output::text(&readiness_text(&all));
    }
    Ok(())
}

fn pages(client: &mut Client, name: Option<&str>) -> Result<Vec<ComponentReadiness>, Failure> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let name = name.map(str::to_owned);
        match client.ask(Request::Readiness { name, after }, Duration::ZERO)? {
            Answer::Readiness(page) => {
                all.extend(page.components);
                after = page.next;
            }
            other => return Err(unexpected(other)),
        }
        if after.is_none() {
            return Ok(all);
        }
    }
}

fn readiness_text(all: &[ComponentReadiness]) -> String {
    let dash = || "-".to_owned();
    let rows: Vec<_> = all
        .iter()
        .map(|c| {
            let method = match &c.what {
                Some(what) => format!("{} {what}", c.method),
                None => c.method.clone(),
            };
            vec![
                Cell::plain(&*c.name),
                state_cell(c.state),
                Cell::plain(word(c.readiness)),
                Cell::plain(c.for_ms.map_or_else(dash, uptime)),
                Cell::plain(c.timeout_ms.map_or_else(dash, seconds)),
                Cell::plain(method),
            ]
        })
        .collect();
    let count = |readiness| all.iter().filter(|c| c.readiness == readiness).count();
    let mut text = draw(&["COMPONENT", "STATE", "READY", "FOR", "TIMEOUT", "METHOD"], &rows);
    let _ = writeln!(
        text,
        "Total: {} ready, {} waiting, {} down",
        count(Readiness::Ready),
        count(Readiness::Waiting),
        count(Readiness::Down)
    );
    text
}

fn word(readiness: Readiness) -> &'static str {
    match readiness {
        Readiness::Ready => "ready",
        Readiness::Waiting => "waiting",
        Readiness::Down => "down",
    }
}

/// `30s`, `0.5s`.
fn seconds(ms: u64) -> String {
    format!("{}s", Duration::from_millis(ms).as_secs_f64())
}

/// Upgrade a component; print for people each step when it is done, and in the end how it was done. Returns that for
/// programs.
pub fn upgrade(client: &mut Client, output: &Output, name: &str, wish: &Wish) -> Result<Value, Failure> {
    let Wish { fallback, queue, strategy, timeout } = *wish;
    let timeout_ms = Some(milliseconds(timeout));
    let request = Request::Upgrade { name: name.to_owned(), fallback, queue, strategy, timeout_ms };
    let steps = Steps::begin(client, output, name)?;
    let answer = client.ask(request, timeout);
    // What came of it counts more than the steps to it.
    let records = steps.end(client).unwrap_or_else(|failure| {
        Output::note(&format!("the steps are not known: {}", failure.parts().1));
        Vec::new()
    });
    match answer? {
        Answer::Upgraded(done) => {
            if !output.is_json() {
                Output::text(&upgrade_text(&done));
            }
            let mut value = json!(done);
            value["steps"] = json!(records);
            Ok(value)
        }
        other => Err(unexpected(other)),
    }
}

fn upgrade_text(done: &Upgraded) -> String {
    let way = match done.level {
        UpgradeLevel::Restart => "a restart",
        UpgradeLevel::FdPassing
            if matches!(done.form, Some(UpgradeForm::Listeners | UpgradeForm::Signal)) =>
        {
            "a process beside the old one"
        }
        UpgradeLevel::FdPassing => "passing its descriptors on",
        UpgradeLevel::Checkpoint => "a checkpoint",
    };
    let mut text = format!("{} was upgraded by {way}\n", done.component);
    for passed in &done.passed_over {
        let how = passed.strategy.map_or_else(String::new, |strategy| format!(" as {}", strategy.name()));
        let _ = writeln!(text, "not by {}{how}: {}", passed.level, passed.reason);
    }
    let _ = match done.gap_us {
        Some(gap) => writeln!(text, "gap: {:?}", Duration::from_micros(gap)),
        None => writeln!(text, "gap: none, it was not up"),
    };
    if let (Some(descriptors), Some(bytes)) = (done.descriptors, done.state_bytes) {
        let descriptors = count(descriptors as usize, "descriptor");
        let _ = writeln!(text, "moved: {descriptors} and {bytes} bytes of state");
    }
    if let (UpgradeLevel::Checkpoint, Some(bytes)) = (done.level, done.state_bytes) {
        let _ = writeln!(text, "moved: {bytes} bytes of it, by the same process");
    }
    if let Some(ms) = done.probation_ms {
        let what = if done.strategy == Strategy::Canary { "canary" } else { "probation" };
        let _ = writeln!(text, "{what}: {:?}", Duration::from_millis(ms));
    }
    let descriptors = count(done.descriptors.unwrap_or(0) as usize, "descriptor");
    let _ = match done.form {
        Some(UpgradeForm::Listeners) => writeln!(text, "form: listeners, {descriptors} held for both"),
        Some(UpgradeForm::Signal) => {
            writeln!(text, "form: signal, {descriptors} given when asked by SIGUSR1")
        }
        Some(UpgradeForm::Protocol) | None => Ok(()),
    };
    let _ = writeln!(text, "generation: {}", done.generation);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use yakiros_core::control::PassedOver;
    use yakiros_core::journal::State;

    fn entry(name: &str, state: State, readiness: Readiness, for_ms: Option<u64>) -> ComponentReadiness {
        ComponentReadiness {
            name: name.into(),
            state,
            method: "none".to_owned(),
            what: None,
            timeout_ms: None,
            interval_ms: None,
            readiness,
            for_ms,
        }
    }

    #[test]
    fn readiness_is_a_table() {
        let file = ComponentReadiness {
            method: "file".to_owned(),
            what: Some("/run/db.ready".to_owned()),
            timeout_ms: Some(2500),
            ..entry("db", State::ReadyWait, Readiness::Waiting, Some(1200))
        };
        let all = [
            file,
            entry("job", State::Failed, Readiness::Down, None),
            entry("web", State::Active, Readiness::Ready, Some(65_000)),
        ];
        insta::assert_snapshot!(anstream::adapter::strip_str(&readiness_text(&all)));
    }

    #[test]
    fn an_upgrade_names_its_way_and_its_gap() {
        let passed = |level| PassedOver { level, strategy: None, reason: "a device is open".to_owned() };
        let done = Upgraded {
            component: "web".into(),
            level: UpgradeLevel::Restart,
            form: None,
            strategy: Strategy::AllAtOnce,
            passed_over: vec![passed(UpgradeLevel::Checkpoint), passed(UpgradeLevel::FdPassing)],
            gap_us: Some(12_345),
            generation: 3,
            descriptors: None,
            state_bytes: None,
            probation_ms: None,
            revision: 7,
        };
        insta::assert_snapshot!(upgrade_text(&done));
        let swapped = Upgraded {
            level: UpgradeLevel::FdPassing,
            passed_over: Vec::new(),
            gap_us: Some(850),
            descriptors: Some(1001),
            state_bytes: Some(4096),
            probation_ms: Some(30_000),
            ..done.clone()
        };
        insta::assert_snapshot!(upgrade_text(&swapped));
        let canary = Upgraded { strategy: Strategy::Canary, ..swapped.clone() };
        assert!(upgrade_text(&canary).contains("\ncanary: 30s\n"));
        let reason = "it does not say that it can".to_owned();
        let passed = PassedOver { level: UpgradeLevel::FdPassing, strategy: Some(Strategy::Canary), reason };
        let at_once = Upgraded { passed_over: vec![passed], ..swapped };
        assert!(upgrade_text(&at_once).contains("\nnot by fd-passing as canary: it does not say"));
        let idle = Upgraded { passed_over: Vec::new(), gap_us: None, ..done };
        insta::assert_snapshot!(upgrade_text(&idle));
        let same =
            Upgraded { level: UpgradeLevel::Checkpoint, gap_us: Some(850), state_bytes: Some(4096), ..idle };
        insta::assert_snapshot!(upgrade_text(&same), @r"
        web was upgraded by a checkpoint
        gap: 850µs
        moved: 4096 bytes of it, by the same process
        generation: 3
        ");
    }
}
