//! Hand a service's sockets and state to its next version, and take them over.
//!
//! A service that is declared with `handoff = "fd-passing"` has a channel to its supervisor for
//! all of its life. `graphctl upgrade` starts the next version beside it, and when that one is
//! prepared, everything moves: listening sockets, connections in the middle of a conversation,
//! and whatever else the service needs to go on. Until the next version serves, the old one can
//! take up its work again as if nothing had happened.
//!
//! ```no_run
//! use yakiros_handoff::{State, Verdict};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (mut given, ready) = yakiros_handoff::start()?.inherit()?;
//! let listener = match given.remove("listener") {
//!     Some(listener) => listener.into(),
//!     None => std::net::TcpListener::bind("0.0.0.0:8080")?,
//! };
//! let mut channel = ready.serve()?;
//! // Serve, and look at the channel (or poll it) now and then.
//! while let Some(offer) = channel.asked()? {
//!     match offer.give([("listener", &listener)], State::empty)? {
//!         Verdict::Released => return Ok(()),
//!         Verdict::Resume(why) => eprintln!("serving on: {why}"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! `examples/echo.rs` is a server of 30 lines that survives upgrades together with its connections. With the feature
//! `tokio`, [`Channel::offered`] waits in tokio's reactor: `examples/echo_tokio.rs` is the same with it.
//!
//! The protocol is described in `docs/reference/hot-swap.md`; [`message`] has what is said between
//! process and supervisor, for either side; without the feature `process` it is all there is.

pub mod message;
#[cfg(feature = "process")]
mod process;

#[cfg(feature = "process")]
pub use process::*;
