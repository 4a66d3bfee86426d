//! The same services under another supervisor of the same machine.

use super::support::{idle, memory, numbers};
use super::{MANY, REACTION};
use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

const SERVICES: usize = 20;

pub async fn resource_comparison(vm: &Vm) -> Result<(), Failure> {
    let before = memory(vm, 1).await?;
    let files: Vec<_> = (1..=SERVICES).map(|number| idle(&format!("same-{number}"), "")).collect();
    vm.declare_all(&files).await?;
    for number in 1..=SERVICES {
        vm.wait_state(&format!("same-{number}"), "ACTIVE", None, REACTION).await?;
    }
    vm.wait_settled(MANY).await?;
    let after = memory(vm, 1).await?;
    let peer = vm.step("under runit", runit(vm)).await?;
    vm.metric("anonymous", "KiB", after.anonymous);
    vm.metric("anonymous_per_service", "KiB", (after.anonymous - before.anonymous) / SERVICES as f64);
    vm.metric("runit_anonymous", "KiB", peer);
    vm.metric("runit_anonymous_per_service", "KiB", peer / SERVICES as f64);
    // Everything that this one does for the whole machine is in it.
    vm.metric("anonymous_to_runit", "ratio", after.anonymous / peer);
    Ok(())
}

/// What `runsvdir` and its `runsv`, one for each service, have of memory that no file has, in KiB.
async fn runit(vm: &Vm) -> Result<f64, Failure> {
    let begin = format!(
        "mkdir -p /run/sv; for i in $(seq {SERVICES}); do mkdir /run/sv/same-$i; \
           printf '#!/bin/sh\\nexec /usr/local/bin/test-idle --name other-%s\\n' $i > /run/sv/same-$i/run; \
           chmod +x /run/sv/same-$i/run; done; \
         setsid runsvdir /run/sv > /dev/null 2>&1 < /dev/null & echo $! > /run/runsvdir.pid"
    );
    vm.sh(&begin).await?;
    let all = format!("[ $(cat /proc/[0-9]*/comm 2> /dev/null | grep -c '^other-') = {SERVICES} ]");
    vm.until("runit has started all", &all, MANY).await?;
    // Each is what a loader has loaded: the program is in its command line.
    let count = "for p in /proc/[0-9]*; do \
                   tr '\\0' ' ' < $p/cmdline 2> /dev/null | grep -q '^[^ ]*ld-linux[^ ]* .*/runsv' || continue; \
                   sed -n 's/^RssAnon:[^0-9]*\\([0-9]*\\) kB/\\1/p' $p/status; done";
    let each = numbers(&vm.sh(count).await?);
    vm.sh("kill -HUP $(cat /run/runsvdir.pid)").await?;
    vm.until("runit has ended all", "! cat /proc/[0-9]*/comm 2> /dev/null | grep -q '^other-'", MANY).await?;
    check!(each.len() == SERVICES + 1, "runit has {} processes: {each:?}", each.len());
    Ok(each.iter().sum())
}
