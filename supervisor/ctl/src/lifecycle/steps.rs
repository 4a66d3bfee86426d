//! What becomes of a component while a request about it is under way.
//!
//! For people each record is printed when it comes; for programs all of them are kept for the answer.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde_json::Value;
use yakiros_core::journal::Record;

use crate::Failure;
use crate::client::Client;
use crate::journal;
use crate::output::Output;

/// The records of a component from a moment on.
pub struct Steps {
    name: String,
    told: Arc<Mutex<Told>>,
}

/// How far they are told.
struct Told {
    since: u64,
    /// The time of the first one, in milliseconds.
    began: Option<u64>,
    aloud: bool,
    /// The request is answered: nobody but who has asked goes on.
    over: bool,
    records: Vec<Value>,
}

impl Steps {
    /// From now on.
    pub fn begin(client: &mut Client, output: &Output, name: &str) -> Result<Self, Failure> {
        let since = client.status(Some(name))?.revision;
        let aloud = !output.is_json();
        let told = Told { since, began: None, aloud, over: false, records: Vec::new() };
        let steps = Self { name: name.to_owned(), told: Arc::new(Mutex::new(told)) };
        if aloud {
            let (name, told) = (steps.name.clone(), Arc::clone(&steps.told));
            let mut beside = client.another();
            // It ends with the program, at the latest. Without it the records are printed with the answer.
            thread::spawn(move || follow(&mut beside, &name, &told));
        }
        Ok(steps)
    }

    /// The request is answered: tell what is left, and return all if nothing was printed.
    pub fn end(self, client: &mut Client) -> Result<Vec<Value>, Failure> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.over = true;
        told.go_on(client, &self.name)?;
        Ok(std::mem::take(&mut told.records))
    }
}

fn follow(client: &mut Client, name: &str, told: &Mutex<Told>) {
    let lock = || told.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let since = lock().since;
        if client.wait_for_change(Some(name), since, None).is_err() {
            return;
        }
        let mut told = lock();
        if told.over || told.go_on(client, name).is_err() {
            return;
        }
    }
}

impl Told {
    /// Tell what has come since.
    fn go_on(&mut self, client: &mut Client, name: &str) -> Result<(), Failure> {
        loop {
            let page = client.events(self.since)?;
            for record in page.records.iter().filter(|record| *record.component == *name) {
                if self.aloud {
                    let began = *self.began.get_or_insert(record.time_ms);
                    Output::stream(&line(record, began));
                } else {
                    self.records.push(journal::value(record, page.origin_ms));
                }
            }
            self.since = page.next.unwrap_or(page.revision).max(self.since);
            if page.next.is_none() {
                return Ok(());
            }
        }
    }
}

fn line(record: &Record, began: u64) -> String {
    let Record { time_ms, from, to, cause, .. } = record;
    let after = format!("{} ms", time_ms.saturating_sub(began));
    if from == to {
        return format!("{after:>9}  {cause}\n");
    }
    format!("{after:>9}  {from} \u{2192} {to}, {cause}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use yakiros_core::journal::{Cause, Progress, State};

    #[test]
    fn a_step_is_a_line_with_its_time_since_the_first() {
        let moved = Progress::Moved { descriptors: 12, state_bytes: 4096 };
        let record = |to, cause| Record {
            revision: 7,
            time_ms: 1234,
            component: "web".into(),
            from: State::Active,
            to,
            cause,
            after: None,
        };
        let swap = record(State::Active, Cause::Handover { generation: 3, progress: moved });
        assert_eq!(
            line(&swap, 1200),
            "    34 ms  generation 3 has got 12 descriptors and 4096 bytes of state\n"
        );
        let restart = record(State::Stopping, Cause::Restart);
        assert_eq!(line(&restart, 1234), "     0 ms  ACTIVE \u{2192} STOPPING, restarted\n");
    }
}
