//! A hundred thousand components, in one chain and in other shapes: nothing recurses, and nothing
//! takes quadratic time. There is no clock here; a quadratic step would take minutes.

use std::collections::HashSet;
use std::time::Duration;

use yakiros_core::analysis::Analysis;
use yakiros_core::component::{Component, parse};
use yakiros_core::control::GraphNode;
use yakiros_core::engine::{Config, Effect, Engine, Event, FileChange, FileContent, Halt};
use yakiros_core::graph::Level;
use yakiros_core::journal::{Exit, State};

/// What the design promises.
const COMPONENTS: usize = 100_000;

/// Each requires these capabilities of the ones before it.
type Shape = fn(usize) -> Vec<usize>;

fn chain(number: usize) -> Vec<usize> {
    number.checked_sub(1).into_iter().collect()
}

/// Everything needs the first, as everything needs the root file system.
fn star(number: usize) -> Vec<usize> {
    (number > 0).then_some(0).into_iter().collect()
}

/// All files of a graph in one batch.
fn files(shape: Shape) -> Vec<FileChange> {
    named_files(shape, |number| format!("c{number}"))
}

/// The same, with names that put them in another order than the graph does.
fn named_files(shape: Shape, name: fn(usize) -> String) -> Vec<FileChange> {
    let parsed = parse("[component]\nname = \"c\"\nbinary = \"/bin/c\"\n");
    let template = parsed.component.expect("a component");
    let change = |number: usize| {
        let mut component: Component = template.clone();
        component.name = name(number);
        component.provides = vec![format!("cap.{number}")];
        component.requires = shape(number).into_iter().map(|cap| format!("cap.{cap}")).collect();
        FileChange {
            file: format!("{}.toml", component.name),
            content: FileContent::Component(Box::new(component)),
        }
    };
    (0..COMPONENTS).map(change).collect()
}

/// A world in which every process does what it is asked for at once.
struct World {
    engine: Engine,
    running: HashSet<String>,
    states: usize,
}

impl World {
    fn boot(shape: Shape) -> Self {
        Self::declaring(files(shape))
    }

    fn declaring(files: Vec<FileChange>) -> Self {
        let mut world = Self { engine: Engine::new(Config::default()), running: HashSet::new(), states: 0 };
        world.give(Event::Files(files));
        world
    }

    fn give(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for effect in self.engine.handle(Duration::ZERO, event) {
                match effect {
                    Effect::Spawn { run, component, .. } => {
                        assert!(self.running.insert(component.name.clone()), "{} runs twice", component.name);
                        events.push(Event::Executed(run));
                    }
                    Effect::Terminate(run) => events.push(Event::Ended(run, Exit::Signal(15))),
                    Effect::Changed(record) => {
                        self.states += 1;
                        if record.from == State::Stopping {
                            self.running.remove(&*record.component);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// The whole answer to `graph`, over all pages.
    fn graph(&self) -> Vec<GraphNode> {
        let mut nodes = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.engine.graph_page(after.as_deref());
            nodes.extend(page.components);
            after = page.next;
            if after.is_none() {
                return nodes;
            }
        }
    }

    /// The number of components in all pages of `status`.
    fn statuses(&self) -> usize {
        let (mut count, mut after): (usize, Option<String>) = (0, None);
        loop {
            let page = self.engine.status_page(after.as_deref());
            count += page.components.len();
            after = page.next;
            if after.is_none() {
                return count;
            }
        }
    }
}

#[test]
fn a_chain_starts_loses_its_first_and_comes_back() {
    let mut world = World::boot(chain);
    assert_eq!(world.running.len(), COMPONENTS);
    assert_eq!(world.engine.summary().active, COMPONENTS as u64);
    assert_eq!(world.statuses(), COMPONENTS);
    let last = format!("cap.{}", COMPONENTS - 1);
    assert_eq!(world.engine.level(&last), Level::Up);
    let first = FileChange { file: "c0.toml".to_owned(), content: FileContent::Gone };
    world.give(Event::Files(vec![first]));
    assert_eq!((world.running.len(), world.engine.level(&last)), (0, Level::Down));
    let again = files(chain).swap_remove(0);
    world.give(Event::Files(vec![again]));
    assert_eq!((world.running.len(), world.engine.level(&last)), (COMPONENTS, Level::Up));
    world.give(Event::Halt(Halt::PowerOff));
    assert_eq!(world.running.len(), 0);
}

/// Stopped in the order of their names, first every other one: each of the rest joins those before
/// it that wait already to those after it that do.
#[test]
fn a_chain_is_stopped_in_whatever_order_its_names_have() {
    let name = |number: usize| format!("{}{number:06}", if number.is_multiple_of(2) { 'a' } else { 'b' });
    let mut world = World::declaring(named_files(chain, name));
    assert_eq!(world.running.len(), COMPONENTS);
    let gone = |number| FileChange { file: format!("{}.toml", name(number)), content: FileContent::Gone };
    world.give(Event::Files((0..COMPONENTS).map(gone).collect()));
    assert_eq!((world.running.len(), world.engine.names().count()), (0, 0));
    world.give(Event::Files(named_files(chain, name)));
    assert_eq!(world.running.len(), COMPONENTS);
    world.give(Event::Halt(Halt::PowerOff));
    assert_eq!(world.running.len(), 0);
}

#[test]
fn a_star_starts_and_is_stopped() {
    let mut world = World::boot(star);
    assert_eq!(world.running.len(), COMPONENTS);
    world.give(Event::Halt(Halt::PowerOff));
    assert_eq!(world.running.len(), 0);
}

#[test]
fn a_running_chain_can_be_asked_everything() {
    let world = World::boot(chain);
    let nodes = world.graph();
    drop(world);
    // The pseudo-component comes on top.
    assert_eq!(nodes.len(), COMPONENTS + 1);
    let analysis = Analysis::new(&nodes);
    let last = format!("c{}", COMPONENTS - 1);
    assert_eq!(analysis.layers().len(), COMPONENTS);
    assert_eq!(analysis.order().len(), COMPONENTS + 1);
    assert_eq!(analysis.never().len() + analysis.cycles().len() + analysis.findings().len(), 0);
    assert_eq!(analysis.strongly_connected().len(), 0);
    assert_eq!(analysis.dependents("cap.0").unwrap().len(), 1);
    assert_eq!(analysis.path(&last, "c0").unwrap().unwrap().len(), COMPONENTS - 1);
    assert_eq!(analysis.parts().len(), COMPONENTS + 1);
    let metrics = analysis.metrics();
    assert_eq!((metrics.maximum_depth, metrics.critical_path.len()), (COMPONENTS - 1, COMPONENTS));
    let removal = analysis.removal("c0").unwrap();
    assert_eq!((removal.direct.len(), removal.transitive.len()), (1, COMPONENTS - 2));
    assert_eq!(removal.withdrawn.len(), COMPONENTS);
    let dot = analysis.dot();
    assert_eq!(dot.matches(" -> ").count(), 2 * COMPONENTS - 1 + nodes[0].provides.len());
}

#[test]
fn a_ring_is_one_cycle_and_starts_nothing() {
    let ring: Shape = |number| vec![(number + 1) % COMPONENTS];
    let world = World::boot(ring);
    assert_eq!(world.running.len(), 0);
    assert_eq!(world.engine.state("c7"), State::Cycle);
    let nodes = world.graph();
    let cycles = Analysis::new(&nodes).cycles();
    assert_eq!(cycles.len(), 1);
    assert_eq!(cycles[0].components.len(), COMPONENTS);
}
