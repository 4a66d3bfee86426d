//! Keeps a whole machine busy for hours, and writes down what it did and what it saw.
//!
//! Nothing outside of the machine has a part in it: what is done, when and to whom, follows from a seed. So it is the same
//! under a clock that skips idle time as under a real one, and can be compared from run to run.
//!
//! What is written is one JSON object a line: `start`, then `event`, `journal` and `sample` in the order of time, then `end`.

mod control;
mod deeds;
mod load;
mod plan;
mod sample;
mod stream;

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use yakiros_test_services::Error;
use yakiros_test_services::args::{Opt, Program, Values};

use load::Load;
use plan::{Kind, Plan};
use stream::Stream;

const PROGRAM: Program = Program {
    name: "test-soak",
    about: "Restarts, kills, upgrades, moves, flaps, reloads and declares components of a machine for hours, under steady\n\
            load, and writes what it did and what it saw as one JSON object a line.",
    options: &[
        Opt { name: "--seed", value: Some("N"), default: Some("1"), help: "what is done follows from it" },
        Opt { name: "--seconds", value: Some("N"), default: Some("3600"), help: "for how long" },
        Opt {
            name: "--pace-ms",
            value: Some("N"),
            default: Some("5000"),
            help: "between two events, on average",
        },
        Opt { name: "--sample-ms", value: Some("N"), default: Some("30000"), help: "between two samples" },
        Opt {
            name: "--load-ms",
            value: Some("N"),
            default: Some("1000"),
            help: "between two rounds of requests",
        },
        Opt {
            name: "--records",
            value: Some("N"),
            default: Some("0"),
            help: "before the time begins restart until the journal has so many records, and make checkpoints",
        },
        Opt { name: "--port", value: Some("N"), default: None, help: "write to this I/O port, byte by byte" },
        Opt { name: "--file", value: Some("FILE"), default: None, help: "append to this file instead" },
    ],
};

/// For everything of the machine to be up, and for what is about to change to have changed.
const SETTLED: Duration = Duration::from_secs(120);
/// More than are kept of a component (`yakiros_checkpoint::store::Policy`).
const CHECKPOINTS: u32 = 11;
/// Restarts between two readings of the journal while it is filled, so that no record of it is missed.
const FILL_STEP: usize = 50;

fn main() -> ExitCode {
    yakiros_test_services::main(&PROGRAM, run)
}

/// What the whole run has.
struct Soak {
    /// When the time began.
    start: Instant,
    stream: Stream,
    load: Load,
    /// The newest record of the journal that was written down.
    revision: u64,
    /// Events so far.
    events: u64,
}

fn run(values: &Values<'_>) -> Result<ExitCode, Error> {
    let seed: u64 = values.parse("--seed")?;
    let pause = |name: &str| values.parse(name).map(Duration::from_millis);
    let (pace, sample_every, load_every) = (pause("--pace-ms")?, pause("--sample-ms")?, pause("--load-ms")?);
    let whole = Duration::from_secs(values.parse("--seconds")?);
    let records: u64 = values.parse("--records")?;
    let stream = Stream::open(values.optional("--port")?, values.optional_path("--file").as_deref());
    let stream = stream.map_err(Error::failed("open what to write to"))?;
    let mut soak =
        Soak { start: Instant::now(), stream, load: Load::begin(load_every), revision: 0, events: 0 };
    let ready = control::settled(SETTLED);
    let without = control::without();
    let fixed = json!({
        "k": "start", "version": 1, "seed": seed, "seconds": whole.as_secs(), "pace_ms": pace.as_millis() as u64,
        "sample_ms": sample_every.as_millis() as u64, "load_ms": load_every.as_millis() as u64,
        "kernel": sample::kernel(), "left_out": without.iter().map(|(kind, why)| {
            json!({ "kind": kind.name(), "why": why })
        }).collect::<Vec<_>>(), "failed": ready.err(),
    });
    soak.stream.line(&fixed).map_err(Error::failed("write"))?;
    let checkpoints = if records > 0 && without.is_empty() { CHECKPOINTS } else { 0 };
    let left_out: Vec<Kind> = without.into_iter().map(|(kind, _)| kind).collect();
    let end = soak.everything(&Plan::new(seed, pace, &left_out), whole, sample_every, (records, checkpoints));
    let end = end.map_err(Error::failed("go on"))?;
    soak.stream.line(&end).map_err(Error::failed("write"))?;
    // The component stays as it is: its end would be one more change of the machine.
    loop {
        thread::park();
    }
}

impl Soak {
    fn everything(
        &mut self,
        plan: &Plan,
        whole: Duration,
        sample_every: Duration,
        (records, checkpoints): (u64, u32),
    ) -> std::io::Result<Value> {
        self.fill(plan, records, checkpoints)?;
        self.load.steady();
        self.start = Instant::now();
        let mut events = plan.events();
        let mut next = events.next_event();
        let mut next_sample = Duration::ZERO;
        loop {
            let due = next.due.min(next_sample).min(whole);
            thread::sleep(due.saturating_sub(self.start.elapsed()));
            if next_sample <= due {
                self.journal()?;
                self.sample()?;
                next_sample += sample_every;
            } else if due >= whole {
                break;
            } else {
                let now = next;
                next = events.next_event();
                // What takes longer than the pace moves what follows, it does not pile it up.
                next.due = next.due.max(self.start.elapsed());
                self.event(&now, &next)?;
            }
        }
        let settled = control::settled(SETTLED);
        self.journal()?;
        self.sample()?;
        let ill = control::ill();
        Ok(
            json!({ "k": "end", "t": self.t_ms(), "events": self.events, "ill": ill, "failed": settled.err() }),
        )
    }

    /// The journal keeps so many records and no more, and so do the checkpoints of a component; until they are all there both
    /// grow, which is no leak. What is done for the first time may take memory that it takes but once, so all is done once.
    fn fill(&mut self, plan: &Plan, records: u64, checkpoints: u32) -> std::io::Result<()> {
        if records > 0 {
            self.load.steady();
            for event in plan.each_once() {
                // What goes wrong goes wrong again when it counts.
                drop(deeds::act(&event, &self.load));
            }
        }
        for _ in 0..checkpoints {
            control::checkpoint_at_once();
        }
        while control::revision() < records {
            // A supervisor that does not answer would have this go on for ever.
            control::restart_often(FILL_STEP)?;
            // A failure here shows as events that fail.
            drop(control::settled(SETTLED));
            self.journal()?;
        }
        Ok(())
    }

    fn event(&mut self, event: &plan::Event, next: &plan::Event) -> std::io::Result<()> {
        let begun = Instant::now();
        let done = deeds::act(event, &self.load);
        self.events += 1;
        let (detail, failed) = match done {
            Ok(detail) => (detail, None),
            Err(why) => (Value::Null, Some(why)),
        };
        self.stream.line(&json!({
            "k": "event", "t": self.t_ms(), "n": self.events, "kind": event.kind.name(), "target": event.target(),
            "us": begun.elapsed().as_micros() as u64, "failed": failed, "detail": detail,
            "next": { "kind": next.kind.name(), "t": next.due.as_millis() as u64 },
        }))
    }

    /// Passes on what the supervisor has written into its journal since the last time.
    fn journal(&mut self) -> std::io::Result<()> {
        let t = self.t_ms();
        match control::journal(self.revision) {
            Ok(records) => {
                for record in records {
                    self.revision = record["revision"].as_u64().unwrap_or(self.revision);
                    self.stream.line(&json!({ "k": "journal", "t": t, "record": record }))?;
                }
                Ok(())
            }
            Err(why) => self.stream.line(&json!({ "k": "journal", "t": t, "failed": why })),
        }
    }

    fn sample(&mut self) -> std::io::Result<()> {
        let mut values = sample::take();
        self.load.take(&mut values);
        self.stream
            .line(&json!({ "k": "sample", "t": self.t_ms(), "v": values, "lost": self.load.complaints() }))
    }

    fn t_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}
