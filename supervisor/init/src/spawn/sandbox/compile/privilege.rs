//! Privileges go after everything that needs them, each before the one by which it could be taken back.

use nix::libc;
use yakiros_core::component::{Account, CapabilitySet, Restriction, SecureBit};

use super::super::Op;
use super::{Compiler, Kernel, NotCompiled, account};

/// See the module documentation.
pub fn change(compiler: &mut Compiler<'_>, kernel: Kernel) -> Result<(), NotCompiled> {
    let security = compiler.security;
    let known = CapabilitySet(u64::MAX >> 63_u32.saturating_sub(kernel.last_capability));
    let ambient = security.ambient_capabilities;
    let asked = CapabilitySet(security.capabilities.unwrap_or_default().0 | ambient.0);
    let unknown = asked.without(known);
    if !unknown.is_empty() {
        return Err((format!("give it {unknown}, which this kernel does not have"), libc::EINVAL));
    }
    if let Some(kept) = security.capabilities {
        compiler.must("limit the bounding set of capabilities", Op::Forbid(known.without(kept).0));
    }
    let is_other = security.user.as_ref().is_some_and(|user| *user != Account::Id(0));
    let bits = security.securebits.iter().fold(0, |bits, bit: &SecureBit| bits | bit.bit());
    // A change of user takes all away, and with it the right to give some back.
    if is_other && (!ambient.is_empty() || bits != 0) {
        compiler.must("keep capabilities over the change of user", Op::KeepCapabilities);
    }
    account::become_it(compiler);
    if !ambient.is_empty() || bits != 0 {
        let op = Op::Capabilities { keep: known.0, inheritable: ambient.0 };
        compiler.must("make capabilities inheritable", op);
    }
    if !ambient.is_empty() {
        compiler.must(format!("give the ambient capabilities {ambient}"), Op::Ambient(ambient.0));
    }
    if bits != 0 {
        compiler.restrict(Restriction::Securebits, "set the security bits", Op::SecureBits(bits));
    }
    if let Some(kept) = security.capabilities {
        let op = Op::Capabilities { keep: kept.0, inheritable: ambient.0 };
        compiler.must("limit the capabilities", op);
    }
    if security.keeps_privileges() {
        compiler.must("give up new privileges", Op::NoNewPrivileges);
    }
    Ok(())
}
