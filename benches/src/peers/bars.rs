//! What our own supervisor has to reach. Times that the machine decides are ratios to a peer of the same run.

use serde::Serialize;

use super::inits::RESOLVER;
use super::report::{Figures, Row, median};

/// One figure against its bar.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// What was measured, with its unit.
    pub what: &'static str,
    /// The most it may be.
    pub bar: f64,
    /// What it was; nothing when it could not be measured.
    pub value: Option<f64>,
    /// Whether it was measured and is within the bar. Unmeasured for want of a peer is neither.
    pub passed: Option<bool>,
}

/// A bar, and how its figure is read from our row and from that of the peer that sets the pace.
struct Bar {
    what: &'static str,
    most: f64,
    read: fn(&Figures, Option<&Figures>) -> Option<f64>,
    /// Whether it needs the peer.
    relative: bool,
}

/// The peer to which times are compared.
const PACE: &str = "dinit";

const BARS: [Bar; 10] = [
    Bar {
        what: "Pss of process 1 with 1 service, kB",
        most: 1200.0,
        read: |own, _| pss(own, 1),
        relative: false,
    },
    Bar {
        what: "Pss of process 1 with 20 services, kB",
        most: 1300.0,
        read: |own, _| pss(own, 20),
        relative: false,
    },
    Bar {
        what: "Pss of process 1 with 100 services, kB",
        most: 1600.0,
        read: |own, _| pss(own, 100),
        relative: false,
    },
    Bar { what: "100 services started, of dinit's time", most: 0.75, read: start_ratio, relative: true },
    Bar {
        what: "kill -9 to exec, median ms",
        most: 0.5,
        read: |own, _| median(&own.respawn_ms),
        relative: false,
    },
    Bar {
        what: "kill -9 to exec, worst of 50, ms",
        most: 5.0,
        read: |own, _| own.respawn_ms.iter().copied().reduce(f64::max),
        relative: false,
    },
    Bar { what: "a chain of 1,000 services, ms", most: 600.0, read: |own, _| own.chain_ms, relative: false },
    Bar {
        what: "wake-ups of 20 idle services",
        most: 0.0,
        read: |own, _| own.idle.as_ref().map(|idle| idle.wakeups as f64),
        relative: false,
    },
    Bar {
        what: "20 idle services, ms of CPU",
        most: 0.0,
        read: |own, _| own.idle.as_ref().map(|idle| idle.cpu_ms),
        relative: false,
    },
    Bar {
        what: "200 native probes each second, % of a CPU",
        most: 0.5,
        read: |own, _| own.probes_cpu_percent,
        relative: false,
    },
];

fn pss(figures: &Figures, services: usize) -> Option<f64> {
    let found = figures.memory.iter().find(|population| population.services == services)?;
    Some(found.own.pss as f64)
}

fn start_ratio(own: &Figures, pace: Option<&Figures>) -> Option<f64> {
    Some(median(&own.start_ms)? / median(&pace?.start_ms)?)
}

/// Hold our figures against the bars.
pub fn judge(rows: &[Row]) -> Vec<Verdict> {
    let figures = |name: &str| rows.iter().find(|row| row.name == name).map(|row| &row.figures);
    let (Some(own), pace) = (figures(RESOLVER.name), figures(PACE)) else {
        return Vec::new();
    };
    let judge = |bar: &Bar| {
        let value = (bar.read)(own, pace);
        // A peer that is not to be had is no failure of ours; a figure of our own that is missing is.
        let peerless = bar.relative && pace.is_none_or(|pace| pace.start_ms.is_empty());
        let passed = if peerless { None } else { Some(value.is_some_and(|value| value <= bar.most)) };
        Verdict { what: bar.what, bar: bar.most, value, passed }
    };
    BARS.iter().map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &'static str, start: f64) -> Row {
        let figures = Figures { start_ms: vec![start], ..Figures::default() };
        Row { name, version: String::new(), skipped: None, notes: Vec::new(), figures }
    }

    fn start_verdict(rows: &[Row]) -> Option<bool> {
        judge(rows).into_iter().find(|v| v.what.starts_with("100 services")).expect("the bar").passed
    }

    #[test]
    fn a_ratio_needs_the_peer_and_a_missing_figure_fails() {
        assert_eq!(start_verdict(&[row("graph-resolver", 7.0), row("dinit", 10.0)]), Some(true));
        assert_eq!(start_verdict(&[row("graph-resolver", 8.0), row("dinit", 10.0)]), Some(false));
        assert_eq!(start_verdict(&[row("graph-resolver", 8.0)]), None);
        let verdicts = judge(&[row("graph-resolver", 7.0)]);
        assert!(verdicts.iter().filter(|v| v.value.is_none()).all(|v| v.passed != Some(true)));
    }
}
