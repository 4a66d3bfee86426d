//! What a child does to itself before it executes its program: its isolation, its privileges and how it is scheduled.
//!
//! The supervisor compiles a component into a list of steps before the child exists ([`compile`]), and the child takes one
//! after the other by raw system calls ([`apply`]): it runs in the supervisor's own memory, where it may neither allocate
//! nor panic. A step that fails is told by its place in the list; the supervisor keeps the names. A component that asks for
//! nothing has no steps.
//!
//! The order is that of what each step needs: names are looked up and limits set first, then the file system is laid out,
//! then privileges go, and the filter of system calls comes last.

mod apply;
mod compile;
mod op;

use std::rc::Rc;

pub use apply::{Registers, apply};
pub use compile::{Kernel, NotCompiled, SECRETS, compile};
pub use op::Op;
#[cfg(test)]
pub use op::{MESSAGE_LIMIT, Message};

/// One step of a child.
#[derive(Debug, PartialEq)]
pub struct Step {
    /// What it does, as completes "failed to …".
    pub name: Box<str>,
    /// Whether the child goes on without it.
    pub optional: bool,
    /// What is done.
    pub op: Op,
}

/// The steps of a component, in order.
pub type Steps = Vec<Step>;

/// The names of steps, for who hears of one by its place.
pub fn names(steps: &Steps) -> Rc<[Box<str>]> {
    steps.iter().map(|step| step.name.clone()).collect()
}
