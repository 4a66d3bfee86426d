//! Clients that are not in the guest: they come over its network, as those of a real machine do.

use std::net::{SocketAddr, SocketAddrV4};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use yakiros_vm::qemu::NETWORK;

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::versions::declare;
use super::{ECHO, until, upgrade};
use crate::load::{MANY, Verdict};

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
    let load = Outside::begin(vm, address, connections).await?;
    for round in 1..=vm.amount(50, 5) {
        let done = upgrade(vm, ECHO).await?;
        check!(done.level == "fd-passing", "upgrade {round} was {done:?}");
    }
    let verdict = Verdict::read(load.end().await?)?;
    verdict.check_clean()?;
    let used = verdict.counts.connections;
    check!(used == connections, "{used} connections were needed for {connections}");
    vm.metric("outside_requests", "count", verdict.counts.replies as f64);
    Ok(())
}

/// A load on this machine.
struct Outside {
    child: Child,
    /// For it to be under way, and to end.
    limit: Duration,
}

impl Outside {
    /// Begin it, and wait until each of its connections has a reply.
    async fn begin(vm: &Vm, address: SocketAddr, connections: u64) -> Result<Self, Failure> {
        let folder = tempfile::tempdir().map_err(failed("make a folder"))?;
        let ready = folder.path().join("ready");
        let mut load = Command::new(vm.host_program("test-load"));
        load.args(["run", &format!("tcp:{address}"), "--json", "--connections", &connections.to_string()]);
        // QEMU listens with a queue of one (libslirp: `listen(s, 1)`). What comes beyond that is answered by the host's
        // kernel with a SYN cookie and forgotten: such a client believes that it is connected, its requests are dropped
        // for as long as the queue is full, and in the end it is reset. So they come one after the other.
        load.args(["--connecting", "1"]).arg("--ready-file").arg(&ready);
        load.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let child = load.spawn().map_err(failed("start test-load on this machine"))?;
        let mut load = Self { child, limit: vm.limit(MANY) };
        if let Ok(settled) = timeout(load.limit, load.settled(&ready)).await {
            return settled.map(|()| load);
        }
        let limit = load.limit;
        let said = load.end().await?;
        let what = format!("clients outside of the guest got no reply in {limit:.0?}: {said}");
        Err(Failure::supervisor(what))
    }

    async fn settled(&mut self, ready: &Path) -> Result<(), Failure> {
        while !ready.exists() {
            if let Some(status) = self.child.try_wait().map_err(failed("look after test-load"))? {
                return Err(Failure::harness(format!("test-load has ended with {status}")));
            }
            sleep(LOOK_PAUSE).await;
        }
        Ok(())
    }

    /// Nothing more is asked; what it said.
    async fn end(self) -> Result<String, Failure> {
        let pid =
            self.child.id().ok_or_else(|| Failure::harness("test-load has ended already".to_owned()))?;
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM)
            .map_err(|error| failed("end test-load")(error.into()))?;
        let output = timeout(self.limit, self.child.wait_with_output()).await;
        let output = output
            .map_err(|_| Failure::supervisor("clients outside of the guest wait for replies".to_owned()))?;
        let output = output.map_err(failed("wait for test-load"))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn failed(what: &'static str) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure::harness(format!("failed to {what}: {error}"))
}
