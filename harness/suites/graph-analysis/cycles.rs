//! Cycles by name.

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::{REACTION, ends_with, json_with, same, service, texts, undisturbed};

const SHORT: &str = "\
Cycle 1: test-cycle-a → test-cycle-b → test-cycle-a
Total: 1 cycle, 2 components on a cycle, 1 kept from starting by it
";

const VERBOSE: &str = "\
Cycle 1: test-cycle-a → test-cycle-b → test-cycle-a
  test-cycle-a requires test.cycle-b from test-cycle-b
  test-cycle-b requires test.cycle-a from test-cycle-a
Kept from starting by them:
  → test-cycle-user (CYCLE)
Total: 1 cycle, 2 components on a cycle, 1 kept from starting by it
";

pub async fn specific_cycles(vm: &Vm) -> Result<(), Failure> {
    let before = vm.status().await?;
    let cycle = [
        ("test-cycle-a", service("test-cycle-a", &["test.cycle-a"], &["test.cycle-b", "storage.ready"])),
        ("test-cycle-b", service("test-cycle-b", &["test.cycle-b"], &["test.cycle-a", "system.log"])),
        ("test-cycle-user", service("test-cycle-user", &["test.user"], &["test.cycle-a"])),
    ];
    for (name, content) in &cycle {
        vm.declare(&format!("{name}.toml"), content).await?;
    }
    for (name, _) in &cycle {
        vm.wait_state(name, "CYCLE", None, REACTION).await?;
    }
    vm.step("the cycle is named", named(vm)).await?;
    vm.step("all others run", undisturbed(vm, &before)).await?;

    vm.declare("breaker.toml", &service("breaker", &["test.cycle-b"], &[])).await?;
    for (name, _) in &cycle {
        vm.wait_state(name, "ACTIVE", None, REACTION).await?;
    }
    vm.step("another provider ends it", ended(vm)).await?;
    undisturbed(vm, &before).await
}

async fn named(vm: &Vm) -> Result<(), Failure> {
    same("check-cycles", &ends_with(vm, 1, &["check-cycles"]).await?, SHORT)?;
    same("check-cycles --verbose", &ends_with(vm, 1, &["check-cycles", "--verbose"]).await?, VERBOSE)?;
    let value = json_with(vm, 1, &["check-cycles"]).await?;
    let cycles = value["cycles"].as_array().map_or(0, Vec::len);
    let on = texts(&value["cycles"][0]["components"], None);
    check!(cycles == 1 && on == ["test-cycle-a", "test-cycle-b"], "the cycles are {value}");
    check!(texts(&value["blocked"], Some("component")) == ["test-cycle-user"], "kept from starting: {value}");
    let scc = ends_with(vm, 0, &["scc"]).await?;
    check!(scc.starts_with("Set 1: test-cycle-a, test-cycle-b\nTotal: 13 "), "`graphctl scc` printed {scc}");
    let numbers = json_with(vm, 0, &["analyze"]).await?;
    check!(numbers["cycles"] == 1 && numbers["never"] == 3, "analyze counts {numbers}");
    Ok(())
}

/// The ring is still there, but starts from its other provider.
async fn ended(vm: &Vm) -> Result<(), Failure> {
    same("check-cycles", &ends_with(vm, 0, &["check-cycles"]).await?, "No dependency cycles\n")?;
    let scc = ends_with(vm, 0, &["scc"]).await?;
    check!(
        scc.starts_with("Set 1: test-cycle-a, test-cycle-b\n"),
        "the ring is not in `graphctl scc`: {scc}"
    );
    let value = json_with(vm, 0, &["check"]).await?;
    check!(value["findings"].as_array().is_some_and(Vec::is_empty), "check still finds {value}");
    Ok(())
}
