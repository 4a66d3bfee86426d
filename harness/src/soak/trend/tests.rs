use super::*;

/// Numbers between 0 and 1, the same for a seed.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// How many of a hundred such series rise.
fn rising(samples: usize, least: f64, mut value: impl FnMut(usize, &mut Noise) -> f64) -> usize {
    let times: Vec<f64> = (0..samples).map(|time| time as f64).collect();
    (0..100)
        .filter(|seed| {
            let mut noise = Noise(*seed);
            let values: Vec<f64> = (0..samples).map(|time| value(time, &mut noise)).collect();
            matches!(judge(&times, &values, least), Verdict::Rising(_))
        })
        .count()
}

/// Memory is counted in pages.
fn pages(kib: f64) -> f64 {
    (kib / 4.0).floor() * 4.0
}

#[test]
fn the_normal_distribution_is_right() {
    for (z, expected) in [(0.0, 0.5), (1.0, 0.158_655), (QUANTILE, 0.001), (-1.0, 0.841_345)] {
        assert!((tail(z) - expected).abs() < 1e-5, "{z}: {}", tail(z));
    }
}

#[test]
fn a_known_trend_has_its_known_numbers() {
    // Gilbert 1987, example 16.4: six numbers of which five pairs fall; and a straight line.
    let line: Vec<(f64, f64)> = (0..20).map(|x| (f64::from(x), 3.0 * f64::from(x))).collect();
    let found = trend(&line);
    assert!((found.slope - 3.0).abs() < 1e-12 && (found.lower - 3.0).abs() < 1e-12);
    // S = 190, variance 20 × 19 × 45 / 18 = 950, z = 189 / 30.82 = 6.132.
    assert!((deviation(&line) - 950_f64.sqrt()).abs() < 1e-9);
    assert!((found.chance / tail(189.0 / 950_f64.sqrt()) - 1.0).abs() < 1e-9);
}

#[test]
fn equal_numbers_are_worth_less() {
    let with_ties: Vec<(f64, f64)> = [1.0, 1.0, 1.0, 2.0, 2.0, 3.0].map(|y| (0.0, y)).into();
    // (6·5·17 − 3·2·11 − 2·1·9) / 18 = (510 − 66 − 18) / 18.
    assert!((deviation(&with_ties) - (426_f64 / 18.0).sqrt()).abs() < 1e-9);
}

#[test]
fn what_never_changes_is_flat_and_too_little_is_not_judged() {
    let times: Vec<f64> = (0..100).map(f64::from).collect();
    let Verdict::Flat(flat) = judge(&times, &[7.0; 100], 0.0) else { panic!("it rises") };
    assert_eq!(format!("{} {} {}", flat.slope, flat.lower, flat.chance), "0 0 1");
    assert_eq!(judge(&times[..15], &[7.0; 15], 0.0), Verdict::TooFew);
}

#[test]
fn noise_is_not_accused() {
    // Even where any slope at all would matter.
    assert_eq!(rising(1440, 0.0, |_, noise| noise.next() * 100.0), 0);
    assert_eq!(rising(120, 0.0, |_, noise| noise.next() * 100.0), 0);
}

#[test]
fn what_follows_from_the_last_number_is_not_accused() {
    // Each sample is mostly the one before it, as what is held in caches.
    let mut held = 0.0;
    let wander = |_: usize, noise: &mut Noise| {
        held = 0.9 * held + noise.next() * 50.0;
        1000.0 + held
    };
    assert_eq!(rising(1440, 0.02, wander), 0);
}

#[test]
fn a_saw_tooth_is_not_accused() {
    for period in [5, 37, 200] {
        let teeth = move |time: usize, noise: &mut Noise| (time % period) as f64 * 3.0 + noise.next();
        assert_eq!(rising(1440, 0.01, teeth), 0, "{period}");
    }
}

#[test]
fn steps_that_do_not_come_back_are_not_accused() {
    for at in [100, 700, 1000, 1300] {
        let step =
            move |time: usize, noise: &mut Noise| f64::from(u8::from(time > at)) * 400.0 + noise.next();
        assert_eq!(rising(1440, 0.01, step), 0, "{at}");
    }
}

#[test]
fn what_fills_up_is_not_accused() {
    let fills =
        |time: usize, noise: &mut Noise| 300.0 * (1.0 - (-(time as f64) / 150.0).exp()) + noise.next();
    assert_eq!(rising(1440, 0.01, fills), 0);
}

#[test]
fn a_leak_is_found_in_an_hour_and_in_a_day() {
    // One KiB for each of 200 restarts in an hour, seen each half minute, in noise of some pages; a quarter of it matters.
    let hour =
        |time: usize, noise: &mut Noise| pages(1500.0 + time as f64 * 200.0 / 120.0 + noise.next() * 24.0);
    assert_eq!(rising(108, 50.0 / 120.0, hour), 100);
    // The same for each of 1,000 restarts in a day, seen each minute.
    let day =
        |time: usize, noise: &mut Noise| pages(1500.0 + time as f64 * 1000.0 / 1440.0 + noise.next() * 64.0);
    assert_eq!(rising(1296, 250.0 / 1440.0, day), 100);
}

#[test]
fn what_rises_by_less_than_matters_is_not_accused() {
    let slow = |time: usize, noise: &mut Noise| 1500.0 + time as f64 * 0.01 + noise.next();
    assert_eq!(rising(1440, 0.02, slow), 0);
    assert_eq!(rising(1440, 0.005, slow), 100);
}

#[test]
fn what_falls_does_not_rise() {
    assert_eq!(rising(1440, 0.0, |time, noise| noise.next() - time as f64), 0);
}
