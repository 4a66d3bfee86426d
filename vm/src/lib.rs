//! Placeholder.

pub mod artifacts;
pub mod cache;
pub mod cpio;
mod fetch;
pub mod image;
pub mod modules;
mod pip;
mod qcow2;
mod rootfs;
