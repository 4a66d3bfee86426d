//! Checkpoints as they lie in their store.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::{KEPT, REACTION, STATEFUL, Written, attempt, checkpoint, list, pid_of, read};

pub async fn checkpoint_directories(vm: &Vm) -> Result<(), Failure> {
    let made = checkpoint(vm, STATEFUL).await?;
    let directory = format!("{KEPT}/{STATEFUL}/{}", made.id);
    let owner = vm.sh(&format!("stat -c '%u %a' {KEPT} {KEPT}/{STATEFUL} {directory}")).await?;
    check!(owner.lines().all(|line| line == "0 700"), "owners and permissions are {owner}");
    let open = vm.sh(&format!("find {KEPT} ! -uid 0 -o -type f -perm /077 | head")).await?;
    check!(open.trim().is_empty(), "others may read memory of the service: {open}");
    let files = vm.sh(&format!("ls {directory}")).await?;
    for file in ["metadata.json", "inventory.img", "pstree.img"] {
        check!(files.lines().any(|name| name == file), "there is no {file}: {files}");
    }
    nothing_is_left_half_made(vm, &made).await
}

/// CRIU is killed in the middle: what it had written goes, the service runs on, and what was there before is there.
async fn nothing_is_left_half_made(vm: &Vm, before: &Written) -> Result<(), Failure> {
    let pid = pid_of(vm, STATEFUL).await?;
    // The killer sees CRIU the moment that it is there.
    let killer = "setsid sh -c 'n=0; until pkill -KILL -f \"[c]riu dump\"; do n=$((n+1)); [ $n -lt 2000 ] || exit; done' \
                  < /dev/null > /dev/null 2>&1 &";
    vm.sh(killer).await?;
    let (done, _, error) = attempt(vm, &["checkpoint", STATEFUL]).await?;
    check!(!done && error.to_lowercase().contains("criu"), "CRIU was killed, and it says {error:?}");
    check!(pid_of(vm, STATEFUL).await? == pid, "the service is another one");
    let state = vm.sh(&format!("awk '/^State/ {{ print $2 }}' /proc/{pid}/status")).await?;
    check!(matches!(state.trim(), "S" | "R"), "the service is left in state {state}");
    vm.graphctl(&["checkpoint-cleanup"]).await?;
    let left = vm.sh(&format!("find {KEPT}/{STATEFUL} -mindepth 1 -maxdepth 1 ! -name '*.lock'")).await?;
    let left: Vec<_> = left.lines().collect();
    check!(left.len() == 1 && left[0].ends_with(&before.id), "what is left is {left:?}");
    Ok(())
}

pub async fn checkpoint_listing(vm: &Vm) -> Result<(), Failure> {
    check!(list(vm, STATEFUL).await?.is_empty(), "there are checkpoints before one was made");
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(checkpoint(vm, STATEFUL).await?.id);
    }
    let other = checkpoint(vm, "test-echo-server").await?;
    let listed: Vec<_> = list(vm, STATEFUL).await?.iter().filter_map(id).collect();
    let newest_first: Vec<_> = made.iter().rev().cloned().collect();
    check!(listed == newest_first, "{newest_first:?} are listed as {listed:?}");
    check!(made.iter().collect::<BTreeSet<_>>().len() == 3, "names clash: {made:?}");
    let all: Value = read(vm, &["checkpoint-list", "--json"]).await?;
    let all: BTreeSet<_> = all["checkpoints"].as_array().into_iter().flatten().filter_map(id).collect();
    check!(all.len() == 4 && all.contains(&other.id), "all are {all:?}");
    let usage: Value = read(vm, &["checkpoint-usage", "--json"]).await?;
    let counted = vm.sh(&format!("find {KEPT} -type f ! -name '*.lock' -exec stat -c %s {{}} +")).await?;
    let counted: u64 = counted.lines().filter_map(|line| line.parse::<u64>().ok()).sum();
    check!(usage["bytes"].as_u64() == Some(counted), "files with {counted} bytes are said to have {usage}");
    Ok(())
}

fn id(listed: &Value) -> Option<String> {
    listed["id"].as_str().map(str::to_owned)
}

pub async fn checkpoint_metadata(vm: &Vm) -> Result<(), Failure> {
    let pid = pid_of(vm, STATEFUL).await?;
    let made = checkpoint(vm, STATEFUL).await?;
    let directory = format!("{KEPT}/{STATEFUL}/{}", made.id);
    let text = vm.read(&format!("{directory}/metadata.json")).await?;
    let told: Value = serde_json::from_str(&text)
        .map_err(|error| Failure::supervisor(format!("metadata.json is no JSON: {error}: {text}")))?;
    let kernel = vm.sh("uname -r").await?;
    let version = vm.succeed(&["criu", "--version"], REACTION).await?;
    let parts = &told["criu_version"];
    let version_told = format!("{}.{}", parts["major"], parts["minor"]);
    check!(version.contains(&format!("Version: {version_told}")), "CRIU is {version} and said to be {parts}");
    check!(told["component_name"] == STATEFUL, "it is said to be of {}", told["component_name"]);
    check!(told["original_pid"] == pid, "the process is {pid} and said to be {}", told["original_pid"]);
    check!(told["kernel"] == kernel.trim(), "the kernel is {kernel} and said to be {}", told["kernel"]);
    check!(told["leave_running"] == true, "it runs on, and is said to: {}", told["leave_running"]);
    check!(
        told["capabilities"] == serde_json::json!(["test.stateful"]),
        "it provides {}",
        told["capabilities"]
    );
    let now = vm.sh("date +%s").await?.trim().parse::<i64>().unwrap_or_default();
    let age = now - told["timestamp"].as_i64().unwrap_or_default();
    check!((0..=120).contains(&age), "it is said to be {age} s old");
    images_are_as_told(vm, &directory, &told).await?;
    vm.metric("checkpoint_size", "bytes", made.bytes as f64);
    vm.metric("checkpoint_frozen", "us", made.frozen_us.unwrap_or_default() as f64);
    vm.metric("checkpoint_time", "us", made.took_us as f64);
    Ok(())
}

/// Another program's sums of all images are those that are told, and there are no others.
async fn images_are_as_told(vm: &Vm, directory: &str, told: &Value) -> Result<(), Failure> {
    let sums = vm
        .sh(&format!(
            "cd {directory} && find . -type f ! -name metadata.json ! -name '*.lock' -exec sha256sum {{}} +"
        ))
        .await?;
    let real: BTreeSet<(String, String)> = sums
        .lines()
        .filter_map(|line| line.split_once("  ./"))
        .map(|(sum, name)| (name.to_owned(), sum.to_owned()))
        .collect();
    let images = told["images"].as_array().into_iter().flatten();
    let told_sums: BTreeSet<(String, String)> = images
        .filter_map(|image| Some((image["name"].as_str()?.to_owned(), image["sha256"].as_str()?.to_owned())))
        .collect();
    check!(!real.is_empty() && real == told_sums, "the images are {real:?} and said to be {told_sums:?}");
    let sizes = told["images"].as_array().into_iter().flatten().filter_map(|image| image["size"].as_u64());
    let sum: u64 = sizes.sum();
    check!(told["image_size"] == sum, "images with {sum} bytes are said to have {}", told["image_size"]);
    Ok(())
}

pub async fn checkpoint_cleanup(vm: &Vm) -> Result<(), Failure> {
    let mut made = Vec::new();
    for _ in 0..4 {
        made.push(checkpoint(vm, STATEFUL).await?);
    }
    let kept = async || -> Result<Vec<String>, Failure> {
        Ok(list(vm, STATEFUL).await?.iter().filter_map(id).collect())
    };
    vm.graphctl(&["checkpoint-rm", STATEFUL, &made[1].id]).await?;
    check!(!kept().await?.contains(&made[1].id), "what was removed is there");
    let (done, _, error) = attempt(vm, &["checkpoint-rm", STATEFUL, &made[1].id]).await?;
    check!(!done && error.contains(&made[1].id), "what is not there is removed again: {error:?}");
    vm.graphctl(&["checkpoint-cleanup", "--keep", "2"]).await?;
    let left = kept().await?;
    check!(left == [made[3].id.clone(), made[2].id.clone()], "of {made:?} the newest two are {left:?}");
    // Room for the newest one, and not for both.
    let quota = (made[3].bytes + made[2].bytes / 2).to_string();
    vm.graphctl(&["checkpoint-cleanup", "--quota", &quota]).await?;
    let left = kept().await?;
    check!(left == [made[3].id.clone()], "with {quota} bytes of room there are {left:?}");
    vm.graphctl(&["checkpoint-cleanup", "--max-age", "1"]).await?;
    check!(kept().await?.len() == 1, "what is seconds old is older than an hour");
    // Two hours later.
    vm.sh("date -s @$(( $(date +%s) + 7200 )) > /dev/null").await?;
    vm.graphctl(&["checkpoint-cleanup", "--max-age", "1"]).await?;
    check!(kept().await?.is_empty(), "what is two hours old is not older than one");
    let status = vm.status().await?;
    check!(
        status.component(STATEFUL)?.state == "ACTIVE",
        "without its checkpoints the service is not ACTIVE"
    );
    Ok(())
}
