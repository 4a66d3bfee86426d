//! What goes wrong, and what people do. Each domain is a file; what happens by itself is a row of
//! the table, drawn by its weight, and what accompanies an effect is a function that the world
//! calls when it performs it.

pub(super) mod checkpoint;
pub(super) mod clients;
pub(super) mod files;
mod freezer;
pub(super) mod handovers;
mod notifications;
mod probes;
mod processes;

use super::Options;
use super::world::{Step, World};
use crate::engine::Event;

/// Something that happens by itself in the safety phase.
pub(super) struct Fault {
    /// How often, against the others.
    pub(super) weight: fn(&Options) -> u64,
    pub(super) act: fn(&mut World) -> Step,
}

/// All of them.
pub(super) const FAULTS: [Fault; 17] = [
    Fault { weight: |options| options.kill_weight, act: World::kill_one },
    Fault { weight: |options| options.early_kill_weight, act: World::kill_the_newest },
    Fault { weight: |options| options.massacre_weight, act: World::kill_many },
    Fault { weight: |options| options.starve_weight, act: World::starve_one },
    Fault { weight: |options| options.notify_weight, act: World::say_something },
    Fault { weight: |options| options.extend_weight, act: World::ask_for_time },
    Fault { weight: |options| options.log_weight, act: World::write_to_a_log },
    Fault { weight: |options| options.change_weight, act: World::ask_for_change },
    Fault { weight: |options| options.upgrade_weight, act: World::ask_for_upgrade },
    Fault { weight: |options| options.freeze_weight, act: World::ask_to_freeze },
    Fault { weight: |options| options.checkpoint_weight, act: World::ask_about_checkpoints },
    Fault { weight: |options| options.move_weight, act: World::ask_to_move },
    Fault { weight: |options| options.question_weight, act: World::ask_a_question },
    Fault { weight: |options| options.wait_weight, act: World::ask_to_wait },
    Fault { weight: |options| options.leave_weight, act: World::hang_up },
    Fault { weight: |options| options.files_weight, act: World::change_files },
    Fault { weight: |options| options.resolve_weight, act: |world| world.give(Event::Resolve) },
];
