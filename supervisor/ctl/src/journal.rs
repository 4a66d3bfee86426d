//! `events` and `why`: the journal, in order and by cause.

use std::fmt::Write as _;

use serde_json::{Value, json};
use yakiros_core::control::{VERSION, WhyPage};
use yakiros_core::journal::Record;

use crate::Failure;
use crate::client::Client;
use crate::clock::rfc3339;
use crate::output::{Output, count};

/// Which events to show.
pub struct Selection<'a> {
    /// Only those of this component.
    pub name: Option<&'a str>,
    /// Only those newer than this revision.
    pub since: u64,
    /// Go on with what comes.
    pub follow: bool,
}

/// Print events until there are no more; when following, until nobody reads them any longer.
pub fn events(client: &mut Client, output: &Output, wanted: &Selection<'_>) -> Result<(), Failure> {
    // Who asks for all there is misses nothing.
    let mut expected = wanted.since > 0;
    let mut shown = 0;
    let mut since = wanted.since;
    loop {
        let page = client.events(since)?;
        let mut text = String::new();
        if expected && page.lost > 0 {
            text.push_str(&lost(output, page.lost));
        }
        expected = true;
        let own = page.records.iter().filter(|r| wanted.name.is_none_or(|name| *r.component == *name));
        for record in own {
            text.push_str(&line(output, record, page.origin_ms));
            shown += 1;
        }
        if !Output::stream(&text) {
            return Ok(());
        }
        since = page.next.unwrap_or(page.revision);
        if page.next.is_some() {
            continue;
        }
        if !wanted.follow {
            // Nothing of a name that was never there is a mistake.
            return match wanted.name.filter(|_| shown == 0 && wanted.since == 0) {
                Some(name) => client.status(Some(name)).map(drop),
                None => Ok(()),
            };
        }
        client.wait_for_change(wanted.name, since, None)?;
    }
}

fn lost(output: &Output, number: u64) -> String {
    if output.is_json() {
        return format!("{}\n", json!({"lost": number}));
    }
    let records = count(usize::try_from(number).unwrap_or(usize::MAX), "record");
    format!("({records} lost: the journal keeps only the newest)\n")
}

fn line(output: &Output, record: &Record, origin_ms: i64) -> String {
    if output.is_json() {
        return format!("{}\n", value(record, origin_ms));
    }
    let after = record.after.map(|revision| format!(" (after {revision})")).unwrap_or_default();
    format!("{:>6} {} {}{after}\n", record.revision, time(record, origin_ms), change(record))
}

fn change(record: &Record) -> String {
    format!("{}: {} \u{2192} {}, {}", record.component, record.from, record.to, record.cause)
}

fn time(record: &Record, origin_ms: i64) -> String {
    let since = i64::try_from(record.time_ms).unwrap_or(i64::MAX);
    rfc3339(origin_ms.saturating_add(since))
}

/// A record for programs, with its time of day.
pub fn value(record: &Record, origin_ms: i64) -> Value {
    let mut value = json!(record);
    value["time"] = json!(time(record, origin_ms));
    value
}

/// Print the chain of causes of a component's newest change.
pub fn why(client: &mut Client, output: &Output, name: &str) -> Result<(), Failure> {
    let chain = client.why(name)?;
    if output.is_json() {
        Output::value(&why_value(&chain));
    } else {
        Output::text(&why_text(&chain));
    }
    Ok(())
}

fn why_value(chain: &WhyPage) -> Value {
    let records: Vec<_> = chain.records.iter().map(|record| value(record, chain.origin_ms)).collect();
    json!({
        "version": VERSION,
        "revision": chain.revision,
        "component": chain.component,
        "state": chain.state,
        "detail": chain.detail,
        "chain": records,
        "lost": chain.lost,
    })
}

fn why_text(chain: &WhyPage) -> String {
    let mut text = format!("{} is {}", chain.component, chain.state);
    if let Some(detail) = &chain.detail {
        let _ = write!(text, ": {detail}");
    }
    text.push('\n');
    for (place, record) in chain.records.iter().enumerate() {
        let arrow = if place == 0 { ' ' } else { '\u{2190}' };
        let (revision, time) = (record.revision, time(record, chain.origin_ms));
        let _ = writeln!(text, "{arrow} {revision:>6} {time} {}", change(record));
    }
    if let Some(revision) = chain.lost {
        let reason = "is no longer kept: the journal holds only the newest records";
        let _ = writeln!(text, "\u{2190} {revision:>6} {reason}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use yakiros_core::journal::{Cause, Exit, State};

    /// 2026-11-21T12:00:00Z.
    const ORIGIN: i64 = 1_795_262_400_000;

    fn record(
        (revision, after): (u64, Option<u64>),
        component: &str,
        (from, to): (State, State),
        cause: Cause,
    ) -> Record {
        let component = component.into();
        Record { revision, time_ms: revision * 100, component, from, to, cause, after }
    }

    fn chain() -> WhyPage {
        use State::{Active, Failed, Inactive, Stopping};
        let lost = Cause::RequirementLost { capability: "db.sql".into() };
        WhyPage {
            component: "web".into(),
            state: Inactive,
            detail: Some("waits for db.sql (its provider db is BACKOFF)".to_owned()),
            records: vec![
                record((12, Some(11)), "web", (Stopping, Inactive), Cause::Ended(Exit::Signal(15))),
                record((11, Some(9)), "web", (Active, Stopping), lost),
                record((9, None), "db", (Active, Failed), Cause::Ended(Exit::Signal(9))),
            ],
            next: None,
            lost: None,
            revision: 20,
            origin_ms: ORIGIN,
        }
    }

    #[test]
    fn a_chain_reads_from_the_newest_to_where_it_began() {
        insta::assert_snapshot!(why_text(&chain()));
        let cut = WhyPage { records: chain().records[..2].to_vec(), lost: Some(9), ..chain() };
        insta::assert_snapshot!(why_text(&cut));
    }

    #[test]
    fn a_chain_for_programs_has_times_of_day() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&why_value(&chain())).expect("JSON"));
    }

    #[test]
    fn events_are_one_line_each() {
        let record = &chain().records[1];
        let (people, programs) = (Output::new(false), Output::new(true));
        let lines = line(&people, record, ORIGIN)
            + &line(&programs, record, ORIGIN)
            + &lost(&people, 1)
            + &lost(&programs, 12);
        insta::assert_snapshot!(lines);
    }
}
