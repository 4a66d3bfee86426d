//! The run's stream of facts: each is written, shown and counted in one place.

use std::cell::Cell;
use std::io;
use std::path::Path;
use std::time::Duration;

use yakiros_reports::event::{Counts, Event, EventWriter, Level};

use crate::progress::Live;

/// Where everything that happens is told.
#[derive(Debug)]
pub struct Events {
    writer: EventWriter,
    live: Live,
    counts: Cell<Counts>,
}

impl Events {
    /// Creates the file, which must not exist. The run's clock starts now.
    pub fn create(path: &Path, live: Live) -> io::Result<Self> {
        Ok(Self { writer: EventWriter::create(path)?, live, counts: Cell::default() })
    }

    /// Tells one thing.
    pub fn emit(&self, event: Event) {
        let record = self.writer.emit(event);
        if let Event::ScenarioFinished(finished) = &record.event {
            let mut counts = self.counts.get();
            counts.add(finished.outcome);
            self.counts.set(counts);
        }
        self.live.show(&record);
    }

    /// Tells something to people.
    pub fn log(&self, level: Level, message: impl Into<String>) {
        self.emit(Event::log(level, message));
    }

    /// Scenarios that have ended, by outcome.
    pub fn counts(&self) -> Counts {
        self.counts.get()
    }

    /// Events that could not be written.
    pub fn lost(&self) -> u64 {
        self.writer.errors()
    }

    /// Since the file was created.
    pub fn elapsed(&self) -> Duration {
        self.writer.start().elapsed()
    }
}
