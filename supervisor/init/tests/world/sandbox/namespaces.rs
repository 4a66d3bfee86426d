//! Namespaces that take more than a clone.

use yakiros_core::journal::State;

use super::{Row, compare, declare, said, start};
use crate::guest::{Guest, sleeper, until};

#[test]
fn namespaces_are_what_they_should_be() {
    compare(&[
        Row {
            name: "loopback",
            free: "[isolation]\nnamespaces = [\"net\"]\n[security]\noptional = [\"loopback\"]\ncapabilities = []",
            bound: "[isolation]\nnamespaces = [\"net\"]",
            script: "cat /proc/net/dev | grep -c :; grep -c ' lo$' /proc/net/if_inet6; true",
            without: "1 1",
            with: "1 1",
        },
        Row {
            name: "host",
            free: "[isolation]\nnamespaces = [\"uts\"]",
            bound: "[isolation]\nnamespaces = [\"uts\"]\nhostname = \"inside\"",
            script: "uname -n | grep -cx inside; true",
            without: "0",
            with: "1",
        },
        Row {
            name: "user",
            free: "",
            bound: "[isolation]\nnamespaces = [\"user\"]\nuid_map = [\"0 100000 1000\"]\ngid_map = [\"0 200000 1000\"]",
            script: "id -u; id -g; tr -s ' ' < /proc/self/uid_map; cat /etc/shadow > /dev/null 2>&1 && echo read; true",
            without: "0 0 0 0 4294967295 read",
            with: "0 0 0 100000 1000",
        },
        Row {
            name: "mapped",
            free: "[security]\nuser = 33",
            bound: "[security]\nuser = 33\n[isolation]\nnamespaces = [\"user\", \"mount\", \"pid\", \"uts\"]\nhostname = \"u\"",
            script: "id -u; grep CapEff /proc/self/status | grep -c 0000000000000000; ls /tmp | grep -c .; uname -n | grep -cx u; true",
            without: "33 1 0 0",
            with: "33 1 0 1",
        },
        Row {
            name: "time",
            free: "",
            bound: "[isolation]\nnamespaces = [\"time\"]\ntime_offsets = { boottime = 1000000000 }",
            script: "cut -d . -f 1 /proc/uptime | grep -c '^10........$'; true",
            without: "0",
            with: "1",
        },
        Row {
            // Exec enters it by itself since Linux 6.3 (timens_on_fork in exec); who never executes shows whether it
            // was entered before.
            name: "clock",
            free: "[isolation]\nnamespaces = [\"pid\", \"mount\"]\ninit = true",
            bound: "[isolation]\nnamespaces = [\"pid\", \"mount\", \"time\"]\ninit = true\ntime_offsets = { boottime = 1000000000 }",
            script: "test $(readlink /proc/1/ns/time) = $(readlink /proc/self/ns/time) && echo same; \
                     cut -d . -f 1 /proc/uptime | grep -c '^10........$'; true",
            without: "same 0",
            with: "same 1",
        },
        Row {
            name: "cgroup",
            free: "",
            bound: "[isolation]\nnamespaces = [\"cgroup\"]",
            script: "test $(readlink /proc/self/ns/cgroup) = $(readlink /proc/1/ns/cgroup) && echo same; true",
            without: "same",
            with: "",
        },
    ]
    .map(|mut row| {
        if row.name == "mapped" {
            // Others leave files in the machine's.
            row.free = "[security]\nuser = 33\n[isolation]\nnamespaces = [\"mount\"]";
        }
        row
    }));
}

/// A component whose first process is the supervisor's.
fn with_init(guest: &Guest, name: &str, script: &str) {
    declare(
        guest,
        name,
        script,
        "[isolation]\nnamespaces = [\"pid\", \"mount\"]\nprivate_tmp = false\ninit = true",
    );
    until("the declaration", || guest.status().0.iter().any(|c| *c.name == *name).then_some(()));
}

#[test]
fn a_first_process_reaps_passes_signals_on_and_ends_as_the_program() {
    let Some(guest) = start() else { return };
    with_init(&guest, "second", "echo $$; cat /proc/1/comm; ls /proc/1/fd 2>/dev/null | grep -c .; true");
    guest.wait("second", State::Done, None);
    assert_eq!(said(&guest, "second"), "2 graph-init 0");

    // The orphan's end is seen by who has become its parent.
    with_init(
        &guest,
        "orphan",
        "(sleep 0.01 & echo $!) > @DIR@/orphan; while kill -0 $(cat @DIR@/orphan) 2>/dev/null; do :; done; echo reaped",
    );
    guest.wait("orphan", State::Done, None);
    assert_eq!(said(&guest, "orphan"), "reaped");

    with_init(&guest, "status", "exit 7");
    guest.wait("status", State::Failed, None);
    let detail = guest.component("status").detail.expect("a reason");
    assert!(detail.contains("status 7"), "{detail}");

    let more = "[lifecycle]\nreload_signal = \"HUP\"\n[isolation]\nnamespaces = [\"pid\"]\ninit = true";
    let script = "trap 'echo reloaded; exit 0' HUP; echo ready > @DIR@/ready; while :; do sleep 0.01; done";
    declare(&guest, "signalled", script, more);
    until("its trap", || guest.dir.path().join("ready").exists().then_some(()));
    let pid = guest.component("signalled").pid.expect("a process");
    let sent = guest.command_inside(&["-p", "-m"]).args(["kill", "-HUP", &pid.to_string()]).status();
    assert!(sent.expect("nsenter").success());
    guest.wait("signalled", State::Done, None);
    assert_eq!(said(&guest, "signalled"), "reloaded");
}

#[test]
fn isolated_processes_outlive_a_new_image_of_the_supervisor() {
    let Some(guest) = start() else { return };
    let more = "[isolation]\nnamespaces = [\"pid\", \"mount\", \"user\", \"uts\"]\nhostname = \"x\"\ninit = true\n\
                [security]\nuser = 33\nseccomp = [\"@service\"]";
    guest.declare("kept.toml", &sleeper("kept", more));
    until("the declaration", || (!guest.status().0.is_empty()).then_some(()));
    guest.wait("kept", State::Active, None);
    let before = guest.component("kept").pid;
    crate::reexec::reexecute(&guest);
    let kept = guest.component("kept");
    assert_eq!((kept.state, kept.pid), (State::Active, before));
}
