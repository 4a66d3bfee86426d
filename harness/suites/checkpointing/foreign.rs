//! A CRIU that is another, or none, and a kernel that lacks something.

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::client::Client;
use super::{REACTION, STATEFUL, attempt, checkpoint, pid_of, restore};

pub async fn another_criu(vm: &Vm) -> Result<(), Failure> {
    let place = vm.sh("command -v criu").await?.trim().to_owned();
    vm.sh(&format!("mv {place} {place}.real")).await?;
    let mut client = Client::connect(vm).await?;
    client.increment(vm).await?;
    let pid = pid_of(vm, STATEFUL).await?;
    // What it says, what it does then, and what is said of it.
    let mut kinds = vec![
        ("no version", "echo a program", "a program"),
        ("a version that is none", "echo Version: four", "does not say its version"),
        ("nothing", "exit 1", "does not say its version"),
        ("that it cannot be executed", "exec /nowhere/criu", "does not say its version"),
    ];
    if vm.amount(true, false) {
        kinds.push(("nothing, and goes on", "exec sleep 1000", "had not ended after 20 s"));
    }
    for (kind, script, says) in kinds {
        let program = format!("#!/bin/sh\n{script}\n");
        vm.write(&place, &program).await?;
        vm.sh(&format!("chmod 755 {place}")).await?;
        let (done, text, error) = attempt(vm, &["checkpoint", STATEFUL]).await?;
        check!(!done && error.contains(says), "of a CRIU that says {kind} it says {text}{error}");
    }
    vm.sh(&format!("rm {place}")).await?;
    let (done, text, error) = attempt(vm, &["checkpoint", STATEFUL]).await?;
    check!(!done && error.contains("install CRIU"), "of no CRIU it says {text}{error}");
    check!(pid_of(vm, STATEFUL).await? == pid, "the service is another one");
    check!(client.increment(vm).await? == 2, "it does not count on");

    vm.sh(&format!("mv {place}.real {place}")).await?;
    let made = checkpoint(vm, STATEFUL).await?;
    vm.sh(&format!("mv {place} {place}.real")).await?;
    // It does what it is told, and says that it is an old one.
    let older = format!(
        "#!/bin/sh\n[ \"$1\" != --version ] || {{ echo Version: 3.17.1; exit; }}\nexec {place}.real \"$@\"\n"
    );
    for (kind, program, says) in [("an older", Some(older), "3.17.1"), ("no", None, "install CRIU")] {
        if let Some(program) = &program {
            vm.write(&place, program).await?;
            vm.sh(&format!("chmod 755 {place}")).await?;
        }
        let again = restore(vm, STATEFUL, &made.id).await?;
        let why = again.passed_over.clone().unwrap_or_default();
        check!(again.id.is_none() && why.contains(says), "with {kind} CRIU it was {again:?}");
        vm.wait_state(STATEFUL, "ACTIVE", None, REACTION).await?;
        check!(Client::connect(vm).await?.count(vm).await? == 0, "what is started anew has counted");
        vm.sh(&format!("rm -f {place}")).await?;
    }
    vm.sh(&format!("mv {place}.real {place}")).await?;
    let again = restore(vm, STATEFUL, &made.id).await?;
    check!(again.passed_over.is_none(), "with the CRIU that made it, it was {again:?}");
    Ok(())
}

/// Modules that CRIU needs for what the service has. Of several that are missing the last of these is named.
const MODULES: [&str; 3] = ["nf_tables", "unix_diag", "tcp_diag"];

pub async fn a_kernel_that_lacks_something(vm: &Vm) -> Result<(), Failure> {
    let mut client = Client::connect(vm).await?;
    client.increment(vm).await?;
    let pid = pid_of(vm, STATEFUL).await?;
    checkpoint(vm, STATEFUL).await?;
    // It would load them again by itself.
    vm.sh("echo > /proc/sys/kernel/modprobe").await?;
    let mut missing = Vec::new();
    for module in MODULES {
        // One that is built in cannot be taken away.
        if !vm.run(&["rmmod", module], REACTION).await?.success() {
            continue;
        }
        missing.push(module);
        let (done, text, error) = attempt(vm, &["checkpoint", STATEFUL]).await?;
        check!(!done && error.contains(module), "without {missing:?} it says {text}{error}");
        check!(pid_of(vm, STATEFUL).await? == pid, "the service is another one");
        let (_, report, _) = attempt(vm, &["checkpoint", "--check"]).await?;
        check!(report.contains(module), "of {module}, which is missing, the report says nothing: {report}");
    }
    check!(client.increment(vm).await? == 2, "it does not count on");
    if missing.len() < MODULES.len() {
        let built_in = MODULES.iter().filter(|module| !missing.contains(module)).collect::<Vec<_>>();
        return Err(Failure::skip(format!("this kernel has {built_in:?} in itself, or they are in use")));
    }
    Ok(())
}
