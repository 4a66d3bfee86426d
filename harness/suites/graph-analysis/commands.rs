//! The commands themselves: answers, exit codes, hints.

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::{ANSWER, ends_with, json_with};

/// Every question about the graph, and a text of its answer.
const QUESTIONS: [(&[&str], &str); 13] = [
    (&["rdeps", "system.log"], "Total: 2 components"),
    (&["simulate", "remove", "storage"], "Without storage (DONE)"),
    (&["dot"], "digraph"),
    (&["check-cycles"], "No dependency cycles"),
    (&["check-cycles", "--verbose"], "No dependency cycles"),
    (&["check"], "All 11 components can start"),
    (&["validate"], "Total: 0 errors"),
    (&["order"], "Total: 11 components"),
    (&["layers"], "Total: 7 layers"),
    (&["path", "test-web", "kernel"], "test-web → "),
    (&["scc"], "Total: 11 strongly connected components"),
    (&["analyze"], "Components: 11"),
    (&["analyze", "--detailed"], "DEPENDENTS"),
];

/// A wrong question, its exit code, and what the refusal says.
const REFUSALS: [(&[&str], i32, &str); 8] = [
    (&["rdeps", "system.lgo"], 1, "did you mean \"system.log\"?"),
    (&["rdeps", "nothing.like.it"], 1, "no capability is named \"nothing.like.it\""),
    (&["simulate", "remove", "test-wbe"], 1, "did you mean \"test-web\"?"),
    (&["path", "test-web", "strage"], 1, "did you mean \"storage\"?"),
    (&["tree", "test-moniter"], 1, "did you mean \"test-monitor\"?"),
    (&["simulate", "add", "storage"], 2, "add"),
    (&["path", "test-web"], 2, "<TO>"),
    (&["--socket", "/run/no.sock", "analyze"], 3, "/run/no.sock"),
];

pub async fn graph_commands_available(vm: &Vm) -> Result<(), Failure> {
    let before = vm.status().await?;
    vm.step("every question is answered", questions(vm)).await?;
    vm.step("wrong questions are refused with a hint", refusals(vm)).await?;
    vm.step("help has examples", help(vm)).await?;
    let after = vm.status().await?;
    check!(after.revision == before.revision, "questions changed something: {after:?}");
    Ok(())
}

async fn questions(vm: &Vm) -> Result<(), Failure> {
    for (arguments, expected) in QUESTIONS {
        let command = arguments.join(" ");
        let text = ends_with(vm, 0, arguments).await?;
        check!(text.contains(expected), "`graphctl {command}` has no {expected:?}: {text}");
        json_with(vm, 0, arguments).await?;
        let as_nobody = format!("graphctl {command}");
        let seen = vm.succeed(&["su", "-s", "/bin/sh", "nobody", "-c", &as_nobody], ANSWER).await?;
        check!(seen == text, "`{as_nobody}` tells nobody something else: {seen}");
    }
    Ok(())
}

async fn refusals(vm: &Vm) -> Result<(), Failure> {
    for (arguments, code, expected) in REFUSALS {
        let said = ends_with(vm, code, arguments).await?;
        check!(
            said.contains(expected),
            "`graphctl {}` does not say {expected:?}: {said}",
            arguments.join(" ")
        );
    }
    let refusal = json_with(vm, 1, &["rdeps", "system.lgo"]).await?;
    check!(refusal["near"][0] == "system.log", "the refusal in JSON has no hint: {refusal}");
    Ok(())
}

async fn help(vm: &Vm) -> Result<(), Failure> {
    for command in ["rdeps", "dot", "check-cycles", "check", "validate", "path", "analyze"] {
        let text = ends_with(vm, 0, &[command, "--help"]).await?;
        check!(text.contains("Example"), "`graphctl {command} --help` has no example: {text}");
    }
    let all = ends_with(vm, 0, &["--help"]).await?;
    for (arguments, _) in QUESTIONS {
        check!(
            all.contains(&format!("  {} ", arguments[0])),
            "`graphctl --help` has no {}: {all}",
            arguments[0]
        );
    }
    Ok(())
}
