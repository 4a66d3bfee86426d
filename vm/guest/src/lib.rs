//! The guest's side of the harness: what it says ([`protocol`]), how it says it ([`frame`]), what it counts ([`ledger`]),
//! and how it reads the kernel command line ([`cmdline`]).
//!
//! Two programs are built from this crate. `preinit` is the initramfs' `/init`: it prepares the machine, starts the
//! agent and then execs the init under test as PID 1. `agent` carries out the host's requests over a virtio-serial
//! port, whether or not PID 1 works.

pub mod cmdline;
pub mod frame;
pub mod ledger;
pub mod protocol;
