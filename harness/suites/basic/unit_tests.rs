//! The tests beside the supervisor's code, on the kernel that it runs on.

use std::process::Command;
use std::time::Duration;

use crate::check;
use crate::failure::Failure;
use crate::programs::TESTED;
use crate::vm::Vm;

/// The specification's number, of all packages together.
const MIN_TESTS: usize = 100;
/// For all tests of a package, on an emulated processor.
const TESTS: Duration = Duration::from_secs(300);
/// For a program of some megabytes to be written.
const WRITE: Duration = Duration::from_secs(20);

pub async fn unit_tests_pass_in_the_guest(vm: &Vm) -> Result<(), Failure> {
    // Tests that need a folder in memory look for it where every other Linux has it.
    vm.sh("mkdir /dev/shm && mount -t tmpfs shm /dev/shm").await?;
    let mut all = 0;
    for (package, _) in TESTED {
        all += vm.step(package, passed(vm, package)).await?;
    }
    vm.sh("umount /dev/shm && rmdir /dev/shm").await?;
    vm.metric("unit_tests", "count", all as f64);
    check!(all >= MIN_TESTS, "{all} tests have passed, of at least {MIN_TESTS}");
    Ok(())
}

/// Runs a package's tests, all of which have to pass; how many that are.
async fn passed(vm: &Vm, package: &str) -> Result<usize, Failure> {
    let program = vm.unit_tests(package);
    let failed = |error| Failure::harness(format!("{}: {error}", program.display()));
    // The same program tells on the host how many it has.
    let listed = Command::new(&program).args(["--list", "--format=terse"]).output().map_err(failed)?;
    let listed =
        String::from_utf8_lossy(&listed.stdout).lines().filter(|line| line.ends_with(": test")).count();
    let place = format!("/tmp/{package}");
    let content = std::fs::read(&program).map_err(failed)?;
    let write = vm.guest.agent.write_file(&place, 0o755, false, &content);
    vm.ask(&format!("write {place}"), WRITE, write).await?;
    let output = vm.run(&[&place], TESTS).await?;
    let text = output.text();
    let verdict = text.lines().rev().find_map(|line| line.strip_prefix("test result: "));
    check!(
        output.success() && verdict.is_some(),
        "of {package}: {}",
        failures(&text).unwrap_or_else(|| format!("{:?}: {}", output.status, output.error_text()))
    );
    let counted = verdict.and_then(count).unwrap_or_default();
    let is_all = counted.passed + counted.ignored == listed && counted.passed > 0;
    check!(is_all, "of {package} there are {listed} tests; in the guest {counted:?}");
    vm.sh(&format!("rm {place}")).await?;
    Ok(counted.passed)
}

#[derive(Debug, Default)]
struct Counted {
    passed: usize,
    ignored: usize,
}

/// Of `ok. 3 passed; 0 failed; 1 ignored; …`.
fn count(verdict: &str) -> Option<Counted> {
    let number = |what: &str| {
        let part = verdict.split(['.', ';']).find(|part| part.trim().ends_with(what))?;
        part.trim().split(' ').next()?.parse().ok()
    };
    Some(Counted { passed: number("passed")?, ignored: number("ignored")? })
}

/// The names of the tests that failed, with what the first said.
fn failures(text: &str) -> Option<String> {
    let names: Vec<_> =
        text.lines().filter(|line| line.ends_with("FAILED") && line.starts_with("test ")).collect();
    let (_, said) = text.split_once("\nfailures:\n")?;
    let said: Vec<_> = said.lines().take(12).collect();
    (!names.is_empty()).then(|| format!("{}\n{}", names.join("\n"), said.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_counted() {
        let verdict = "ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        let counted = count(verdict).unwrap();
        assert_eq!((counted.passed, counted.ignored), (3, 1));
        assert!(count("ok").is_none());
    }

    #[test]
    fn failures_are_named() {
        let text = "test a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\nleft: 1\n";
        assert!(failures(text).is_some_and(|said| said.contains("test b") && said.contains("left: 1")));
    }
}
