//! Whether numbers over time rise, told by a test and not by eye.
//!
//! Two questions, and only who answers yes to both rises:
//!
//! - **Is there a trend at all?** Mann and Kendall count the pairs of which the later is greater, against those of which it
//!   is smaller. That takes no shape for granted, is not moved by outliers, and knows what ties are worth.
//! - **Is it steep enough to matter?** Theil and Sen take the median of the slopes between all pairs. Its lower bound of
//!   confidence has to be above the least slope that matters: with enough samples every drift is significant, however
//!   small, and no drift of one page a day is a leak.
//!
//! Both are asked of the whole, and again of its last half: what fills up to where it stays (a ring, a cache, the
//! allocator's free space) rises at first only, and a step that happened once is no slope.
//!
//! Samples that follow each other are alike, and the test takes them for independent: it would find trends in a slow
//! saw-tooth. So at most [`BLOCKS`] are compared, each the median of what was seen in one span of the time.

/// Medians that are compared. Enough for a significance of one in thousands; so few that spans are longer than what goes up
/// and down with single events.
const BLOCKS: usize = 48;
/// Fewer samples tell nothing: not even a straight line would be significant in the last half.
pub const LEAST_SAMPLES: usize = 16;
/// One false alarm in a thousand for each question, one-sided. Some thirty series are judged in a run, and each of them has
/// to pass two such tests, and the slope.
const SIGNIFICANCE: f64 = 0.001;
/// The quantile of the normal distribution for [`SIGNIFICANCE`].
const QUANTILE: f64 = 3.090;

/// What the numbers do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trend {
    /// Change for each unit of time, by Theil and Sen.
    pub slope: f64,
    /// The slope is above this, with the confidence of one in a thousand.
    pub lower: f64,
    /// Of all such numbers without a trend, this part would seem to rise as much, by Mann and Kendall.
    pub chance: f64,
}

/// What comes of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// It stays, falls, or rises by less than what matters.
    Flat(Trend),
    /// It rises, to its end.
    Rising(Trend),
    /// There is too little to say.
    TooFew,
}

/// Judges numbers by their times, which rise. `least` is the least slope that matters, in the same units.
pub fn judge(times: &[f64], values: &[f64], least: f64) -> Verdict {
    let points: Vec<(f64, f64)> = times.iter().copied().zip(values.iter().copied()).collect();
    if points.len() < LEAST_SAMPLES {
        return Verdict::TooFew;
    }
    let whole = trend(&blocks(&points));
    let last = trend(&blocks(&points[points.len() / 2..]));
    if whole.rises(least) && last.rises(least) { Verdict::Rising(whole) } else { Verdict::Flat(whole) }
}

impl Trend {
    fn rises(&self, least: f64) -> bool {
        self.chance < SIGNIFICANCE && self.lower > least
    }
}

/// At most [`BLOCKS`] points, each the median of neighbours.
fn blocks(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(BLOCKS).max(1);
    let median_of = |block: &[(f64, f64)]| {
        (median(block.iter().map(|point| point.0)), median(block.iter().map(|point| point.1)))
    };
    points.chunks(size).map(median_of).collect()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    at(&sorted, sorted.len() as f64 / 2.0 - 0.5)
}

/// A value of a sorted list by its place; between two places that in between.
fn at(sorted: &[f64], place: f64) -> f64 {
    let place = place.clamp(0.0, sorted.len().saturating_sub(1) as f64);
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    match (sorted.get(below), sorted.get(above)) {
        (Some(low), Some(high)) => low + (high - low) * place.fract(),
        _ => 0.0,
    }
}

fn trend(points: &[(f64, f64)]) -> Trend {
    let mut slopes = Vec::new();
    let mut score = 0_i64;
    for (index, (early, before)) in points.iter().enumerate() {
        for (late, after) in &points[index + 1..] {
            score += i64::from(after > before) - i64::from(after < before);
            if late > early {
                slopes.push((after - before) / (late - early));
            }
        }
    }
    slopes.sort_by(f64::total_cmp);
    let deviation = deviation(points);
    let middle = slopes.len() as f64 / 2.0 - 0.5;
    // Without any change there is no deviation, and the slope is 0 at both places.
    let lower = at(&slopes, middle - QUANTILE * deviation / 2.0);
    let steps = (score.abs() - 1).max(0) as f64 * score.signum() as f64;
    let chance = if deviation > 0.0 { tail(steps / deviation) } else { 1.0 };
    Trend { slope: at(&slopes, middle), lower, chance }
}

/// The standard deviation of Mann and Kendall's score of as many numbers without a trend, equal ones counted as such.
fn deviation(points: &[(f64, f64)]) -> f64 {
    let weight = |count: f64| count * (count - 1.0) * (2.0 * count + 5.0);
    let mut values: Vec<f64> = points.iter().map(|point| point.1).collect();
    values.sort_by(f64::total_cmp);
    let ties: f64 =
        values.chunk_by(|a, b| a.total_cmp(b).is_eq()).map(|equal| weight(equal.len() as f64)).sum();
    ((weight(values.len() as f64) - ties) / 18.0).max(0.0).sqrt()
}

/// How much of a normal distribution lies above (Abramowitz and Stegun 26.2.17, good to seven digits).
fn tail(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let series = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let polynomial = series.iter().rev().fold(0.0, |sum, factor| (sum + factor) * t);
    let above = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * polynomial;
    if z >= 0.0 { above } else { 1.0 - above }
}

#[cfg(test)]
mod tests;
