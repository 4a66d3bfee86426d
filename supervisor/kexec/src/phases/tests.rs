use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// A machine that fails at a step that is named by its number.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a thing of the machine that is there or is not")]
struct Fake {
    services: u32,
    /// The call that fails, from 0; before it has done anything, or after it has.
    fails_at: Option<usize>,
    by_half: bool,
    /// The call before which somebody interrupts.
    interrupted_at: Option<usize>,
    /// What cannot be taken back, by its place.
    stays: Option<usize>,
    calls: usize,
    backs: usize,
    held: BTreeSet<String>,
    checkpoints: BTreeSet<String>,
    records: bool,
    loaded: bool,
    executed: bool,
    taken: Vec<Trace>,
}

impl Fake {
    fn step(&mut self, act: impl FnOnce(&mut Self)) -> Result<(), String> {
        let fails = self.fails_at == Some(self.calls);
        self.calls += 1;
        if !fails || self.by_half {
            act(self);
        }
        if fails { Err("it was told to fail".to_owned()) } else { Ok(()) }
    }

    fn write_down(&mut self, service: &Service, hold: bool) -> Result<Entry, String> {
        let name = service.component.clone();
        let before = self.checkpoints.clone();
        let result = self.step(|fake| {
            if hold {
                fake.held.insert(name.clone());
            }
            fake.checkpoints.insert(name.clone());
        });
        // As the supervisor promises: one that fails leaves none; whether the process stands still is not known.
        result.inspect_err(|_| self.checkpoints = before)?;
        Ok(Entry {
            component_name: name,
            checkpoint_id: "1".to_owned(),
            checkpoint_path: "/x".into(),
            original_pid: service.pid,
            timestamp: 0,
            restore_priority: service.priority,
        })
    }

    fn is_as_before(&self) -> bool {
        self.held.is_empty() && self.checkpoints.is_empty() && !self.records && !self.loaded
    }
}

impl Work for Fake {
    fn validate(&mut self, notes: &mut Notes) -> Result<(), String> {
        notes.good("kexec", "it is there");
        self.step(|_| ())
    }

    fn inform(&mut self, _notes: &mut Notes) -> Result<Vec<Service>, String> {
        self.step(|_| ())?;
        let service = |n| Service { component: format!("c{n}"), pid: 100, priority: n / 3 };
        Ok((0..self.services).map(service).collect())
    }

    fn agree(&mut self, _services: &[Service]) -> Result<(), String> {
        self.step(|_| ())
    }

    fn checkpoint(
        &mut self,
        services: &[Service],
        hold: bool,
        _notes: &mut Notes,
    ) -> Vec<Result<Entry, String>> {
        assert!((1..=TOGETHER).contains(&services.len()), "{} at once", services.len());
        assert!(services.iter().all(|one| one.priority == services[0].priority), "one needs another");
        services.iter().map(|service| self.write_down(service, hold)).collect()
    }

    fn verify(&mut self, _entry: &Entry, _notes: &mut Notes) -> Result<(), String> {
        self.step(|_| ())
    }

    fn persist(&mut self, entries: &[Entry], _notes: &mut Notes) -> Result<(), String> {
        assert_eq!(entries.len(), self.services as usize);
        self.step(|fake| fake.records = true)
    }

    fn load(&mut self, _entries: &[Entry], _notes: &mut Notes) -> Result<(), String> {
        assert!(self.records, "nothing is loaded before the records are on the disk");
        self.step(|fake| fake.loaded = true)
    }

    fn execute(&mut self, _notes: &mut Notes) -> Result<(), String> {
        assert_eq!(self.held.len(), self.services as usize, "nobody runs on who was written down");
        self.fails_at = self.fails_at.filter(|_| !self.by_half);
        self.step(|fake| fake.executed = true)
    }

    fn take_back(&mut self, trace: &Trace) -> Result<(), String> {
        self.taken.push(trace.clone());
        self.backs += 1;
        if self.stays == Some(self.backs - 1) {
            return Err("it was told to stay".to_owned());
        }
        match trace {
            Trace::Held => self.held.clear(),
            Trace::Checkpoint(entry) => drop(self.checkpoints.remove(&entry.component_name)),
            Trace::Records => self.records = false,
            Trace::Kernel => self.loaded = false,
        }
        Ok(())
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted_at.is_some_and(|at| at <= self.calls)
    }
}

/// How many steps there are with so many services.
fn steps(services: u32, trial: bool) -> usize {
    let mut fake = Fake { services, ..Fake::default() };
    assert!(carry_out(&mut fake, trial, &mut |_| ()).is_good());
    fake.calls
}

#[test]
fn a_trial_goes_through_six_phases_and_back() {
    let mut fake = Fake { services: 2, ..Fake::default() };
    let mut heard = Vec::new();
    let outcome = carry_out(&mut fake, true, &mut |done| heard.push((done.number, done.name, done.ok)));
    assert!(outcome.is_good() && fake.is_as_before() && !fake.executed);
    assert_eq!(heard.len(), 6);
    assert!(heard.iter().zip(Phase::ALL).enumerate().all(|(at, (h, phase))| *h == (at + 1, phase, true)));
    let taken: Vec<_> = outcome.taken_back.iter().map(|back| back.what.as_str()).collect();
    assert_eq!(
        taken,
        [
            "unload the kernel",
            "remove manifest and information",
            "remove checkpoint 1 of c1",
            "remove checkpoint 1 of c0"
        ]
    );
    assert_eq!(outcome.phases[0].notes[0].name, "kexec");
}

#[test]
fn a_jump_leaves_everything_as_the_next_kernel_needs_it() {
    let mut fake = Fake { services: 3, ..Fake::default() };
    let outcome = carry_out(&mut fake, false, &mut |_| ());
    assert!(outcome.is_good() && outcome.taken_back.is_empty() && outcome.phases.len() == 7);
    assert!(
        fake.executed && fake.loaded && fake.records && fake.checkpoints.len() == 3 && fake.held.len() == 3
    );
}

#[test]
fn what_cannot_be_taken_back_is_told_and_holds_nothing_up() {
    let mut fake = Fake { services: 2, stays: Some(0), ..Fake::default() };
    let outcome = carry_out(&mut fake, true, &mut |_| ());
    assert!(!outcome.is_good() && fake.loaded && !fake.records && fake.checkpoints.is_empty());
    assert_eq!(outcome.taken_back[0].error.as_deref(), Some("it was told to stay"));
}

#[test]
fn who_interrupts_is_heard_between_two_steps() {
    // After validation, information and the first two checkpoints, which are made at once.
    let mut fake = Fake { services: 3, interrupted_at: Some(3), ..Fake::default() };
    let outcome = carry_out(&mut fake, true, &mut |_| ());
    let last = outcome.phases.last().expect("a phase");
    assert_eq!((last.name, last.detail.as_str()), (Phase::Checkpoint, "it was interrupted"));
    assert!(!outcome.is_good() && fake.is_as_before() && fake.calls == 4 && fake.taken.len() == 2);
}

#[test]
fn the_verdict_names_everything_that_is_missing() {
    let mut notes = Notes::default();
    notes.good("kexec", "there");
    assert_eq!(notes.verdict(), Ok(()));
    notes.check(Check::new("right", false, "CAP_SYS_BOOT is missing", "do it as root"));
    notes.check(Check::new("memory", false, "too little", "take more"));
    let said = "right: CAP_SYS_BOOT is missing (do it as root); memory: too little (take more)";
    assert_eq!(notes.verdict(), Err(said.to_owned()));
}

proptest! {
    #[test]
    fn a_failure_at_any_step_leaves_everything_as_it_was(
        services in 0_u32..6, at in any::<prop::sample::Index>(), trial: bool, by_half: bool, interrupted: bool,
    ) {
        let at = at.index(steps(services, trial));
        let mut fake = if interrupted {
            Fake { services, interrupted_at: Some(at), ..Fake::default() }
        } else {
            Fake { services, fails_at: Some(at), by_half, ..Fake::default() }
        };
        let outcome = carry_out(&mut fake, trial, &mut |_| ());
        if fake.executed {
            // A step that is done by half and cannot fail any more: the jump.
            prop_assert!(!trial && outcome.is_good());
            return Ok(());
        }
        prop_assert!(fake.is_as_before(), "{fake:?}");
        let interrupted_at_the_end = interrupted && outcome.phases.iter().all(|phase| phase.ok);
        prop_assert!(!outcome.is_good() || (trial && interrupted_at_the_end));
        // In reverse order: the kernel first, then the records, the checkpoints from the last, and at last who is held.
        let rank = |trace: &Trace| match trace {
            Trace::Kernel => 0,
            Trace::Records => 1,
            Trace::Checkpoint(entry) => {
                let number: u32 = entry.component_name[1..].parse().expect("a number");
                2 + services - number
            }
            Trace::Held => u32::MAX,
        };
        prop_assert!(fake.taken.windows(2).all(|pair| rank(&pair[0]) < rank(&pair[1])), "{:?}", fake.taken);
    }
}
