//! What a component asks for next to what holds for its process.
//!
//! A difference means that the process does not have what its file asks for: it was changed from outside, by a program
//! with the right to, or the kernel gave something else than it was told to.

use std::collections::BTreeMap;

use serde::Serialize;
use yakiros_core::component::{Component, Namespace, Restriction};
use yakiros_core::control::Freezer;

use super::accounts::Accounts;
use super::facts::{Facts, NAMESPACES};

mod files;
mod limits;
mod privilege;

/// One thing that can be asked for.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Aspect {
    /// The key, or what it is about.
    pub what: String,
    /// What the file asks for.
    pub asked: Option<String>,
    /// What the kernel says.
    pub applies: Option<String>,
    /// How they compare.
    pub verdict: Verdict,
}

/// How what is asked for compares with what holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is as asked for.
    Holds,
    /// It is not.
    Differs,
    /// It is not, and the file says that it may be so (`security.optional`).
    DoesWithout,
    /// Nothing is asked for.
    NotAsked,
    /// The kernel does not show it: that it was set is all that is known.
    NotShown,
}

/// What is asked for, what holds, and what else there is to know.
pub(super) struct Scene<'a> {
    component: &'a Component,
    facts: &'a Facts,
    accounts: &'a Accounts,
    aspects: Vec<Aspect>,
}

/// Compare everything. `supervisor` has the numbers of the supervisor's namespaces.
pub fn compare(
    component: &Component,
    facts: &Facts,
    supervisor: &BTreeMap<&'static str, u64>,
    accounts: &Accounts,
) -> Vec<Aspect> {
    let mut scene = Scene { component, facts, accounts, aspects: Vec::new() };
    scene.namespaces(supervisor);
    scene.files();
    scene.privilege();
    scene.process_limits();
    scene.group_limits();
    scene.aspects
}

/// Whether it is kept from running, next to what the supervisor was asked for; nothing where no group tells, or while that
/// changes.
pub fn freezer(asked: Option<Freezer>, facts: &Facts) -> Option<Aspect> {
    let text = |frozen: bool| if frozen { "frozen" } else { "thawed" }.to_owned();
    let events = facts.group_file("cgroup.events")?;
    let applies = text(events.lines().any(|line| line == "frozen 1"));
    let asked = match asked {
        None => text(false),
        Some(Freezer::Frozen) => text(true),
        Some(Freezer::Freezing | Freezer::Thawing) => return None,
    };
    let verdict = if asked == applies { Verdict::Holds } else { Verdict::Differs };
    Some(Aspect { what: "freezer".to_owned(), asked: Some(asked), applies: Some(applies), verdict })
}

impl Scene<'_> {
    /// Something that is asked for as a text, and shown as one.
    fn compare(
        &mut self,
        what: &str,
        asked: Option<String>,
        applies: Option<String>,
        may: Option<Restriction>,
    ) {
        let holds = asked == applies;
        self.judge(what, asked, applies, holds, may);
    }

    /// The same when texts do not tell whether it holds.
    fn judge(
        &mut self,
        what: &str,
        asked: Option<String>,
        applies: Option<String>,
        holds: bool,
        may: Option<Restriction>,
    ) {
        let optional = may.is_some_and(|may| self.component.security.optional.contains(&may));
        let verdict = match (&asked, &applies) {
            (None, _) => Verdict::NotAsked,
            (Some(_), _) if holds => Verdict::Holds,
            (Some(_), None) => Verdict::NotShown,
            (Some(_), Some(_)) if optional => Verdict::DoesWithout,
            (Some(_), Some(_)) => Verdict::Differs,
        };
        self.aspects.push(Aspect { what: what.to_owned(), asked, applies, verdict });
    }

    /// Something that the kernel does not show; nothing is said of what nobody asks for.
    fn not_shown(&mut self, what: &str, asked: Option<String>) {
        if asked.is_some() {
            self.aspects.push(Aspect {
                what: what.to_owned(),
                asked,
                applies: None,
                verdict: Verdict::NotShown,
            });
        }
    }

    fn namespaces(&mut self, supervisor: &BTreeMap<&'static str, u64>) {
        for (namespace, file) in NAMESPACES {
            let Some(number) = self.facts.namespaces.get(file) else { continue };
            let is_own = supervisor.get(file) != Some(number);
            let asked = self.component.isolation.has(namespace).then(|| "own".to_owned());
            let applies = if is_own { format!("own ({number})") } else { "the supervisor's".to_owned() };
            self.judge(&format!("namespace {}", namespace.name()), asked, Some(applies), is_own, None);
        }
        let isolation = &self.component.isolation;
        if isolation.has(Namespace::Uts) {
            let (asked, applies) = (isolation.hostname.clone(), self.facts.host_name.clone());
            self.compare("isolation.hostname", asked, applies, Some(Restriction::Hostname));
        }
        if isolation.has(Namespace::Time) {
            let offsets = isolation.time_offsets;
            let text =
                |(monotonic, boottime): (i64, i64)| format!("monotonic {monotonic}, boottime {boottime}");
            let asked = Some(text((offsets.monotonic, offsets.boottime)));
            let applies = self.facts.time_offsets.map(text);
            self.compare("isolation.time_offsets", asked, applies, None);
        }
        if isolation.has(Namespace::User) {
            let maps = [("isolation.uid_map", &isolation.uid_map), ("isolation.gid_map", &isolation.gid_map)];
            for ((key, asked), applies) in maps.into_iter().zip(&self.facts.id_maps) {
                let asked = asked.iter().map(|map| [map.inside, map.outside, map.count]).collect::<Vec<_>>();
                let asked = (!asked.is_empty()).then(|| map_text(&asked));
                self.compare(key, asked, Some(map_text(applies)), None);
            }
        }
    }
}

fn map_text(lines: &[[u32; 3]]) -> String {
    let lines = lines.iter().map(|[inside, outside, count]| format!("{inside} {outside} {count}"));
    lines.collect::<Vec<_>>().join(", ")
}
