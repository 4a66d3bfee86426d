//! `graphctl inspect` finds everything that a component asks for.

use yakiros_core::journal::State;

use super::privilege::allowed;
use super::start;
use crate::guest::{sleeper, until};

/// As much as one component can have at once.
const RICH: &str = "[isolation]\nnamespaces = [\"mount\", \"pid\", \"uts\", \"ipc\", \"net\"]\nhostname = \"rich\"\n\
    hidepid = true\nread_only = [\"/\", \"/bin\"]\ninaccessible = [\"/home\", \"/etc/passwd\"]\n\
    tmpfs = [\"/var/tmp:size=1M\"]\nbinds = [\"/usr:/mnt\", \"/etc:/media:ro\"]\n\
    [security]\nuser = 1234\ngroups = [7, 9]\nno_new_privs = true\ncapabilities = [\"CAP_NET_RAW\"]\n\
    ambient_capabilities = [\"CAP_NET_RAW\"]\nseccomp = [\"@service\"]\n\
    [resources]\nnice = 5\nscheduling = \"batch\"\nio_class = \"best-effort:6\"\noom_score_adjust = 100\n\
    rlimits = { core = 0, nofile = \"64:128\" }\ncpu_affinity = [0]\n";

/// With other users than the machine's.
const MAPPED: &str = "[isolation]\nnamespaces = [\"user\", \"mount\", \"time\"]\nuid_map = [\"0 100000 65536\"]\n\
    gid_map = [\"0 100000 65536\"]\nsecrets = { key = \"/etc/shadow\" }\ntime_offsets = { boottime = 60 }\n[security]\nuser = 33\ncapabilities = []\n";

#[test]
fn whatever_a_component_asks_for_is_found_to_hold() {
    let Some(guest) = start() else { return };
    let (_, processor) = allowed();
    let rich = RICH.replace("cpu_affinity = [0]", &format!("cpu_affinity = [{processor}]"));
    for (name, more) in [("rich", &*rich), ("mapped", MAPPED)] {
        guest.declare(&format!("{name}.toml"), &sleeper(name, more));
        until("the declaration", || guest.status().0.iter().any(|c| *c.name == *name).then_some(()));
        guest.wait(name, State::Active, None);
        let output = guest.graphctl(&["inspect", name, "--json"]);
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("an answer");
        let aspects = value["aspects"].as_array().expect("aspects");
        let wrong: Vec<_> = aspects.iter().filter(|one| one["verdict"] == "differs").collect();
        assert!(output.status.success() && wrong.is_empty(), "{name}: {wrong:#?}");
        assert!(aspects.iter().filter(|one| one["verdict"] == "holds").count() > 5, "{value}");
    }
}

#[test]
fn what_was_changed_from_outside_is_found() {
    let Some(guest) = start() else { return };
    guest.declare("late.toml", &sleeper("late", "[resources]\nnice = 5\n"));
    until("the declaration", || (!guest.status().0.is_empty()).then_some(()));
    guest.wait("late", State::Active, None);
    assert!(guest.graphctl(&["inspect", "late"]).status.success());
    let pid = guest.component("late").pid.expect("a process").to_string();
    let mut command = guest.command_inside(&["-p", "-m"]);
    assert!(command.args(["renice", "-n", "7", "-p", &pid]).status().expect("renice").success());
    let output = guest.graphctl(&["inspect", "late"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && text.contains("DIFFERS"), "{text}");
}
