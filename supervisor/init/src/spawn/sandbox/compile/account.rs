//! Whose process it is to be. Names are looked up by the child.

use nix::libc;
use yakiros_core::component::Account;

use super::super::Op;
use super::super::op::GROUPS_LIMIT;
use super::{Compiler, NotCompiled, c_string};

/// Find the numbers, before anything is changed that they are found by.
pub fn find(compiler: &mut Compiler<'_>) -> Result<(), NotCompiled> {
    let security = compiler.security;
    match &security.user {
        None => {}
        Some(Account::Id(id)) => compiler.must(format!("take the user {id}"), Op::User(*id)),
        Some(Account::Name(name)) => {
            compiler.must(format!("find the user {name:?} in /etc/passwd"), Op::FindUser(c_string(name)?));
        }
    }
    match &security.group {
        None => {}
        Some(Account::Id(id)) => compiler.must(format!("take the group {id}"), Op::Group(*id)),
        Some(Account::Name(name)) => {
            compiler.must(format!("find the group {name:?} in /etc/group"), Op::FindGroup(c_string(name)?));
        }
    }
    if security.groups.len() > GROUPS_LIMIT {
        return Err((format!("take more than {GROUPS_LIMIT} groups"), libc::E2BIG));
    }
    for group in &security.groups {
        match group {
            Account::Id(id) => compiler.must(format!("take the group {id}"), Op::OtherGroup(*id)),
            Account::Name(name) => {
                let op = Op::FindOtherGroup(c_string(name)?);
                compiler.must(format!("find the group {name:?} in /etc/group"), op);
            }
        }
    }
    Ok(())
}

/// Become who was found.
pub fn become_it(compiler: &mut Compiler<'_>) {
    let security = compiler.security;
    if !security.has_account() {
        return;
    }
    compiler.must("set the supplementary groups", Op::SetGroups);
    if security.user.is_some() || security.group.is_some() {
        compiler.must("change the group", Op::SetGroup);
    }
    if security.user.is_some() {
        compiler.must("change the user", Op::SetUser);
    }
}
