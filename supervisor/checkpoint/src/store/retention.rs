//! Which checkpoints are kept: a pure function of what there is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What is kept, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// Checkpoints of one component.
    pub per_component: usize,
    /// Bytes of all checkpoints of all components.
    pub quota: Option<u64>,
    /// Age of a checkpoint.
    pub max_age: Option<Duration>,
}

/// Ten of each component, of any size and age.
impl Default for Policy {
    fn default() -> Self {
        Self { per_component: 10, quota: None, max_age: None }
    }
}

/// What is known of a checkpoint that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present<K> {
    /// Whatever names it; greater is newer, within a component.
    pub key: K,
    /// Whose it is.
    pub component: String,
    /// Its place among all, which is the time in its name, in microseconds since 1970: later than that of what was made
    /// before, also when the clock was set back.
    pub micros: i64,
    /// When it was begun by the clock of that time, in microseconds since 1970.
    pub begun: i64,
    /// In bytes.
    pub size: u64,
}

/// Why one is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Excess {
    /// It is older than is allowed.
    Age,
    /// Its component has enough newer ones.
    Count,
    /// All that are newer leave no room for it.
    Quota,
}

/// Those that are too many, each with the first reason. An age that lies in the future counts as none.
pub fn excess<K: Ord + Clone>(policy: &Policy, now: i64, present: &[Present<K>]) -> Vec<(K, Excess)> {
    let mut newest_first: Vec<_> = present.iter().collect();
    newest_first.sort_by(|one, other| (other.micros, &other.key).cmp(&(one.micros, &one.key)));
    let limit = policy.max_age.map(|age| i64::try_from(age.as_micros()).unwrap_or(i64::MAX));
    let mut kept = std::collections::BTreeMap::<&str, usize>::new();
    let mut bytes = 0_u64;
    let mut full = false;
    let judged = newest_first.into_iter().filter_map(|one| {
        let count = kept.entry(&one.component).or_default();
        if limit.is_some_and(|limit| now.saturating_sub(one.begun) > limit) {
            return Some((one.key.clone(), Excess::Age));
        }
        if *count >= policy.per_component {
            return Some((one.key.clone(), Excess::Count));
        }
        // Once one has no room, no older one gets it: what is kept is what is newest.
        full = full || policy.quota.is_some_and(|quota| bytes.saturating_add(one.size) > quota);
        if full {
            return Some((one.key.clone(), Excess::Quota));
        }
        *count += 1;
        bytes += one.size;
        None
    });
    judged.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn present() -> impl Strategy<Value = Vec<Present<usize>>> {
        let one = (0..3_u8, 0..100_i64, 0..50_u64);
        proptest::collection::vec(one, 0..20).prop_map(|all| {
            let of = |(key, (component, micros, size)): (usize, (u8, i64, u64))| Present {
                key,
                component: format!("c{component}"),
                micros,
                begun: micros,
                size,
            };
            all.into_iter().enumerate().map(of).collect()
        })
    }

    fn policies() -> impl Strategy<Value = Policy> {
        let age = proptest::option::of(0..120_u64);
        (0..6_usize, proptest::option::of(0..400_u64), age).prop_map(|(per_component, quota, age)| Policy {
            per_component,
            quota,
            max_age: age.map(Duration::from_micros),
        })
    }

    proptest! {
        #[test]
        fn limits_hold_and_nothing_goes_without_need(present in present(), policy in policies(), now in 50..150_i64) {
            let gone: BTreeMap<usize, Excess> = excess(&policy, now, &present).into_iter().collect();
            let kept: Vec<_> = present.iter().filter(|one| !gone.contains_key(&one.key)).collect();
            let too_old = |one: &Present<usize>| {
                policy.max_age.is_some_and(|age| now - one.micros > i64::try_from(age.as_micros()).unwrap())
            };
            let bytes: u64 = kept.iter().map(|one| one.size).sum();
            prop_assert!(policy.quota.is_none_or(|quota| bytes <= quota));
            prop_assert!(!kept.iter().any(|one| too_old(one)));
            for component in present.iter().map(|one| &one.component).collect::<BTreeSet<_>>() {
                let kept = kept.iter().filter(|one| one.component == *component);
                prop_assert!(kept.count() <= policy.per_component);
            }
            for one in present.iter().filter(|one| gone.contains_key(&one.key)) {
                let newer: Vec<_> = kept.iter().filter(|k| (k.micros, k.key) > (one.micros, one.key)).collect();
                match gone[&one.key] {
                    Excess::Age => prop_assert!(too_old(one)),
                    Excess::Count => {
                        let own = newer.iter().filter(|k| k.component == one.component).count();
                        prop_assert_eq!(own, policy.per_component);
                    }
                    Excess::Quota => {
                        // Nothing older is kept in its place.
                        prop_assert!(policy.quota.is_some());
                        prop_assert_eq!(newer.len(), kept.len());
                    }
                }
            }
        }
    }

    #[test]
    fn the_oldest_go_first() {
        let one = |key: usize, component: &str, micros, size| Present {
            key,
            component: component.into(),
            micros,
            begun: micros,
            size,
        };
        let present = [one(1, "a", 10, 5), one(2, "a", 20, 5), one(3, "b", 15, 5), one(4, "a", 30, 5)];
        let of = |policy| excess(&policy, 40, &present);
        assert_eq!(of(Policy::default()), []);
        assert_eq!(of(Policy { per_component: 2, ..Policy::default() }), [(1, Excess::Count)]);
        let quota = Policy { quota: Some(12), ..Policy::default() };
        assert_eq!(of(quota), [(3, Excess::Quota), (1, Excess::Quota)]);
        let age = Policy { max_age: Some(Duration::from_micros(20)), ..Policy::default() };
        assert_eq!(of(age), [(3, Excess::Age), (1, Excess::Age)]);
        // One with a name from the future is as old as it is.
        let ahead = [Present { begun: 10, ..one(5, "a", 4000, 5) }, one(6, "a", 4001, 5)];
        assert_eq!(excess(&age, 40, &ahead), [(5, Excess::Age)]);
    }
}
