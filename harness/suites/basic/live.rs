//! Component files that come, change and go while the supervisor runs.

use std::fmt::Write as _;
use std::time::Duration;

use crate::check;
use crate::failure::Failure;
use crate::vm::{COMPONENTS, Vm};

/// For a component to start, be stopped or be noticed.
const REACTION: Duration = Duration::from_secs(5);
const MANY: usize = 300;
/// Long enough that the answers of status and caps come in several pages.
const MANY_PREFIX: &str = "many-components-with-names-so-long-that-a-page-of-an-answer-holds-only-some-of-them-and-others-need-more";
/// Components of the suite's machine that run the same program.
const IDLE_BEFORE: usize = 2;
/// For [`MANY`] processes on an emulated processor.
const MANY_LIMIT: Duration = Duration::from_secs(30);

fn idle(name: &str, argument: &str) -> String {
    format!(
        "[component]\nname = \"{name}\"\nbinary = \"/usr/local/bin/test-idle\"\nargs = [\"--name\", \"{argument}\"]\n\
         [provides]\ncapabilities = [\"live.{name}\"]\n[requires]\ncapabilities = [\"storage.ready\"]\n"
    )
}

async fn command_line(vm: &Vm, name: &str) -> Result<(i32, String), Failure> {
    let pid = vm.status().await?.component(name)?.running_pid()?;
    let line = vm.sh(&format!("tr '\\0' ' ' < /proc/{pid}/cmdline")).await?;
    Ok((pid, line))
}

pub async fn file_dropped_in_acts_live(vm: &Vm) -> Result<(), Failure> {
    let before = vm.status().await?.revision;
    vm.declare("late.toml", &idle("late", "first")).await?;
    vm.wait_state("late", "ACTIVE", Some(before), REACTION).await?;
    let (first, line) = command_line(vm, "late").await?;
    check!(line.contains("first"), "the new component runs `{line}`");

    let before = vm.status().await?.revision;
    vm.declare("late.toml", &idle("late", "second")).await?;
    vm.wait_state("late", "ACTIVE", Some(before), REACTION).await?;
    let (second, line) = command_line(vm, "late").await?;
    check!(line.contains("second"), "after the file was changed the component still runs `{line}`");
    check!(
        !vm.exists(first).await?,
        "the process of the old command line, {first}, still runs beside {second}"
    );
    vm.step("a file is written in place", written_in_place(vm)).await
}

/// As by an editor without care: the file is read when it is closed, and not before.
async fn written_in_place(vm: &Vm) -> Result<(), Failure> {
    let before = vm.status().await?.revision;
    vm.sh("sed 's/second/third/' /etc/graph.d/late.toml > /tmp/late; cat /tmp/late > /etc/graph.d/late.toml")
        .await?;
    vm.wait_state("late", "ACTIVE", Some(before), REACTION).await?;
    let (_, line) = command_line(vm, "late").await?;
    check!(line.contains("third"), "after that the component still runs `{line}`");
    Ok(())
}

pub async fn removed_file_stops_the_component(vm: &Vm) -> Result<(), Failure> {
    vm.declare("late.toml", &idle("late", "here")).await?;
    vm.wait_state("late", "ACTIVE", None, REACTION).await?;
    let (pid, _) = command_line(vm, "late").await?;
    vm.sh("test -d /sys/fs/cgroup/graph/late").await?;

    vm.undeclare("late.toml").await?;
    vm.wait_state("late", "REMOVED", None, REACTION).await?;
    vm.wait_process_gone(pid, "the process of the removed component", REACTION).await?;
    vm.wait_gone("/sys/fs/cgroup/graph/late", REACTION).await?;
    let left = vm.status().await?;
    check!(left.component("late").is_err(), "a removed component is still listed: {left:?}");
    let caps = vm.graphctl(&["caps"]).await?;
    check!(!caps.contains("live.late"), "the capability of a removed component is still listed: {caps}");

    vm.declare("late.toml", &idle("late", "again")).await?;
    vm.wait_state("late", "ACTIVE", None, REACTION).await?;
    vm.sh("mv /etc/graph.d/late.toml /tmp/").await?;
    vm.wait_state("late", "REMOVED", None, REACTION).await
}

pub async fn malformed_file_is_reported(vm: &Vm) -> Result<(), Failure> {
    let file = format!("{COMPONENTS}/broken.toml");
    let broken =
        "[component]\nname = \"broken\"\nbinary = \"/usr/local/bin/test-idle\"\ntype = \"sevrice\"\n";
    vm.declare("broken.toml", broken).await?;
    vm.declare("sound.toml", &idle("sound", "beside")).await?;
    let seconds = vm.limit(REACTION).as_secs_f64().to_string();
    vm.graphctl_within(&["wait", "--rejected", &file, "--timeout", &seconds], REACTION).await?;
    vm.wait_state("sound", "ACTIVE", None, REACTION).await?;

    let status = vm.status().await?;
    let rejected = status.rejected.iter().find(|rejected| rejected.file == file);
    let Some(first) = rejected.and_then(|rejected| rejected.diagnostics.first()) else {
        return Err(Failure::supervisor(format!(
            "{file} is not among the refused files: {:?}",
            status.rejected
        )));
    };
    check!(first.line == 4, "the error is in line 4, the report says line {}: {}", first.line, first.message);
    check!(
        first.message.contains("sevrice"),
        "the report does not name the offending text: {}",
        first.message
    );
    check!(status.component("broken").is_err(), "a component was made of a broken file");
    let bad = status.components.iter().find(|c| !matches!(c.state.as_str(), "ACTIVE" | "DONE"));
    check!(bad.is_none(), "a broken file disturbed {bad:?}");
    let text = vm.graphctl(&["status"]).await?;
    check!(
        text.contains(&format!("{file}:4:")),
        "`graphctl status` does not name {file} and its line: {text}"
    );

    // A file that breaks while its component runs is refused, and the component runs on.
    let (pid, _) = command_line(vm, "sound").await?;
    vm.declare("sound.toml", broken).await?;
    let sound = format!("{COMPONENTS}/sound.toml");
    vm.graphctl_within(&["wait", "--rejected", &sound, "--timeout", &seconds], REACTION).await?;
    let (now, _) = command_line(vm, "sound").await?;
    check!(now == pid, "a running component whose file broke is process {now} instead of {pid}");
    vm.declare("sound.toml", &idle("sound", "beside")).await?;

    vm.declare("broken.toml", &broken.replace("sevrice", "service")).await?;
    vm.wait_state("broken", "ACTIVE", None, REACTION).await?;
    let still = vm.status().await?.rejected;
    check!(still.is_empty(), "the mended file is still refused: {still:?}");
    Ok(())
}

pub async fn three_hundred_components_run(vm: &Vm) -> Result<(), Failure> {
    let before = vm.status().await?.components.len();
    let mut script = String::new();
    for index in 1..=MANY {
        // In a folder of the same file system first, so that all arrive at once and whole.
        let file = format!("/etc/many.d/many-{index}.toml");
        let _infallible =
            writeln!(script, "cat > {file} <<'END'\n{}END", idle(&format!("{MANY_PREFIX}-{index}"), "many"));
    }
    vm.write("/tmp/many.sh", &format!("mkdir -p /etc/many.d\n{script}")).await?;
    vm.succeed(&["/bin/sh", "-eu", "/tmp/many.sh"], MANY_LIMIT).await?;
    let start = std::time::Instant::now();
    vm.sh("mv /etc/many.d/*.toml /etc/graph.d/").await?;
    let all = async {
        for index in [1, MANY / 2, MANY] {
            vm.wait_state(&format!("{MANY_PREFIX}-{index}"), "ACTIVE", None, MANY_LIMIT).await?;
        }
        vm.wait_settled(MANY_LIMIT).await
    };
    vm.step("all components settle", all).await?;
    vm.metric("start_300_components", "ms", start.elapsed().as_secs_f64() * 1000.0);

    let status = vm.status().await?;
    let listed = status.components.len();
    check!(listed == before + MANY, "status lists {listed} components, {} are declared", before + MANY);
    for index in 1..=MANY {
        let component = status.component(&format!("{MANY_PREFIX}-{index}"))?;
        check!(
            component.state == "ACTIVE",
            "{} is {}: {:?}",
            component.name,
            component.state,
            component.detail
        );
    }
    // By program, not by command line: that one is empty for a moment after exec has succeeded.
    let programs = vm.sh("ls -l /proc/[0-9]*/exe 2>/dev/null | grep -c test-idle$").await?;
    let expected = MANY + IDLE_BEFORE;
    check!(
        programs.trim() == expected.to_string(),
        "{expected} idle services run as {} processes",
        programs.trim()
    );
    let text = vm.graphctl(&["status"]).await?;
    let lines = text.lines().filter(|line| line.trim_start().starts_with(MANY_PREFIX)).count();
    check!(lines == MANY, "`graphctl status` prints {lines} of the {MANY}");
    let caps = vm.graphctl(&["caps"]).await?.matches(&format!("live.{MANY_PREFIX}-")).count();
    check!(caps == MANY, "`graphctl caps` prints {caps} of the {MANY}");
    Ok(())
}
