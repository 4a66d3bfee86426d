//! The fake world: it performs the engine's effects, and makes things go wrong.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use super::check::Seen;
use super::health::Probes;
use super::{Options, Random, Report};
use crate::component::{Component, Readiness, parse};
use crate::control::{Answer, Request};
use crate::engine::{
    ClientId, Config, Effect, Engine, Event, FileChange, FileContent, Halt, Peer, ProbeId, RunId,
};
use crate::journal::{Exit, Record, State};

/// Virtual time after the last fault in which everything must come to rest: the longest pause of
/// the restart rule, a readiness limit and some.
const LIVENESS_LIMIT: Duration = Duration::from_secs(1000);

/// Events after which a run is taken for endless: the liveliest seeds need a hundredth.
const STEP_LIMIT: u64 = 1_000_000;

/// A process of the fake world.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) run: RunId,
    pub(super) component: Rc<Component>,
    /// Processes of components that were up when it was started.
    pub(super) stands_on: BTreeSet<RunId>,
    /// Capabilities that nobody else granted when its stop began.
    pub(super) sole: BTreeSet<String>,
    /// It does not hear SIGTERM.
    deaf: bool,
}

/// What the world will do at a time.
#[derive(Clone, Copy, Debug)]
enum Plan {
    Execute(RunId),
    FailToExecute(RunId),
    Ready(RunId),
    End(RunId, Exit),
    /// A probe passes or fails.
    Answer(ProbeId, bool),
    /// A cancelled probe is over.
    Vanish(ProbeId),
}

/// See the module documentation.
pub(super) struct World {
    options: Options,
    random: Random,
    engine: Engine,
    now: Duration,
    steps: u64,
    plans: BTreeMap<(Duration, u64), Plan>,
    last_plan: u64,
    declared: BTreeMap<String, Rc<Component>>,
    states: BTreeMap<String, State>,
    processes: Vec<Process>,
    probes: Probes,
    records: Vec<Record>,
    faults_left: usize,
    calm: bool,
    halted: bool,
    last_client: u64,
    open_requests: usize,
}

impl World {
    pub(super) fn new(options: Options, random: Random) -> Self {
        Self {
            faults_left: options.faults,
            options,
            random,
            engine: Engine::new(Config::default()),
            now: Duration::ZERO,
            steps: 0,
            plans: BTreeMap::new(),
            last_plan: 0,
            declared: BTreeMap::new(),
            states: BTreeMap::new(),
            processes: Vec::new(),
            probes: Probes::default(),
            records: Vec::new(),
            calm: false,
            halted: false,
            last_client: 0,
            open_requests: 0,
        }
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    pub(super) fn last_records(&self, count: usize) -> Vec<Record> {
        let from = self.records.len().saturating_sub(count);
        self.records[from..].to_vec()
    }

    pub(super) fn report(self) -> Report {
        Report { steps: self.steps, records: self.records }
    }

    /// All phases.
    pub(super) fn live(&mut self) -> Result<(), String> {
        let count = self.options.components;
        let files = (0..count).map(|number| self.draw_file(number)).collect();
        self.give(Event::Files(files))?;
        while self.faults_left > 0 {
            let pause = self.options.fault_pause.as_millis() as u64;
            let next = self.now + Duration::from_millis(self.random.below(pause));
            self.run_until(next)?;
            self.faults_left -= 1;
            self.do_something()?;
        }
        self.calm_down()?;
        self.run_until(self.now + LIVENESS_LIMIT)?;
        self.seen().converged()?;
        if self.open_requests > 0 {
            return Err(format!("{} requests got no answer", self.open_requests));
        }
        self.give(Event::Halt(Halt::PowerOff))?;
        self.run_until(self.now + LIVENESS_LIMIT)?;
        match (self.halted, self.processes.first()) {
            (true, None) => Ok(()),
            (true, Some(left)) => Err(format!("halted while {} lives", left.component.name)),
            (false, _) => Err("the shutdown does not end".to_owned()),
        }
    }

    fn seen(&self) -> Seen<'_> {
        Seen { declared: &self.declared, states: &self.states, processes: &self.processes }
    }

    /// From now on nothing fails, and everybody wants everything to run.
    fn calm_down(&mut self) -> Result<(), String> {
        self.calm = true;
        let names: Vec<_> = self.declared.keys().cloned().collect();
        for name in names {
            let timeout_ms = Some(1000);
            self.ask(Request::Start { name, timeout_ms })?;
        }
        self.give(Event::Resolve)
    }

    fn draw_file(&mut self, number: usize) -> FileChange {
        let text = self.draw_text(number);
        let parsed = parse(&text);
        let component = parsed.component.unwrap_or_else(|| panic!("{:?} in\n{text}", parsed.diagnostics));
        self.probes.declare(&component);
        self.declared.insert(component.name.clone(), Rc::new(component.clone()));
        self.forget_order(&component.name);
        FileChange { file: format!("c{number}.toml"), content: FileContent::Component(Box::new(component)) }
    }

    /// What a component that begins to stop is the only one to grant.
    fn note_sole(&mut self, name: &str) {
        let seen = self.seen();
        let own = self.processes.iter().find(|p| p.component.name == name);
        let provides = own.map_or(&[][..], |own| &own.component.provides);
        let sole = provides.iter().filter(|cap| !seen.provided_without(cap, name)).cloned().collect();
        if let Some(own) = self.processes.iter_mut().find(|p| p.component.name == name) {
            own.sole = sole;
        }
    }

    /// A new declaration may let go of what the process stood on and take it up again later, or
    /// close a cycle for a while: from then on no order is expected.
    fn forget_order(&mut self, name: &str) {
        let own = |p: &&Process| p.component.name == name;
        let runs: Vec<_> = self.processes.iter().filter(own).map(|p| p.run).collect();
        for process in &mut self.processes {
            if process.component.name == name {
                process.stands_on.clear();
            }
            process.stands_on.retain(|run| !runs.contains(run));
        }
    }

    fn draw_text(&mut self, number: usize) -> String {
        let caps = self.options.capabilities as u64;
        let own = number as u64 % caps;
        let requirements = self.random.below(self.options.requirements as u64 + 1);
        let from = if self.options.cycles { caps } else { own };
        let mut pick = |count: u64| -> Vec<String> {
            let picked = (0..count.min(from)).map(|_| self.random.below(from));
            picked.map(|cap| format!("\"cap.{cap}\"")).collect()
        };
        let requires = pick(requirements).join(", ");
        let optional = pick(requirements / 2).join(", ");
        let oneshot = self.random.percent(self.options.oneshots);
        let notify = !oneshot && self.random.percent(self.options.readiness);
        let health = self.draw_health(oneshot);
        format!(
            "[component]\nname = \"c{number}\"\nbinary = \"/bin/c\"\nargs = [\"{}\"]\n\
             type = \"{}\"\n[provides]\ncapabilities = [\"cap.{own}\"]\n\
             [requires]\ncapabilities = [{requires}]\n[optional]\ncapabilities = [{optional}]\n\
             [lifecycle]\nreadiness = \"{}\"\n{health}",
            self.random.below(3),
            if oneshot { "oneshot" } else { "service" },
            if notify { "notify" } else { "none" },
        )
    }

    /// Lines of `[lifecycle]`: long intervals, so that a run of an hour stays short.
    fn draw_health(&mut self, oneshot: bool) -> String {
        if oneshot || !self.random.percent(self.options.probed) {
            return String::new();
        }
        let interval = 5 + self.random.below(60);
        let fail = 1 + self.random.below(3);
        format!(
            "health_file = \"/c\"\nhealth_interval = {interval}\nhealth_timeout = {}\n\
             health_fail_threshold = {fail}\nhealth_restart_threshold = {}\n",
            1 + self.random.below(2 * interval),
            fail + self.random.below(4),
        )
    }

    /// A fault, a change of files or a request.
    fn do_something(&mut self) -> Result<(), String> {
        let number = self.random.below(self.options.components as u64) as usize;
        let name = format!("c{number}");
        let timeout_ms = self.random.percent(50).then_some(100);
        match self.random.below(8) {
            0..3 => self.kill_one(),
            3 => self.ask(Request::Stop { name, timeout_ms }),
            4 => self.ask(Request::Start { name, timeout_ms }),
            5 => self.ask(Request::Restart { name, timeout_ms }),
            6 => {
                let file = self.draw_file(number);
                self.give(Event::Files(vec![file]))
            }
            _ => {
                self.declared.remove(&name);
                let gone = FileChange { file: format!("c{number}.toml"), content: FileContent::Gone };
                self.give(Event::Files(vec![gone]))
            }
        }
    }

    fn kill_one(&mut self) -> Result<(), String> {
        let Some(at) =
            (self.random.below(self.processes.len() as u64) as usize).checked_rem(self.processes.len())
        else {
            return Ok(());
        };
        let run = self.processes[at].run;
        self.end(run, Exit::Signal(9))
    }

    fn ask(&mut self, request: Request) -> Result<(), String> {
        self.last_client += 1;
        self.open_requests += 1;
        self.give(Event::Request {
            client: ClientId(self.last_client),
            peer: Peer { uid: 0, pid: 1 },
            request,
        })
    }

    /// Let the world and the engine's timers run.
    fn run_until(&mut self, end: Duration) -> Result<(), String> {
        loop {
            let plan = self.plans.keys().next().map(|key| key.0);
            let deadline = self.engine.deadline();
            let next = match (plan, deadline) {
                (Some(plan), Some(deadline)) => plan.min(deadline),
                (Some(at), None) | (None, Some(at)) => at,
                (None, None) => break,
            };
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if plan.is_some_and(|at| at <= self.now) {
                if let Some((_, plan)) = self.plans.pop_first() {
                    self.carry_out(plan)?;
                }
            } else {
                self.give(Event::Tick)?;
            }
        }
        self.now = self.now.max(end);
        Ok(())
    }

    fn carry_out(&mut self, plan: Plan) -> Result<(), String> {
        let lives = |run: &RunId, all: &[Process]| all.iter().any(|p| p.run == *run);
        match plan {
            Plan::Execute(run) if lives(&run, &self.processes) => self.give(Event::Executed(run)),
            Plan::Ready(run) if lives(&run, &self.processes) => self.give(Event::Ready(run)),
            Plan::FailToExecute(run) if lives(&run, &self.processes) => {
                self.processes.retain(|process| process.run != run);
                self.give(Event::NotExecuted { run, step: "execute the binary".into(), errno: 2 })
            }
            // What was to fail later succeeds now.
            Plan::End(run, Exit::Code(_)) if self.calm => self.end(run, Exit::Code(0)),
            Plan::End(run, exit) => self.end(run, exit),
            Plan::Answer(probe, passes) => self.answer(probe, passes),
            Plan::Vanish(probe) => {
                let outcome = Err("cancelled".into());
                self.give(Event::Probed { probe, outcome })
            }
            _ => Ok(()),
        }
    }

    /// A probe ends by itself. What the engine makes of it is judged at once.
    fn answer(&mut self, probe: ProbeId, passes: bool) -> Result<(), String> {
        let Some(name) = self.probes.answer(probe, passes) else {
            return Ok(());
        };
        let outcome = if passes { Ok(()) } else { Err("it failed".into()) };
        self.give(Event::Probed { probe, outcome })?;
        self.probes.judge(&name, &self.states)
    }

    fn end(&mut self, run: RunId, exit: Exit) -> Result<(), String> {
        let before = self.processes.len();
        self.processes.retain(|process| process.run != run);
        if self.processes.len() == before {
            return Ok(());
        }
        self.give(Event::Ended(run, exit))
    }

    fn plan(&mut self, most_ms: u64, plan: Plan) {
        self.last_plan += 1;
        let after = Duration::from_millis(1 + self.random.below(most_ms));
        self.plans.insert((self.now + after, self.last_plan), plan);
    }

    /// Give the engine an event, and perform what it wants, under the checkers' eyes.
    fn give(&mut self, event: Event) -> Result<(), String> {
        let mut queue = VecDeque::from([event]);
        while let Some(event) = queue.pop_front() {
            self.steps += 1;
            if self.steps > STEP_LIMIT {
                return Err("it does not come to rest".to_owned());
            }
            for effect in self.engine.handle(self.now, event) {
                self.perform(effect, &mut queue)?;
            }
        }
        Ok(())
    }

    fn perform(&mut self, effect: Effect, queue: &mut VecDeque<Event>) -> Result<(), String> {
        match effect {
            Effect::Spawn { run, component, .. } => {
                self.seen().start(&component)?;
                if self.halted {
                    return Err(format!("{} is started after the halt", component.name));
                }
                queue.push_back(Event::Created { run, pid: 1 });
                self.begin(run, component);
            }
            Effect::Terminate(run) => {
                let own = self.processes.iter().find(|p| p.run == run).cloned();
                let Some(own) = own else {
                    return Err("a process that is gone is told to stop".to_owned());
                };
                self.seen().stop(&own)?;
                if !own.deaf {
                    self.plan(200, Plan::End(run, Exit::Signal(15)));
                }
            }
            Effect::Kill(run) => self.plan(5, Plan::End(run, Exit::Signal(9))),
            Effect::Probe { probe, run, component } => {
                self.seen().probe(run, &component)?;
                self.probes.begin(probe, run, &component, self.now)?;
                if self.calm || !self.random.percent(self.options.probe_hangs) {
                    let passes = self.calm || !self.random.percent(self.options.probe_failures);
                    // While calm within the shortest limit; before, some are too late.
                    let most_ms = if self.calm { 500 } else { 2000 };
                    self.plan(most_ms, Plan::Answer(probe, passes));
                }
            }
            Effect::CancelProbe(probe) => {
                self.probes.cancel(probe, self.now)?;
                self.plan(200, Plan::Vanish(probe));
            }
            Effect::Changed(record) => {
                self.probes.change(&record)?;
                if record.to == State::Stopping {
                    self.note_sole(&record.component);
                }
                self.states.insert(record.component.to_string(), record.to);
                self.records.push(record);
            }
            Effect::Reply(_, answer) => {
                self.open_requests -= 1;
                if let Answer::Done { revision, .. } = answer
                    && revision > self.engine.journal().revision()
                {
                    return Err("an answer names a revision that is yet to come".to_owned());
                }
            }
            Effect::Halt(_) => self.halted = true,
            Effect::Signal(..) | Effect::Forget(_) | Effect::ReadFiles => {}
        }
        Ok(())
    }

    fn begin(&mut self, run: RunId, component: Rc<Component>) {
        let fails = !self.calm && self.random.percent(self.options.exec_failures);
        let silent = !self.calm && self.random.percent(10);
        let deaf = self.random.percent(self.options.deaf);
        if fails {
            self.plan(3, Plan::FailToExecute(run));
        } else {
            self.plan(3, Plan::Execute(run));
            if component.lifecycle.readiness == Readiness::Notify && !silent {
                self.plan(500, Plan::Ready(run));
            }
            if component.kind == crate::component::Kind::Oneshot {
                let code = i32::from(!self.calm && self.random.percent(20));
                self.plan(300, Plan::End(run, Exit::Code(code)));
            }
        }
        let up = |p: &&Process| self.states.get(&p.component.name).is_some_and(|s| s.is_up());
        let stands_on = self.processes.iter().filter(up).map(|p| p.run).collect();
        self.processes.push(Process { run, component, stands_on, sole: BTreeSet::new(), deaf });
    }
}
