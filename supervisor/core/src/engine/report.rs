//! What `status` and `graph` show, in pages.

use std::collections::HashMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::rc::Rc;

use super::Engine;
use super::limits::Limits;
use super::unit::{Process, Unit};
use crate::component::{Component, KERNEL, slice};
use crate::control::{
    ComponentStatus, Declaration, EventsPage, GraphNode, GraphPage, PAGE_BYTES, SliceStatus, SlicesPage,
    StatusPage, Summary, WhyPage,
};
use crate::graph::NodeId;
use crate::journal::State;

/// Estimated bytes of an entry besides its texts.
const ENTRY_BYTES: usize = 160;

/// The most names of held descriptors that are shown of a component: more tell a reader nothing.
const HELD_SHOWN: usize = 100;

/// First letter of a cursor within the components.
const AT_COMPONENT: char = 'c';

/// First letter of a cursor within the rejected files.
const AT_FILE: char = 'f';

impl Engine {
    /// One page of `status`: components first, then rejected files.
    pub fn status_page(&self, after: Option<&str>) -> StatusPage {
        let mut page = StatusPage {
            revision: self.journal.revision(),
            components: Vec::new(),
            summary: self.summary(),
            rejected: Vec::new(),
            next: None,
        };
        let mut bytes = 0;
        let mut file_cursor = after.and_then(|cursor| cursor.strip_prefix(AT_FILE));
        if file_cursor.is_none() {
            let start = after.and_then(|cursor| cursor.strip_prefix(AT_COMPONENT));
            let start = start.unwrap_or("");
            for (name, id) in self.names.range::<str, _>((Excluded(start), Unbounded)) {
                if bytes >= PAGE_BYTES {
                    let last = page.components.last().map(|c| &*c.name);
                    page.next = last.map(|name| format!("{AT_COMPONENT}{name}"));
                    return page;
                }
                if let Some(unit) = self.unit(*id) {
                    let entry = self.component_status(unit);
                    let names = entry.descriptors.iter().map(|held| ENTRY_BYTES + held.name.len());
                    bytes += ENTRY_BYTES + name.len() + entry.detail.as_ref().map_or(0, String::len);
                    bytes += names.sum::<usize>();
                    page.components.push(entry);
                }
            }
            file_cursor = Some("");
        }
        for rejected in self.files.rejected(file_cursor.unwrap_or("")) {
            if bytes >= PAGE_BYTES {
                let last = page.rejected.last().map_or("", |r| r.file.as_str());
                page.next = Some(format!("{AT_FILE}{last}"));
                return page;
            }
            let texts = rejected.diagnostics.iter();
            let texts = texts.map(|d| ENTRY_BYTES + d.message.len() + d.text.len());
            bytes += rejected.file.len() + texts.sum::<usize>();
            page.rejected.push(rejected);
        }
        page
    }

    /// The same for one component.
    pub(super) fn status_of(&self, unit: &Unit) -> StatusPage {
        StatusPage {
            revision: self.journal.revision(),
            components: vec![self.component_status(unit)],
            summary: self.summary(),
            rejected: Vec::new(),
            next: None,
        }
    }

    /// What a component is declared as, and what runs for it.
    pub(super) fn declaration(&self, name: &str) -> Option<Declaration> {
        let unit = self.find(name)?;
        let process = unit.process.as_ref();
        Some(Declaration {
            component: Component::clone(&unit.component),
            state: unit.state,
            pid: process.filter(|process| process.since.is_some()).and_then(|process| process.pid),
            outdated: process
                .and_then(|process| unit.component.restart_key(&process.component))
                .map(str::to_owned),
            generation: unit.generation,
            freezer: process.and_then(|process| process.freezer),
        })
    }

    fn component_status(&self, unit: &Unit) -> ComponentStatus {
        let process = unit.process.as_ref();
        let since = process.and_then(|process| process.since);
        let held = unit.held_descriptors.iter().flat_map(|held| held.iter());
        let cgroup = unit.component.cgroup();
        ComponentStatus {
            name: Rc::clone(&unit.name),
            slice: unit.component.resources.slice.as_deref().map(Rc::from),
            cgroup: (*cgroup != *unit.component.name).then(|| cgroup.as_ref().into()),
            state: unit.state,
            pid: process.and_then(|process| process.pid),
            uptime_ms: since.map(|since| {
                let uptime = self.now.saturating_sub(since);
                u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX)
            }),
            restarts: unit.restarts,
            oom_kills: unit.oom_kills,
            strains: unit.strains.list(),
            health: unit.health(),
            detail: self.detail(unit),
            status_text: process.and_then(|process| process.said.status.clone()),
            announced: process.and_then(|process| process.said.announced()),
            freezer: process.and_then(|process| process.freezer),
            checkpoint: process.and_then(Process::checkpoint_mark),
            descriptors: held.take(HELD_SHOWN).cloned().collect(),
        }
    }

    /// Why a component is where it is: what was noted, or what an inactive one waits for.
    pub(super) fn detail(&self, unit: &Unit) -> Option<String> {
        if unit.state != State::Inactive || unit.held {
            let frozen =
                unit.process.as_ref().and_then(|process| process.freezer).map(|mark| mark.to_string());
            let checkpoint = unit.process.as_ref().and_then(Process::checkpoint_mark);
            let checkpoint = checkpoint.map(|mark| mark.text().to_owned());
            let noted = unit.watch.complaint().or_else(|| unit.detail.clone());
            let limits = unit.process.as_ref().and_then(|process| process.limits.complaint());
            // Of most components none is asked for, and each look at the waiting clients costs.
            let queued = unit.handover.second().map_or(0, |_| self.queued_upgrades(&unit.name));
            let queued = match queued {
                0 => None,
                1 => Some("1 upgrade waits for the one under way".to_owned()),
                _ => Some(format!("{queued} upgrades wait for the one under way")),
            };
            let strains = unit.process.as_ref().and_then(|_| unit.strains.complaint(self.now));
            let slices = unit.process.iter().flat_map(|_| self.complaints_about_slices(&unit.component));
            let limits = limits.into_iter().chain(slices).chain(strains);
            let noted = frozen
                .into_iter()
                .chain(checkpoint)
                .chain(noted)
                .chain(limits)
                .chain(queued)
                .reduce(|one, other| format!("{one}; {other}"));
            let said = unit.process.as_ref().and_then(|process| process.said.summary());
            return match (noted, said) {
                (Some(noted), Some(said)) => Some(format!("{noted}; {said}")),
                (noted, said) => noted.or(said),
            };
        }
        let id = *self.names.get(&unit.name)?;
        let waits = self.waits_for(id);
        (!waits.is_empty()).then(|| format!("waits for {}", waits.join(", ")))
    }

    /// Capabilities a component waits for, each with the reason why it is not up.
    fn waits_for(&self, id: NodeId) -> Vec<String> {
        /// Capabilities named; one missing is enough to keep a component down.
        const SHOWN: usize = 4;
        let missing = self.graph.missing(id).chain(self.graph.awaited(id));
        missing
            .take(SHOWN)
            .map(|cap| {
                let name = self.graph.cap_name(cap);
                let providers = self.graph.providers(cap).iter();
                let mut providers = providers.filter_map(|p| self.unit(*p));
                match providers.next() {
                    None => format!("{name} (nobody provides it)"),
                    Some(unit) if unit.held => {
                        format!("{name} (its provider {} was stopped)", unit.name)
                    }
                    Some(unit) => format!("{name} (its provider {} is {})", unit.name, unit.state),
                }
            })
            .collect()
    }

    /// Counts over all components.
    pub fn summary(&self) -> Summary {
        // Each page of a long status tells it: not by a walk over all components.
        let mut summary = Summary::default();
        for (state, count) in State::ALL.iter().zip(self.census) {
            let count = count as u64;
            summary.total += count;
            match state {
                State::Active | State::Done => summary.active += count,
                State::Degraded => summary.degraded += count,
                State::Starting | State::ReadyWait => summary.starting += count,
                State::Failed | State::Backoff | State::Cycle => summary.failed += count,
                State::Inactive | State::Stopping | State::Removed => {}
            }
        }
        summary
    }

    /// One page of `slices`, each before those that lie in it.
    pub fn slices_page(&self, after: Option<&str>) -> SlicesPage {
        let mut page = SlicesPage { revision: self.journal.revision(), slices: Vec::new(), next: None };
        let mut inside: HashMap<String, [u64; 2]> = HashMap::new();
        for unit in self.units.iter().flatten() {
            let slice = unit.component.slice();
            for group in slice.iter().flat_map(|slice| slice::path_to(slice)) {
                let [components, running] = inside.entry(group.to_owned()).or_default();
                *components += 1;
                *running += u64::from(unit.process.is_some());
            }
        }
        let mut bytes = 0;
        for slice in self.files.slices().filter(|slice| after.is_none_or(|after| slice.name.as_str() > after))
        {
            if bytes >= PAGE_BYTES {
                page.next = page.slices.last().map(|last| last.cgroup.clone());
                break;
            }
            let [components, running] = inside.get(&slice.name).copied().unwrap_or_default();
            let entry = SliceStatus {
                name: slice::name_of(&slice.name),
                cgroup: slice.name.clone(),
                file: self.files.file_of(&slice.name).unwrap_or_default().to_owned(),
                description: slice.description.as_deref().map(str::to_owned),
                limits: slice.resources.declared_limits(),
                components,
                running,
                detail: self.slices.get(slice.name.as_str()).and_then(Limits::complaint),
            };
            bytes += ENTRY_BYTES + entry.cgroup.len() + entry.file.len();
            bytes += entry.limits.iter().map(|(file, value)| file.len() + value.len()).sum::<usize>();
            bytes += entry.description.as_ref().map_or(0, String::len);
            page.slices.push(entry);
        }
        page
    }

    /// One page of `graph`, sorted by name; the pseudo-component opens the first.
    pub fn graph_page(&self, after: Option<&str>) -> GraphPage {
        let (revision, edits) = (self.journal.revision(), self.graph.edits());
        let mut page = GraphPage { revision, edits, components: Vec::new(), next: None };
        if after.is_none() {
            let node = self.graph_node(KERNEL.into(), self.kernel, None);
            page.components.push(node);
        }
        let mut bytes = 0;
        let start = after.unwrap_or("");
        for (name, id) in self.names.range::<str, _>((Excluded(start), Unbounded)) {
            if bytes >= PAGE_BYTES {
                page.next = page.components.last().map(|node| node.name.to_string());
                break;
            }
            let node = self.graph_node(Rc::clone(name), *id, self.unit(*id));
            let texts = node.provides.iter().chain(&node.requires);
            let texts = texts.chain(&node.optional).map(|cap| cap.len() + 4);
            bytes += ENTRY_BYTES + texts.sum::<usize>();
            page.components.push(node);
        }
        page
    }

    fn graph_node(&self, name: Rc<str>, id: NodeId, unit: Option<&Unit>) -> GraphNode {
        let names = |caps: &[crate::graph::CapId]| {
            let caps = caps.iter();
            let mut names: Vec<_> = caps.map(|c| self.graph.cap_name(*c).to_owned()).collect();
            names.sort_unstable();
            names
        };
        GraphNode {
            name,
            state: unit.map_or(State::Active, |unit| unit.state),
            level: self.graph.level(id).into(),
            held: unit.is_some_and(|unit| unit.held),
            provides: names(self.graph.provided(id)),
            requires: names(self.graph.required(id)),
            optional: unit.map_or_else(Vec::new, |unit| unit.component.optional.clone()),
        }
    }

    /// One page of journal records.
    pub fn events_page(&self, since: u64) -> EventsPage {
        let mut records = self.journal.since(since);
        let page: Vec<_> = records.by_ref().take(PAGE_BYTES / ENTRY_BYTES).cloned().collect();
        let more = records.next().is_some();
        EventsPage {
            next: page.last().filter(|_| more).map(|record| record.revision),
            records: page,
            lost: self.journal.dropped().saturating_sub(since),
            revision: self.journal.revision(),
            origin_ms: 0,
        }
    }

    /// One page of the chain of causes of a component's newest change, or from `from` on. `None`
    /// when nothing is known of such a component.
    pub fn why_page(&self, name: &str, from: Option<u64>) -> Option<WhyPage> {
        let unit = self.find(name);
        let newest = || Some(self.newest_revision(name)).filter(|revision| *revision > 0);
        let mut at = Some(from.or_else(newest)?);
        let mut page = WhyPage {
            component: unit.map_or_else(|| name.into(), |unit| Rc::clone(&unit.name)),
            state: if name == KERNEL { State::Active } else { self.state(name) },
            detail: unit.and_then(|unit| self.detail(unit)),
            records: Vec::new(),
            next: None,
            lost: None,
            revision: self.journal.revision(),
            origin_ms: 0,
        };
        // It ends: a cause is older than what it led to.
        while let Some(revision) = at {
            if page.records.len() >= PAGE_BYTES / ENTRY_BYTES {
                page.next = Some(revision);
                break;
            }
            let Some(record) = self.journal.get(revision) else {
                page.lost = Some(revision);
                break;
            };
            page.records.push(record.clone());
            at = record.after;
        }
        Some(page)
    }
}
