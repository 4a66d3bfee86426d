//! Many components that are probed often.

use std::fmt::Write as _;
use std::time::Duration;

use super::REACTION;
use crate::check;
use crate::failure::Failure;
use crate::measure::cpu_share;
use crate::vm::Vm;

const MANY: usize = 200;
/// For that many processes on an emulated processor.
const MANY_LIMIT: Duration = Duration::from_secs(30);
/// Ten probes of each.
const SPAN: Duration = Duration::from_secs(10);
/// The one that falls ill.
const ILL: &str = "probed-101";

/// Listens where three of four are probed.
const LISTENER: &str = r#"
[component]
name = "listener"
binary = "/usr/local/bin/test-health-demo"
args = ["--ill-file", "/run/listener.ill", "--http", "127.0.0.1:9001", "--tcp", "127.0.0.1:9002", "--unix", "/run/listener"]
[provides]
capabilities = ["listener"]
[lifecycle]
readiness = "notify"
"#;

fn probed(number: usize) -> String {
    let probe = match number % 4 {
        0 => "health_tcp = \"127.0.0.1:9002\"".to_owned(),
        1 => format!("health_file = \"/run/well/probed-{number}\""),
        2 => "health_unix = \"/run/listener\"".to_owned(),
        _ => "health_http = \"http://127.0.0.1:9001/\"".to_owned(),
    };
    format!(
        "[component]\nname = \"probed-{number}\"\nbinary = \"/usr/local/bin/test-idle\"\n\
         [requires]\ncapabilities = [\"listener\"]\n[lifecycle]\n{probe}\n\
         health_interval = 1\nhealth_timeout = 5\nhealth_fail_threshold = 2\nhealth_restart_threshold = 1000000\n"
    )
}

pub async fn two_hundred_probed_services(vm: &Vm) -> Result<(), Failure> {
    let mut script = "mkdir /run/well /etc/many.d\n".to_owned();
    for number in 1..=MANY {
        let file = format!("/etc/many.d/probed-{number}.toml");
        let _infallible =
            writeln!(script, "echo > /run/well/probed-{number}\ncat > {file} <<'END'\n{}END", probed(number));
    }
    vm.write("/tmp/many.sh", &script).await?;
    vm.succeed(&["/bin/sh", "-eu", "/tmp/many.sh"], MANY_LIMIT).await?;
    vm.declare("listener.toml", LISTENER).await?;
    vm.sh("mv /etc/many.d/*.toml /etc/graph.d/").await?;
    vm.wait_state(&format!("probed-{MANY}"), "ACTIVE", None, MANY_LIMIT).await?;
    vm.wait_settled(MANY_LIMIT).await?;

    vm.step("all are healthy", all_healthy(vm)).await?;
    let share = vm.step("their cost", cpu_share(vm, SPAN)).await?;
    vm.metric("supervisor_cpu_of_200_probes_a_second", "%", share.supervisor * 100.0);
    vm.step("one falls ill", one_falls_ill(vm)).await
}

async fn all_healthy(vm: &Vm) -> Result<(), Failure> {
    let script = format!(
        "n=0; until [ $(graphctl status | grep '^probed' | grep -c healthy) = {MANY} ]; do \
         n=$((n+1)); [ $n -le 20 ] || exit 1; sleep 0.5; done"
    );
    let waited = vm.run(&["/bin/sh", "-c", &script], MANY_LIMIT).await?;
    let others = vm.sh("graphctl status | grep '^probed' | grep -v healthy || true").await?;
    check!(waited.success() && others.is_empty(), "after several intervals these are not healthy:\n{others}");
    Ok(())
}

async fn one_falls_ill(vm: &Vm) -> Result<(), Failure> {
    let before = vm.status().await?;
    vm.sh(&format!("rm /run/well/{ILL}")).await?;
    vm.wait_state(ILL, "DEGRADED", Some(before.revision), REACTION).await?;
    let now = vm.status().await?;
    let detail = now.component(ILL)?.detail.clone().unwrap_or_default();
    check!(detail.contains(&format!("/run/well/{ILL}")), "{ILL} is DEGRADED with the reason {detail:?}");
    check!(now.count("DEGRADED") == 1, "one fell ill, and {} are DEGRADED", now.count("DEGRADED"));
    for was in &before.components {
        let is = now.component(&was.name)?;
        check!(is.pid == was.pid, "{} was process {:?} and is {:?}", was.name, was.pid, is.pid);
    }
    Ok(())
}
