//! A daemon that somebody else wrote, swapped under a load tool that somebody else wrote: HAProxy under wrk.

use std::time::Duration;

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::{until, upgrade_within};

/// For HAProxy to start, and its predecessor to leave, on an emulated processor that wrk keeps busy.
const START: Duration = Duration::from_secs(60);
/// Clients at a time.
const CONNECTIONS: u64 = 20;

const HAPROXY: &str = "defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    option idle-close-on-response
frontend web
    bind fd@3
    http-request return status 200 content-type text/plain string served
";

/// It says READY=1 itself (`-Ws`), and finishes its connections on SIGUSR1.
const COMPONENT: &str = r#"
[component]
name = "haproxy"
binary = "/usr/local/sbin/haproxy"
args = ["-Ws", "-f", "/run/haproxy.cfg"]

[lifecycle]
handoff = "fd-passing"
readiness = "notify"
readiness_timeout = 60
stop_signal = "SIGUSR1"

[hotswap]
shutdown_grace = 60

[[sockets]]
listen = "127.0.0.1:8090"
name = "http"
"#;

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

pub async fn haproxy_is_swapped_under_wrk(vm: &Vm) -> Result<(), Failure> {
    vm.write("/run/haproxy.cfg", HAPROXY).await?;
    vm.declare("haproxy.toml", COMPONENT).await?;
    vm.wait_state("haproxy", "ACTIVE", None, START).await?;
    // It ends when it is told to. What a request may take is more than a machine stands still for.
    vm.sh(&format!(
        "setsid sh -c 'wrk -t1 -c{CONNECTIONS} --timeout 60s -d1h http://127.0.0.1:8090/ > /run/wrk.said 2>&1 < /dev/null & \
         echo $! > /run/wrk.pid; wait $!; mv /run/wrk.said /run/wrk.end' < /dev/null > /dev/null 2>&1 &"
    ))
    .await?;
    // The client's ends of established connections to port 8090.
    until(vm, &format!("[ $(grep -c ' 0100007F:1F9A 01 ' /proc/net/tcp) -ge {CONNECTIONS} ]")).await?;
    let upgrades: u64 = vm.amount(20, 3);
    for number in 1..=upgrades {
        let done = upgrade_within(vm, "haproxy", START).await?;
        let form = done.form.as_deref();
        check!(form == Some("listeners"), "upgrade {number} was {done:?}");
    }
    vm.sh("kill -INT $(cat /run/wrk.pid)").await?;
    vm.wait_path("/run/wrk.end", START).await?;
    let report = vm.read("/run/wrk.end").await?;
    let requests = judge(&report).map_err(|why| {
        Failure::supervisor(format!("in {upgrades} upgrades of HAProxy wrk had {why}:\n{report}"))
    })?;
    vm.metric("haproxy_requests", "count", requests as f64);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::judge;

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
}
