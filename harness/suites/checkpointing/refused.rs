//! What no checkpoint can bring back.

use serde_json::Value;

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::{REACTION, attempt, pid_of, read};

/// Counts what is written to a pipe that it shares with the machine, into a file in its own `/tmp` that it has open.
const SCRIPT: &str = "exec 6<> /run/cell/lines; exec 5> /tmp/counted; echo private > /tmp/file; n=0; \
    while read line <&6; do n=$((n+1)); echo $n >&5; done";

/// Of a service that does so and is to be moved.
pub fn declaration(name: &str, more: &str) -> String {
    format!(
        "[component]\nname = \"{name}\"\nbinary = \"/bin/sh\"\nargs = [\"-c\", {SCRIPT:?}]\n\
         handoff = \"checkpoint\"\n[hotswap]\nshutdown_grace = 1\n[checkpoint]\nenabled = true\n{more}"
    )
}

/// What no checkpoint can bring back is said before anything is frozen, and the service runs on.
pub async fn what_is_not_made_again(vm: &Vm) -> Result<(), Failure> {
    vm.sh("mkdir -p /run/cell; rm -f /run/cell/lines; mkfifo -m 666 /run/cell/lines").await?;
    vm.sh("ip link add cells type bridge && ip link set cells up").await?;
    for (more, expected) in [
        ("[isolation]\nnamespaces = [\"user\"]\n", "its user namespace: CRIU cannot mount"),
        (
            "[isolation]\nnamespaces = [\"mount\", \"pid\", \"user\"]\nprivate_tmp = true\n\
             uid_map = [\"0 100000 65536\"]\ngid_map = [\"0 100000 65536\"]\n",
            "its user namespace: CRIU cannot mount",
        ),
        (
            "[isolation]\nnamespaces = [\"net\"]\nnetwork = { bridge = \"cells\", address = \"10.9.0.2/24\" }\n",
            "its network (eth0): what is at the other end",
        ),
        ("[isolation]\nnamespaces = [\"net\"]\n", "it was made in another network"),
        (
            "[isolation]\nnamespaces = [\"mount\", \"cgroup\"]\n",
            "what is mounted at /sys/fs/cgroup (cgroup2): CRIU would mount all of the machine's groups",
        ),
        (
            "[isolation]\nnamespaces = [\"mount\", \"pid\"]\ninit = true\n",
            "it was opened outside of its mount namespace; do without `init`",
        ),
        (
            "[security]\nlandlock_read = [\"/\"]\nlandlock_write = [\"/\"]\nlandlock_execute = [\"/\"]\n\
             optional = [\"landlock\"]\n",
            "its rules of Landlock would not be made again",
        ),
    ] {
        vm.declare("refused.toml", &declaration("refused", more)).await?;
        vm.wait_state("refused", "ACTIVE", None, REACTION).await?;
        let pid = pid_of(vm, "refused").await?;
        let (done, text, error) = attempt(vm, &["checkpoint", "refused"]).await?;
        check!(!done && error.contains(expected), "with {more} it says {text}{error}");
        check!(pid_of(vm, "refused").await? == pid, "with {more} it is another process");
        let (_, text, error) = attempt(vm, &["lint", "/etc/graph.d/refused.toml"]).await?;
        check!(format!("{text}{error}").contains("Y0336"), "of {more} lint says {text}{error}");
        vm.undeclare("refused.toml").await?;
        vm.wait_state("refused", "REMOVED", None, REACTION).await?;
    }
    vm.sh("ip link delete cells").await?;
    let report: Value = read(vm, &["checkpoint", "--check", "--json"]).await?;
    for name in ["mount-namespaces", "private-files", "network-namespaces"] {
        let feature = report["features"].as_array().into_iter().flatten().find(|one| one["name"] == name);
        check!(
            feature.is_some_and(|feature| feature["verdict"] == "supported"),
            "of {name} it says {feature:?}"
        );
    }
    Ok(())
}
