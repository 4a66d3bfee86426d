//! The real `graph-resolver` as process 1 of namespaces of its own: seconds, no virtual machine.
//!
//! Each case is a folder under `tests/cases`: its component files in `graph.d`, and what is done and expected in its
//! `case.toml` and `journal`, or where that is more than steps can say, in a function here. Nothing of the host is touched: user, pid
//! and mount namespaces are new, every path is in a temporary directory, and what runs inside
//! dies with the namespace.
//!
//! Needs `unshare` and user namespaces, or root. Where there are neither, each test fails and says how to do without.

mod beside;
mod canary;
mod case;
mod checkpoint;
mod emergency;
mod examples;
mod freezer;
mod graphctl;
mod groups;
mod guest;
mod handover;
mod heir;
mod hostile;
mod life;
mod live;
mod lookup;
mod reexec;
mod sandbox;
mod signalled;
mod speaker;
mod store;
