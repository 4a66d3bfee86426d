//! Metrics, layers, order and critical path.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::{COMPONENTS, ends_with, json_with, same, service, texts};

const NUMBERS: &str = "\
Components: 11
Capabilities: 17
Total dependencies: 14
Optional dependencies: 2
Average dependencies: 1.27
Maximum depth: 6
Strongly connected components: 11
Dependency cycles: 0
Can never start: 0
Critical path: kernel → storage → logger-a → test-database → test-web → test-frontend → test-monitor
";

const LAYERS: &str = "\
Layer 0: kernel
Layer 1: network, storage
Layer 2: logger-a, logger-b, test-cache
Layer 3: test-archive, test-database
Layer 4: test-web
Layer 5: test-frontend
Layer 6: test-monitor
Total: 7 layers
";

/// Component, layer, capabilities required and provided, dependents.
const DETAIL: [(&str, u64, u64, u64, u64); COMPONENTS] = [
    ("kernel", 0, 0, 8, 2),
    ("logger-a", 2, 1, 1, 2),
    ("logger-b", 2, 1, 2, 3),
    ("network", 1, 1, 1, 3),
    ("storage", 1, 1, 1, 2),
    ("test-archive", 3, 1, 0, 0),
    ("test-cache", 2, 1, 1, 1),
    ("test-database", 3, 2, 1, 1),
    ("test-frontend", 5, 1, 1, 1),
    ("test-monitor", 6, 2, 0, 0),
    ("test-web", 4, 3, 1, 1),
];

/// Services in the deep chain.
const CHAIN: usize = 100;
/// For them to start one after the other on an emulated processor.
const CHAIN_LIMIT: Duration = Duration::from_secs(30);

pub async fn graph_metrics(vm: &Vm) -> Result<(), Failure> {
    same("analyze", &ends_with(vm, 0, &["analyze"]).await?, NUMBERS)?;
    same("layers", &ends_with(vm, 0, &["layers"]).await?, LAYERS)?;
    let value = json_with(vm, 0, &["analyze", "--detailed"]).await?;
    let numbers = [
        ("components", 11),
        ("capabilities", 17),
        ("dependencies", 14),
        ("optional_dependencies", 2),
        ("maximum_depth", 6),
        ("strongly_connected_components", 11),
        ("cycles", 0),
        ("never", 0),
    ];
    for (key, expected) in numbers {
        check!(value[key] == expected, "{key} is {}, not {expected}", value[key]);
    }
    let average = value["average_dependencies"].as_f64();
    let right = average.is_some_and(|average| (average - 14.0 / 11.0).abs() < 1e-9);
    check!(right, "the average is {average:?}");
    let parts = value["detail"].as_array().map_or(&[][..], Vec::as_slice);
    check!(parts.len() == COMPONENTS, "the details are of {} components", parts.len());
    for (part, (name, layer, requires, provides, dependents)) in parts.iter().zip(DETAIL) {
        let right = part["component"] == name
            && part["layer"] == layer
            && part["requires"] == requires
            && part["provides"] == provides
            && part["dependents"] == dependents;
        check!(
            right,
            "{name} is in layer {layer}, requires {requires}, provides {provides}, has {dependents} dependents; not {part}"
        );
    }
    Ok(())
}

pub async fn complexity_analysis(vm: &Vm) -> Result<(), Failure> {
    vm.step("a deep chain starts", deep_chain(vm)).await?;
    let start = Instant::now();
    let numbers = json_with(vm, 0, &["analyze"]).await?;
    vm.metric("analyze_111_components", "ms", start.elapsed().as_secs_f64() * 1000.0);
    // deep-1 stands in layer 7, above test-monitor's layer by what test-frontend gives.
    check!(numbers["components"] == COMPONENTS + CHAIN, "analyze counts {numbers}");
    check!(numbers["dependencies"] == 14 + CHAIN, "analyze counts {numbers}");
    let mut path: Vec<String> =
        ["kernel", "storage", "logger-a", "test-database", "test-web", "test-frontend"]
            .map(str::to_owned)
            .into();
    path.extend((1..=CHAIN).map(|link| format!("deep-{link}")));
    check!(numbers["maximum_depth"] == path.len() - 1, "the depth is {}", numbers["maximum_depth"]);
    let seen = texts(&numbers["critical_path"], None);
    check!(seen == path, "the critical path is {seen:?}");

    let layers = json_with(vm, 0, &["layers"]).await?;
    let count = layers["layers"].as_array().map_or(0, Vec::len);
    check!(count == path.len(), "there are {count} layers, not {}", path.len());
    let last = format!("deep-{CHAIN}");
    let steps = json_with(vm, 0, &["path", &last, "test-database"]).await?;
    let steps = steps["path"].as_array().map_or(0, Vec::len);
    check!(steps == CHAIN + 2, "the path from {last} to test-database has {steps} steps");
    let loss = json_with(vm, 0, &["simulate", "remove", "deep-1"]).await?;
    let far = texts(&loss["transitive"], Some("component")).len();
    check!(texts(&loss["direct"], Some("component")) == ["deep-2"], "directly affected: {loss}");
    check!(far == CHAIN - 2, "{far} components are transitively affected by the chain's second link");
    vm.step("the order is the one in which they started", started_in_order(vm)).await
}

async fn deep_chain(vm: &Vm) -> Result<(), Failure> {
    let link = |link: usize| {
        let (name, own) = (format!("deep-{link}"), format!("deep.{link}"));
        let below = if link == 1 { "test.frontend".to_owned() } else { format!("deep.{}", link - 1) };
        (format!("{name}.toml"), service(&name, &[&own], &[&below]))
    };
    vm.declare_all(&(1..=CHAIN).map(link).collect::<Vec<_>>()).await?;
    vm.wait_state(&format!("deep-{CHAIN}"), "ACTIVE", None, CHAIN_LIMIT).await?;
    vm.wait_settled(CHAIN_LIMIT).await
}

/// Whatever became ACTIVE in the journal did so after everything of the layers it stands on: the order that is
/// printed and the one that happened agree along the chain.
async fn started_in_order(vm: &Vm) -> Result<(), Failure> {
    let order = json_with(vm, 0, &["order"]).await?;
    let order = texts(&order["order"], Some("component"));
    check!(order.len() == COMPONENTS + CHAIN, "the order has {} components", order.len());
    let place: HashMap<&str, usize> =
        order.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    let journal = vm.graphctl(&["events", "--json"]).await?;
    let mut started = Vec::new();
    for line in journal.lines() {
        let record: serde_json::Value = serde_json::from_str(line)
            .map_err(|error| Failure::supervisor(format!("the journal's line {line}: {error}")))?;
        let name = record["component"].as_str().unwrap_or("?").to_owned();
        if record["to"] == "ACTIVE" && name.starts_with("deep-") {
            started.push(name);
        }
    }
    check!(started.len() == CHAIN, "{} of the chain became ACTIVE", started.len());
    let sorted = started.is_sorted_by_key(|name| place.get(name.as_str()));
    check!(sorted, "they started as {started:?}, the order is {order:?}");
    Ok(())
}
