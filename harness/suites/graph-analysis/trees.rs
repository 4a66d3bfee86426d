//! What a component needs, and what needs it.

use crate::check;
use crate::failure::Failure;
use crate::vm::{Status, Vm};

use super::{REACTION, ends_with, json_with, same, texts, undisturbed};

const TREE: &str = "\
test-monitor (ACTIVE)
├── system.log ← logger-a (ACTIVE)
│   └── storage.ready ← storage (DONE)
│       └── kernel.syscalls ← kernel (UP)
├── system.log ← logger-b (ACTIVE)
│   └── network.configured ← network (DONE)
│       └── kernel.syscalls ← kernel (UP)
└── test.frontend ← test-frontend (ACTIVE)
    ├── test.web ← test-web (ACTIVE)
    │   ├── network.configured ← network (DONE) …
    │   ├── test.cache ← test-cache (ACTIVE)
    │   │   ├── network.configured ← network (DONE) …
    │   │   └── test.metrics ← (nobody) (DOWN)
    │   └── test.database ← test-database (ACTIVE)
    │       ├── storage.ready ← storage (DONE) …
    │       ├── system.log ← logger-a (ACTIVE) …
    │       └── system.log ← logger-b (ACTIVE) …
    └── test.cache ← test-cache (ACTIVE) …
";

const PATH: &str = "\
test-web → test-database → storage
  test-web requires test.database from test-database
  test-database requires storage.ready from storage
Total: 2 steps
";

const LOSS: &str = "\
Without logger-b (ACTIVE):
Withdrawn capabilities:
  - log.archive (from logger-b)
Kept by another provider:
  + system.log (from logger-a)
Directly affected:
  → test-archive (ACTIVE)
Transitively affected:
Stay DONE:
Total: 1 capability withdrawn, 1 component affected (1 directly, 0 transitively)
";

/// Capability, and its dependents as printed.
const DEPENDENTS: [(&str, &str, usize); 5] = [
    ("network.configured", "  → logger-b (ACTIVE)\n  → test-cache (ACTIVE)\n  → test-web (ACTIVE)\n", 3),
    ("test.cache", "  → test-frontend (ACTIVE), optional\n  → test-web (ACTIVE)\n", 2),
    ("system.log", "  → test-database (ACTIVE)\n  → test-monitor (ACTIVE)\n", 2),
    ("kernel.syscalls", "  → network (DONE)\n  → storage (DONE)\n", 2),
    ("kernel.memory", "", 0),
];

pub async fn dependency_trees(vm: &Vm) -> Result<(), Failure> {
    same("tree test-monitor", &ends_with(vm, 0, &["tree", "test-monitor"]).await?, TREE)?;
    let lines = json_with(vm, 0, &["tree", "test-monitor"]).await?;
    let count = lines["tree"].as_array().map_or(0, Vec::len);
    check!(count == TREE.lines().count(), "the tree has {count} lines in JSON");

    same("path test-web storage", &ends_with(vm, 0, &["path", "test-web", "storage"]).await?, PATH)?;
    let reverse = ends_with(vm, 1, &["path", "storage", "test-web"]).await?;
    same(
        "path storage test-web",
        &reverse,
        "storage does not depend on test-web; test-web depends on storage\n",
    )?;
    let none = ends_with(vm, 1, &["path", "test-archive", "storage"]).await?;
    same("path test-archive storage", &none, "test-archive does not depend on storage\n")?;
    let optional = json_with(vm, 0, &["path", "test-frontend", "test-cache"]).await?;
    check!(optional["path"][0]["optional"] == true, "the optional way is not marked: {optional}");
    Ok(())
}

pub async fn reverse_dependencies(vm: &Vm) -> Result<(), Failure> {
    for (capability, lines, total) in DEPENDENTS {
        let noun = if total == 1 { "component" } else { "components" };
        let expected = format!("Components that depend on {capability}:\n{lines}Total: {total} {noun}\n");
        same(&format!("rdeps {capability}"), &ends_with(vm, 0, &["rdeps", capability]).await?, &expected)?;
    }
    let value = json_with(vm, 0, &["rdeps", "test.cache"]).await?;
    check!(value["total"] == 2 && value["dependents"][0]["optional"] == true, "rdeps in JSON: {value}");

    same("simulate remove logger-b", &ends_with(vm, 0, &["simulate", "remove", "logger-b"]).await?, LOSS)?;
    vm.step("removal with an alternative provider", remove(vm, "logger-a", &[], &[], &[])).await?;
    let direct = ["test-archive", "test-database", "test-monitor"];
    let transitive = ["test-frontend", "test-web"];
    let caps = ["log.archive", "system.log", "test.database", "test.frontend", "test.web"];
    vm.step("removal of the last provider", remove(vm, "logger-b", &direct, &transitive, &caps)).await
}

/// Simulates a removal, then does it, and compares.
async fn remove(
    vm: &Vm,
    name: &str,
    direct: &[&str],
    transitive: &[&str],
    withdrawn: &[&str],
) -> Result<(), Failure> {
    let before = vm.status().await?;
    let said = json_with(vm, 0, &["simulate", "remove", name]).await?;
    check!(texts(&said["direct"], Some("component")) == direct, "directly affected: {said}");
    check!(texts(&said["transitive"], Some("component")) == transitive, "transitively affected: {said}");
    let mut caps = texts(&said["withdrawn"], Some("capability"));
    caps.sort_unstable();
    check!(caps == withdrawn, "withdrawn: {caps:?}");
    undisturbed(vm, &before).await?;

    vm.undeclare(&format!("{name}.toml")).await?;
    vm.wait_state(name, "REMOVED", None, REACTION).await?;
    for affected in direct.iter().chain(transitive) {
        vm.wait_state(affected, "INACTIVE", None, REACTION).await?;
    }
    vm.wait_settled(REACTION).await?;
    let down: Vec<_> = [direct, transitive].concat();
    let others = before.components.iter().filter(|c| c.name != name && !down.contains(&c.name.as_str()));
    let others = Status { components: others.cloned().collect(), ..before.clone() };
    undisturbed(vm, &others).await?;
    let listed = json_with(vm, 0, &["caps"]).await?;
    let listed = listed["capabilities"].as_array().into_iter().flatten();
    let down = listed.filter(|cap| cap["status"] == "DOWN" && cap["name"] != "test.metrics");
    let down: Vec<_> = down.filter_map(|cap| cap["name"].as_str()).collect();
    check!(down == withdrawn, "really down are {down:?}, simulated {withdrawn:?}");
    Ok(())
}
