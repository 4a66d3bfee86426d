//! `supervisor/examples/linux-system`: mounts, devices, network, log, logins.

use std::time::Duration;

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

/// For a component to start, be stopped or be noticed.
const REACTION: Duration = Duration::from_secs(10);
/// A key exchange, twice, on an emulated processor.
const LOGIN: Duration = Duration::from_secs(20);

pub async fn linux_system_boots(vm: &Vm) -> Result<(), Failure> {
    let status = vm.status().await?;
    check!(status.rejected.is_empty(), "files are refused: {:?}", status.rejected);
    for (name, state) in [
        ("mounts", "DONE"),
        ("coldplug", "DONE"),
        ("ssh-key", "DONE"),
        ("hotplug", "ACTIVE"),
        ("network", "ACTIVE"),
        ("syslog", "ACTIVE"),
        ("ssh", "ACTIVE"),
    ] {
        let component = status.component(name)?;
        let (is, detail) = (&component.state, &component.detail);
        check!(is == state && component.restarts == 0, "{name} is {is}, not {state}: {detail:?}");
    }
    vm.step("lint", vm.graphctl(&["lint", "--strict"])).await?;
    vm.step("devices", devices(vm)).await?;
    vm.step("mounts", vm.sh("grep -q ' /tmp tmpfs ' /proc/mounts && echo > /tmp/file")).await?;
    vm.step("network", network(vm)).await?;
    vm.step("log", log(vm)).await?;
    vm.step("login", login(vm)).await?;
    vm.step("the network goes and comes back", network_goes(vm)).await
}

/// The kernel gives every node to root alone; `/etc/mdev.conf` gives serial lines to a group.
async fn devices(vm: &Vm) -> Result<(), Failure> {
    let look = "stat -c '%G %a' /dev/ttyS0";
    let cold = vm.sh(look).await?;
    check!(cold.trim() == "dialout 660", "after the coldplug /dev/ttyS0 belongs to {}", cold.trim());
    let hot = format!(
        "chown root:root /dev/ttyS0; echo add > /sys/class/tty/ttyS0/uevent\n\
         n=0; until [ \"$({look})\" = 'dialout 660' ]; do n=$((n+1)); [ $n -le 40 ] || exit 1; sleep 0.1; done"
    );
    let noticed = vm.run(&["/bin/sh", "-c", &hot], REACTION).await?;
    check!(noticed.success(), "a device that is added is not set up: it is {}", vm.sh(look).await?.trim());
    Ok(())
}

/// The machine's network gives addresses below 10.0.2.0, and no way out; 10.0.2.2 answers.
async fn network(vm: &Vm) -> Result<(), Failure> {
    let address = vm.sh("ip -4 -o address show dev eth0").await?;
    check!(address.contains("inet 10.0.2."), "eth0 has no address: {address}");
    vm.succeed(&["ping", "-c", "1", "-W", "5", "10.0.2.2"], REACTION).await.map(drop)
}

async fn log(vm: &Vm) -> Result<(), Failure> {
    let line = "a line for the log";
    vm.succeed(&["logger", "-t", "example", line], REACTION).await?;
    let wait = format!(
        "n=0; until grep -q 'example: {line}' /var/log/messages; do n=$((n+1)); [ $n -le 40 ] || exit 1; sleep 0.1; done"
    );
    let found = vm.run(&["/bin/sh", "-c", &wait], REACTION).await?;
    check!(found.success(), "the log has no such line: {}", vm.read("/var/log/messages").await?);
    Ok(())
}

/// With a key of root's, over the network interface itself.
async fn login(vm: &Vm) -> Result<(), Failure> {
    let banner = vm.sh("nc -w 5 127.0.0.1 22 < /dev/null | head -n 1").await?;
    check!(banner.starts_with("SSH-2.0-"), "on port 22 the greeting is {banner:?}");
    let prepare = "mkdir -p /root/.ssh; chmod 700 /root /root/.ssh\n\
                   dropbearkey -t ed25519 -f /root/.ssh/key | grep ^ssh- > /root/.ssh/authorized_keys";
    vm.succeed(&["/bin/sh", "-euc", prepare], LOGIN).await?;
    let address =
        vm.sh("ip -4 -o address show dev eth0 | awk '{ sub(\"/.*\", \"\", $4); print $4 }'").await?;
    let host = format!("root@{}", address.trim());
    let command = "id -un; cat /proc/1/comm; cut -d: -f3 /proc/self/cgroup";
    let output = vm.run(&["dbclient", "-y", "-y", "-i", "/root/.ssh/key", &host, command], LOGIN).await?;
    let (said, error) = (output.text(), output.error_text());
    check!(said == "root\ngraph-resolver\n/graph/ssh\n", "the login's command printed {said:?}: {error}");
    let logged = vm.read("/var/log/messages").await?;
    check!(logged.contains("Pubkey auth succeeded for 'root'"), "the login is not in the log: {logged}");
    Ok(())
}

async fn network_goes(vm: &Vm) -> Result<(), Failure> {
    let before = vm.status().await?;
    let daemon = before.component("ssh")?.running_pid()?;
    let syslog = before.component("syslog")?.pid;
    vm.graphctl(&["stop", "network"]).await?;
    vm.wait_state("ssh", "INACTIVE", Some(before.revision), REACTION).await?;
    vm.wait_process_gone(daemon, "the daemon of logins", REACTION).await?;
    let left = vm.sh("ip -4 -o address show dev eth0").await?;
    check!(left.is_empty(), "without the network eth0 still has an address: {left}");
    vm.graphctl(&["start", "network"]).await?;
    vm.wait_state("ssh", "ACTIVE", Some(before.revision), REACTION).await?;
    let after = vm.status().await?.component("syslog")?.pid;
    check!(after == syslog, "the log was process {syslog:?} and is {after:?}, though it needs no network");
    network(vm).await
}
