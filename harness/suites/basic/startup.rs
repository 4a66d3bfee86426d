//! What holds once the machine has booted.

use std::time::Duration;

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

/// What the suite declares at least; the specification's number.
const MIN_COMPONENTS: usize = 5;
/// Services that have to run at least; the specification's number.
const MIN_ACTIVE: usize = 3;
/// A connection inside the guest.
const REPLY: Duration = Duration::from_secs(5);

pub async fn resolver_is_pid_1(vm: &Vm) -> Result<(), Failure> {
    let program = vm.sh("readlink /proc/1/exe").await?;
    check!(
        program.trim() == "/sbin/graph-resolver",
        "process 1 is {}, not /sbin/graph-resolver",
        program.trim()
    );
    let status = vm.status().await?;
    let active = status.count("ACTIVE");
    check!(
        active >= MIN_ACTIVE,
        "{active} components are ACTIVE, {MIN_ACTIVE} should be at least: {status:?}"
    );
    for component in status.components.iter().filter(|component| component.state == "ACTIVE") {
        let pid = component.running_pid()?;
        let parent = vm.sh(&format!("sed -n 's/^PPid:[[:space:]]*//p' /proc/{pid}/status")).await?;
        check!(parent.trim() == "1", "{}'s parent is process {}, not 1", component.name, parent.trim());
    }
    let kept = vm.sh("cat /proc/sys/kernel/printk_devkmsg").await?;
    check!(
        kept.trim() == "on",
        "of what process 1 says the kernel drops most: printk_devkmsg is {}",
        kept.trim()
    );
    Ok(())
}

pub async fn test_components_loaded(vm: &Vm) -> Result<(), Failure> {
    let files = vm.sh("ls /etc/graph.d/*.toml | wc -l").await?;
    let status = vm.status().await?;
    let loaded = status.components.len();
    check!(
        loaded >= MIN_COMPONENTS,
        "{loaded} components are loaded, at least {MIN_COMPONENTS} are declared"
    );
    check!(
        files.trim() == loaded.to_string(),
        "{} files are declared, {loaded} components loaded",
        files.trim()
    );
    check!(status.rejected.is_empty(), "files were refused: {:?}", status.rejected);
    Ok(())
}

pub async fn essential_services_running(vm: &Vm) -> Result<(), Failure> {
    let status = vm.status().await?;
    let active = status.count("ACTIVE");
    check!(
        active >= MIN_ACTIVE,
        "{active} components are ACTIVE, {MIN_ACTIVE} should be at least: {status:?}"
    );
    let programs = [
        ("syslog", "/bin/busybox"),
        ("test-echo-server", "/usr/local/bin/test-echo-server"),
        ("test-idle", "/usr/local/bin/test-idle"),
        ("test-monitor", "/usr/local/bin/test-idle"),
    ];
    for (name, program) in programs {
        let component = status.component(name)?;
        check!(component.state == "ACTIVE", "{name} is {}, not ACTIVE", component.state);
        let runs = vm.sh(&format!("readlink /proc/{}/exe", component.running_pid()?)).await?;
        check!(runs.trim() == program, "{name} runs {}, not {program}", runs.trim());
    }
    echo(vm, b"are you there?\n").await
}

/// A client's bytes come back from the echo server.
async fn echo(vm: &Vm, sent: &[u8]) -> Result<(), Failure> {
    let mut connection = vm.connect("127.0.0.1:8080").await?;
    vm.ask("send to the echo server", REPLY, connection.send(sent)).await?;
    let mut got = Vec::new();
    while got.len() < sent.len() {
        let receive = connection.receive(vm.limit(REPLY));
        match vm.ask("receive from the echo server", REPLY * 2, receive).await? {
            Some(bytes) => got.extend_from_slice(&bytes),
            None => break,
        }
    }
    check!(got == sent, "the echo server answered {:?} to {:?}", text(&got), text(sent));
    Ok(())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub async fn no_failed_components(vm: &Vm) -> Result<(), Failure> {
    let status = vm.status().await?;
    for component in &status.components {
        let (name, state) = (&component.name, component.state.as_str());
        check!(matches!(state, "ACTIVE" | "DONE"), "{name} is {state}: {:?}", component.detail);
        check!(component.restarts == 0, "{name} was restarted {} times", component.restarts);
    }
    let pending = vm.graphctl(&["pending", "--json"]).await?;
    let waiting =
        status.components.iter().find(|component| pending.contains(&format!("\"{}\"", component.name)));
    check!(waiting.is_none(), "graphctl pending lists {waiting:?}");
    Ok(())
}
