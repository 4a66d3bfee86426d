//! All kinds of sockets, and connections in all states.

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::versions::declare;
use super::{ECHO, ECHO_TARGET, until, upgrade};
use crate::load::Load;

pub async fn every_kind_of_socket(vm: &Vm) -> Result<(), Failure> {
    const ARGS: &str = ", \"--udp\", \"127.0.0.1:8080\", \"--unix\", \"/run/echo.socket\", \
                        \"--unix-datagram\", \"/run/echo.datagrams\"";
    const TARGETS: [(&str, &str); 4] = [
        ("tcp", ECHO_TARGET),
        ("udp", "udp:127.0.0.1:8080"),
        ("unix", "unix:/run/echo.socket"),
        ("datagrams", "unix-datagram:/run/echo.datagrams"),
    ];
    declare(vm, ARGS, "").await?;
    let mut loads = Vec::new();
    for (name, target) in TARGETS {
        loads.push(Load::begin(vm, name, target, "--connections 10").await?);
    }
    for round in 1..=vm.amount(20, 5) {
        let done = upgrade(vm, ECHO).await?;
        // Two listeners, two sockets of datagrams, and the connections of the two that have some.
        check!(done.level == "fd-passing" && done.descriptors == Some(24), "upgrade {round} was {done:?}");
    }
    for load in loads {
        load.end_clean(vm, 10).await?;
    }
    Ok(())
}

pub async fn half_sent_requests(vm: &Vm) -> Result<(), Failure> {
    declare(vm, ", \"--lines\"", "").await?;
    let half =
        Load::begin(vm, "half", ECHO_TARGET, "--connections 0 --idle 50 --idle-state half-sent").await?;
    let busy = Load::begin(vm, "busy", ECHO_TARGET, "--connections 20 --split-ms 20").await?;
    for round in 1..=vm.amount(10, 3) {
        let done = upgrade(vm, ECHO).await?;
        // The halves that wait are part of the state: fifty of half a request each.
        check!(
            done.level == "fd-passing" && done.state_bytes.is_some_and(|bytes| bytes > 50 * 32),
            "upgrade {round} was {done:?}"
        );
    }
    busy.end_clean(vm, 20).await?;
    half.end_clean(vm, 50).await.map(drop)
}

pub async fn half_closed_connections(vm: &Vm) -> Result<(), Failure> {
    const COUNT: u64 = 20;
    // Servers that wait for their connection to be read, by their state after a client's end (CLOSE_WAIT).
    const WAIT: &str = "test $(awk '$2 ~ /:1F90$/ && $4 == \"08\"' /proc/net/tcp | wc -l) = 20";
    declare(vm, "", "").await?;
    // What does not fit these stays with the server.
    vm.sh("echo 4096 16384 65536 | tee /proc/sys/net/ipv4/tcp_wmem > /proc/sys/net/ipv4/tcp_rmem").await?;
    let options = format!("--connections 0 --idle {COUNT} --idle-state half-closed");
    let load = Load::begin(vm, "closed", ECHO_TARGET, &options).await?;
    until(vm, WAIT).await?;
    for round in 1..=vm.amount(10, 3) {
        let done = upgrade(vm, ECHO).await?;
        check!(
            done.level == "fd-passing" && done.descriptors == Some(1 + COUNT),
            "upgrade {round} was {done:?}"
        );
    }
    until(vm, WAIT).await?;
    load.end_clean(vm, COUNT).await.map(drop)
}
