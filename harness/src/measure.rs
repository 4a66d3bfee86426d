//! What the supervisor costs in a guest, by the kernel's own accounts.
//!
//! Time is the guest's: `/proc/uptime` for what passed, `/proc/1/schedstat` (nanoseconds on a processor) for what
//! process 1 used, `cpu.stat` for its components. An emulated processor, or one that others use as well, makes all of it
//! dearer alike; [`spawn_cost`] says how dear things are in this guest at this time.

use std::time::Duration;

use crate::failure::Failure;
use crate::vm::Vm;

/// What was used of one processor, 1 being all of it.
#[derive(Debug, Clone, Copy)]
pub struct CpuShare {
    /// Process 1.
    pub supervisor: f64,
    /// All components together, with the commands that probe them.
    pub components: f64,
}

/// Seconds since boot, nanoseconds of process 1, microseconds of the components; a line each.
const LOOK: &str = "look() { cut -d' ' -f1 /proc/uptime; cut -d' ' -f1 /proc/1/schedstat; \
                    sed -n 's/^usage_usec //p' /sys/fs/cgroup/graph/cpu.stat; }";

/// Measures over a span of the guest's time. Nothing else is done in the guest meanwhile.
pub async fn cpu_share(vm: &Vm, span: Duration) -> Result<CpuShare, Failure> {
    let script = format!("{LOOK}; look; sleep {}; look", span.as_secs_f64());
    let text = vm.succeed(&["/bin/sh", "-euc", &script], span * 2).await?;
    let numbers: Vec<f64> = text.lines().filter_map(|line| line.parse().ok()).collect();
    let &[from_s, supervisor_from, components_from, to_s, supervisor_to, components_to] = &numbers[..] else {
        return Err(Failure::harness(format!("the guest's accounts are not what they should be: {text}")));
    };
    let passed = to_s - from_s;
    Ok(CpuShare {
        supervisor: (supervisor_to - supervisor_from) / 1e9 / passed,
        components: (components_to - components_from) / 1e6 / passed,
    })
}

/// Milliseconds of each of so many answers of the supervisor to the question for its state, one after the other: from a
/// connection to the last byte or, with a command, from the start of that program to its end.
pub async fn answers(vm: &Vm, times: u32, command: Option<&str>) -> Result<Vec<f64>, Failure> {
    const EACH: Duration = Duration::from_millis(200);
    let number = times.to_string();
    let mut ask = vec!["test-asker", "--times", &number];
    ask.extend(command.iter().flat_map(|program| ["--command", program]));
    let text = vm.succeed(&ask, EACH * times.max(100)).await?;
    let nanoseconds: Vec<f64> = serde_json::from_str(&text)
        .map_err(|error| Failure::harness(format!("test-asker printed {text}: {error}")))?;
    Ok(nanoseconds.into_iter().map(|time| time / 1e6).collect())
}

/// The sample that so many of a hundred are not above, by nearest rank: one that was really measured. Of none it is 0.
pub fn percentile(samples: &[f64], hundredths: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * hundredths).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// How often the smallest program is started to learn what a start costs.
const SPAWNS: u32 = 100;

/// What it takes a shell in the guest to start the smallest program and wait for it: the unit in which this guest's
/// speed is known. On a processor of today it is half a millisecond, of the same kind of work that a supervisor does:
/// system calls, page faults, switches between processes.
pub async fn spawn_cost(vm: &Vm) -> Result<Duration, Failure> {
    const LIMIT: Duration = Duration::from_secs(20);
    let script = format!(
        "cut -d' ' -f1 /proc/uptime; for i in $(seq {SPAWNS}); do /bin/true; done; cut -d' ' -f1 /proc/uptime"
    );
    let text = vm.succeed(&["/bin/sh", "-euc", &script], LIMIT).await?;
    let times: Vec<f64> = text.lines().filter_map(|line| line.parse().ok()).collect();
    match times[..] {
        [from, to] if to > from => Ok(Duration::from_secs_f64(to - from) / SPAWNS),
        _ => Err(Failure::harness(format!("the guest's clock says {text}"))),
    }
}

/// What the start of the smallest program takes on a processor of today.
const SPAWN: Duration = Duration::from_micros(500);
/// A guest that is slower than this is overloaded: it would allow anything.
const SLOWEST: f64 = 50.0;

/// How many times slower this guest is now than a processor of today, from 1 on.
pub async fn slowness(vm: &Vm) -> Result<f64, Failure> {
    Ok((spawn_cost(vm).await?.as_secs_f64() / SPAWN.as_secs_f64()).clamp(1.0, SLOWEST))
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_samples() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let found = [50, 99, 100].map(|hundredths| percentile(&hundred, hundredths));
        assert_eq!(format!("{found:?}"), "[50.0, 99.0, 100.0]");
        let few = [percentile(&[], 99), percentile(&[7.0], 1)];
        assert_eq!(format!("{few:?}"), "[0.0, 7.0]");
    }
}
