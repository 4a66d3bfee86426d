//! A daemon that somebody else wrote, swapped under a load tool that somebody else wrote: HAProxy under wrk.
//!
//! Neither belongs to this repository, so the test is run by hand, with the paths of both:
//!
//! ```sh
//! YAKIROS_HAPROXY=/usr/sbin/haproxy YAKIROS_WRK=/usr/bin/wrk \
//!     cargo test -p yakiros-init --test world -- --ignored --nocapture haproxy_is_swapped_under_wrk
//! ```
//!
//! Programs that were unpacked without being installed find their libraries by `LD_LIBRARY_PATH`.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use yakiros_core::control::{Answer, Request, UpgradeForm};
use yakiros_core::journal::State;

use crate::guest::Guest;

/// Seconds of load.
const SECONDS: u32 = 20;

/// Upgrades that have to fit into that, on the slowest machine.
const LEAST_UPGRADES: usize = 3;

const HAPROXY: &str = "defaults\n    mode http\n    timeout connect 5s\n    timeout client 30s\n    timeout server 30s\n    \
                       option idle-close-on-response\nfrontend web\n    bind fd@3\n    \
                       http-request return status 200 content-type text/plain string served\n";

/// How many requests wrk has made, or why its report is none of success.
fn judge(report: &str) -> Result<u64, String> {
    let complaint = report.lines().find(|line| line.contains("Socket errors") || line.contains("Non-2xx"));
    if let Some(complaint) = complaint {
        return Err(complaint.trim().to_owned());
    }
    let count = report.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok());
    match count {
        Some(0) => Err("no request was made".to_owned()),
        Some(count) => Ok(count),
        None => Err(format!("no report: {report:?}")),
    }
}

#[test]
fn a_report_with_errors_or_without_requests_is_none_of_success() {
    let good = "  270889 requests in 20.21s, 18.09MB read\nRequests/sec:  13402.55\n";
    assert_eq!(judge(good), Ok(270_889));
    let errors = "  497967 requests in 8.01s, 33.24MB read\n  Socket errors: connect 0, read 300, write 0, timeout 0\n";
    assert_eq!(judge(errors), Err("Socket errors: connect 0, read 300, write 0, timeout 0".to_owned()));
    let refused = "  10 requests in 1.00s, 1.00KB read\n  Non-2xx or 3xx responses: 10\n";
    assert_eq!(judge(refused), Err("Non-2xx or 3xx responses: 10".to_owned()));
    assert_eq!(judge("  0 requests in 1.00s, 0.00B read\n"), Err("no request was made".to_owned()));
    assert!(judge("unable to connect to 127.0.0.1:80 Connection refused\n").is_err());
}

#[test]
#[ignore = "needs HAProxy and wrk: see the head of this file"]
fn haproxy_is_swapped_under_wrk() {
    let program =
        |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is to name the program"));
    let (haproxy, wrk) = (program("YAKIROS_HAPROXY"), program("YAKIROS_WRK"));
    let held = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = held.local_addr().expect("an address");
    drop(held);
    let dir = tempfile::tempdir().expect("temporary directory");
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("graph.d")).expect("configuration directory");
    fs::write(at("haproxy.cfg"), HAPROXY).expect("HAProxy's file");
    let text = format!(
        "[component]\nname = \"haproxy\"\nbinary = {haproxy:?}\nargs = [\"-Ws\", \"-f\", {:?}]\n\
         [lifecycle]\nhandoff = \"fd-passing\"\nreadiness = \"notify\"\nstop_signal = \"SIGUSR1\"\n\
         [hotswap]\nenv_vars = [\"LD_LIBRARY_PATH\"]\nshutdown_grace = 30\n\
         [[sockets]]\nlisten = \"{address}\"\nname = \"http\"\n",
        at("haproxy.cfg")
    );
    fs::write(at("graph.d/haproxy.toml"), text).expect("component file");
    let Some(guest) = Guest::start_in(dir) else { return };
    guest.wait("haproxy", State::Active, None);
    let (duration, url) = (format!("-d{SECONDS}s"), format!("http://{address}/"));
    // Longer than the default of two seconds: a loaded machine may stand still for as long.
    let words = ["-t1", "-c50", "--timeout", "10s", &duration, &url];
    let mut load = Command::new(wrk).args(words).stdout(Stdio::piped()).spawn().expect("wrk");
    let mut upgrades = 0;
    while load.try_wait().expect("wrk").is_none() {
        let request =
            Request::Upgrade { name: "haproxy".to_owned(), fallback: false, queue: false, timeout_ms: None };
        match guest.ask(request) {
            Answer::Upgraded(done) => assert_eq!(done.form, Some(UpgradeForm::Listeners)),
            other => panic!("after {upgrades} upgrades: {other:?}"),
        }
        upgrades += 1;
    }
    let output = load.wait_with_output().expect("wrk");
    let report = String::from_utf8_lossy(&output.stdout);
    println!("{upgrades} upgrades\n{report}");
    let requests = judge(&report).unwrap_or_else(|why| panic!("{why}; {upgrades} upgrades"));
    assert!(
        output.status.success() && upgrades >= LEAST_UPGRADES,
        "{upgrades} upgrades, {requests} requests"
    );
}
