//! What the guest has written down, read back: a line for each thing, see `test-services/src/bin/test-soak`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// Everything that is known of one boot.
#[derive(Debug, Clone, Default)]
pub struct Boot {
    /// The first line; `None` while the guest boots.
    pub start: Option<Start>,
    /// What was done.
    pub events: Vec<Done>,
    /// What was looked at.
    pub samples: Vec<Sample>,
    /// Records of the supervisor's journal so far.
    pub records: u64,
    /// Records that were no longer kept when they were asked for, and questions that were not answered.
    pub lost_records: Vec<String>,
    /// The last line; `None` before it.
    pub end: Option<End>,
    /// Lines that make no sense.
    pub unreadable: u64,
}

/// The first line.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Start {
    /// Whose kernel.
    pub kernel: String,
    /// What this machine cannot do.
    pub left_out: Vec<LeftOut>,
    /// Why the machine was not up when everything began.
    pub failed: Option<String>,
}

/// A kind of event that does not come.
#[derive(Debug, Clone, Deserialize)]
pub struct LeftOut {
    /// Which.
    pub kind: String,
    /// Why not.
    pub why: String,
}

/// Something that was done.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Done {
    /// Milliseconds of the guest since its time began.
    pub t: u64,
    /// What.
    pub kind: String,
    /// To whom.
    pub target: Option<String>,
    /// Microseconds of the guest that it took.
    pub us: u64,
    /// Why it did not come to what it should.
    pub failed: Option<String>,
    /// What was told of it.
    #[serde(default)]
    pub detail: Value,
    /// What comes next, and when.
    pub next: Next,
}

/// What is going to be done.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Next {
    /// Milliseconds of the guest since its time began.
    pub t: u64,
    /// What.
    pub kind: String,
}

/// Numbers at one time.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Sample {
    /// Milliseconds of the guest since its time began.
    pub t: u64,
    /// By name.
    #[serde(rename = "v")]
    pub values: BTreeMap<String, i64>,
    /// What clients complained of since the last one.
    pub lost: Vec<String>,
}

/// The last line.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct End {
    /// Milliseconds of the guest since its time began.
    pub t: u64,
    /// Components that are not as they should be.
    pub ill: Vec<String>,
    /// Why the machine was not at rest at the end.
    pub failed: Option<String>,
}

#[derive(Deserialize)]
struct Journal {
    record: Option<Value>,
    failed: Option<String>,
}

#[derive(Deserialize)]
struct Kind {
    k: String,
}

impl Boot {
    /// All of a stream. A last line without its end, as a guest leaves that was killed, is not looked at.
    pub fn read(text: &str) -> Self {
        let mut boot = Self::default();
        text.split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'))
            .for_each(|line| boot.take(line));
        boot
    }

    /// One line more.
    pub fn take(&mut self, line: &str) {
        if self.try_take(line).is_none() {
            self.unreadable += 1;
        }
    }

    fn try_take(&mut self, line: &str) -> Option<()> {
        let Kind { k } = serde_json::from_str(line).ok()?;
        match k.as_str() {
            "start" => self.start = Some(serde_json::from_str(line).ok()?),
            "event" => self.events.push(serde_json::from_str(line).ok()?),
            "sample" => self.samples.push(serde_json::from_str(line).ok()?),
            "end" => self.end = Some(serde_json::from_str(line).ok()?),
            "journal" => {
                let Journal { record, failed } = serde_json::from_str(line).ok()?;
                self.lost_records.extend(failed);
                match record {
                    Some(record) if record["lost"].is_u64() => self.lost_records.push(record.to_string()),
                    Some(_) => self.records += 1,
                    None => {}
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// Milliseconds of the guest that have passed, as far as it has told.
    pub fn passed_ms(&self) -> u64 {
        let last = [
            self.events.last().map(|event| event.t),
            self.samples.last().map(|sample| sample.t),
            self.end.as_ref().map(|end| end.t),
        ];
        last.into_iter().flatten().max().unwrap_or(0)
    }

    /// What lies in a span of time, in milliseconds; the beginning belongs to it.
    #[must_use]
    pub fn between(&self, from: u64, to: u64) -> Self {
        let within = |t: u64| t >= from && t < to;
        Self {
            start: self.start.clone(),
            events: self.events.iter().filter(|event| within(event.t)).cloned().collect(),
            samples: self.samples.iter().filter(|sample| within(sample.t)).cloned().collect(),
            end: self.end.clone().filter(|end| within(end.t)),
            ..Self::default()
        }
    }

    /// A number over time: seconds, and what it was.
    pub fn series(&self, name: &str) -> (Vec<f64>, Vec<f64>) {
        let seen = self.samples.iter().filter_map(|sample| Some((sample.t, *sample.values.get(name)?)));
        seen.map(|(t, value)| (t as f64 / 1e3, value as f64)).unzip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = r#"{"k":"start","kernel":"6.1","left_out":[{"kind":"move","why":"no CRIU"}],"failed":null}
{"k":"sample","t":0,"v":{"a":1},"lost":[]}
{"k":"journal","t":0,"record":{"revision":1}}
{"k":"journal","t":0,"record":{"lost":7}}
{"k":"event","t":900,"n":1,"kind":"reload","target":null,"us":5,"failed":null,"detail":null,"next":{"kind":"kill","t":2000}}
{"k":"sample","t":1000,"v":{"a":3,"b":4},"lost":["echo: gone"]}
{"k":"noise"}
{"k":"end","t":1500,"events":1,"ill":[],"failed":null}
{"k":"sample","t":99"#;

    #[test]
    fn a_stream_is_read_up_to_its_torn_line() {
        let boot = Boot::read(STREAM);
        assert_eq!((boot.events.len(), boot.samples.len(), boot.records, boot.unreadable), (1, 2, 1, 1));
        assert_eq!(boot.lost_records, [r#"{"lost":7}"#]);
        assert_eq!(boot.series("a"), (vec![0.0, 1.0], vec![1.0, 3.0]));
        assert_eq!(boot.series("b"), (vec![1.0], vec![4.0]));
        assert_eq!(boot.passed_ms(), 1500);
        assert_eq!(boot.start.as_ref().unwrap().left_out[0].kind, "move");
    }

    #[test]
    fn a_span_has_its_beginning_and_not_its_end() {
        let boot = Boot::read(STREAM).between(900, 1000);
        assert_eq!((boot.events.len(), boot.samples.len(), boot.end.is_some()), (1, 0, false));
    }
}
