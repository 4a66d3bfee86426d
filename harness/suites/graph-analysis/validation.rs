//! Sound graphs and unsound ones.

use crate::check;
use crate::failure::Failure;
use crate::vm::{COMPONENTS as FOLDER, Vm};

use super::{REACTION, ends_with, json_with, same, service, texts};

/// Error's code, and the component it is about.
const ERRORS: [(&str, &str); 4] = [
    ("self-dependency", "selfish"),
    ("blocked", "behind-orphan"),
    ("blocked", "behind-selfish"),
    ("unprovided", "orphan"),
];

/// What the suite's own graph gives a note for.
const NOTE: &str = "note[optional-unprovided]: test-cache would use test.metrics, which nobody provides\n";

pub async fn clean_graph_validation(vm: &Vm) -> Result<(), Failure> {
    sound(vm).await?;
    let value = json_with(vm, 0, &["validate"]).await?;
    check!(value["valid"] == true && value["errors"] == 0 && value["notes"] == 1, "a sound graph: {value}");
    check!(texts(&value["findings"], Some("code")) == ["optional-unprovided"], "the findings: {value}");
    let value = json_with(vm, 0, &["check-cycles"]).await?;
    check!(texts(&value["cycles"], None).is_empty(), "a cycle where there is none: {value}");
    let value = json_with(vm, 0, &["check"]).await?;
    check!(value["never"].as_array().is_some_and(Vec::is_empty), "something can never start: {value}");
    // What the analysis says can start has started.
    let status = vm.status().await?;
    let bad = status.components.iter().find(|c| !matches!(c.state.as_str(), "ACTIVE" | "DONE"));
    check!(bad.is_none(), "the graph is said to be sound, but {bad:?}");
    Ok(())
}

async fn sound(vm: &Vm) -> Result<(), Failure> {
    let table = [
        ("check-cycles", "No dependency cycles\n".to_owned()),
        ("check", "All 11 components can start\n".to_owned()),
        ("validate", format!("{NOTE}Total: 0 errors, 1 note\n")),
        (
            "scc",
            "Total: 11 strongly connected components, 0 of components that depend on each other\n".to_owned(),
        ),
    ];
    for (command, expected) in table {
        same(command, &ends_with(vm, 0, &[command]).await?, &expected)?;
    }
    Ok(())
}

pub async fn graph_validation(vm: &Vm) -> Result<(), Failure> {
    let unsound = [
        ("orphan", service("orphan", &["orphan.up"], &["nobody.gives"])),
        ("behind-orphan", service("behind-orphan", &[], &["orphan.up"])),
        ("selfish", service("selfish", &["self.up"], &["self.up"])),
        ("behind-selfish", service("behind-selfish", &[], &["self.up"])),
        ("broken", "[component]\nname = \"broken\"\nbinary = 7\n".to_owned()),
    ];
    for (name, content) in &unsound {
        vm.declare(&format!("{name}.toml"), content).await?;
    }
    let broken = format!("{FOLDER}/broken.toml");
    let seconds = vm.limit(REACTION).as_secs_f64().to_string();
    vm.graphctl_within(&["wait", "--rejected", &broken, "--timeout", &seconds], REACTION).await?;
    vm.wait_state("behind-selfish", "CYCLE", None, REACTION).await?;
    vm.wait_settled(REACTION).await?;
    vm.step("each error is found", errors(vm, &broken)).await?;

    for (name, _) in &unsound {
        vm.undeclare(&format!("{name}.toml")).await?;
        vm.wait_state(name, "REMOVED", None, REACTION).await?;
    }
    vm.wait_settled(REACTION).await?;
    vm.step("nothing is left once all is mended", sound(vm)).await
}

async fn errors(vm: &Vm, broken: &str) -> Result<(), Failure> {
    let value = json_with(vm, 1, &["validate"]).await?;
    let findings = value["findings"].as_array().into_iter().flatten();
    let is_error = |finding: &&serde_json::Value| finding["severity"] == "error";
    let name = |finding: &serde_json::Value, key: &str| finding[key].as_str().unwrap_or("?").to_owned();
    let seen: Vec<_> = findings
        .filter(is_error)
        .map(|finding| (name(finding, "code"), texts(&finding["components"], None).join(",")))
        .collect();
    let expected = ERRORS.map(|(code, component)| (code.to_owned(), component.to_owned()));
    check!(seen == expected, "validate found {seen:?} instead of {expected:?}");
    check!(value["valid"] == false, "an unsound graph is said to be valid: {value}");
    check!(texts(&value["rejected"], Some("file")) == [broken], "the refused file is missing: {value}");

    let text = ends_with(vm, 1, &["validate"]).await?;
    let lines = [
        format!("error[rejected-file]: {broken}:3:"),
        "error[unprovided]: orphan requires nobody.gives, which nobody provides\n".to_owned(),
        "error[self-dependency]: selfish requires self.up, which only it provides\n".to_owned(),
        "error[blocked]: behind-orphan requires orphan.up, whose providers can never start\n".to_owned(),
        "Total: 4 errors, 1 note\n".to_owned(),
    ];
    for line in &lines {
        check!(text.contains(line.as_str()), "`graphctl validate` has no line {line:?}: {text}");
    }
    let text = ends_with(vm, 1, &["check"]).await?;
    check!(text.ends_with("Total: 4 of 15 components can not start\n"), "`graphctl check` printed {text}");
    let value = json_with(vm, 1, &["check-cycles"]).await?;
    check!(texts(&value["cycles"][0]["components"], None) == ["selfish"], "the cycle of one: {value}");
    // The analysis and the engine agree on what does not run.
    let status = vm.status().await?;
    let down = status.components.iter().filter(|c| !matches!(c.state.as_str(), "ACTIVE" | "DONE"));
    let down: Vec<_> = down.map(|component| component.name.as_str()).collect();
    check!(down == ["behind-orphan", "behind-selfish", "orphan", "selfish"], "what does not run: {down:?}");
    Ok(())
}
