//! Put a server under load, log every request and every reply, and judge by that log alone.
//!
//! - [`frame`]: requests that say whose they are, so that a reply proves what it answers.
//! - [`history`]: what happened and when, as it is written to a file.
//! - [`check`]: what a history proves: nothing lost, duplicated, damaged or out of order, and the
//!   longest silence.
//! - [`client`]: connections that make a history.
//!
//! The judge knows nothing of the client: a history of another program in the same form is judged
//! in the same way.

pub mod check;
pub mod client;
pub mod frame;
pub mod history;
