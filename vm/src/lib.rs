//! Machines for the harness: the guest image, QEMU, and the channels into a guest.
//!
//! [`image`] provides kernel and initramfs layers, [`qemu`] one process, [`machine`] the life of a guest on top of
//! [`qmp`], [`console`] and [`agent`].

pub mod accel;
pub mod agent;
pub mod artifacts;
pub mod cache;
pub mod console;
pub mod cpio;
mod debian;
pub mod disk;
pub mod error;
mod fetch;
pub mod image;
pub mod machine;
mod memory;
pub mod modules;
pub mod packages;
mod pip;
pub mod provision;
mod qcow2;
pub mod qemu;
pub mod qmp;
mod rootfs;
pub mod silence;
mod tsc;
