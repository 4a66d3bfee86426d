//! Tests on a network of their own, so that they concern nobody else's.

use std::process::Command;

use crate::netfilter::remove_table;

/// Says to the test that it is there.
const INSIDE: &str = "YAKIROS_TEST_NETWORK";
/// How such a network is had: by root, and by whoever may have user namespaces.
const WAYS: [&[&str]; 2] = [&["--net"], &["--user", "--map-root-user", "--net"]];

/// Do something on a network of its own, with nf_tables: the test with this path runs once more there. Where there is none,
/// it says so.
pub fn alone(test: &str, work: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        if remove_table("none").is_err() {
            return eprintln!("skipped: this kernel has no nf_tables");
        }
        return work();
    }
    let may = |way: &&&[&str]| {
        let up = Command::new("unshare").args(**way).args(["ip", "link", "set", "lo", "up"]).output();
        up.is_ok_and(|output| output.status.success())
    };
    let Some(way) = WAYS.iter().find(may) else {
        return eprintln!("skipped: no network of one's own may be had, by unshare(1) and ip(8)");
    };
    let own = std::env::current_exe().expect("its program");
    let script = "ip link set lo up && exec \"$0\" --exact \"$1\" --nocapture";
    let output = Command::new("unshare")
        .args(*way)
        .args(["sh", "-c", script])
        .args([own.as_os_str(), test.as_ref()])
        .env(INSIDE, "1")
        .output()
        .expect("unshare");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    if let Some(skipped) = said.lines().find(|line| line.starts_with("skipped: ")) {
        eprintln!("{skipped}");
    }
    assert!(output.status.success() && said.contains("1 passed"), "on a network of its own: {said}");
}
