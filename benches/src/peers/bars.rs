//! What our own supervisor has to reach. Times that the machine decides are ratios to a peer of the same run, or are
//! told beside what the machine took by itself: a bar below that floor says nothing of a supervisor.

use serde::Serialize;

use super::inits::{FLOOR, RESOLVER};
use super::report::{Figures, Row, median, worst};

/// One figure against its bar.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// What was measured, with its unit.
    pub what: &'static str,
    /// The most it may be.
    pub bar: f64,
    /// What it was; nothing when it could not be measured.
    pub value: Option<f64>,
    /// What a program that only waits and executes took, for times of a supervisor.
    pub floor: Option<f64>,
    /// The value as a multiple of the floor.
    pub floors: Option<f64>,
    /// How it stands.
    pub outcome: Outcome,
}

/// A figure's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Within the bar.
    Good,
    /// Beyond it, or not measured.
    Missed,
    /// Beyond it, and so is the floor: nothing that runs on this machine can reach it.
    Floor,
    /// The bar is a ratio to a peer that there was not.
    NoPeer,
}

/// A bar, and how its figure is read from our row and from that of the peer that sets the pace.
struct Bar {
    what: &'static str,
    most: f64,
    read: fn(&Figures, Option<&Figures>) -> Option<f64>,
    against: Against,
}

/// What a figure is held against besides its bar.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Against {
    /// Nothing: it is no time of the machine's.
    Nothing,
    /// The peer of which it is a part.
    Peer,
    /// The same figure of the floor.
    Floor,
}

/// The peer to which times are compared.
const PACE: &str = "dinit";

const BARS: [Bar; 10] = [
    Bar {
        what: "Pss of process 1 with 1 service, kB",
        most: 1200.0,
        read: |own, _| pss(own, 1),
        against: Against::Nothing,
    },
    Bar {
        what: "Pss of process 1 with 20 services, kB",
        most: 1300.0,
        read: |own, _| pss(own, 20),
        against: Against::Nothing,
    },
    Bar {
        what: "Pss of process 1 with 100 services, kB",
        most: 1600.0,
        read: |own, _| pss(own, 100),
        against: Against::Nothing,
    },
    Bar {
        what: "100 services started, of dinit's time",
        most: 0.75,
        read: start_ratio,
        against: Against::Peer,
    },
    Bar {
        what: "kill -9 to exec, median ms",
        most: 0.5,
        read: |own, _| median(&own.respawn_ms),
        against: Against::Floor,
    },
    Bar {
        what: "kill -9 to exec, worst of 50, ms",
        most: 5.0,
        read: |own, _| worst(&own.respawn_ms),
        against: Against::Floor,
    },
    Bar {
        what: "a chain of 1,000 services, ms",
        most: 600.0,
        read: |own, _| own.chain_ms,
        against: Against::Floor,
    },
    Bar {
        what: "wake-ups of 20 idle services",
        most: 0.0,
        read: |own, _| own.idle.as_ref().map(|idle| idle.wakeups as f64),
        against: Against::Nothing,
    },
    Bar {
        what: "20 idle services, ms of CPU",
        most: 0.0,
        read: |own, _| own.idle.as_ref().map(|idle| idle.cpu_ms),
        against: Against::Nothing,
    },
    Bar {
        what: "200 native probes each second, % of a CPU",
        most: 0.5,
        read: |own, _| own.probes_cpu_percent,
        against: Against::Nothing,
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
    let (Some(own), pace, floor) = (figures(RESOLVER.name), figures(PACE), figures(FLOOR.name)) else {
        return Vec::new();
    };
    BARS.iter().map(|bar| bar.judge(own, pace, floor)).collect()
}

impl Bar {
    fn judge(&self, own: &Figures, pace: Option<&Figures>, floor: Option<&Figures>) -> Verdict {
        let value = (self.read)(own, pace);
        let floor = floor.filter(|_| self.against == Against::Floor);
        let floor = floor.and_then(|figures| (self.read)(figures, None));
        // A peer that is not to be had is no failure of ours; a figure of our own that is missing is.
        let peerless = self.against == Against::Peer && pace.is_none_or(|pace| pace.start_ms.is_empty());
        let outcome = match value {
            _ if peerless => Outcome::NoPeer,
            Some(value) if value <= self.most => Outcome::Good,
            Some(_) if floor.is_some_and(|floor| floor > self.most) => Outcome::Floor,
            _ => Outcome::Missed,
        };
        let floors = value.zip(floor).map(|(value, floor)| value / floor);
        Verdict { what: self.what, bar: self.most, value, floor, floors, outcome }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &'static str, figures: Figures) -> Row {
        Row { name, version: String::new(), skipped: None, notes: Vec::new(), figures }
    }

    fn started(name: &'static str, start: f64) -> Row {
        row(name, Figures { start_ms: vec![start], ..Figures::default() })
    }

    fn verdict(rows: &[Row], what: &str) -> Verdict {
        judge(rows).into_iter().find(|verdict| verdict.what.starts_with(what)).expect("the bar")
    }

    #[test]
    fn a_ratio_needs_the_peer_and_a_missing_figure_fails() {
        let outcome = |rows: &[Row]| verdict(rows, "100 services").outcome;
        assert_eq!(outcome(&[started("graph-resolver", 7.0), started("dinit", 10.0)]), Outcome::Good);
        assert_eq!(outcome(&[started("graph-resolver", 8.0), started("dinit", 10.0)]), Outcome::Missed);
        assert_eq!(outcome(&[started("graph-resolver", 8.0)]), Outcome::NoPeer);
        let verdicts = judge(&[started("graph-resolver", 7.0)]);
        let unmeasured = verdicts.iter().filter(|verdict| verdict.value.is_none());
        assert!(unmeasured.clone().count() > 5);
        assert!(
            unmeasured
                .filter(|verdict| verdict.outcome != Outcome::NoPeer)
                .all(|v| v.outcome == Outcome::Missed)
        );
    }

    #[test]
    fn a_bar_below_the_floor_is_told_as_that_and_never_as_good() {
        let killed =
            |name, times: &[f64]| row(name, Figures { respawn_ms: times.to_vec(), ..Figures::default() });
        let judged = |own: &[f64], floor: &[f64]| {
            let found =
                verdict(&[killed("graph-resolver", own), killed("floor", floor)], "kill -9 to exec, median");
            (found.outcome, found.floors)
        };
        assert_eq!(judged(&[0.9], &[0.6]), (Outcome::Floor, Some(1.5)));
        assert_eq!(judged(&[0.9], &[0.3]), (Outcome::Missed, Some(3.0)));
        assert_eq!(judged(&[0.4], &[0.8]), (Outcome::Good, Some(0.5)));
        assert_eq!(judged(&[], &[0.8]), (Outcome::Missed, None));
        assert_eq!(judged(&[0.9], &[]), (Outcome::Missed, None));
    }
}
