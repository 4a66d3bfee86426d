use super::*;
use crate::fixture::model_run;
use crate::fold;

#[test]
fn the_model_run_as_junit() {
    insta::assert_snapshot!(junit_xml(&fold(&model_run())).unwrap(), @r#"
<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="yakiros 20261121-143010-7f3a" tests="10" skipped="1" failures="4" errors="2" timestamp="2026-11-21T14:30:10.000+00:00" time="84.250">
    <testsuite name="basic" tests="4" skipped="0" errors="0" failures="3" time="76.710">
        <testcase name="boots" classname="basic" timestamp="2026-11-21T14:30:16.500+00:00" time="1.800">
            <properties>
                <property name="machine" value="alpine-512m-2cpu"/>
            </properties>
        </testcase>
        <testcase name="orphan-is-reaped" classname="basic" timestamp="2026-11-21T14:30:18.000+00:00" time="8.200">
            <properties>
                <property name="machine" value="alpine-512m-2cpu"/>
                <property name="capsule" value="capsules/basic-orphan-is-reaped"/>
                <property name="reproduce" value="cargo xtask vm-test --scenario basic/orphan-is-reaped --seed 42"/>
            </properties>
            <failure message="process 123 is still a zombie 5 s after it exited, and PID 1 is asleep in do_wait" type="supervisor">step: wait until the orphan is reaped
reproduce: cargo xtask vm-test --scenario basic/orphan-is-reaped --seed 42
capsule: capsules/basic-orphan-is-reaped</failure>
            <rerunFailure time="4.100" message="process 123 is still a zombie 5 s after it exited, and PID 1 is asleep in do_wait" type="supervisor">
                <system-out>panic: Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b
[    3.100000] Call Trace: line 0 of an excerpt that is wider than the terminal is
[    3.100001] Call Trace: line 1 of an excerpt that is wider than the terminal is
[    3.100002] Call Trace: line 2 of an excerpt that is wider than the terminal is
[    3.100003] Call Trace: line 3 of an excerpt that is wider than the terminal is
[    3.100004] Call Trace: line 4 of an excerpt that is wider than the terminal is
[    3.100005] Call Trace: line 5 of an excerpt that is wider than the terminal is
[    3.100006] Call Trace: line 6 of an excerpt that is wider than the terminal is
[    3.100007] Call Trace: line 7 of an excerpt that is wider than the terminal is
[    3.100008] Call Trace: line 8 of an excerpt that is wider than the terminal is
[    3.100009] Call Trace: line 9 of an excerpt that is wider than the terminal is
</system-out>
            </rerunFailure>
            <system-out>panic: Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b
[    3.100000] Call Trace: line 0 of an excerpt that is wider than the terminal is
[    3.100001] Call Trace: line 1 of an excerpt that is wider than the terminal is
[    3.100002] Call Trace: line 2 of an excerpt that is wider than the terminal is
[    3.100003] Call Trace: line 3 of an excerpt that is wider than the terminal is
[    3.100004] Call Trace: line 4 of an excerpt that is wider than the terminal is
[    3.100005] Call Trace: line 5 of an excerpt that is wider than the terminal is
[    3.100006] Call Trace: line 6 of an excerpt that is wider than the terminal is
[    3.100007] Call Trace: line 7 of an excerpt that is wider than the terminal is
[    3.100008] Call Trace: line 8 of an excerpt that is wider than the terminal is
[    3.100009] Call Trace: line 9 of an excerpt that is wider than the terminal is
</system-out>
        </testcase>
        <testcase name="power-off" classname="basic" timestamp="2026-11-21T14:30:23.000+00:00" time="1.700">
            <properties>
                <property name="machine" value="alpine-512m-2cpu"/>
                <property name="capsule" value="capsules/basic-power-off"/>
                <property name="reproduce" value="cargo xtask vm-test --scenario basic/power-off --seed 42"/>
            </properties>
            <failure message="flaky: the last line is missing" type="component">reproduce: cargo xtask vm-test --scenario basic/power-off --seed 42
capsule: capsules/basic-power-off</failure>
            <flakyFailure time="0.900" message="the last line is missing" type="component">
            </flakyFailure>
        </testcase>
        <testcase name="many-components" classname="basic" timestamp="2026-11-21T14:30:25.000+00:00" time="65.010">
            <properties>
                <property name="machine" value="alpine-512m-2cpu"/>
                <property name="capsule" value="capsules/basic-many-components"/>
                <property name="reproduce" value="cargo xtask vm-test --scenario basic/many-components --seed 42"/>
            </properties>
            <failure message="flaky: QEMU ended with signal 9" type="vmm">reproduce: cargo xtask vm-test --scenario basic/many-components --seed 42
capsule: capsules/basic-many-components</failure>
            <flakyError time="0.010" message="QEMU ended with signal 9" type="vmm">
            </flakyError>
        </testcase>
    </testsuite>
    <testsuite name="hot-swap" tests="3" skipped="1" errors="2" failures="0" time="0.010">
        <testcase name="no-gap" classname="hot-swap" timestamp="2026-11-21T14:30:27.000+00:00" time="0.010">
            <properties>
                <property name="machine" value="alpine-512m-2cpu"/>
                <property name="capsule" value="capsules/hot-swap-no-gap"/>
                <property name="reproduce" value="cargo xtask vm-test --scenario hot-swap/no-gap --seed 42"/>
            </properties>
            <error message="QEMU ended with signal 9" type="vmm">reproduce: cargo xtask vm-test --scenario hot-swap/no-gap --seed 42
capsule: capsules/hot-swap-no-gap</error>
        </testcase>
        <testcase name="two-at-once" classname="hot-swap" timestamp="2026-11-21T14:30:28.000+00:00" time="0.000">
            <properties>
                <property name="machine" value="alpine-512m-2cpu"/>
            </properties>
            <skipped message="needs a kernel with 9p"></skipped>
        </testcase>
        <testcase name="never-began" classname="hot-swap" time="0.000">
            <properties>
                <property name="machine" value="alpine-512m-2cpu"/>
            </properties>
            <error message="the run ended before the scenario began" type="harness"/>
        </testcase>
    </testsuite>
    <testsuite name="targets" tests="3" skipped="0" errors="0" failures="1">
        <testcase name="memory" classname="targets"/>
        <testcase name="restart" classname="targets"/>
        <testcase name="slow" classname="targets">
            <failure message="14.50 ms, the plan&apos;s bar is 10 ms"/>
        </testcase>
    </testsuite>
</testsuites>
"#);
}

#[test]
fn what_was_written_can_be_read_and_adds_up() {
    let xml = junit_xml(&fold(&model_run())).unwrap();
    let report = Report::deserialize_from_str(&xml).unwrap();
    assert_eq!((report.tests, report.failures, report.errors, report.skipped), (10, 4, 2, 1));
    assert_eq!(report.test_suites.len(), 3, "two suites and the targets");
}

#[test]
fn a_run_without_events_is_valid_junit() {
    let xml = junit_xml(&fold([])).unwrap();
    assert_eq!(Report::deserialize_from_str(&xml).unwrap().tests, 0);
}
