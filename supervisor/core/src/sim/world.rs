//! The fake world: it performs the engine's effects and leads a run through its phases. What goes
//! wrong is the business of [`super::faults`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::time::Duration;

use super::checkers::{self, Checker, obstacle};
use super::crash::Frozen;
use super::digest::Digest;
use super::faults::{
    FAULTS,
    checkpoint::Images,
    clients::Clients,
    files::Files,
    handovers::{Relay, Word},
};
use super::model::{Model, Slot};
use super::takeover::Takeover;
use super::{Options, Phase, Random, Reason, Report, Watch, trace};
use crate::component::Signal;
use crate::control::Request;
use crate::engine::{Config, Effect, Engine, Event, Halt, ProbeId, RunId};
use crate::journal::{Exit, State};

/// Virtual time after the last fault in which everything must come up that can: twice the longest
/// pause of the restart rule, a readiness limit, the patience with a kill, and some.
const LIVENESS_LIMIT: Duration = Duration::from_secs(1000);

/// How often it is looked whether everything has.
const LIVENESS_STEP: Duration = Duration::from_secs(5);

/// Longer than anything lasts that began while faults did: a probe that hangs has its limit, twice
/// the longest interval.
const AFTERMATH: Duration = Duration::from_secs(130);

/// How long it must stay so: several rounds of probes.
const STABLE: Duration = Duration::from_secs(100);

/// Longer than any shutdown takes.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(100);

/// Events after which a run is taken for endless: the liveliest seeds need a hundredth.
const STEP_LIMIT: u64 = 1_000_000;

/// A run that goes on, or the reason why it does not.
pub(super) type Step = Result<(), Reason>;

/// What the world will do at a time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Plan {
    Execute(RunId),
    FailToExecute(RunId),
    /// The performer cannot do what the component asks for.
    Refuse(RunId),
    Ready(RunId),
    End(RunId, Exit),
    /// A probe passes or fails.
    Answer(ProbeId, bool),
    /// A change of limits is done, or has failed.
    Limit(RunId, bool),
    /// The same for the slice of this number.
    LimitSlice(usize, bool),
    /// A process stands still, or cannot be made to.
    Frozen(RunId, bool),
    /// It goes on, or cannot be made to.
    Thawed(RunId, bool),
    /// A process is written down, or cannot be.
    Checkpointed(RunId, bool),
    /// A process is made from a checkpoint, or cannot be.
    Restored(RunId, bool),
    /// A process speaks on the channel of its hot swap.
    Say(RunId, Word),
    /// It listens for the signal that asks for what it serves.
    Listen(RunId),
    /// What was asked for so is passed on, or is not.
    Relay(Relay),
    /// A sign of life is due.
    Beat(RunId),
    /// A cancelled probe is over.
    Vanish(ProbeId),
}

/// A plan with its time; the second number keeps the order of those that fall together.
#[derive(Clone, Copy, Debug)]
struct Planned(Duration, u64, Plan);

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.1 == other.1
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// See the module documentation.
pub(super) struct World {
    pub(super) options: Options,
    pub(super) random: Random,
    pub(super) model: Model,
    pub(super) files: Files,
    pub(super) clients: Clients,
    pub(super) takeover: Takeover,
    pub(super) frozen: Frozen,
    pub(super) images: Images,
    pub(super) engine: Engine,
    phase: Phase,
    plans: BinaryHeap<Reverse<Planned>>,
    last_plan: u64,
    /// The engine's deadline, and when it is told that it has come.
    tick: Option<(Duration, Duration)>,
    checkers: Vec<(&'static str, Box<dyn Checker>)>,
    steps: u64,
    effects: u64,
    digest: Digest,
    digests: Vec<u64>,
    expected: Option<Rc<[u64]>>,
    trace: Option<Vec<String>>,
}

impl World {
    pub(super) fn new(options: Options, random: Random, watch: &Watch) -> Self {
        let components = options.components as usize;
        let takeover = Takeover::new(watch.takeovers, &random);
        Self {
            options,
            random,
            model: Model::new(components),
            files: Files::new(components),
            clients: Clients::default(),
            takeover,
            frozen: Frozen::default(),
            images: Images::default(),
            engine: Engine::new(Config::default()),
            phase: Phase::Safety,
            plans: BinaryHeap::new(),
            last_plan: 0,
            tick: None,
            checkers: if watch.unchecked { Vec::new() } else { checkers::all() },
            steps: 0,
            effects: 0,
            digest: Digest::default(),
            digests: Vec::new(),
            expected: watch.expected.clone(),
            trace: watch.traced.then(Vec::new),
        }
    }

    /// Phase, step and virtual time.
    pub(super) fn place(&self) -> (Phase, u64, Duration) {
        (self.phase, self.steps, self.model.now)
    }

    /// The last lines that were written down.
    pub(super) fn history(&mut self, count: usize) -> Vec<String> {
        let mut lines = self.trace.take().unwrap_or_default();
        let from = lines.len().saturating_sub(count);
        lines.drain(from..).collect()
    }

    pub(super) fn report(self) -> Report {
        let Self { steps, effects, digests, .. } = self;
        Report { steps, effects, time: self.model.now, digests: digests.into() }
    }

    /// All phases.
    pub(super) fn live(&mut self) -> Step {
        self.carry_over()?;
        self.declare_all()?;
        let halt_at = (self.options.halt_early == 1).then(|| self.random.below(self.options.faults + 1));
        for fault in 0..self.options.faults {
            if halt_at == Some(fault) {
                self.begin_shutdown()?;
            }
            self.pass_time(self.options.fault_pause_ms)?;
            self.do_something()?;
        }
        if halt_at.is_none() {
            self.come_up()?;
        }
        self.go_down()
    }

    /// Nothing fails any more, and everybody wants everything to run.
    fn come_up(&mut self) -> Step {
        self.phase = Phase::Liveness;
        self.model.calm = true;
        self.thaw_everything()?;
        self.want_everything()?;
        // A limit that was put off ends in its own time.
        let last = self.model.processes().filter_map(|(_, process)| process.due).max();
        self.run_until(last.unwrap_or_default().max(self.model.now) + AFTERMATH)?;
        let limit = self.model.now + LIVENESS_LIMIT;
        while let Some(message) = obstacle(&self.model) {
            if self.model.now >= limit {
                return Err(Reason::Stuck { message });
            }
            self.run_until(self.model.now + LIVENESS_STEP)?;
        }
        self.run_until(self.model.now + STABLE)?;
        self.check(|checker, model, engine| checker.rest(model, engine))
    }

    fn go_down(&mut self) -> Step {
        self.phase = Phase::Shutdown;
        self.model.calm = true;
        self.begin_shutdown()?;
        self.run_until(self.model.now + SHUTDOWN_LIMIT)?;
        self.look_for_forgotten_clients()?;
        self.check(|checker, model, engine| checker.end(model, engine))
    }

    /// By a signal or by a request, once.
    fn begin_shutdown(&mut self) -> Step {
        if self.model.halting.is_some() {
            return Ok(());
        }
        let jumps = self.random.percent(self.options.jumps);
        if jumps {
            self.hold_some()?;
        }
        match (jumps, self.random.percent(50)) {
            (true, true) => self.ask(0, Request::Kexec),
            (true, false) => self.give(Event::Halt(Halt::Kexec)),
            (false, true) => self.ask(0, Request::Poweroff),
            (false, false) => self.give(Event::Halt(Halt::PowerOff)),
        }
    }

    /// One row of the table of faults, by weight.
    fn do_something(&mut self) -> Step {
        let total = FAULTS.iter().map(|fault| (fault.weight)(&self.options)).sum();
        let mut ticket = self.random.below(total);
        for fault in FAULTS {
            let weight = (fault.weight)(&self.options);
            if ticket < weight {
                return (fault.act)(self);
            }
            ticket -= weight;
        }
        Ok(())
    }

    /// Let up to so many milliseconds pass.
    fn pass_time(&mut self, most_ms: u64) -> Step {
        let pause = Duration::from_millis(self.random.below(most_ms));
        self.run_until(self.model.now + pause)
    }

    /// Let the world and the engine's timers run.
    pub(super) fn run_until(&mut self, end: Duration) -> Step {
        while !self.model.halted {
            let plan = self.plans.peek().map(|Reverse(planned)| planned.0);
            let tick = self.tick_at();
            let next = match (plan, tick) {
                (Some(plan), Some(tick)) => plan.min(tick),
                (Some(at), None) | (None, Some(at)) => at,
                (None, None) => break,
            };
            if next > end {
                break;
            }
            self.model.now = self.model.now.max(next);
            match self.plans.peek() {
                Some(Reverse(Planned(at, _, plan))) if *at <= self.model.now => {
                    let plan = *plan;
                    self.plans.pop();
                    self.carry_out(plan)?;
                }
                _ => self.give(Event::Tick)?,
            }
        }
        self.model.now = self.model.now.max(end);
        Ok(())
    }

    /// When the engine is told that its deadline has come: late at times, for a machine that is
    /// suspended or starved wakes up late.
    fn tick_at(&mut self) -> Option<Duration> {
        let deadline = self.engine.deadline()?;
        if self.model.calm {
            return Some(deadline);
        }
        if self.tick.is_none_or(|(known, _)| known != deadline) {
            let late = self.random.percent(self.options.late_ticks);
            let delay = if late { self.random.below(self.options.tick_delay_ms) } else { 0 };
            self.tick = Some((deadline, deadline + Duration::from_millis(delay)));
        }
        self.tick.map(|(_, at)| at)
    }

    fn carry_out(&mut self, plan: Plan) -> Step {
        if self.stands_still(plan) {
            return Ok(());
        }
        match plan {
            Plan::Execute(run) => self.execute(run),
            Plan::Ready(run) => self.report_ready(run),
            Plan::FailToExecute(run) => self.fail_to_execute(run),
            Plan::Refuse(run) => self.refuse_to_execute(run),
            // What was to fail later succeeds now.
            Plan::End(run, Exit::Code(_)) if self.model.calm => self.end(run, Exit::Code(0)),
            Plan::End(run, exit) => self.end(run, exit),
            Plan::Answer(probe, passes) => self.answer_probe(probe, passes),
            Plan::Limit(run, done) => self.report_limits(run, done),
            Plan::LimitSlice(number, done) => self.report_slice_limits(number, done),
            Plan::Frozen(run, done) => self.report_frozen(run, done),
            Plan::Thawed(run, done) => self.report_thawed(run, done),
            Plan::Checkpointed(run, done) => self.report_checkpoint(run, done),
            Plan::Restored(run, done) => self.report_restoration(run, done),
            Plan::Say(run, _) if self.frozen.is_hung(run) => Ok(()),
            Plan::Say(run, word) => match self.frozen.silence(self.model.now) {
                None => self.say_on_channel(run, word),
                Some(left) => {
                    self.plan_after(left, Plan::Say(run, word));
                    Ok(())
                }
            },
            Plan::Listen(run) => self.give(Event::Listens(run)),
            Plan::Relay(relay) => self.report_relay(relay),
            Plan::Beat(run) => self.beat(run),
            Plan::Vanish(probe) => self.give(Event::Probed { probe, outcome: Err("cancelled".into()) }),
        }
    }

    /// Do something within so many milliseconds, at least one.
    pub(super) fn plan(&mut self, most_ms: u64, plan: Plan) {
        let after = Duration::from_millis(1 + self.random.below(most_ms));
        self.plan_after(after, plan);
    }

    /// Do something after exactly this time.
    pub(super) fn plan_after(&mut self, after: Duration, plan: Plan) {
        self.last_plan += 1;
        self.plans.push(Reverse(Planned(self.model.now + after, self.last_plan, plan)));
    }

    /// Give the engine an event, and perform what it wants, under the checkers' eyes.
    pub(super) fn give(&mut self, event: Event) -> Step {
        let mut follows = self.step(event)?;
        let mut next = 0;
        while let Some(run) = follows.get(next).copied() {
            next += 1;
            let more = self.step(Event::Created { run, pid: 1 })?;
            follows.extend(more);
        }
        self.take_over_in_order()
    }

    /// One event. Returns the runs that were created by it.
    fn step(&mut self, event: Event) -> Result<Vec<RunId>, Reason> {
        self.steps += 1;
        if self.steps > STEP_LIMIT {
            return Err(Reason::Endless);
        }
        self.note(">", || trace::event(&event));
        self.digest.event(&event);
        if let Event::Halt(halt) = event {
            self.model.begin_halt(halt);
        }
        for (name, checker) in &mut self.checkers {
            checker
                .event(&self.model, &event)
                .map_err(|message| Reason::Broken { checker: name, message })?;
        }
        if self.fails_over(&event) {
            self.take_over_after_failure()?;
            return Ok(Vec::new());
        }
        let mut created = Vec::new();
        let mut effects = self.engine.handle(self.model.now, event);
        let failed = self.fails_within(&mut effects);
        for effect in effects {
            self.look_for_twins(&effect)?;
            self.effects += 1;
            self.note("  <", || trace::effect(&effect));
            self.digest.effect(&effect);
            for (name, checker) in &mut self.checkers {
                checker
                    .effect(&self.model, &effect)
                    .map_err(|message| Reason::Broken { checker: name, message })?;
            }
            self.model.apply(&effect);
            self.perform(&effect, &mut created);
        }
        if failed {
            self.take_over_after_failure()?;
            return Ok(Vec::new());
        }
        self.check(|checker, model, engine| checker.step(model, engine))?;
        self.compare()?;
        Ok(created)
    }

    fn check(&mut self, look: impl Fn(&mut dyn Checker, &Model, &Engine) -> checkers::Verdict) -> Step {
        for (name, checker) in &mut self.checkers {
            look(&mut **checker, &self.model, &self.engine)
                .map_err(|message| Reason::Broken { checker: name, message })?;
        }
        Ok(())
    }

    /// The same seed gives the same effects.
    fn compare(&mut self) -> Step {
        let digest = self.digest.value();
        let at = self.digests.len();
        self.digests.push(digest);
        match &self.expected {
            Some(expected) if expected.get(at) != Some(&digest) => Err(Reason::Differs),
            _ => Ok(()),
        }
    }

    fn perform(&mut self, effect: &Effect, created: &mut Vec<RunId>) {
        match effect {
            Effect::Spawn { run, origin: Some(origin), .. } => self.plan_restoration(*run, origin),
            Effect::Spawn { run, component, origin: None, .. } => {
                created.push(*run);
                self.plan_life(*run, component);
            }
            // Nothing but a kill ends what hangs, and it answers nobody.
            Effect::Terminate(run) | Effect::Signal(run, Signal::ABORT) | Effect::Order(run, _)
                if self.frozen.is_hung(*run) => {}
            Effect::Probe { run, .. } if self.meets_hung(*run) => {}
            Effect::Terminate(run) | Effect::Signal(run, Signal::ABORT) => self.plan_end(*run),
            Effect::Kill(run) => self.plan_death(*run),
            Effect::Probe { probe, .. } => self.plan_answer(*probe),
            Effect::Limit { run, .. } => self.plan_limits(*run),
            Effect::LimitSlice(slice) => self.plan_slice_limits(slice),
            Effect::Freeze { run, limit } => self.plan_frozen(*run, *limit),
            Effect::Thaw(run) => self.plan_thawed(*run),
            Effect::CancelProbe(probe) => self.plan(200, Plan::Vanish(*probe)),
            Effect::Reply(client, _) => self.clients.leave(*client),
            Effect::Connect { giver, generation, .. } => self.plan_offer(*giver, *generation),
            Effect::Relay { giver, taker, .. } => self.plan_relay(*giver, *taker),
            Effect::Order(run, order) => self.plan_obedience(*run, order),
            Effect::Checkpoint { run, limit, .. } => self.plan_checkpoint(*run, *limit),
            Effect::Signal(..)
            | Effect::Continue(_)
            | Effect::Unconfine(_)
            | Effect::Forget(_)
            | Effect::ReadFiles
            | Effect::Reexecute(_)
            | Effect::Changed(_)
            | Effect::Halt(_) => {}
        }
    }

    /// Whether a probe of the component of this process meets one that hangs.
    fn meets_hung(&self, run: RunId) -> bool {
        let slot = self.model.owner(run).map(|number| &self.model.slots[number]);
        slot.and_then(Slot::probed).is_some_and(|process| self.frozen.is_hung(process.run))
    }

    fn note(&mut self, mark: &str, text: impl Fn() -> String) {
        let Some(trace) = &mut self.trace else { return };
        trace.push(format!("{:>12.3?} {mark} {}", self.model.now, text()));
    }

    /// Ask for what nobody needs to ask for by himself: what a user has stopped, and a oneshot
    /// that ended with an error. Everything else must come up without a word.
    fn want_everything(&mut self) -> Step {
        for number in 0..self.model.slots.len() {
            let slot = &self.model.slots[number];
            // One that was to be made from a checkpoint or not at all may yet not be.
            let strict = !slot.state.is_up() && self.images.was_wanted(number);
            let down = slot.held || matches!(slot.state, State::Failed | State::Stopping);
            if slot.declared.is_some() && (down || strict) {
                let name = slot.name.to_string();
                self.ask(0, Request::Start { name, timeout_ms: None })?;
            }
        }
        Ok(())
    }
}
