//! What is declared is what is done.

use super::{REACTION, all, idle, one, wait_lines};
use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

pub async fn health_check_configuration(vm: &Vm) -> Result<(), Failure> {
    // The first probe of each has passed, or is a second away.
    vm.step("every probe passes", async {
        let script = "n=0; while graphctl status | grep -E '^(probed|test-health)' | grep -qv healthy; do \
                      n=$((n+1)); [ $n -le 100 ] || exit 1; sleep 0.1; done";
        vm.run(&["/bin/sh", "-c", script], REACTION * 2).await?;
        for component in all(vm).await? {
            let probed = component.name.starts_with("probed") || component.name == "test-health-demo";
            let expected = if probed { "healthy" } else { "none" };
            let (name, health, detail) = (component.name, component.health, component.detail);
            check!(health == expected, "the health of {name} is {health}, not {expected}: {detail:?}");
        }
        Ok(())
    })
    .await?;

    for (file, lines, message) in [
        ("two.toml", "health_file = \"/a\"\nhealth_tcp = \"127.0.0.1:1\"", "are both given"),
        ("name.toml", "health_tcp = \"example.org:80\"", "is no address and port"),
        ("zero.toml", "health_file = \"/a\"\nhealth_interval = 0", "must be more than zero"),
    ] {
        vm.declare(file, &idle("refused", lines)).await?;
        let status = vm.status().await?;
        let rejected = status.rejected.iter().find(|rejected| rejected.file.ends_with(file));
        let said = rejected.map(|rejected| &rejected.diagnostics[0].message);
        check!(
            said.is_some_and(|said| said.contains(message)),
            "{file} with `{lines}` was answered {said:?}"
        );
        vm.undeclare(file).await?;
    }

    let text = |interval| idle("tuned", &format!("health_file = \"/run\"\nhealth_interval = {interval}"));
    vm.declare("tuned.toml", &text(1)).await?;
    vm.wait_state("tuned", "ACTIVE", None, REACTION).await?;
    let before = one(vm, "tuned").await?.pid;
    vm.declare("tuned.toml", &text(2)).await?;
    let after = one(vm, "tuned").await?;
    check!(
        after.pid == before && after.state == "ACTIVE",
        "a changed health_interval replaced process {before:?} by {:?}, {}",
        after.pid,
        after.state
    );
    Ok(())
}

pub async fn health_check_execution(vm: &Vm) -> Result<(), Failure> {
    const PROBES: usize = 5;
    // The lock shows a second probe beside the first.
    let command = "mkdir /run/alone || echo >> /run/twice; cut -d' ' -f1 /proc/uptime >> /run/times; \
                   cp /proc/self/cgroup /run/where; rmdir /run/alone";
    let text =
        format!("health_check = \"{command}\"\nhealth_interval = 1\nhealth_restart_threshold = 1000000");
    vm.declare("asked.toml", &idle("asked", &text)).await?;
    wait_lines(vm, "/run/times", PROBES, "the health_check").await?;

    let times = vm.read("/run/times").await?;
    let times: Vec<f64> = times.lines().filter_map(|line| line.parse().ok()).collect();
    let mean = (times[times.len() - 1] - times[0]) / (times.len() - 1) as f64;
    vm.metric("probe_interval", "s", mean);
    check!((0.8..1.2).contains(&mean), "probes with an interval of 1 s came {mean:.2} s apart: {times:?}");
    check!(vm.run(&["test", "!", "-e", "/run/twice"], REACTION).await?.success(), "two probes ran at once");
    let cgroup = vm.read("/run/where").await?;
    check!(cgroup.trim().ends_with("/graph/asked"), "the probe ran in the cgroup {}", cgroup.trim());
    let asked = one(vm, "asked").await?;
    check!(asked.health == "healthy", "after probes that passed the health is {}", asked.health);
    Ok(())
}
