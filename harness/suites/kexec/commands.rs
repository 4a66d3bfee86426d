//! The command itself.

use yakiros_guest::protocol::{Exec, ExitStatus, WindowSize};
use yakiros_vm::agent::ProgramEvent;

use super::report::nothing_is_loaded;
use super::{LOOK, OWN, TRIAL};
use crate::check;
use crate::failure::Failure;
use crate::vm::{BOOT_INITRD, BOOT_KERNEL, Vm};

pub async fn kexec_commands_available(vm: &Vm) -> Result<(), Failure> {
    let help = vm.graphctl(&["kexec", "--help"]).await?;
    for option in [
        "--dry-run",
        "--force",
        "--initrd",
        "--append",
        "--verbose",
        "--json",
        "--check-prereq",
        "--list-checkpoints",
        "--create-manifest",
        "--unload",
        "Examples:",
        "Exit codes:",
    ] {
        check!(help.contains(option), "the help says nothing of {option}: {help}");
    }
    let listed = vm.graphctl(&["--help"]).await?;
    check!(listed.contains("kexec"), "graphctl does not list kexec: {listed}");
    let listed = vm.graphctl(&["kexec", "--list-checkpoints"]).await?;
    check!(listed.contains("Total: 0 components"), "where nothing is kept it lists {listed}");
    // It is no error when there is nothing to take back.
    vm.graphctl(&["kexec", "--unload"]).await?;
    nothing_is_loaded(vm).await
}

/// Arguments, what they end with, and what is said of them.
const ARGUMENTS: [(&[&str], i32, &str); 10] = [
    (&["kexec"], 2, "required"),
    (&["kexec", "--dry-run"], 2, "KERNEL"),
    (&["kexec", "--dry-run", "--force", "/boot/vmlinuz"], 2, "cannot be used with"),
    (&["kexec", "--initrd", "/boot/initrd"], 2, "KERNEL"),
    (&["kexec", "--check-prereq", "--unload"], 2, "cannot be used with"),
    (&["kexec", "--list-checkpoints", "/boot/vmlinuz"], 2, "cannot be used with"),
    (&["kexec", "--sideways", "/boot/vmlinuz"], 2, "--sideways"),
    (&["kexec", "--timeout", "soon", "/boot/vmlinuz"], 2, "write seconds"),
    (&["kexec", "/nowhere/vmlinuz", "--dry-run", "--criu", "criu"], 1, "/nowhere/vmlinuz"),
    (
        &["kexec", "--append", "--quiet a=b", "--dry-run", "--verbose", "/nowhere/vmlinuz"],
        1,
        "/nowhere/vmlinuz",
    ),
];

pub async fn argument_parsing(vm: &Vm) -> Result<(), Failure> {
    for (arguments, code, expected) in ARGUMENTS {
        let argv = [&["graphctl"], arguments].concat();
        let output = vm.run(&argv, vm.limit(LOOK)).await?;
        let said = output.text() + &output.error_text();
        check!(
            output.status == ExitStatus::Code(code) && said.contains(expected),
            "`{}` ended with {:?} and said {said}",
            argv.join(" "),
            output.status
        );
    }
    nothing_is_loaded(vm).await
}

pub async fn safety_mechanisms(vm: &Vm) -> Result<(), Failure> {
    let before = vm.status().await?;
    // Without a terminal nobody can be asked.
    let argv = ["graphctl", "kexec", BOOT_KERNEL, "--initrd", BOOT_INITRD];
    let output = vm.run(&argv, vm.limit(LOOK)).await?;
    let said = output.text() + &output.error_text();
    check!(
        output.status == ExitStatus::Code(1) && said.contains("--force") && !said.contains("validation"),
        "without a terminal it ended with {:?} and said {said}",
        output.status
    );
    for answer in ["no\n", "\n", "y\n"] {
        let (status, said) = answered(vm, &argv, answer).await?;
        check!(
            status == ExitStatus::Code(1)
                && said.contains("it was not confirmed")
                && !said.contains("checkpoint "),
            "to the answer {answer:?} it ended with {status:?} and said {said}"
        );
    }
    inside_of_a_component(vm).await?;
    one_at_a_time(vm).await?;
    nothing_is_loaded(vm).await?;
    let after = vm.status().await?;
    for component in &before.components {
        let now = after.component(&component.name)?;
        check!(now.pid == component.pid && now.state == component.state, "{component:?} has become {now:?}");
    }
    Ok(())
}

/// On a terminal; the answer is written when the question is there.
async fn answered(vm: &Vm, argv: &[&str], answer: &str) -> Result<(ExitStatus, String), Failure> {
    let exec = Exec {
        argv: argv.iter().map(ToString::to_string).collect(),
        stdin: true,
        terminal: Some(WindowSize { rows: 24, columns: 80 }),
        ..Exec::default()
    };
    let conversation = async {
        let mut program = vm.guest.agent.start(exec).await?;
        let keyboard = program.keyboard();
        let (mut said, mut asked) = (String::new(), false);
        loop {
            match program.next().await? {
                ProgramEvent::Started(_) => {}
                ProgramEvent::Stdout(bytes) | ProgramEvent::Stderr(bytes) => {
                    said.push_str(&String::from_utf8_lossy(&bytes));
                }
                ProgramEvent::Exited(status) => return Ok((status, said)),
            }
            if !asked && said.contains("Write yes") {
                asked = true;
                keyboard.type_bytes(answer.as_bytes()).await?;
            }
        }
    };
    vm.ask("answer the question", TRIAL, conversation).await
}

/// Who would write itself down is told so.
async fn inside_of_a_component(vm: &Vm) -> Result<(), Failure> {
    let group = "/sys/fs/cgroup/graph/idle-1/cgroup.procs";
    let command = format!("echo $$ > {group}; exec graphctl --json {}", OWN.join(" "));
    let output = vm.run(&["/bin/sh", "-c", &command], vm.limit(LOOK)).await?;
    let said = output.text();
    check!(
        !output.success() && said.contains("runs inside of idle-1"),
        "inside of a component it says {said} {}",
        output.error_text()
    );
    Ok(())
}

/// The second does not take back what the first has loaded.
async fn one_at_a_time(vm: &Vm) -> Result<(), Failure> {
    let locked =
        ["flock", "/run/graph", "graphctl", "kexec", "--dry-run", BOOT_KERNEL, "--initrd", BOOT_INITRD];
    let output = vm.run(&locked, vm.limit(LOOK)).await?;
    let said = output.error_text();
    check!(!output.success() && said.contains("another"), "beside another one it says {said}");
    Ok(())
}
