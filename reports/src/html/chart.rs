//! Charts as SVG in the page. Coordinates have one decimal; numbers that are not finite are left out.

use std::fmt::Write as _;

use super::text;
use crate::event::{Metric, Outcome, Series};
use crate::judge::TargetResult;
use crate::model::RunSummary;
use crate::stats;
use crate::terminal::{number, seconds};

/// Width of the charts in their own units; the page scales them.
const WIDTH: f64 = 320.0;
/// Points of a curve or of a cloud that are drawn; more cannot be told apart.
const POINTS: usize = 600;
/// Attempts in the timeline.
const ATTEMPTS: usize = 2000;

/// A value between nothing and its bars, on a scale of powers of ten: what matters is how many times better it is.
pub fn bullet(target: &TargetResult) -> String {
    const HEIGHT: f64 = 22.0;
    let marks = [target.value, target.floor, target.bar];
    let positive: Vec<f64> =
        marks.iter().flatten().copied().filter(|mark| mark.is_finite() && *mark > 0.0).collect();
    let (Some(low), Some(high)) =
        (positive.iter().copied().reduce(f64::min), positive.iter().copied().reduce(f64::max))
    else {
        return String::new();
    };
    let (from, to) = (low.log10() - 0.3, high.log10() + 0.3);
    let x = |value: f64| (value.max(low / 2.0).log10() - from) / (to - from) * 200.0;
    let mut out =
        format!("<svg viewBox=\"0 0 200 {HEIGHT}\" width=\"200\" height=\"{HEIGHT}\" role=\"img\">");
    let _ = write!(out, "<title>{}</title>", text(&target.what));
    let _ = write!(out, "<line class=\"axis\" x1=\"0\" x2=\"200\" y1=\"11\" y2=\"11\"/>");
    if let Some(value) = target.value {
        let _ = write!(
            out,
            "<rect class=\"value\" x=\"0\" y=\"7\" width=\"{:.1}\" height=\"8\"/>",
            x(value).max(1.0)
        );
    }
    for (class, mark) in [("floor", target.floor), ("own", target.bar)] {
        if let Some(mark) = mark {
            let x = x(mark);
            let _ = write!(out, "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"2\" y2=\"20\"/>");
        }
    }
    out.push_str("</svg>");
    out
}

/// The single measurements of a number: each a dot in the order in which they came, the median a line.
pub fn cloud(metric: &Metric) -> String {
    let samples: Vec<(f64, f64)> =
        metric.samples.iter().flatten().enumerate().map(|(place, value)| (place as f64, *value)).collect();
    let values: Vec<f64> = samples.iter().map(|(_, value)| *value).collect();
    let Some(spread) = stats::spread(&values) else { return String::new() };
    let caption = format!(
        "{}: median {}, p95 {}, max {} {} of {}",
        metric.name,
        number(spread.median),
        number(spread.p95),
        number(spread.max),
        metric.unit,
        spread.count
    );
    let Some(frame) = Frame::around(&samples) else { return String::new() };
    let mut inner = String::new();
    for &(x, y) in thinned(&samples) {
        let _ = write!(
            inner,
            "<circle class=\"dot\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\"/>",
            frame.x(x),
            frame.y(y)
        );
    }
    let y = frame.y(spread.median);
    let _ = write!(inner, "<line class=\"curve\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
    frame.figure(&caption, &inner, "")
}

/// A number over time.
pub fn line(series: &Series) -> String {
    let points: Vec<(f64, f64)> =
        series.t_s.iter().copied().zip(series.values.iter().copied()).filter(finite).collect();
    let Some(frame) = Frame::around(&points) else { return String::new() };
    let path: Vec<String> =
        thinned(&points).map(|&(x, y)| format!("{:.1},{:.1}", frame.x(x), frame.y(y))).collect();
    let inner = format!("<polyline class=\"curve\" points=\"{}\"/>", path.join(" "));
    let place = series.scenario.as_ref().map(|scenario| format!(" ({scenario})")).unwrap_or_default();
    let caption = format!("{} in {}{place}", series.name, series.unit);
    frame.figure(&caption, &inner, &seconds((frame.right - frame.left) * 1000.0))
}

/// When each scenario ran: a lane for each that ran at the same time.
pub fn timeline(run: &RunSummary) -> String {
    const LANE: f64 = 12.0;
    const WIDE: f64 = 1000.0;
    let total_us = run.duration_ms * 1000.0;
    let mut attempts: Vec<_> = run
        .scenarios
        .iter()
        .flat_map(|scenario| scenario.attempts.iter().map(move |attempt| (scenario, attempt)))
        .filter(|(_, attempt)| attempt.start.is_some())
        .collect();
    attempts.sort_by_key(|(_, attempt)| attempt.started_us);
    if attempts.is_empty() || !total_us.is_finite() || total_us <= 0.0 {
        return String::new();
    }
    let mut lanes: Vec<f64> = Vec::new();
    let mut inner = String::new();
    for (scenario, attempt) in attempts.into_iter().take(ATTEMPTS) {
        let start = attempt.started_us as f64;
        let end = start + attempt.duration_ms.clamp(0.0, 1e12) * 1000.0;
        let lane = lanes.iter().position(|free| *free <= start).unwrap_or_else(|| {
            lanes.push(0.0);
            lanes.len() - 1
        });
        lanes[lane] = end;
        let class = match attempt.outcome {
            Outcome::Passed => "lane-good",
            Outcome::Failed | Outcome::Flaky => "lane-bad",
            Outcome::Skipped | Outcome::InfraFailed => "lane-open",
        };
        let x = (start / total_us * WIDE).clamp(0.0, WIDE);
        let width = ((end - start) / total_us * WIDE - 0.5).clamp(0.5, WIDE);
        let y = lane as f64 * LANE;
        let title = text(&format!("{}, {}", scenario.id(), seconds(attempt.duration_ms)));
        let _ = write!(
            inner,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"10\"><title>{title}</title></rect>"
        );
    }
    let height = lanes.len() as f64 * LANE;
    format!(
        "<figure><svg viewBox=\"0 0 {WIDE} {height}\" width=\"{WIDE}\" height=\"{height}\" role=\"img\">{inner}</svg>\
         <figcaption>when each scenario ran, over {}</figcaption></figure>\n",
        seconds(run.duration_ms)
    )
}

fn finite(point: &(f64, f64)) -> bool {
    point.0.is_finite() && point.1.is_finite()
}

/// As many of the points as are drawn, in their order.
fn thinned(points: &[(f64, f64)]) -> impl Iterator<Item = &(f64, f64)> {
    points.iter().step_by(points.len().div_ceil(POINTS).max(1))
}

/// The part of the plane that a chart shows, from nothing upwards unless something is below it.
struct Frame {
    left: f64,
    right: f64,
    bottom: f64,
    top: f64,
}

impl Frame {
    const HEIGHT: f64 = 110.0;
    /// For a line and a dot at the edge.
    const MARGIN: f64 = 4.0;

    fn around(points: &[(f64, f64)]) -> Option<Self> {
        let points = || points.iter().copied().filter(finite);
        let least = |values: &mut dyn Iterator<Item = f64>| values.reduce(f64::min);
        let most = |values: &mut dyn Iterator<Item = f64>| values.reduce(f64::max);
        Some(Self {
            left: least(&mut points().map(|point| point.0))?,
            right: most(&mut points().map(|point| point.0))?,
            bottom: least(&mut points().map(|point| point.1))?.min(0.0),
            top: most(&mut points().map(|point| point.1))?,
        })
    }

    fn x(&self, x: f64) -> f64 {
        Self::MARGIN + share(x, self.left, self.right) * (WIDTH - 2.0 * Self::MARGIN)
    }

    fn y(&self, y: f64) -> f64 {
        Self::HEIGHT - Self::MARGIN - share(y, self.bottom, self.top) * (Self::HEIGHT - 2.0 * Self::MARGIN)
    }

    fn figure(&self, caption: &str, inner: &str, across: &str) -> String {
        let bottom = Self::HEIGHT - Self::MARGIN;
        format!(
            "<figure><svg viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\
             <line class=\"axis\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{bottom}\" y2=\"{bottom}\"/>{inner}\
             <text x=\"4\" y=\"12\">{}</text><text x=\"316\" y=\"104\" text-anchor=\"end\">{}</text></svg>\
             <figcaption>{}</figcaption></figure>\n",
            text(&number(self.top)),
            text(across),
            text(caption),
            height = Self::HEIGHT,
        )
    }
}

/// Where a number lies between two others, 0 to 1. Halved first: the distance of large numbers is infinite.
fn share(value: f64, from: f64, to: f64) -> f64 {
    let share = (value / 2.0 - from / 2.0) / (to / 2.0 - from / 2.0);
    if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.5 }
}
