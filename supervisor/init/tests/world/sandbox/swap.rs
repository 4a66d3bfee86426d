//! A hot swap of what is isolated: the next process is isolated just the same, and clients stay connected.

use std::fs;
use std::net::TcpStream;

use yakiros_core::control::{Request, UpgradeLevel};
use yakiros_core::journal::State;

use super::start;
use crate::examples::{ask, built, own_address};
use crate::guest::{Guest, PATIENCE, until};
use crate::handover::done;

/// What the kernel says of a component's process.
fn restrictions(guest: &Guest) -> Vec<String> {
    let pid = guest.component("echo").pid.expect("a process");
    let read = format!("/proc/{}/root/proc/{pid}/status", guest.init_pid());
    let status = fs::read_to_string(read).expect("its status");
    let told = ["NSpid:", "CapBnd:", "NoNewPrivs:", "Seccomp:"];
    let lines = status.lines().filter(|line| told.iter().any(|key| line.starts_with(key)));
    // Its number inside, and nothing of that outside.
    lines.map(|line| line.split('\t').next_back().unwrap_or_default().to_owned()).collect()
}

fn survives(number: u8, more: &str, inside: &str) {
    let Some(guest) = start() else { return };
    let (binary, address) = (built("handoff-echo"), own_address(number));
    let text = format!(
        "[component]\nname = \"echo\"\nbinary = {binary:?}\nargs = [{address:?}]\n\
         [lifecycle]\nhandoff = \"fd-passing\"\n\
         [security]\ncapabilities = []\nseccomp = [\"@service\"]\n\
         [isolation]\nnamespaces = [\"pid\", \"uts\", \"mount\"]\nprivate_tmp = false\nhostname = \"echo\"\n{more}\n"
    );
    guest.declare("echo.toml", &text);
    until("the declaration", || (!guest.status().0.is_empty()).then_some(()));
    guest.wait("echo", State::Active, None);
    let expected =
        [inside, "0000000000000000", "1", if inside == "1" && more.is_empty() { "2" } else { "0" }];
    assert_eq!(restrictions(&guest), expected);
    let client = until("a connection", || TcpStream::connect(&address).ok());
    client.set_read_timeout(Some(PATIENCE)).expect("read timeout");
    ask(&client, "before");
    let before = guest.component("echo").pid;
    let request = Request::Upgrade {
        name: "echo".to_owned(),
        fallback: false,
        queue: false,
        strategy: None,
        timeout_ms: None,
    };
    let done = done(guest.ask(request));
    assert_eq!(done.level, UpgradeLevel::FdPassing, "{done:?}");
    ask(&client, "after");
    assert_ne!(guest.component("echo").pid, before);
    assert_eq!(restrictions(&guest), expected);
}

#[test]
fn clients_of_an_isolated_server_stay_connected_over_a_swap() {
    survives(11, "", "1");
}

#[test]
fn clients_stay_connected_to_a_server_behind_a_first_process_too() {
    // What status shows is the first process, which has no filter.
    survives(12, "init = true", "1");
}
