//! Checkpoints in a directory and as archives.
//!
//! Nothing here starts a process: until it executes its program, a child has the locks of whoever made it.

mod archive;
mod common;
mod made;
mod room;
mod whole;
