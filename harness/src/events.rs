//! The run's stream of facts: each is written, shown and counted in one place.

use std::cell::RefCell;
use std::io;
use std::path::Path;

use yakiros_reports::event::{Event, EventWriter, Level, ms};
use yakiros_reports::{RunSummary, closing};

use crate::progress::Live;

/// Where everything that happens is told.
#[derive(Debug)]
pub struct Events {
    writer: EventWriter,
    live: Live,
    /// What is known so far, as the reports will have it.
    summary: RefCell<RunSummary>,
}

impl Events {
    /// Creates the file, which must not exist. The run's clock starts now.
    pub fn create(path: &Path, live: Live) -> io::Result<Self> {
        Ok(Self { writer: EventWriter::create(path)?, live, summary: RefCell::default() })
    }

    /// Tells one thing.
    pub fn emit(&self, event: Event) {
        let record = self.writer.emit(event);
        self.summary.borrow_mut().apply(&record);
        self.live.show(&record);
    }

    /// Tells something to people.
    pub fn log(&self, level: Level, message: impl Into<String>) {
        self.emit(Event::log(level, message));
    }

    /// Tells that the run has come to its end.
    pub fn close(&self, interrupted: bool) {
        let end = closing(&self.summary.borrow(), ms(self.writer.start().elapsed()), interrupted);
        self.emit(Event::RunFinished(end));
    }

    /// Events that could not be written.
    pub fn lost(&self) -> u64 {
        self.writer.errors()
    }
}
