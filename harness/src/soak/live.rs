//! What a person sees meanwhile: how far it is, what is done and how often, how the numbers go, and what comes next.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::Meta;
use super::history::Boot;

/// Where there is no terminal a line is written this often.
const LINE_EVERY: Duration = Duration::from_secs(60);
/// Values of a small curve.
const POINTS: usize = 40;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// What is shown as a curve, with its name for people.
const CURVES: [(&str, &str); 4] = [
    ("pid1_anonymous_kib", "process 1, KiB"),
    ("pid1_descriptors", "its descriptors"),
    ("guest_available_kib", "free memory, KiB"),
    ("cgroups", "control groups"),
];
/// Rates are those of the last so many milliseconds of the guest.
const RATE_SPAN: u64 = 600_000;

/// The view.
pub struct Live {
    bar: Option<ProgressBar>,
    seconds: u64,
    /// Seconds that earlier boots have passed.
    before: u64,
    started: Instant,
    last_line: Instant,
}

impl Live {
    /// Of a run, of which some boots are over.
    pub fn new(meta: &Meta, before: &[Boot]) -> Self {
        let seconds = meta.drive.seconds;
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(seconds);
            if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:30}] {percent} %, {msg}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        let before = before.iter().map(Boot::passed_ms).sum::<u64>() / 1000;
        Self { bar, seconds, before, started: Instant::now(), last_line: Instant::now() }
    }

    /// Shows where things are; the last boot is under way.
    pub fn show(&mut self, boots: &[Boot]) {
        let Some(boot) = boots.last() else { return };
        let passed = self.before + boot.passed_ms() / 1000;
        if let Some(bar) = &self.bar {
            bar.set_position(passed);
            bar.set_prefix(format!("{} of {}", clock(passed), clock(self.seconds)));
            bar.set_message(self.view(boot));
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            eprintln!("{} of {}, {}", clock(passed), clock(self.seconds), self.headline(boot));
        }
    }

    /// A line that stays.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    /// It is over.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn headline(&self, boot: &Boot) -> String {
        if boot.start.is_none() {
            return "the guest boots".into();
        }
        if boot.samples.is_empty() {
            return format!("the journal is filled: {} records", boot.records);
        }
        let failed = boot.events.iter().filter(|event| event.failed.is_some()).count();
        let (_, replies) = boot.series("load_replies");
        let wall = self.started.elapsed().as_secs_f64().max(1.0);
        format!(
            "{} events, {failed} failed, {:.1} a minute; {} replies; {:.1} times the clock",
            boot.events.len(),
            rate(boot),
            replies.last().copied().unwrap_or(0.0),
            boot.passed_ms() as f64 / 1e3 / wall,
        )
    }

    fn view(&self, boot: &Boot) -> String {
        let mut text = self.headline(boot);
        for (name, title) in CURVES {
            let (_, values) = boot.series(name);
            if let Some(last) = values.last() {
                let _infallible = write!(text, "\n  {title:<18} {} {last}", sparkline(&values));
            }
        }
        if let Some(event) = boot.events.last() {
            let target = event.target.as_deref().unwrap_or("");
            let _infallible = write!(
                text,
                "\n  last: {} {target}, {:.1} s; next: {} at {}",
                event.kind,
                event.us as f64 / 1e6,
                event.next.kind,
                clock(self.before + event.next.t / 1000)
            );
        }
        text
    }
}

/// Events in a minute of the guest, of late.
fn rate(boot: &Boot) -> f64 {
    let passed = boot.passed_ms();
    let from = passed.saturating_sub(RATE_SPAN);
    let late = boot.events.iter().rev().take_while(|event| event.t >= from).count();
    late as f64 / ((passed - from).max(1) as f64 / 60_000.0)
}

/// `1:02:03`.
fn clock(seconds: u64) -> String {
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// The values as a row of bars, from the least to the greatest of them.
fn sparkline(values: &[f64]) -> String {
    let size = values.len().div_ceil(POINTS).max(1);
    let points: Vec<f64> =
        values.chunks(size).map(|chunk| chunk.iter().sum::<f64>() / chunk.len() as f64).collect();
    let least = points.iter().copied().fold(f64::INFINITY, f64::min);
    let span = (points.iter().copied().fold(f64::NEG_INFINITY, f64::max) - least).max(f64::MIN_POSITIVE);
    let bar = |value: &f64| BARS[(((value - least) / span) * (BARS.len() - 1) as f64).round() as usize];
    points.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_bars_goes_from_the_least_to_the_greatest() {
        assert_eq!(sparkline(&[0.0, 3.5, 7.0]), "▁▅█");
        assert_eq!(sparkline(&[5.0, 5.0]), "▁▁");
        assert_eq!(sparkline(&[]), "");
        assert_eq!(sparkline(&vec![1.0; 1440]).chars().count(), 40);
    }

    #[test]
    fn times_are_told_as_by_a_clock() {
        assert_eq!([clock(0), clock(3_723), clock(86_400)], ["0:00:00", "1:02:03", "24:00:00"]);
    }
}
