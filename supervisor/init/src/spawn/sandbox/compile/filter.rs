//! Filters of system calls, compiled by the supervisor, and kept for as long as their declaration is.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use nix::libc;
use seccompiler::{BpfProgram, SeccompAction as Action, SeccompFilter, TargetArch};
use syscalls::Sysno;
use yakiros_core::component::seccomp::{ALWAYS, meaning_of};
use yakiros_core::component::{Restriction, SeccompAction, Security};

use super::super::Op;
use super::super::op::Instruction;
use super::{Compiler, NotCompiled};

/// Numbers from here on are those of another interface of the same processor (`__X32_SYSCALL_BIT`), which would get past a
/// list of what is forbidden.
#[cfg(target_arch = "x86_64")]
const OTHER_INTERFACE: u32 = 0x4000_0000;

type Filter = Rc<[Instruction]>;

thread_local! {
    /// What was compiled, by the declaration.
    static COMPILED: RefCell<Vec<(Weak<Security>, Filter)>> = const { RefCell::new(Vec::new()) };
}

/// Install the filter, last of all.
pub fn install(compiler: &mut Compiler<'_>, security: &Rc<Security>) -> Result<(), NotCompiled> {
    if security.seccomp.is_empty() {
        return Ok(());
    }
    let filter = filter_of(security)?;
    compiler.restrict(Restriction::Seccomp, "install the filter of system calls", Op::Filter(filter));
    Ok(())
}

fn filter_of(security: &Rc<Security>) -> Result<Filter, NotCompiled> {
    COMPILED.with_borrow_mut(|all| {
        all.retain(|(of, _)| of.strong_count() > 0);
        let known = all.iter().find(|(of, _)| of.as_ptr() == Rc::as_ptr(security));
        if let Some((_, filter)) = known {
            return Ok(Rc::clone(filter));
        }
        let filter = assemble(security)?;
        all.push((Rc::downgrade(security), Rc::clone(&filter)));
        Ok(filter)
    })
}

/// What this processor has of the calls that are named. Which it does not have cannot be made.
fn assemble(security: &Security) -> Result<Filter, NotCompiled> {
    let mut meaning = meaning_of(&security.seccomp);
    if !meaning.forbids {
        meaning.calls.extend(ALWAYS);
    }
    let numbers = meaning.calls.iter().filter_map(|name| name.parse::<Sysno>().ok());
    let rules: BTreeMap<i64, _> = numbers.map(|call| (i64::from(call.id()), Vec::new())).collect();
    let refuse = match security.seccomp_action {
        SeccompAction::Errno => Action::Errno(libc::EPERM.cast_unsigned()),
        SeccompAction::Kill => Action::KillProcess,
        SeccompAction::Log => Action::Log,
    };
    let refused = u32::from(refuse.clone());
    let (listed, others) = if meaning.forbids { (refuse, Action::Allow) } else { (Action::Allow, refuse) };
    let failed = |error: String| (format!("compile the filter of system calls: {error}"), libc::EINVAL);
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| failed(error.to_string()))?;
    let program: BpfProgram = SeccompFilter::new(rules, others, listed, arch)
        .and_then(BpfProgram::try_from)
        .map_err(|error| failed(error.to_string()))?;
    let program = program.iter().map(|one| Instruction {
        code: one.code,
        jump_true: one.jt,
        jump_false: one.jf,
        operand: one.k,
    });
    Ok(refuse_other_interface(refused).into_iter().chain(program).collect())
}

#[cfg(target_arch = "x86_64")]
fn refuse_other_interface(refused: u32) -> Vec<Instruction> {
    let make =
        |code: u32, jump_false, operand| Instruction { code: code as u16, jump_true: 0, jump_false, operand };
    // The number of the call is the first that the kernel shows (`struct seccomp_data`).
    vec![
        make(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        make(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 1, OTHER_INTERFACE),
        make(libc::BPF_RET | libc::BPF_K, 0, refused),
    ]
}

#[cfg(not(target_arch = "x86_64"))]
fn refuse_other_interface(_refused: u32) -> Vec<Instruction> {
    Vec::new()
}
