//! What is done and when: all of it follows from the seed.
//!
//! Kinds are dealt from a deck that is shuffled again when it is empty. So chance decides the order, and each kind comes
//! as often as its share says, in every hour alike: what grows with a kind grows steadily.

use std::time::Duration;

/// What is done to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A component is told to restart.
    Restart,
    /// A component's process is killed.
    Kill,
    /// A server's next version takes over its sockets and connections.
    Upgrade,
    /// A server falls ill and gets well again.
    Flap,
    /// The component files are read again.
    Reload,
    /// A component comes and goes.
    Declare,
    /// A component comes, writes more than its log keeps, and goes.
    Flood,
    /// Somebody asks about everything.
    Query,
    /// A process is written down while it runs on.
    Checkpoint,
    /// A process is moved to the next version through a checkpoint.
    Move,
}

/// The kinds with their shares of a deck.
pub const DECK: [(Kind, usize); 10] = [
    (Kind::Restart, 8),
    (Kind::Kill, 3),
    (Kind::Upgrade, 4),
    (Kind::Flap, 1),
    (Kind::Reload, 2),
    (Kind::Declare, 3),
    (Kind::Flood, 1),
    (Kind::Query, 2),
    (Kind::Checkpoint, 1),
    (Kind::Move, 1),
];

/// Told to restart, and killed.
const RESTARTED: [&str; 5] =
    ["test-isolated-service", "test-networking", "test-database", "test-health-demo", "test-monitor"];
/// Handing over.
const UPGRADED: [&str; 2] = ["test-echo-server", "test-web-server"];
/// Written down.
pub const STATEFUL: &str = "test-stateful-service";
/// Falls ill when told to.
pub const FLAPPING: &str = "test-health-demo";
/// Comes and goes.
pub const PASSING: &str = "passing";

/// How many questions [`Kind::Query`] has.
pub const QUESTIONS: u64 = 6;

impl Kind {
    /// How many choices there are.
    fn choices(self) -> u64 {
        match self {
            Self::Restart | Self::Kill => RESTARTED.len() as u64,
            Self::Upgrade => UPGRADED.len() as u64,
            Self::Move => 2,
            Self::Query => QUESTIONS,
            Self::Flap | Self::Reload | Self::Declare | Self::Flood | Self::Checkpoint => 1,
        }
    }

    /// In what is written down.
    pub fn name(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Kill => "kill",
            Self::Upgrade => "upgrade",
            Self::Flap => "flap",
            Self::Reload => "reload",
            Self::Declare => "declare",
            Self::Flood => "flood",
            Self::Query => "query",
            Self::Checkpoint => "checkpoint",
            Self::Move => "move",
        }
    }
}

/// One thing to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Since the time began.
    pub due: Duration,
    /// What.
    pub kind: Kind,
    /// For whatever choice the kind leaves.
    pub lot: u64,
}

impl Event {
    /// Whom it is done to, where there is one.
    pub fn target(&self) -> Option<&'static str> {
        let one = |of: &'static [&'static str]| of.get((self.lot % of.len() as u64) as usize).copied();
        match self.kind {
            Kind::Restart | Kind::Kill => one(&RESTARTED),
            Kind::Upgrade => one(&UPGRADED),
            Kind::Flap => Some(FLAPPING),
            Kind::Checkpoint | Kind::Move => Some(STATEFUL),
            Kind::Declare | Kind::Flood => Some(PASSING),
            Kind::Reload | Kind::Query => None,
        }
    }
}

/// Everything that is going to be done.
#[derive(Debug, Clone)]
pub struct Plan {
    seed: u64,
    pace: Duration,
    deck: Vec<Kind>,
}

impl Plan {
    /// With so much time between two events on average, and without the kinds that this machine cannot do.
    pub fn new(seed: u64, pace: Duration, left_out: &[Kind]) -> Self {
        let of_kind = |(kind, share): (Kind, usize)| std::iter::repeat_n(kind, share);
        let deck = DECK.into_iter().filter(|(kind, _)| !left_out.contains(kind)).flat_map(of_kind).collect();
        Self { seed, pace, deck }
    }

    /// Each kind with each of its choices, once.
    pub fn each_once(&self) -> Vec<Event> {
        let mut kinds = self.deck.clone();
        kinds.dedup();
        let event = |kind, lot| Event { due: Duration::ZERO, kind, lot };
        kinds.into_iter().flat_map(|kind| (0..kind.choices()).map(move |lot| event(kind, lot))).collect()
    }

    /// From the first.
    pub fn events(&self) -> Events<'_> {
        Events { plan: self, chance: Chance(self.seed), dealt: Vec::new(), due: Duration::ZERO }
    }
}

/// The events of a plan, one after the other, without end.
#[derive(Debug)]
pub struct Events<'a> {
    plan: &'a Plan,
    chance: Chance,
    dealt: Vec<Kind>,
    due: Duration,
}

impl Events<'_> {
    /// The next.
    pub fn next_event(&mut self) -> Event {
        if self.dealt.is_empty() {
            self.dealt.clone_from(&self.plan.deck);
            for last in (1..self.dealt.len()).rev() {
                let other = self.chance.below(last as u64 + 1) as usize;
                self.dealt.swap(last, other);
            }
        }
        // From half of the pace to one and a half.
        let pace = self.plan.pace.as_millis() as u64;
        self.due += Duration::from_millis(pace / 2 + self.chance.below(pace + 1));
        // No machine can do nothing at all: the deck is never empty.
        let kind = self.dealt.pop().unwrap_or(Kind::Query);
        Event { due: self.due, kind, lot: self.chance.below(u64::MAX) }
    }
}

/// SplitMix64: the same numbers from the same seed in every build.
#[derive(Debug, Clone)]
struct Chance(u64);

impl Chance {
    /// Below `end`, which is above 0. The bias is one in billions.
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Duration = Duration::from_secs(10);

    fn first(seed: u64, count: usize, left_out: &[Kind]) -> Vec<Event> {
        let plan = Plan::new(seed, PACE, left_out);
        let mut events = plan.events();
        (0..count).map(|_| events.next_event()).collect()
    }

    #[test]
    fn a_seed_is_a_plan() {
        assert_eq!(first(7, 500, &[]), first(7, 500, &[]));
        assert_ne!(first(7, 500, &[]), first(8, 500, &[]));
    }

    #[test]
    fn each_kind_has_its_share_of_every_deck() {
        let size: usize = DECK.iter().map(|(_, share)| share).sum();
        for deck in first(7, size * 20, &[]).chunks(size) {
            for (kind, share) in DECK {
                assert_eq!(deck.iter().filter(|event| event.kind == kind).count(), share, "{kind:?}");
            }
        }
    }

    #[test]
    fn everything_is_there_once() {
        let all = Plan::new(7, PACE, &[]).each_once();
        let restarted: Vec<_> = all.iter().filter(|event| event.kind == Kind::Kill).collect();
        assert_eq!(restarted.len(), RESTARTED.len());
        assert!(DECK.iter().all(|(kind, _)| all.iter().any(|event| event.kind == *kind)));
        assert_eq!(all.iter().filter(|event| event.kind == Kind::Flood).count(), 1);
    }

    #[test]
    fn the_pace_is_kept_on_average() {
        let all = first(7, 1000, &[]);
        let gaps: Vec<_> = all.windows(2).map(|pair| pair[1].due.saturating_sub(pair[0].due)).collect();
        assert!(gaps.iter().all(|gap| *gap >= PACE / 2 && *gap <= PACE * 3 / 2));
        let mean = all[999].due.as_secs_f64() / 1000.0;
        assert!((mean - PACE.as_secs_f64()).abs() < 0.3, "{mean}");
    }

    #[test]
    fn what_is_left_out_never_comes_and_everybody_has_a_turn() {
        let all = first(7, 2000, &[Kind::Move, Kind::Checkpoint]);
        assert!(all.iter().all(|event| ![Kind::Move, Kind::Checkpoint].contains(&event.kind)));
        for name in RESTARTED.iter().chain(&UPGRADED) {
            assert!(all.iter().any(|event| event.target() == Some(name)), "{name}");
        }
    }
}
