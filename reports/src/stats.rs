//! The few statistics that the reports need, over samples in any order. An empty sample has none.

/// The number of samples, their median, 95th percentile and maximum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Number of samples, at least 1.
    pub count: usize,
    /// The median; the mean of the middle two of an even number.
    pub median: f64,
    /// The 95th percentile by nearest rank: a value that was really measured.
    pub p95: f64,
    /// The maximum.
    pub max: f64,
}

/// The spread of `samples`, or nothing when there are none.
pub fn spread(samples: &[f64]) -> Option<Spread> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let max = *sorted.last()?;
    Some(Spread { count: sorted.len(), median: middle(&sorted), p95: percentile(samples, 95)?, max })
}

/// The median of `samples`, or nothing when there are none.
pub fn median(samples: &[f64]) -> Option<f64> {
    spread(samples).map(|spread| spread.median)
}

/// The sample that so many of a hundred are not above, by nearest rank, or nothing when there are none.
pub fn percentile(samples: &[f64], hundredths: usize) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * hundredths).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// The median of a sorted sample that is not empty.
fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[half]
    } else {
        // Halved first: the sum of two large numbers is infinite.
        sorted[half - 1] / 2.0 + sorted[half] / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_of_known_samples() {
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[7.0]), Some(Spread { count: 1, median: 7.0, p95: 7.0, max: 7.0 }));
        assert_eq!(spread(&[4.0, 1.0]), Some(Spread { count: 2, median: 2.5, p95: 4.0, max: 4.0 }));
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(spread(&hundred), Some(Spread { count: 100, median: 50.5, p95: 95.0, max: 100.0 }));
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
    }
}
