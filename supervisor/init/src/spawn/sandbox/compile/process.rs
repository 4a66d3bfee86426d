//! Limits of the process, and how the kernel schedules it.

use nix::libc;
use yakiros_core::component::{
    IoClass, IoClassKind, ProcessLimits, Resources, Restriction, SchedulingPolicy,
};

use super::super::Op;
use super::Compiler;

/// Bits of a class before its level (`IOPRIO_CLASS_SHIFT` of ioprio_set(2)).
const CLASS_SHIFT: u32 = 13;

/// What it may use. Its own set-up is bound by it from here on.
pub fn limits(compiler: &mut Compiler<'_>, resources: &Resources) {
    if let Some(files) = resources.files_max {
        let limit = libc::rlimit { rlim_cur: files, rlim_max: files };
        compiler.must("set the limit of open files", Op::Limit { resource: libc::RLIMIT_NOFILE, limit });
    }
    for limit in &resources.process.rlimits {
        let value = |limit: Option<u64>| limit.unwrap_or(libc::RLIM_INFINITY);
        let pair = libc::rlimit { rlim_cur: value(limit.soft), rlim_max: value(limit.hard) };
        let op = Op::Limit { resource: limit.resource.number(), limit: pair };
        compiler.restrict(Restriction::Rlimits, format!("set the limit {}", limit.resource.name()), op);
    }
}

/// How the kernel schedules it, and when it ends it for want of memory.
pub fn schedule(compiler: &mut Compiler<'_>, limits: &ProcessLimits) {
    let mut schedule = |name: String, op| compiler.restrict(Restriction::Scheduling, name, op);
    if let Some(score) = limits.oom_score_adjust {
        let op = Op::Write { path: c"/proc/self/oom_score_adj".into(), text: score.to_string().into_bytes() };
        schedule(format!("set the OOM score to {score}"), op);
    }
    if !limits.cpu_affinity.is_empty() {
        schedule(
            "set the processors that it may run on".to_owned(),
            Op::Affinity(mask(&limits.cpu_affinity)),
        );
    }
    if let Some(nice) = limits.nice {
        schedule(format!("set the nice value to {nice}"), Op::Nice(nice.into()));
    }
    if let Some(class) = limits.io_class {
        schedule("set the class of input and output".to_owned(), Op::IoPriority(io_priority(class)));
    }
    if let Some(scheduling) = limits.scheduling {
        let policy = match scheduling.policy {
            SchedulingPolicy::Other => libc::SCHED_OTHER,
            SchedulingPolicy::Batch => libc::SCHED_BATCH,
            SchedulingPolicy::Idle => libc::SCHED_IDLE,
            SchedulingPolicy::Fifo => libc::SCHED_FIFO,
            SchedulingPolicy::Rr => libc::SCHED_RR,
        };
        let op = Op::Schedule { policy, priority: scheduling.priority.into() };
        schedule("set the scheduling policy".to_owned(), op);
    }
}

fn mask(processors: &[u16]) -> Vec<u64> {
    let last = processors.iter().copied().max().unwrap_or(0);
    let mut mask = vec![0_u64; usize::from(last) / 64 + 1];
    for processor in processors {
        mask[usize::from(*processor) / 64] |= 1 << (processor % 64);
    }
    mask
}

fn io_priority(IoClass { class, level }: IoClass) -> u32 {
    let class: u32 = match class {
        IoClassKind::Realtime => 1,
        IoClassKind::BestEffort => 2,
        IoClassKind::Idle => 3,
    };
    class << CLASS_SHIFT | u32::from(level)
}
