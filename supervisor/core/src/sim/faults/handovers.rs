//! Hot swaps: either process fails at any step, says nothing, dies, or says what makes no sense.

use yakiros_handoff::message::{Order, Report, Summary, VERSION};

use crate::descriptors::{Origin, counted};
use crate::engine::{Event, Place, Relayed, RunId};
use crate::journal::Exit;
use crate::sim::model::Process;
use crate::sim::world::{Plan, Step, World};

/// The longest that a step takes while nothing fails.
const CALM_MS: u64 = 500;

/// What a process says on its channel.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) enum Word {
    Hello,
    Prepared,
    /// It gives everything for the upgrade to this generation, which may be over by then.
    Gives(u64),
    /// It says so, which may be heard long after what the other one says.
    Offered(u64),
    Refused(u64),
    /// It serves on, for it cannot give now, or the other one does not take.
    Unable(u64),
    Taken,
    /// It says that it has got what was not given.
    Mistaken,
    Ready,
    Serving,
    Failed,
    /// What nobody can read.
    Garbage,
}

/// What one process gives when it is asked by a signal, on its way to another.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) struct Relay {
    giver: RunId,
    taker: RunId,
    done: bool,
    /// Who passes it on ends when the supervisor executes itself again.
    image: u64,
}

/// What becomes of a step.
enum Fate {
    Well,
    Silent,
    Dead,
    /// It says instead that it cannot.
    Unable,
    /// It says something that makes no sense there.
    Confused,
}

impl World {
    /// A process that was executed says that it can hand over, and then prepares, if it is to take over.
    pub(in crate::sim) fn plan_hello(&mut self, run: RunId) {
        let Some(process) = self.model.process(run) else { return };
        if !process.declared.component.hands_over() {
            return;
        }
        if self.random.percent(self.options.mute) {
            if self.random.percent(self.options.listening) {
                self.plan(CALM_MS, Plan::Listen(run));
            }
            return;
        }
        self.plan(CALM_MS, Plan::Say(run, Word::Hello));
    }

    /// Whether it is to take over.
    fn is_successor(&self, run: RunId) -> bool {
        let second = self.model.owner(run).and_then(|number| self.model.slots[number].second.as_ref());
        second.is_some_and(|second| second.run == run && second.place == Place::Successor)
    }

    /// Descriptors are held for a component from now on.
    pub(in crate::sim) fn hold(&mut self, run: RunId) -> Step {
        let component = self.model.process(run).map(|process| &process.declared.component);
        let name = component
            .filter(|component| component.hands_over())
            .map(|component| component.name.as_str().into());
        match name {
            Some(name) if self.random.percent(self.options.holdings) => {
                self.give(Event::Held(name, counted([(Origin::Socket, "port")])))
            }
            _ => Ok(()),
        }
    }

    /// Who serves was asked to give.
    pub(in crate::sim) fn plan_offer(&mut self, giver: RunId, generation: u64) {
        let unable = [Word::Refused, Word::Unable][self.random.below(2) as usize];
        self.plan_word(giver, Word::Gives(generation), unable(generation));
    }

    /// What one process gives when it is asked by a signal is passed on to another.
    pub(in crate::sim) fn plan_relay(&mut self, giver: RunId, taker: RunId) {
        let fails = !self.model.calm && self.random.percent(self.options.handover_failures);
        let limit = if self.model.calm { CALM_MS } else { self.options.handover_ms };
        let relay = Relay { giver, taker, done: !fails, image: self.takeover.images };
        self.plan(limit, Plan::Relay(relay));
    }

    /// That is over.
    pub(in crate::sim) fn report_relay(&mut self, relay: Relay) -> Step {
        let Relay { giver, taker, done, image } = relay;
        let gives = done && !self.frozen.is_hung(giver);
        let kept = image == self.takeover.images;
        let Some(process) = self.model.process_mut(taker) else { return Ok(()) };
        process.given = gives && kept;
        let outcome = match (gives, kept) {
            (true, true) => Relayed::Whole(1),
            (false, true) if done || self.random.percent(50) => Relayed::NotGiven("it gives nothing".into()),
            (_, _) => Relayed::NotTaken("it is not passed on".into()),
        };
        self.give(Event::Relayed(taker, outcome))
    }

    /// A process is about to end. Who was giving to it finds that it does not take, and may be heard before its end is.
    pub(in crate::sim) fn fail_giver_of(&mut self, taker: RunId) -> Step {
        let gives =
            |process: &&Process| process.gives_to.or(process.lends_to) == Some(taker) && !process.offered;
        let giver = self.model.all_processes().map(|(_, process)| process).find(gives);
        let Some((giver, generation)) = giver.map(|giver| (giver.run, giver.offer)) else { return Ok(()) };
        let word = Word::Unable(generation);
        if self.random.percent(50) {
            return self.say_on_channel(giver, word);
        }
        self.plan(CALM_MS, Plan::Say(giver, word));
        Ok(())
    }

    /// A process was told something on its channel.
    pub(in crate::sim) fn plan_obedience(&mut self, run: RunId, order: &Order) {
        match order {
            Order::Commit => self.plan_word(run, Word::Serving, Word::Failed),
            Order::Release if self.random.percent(self.options.deaf) => {}
            Order::Release => self.plan(self.options.stop_ms, Plan::End(run, Exit::Code(0))),
            _ => {}
        }
    }

    fn plan_word(&mut self, run: RunId, word: Word, unable: Word) {
        let limit = if self.model.calm { CALM_MS } else { self.options.handover_ms };
        match self.draw_fate() {
            Fate::Well => self.plan(limit, Plan::Say(run, word)),
            Fate::Silent => {}
            Fate::Dead => self.plan(limit, Plan::End(run, Exit::Signal(11))),
            Fate::Unable => self.plan(limit, Plan::Say(run, unable)),
            Fate::Confused => {
                let offer = self.model.process(run).map_or(0, |process| process.offer);
                let words = [
                    Word::Prepared,
                    Word::Offered(offer),
                    Word::Taken,
                    Word::Mistaken,
                    Word::Ready,
                    Word::Serving,
                    Word::Garbage,
                ];
                let other = words[self.random.below(words.len() as u64) as usize];
                self.plan(limit, Plan::Say(run, other));
            }
        }
    }

    fn draw_fate(&mut self) -> Fate {
        if self.model.calm || !self.random.percent(self.options.handover_failures) {
            return Fate::Well;
        }
        match self.random.below(4) {
            0 => Fate::Silent,
            1 => Fate::Dead,
            2 => Fate::Unable,
            _ => Fate::Confused,
        }
    }

    /// A process speaks; what the other one does about what it gave follows from that.
    pub(in crate::sim) fn say_on_channel(&mut self, run: RunId, word: Word) -> Step {
        let Some(process) = self.model.process(run) else { return Ok(()) };
        let (to, from, of) = (process.gives_to.or(process.lends_to), process.takes_from, process.generation);
        let report = match word {
            Word::Gives(generation) => {
                if let Some(taker) = to.filter(|_| process.offer == generation) {
                    self.plan_word(taker, Word::Taken, Word::Mistaken);
                }
                self.plan(CALM_MS, Plan::Say(run, Word::Offered(generation)));
                return Ok(());
            }
            Word::Hello => {
                if self.is_successor(run) {
                    self.plan_word(run, Word::Prepared, Word::Failed);
                }
                let parts = !self.random.percent(self.options.whole);
                Report::Hello { version: VERSION, parts }
            }
            Word::Prepared => Report::Prepared,
            Word::Offered(generation) => {
                if let Some(process) = self.model.process_mut(run) {
                    process.offered |= process.offer == generation;
                }
                Report::Offered { generation, summary: summary(run) }
            }
            Word::Refused(generation) => Report::Refused { generation, why: why(generation) },
            Word::Unable(generation) => Report::Failed { generation, why: why(generation) },
            Word::Taken => Report::Taken(summary(from.unwrap_or(run))),
            Word::Mistaken => Report::Taken(Summary { digest: 0, ..summary(from.unwrap_or(run)) }),
            Word::Ready => Report::Ready,
            Word::Serving => {
                if let Some(process) = self.model.process_mut(run) {
                    process.said_serving = true;
                }
                Report::Serving
            }
            Word::Failed => Report::Failed { generation: of, why: why(of) },
            Word::Garbage => return self.give(Event::Garbled(run, "no message".into())),
        };
        let is_canary = self.model.process(run).is_some_and(|process| process.canary);
        let failures = if is_canary { self.options.canary_failures } else { self.options.handover_failures };
        if matches!(word, Word::Serving) && !self.model.calm && self.random.percent(failures) {
            // On probation, or long after it.
            let word = if self.random.percent(50) { Word::Failed } else { Word::Garbage };
            let within = 1 + 2 * 1000 * self.options.probation_s;
            self.plan(within, Plan::Say(run, word));
        }
        if matches!(word, Word::Taken | Word::Mistaken) {
            self.plan_word(run, Word::Ready, Word::Failed);
        }
        self.give(Event::Reported(run, report))
    }
}

/// What a process says about the upgrade to a generation. The checker reads it in what follows from it.
pub(in crate::sim) fn why(generation: u64) -> String {
    format!("{WHY}{generation}")
}

/// See [`why`].
pub(in crate::sim) const WHY: &str = "it was upgrade ";

/// What this process has to give.
fn summary(of: RunId) -> Summary {
    Summary { descriptors: (of.0 % 7) as u32, state: of.0, digest: of.0 + 1 }
}
