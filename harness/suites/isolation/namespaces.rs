//! What a component with namespaces sees.

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

/// The component of the suite's machine that has namespaces of its own.
const ISOLATED: &str = "test-isolated-service";

pub async fn namespace_isolation(vm: &Vm) -> Result<(), Failure> {
    let pid = vm.status().await?.component(ISOLATED)?.running_pid()?;
    for (kind, own) in
        [("pid", true), ("mnt", true), ("uts", true), ("ipc", true), ("net", false), ("user", false)]
    {
        let init = vm.sh(&format!("readlink /proc/1/ns/{kind}")).await?;
        let component = vm.sh(&format!("readlink /proc/{pid}/ns/{kind}")).await?;
        check!(
            (init != component) == own,
            "the namespace {kind} of process 1 is {}, that of {ISOLATED} {}",
            init.trim(),
            component.trim()
        );
    }
    let status = vm.read(&format!("/proc/{pid}/status")).await?;
    let numbers =
        status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default().trim().to_owned();
    check!(
        numbers == format!("{pid}\t1"),
        "{ISOLATED} is process {numbers} of its namespaces, and not the first"
    );
    let inside = vm.sh(&format!("nsenter -t {pid} -u hostname")).await?;
    let outside = vm.sh("hostname").await?;
    check!(
        inside.trim() == "isolated" && outside != inside,
        "inside the host name is {}, outside {}",
        inside.trim(),
        outside.trim()
    );
    // What is mounted inside is not seen outside.
    vm.sh(&format!("nsenter -t {pid} -m mount -t tmpfs inside /mnt")).await?;
    let seen = vm.run(&["grep", "-q", " /mnt ", "/proc/1/mountinfo"], super::REACTION).await?.success();
    check!(!seen, "what {ISOLATED} mounts is mounted for process 1");
    Ok(())
}
