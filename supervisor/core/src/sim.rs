//! The engine under a fake world.
