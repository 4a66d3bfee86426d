use super::*;
use crate::event::{Event, Outcome};
use crate::fixture::{Stream, model_run};
use crate::fold;

#[test]
fn the_model_run_in_the_terminal() {
    let options =
        SummaryOptions { colour: false, folder: Some(Path::new("target/vm-test/20261121-143010-7f3a")) };
    insta::assert_snapshot!(summary(&fold(&model_run()), &options), @r#"
suite                       passed  failed   flaky skipped   infra        time
basic                            1       1       2       -       -    1 m 17 s
hot-swap                         -       -       -       1       2       10 ms
all                              1       1       2       1       2    1 m 17 s

FAILED basic/orphan-is-reaped  culprit: supervisor  8.2 s
  reason     process 123 is still a zombie 5 s after it exited, and PID 1 is
             asleep in do_wait
  attempt    2 of 2
  step       wait until the orphan is reaped (at 250 ms, took 1.5 s)
  console    panic: Kernel panic - not syncing: Attempted to kill init!
             exitcode=0x0000000b
             [    3.100002] Call Trace: line 2 of an excerpt that is wider than…
             [    3.100003] Call Trace: line 3 of an excerpt that is wider than…
             [    3.100004] Call Trace: line 4 of an excerpt that is wider than…
             [    3.100005] Call Trace: line 5 of an excerpt that is wider than…
             [    3.100006] Call Trace: line 6 of an excerpt that is wider than…
             [    3.100007] Call Trace: line 7 of an excerpt that is wider than…
             [    3.100008] Call Trace: line 8 of an excerpt that is wider than…
             [    3.100009] Call Trace: line 9 of an excerpt that is wider than…
  ledger                                     before   after  unowned
             processes                           12      13        1
             mounts                               7       7        -
             a zombie too much: process 123 (orphan), which process 1 has not
             reaped
  capsule    capsules/basic-orphan-is-reaped
  reproduce  cargo xtask vm-test --scenario basic/orphan-is-reaped --seed 42

FLAKY basic/power-off  culprit: component  1.7 s
  reason     the last line is missing
  attempt    1 of 2
  capsule    capsules/basic-power-off
  reproduce  cargo xtask vm-test --scenario basic/power-off --seed 42

FLAKY basic/many-components  culprit: vmm  1 m 05 s
  reason     QEMU ended with signal 9
  attempt    1 of 2
  capsule    capsules/basic-many-components
  reproduce  cargo xtask vm-test --scenario basic/many-components --seed 42

INFRA FAILED hot-swap/no-gap  culprit: vmm  10 ms
  reason     QEMU ended with signal 9
  capsule    capsules/hot-swap-no-gap
  reproduce  cargo xtask vm-test --scenario hot-swap/no-gap --seed 42

INFRA FAILED hot-swap/never-began  culprit: harness  0 ms
  reason     the run ended before the scenario began

SKIPPED hot-swap/two-at-once
  reason     needs a kernel with 9p

crash points                prepare       move
old dies                  restarted          -
new dies                 old serves old serves

targets                                 measured     plan  our bar
memory                                   1100 kb   46.55x    3.72x
restart                                 14.50 ms     138x  0.9655x  over our bar
slow                                    14.50 ms  0.6897x  0.0690x  missed
and 1 that this run does not measure

criteria of success            met  missed    open
Functional validation            1       1       -
Performance benchmarks           1       1       1
Reliability testing              -       -       1
  missed     Orphans <are> reaped: failed: process 123 is still a zombie 5 s
             after it exited, and PID 1 is asleep in do_wait
  missed     Restarts are quick: 14.500 ms, bar 10 ms

slowest
   1 m 05 s  basic/many-components
      8.2 s  basic/orphan-is-reaped
      1.8 s  basic/boots
      1.7 s  basic/power-off
      10 ms  hot-swap/no-gap

  machine    alpine-512m-2cpu: Alpine Linux v3.23, kernel 6.18.2-0-virt, 512
             MiB, 2 CPUs
             cold boot 2.0 s (median of 1); clone 90 ms (median of 3, p95 100
             ms, max 100 ms, 0.045 of a cold boot)
  accel      tcg: /dev/kvm does not boot a kernel
  qemu       QEMU emulator version 7.2.19 (Debian 1:7.2+dfsg-7+deb12u16)

  booted     alpine-kernel 6.18.2-0-virt          11.8 MiB  sha256 0123456789ab
             guest-initramfs                       2.7 MiB  sha256 0123456789ab

  warning    the host is busy: 3.2 of 2 processors are in use

  files      target/vm-test/20261121-143010-7f3a
             report.html, report.json, junit.xml, events.jsonl

FAILED: 1 failed, 2 flaky, 2 not judged (infrastructure), 1 skipped, 1 passed in
1 m 24 s (run 20261121-143010-7f3a, seed 42)
"#);
}

#[test]
fn a_green_run_in_the_terminal() {
    let mut stream = Stream::default();
    stream.start("basic", "boots", 1);
    stream.finish("basic", "boots", Outcome::Passed, 1800.0, None);
    let closing = crate::closing(&fold(&stream.0), 1900.0, false);
    stream.push(Event::RunFinished(closing));
    insta::assert_snapshot!(summary(&fold(&stream.0), &SummaryOptions::default()), @r#"
suite                       passed  failed   flaky skipped   infra        time
basic                            1       -       -       -       -       1.8 s

PASSED: 1 passed in 1.9 s
"#);
}

#[test]
fn an_empty_run_in_the_terminal() {
    insta::assert_snapshot!(summary(&fold([]), &SummaryOptions::default()), @r#"
NOT JUDGED: nothing ran when it was cut off after 0 ms
"#);
}

#[test]
fn only_what_is_there_to_be_copied_is_wider_than_the_terminal() {
    let text = summary(&fold(&model_run()), &SummaryOptions::default());
    let wide: Vec<&str> =
        text.lines().filter(|line| line.chars().count() > WIDTH && !line.contains("reproduce")).collect();
    assert_eq!(wide, Vec::<&str>::new());
}

#[test]
fn colours_change_nothing_but_the_colours() {
    let run = fold(&model_run());
    let coloured = summary(&run, &SummaryOptions { colour: true, folder: None });
    let mut stripped = String::new();
    let mut rest = coloured.as_str();
    while let Some((text, tail)) = rest.split_once("\x1b[") {
        stripped.push_str(text);
        rest = tail.split_once('m').unwrap().1;
    }
    stripped.push_str(rest);
    assert_ne!(coloured, stripped);
    assert_eq!(stripped, summary(&run, &SummaryOptions::default()));
}
