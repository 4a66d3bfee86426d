//! The engine as data: written before the supervisor executes itself again, read after.
//!
//! Guarantees, checked by [`crate::sim`]:
//! * An engine made of a snapshot goes on exactly like the one it was taken of: same decisions,
//!   same order, same journal.
//! * Only facts are stored: declarations, units, timers, waiters, the journal. Whatever can be
//!   derived (levels, cycles, who has which run) is derived anew.
//! * A snapshot that cannot be is refused with a reason. One of an engine that failed in the midst
//!   of something is taken as far as it goes; [`super::mend`] brings the rest in order.
//!
//! The form is that of the types themselves, so a field that is added is stored by itself. It needs
//! `#[serde(default)]`: snapshots of versions before it are read too. Fields that are not known are
//! passed over, so that an older version can take over from a newer one. [`VERSION`] grows only
//! when neither helps.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use super::declare::{Entry, Files};
use super::lifecycle::level_of;
use super::limits::Limits;
use super::request::Waiter;
use super::timers::{Due, TimerKey, Timers};
use super::unit::Unit;
use super::{Config, Engine, Halting};
use crate::checkpoint::Origin;
use crate::graph::places::{Placed, Places};
use crate::graph::{Graph, Level, NodeId};
use crate::journal::{Journal, State};

/// Version of the form.
const VERSION: u32 = 1;

/// Everything the engine knows. See the module documentation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// First, so that another version is named before its difference is stumbled upon.
    #[serde(deserialize_with = "known_version")]
    version: u32,
    now: Duration,
    files: BTreeMap<Rc<str>, Entry>,
    /// The file in force for a name.
    owners: BTreeMap<String, Rc<str>>,
    units: Vec<(NodeId, Unit)>,
    places: Places,
    journal: Journal,
    timers: Vec<(TimerKey, Due)>,
    last_timer: u64,
    waiters: Vec<Waiter>,
    last_run: u64,
    last_probe: u64,
    halting: Option<Halting>,
    undeclared: Option<u64>,
    /// By the path of a slice's group.
    #[serde(default)]
    slices: BTreeMap<Rc<str>, Limits>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    carried: BTreeMap<Rc<str>, Origin>,
}

/// Why a snapshot cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreError(String);

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RestoreError {}

fn known_version<'d, D: Deserializer<'d>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        VERSION => Ok(VERSION),
        other => Err(serde::de::Error::custom(format!(
            "the state has version {other}; this program reads version {VERSION}"
        ))),
    }
}

impl Snapshot {
    /// The component files that the engine knows, by the path it was given.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(|file| &**file)
    }
}

impl Engine {
    /// Everything the engine knows.
    pub fn snapshot(&self) -> Snapshot {
        // Whole, so that a field that is added is not forgotten here.
        let Self {
            graph,
            names,
            files,
            journal,
            timers,
            waiters,
            now,
            last_run,
            last_probe,
            halting,
            undeclared,
            slices,
            carried,
            // Its owner's, or derived.
            config: _,
            units: _,
            runs: _,
            seconds: _,
            probes: _,
            kernel: _,
            effects: _,
            census: _,
            cycle_of: _,
            old_waits: _,
        } = self;
        let units = names.values().filter_map(|id| Some((*id, self.form(self.unit(*id)?))));
        Snapshot {
            version: VERSION,
            now: *now,
            files: files.entries.clone(),
            owners: files.owners().map(|(name, file)| (name.to_owned(), Rc::clone(file))).collect(),
            units: units.collect(),
            places: graph.places(),
            journal: journal.clone(),
            timers: timers.queue.iter().map(|(key, due)| (*key, *due)).collect(),
            last_timer: timers.last,
            waiters: waiters.clone(),
            last_run: *last_run,
            last_probe: *last_probe,
            halting: *halting,
            undeclared: *undeclared,
            slices: slices.clone(),
            carried: carried.clone(),
        }
    }

    /// A unit without the declarations that are stored elsewhere already.
    fn form(&self, unit: &Unit) -> Unit {
        let mut form = unit.clone();
        let second = form.handover.second_mut().map(|second| &mut second.process);
        for process in form.process.iter_mut().chain(second) {
            if process.component == unit.component {
                process.component = Rc::default();
            }
        }
        if let Some(warm) = form.warm.as_mut().filter(|warm| warm.component == unit.component) {
            warm.component = Rc::default();
        }
        if self.files.in_force(&unit.name) == Some(&unit.component) {
            form.component = Rc::default();
        }
        form
    }

    /// The engine that a snapshot was taken of. The next event it is given has to be
    /// [`super::Event::Resumed`].
    pub fn restore(config: Config, snapshot: Snapshot) -> Result<Self, RestoreError> {
        let files = Files::restore(snapshot.files, snapshot.owners);
        let mut names = BTreeMap::new();
        let mut units = Vec::with_capacity(snapshot.units.len());
        for (id, unit) in snapshot.units {
            let unit = complete(unit, &files)?;
            if names.insert(Rc::clone(&unit.name), id).is_some() {
                return Err(RestoreError(format!("component {:?} is there twice", unit.name)));
            }
            units.push((id, unit));
        }
        let kernel = NodeId::default();
        let halting = snapshot.halting;
        let mut placed = vec![kernel_node(kernel, &files)];
        placed.extend(units.iter().map(|(id, unit)| node_of(*id, unit, halting.is_some())));
        let (graph, in_cycle) = Graph::restore(snapshot.places, placed).map_err(RestoreError)?;
        let mut engine = Self::new(config);
        engine.graph = graph;
        engine.files = files;
        engine.names = names;
        engine.kernel = kernel;
        engine.now = snapshot.now;
        engine.last_run = snapshot.last_run;
        engine.last_probe = snapshot.last_probe;
        engine.halting = halting;
        engine.undeclared = snapshot.undeclared;
        engine.slices = snapshot.slices;
        engine.carried = snapshot.carried;
        engine.journal = snapshot.journal;
        engine.journal.mend();
        engine.journal.share_names(|name| engine.names.get_key_value(name).map(|(name, _)| name));
        engine.waiters = snapshot.waiters;
        engine.place_units(units)?;
        engine.restore_timers(&snapshot.timers, snapshot.last_timer);
        if !in_cycle.is_empty() {
            engine.find_cycles();
        }
        Ok(engine)
    }

    /// Put the units in their places, and derive what is known of all together.
    fn place_units(&mut self, units: Vec<(NodeId, Unit)>) -> Result<(), RestoreError> {
        for (id, mut unit) in units {
            self.count(State::Removed, unit.state);
            let first = unit.process.as_ref().map(|process| process.run);
            let second = unit.handover.second().map(|second| second.process.run);
            for (run, place) in [(first, &mut self.runs), (second, &mut self.seconds)] {
                if let Some(run) = run
                    && (place.insert(run, id).is_some() || run.0 > self.last_run)
                {
                    return Err(RestoreError(format!("run {} of {:?} cannot be", run.0, unit.name)));
                }
            }
            if second.is_some() && first == second {
                return Err(RestoreError(format!("{:?} takes over from itself", unit.name)));
            }
            if let Some(probe) = unit.watch.under_way()
                && (self.probes.insert(probe, id).is_some() || probe.0 > self.last_probe)
            {
                return Err(RestoreError(format!("probe {} of {:?} cannot be", probe.0, unit.name)));
            }
            unit.waits_for = 0;
            if self.units.len() <= id.index() {
                self.units.resize_with(id.index() + 1, || None);
            }
            self.units[id.index()] = Some(Box::new(unit));
        }
        self.count_blockers();
        Ok(())
    }

    /// For how many others each waits before it is told to stop: those that have it on their list.
    fn count_blockers(&mut self) {
        let mut counts: HashMap<NodeId, u32> = HashMap::new();
        for unit in self.units.iter().flatten().filter(|unit| unit.process.is_some()) {
            for (waiting, run) in &unit.blocks {
                if self.runs.get(run) == Some(waiting) {
                    *counts.entry(*waiting).or_default() += 1;
                }
            }
        }
        // Of which graph they are is not stored.
        self.old_waits = !counts.is_empty();
        for (id, count) in counts {
            if let Some(unit) = self.unit_mut(id) {
                unit.waits_for = count;
            }
        }
    }

    /// The timers that somebody counts on; who counts on one that is not there, lets go of it.
    fn restore_timers(&mut self, stored: &[(TimerKey, Due)], last: u64) {
        let queue: BTreeMap<TimerKey, Due> = stored.iter().copied().collect();
        let halting = self.halting.is_some();
        self.timers = Timers { last: queue.keys().map(TimerKey::number).fold(last, u64::max), queue };
        let mut used = BTreeSet::new();
        let queue = &self.timers.queue;
        let mut keep = |timer: &mut Option<TimerKey>| {
            *timer = timer.filter(|key| queue.contains_key(key) && used.insert(*key));
        };
        for unit in self.units.iter_mut().flatten() {
            keep(&mut unit.timer);
            keep(&mut unit.watchdog.timer);
            if let Some(process) = &mut unit.process {
                process.heir.iter_mut().for_each(|heir| keep(&mut heir.timer));
                process.dump.iter_mut().for_each(|dump| keep(&mut dump.timer));
                process.restoring.iter_mut().for_each(|restoring| keep(&mut restoring.timer));
            }
            if let Some(second) = unit.handover.second_mut() {
                keep(&mut second.timer);
                keep(&mut second.watchdog);
            }
            unit.watch.timers().for_each(&mut keep);
        }
        for waiter in &mut self.waiters {
            keep(&mut waiter.timer);
        }
        self.timers.queue.retain(|key, due| used.contains(key) || (halting && *due == Due::Halt));
    }
}

/// Give a unit the declarations that were left out, and see whether it can be.
fn complete(mut unit: Unit, files: &Files) -> Result<Unit, RestoreError> {
    let refuse = |what: &str| Err(RestoreError(format!("component {:?} {what}", unit.name)));
    if unit.component.name.is_empty() {
        match files.in_force(&unit.name) {
            Some(component) => unit.component = Rc::clone(component),
            None => return refuse("has no declaration"),
        }
    }
    if *unit.name != *unit.component.name {
        return refuse("has the declaration of another");
    }
    if unit.state == State::Removed {
        return refuse("is in the state REMOVED");
    }
    let second = unit.handover.second_mut().map(|second| &mut second.process);
    for process in unit.process.iter_mut().chain(second) {
        if process.component.name.is_empty() {
            process.component = Rc::clone(&unit.component);
        }
    }
    if let Some(warm) = unit.warm.as_mut().filter(|warm| warm.component.name.is_empty()) {
        warm.component = Rc::clone(&unit.component);
    }
    Ok(unit)
}

fn kernel_node(id: NodeId, files: &Files) -> Placed {
    Placed {
        id,
        provides: files.provided_by_kernel(),
        requires: Vec::new(),
        optional: Vec::new(),
        level: Level::Up,
        may_rise: true,
    }
}

fn node_of(id: NodeId, unit: &Unit, halting: bool) -> Placed {
    // The edges of one without a file go before it does.
    let edges = |names: &Vec<String>| if unit.doomed { Vec::new() } else { names.clone() };
    Placed {
        id,
        provides: edges(&unit.component.provides),
        requires: edges(&unit.component.needs()),
        optional: edges(&unit.component.optional),
        level: level_of(unit.state),
        may_rise: unit.may_rise() && !halting,
    }
}

#[cfg(test)]
mod tests;
