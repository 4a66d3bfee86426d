//! Component files: they change, go, break, come in batches, and two may declare the same name.
//! The rules are the documented ones: a file that becomes unusable keeps in force what it declared
//! before; of two that declare a name, the one in force stays until it goes.

use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Duration;

use crate::component::{
    Check, Component, Handoff, Health, KERNEL, Kind, OnOom, Readiness, Signal, Strategy, parse, slice,
};
use crate::diagnostic::Diagnostic;
use crate::engine::{Event, FileChange, FileContent};
use crate::sim::model::{CAPABILITIES, Declared, FIRST_SLICE, SLICES, Set, capability};
use crate::sim::world::{Step, World};

/// Files that may declare one name: the first letter of their names.
const LETTERS: [char; 2] = ['c', 'd'];

/// Ways of handing over besides none.
/// What components declare of the want of memory.
const ON_OOM: [OnOom; 3] = [OnOom::Restart, OnOom::Stop, OnOom::Continue];

const HANDOFFS: [Handoff; 3] = [Handoff::FdPassing, Handoff::Checkpoint, Handoff::StateFile];

thread_local! {
    /// What every component has in common, as the parser gives it.
    static TEMPLATE: Component = {
        let parsed = parse("[component]\nname = \"c\"\nbinary = \"/bin/c\"\n");
        parsed.component.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics))
    };
}

/// What the parser says about a file that is not usable.
static BROKEN: LazyLock<Vec<Diagnostic>> = LazyLock::new(|| parse("[component").diagnostics);

/// The configuration directory.
#[derive(Debug)]
pub(in crate::sim) struct Files {
    /// What the files of each name declare.
    claims: Vec<[Option<Declared>; LETTERS.len()]>,
    /// Which of them is in force.
    owners: Vec<Option<usize>>,
}

impl Files {
    pub(in crate::sim) fn new(components: usize) -> Self {
        let claims = (0..components).map(|_| [None, None]).collect();
        Self { claims, owners: vec![None; components] }
    }

    /// Which declaration of a name is in force after a batch.
    fn in_force(&mut self, number: usize) -> Option<Declared> {
        let claims = &self.claims[number];
        let owner = self.owners[number].filter(|owner| claims[*owner].is_some());
        let owner = owner.or_else(|| claims.iter().position(Option::is_some));
        self.owners[number] = owner;
        claims[owner?].clone()
    }
}

impl World {
    /// The boot: all files at once.
    pub(in crate::sim) fn declare_all(&mut self) -> Step {
        let all = 0..self.model.slots.len();
        let components = all.clone().map(|number| self.draw_file(number, 0)).collect::<Vec<_>>();
        let slices = (0..SLICES.len()).map(|number| self.draw_slice_file(number)).collect::<Vec<_>>();
        self.give_files(components.into_iter().chain(slices).collect(), all)
    }

    /// One service that hands over, by descriptors or by a checkpoint, is probed, and has a probation, for [`crate::sim::crash`].
    pub(in crate::sim) fn declare_one_that_hands_over(&mut self, moves: bool) -> Step {
        let mut component = TEMPLATE.with(Component::clone);
        component.name = self.model.slots[0].name.to_string();
        component.provides.push(name_of(0));
        let lifecycle = Rc::make_mut(&mut component.lifecycle);
        lifecycle.handoff = if moves { Handoff::Checkpoint } else { Handoff::FdPassing };
        lifecycle.readiness_timeout = Duration::from_secs(10);
        lifecycle.health = Some(Health {
            check: Check::File("/c".to_owned()),
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            fail_threshold: 1,
            restart_threshold: 2,
            start_grace: Duration::ZERO,
            jitter: None,
        });
        Rc::make_mut(&mut component.checkpoint).enabled = moves;
        let hotswap = Rc::make_mut(&mut component.hotswap);
        (hotswap.probation, hotswap.shutdown_grace) = (Duration::from_secs(30), Duration::from_secs(5));
        self.files.claims[0][0] = Some(Declared::new(component.clone()));
        let content = FileContent::Component(Box::new(component));
        self.give_files(vec![FileChange { file: format!("{}0.toml", LETTERS[0]), content }], [0])
    }

    /// A batch of changes.
    pub(super) fn change_files(&mut self) -> Step {
        let count = 1 + self.random.below(self.options.batch);
        let mut changes = Vec::new();
        let mut numbers = Vec::new();
        for _ in 0..count {
            if self.random.percent(self.options.kernel_files) {
                changes.push(self.draw_kernel_file());
                continue;
            }
            if self.random.percent(self.options.slice_files) {
                let number = self.random.below(SLICES.len() as u64) as usize;
                changes.push(self.draw_slice_file(number));
                continue;
            }
            let number = self.random.below(self.model.slots.len() as u64) as usize;
            let letter = usize::from(self.random.percent(self.options.duplicates));
            numbers.push(number);
            changes.push(self.draw_change(number, letter));
        }
        self.give_files(changes, numbers)
    }

    fn give_files(&mut self, changes: Vec<FileChange>, numbers: impl IntoIterator<Item = usize>) -> Step {
        for number in numbers {
            let declared = self.files.in_force(number);
            self.model.declare(number, declared);
        }
        self.model.derive();
        self.give(Event::Files(changes))
    }

    fn draw_change(&mut self, number: usize, letter: usize) -> FileChange {
        let file = format!("{}{number}.toml", LETTERS[letter]);
        if self.random.percent(self.options.removals) {
            self.files.claims[number][letter] = None;
            return FileChange { file, content: FileContent::Gone };
        }
        if self.random.percent(self.options.broken_files) {
            return FileChange { file, content: FileContent::Rejected(BROKEN.clone()) };
        }
        self.draw_file(number, letter)
    }

    fn draw_file(&mut self, number: usize, letter: usize) -> FileChange {
        let component = self.draw_component(number);
        self.files.claims[number][letter] = Some(Declared::new(component.clone()));
        let file = format!("{}{number}.toml", LETTERS[letter]);
        FileChange { file, content: FileContent::Component(Box::new(component)) }
    }

    fn draw_component(&mut self, number: usize) -> Component {
        let mut component = TEMPLATE.with(Component::clone);
        component.name = self.model.slots[number].name.to_string();
        component.args = vec![self.random.below(3).to_string()];
        let caps = self.options.capabilities;
        let own = number as u64 % caps;
        component.provides.push(name_of(own));
        if self.random.percent(self.options.second_provisions) {
            let second = self.random.below(caps);
            component.provides.push(name_of(second));
        }
        let from = if self.options.cycles == 1 { caps } else { own };
        let count = self.random.below(self.options.requirements + 1);
        component.requires = self.draw_capabilities(count, from);
        component.optional = self.draw_capabilities(count / 2, from);
        if self.random.percent(self.options.oneshots) {
            component.kind = Kind::Oneshot;
        } else if self.random.percent(self.options.readiness) {
            let by_file = Readiness::File("/r".to_owned());
            let readiness = if self.random.percent(50) { by_file } else { Readiness::Notify };
            Rc::make_mut(&mut component.lifecycle).readiness = readiness;
        }
        self.draw_lifecycle(&mut component);
        component
    }

    fn draw_lifecycle(&mut self, component: &mut Component) {
        let options = &self.options;
        let lifecycle = Rc::make_mut(&mut component.lifecycle);
        lifecycle.readiness_timeout = Duration::from_secs(options.readiness_timeout_s);
        lifecycle.restart_max = options.restart_max as u32;
        lifecycle.restart_window = Duration::from_secs(options.restart_window_s);
        let memory_max = self.random.percent(20).then(|| 1 << (20 + self.random.below(3)));
        let resources = Rc::make_mut(&mut component.resources);
        resources.memory_max = memory_max;
        let sliced = self.random.percent(self.options.sliced);
        resources.slice = sliced.then(|| SLICES[self.random.below(SLICES.len() as u64) as usize].to_owned());
        resources.on_oom = ON_OOM[self.random.below(ON_OOM.len() as u64) as usize];
        Rc::make_mut(&mut component.hotswap).shutdown_grace = Duration::from_millis(options.grace_ms);
        let hands_over = component.kind == Kind::Service && self.random.percent(self.options.handovers);
        lifecycle.handoff = if hands_over { Handoff::FdPassing } else { Handoff::None };
        if hands_over {
            let probation = Duration::from_secs(self.random.below(self.options.probation_s + 1));
            let canary = !probation.is_zero() && self.random.percent(self.options.canaries);
            let strategy = if canary { Strategy::Canary } else { Strategy::AllAtOnce };
            let hotswap = Rc::make_mut(&mut component.hotswap);
            (hotswap.probation, hotswap.strategy) = (probation, strategy);
        }
        lifecycle.reload_signal = self.random.percent(50).then_some(Signal(1));
        if component.kind == Kind::Service && self.random.percent(self.options.handoffs) {
            lifecycle.handoff = HANDOFFS[self.random.below(HANDOFFS.len() as u64) as usize];
        }
        let enabled = self.random.percent(self.options.checkpoints);
        let warm_start = component.kind == Kind::Service && self.random.percent(self.options.warm);
        let policy = Rc::make_mut(&mut component.checkpoint);
        (policy.enabled, policy.warm_start) = (enabled, enabled && warm_start);
        if component.kind == Kind::Service && self.random.percent(self.options.probed) {
            lifecycle.health = Some(self.draw_health());
        }
        if component.kind == Kind::Service && self.random.percent(self.options.watched) {
            lifecycle.watchdog = Some(Duration::from_secs(5 + self.random.below(60)));
        }
    }

    /// Long intervals, so that a run of an hour stays short.
    fn draw_health(&mut self) -> Health {
        let interval = 5 + self.random.below(60);
        let fail = 1 + self.random.below(3);
        Health {
            check: Check::File("/c".to_owned()),
            interval: Duration::from_secs(interval),
            timeout: Duration::from_secs(1 + self.random.below(2 * interval)),
            fail_threshold: fail as u32,
            restart_threshold: (fail + self.random.below(4)) as u32,
            start_grace: Duration::from_secs(self.random.below(self.options.start_grace_s + 1)),
            jitter: None,
        }
    }

    fn draw_capabilities(&mut self, count: u64, from: u64) -> Vec<String> {
        let numbers: Vec<_> = (0..count.min(from)).map(|_| self.random.below(from)).collect();
        numbers.into_iter().map(name_of).collect()
    }

    /// The kernel's own file comes, changes or goes.
    fn draw_kernel_file(&mut self) -> FileChange {
        let file = format!("{KERNEL}.toml");
        if self.random.percent(self.options.removals) {
            self.model.kernel = self.slices_in_force();
            return FileChange { file, content: FileContent::Gone };
        }
        let mut component = TEMPLATE.with(Component::clone);
        KERNEL.clone_into(&mut component.name);
        component.binary.clear();
        component.provides = self.draw_capabilities(1, self.options.capabilities);
        let provides: Set = component.provides.iter().filter_map(|name| capability(name)).collect();
        self.model.kernel = provides.or(self.slices_in_force());
        FileChange { file, content: FileContent::Component(Box::new(component)) }
    }

    /// The file of a slice comes, changes, breaks or goes.
    fn draw_slice_file(&mut self, number: usize) -> FileChange {
        let file = format!("s{number}.toml");
        if self.random.percent(self.options.removals) {
            self.model.slices[number] = None;
            self.model.kernel = self.model.kernel.without(Set::one(FIRST_SLICE + number));
            return FileChange { file, content: FileContent::Gone };
        }
        if self.random.percent(self.options.broken_files) {
            return FileChange { file, content: FileContent::Rejected(BROKEN.clone()) };
        }
        let mut slice =
            Component { name: slice::group_of(SLICES[number]), kind: Kind::Slice, ..Component::default() };
        Rc::make_mut(&mut slice.resources).memory_max = Some(1 << (20 + self.random.below(3)));
        self.model.slices[number] = Some(Rc::new(slice.clone()));
        self.model.kernel.insert(FIRST_SLICE + number);
        FileChange { file, content: FileContent::Component(Box::new(slice)) }
    }

    /// The capabilities that stand for the slices that are declared.
    fn slices_in_force(&self) -> Set {
        let declared = (0..SLICES.len()).filter(|number| self.model.slices[*number].is_some());
        declared.map(|number| FIRST_SLICE + number).collect()
    }
}

/// A capability's name.
fn name_of(number: u64) -> String {
    CAPABILITIES[number as usize].clone()
}
