//! Who gets one of the limited number of connections.
//!
//! Root and the owner always find a place: some are kept for them, and they take those of others
//! that are idle. No other user has more than a few, so that users do not lock each other out.

use std::collections::VecDeque;

use yakiros_core::engine::Config;

/// Connections at a time. Each holds at most one request and one answer (see
/// [`crate::control`]).
pub const LIMIT: usize = 320;

/// Places among them that only root and the owner may take.
pub const RESERVED: usize = 64;

/// The most that one other user may have.
pub const PER_USER: usize = 32;

/// One connection as the policy sees it.
#[derive(Debug)]
struct Place<T> {
    id: u64,
    uid: u32,
    /// It waits for an answer, so it is not idle.
    busy: bool,
    held: T,
}

/// All connections, oldest first, each with what has to be ended when its place is taken.
#[derive(Debug)]
pub struct Admission<T> {
    config: Config,
    places: VecDeque<Place<T>>,
}

/// The answer to a new connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict<T> {
    /// There is room.
    Enter,
    /// There is room once this one is ended; it is no longer listed.
    Instead(T),
    /// There is none.
    Refuse,
}

impl<T> Admission<T> {
    /// No connection yet.
    pub fn new(config: Config) -> Self {
        Self { config, places: VecDeque::new() }
    }

    /// Whether a new connection of this user may stay.
    pub fn judge(&mut self, uid: u32) -> Verdict<T> {
        let config = self.config;
        let other = |place: &Place<T>| !config.is_privileged(place.uid);
        if config.is_privileged(uid) {
            if self.places.len() < LIMIT {
                return Verdict::Enter;
            }
            let idle = self.idle(other).or_else(|| self.idle(|_| true));
            return self.replace(idle);
        }
        let own = |place: &Place<T>| place.uid == uid;
        if self.count(own) >= PER_USER {
            let idle = self.idle(own);
            return self.replace(idle);
        }
        if self.count(other) >= LIMIT - RESERVED || self.places.len() >= LIMIT {
            let idle = self.idle(other);
            return self.replace(idle);
        }
        Verdict::Enter
    }

    /// List a connection that may stay.
    pub fn enter(&mut self, id: u64, uid: u32, held: T) {
        self.places.push_back(Place { id, uid, busy: false, held });
    }

    /// It begins or ends to wait for an answer.
    pub fn set_busy(&mut self, id: u64, busy: bool) {
        if let Some(place) = self.places.iter_mut().find(|place| place.id == id) {
            place.busy = busy;
        }
    }

    /// It has ended.
    pub fn leave(&mut self, id: u64) {
        self.places.retain(|place| place.id != id);
    }

    fn count(&self, which: impl Fn(&Place<T>) -> bool) -> usize {
        self.places.iter().filter(|place| which(place)).count()
    }

    /// The oldest of these that is idle.
    fn idle(&self, which: impl Fn(&Place<T>) -> bool) -> Option<usize> {
        self.places.iter().position(|place| !place.busy && which(place))
    }

    fn replace(&mut self, at: Option<usize>) -> Verdict<T> {
        match at.and_then(|at| self.places.remove(at)) {
            Some(place) => Verdict::Instead(place.held),
            None => Verdict::Refuse,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: u32 = 500;

    /// Connect as often as wanted; how many have a place now.
    fn flood(all: &mut Admission<u64>, uid: u32, count: u64, busy: bool) -> usize {
        for _ in 0..count {
            if all.judge(uid) != Verdict::Refuse {
                let id = all.places.back().map_or(0, |place| place.id) + 1;
                all.enter(id, uid, id);
                all.set_busy(id, busy);
            }
        }
        all.count(|place| place.uid == uid)
    }

    #[test]
    fn a_flood_of_others_does_not_lock_the_owner_out() {
        for busy in [false, true] {
            let mut all = Admission::new(Config { owner: OWNER });
            for uid in 1000..1100 {
                assert!(flood(&mut all, uid, 100, busy) <= PER_USER);
            }
            assert_eq!(all.places.len(), LIMIT - RESERVED);
            assert_eq!(flood(&mut all, OWNER, 32, busy), 32);
            assert_eq!(flood(&mut all, 0, 32, busy), 32);
            assert!(all.places.len() <= LIMIT);
        }
    }

    #[test]
    fn the_oldest_idle_one_goes_and_never_a_busy_one() {
        let mut all = Admission::new(Config { owner: OWNER });
        flood(&mut all, OWNER, LIMIT as u64, false);
        all.set_busy(1, true);
        assert_eq!(all.judge(OWNER), Verdict::Instead(2));
        let mut all = Admission::new(Config { owner: OWNER });
        flood(&mut all, OWNER, LIMIT as u64, true);
        assert_eq!(all.judge(OWNER), Verdict::Refuse);
        assert_eq!(all.judge(1000), Verdict::Refuse, "the owner's are not for others");
        all.leave(7);
        assert_eq!(all.judge(OWNER), Verdict::Enter);
    }
}
