//! What a run is judged by beside its scenarios: `targets.toml` and `criteria.toml`.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use yakiros_reports::event::{
    Bars, Criterion, Direction, Evidence, Goals, Part, ProfileGoal, Statistic, Target,
};

use crate::options::Options;

/// The tables, in the harness's folder.
const TARGETS: &str = "targets.toml";
const CRITERIA: &str = "criteria.toml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Targets {
    target: Vec<TargetRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetRow {
    name: String,
    what: String,
    metric: String,
    unit: String,
    scenario: Option<String>,
    #[serde(default)]
    statistic: Statistic,
    #[serde(default)]
    direction: Direction,
    floor: Option<f64>,
    bar: Option<f64>,
    key: Option<String>,
    #[serde(default = "same")]
    key_factor: f64,
    #[cfg_attr(not(test), expect(dead_code, reason = "a note that only a test reads"))]
    awaited: Option<String>,
}

fn same() -> f64 {
    1.0
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Criteria {
    functional: Vec<CriterionRow>,
    performance: Vec<CriterionRow>,
    reliability: Vec<CriterionRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CriterionRow {
    text: String,
    #[serde(default)]
    scenarios: Vec<String>,
    #[serde(default)]
    targets: Vec<String>,
    #[serde(default)]
    awaited: Vec<String>,
    #[serde(default)]
    when_available: bool,
}

/// The goals of a run with these options, or a message that says which table is wrong.
pub fn read(options: &Options) -> Result<Goals, String> {
    let Targets { target } = table(TARGETS)?;
    let Criteria { functional, performance, reliability } = table(CRITERIA)?;
    let lists =
        [(Part::Functional, functional), (Part::Performance, performance), (Part::Reliability, reliability)];
    let criteria =
        lists.into_iter().flat_map(|(part, rows)| rows.into_iter().map(move |row| row.criterion(part)));
    Ok(Goals {
        profile: profile(options),
        targets: target.into_iter().map(TargetRow::target).collect(),
        criteria: criteria.collect(),
    })
}

fn table<T: DeserializeOwned>(name: &str) -> Result<T, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let failed = |error: &dyn std::fmt::Display| format!("failed to read {}: {error}", path.display());
    let text = fs::read_to_string(&path).map_err(|error| failed(&error))?;
    toml::from_str(&text).map_err(|error| failed(&error))
}

/// The budget is for a run of the profile as a whole, once.
fn profile(options: &Options) -> Option<ProfileGoal> {
    let name = Some(options.profile.name.clone()).filter(|name| !name.is_empty())?;
    let is_whole = options.suites.is_empty() && options.scenarios.is_empty();
    let as_often =
        options.repeat.is_none_or(|repeat| repeat == options.profile.repeat) && !options.until_fail;
    let budget = options.profile.budget.filter(|_| is_whole && as_often);
    Some(ProfileGoal { name, budget_s: budget.map(|budget| budget.as_secs_f64()) })
}

impl TargetRow {
    fn target(self) -> Target {
        Target {
            name: self.name,
            what: self.what,
            metric: self.metric,
            scenario: self.scenario,
            unit: self.unit,
            statistic: self.statistic,
            direction: self.direction,
            bars: Bars { floor: self.floor, bar: self.bar },
            key: self.key,
            key_factor: self.key_factor,
        }
    }
}

impl CriterionRow {
    fn criterion(self, part: Part) -> Criterion {
        let scenarios = self.scenarios.into_iter().chain(self.awaited).map(Evidence::Scenario);
        Criterion {
            part,
            text: self.text,
            evidence: scenarios.chain(self.targets.into_iter().map(Evidence::Target)).collect(),
            when_available: self.when_available,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::suite::SUITES;

    fn exists(id: &str) -> bool {
        SUITES
            .iter()
            .any(|suite| suite.scenarios.iter().any(|one| format!("{}/{}", suite.name, one.name) == id))
    }

    /// The code of all suites.
    fn sources(folder: PathBuf, text: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(path, text);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }

    #[test]
    fn the_targets_are_recorded_by_scenarios() {
        let Targets { target: rows } = table(TARGETS).unwrap();
        let mut code = String::new();
        sources(Path::new(env!("CARGO_MANIFEST_DIR")).join("suites"), &mut code);
        let mut names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), rows.len(), "two targets have one name");
        for row in &rows {
            assert!(row.floor.or(row.bar).is_some(), "{} has no bar", row.name);
            if let Some(awaited) = &row.awaited {
                assert!(!exists(awaited), "{}: {awaited} is there, no longer awaited", row.name);
            } else {
                let recorded = code.contains(&format!("\"{}\", \"{}\"", row.metric, row.unit));
                assert!(recorded, "{}: no scenario records {} in {}", row.name, row.metric, row.unit);
            }
            assert!(row.scenario.as_ref().is_none_or(|id| exists(id)), "{}: no such scenario", row.name);
        }
    }

    #[test]
    fn the_criteria_name_only_what_there_is() {
        let Targets { target } = table(TARGETS).unwrap();
        let Criteria { functional, performance, reliability } = table(CRITERIA).unwrap();
        assert_eq!([functional.len(), performance.len(), reliability.len()], [7, 5, 4]);
        for row in functional.iter().chain(&performance).chain(&reliability) {
            let missing: Vec<_> = row.scenarios.iter().filter(|id| !exists(id)).collect();
            assert!(missing.is_empty(), "{}: there is no {missing:?}", row.text);
            let written: Vec<_> = row.awaited.iter().filter(|id| exists(id)).collect();
            assert!(written.is_empty(), "{}: {written:?} is there, no longer awaited", row.text);
            let unknown: Vec<_> =
                row.targets.iter().filter(|name| !target.iter().any(|row| row.name == **name)).collect();
            assert!(unknown.is_empty(), "{}: there is no target {unknown:?}", row.text);
        }
    }

    #[test]
    fn the_criteria_are_the_plans() {
        let goals = read(&Options::default()).unwrap();
        assert!(goals.criteria.iter().any(|one| one.text.starts_with("24-hour continuous operation")));
        assert!(goals.criteria.iter().all(|one| !one.evidence.is_empty()));
        assert_eq!(goals.profile, None);
    }
}
