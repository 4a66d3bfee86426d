//! Versions of the echo server: the one that is declared, and what an upgrade leads to.

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::{ECHO, ECHO_ADDRESS, REACTION, pid_of};

/// The server by a name that can be made to lead elsewhere.
const PROGRAM: &str = "/run/echo-program";
/// What it leads to at first.
const SERVER: &str = "/usr/local/bin/test-echo-server";
/// A server that can be asked to be large.
const LARGE_SERVER: &str = "/usr/local/bin/test-stateful-service";

/// Declare the echo server anew, by that name, with these further arguments and keys; its process.
pub async fn declare(vm: &Vm, args: &str, more: &str) -> Result<i32, Failure> {
    declare_with(vm, args, &format!("{more}[lifecycle]\nreadiness = \"notify\"\n")).await
}

/// The same with 2 s for a next version until it is prepared, and for an old one until it has ended.
pub async fn declare_hasty(vm: &Vm) -> Result<i32, Failure> {
    let hasty = "[lifecycle]\nreadiness = \"notify\"\nreadiness_timeout = 2\n[hotswap]\nshutdown_grace = 2\n";
    declare_with(vm, "", hasty).await
}

/// With next versions that serve new connections only for this time.
pub async fn declare_canary(vm: &Vm, time: &str) -> Result<i32, Failure> {
    let keys = "[lifecycle]\nreadiness = \"notify\"\n[hotswap]\nstrategy = \"canary\"\n";
    declare_with(vm, "", &format!("{keys}probation = \"{time}\"\n")).await
}

/// The component as one that has much memory from its start on. Returns its process.
pub async fn declare_large(vm: &Vm, mib: u64, more: &str) -> Result<i32, Failure> {
    let args = format!(", \"--ballast-mib\", \"{mib}\"");
    let more = format!("{more}[lifecycle]\nreadiness = \"notify\"\n");
    declare_server(vm, LARGE_SERVER, &args, &more).await
}

async fn declare_with(vm: &Vm, args: &str, more: &str) -> Result<i32, Failure> {
    declare_server(vm, SERVER, args, more).await
}

async fn declare_server(vm: &Vm, server: &str, args: &str, more: &str) -> Result<i32, Failure> {
    vm.sh(&format!("ln -sfn {server} {PROGRAM}")).await?;
    // Not by a change of its file, which would be an upgrade.
    vm.undeclare("test-echo-server.toml").await?;
    vm.wait_state(ECHO, "REMOVED", None, REACTION).await?;
    let declared = format!(
        "[component]\nname = \"{ECHO}\"\nbinary = \"{PROGRAM}\"\n\
         args = [\"--listen\", \"{ECHO_ADDRESS}\"{args}]\nhandoff = \"fd-passing\"\n\
         [provides]\ncapabilities = [\"test.echo\"]\n\
         [requires]\ncapabilities = [\"network.configured\"]\n{more}"
    );
    vm.declare("test-echo-server.toml", &declared).await?;
    vm.wait_state(ECHO, "ACTIVE", None, REACTION).await?;
    vm.wait_settled(REACTION).await?;
    pid_of(vm, ECHO).await
}

/// Have the next version be this program.
pub async fn lead_to(vm: &Vm, program: &str) -> Result<(), Failure> {
    vm.sh(&format!("ln -s {program} {PROGRAM}.new && mv -T {PROGRAM}.new {PROGRAM}")).await.map(drop)
}

/// Have the next version be this script.
pub async fn lead_to_script(vm: &Vm, lines: &str) -> Result<(), Failure> {
    // By another name each time: the one before may be running.
    vm.sh(&format!(
        "script=$(mktemp /run/version.XXXXXX); cat > $script <<'END'\n#!/bin/sh\n{lines}\nEND\n\
         chmod 755 $script; ln -s $script {PROGRAM}.new && mv -T {PROGRAM}.new {PROGRAM}"
    ))
    .await
    .map(drop)
}

/// Have the next version be the server, with these faults.
pub async fn lead_to_faulty(vm: &Vm, faults: &str) -> Result<(), Failure> {
    lead_to_script(vm, &format!("exec {SERVER} \"$@\" --fault {faults}")).await
}

/// Have the next version be the server as it is.
pub async fn lead_to_server(vm: &Vm) -> Result<(), Failure> {
    lead_to(vm, SERVER).await
}

/// Ask for an upgrade that has to fail, for this reason; what is said of it.
pub async fn refused(vm: &Vm, what: &str, options: &[&str], reason: &str) -> Result<String, Failure> {
    let argv = [&["graphctl", "upgrade", ECHO], options].concat();
    let refused = vm.run(&argv, REACTION * 3).await?;
    let said = refused.text() + &refused.error_text();
    check!(!refused.success(), "an upgrade to {what} succeeds: {said}");
    check!(said.contains(reason), "an upgrade to {what} says {said:?}, without {reason:?}");
    Ok(said)
}

/// The component never stopped to be active, and this process is its.
pub async fn serves(vm: &Vm, pid: i32, after: &str) -> Result<(), Failure> {
    let status = vm.status().await?;
    let component = status.component(ECHO)?;
    check!(
        component.state == "ACTIVE" && component.pid == Some(pid) && component.restarts == 0,
        "after {after} process {pid} should serve: {component:?}"
    );
    Ok(())
}
