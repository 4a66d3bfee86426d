//! The supervisor's core: everything that is decided, nothing that is done.
//!
//! No module here reads a clock, a file or a socket, or starts a process. Events and the time go
//! in, effects come out; `graph-resolver` performs them on Linux, [`sim`] performs them in a world
//! made of a seed. The parts, in the order of the data's way through them:
//!
//! * [`component`]: a component file becomes a typed [`component::Component`] or [`diagnostic`]s.
//! * [`graph`]: which capability is up, who waits for it, who can never start.
//! * [`engine`]: one state × event table; turns events into effects.
//! * [`journal`]: every change of state with its revision and its cause.
//! * [`analysis`]: cycles, layers, ways and losses of a graph that was asked for; not used by PID 1.
//! * [`notify`]: what a component says about itself (sd_notify).
//! * [`checkpoint`]: what is said of the checkpoints of processes.
//! * [`descriptors`]: what the supervisor holds for a component and gives to its processes.
//! * [`control`]: what `graphctl` and the supervisor say to each other.
//! * [`sim`]: the engine under a fake world, with checkers.
//! * [`mutation`]: ways to break the engine, to check the checkers; empty in what is shipped.

pub mod analysis;
pub mod checkpoint;
pub mod component;
pub mod control;
pub mod descriptors;
pub mod diagnostic;
pub mod engine;
pub mod graph;
pub mod journal;
pub mod mutation;
pub mod notify;
pub mod sim;
