//! Compiles a component into the steps of its child. Pure: what the kernel has is told.

mod account;
mod environment;
mod filter;
mod landlock;
mod mounts;
mod network;
mod privilege;
mod process;

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::OnceLock;

use nix::libc;
use yakiros_core::component::{Component, Isolation, Namespace, Restriction, Security, TimeOffsets};

use super::{Op, Step, Steps};

/// Why there are no steps: what could not be done, and the number of the reason.
pub type NotCompiled = (String, i32);

/// What the steps depend on.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// The highest number of a capability.
    pub last_capability: u32,
}

impl Kernel {
    /// What this one has.
    pub fn own() -> Self {
        static OWN: OnceLock<Kernel> = OnceLock::new();
        *OWN.get_or_init(|| {
            // SAFETY: a call on numbers that changes nothing.
            let is_known =
                |number: &u32| unsafe { libc::prctl(libc::PR_CAPBSET_READ, *number, 0, 0, 0) >= 0 };
            let unknown = (0..u64::BITS).find(|number| !is_known(number));
            Self { last_capability: unknown.unwrap_or(u64::BITS).saturating_sub(1) }
        })
    }
}

/// The steps under way.
struct Compiler<'a> {
    security: &'a Security,
    isolation: &'a Isolation,
    steps: Steps,
}

/// The steps of a component's child. To be given to its user are these parts of its control group.
pub fn compile(component: &Component, given: &[PathBuf], kernel: Kernel) -> Result<Steps, NotCompiled> {
    let (security, isolation) = (&*component.security, &*component.isolation);
    let mut compiler = Compiler { security, isolation, steps: Steps::new() };
    account::find(&mut compiler)?;
    for path in given {
        let op = Op::Own(
            CString::new(path.as_os_str().as_bytes())
                .map_err(|_| ("name its control group".to_owned(), libc::EINVAL))?,
        );
        compiler.must(format!("give {} to its user", path.display()), op);
    }
    compiler.namespaces()?;
    process::schedule(&mut compiler, &component.resources.process);
    let sources = mounts::open_sources(&mut compiler)?;
    if isolation.has(Namespace::User) {
        // Whom the supervisor is inside may be nobody. Before, what is root's of the machine can still be read and set.
        compiler.must("become root of the user namespace", Op::BecomeRoot);
    }
    mounts::lay_out(&mut compiler, &sources)?;
    environment::directory(&mut compiler, &component.environment)?;
    landlock::restrict(&mut compiler, component)?;
    // After what opens and writes files itself, and before the right to raise a limit is given up.
    process::limits(&mut compiler, &component.resources);
    privilege::change(&mut compiler, kernel)?;
    if isolation.init {
        compiler.must("begin as the first process of the namespace", Op::Init);
    }
    filter::install(&mut compiler, &component.security)?;
    Ok(compiler.steps)
}

impl Compiler<'_> {
    /// A step without which the component is not started.
    fn must(&mut self, name: impl Into<Box<str>>, op: Op) {
        self.steps.push(Step { name: name.into(), optional: false, op });
    }

    /// A step that may be named in `security.optional`.
    fn restrict(&mut self, by: Restriction, name: impl Into<Box<str>>, op: Op) {
        let optional = self.security.optional.contains(&by);
        self.steps.push(Step { name: name.into(), optional, op });
    }

    /// What namespaces need that clone(2) does not give.
    fn namespaces(&mut self) -> Result<(), NotCompiled> {
        if self.isolation.has(Namespace::Time) {
            let TimeOffsets { monotonic, boottime } = self.isolation.time_offsets;
            let text = format!("monotonic {monotonic} 0\nboottime {boottime} 0\n").into_bytes();
            self.must("take a time namespace of its own", Op::Unshare(libc::CLONE_NEWTIME));
            let op = Op::Write { path: c"/proc/self/timens_offsets".into(), text };
            self.must("set the clocks of the time namespace", op);
            self.must("enter the time namespace", Op::EnterTime);
        }
        if self.isolation.has(Namespace::Cgroup) {
            // A clone would take the supervisor's own group for its root, and not the child's.
            self.must("take a cgroup namespace of its own", Op::Unshare(libc::CLONE_NEWCGROUP));
        }
        if let Some(name) = &self.isolation.hostname {
            let text = c_string(name)?;
            self.restrict(
                Restriction::Hostname,
                format!("set the host name to {name:?}"),
                Op::HostName(text),
            );
        }
        network::steps(self)
    }
}

fn c_string(text: &str) -> Result<CString, NotCompiled> {
    CString::new(text).map_err(|_| (format!("take {text:?}"), libc::EINVAL))
}

pub use mounts::SECRETS;

#[cfg(test)]
mod tests;
