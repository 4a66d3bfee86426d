//! Clients that are not in the guest: they come over its network, as those of a real machine do.

use std::net::SocketAddrV4;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;
use yakiros_vm::qemu::NETWORK;

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::load::{MANY, Verdict};
use super::versions::declare;
use super::{ECHO, until, upgrade};

/// The guest's address on the network that QEMU makes for it (its `-netdev user`), and the server's port.
const GUEST: ([u8; 4], u16) = ([10, 0, 2, 15], 8080);
/// Between two looks whether a file is there.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

pub async fn clients_from_outside(vm: &Vm) -> Result<(), Failure> {
    let connections: u64 = vm.amount(50, 20);
    let (address, port) = GUEST;
    let guest = SocketAddrV4::new(address.into(), port);
    vm.sh(&format!("ip addr add {}/24 dev eth0; ip link set eth0 up", guest.ip())).await?;
    // QEMU's network drops what it has for a guest whose hardware address it does not know: it has to hear of it first.
    until(vm, "ping -c 1 -W 1 10.0.2.2 > /dev/null").await?;
    declare(vm, ", \"--listen\", \"0.0.0.0:8080\"", "").await?;
    let address = vm.guest.qmp().forward_port(NETWORK, guest).await?;
    let folder = tempfile::tempdir().map_err(failed("make a folder"))?;
    let ready = folder.path().join("ready");
    let mut load = Command::new(vm.host_program("test-load"));
    load.args(["run", &format!("tcp:{address}"), "--json", "--connections", &connections.to_string()]);
    load.arg("--ready-file").arg(&ready).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let load = load.spawn().map_err(failed("start test-load on this machine"))?;
    let pid = load.id().ok_or_else(|| Failure::harness("test-load has ended already".to_owned()))?;
    let end = || {
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM)
            .map_err(|error| failed("end test-load")(error.into()))
    };
    let limit = vm.limit(MANY);
    let settled = async {
        while !ready.exists() {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    };
    if tokio::time::timeout(limit, settled).await.is_err() {
        end()?;
        let output = load.wait_with_output().await.map_err(failed("wait for test-load"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        return Err(Failure::supervisor(format!(
            "clients outside of the guest got no reply within {limit:.0?}: {said}"
        )));
    }
    for round in 1..=vm.amount(50, 5) {
        let done = upgrade(vm, ECHO).await?;
        check!(done.level == "fd-passing", "upgrade {round} was {done:?}");
    }
    end()?;
    let output = tokio::time::timeout(limit, load.wait_with_output()).await;
    let output = output
        .map_err(|_| Failure::supervisor("clients outside of the guest wait for replies".to_owned()))?;
    let output = output.map_err(failed("wait for test-load"))?;
    let verdict = Verdict::read(String::from_utf8_lossy(&output.stdout).into_owned())?;
    verdict.check_clean()?;
    check!(
        verdict.counts.connections == connections,
        "{} connections were needed",
        verdict.counts.connections
    );
    vm.metric("outside_requests", "count", verdict.counts.replies as f64);
    Ok(())
}

fn failed(what: &'static str) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure::harness(format!("failed to {what}: {error}"))
}
