//! Checkpoints of processes: how they are kept, verified, moved and cleaned up.
//!
//! Process 1 uses none of this itself. [`worker`] is the program `graph-checkpoint`, which it starts with an [`order`] and
//! a time limit, and which tells of each step; `graphctl` reads the [`store`] in its own process.

#[cfg(test)]
mod alone;
pub mod archive;
pub mod barrier;
mod child;
pub mod criu;
mod netfilter;
pub mod order;
pub mod preflight;
pub mod probe;
pub mod store;
pub mod worker;
