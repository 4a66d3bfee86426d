//! What checkpoints can hold on a machine, and what is declared of them.

use serde_json::Value;

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::{REACTION, STATEFUL, STATEFUL_FILE, attempt, list, read};

pub async fn criu_availability(vm: &Vm) -> Result<(), Failure> {
    let own = vm.succeed(&["criu", "--version"], REACTION).await?;
    let own =
        own.lines().next().and_then(|line| line.strip_prefix("Version: ")).unwrap_or_default().to_owned();
    let (usable, text, _) = attempt(vm, &["checkpoint", "--check"]).await?;
    check!(usable && text.contains(&format!("CRIU {own}")), "with CRIU {own} it is said: {text}");
    let missing = ["checkpoint", "--check", "--criu", "/nowhere/criu"];
    let (usable, text, _) = attempt(vm, &missing).await?;
    check!(!usable, "without CRIU checkpoints can be made: {text}");
    check!(
        text.contains("no CRIU") && text.contains("/nowhere/criu"),
        "what is missing is not named with the way to get it: {text}"
    );
    // Something else by that name.
    vm.sh("printf '#!/bin/sh\\necho a program\\n' > /run/criu && chmod 755 /run/criu").await?;
    let (usable, text, _) = attempt(vm, &["checkpoint", "--check", "--criu", "/run/criu"]).await?;
    check!(!usable && text.contains("a program"), "another program is taken for CRIU: {text}");
    vm.sh("rm /run/criu").await.map(drop)
}

pub async fn checkpoint_support(vm: &Vm) -> Result<(), Failure> {
    let report: Value = read(vm, &["checkpoint", "--check", "--json"]).await?;
    check!(report["usable"] == true, "checkpoints cannot be made here: {report}");
    let features = report["features"].as_array().cloned().unwrap_or_default();
    check!(features.len() >= 5, "the features are {features:?}");
    for feature in features.iter().filter(|feature| feature["required"] == true) {
        check!(feature["verdict"] == "supported", "what is required is not there: {feature}");
    }
    // Without this module CRIU cannot ask about TCP sockets. The kernel would load it again by itself.
    vm.sh("echo > /proc/sys/kernel/modprobe; rmmod tcp_diag").await?;
    let (_, text, _) = attempt(vm, &["checkpoint", "--check"]).await?;
    check!(text.contains("tcp_diag"), "of a module that is missing it says: {text}");
    Ok(())
}

pub async fn checkpoint_configuration(vm: &Vm) -> Result<(), Failure> {
    refused_with_its_line(vm).await?;
    // What does not declare it is not written down.
    let (done, _, error) = attempt(vm, &["checkpoint", "test-monitor"]).await?;
    check!(
        !done && error.contains("checkpoint") && error.contains("enabled"),
        "of a component that declares no checkpoints it says {error:?}"
    );
    let (done, _, error) = attempt(vm, &["checkpoint", "nobody"]).await?;
    check!(!done && error.contains("nobody"), "of a component that is not there it says {error:?}");
    check!(list(vm, "test-monitor").await?.is_empty(), "a refused checkpoint is kept");
    Ok(())
}

/// A broken declaration is refused with its line, and the one before stays in force.
async fn refused_with_its_line(vm: &Vm) -> Result<(), Failure> {
    let before = vm.status().await?;
    let good = vm.read(&format!("{}/{STATEFUL_FILE}", crate::vm::COMPONENTS)).await?;
    let broken = good.replace("enabled = true", "enabled = true\nmax_age = \"tomorrow\"");
    let line = broken.lines().position(|line| line.starts_with("max_age")).unwrap_or_default() + 1;
    vm.declare(STATEFUL_FILE, &broken).await?;
    let rejected = ["wait", "--rejected", STATEFUL_FILE, "--timeout", "20"];
    vm.graphctl_within(&rejected, REACTION).await?;
    let after = vm.status().await?;
    let told = after.rejected.iter().find(|rejected| rejected.file.ends_with(STATEFUL_FILE));
    let told = told.and_then(|rejected| rejected.diagnostics.first());
    check!(
        told.is_some_and(|told| told.line as usize == line && told.message.contains("max_age")),
        "of line {line} it says {told:?}"
    );
    let (was, is) = (before.component(STATEFUL)?, after.component(STATEFUL)?);
    check!(was.pid == is.pid && is.state == "ACTIVE", "a broken declaration has made it {is:?}");
    vm.declare(STATEFUL_FILE, &good).await?;
    vm.wait_settled(REACTION).await
}
