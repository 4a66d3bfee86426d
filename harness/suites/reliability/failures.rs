//! Everything that a component can do wrong, at once.

use super::{ECHO, REACTION, converges};
use crate::check;
use crate::failure::Failure;
use crate::load::Load;
use crate::vm::Vm;

/// Clients of a neighbour.
const CLIENTS: u64 = 10;
const USUAL: &str = "[lifecycle]\nrestart_max = 2\nrestart_window = 600\nrestart_delay = 0.1\n";

/// What fails, and the state and the word by which it is to be told.
struct Case {
    name: &'static str,
    /// Of its file, after the name.
    lines: &'static str,
    state: &'static str,
    told: &'static str,
}

const CASES: [Case; 8] = [
    Case {
        name: "exits",
        lines: "binary = \"/usr/local/bin/test-exit\"\nargs = [\"--code\", \"3\", \"--after-ms\", \"50\"]",
        state: "FAILED",
        told: "status 3",
    },
    Case {
        name: "crashes",
        lines: "binary = \"/usr/local/bin/test-exit\"\nargs = [\"--signal\", \"SEGV\", \"--after-ms\", \"50\"]",
        state: "FAILED",
        told: "SIGSEGV",
    },
    Case {
        name: "is-not-there",
        lines: "binary = \"/usr/local/bin/no-such-program\"",
        state: "FAILED",
        told: "no such file",
    },
    Case {
        name: "never-ready",
        lines: "binary = \"/usr/local/bin/test-ready\"\nargs = [\"--gate\", \"/run/never\", \"--socket\"]",
        state: "FAILED",
        told: "not ready within",
    },
    Case {
        name: "never-well",
        lines: "binary = \"/usr/local/bin/test-idle\"",
        state: "FAILED",
        told: "a health probe failed",
    },
    Case {
        name: "eats-memory",
        lines: "binary = \"/usr/local/bin/test-hog\"\nargs = [\"--kind\", \"memory\"]",
        state: "FAILED",
        told: "out of memory",
    },
    Case {
        name: "bears-processes",
        lines: "binary = \"/usr/local/bin/test-hog\"\nargs = [\"--kind\", \"processes\"]",
        state: "ACTIVE",
        told: "STARTING → ACTIVE",
    },
    Case {
        name: "needs-nobody",
        lines: "binary = \"/usr/local/bin/test-idle\"",
        state: "INACTIVE",
        told: "REMOVED → INACTIVE",
    },
];

impl Case {
    fn file(&self) -> (String, String) {
        let lifecycle = match self.name {
            "never-ready" => "readiness = \"notify\"\nreadiness_timeout = 1\n",
            "never-well" => {
                "health_check = \"false\"\nhealth_interval = 0.2\nhealth_fail_threshold = 1\n\
                             health_restart_threshold = 1\n"
            }
            _ => "",
        };
        let more = match self.name {
            "eats-memory" => "[resources]\nmemory_max = \"16M\"\n",
            "bears-processes" => "[resources]\npids_max = 30\nmemory_max = \"32M\"\n",
            "needs-nobody" => "[requires]\ncapabilities = [\"nobody.provides.this\"]\n",
            _ => "",
        };
        let Self { name, lines, .. } = self;
        let content = format!("[component]\nname = \"{name}\"\n{lines}\n{USUAL}{lifecycle}{more}");
        (format!("{name}.toml"), content)
    }
}

pub async fn failures_of_every_kind_at_once(vm: &Vm) -> Result<(), Failure> {
    let load = Load::begin(vm, "beside", ECHO, &format!("--connections {CLIENTS}")).await?;
    let since = vm.status().await?.revision;
    let mut files: Vec<_> = CASES.iter().map(Case::file).collect();
    files.push(("is-no-file.toml".to_owned(), "[component\nname = ".to_owned()));
    vm.declare_all(&files).await?;
    let full = "[ $(sed -n 's/^max //p' /sys/fs/cgroup/graph/bears-processes/pids.events) -gt 0 ]";
    vm.until("a bearer of processes is held", full, REACTION).await?;
    for case in &CASES {
        vm.wait_state(case.name, case.state, Some(since), REACTION * 2).await?;
        let told = vm.graphctl(&["events", case.name]).await?;
        check!(told.contains(case.told), "of {} is not told {:?}: {told}", case.name, case.told);
    }
    let status = vm.status().await?;
    let rejected: Vec<_> = status.rejected.iter().map(|rejected| rejected.file.as_str()).collect();
    check!(rejected.len() == 1 && rejected[0].ends_with("is-no-file.toml"), "rejected are {rejected:?}");
    // All at once, and one after the other in the middle of each other.
    for round in 1..=vm.amount(10, 2) {
        vm.step(&format!("round {round} of new attempts"), attempts(vm)).await?;
    }
    load.end_clean(vm, CLIENTS).await?;
    let files: Vec<_> = files.iter().map(|(file, _)| format!("/etc/graph.d/{file}")).collect();
    vm.sh(&format!("rm {}", files.join(" "))).await?;
    for case in &CASES {
        vm.wait_state(case.name, "REMOVED", Some(since), REACTION).await?;
    }
    for component in vm.status().await?.components {
        check!(component.restarts == 0, "beside all of these was restarted: {component:?}");
    }
    converges(vm, "failures of every kind").await
}

async fn attempts(vm: &Vm) -> Result<(), Failure> {
    let names: Vec<_> = CASES.iter().filter(|case| case.state == "FAILED").map(|case| case.name).collect();
    let since = vm.status().await?.revision;
    // A start of what fails says so, by its exit status.
    vm.sh(&format!("for name in {}; do graphctl start $name > /dev/null 2>&1 & done; wait", names.join(" ")))
        .await?;
    for name in names {
        vm.wait_state(name, "FAILED", Some(since), REACTION * 2).await?;
    }
    Ok(())
}
