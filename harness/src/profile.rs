//! Profiles: how much a run does, as `harness/profiles.toml` has it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use yakiros_vm::image::Kernel;

use crate::programs::Build;
use crate::select;

/// The table, in the harness's folder.
const FILE: &str = "profiles.toml";
/// The one that runs where none is named.
pub const USUAL: &str = "full";

/// How much of a scenario's work is done where there may be more or less of it: hundreds of upgrades, thousands of
/// connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Amounts {
    /// As much as is promised.
    #[default]
    All,
    /// As much as shows a fault that was made, for each change.
    Few,
}

/// One profile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// Its name in the table.
    pub name: String,
    /// In one line.
    pub summary: String,
    /// Wall time of a whole run, on two processors without KVM; none for what was not read from the table.
    pub budget: Option<Duration>,
    /// How much is done.
    pub amounts: Amounts,
    /// How the guest's programs are built.
    pub programs: Build,
    /// One run on each; empty for the usual kernel alone.
    pub kernels: Vec<Kernel>,
    /// Patterns of `suite/scenario`; everything when empty.
    pub only: Vec<String>,
    /// What is not run.
    pub leave_out: Vec<LeaveOut>,
    /// Rounds, at least 1.
    pub repeat: u32,
    /// Amounts that scenarios ask for by name.
    pub planned: BTreeMap<String, u64>,
}

/// Scenarios that a profile leaves out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaveOut {
    /// Patterns of `suite/scenario`.
    pub scenarios: Vec<String>,
    /// On which kernels; empty for all.
    #[serde(default, deserialize_with = "kernels")]
    pub kernels: Vec<Kernel>,
    /// Why; reports repeat it.
    pub why: String,
}

fn kernels<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Kernel>, D::Error> {
    Ok(Vec::<KernelName>::deserialize(from)?.into_iter().map(Kernel::from).collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    profile: BTreeMap<String, Row>,
    #[serde(default)]
    amount: BTreeMap<String, BTreeMap<String, toml::Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    summary: String,
    budget_s: u64,
    #[serde(default)]
    amounts: Amounts,
    #[serde(default)]
    programs: Build,
    #[serde(default)]
    kernels: Vec<KernelName>,
    #[serde(default)]
    only: Vec<String>,
    #[serde(default)]
    leave_out: Vec<LeaveOut>,
    #[serde(default = "once")]
    repeat: u32,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KernelName {
    Alpine,
    Debian,
}

impl From<KernelName> for Kernel {
    fn from(name: KernelName) -> Self {
        match name {
            KernelName::Alpine => Self::Alpine,
            KernelName::Debian => Self::Debian,
        }
    }
}

fn once() -> u32 {
    1
}

impl Profile {
    /// The profile of this name, or a message that says which there are.
    pub fn named(name: &str) -> Result<Self, String> {
        let all = Self::all()?;
        let names: Vec<&str> = all.iter().map(|profile| profile.name.as_str()).collect();
        let unknown = select::unknown("profile", name, &names);
        all.into_iter().find(|profile| profile.name == name).ok_or(unknown)
    }

    /// All profiles, by budget.
    pub fn all() -> Result<Vec<Self>, String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
        let failed = |error: &dyn std::fmt::Display| format!("failed to read {}: {error}", path.display());
        let text = fs::read_to_string(&path).map_err(|error| failed(&error))?;
        Self::read(&text).map_err(|error| failed(&error))
    }

    fn read(text: &str) -> Result<Vec<Self>, String> {
        let Table { profile, amount } = toml::from_str(text).map_err(|error| error.to_string())?;
        let names: Vec<String> = profile.keys().cloned().collect();
        for (what, row) in &amount {
            let mut words = names.iter().map(String::as_str).chain(["what"]);
            if let Some(stranger) = row.keys().find(|key| !words.any(|word| word == key.as_str())) {
                return Err(format!("amount.{what} has '{stranger}', which is no profile"));
            }
        }
        let planned = |profile: &str| -> Result<BTreeMap<String, u64>, String> {
            let number = |(what, row): (&String, &BTreeMap<String, toml::Value>)| {
                let value = row.get(profile).and_then(toml::Value::as_integer);
                let value = value.and_then(|value| u64::try_from(value).ok());
                value.map(|value| (what.clone(), value)).ok_or(format!("amount.{what} has no {profile}"))
            };
            amount.iter().map(number).collect()
        };
        let mut all = Vec::new();
        for (name, row) in profile {
            let kernels = row.kernels.into_iter().map(Kernel::from);
            all.push(Self {
                planned: planned(&name)?,
                name,
                summary: row.summary,
                budget: Some(Duration::from_secs(row.budget_s)),
                amounts: row.amounts,
                programs: row.programs,
                kernels: kernels.collect(),
                only: row.only,
                leave_out: row.leave_out,
                repeat: row.repeat.max(1),
            });
        }
        all.sort_by_key(|profile| profile.budget);
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::SUITES;

    #[test]
    fn the_table_can_be_read_and_names_only_what_there_is() {
        let all = Profile::all().unwrap();
        let names: Vec<&str> = all.iter().map(|profile| profile.name.as_str()).collect();
        assert_eq!(names, ["smoke", "ci", "full", "nightly"]);
        let ids: Vec<String> = SUITES
            .iter()
            .flat_map(|suite| suite.scenarios.iter().map(move |one| format!("{}/{}", suite.name, one.name)))
            .collect();
        for profile in &all {
            let left_out = profile.leave_out.iter().flat_map(|row| &row.scenarios);
            for pattern in profile.only.iter().chain(left_out) {
                assert!(ids.iter().any(|id| select::fits(pattern, id)), "{}: {pattern}", profile.name);
            }
            assert!(profile.leave_out.iter().all(|row| !row.why.is_empty()), "{}", profile.name);
        }
    }

    #[test]
    fn each_amount_has_a_number_for_each_profile() {
        let profile = "[profile.a]\nsummary = \"\"\nbudget_s = 1\n";
        let one = |amount: &str| Profile::read(&format!("{profile}[amount.x]\n{amount}"));
        assert_eq!(one("what = \"\"\na = 7").unwrap()[0].planned["x"], 7);
        assert_eq!(one("what = \"\"").unwrap_err(), "amount.x has no a");
        assert_eq!(one("a = -1").unwrap_err(), "amount.x has no a");
        assert_eq!(one("a = 1\nb = 2").unwrap_err(), "amount.x has 'b', which is no profile");
    }

    #[test]
    fn an_unknown_profile_names_the_near_one() {
        let message = Profile::named("nightli").unwrap_err();
        assert!(message.contains("did you mean 'nightly'?"), "{message}");
    }
}
