//! Upgrades that cannot succeed, and those that are disturbed.

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::load::Load;
use super::{ECHO, ECHO_ADDRESS, REACTION, pid_of, upgrade};

/// The server by a name that can be made to lead elsewhere.
const PROGRAM: &str = "/run/echo-program";

/// The echo server by that name, which gives a next version 2 s.
fn declared() -> String {
    format!(
        "[component]\nname = \"{ECHO}\"\nbinary = \"{PROGRAM}\"\n\
         args = [\"--listen\", \"{ECHO_ADDRESS}\"]\nhandoff = \"fd-passing\"\n\
         [provides]\ncapabilities = [\"test.echo\"]\n\
         [requires]\ncapabilities = [\"network.configured\"]\n\
         [lifecycle]\nreadiness = \"notify\"\nreadiness_timeout = 2\n"
    )
}

async fn begin(vm: &Vm) -> Result<i32, Failure> {
    vm.sh(&format!("ln -s /usr/local/bin/test-echo-server {PROGRAM}")).await?;
    // Not by a change of its file, which would be an upgrade.
    vm.undeclare("test-echo-server.toml").await?;
    vm.wait_state(ECHO, "REMOVED", None, REACTION).await?;
    vm.declare("test-echo-server.toml", &declared()).await?;
    vm.wait_state(ECHO, "ACTIVE", None, REACTION).await?;
    vm.wait_settled(REACTION).await?;
    pid_of(vm, ECHO).await
}

async fn lead_to(vm: &Vm, program: &str) -> Result<(), Failure> {
    vm.sh(&format!("ln -s {program} {PROGRAM}.new && mv -T {PROGRAM}.new {PROGRAM}")).await.map(drop)
}

pub async fn failed_upgrades_leave_the_old_version(vm: &Vm) -> Result<(), Failure> {
    let before = begin(vm).await?;
    vm.sh("printf '#!/bin/sh\\nsleep 0.2\\nexit 3\\n' > /run/ends; printf '#!/bin/sh\\nexec sleep 1000\\n' > /run/hangs
           printf '#!/bin/sh\\nprintf nonsense >&4\\nexec sleep 1000\\n' > /run/raves
           chmod +x /run/ends /run/hangs /run/raves; printf 'no program' > /run/text; chmod +x /run/text")
        .await?;
    let load = Load::begin(vm, "1", "--connections 20").await?;
    let versions = [
        ("/run/nothing", "no such file"),
        ("/run/text", "execute the binary"),
        ("/run/ends", "exited with status 3"),
        ("/run/hangs", "within its time"),
        ("/run/raves", "nonsense"),
    ];
    for (program, reason) in versions {
        lead_to(vm, program).await?;
        let refused = vm.run(&["graphctl", "upgrade", ECHO], REACTION * 2).await?;
        let said = refused.text() + &refused.error_text();
        check!(!refused.success(), "an upgrade to {program} succeeds: {said}");
        check!(said.contains(reason), "an upgrade to {program} says {said:?}, without {reason:?}");
        check!(pid_of(vm, ECHO).await? == before, "after an upgrade to {program} another process serves");
    }
    lead_to(vm, "/usr/local/bin/test-echo-server").await?;
    let done = upgrade(vm, ECHO).await?;
    check!(done.level == "fd-passing", "after all of these the upgrade was {done:?}");
    let verdict = load.end(vm).await?;
    check!(verdict.counts.connections == 20, "{} connections were needed for 20", verdict.counts.connections);
    Ok(())
}

pub async fn re_execution_in_the_middle(vm: &Vm) -> Result<(), Failure> {
    let before = begin(vm).await?;
    // The next version takes its time before it says anything.
    vm.sh("printf '#!/bin/sh\\nuntil test -e /run/go; do sleep 0.05; done\\nexec test-echo-server \"$@\"\\n' > /run/slow
           chmod +x /run/slow")
        .await?;
    lead_to(vm, "/run/slow").await?;
    let load = Load::begin(vm, "1", "--connections 20").await?;
    vm.sh(&format!("setsid sh -c 'graphctl upgrade {ECHO} --json > /run/upgraded.new 2>&1; mv /run/upgraded.new /run/upgraded' < /dev/null > /dev/null 2>&1 &
           n=0; until pgrep -f 'sh /run/echo-program' > /dev/null; do n=$((n+1)); [ $n -le 50 ] || exit 1; sleep 0.1; done"))
        .await?;
    let said = vm.graphctl_within(&["reexec"], REACTION).await?;
    check!(said.contains("took over in"), "graphctl reexec says `{said}`");
    vm.sh(": > /run/go").await?;
    vm.wait_path("/run/upgraded", REACTION).await?;
    let text = vm.read("/run/upgraded").await?;
    check!(text.contains("fd-passing"), "the upgrade that waited says {text}");
    check!(pid_of(vm, ECHO).await? != before, "the version before still serves");
    let verdict = load.end(vm).await?;
    check!(verdict.counts.connections == 20, "{} connections were needed for 20", verdict.counts.connections);
    Ok(())
}
