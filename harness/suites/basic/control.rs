//! The control socket, through graphctl.

use std::time::Duration;

use yakiros_guest::protocol::ExitStatus;

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

/// The specification's bar for an answer under load is 2 s; here there is none.
const ANSWER: Duration = Duration::from_secs(2);

pub async fn control_socket_functional(vm: &Vm) -> Result<(), Failure> {
    vm.sh("test -S /run/graph-resolver.sock").await?;
    vm.step("every reading command answers", reading_commands(vm)).await?;
    vm.step("exit codes are as documented", exit_codes(vm)).await?;
    vm.step("an ordinary user reads but does not change", ordinary_user(vm)).await
}

async fn reading_commands(vm: &Vm) -> Result<(), Failure> {
    let table = [
        (&["status"][..], "Summary: "),
        (&["status", "test-idle"], "test-idle"),
        (&["caps"], "network.configured"),
        (&["capabilities"], "kernel.syscalls"),
        (&["tree", "test-monitor"], "test-echo-server"),
        (&["pending"], ""),
        (&["log", "test-idle"], ""),
    ];
    for (arguments, expected) in table {
        let text = vm.graphctl(arguments).await?;
        check!(text.contains(expected), "`graphctl {}` has no {expected:?}: {text}", arguments.join(" "));
    }
    Ok(())
}

async fn exit_codes(vm: &Vm) -> Result<(), Failure> {
    let table = [
        (&["graphctl", "stop", "no-such-component"][..], 1, "no-such-component"),
        (&["graphctl", "no-such-command"], 2, "no-such-command"),
        (&["graphctl", "--socket", "/run/no.sock", "status"], 3, "/run/no.sock"),
    ];
    for (argv, code, expected) in table {
        let output = vm.run(argv, ANSWER).await?;
        let said = output.error_text();
        let command = argv.join(" ");
        check!(output.status == ExitStatus::Code(code), "`{command}` ended with {:?}: {said}", output.status);
        check!(said.contains(expected), "`{command}` does not name {expected}: {said}");
    }
    Ok(())
}

/// Every command that changes something.
const CHANGES: [&str; 7] = [
    "graphctl stop test-idle",
    "graphctl start test-idle",
    "graphctl restart test-idle",
    "graphctl reload",
    "graphctl resolve",
    "graphctl reboot",
    "graphctl poweroff",
];

async fn ordinary_user(vm: &Vm) -> Result<(), Failure> {
    let as_nobody = |command: &'static str| ["su", "-s", "/bin/sh", "nobody", "-c", command];
    vm.succeed(&as_nobody("graphctl status"), ANSWER).await?;
    let before = vm.status().await?;
    for command in CHANGES {
        let output = vm.run(&as_nobody(command), ANSWER).await?;
        let (status, said) = (output.status, output.error_text());
        check!(
            status == ExitStatus::Code(1),
            "nobody's `{command}` was not refused but ended with {status:?} {said}"
        );
        check!(said.contains("root"), "the refusal of nobody's `{command}` does not say who may: {said}");
    }
    let after = vm.status().await?;
    check!(after.revision == before.revision, "nobody changed something: {after:?}");
    Ok(())
}
