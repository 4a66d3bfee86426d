//! Limits of the process and of its control group.

use yakiros_core::component::{IoClassKind, Restriction, RlimitResource, SchedulingPolicy};

use super::Scene;

/// Policies by their numbers (sched(7)).
const POLICIES: [(u64, SchedulingPolicy); 5] = [
    (0, SchedulingPolicy::Other),
    (1, SchedulingPolicy::Fifo),
    (2, SchedulingPolicy::Rr),
    (3, SchedulingPolicy::Batch),
    (5, SchedulingPolicy::Idle),
];

/// Classes by their numbers (ioprio_set(2)).
const CLASSES: [(u8, IoClassKind); 3] =
    [(1, IoClassKind::Realtime), (2, IoClassKind::BestEffort), (3, IoClassKind::Idle)];

/// Resources by their names in `/proc/PID/limits`.
const RLIMITS: [(RlimitResource, &str); 16] = [
    (RlimitResource::Cpu, "Max cpu time"),
    (RlimitResource::Fsize, "Max file size"),
    (RlimitResource::Data, "Max data size"),
    (RlimitResource::Stack, "Max stack size"),
    (RlimitResource::Core, "Max core file size"),
    (RlimitResource::Rss, "Max resident set"),
    (RlimitResource::Nproc, "Max processes"),
    (RlimitResource::Nofile, "Max open files"),
    (RlimitResource::Memlock, "Max locked memory"),
    (RlimitResource::As, "Max address space"),
    (RlimitResource::Locks, "Max file locks"),
    (RlimitResource::Sigpending, "Max pending signals"),
    (RlimitResource::Msgqueue, "Max msgqueue size"),
    (RlimitResource::Nice, "Max nice priority"),
    (RlimitResource::Rtprio, "Max realtime priority"),
    (RlimitResource::Rttime, "Max realtime timeout"),
];

impl Scene<'_> {
    pub(super) fn process_limits(&mut self) {
        let process = &self.component.resources.process;
        let files = self.component.resources.files_max.map(|limit| (Some(limit), Some(limit)));
        if files.is_some() {
            self.rlimit("resources.files_max", RlimitResource::Nofile, files, None);
        }
        for limit in &process.rlimits {
            let aspect = format!("resources.rlimits {}", limit.resource.name());
            let asked = Some((limit.soft, limit.hard));
            self.rlimit(&aspect, limit.resource, asked, Some(Restriction::Rlimits));
        }
        let may = Some(Restriction::Scheduling);
        let (nice, policy, priority) = self.facts.scheduling;
        self.compare(
            "resources.nice",
            process.nice.map(|nice| nice.to_string()),
            Some(nice.to_string()),
            may,
        );
        let text = |policy: SchedulingPolicy, priority| format!("{policy:?}:{priority}").to_lowercase();
        let asked = process.scheduling.map(|asked| text(asked.policy, u64::from(asked.priority)));
        let applies =
            POLICIES.iter().find(|(number, _)| *number == policy).map(|(_, policy)| text(*policy, priority));
        self.compare("resources.scheduling", asked, applies, may);
        let text = |class: IoClassKind, level| format!("{class:?}:{level}").to_lowercase();
        let asked = process.io_class.map(|asked| text(asked.class, asked.level));
        let applies = self.facts.io_class.and_then(|(number, level)| {
            CLASSES.iter().find(|(class, _)| *class == number).map(|(_, class)| text(*class, level))
        });
        self.compare("resources.io_class", asked, applies, may);
        let asked = (!process.cpu_affinity.is_empty()).then(|| ranges(&process.cpu_affinity));
        self.compare(
            "resources.cpu_affinity",
            asked,
            self.facts.status.get("Cpus_allowed_list").cloned(),
            may,
        );
        let asked = process.oom_score_adjust.map(|score| score.to_string());
        self.compare(
            "resources.oom_score_adjust",
            asked,
            self.facts.oom_score_adjust.map(|s| s.to_string()),
            may,
        );
    }

    fn rlimit(
        &mut self,
        aspect: &str,
        resource: RlimitResource,
        asked: Option<(Option<u64>, Option<u64>)>,
        may: Option<Restriction>,
    ) {
        let limit =
            |limit: Option<u64>| limit.map_or_else(|| "infinity".to_owned(), |limit| limit.to_string());
        let text = |(soft, hard)| format!("{}:{}", limit(soft), limit(hard));
        let name = RLIMITS.iter().find(|(known, _)| *known == resource).map(|(_, name)| *name);
        let applies = name.and_then(|name| self.facts.limits.get(name)).copied();
        // A program may lower what it has, and raise its soft limit to the hard one, as some do at their start.
        let most = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        let holds = asked.zip(applies).is_some_and(|((_, asked), (_, hard))| most(hard) <= most(asked));
        self.judge(aspect, asked.map(text), applies.map(text), holds, may);
    }

    pub(super) fn group_limits(&mut self) {
        if self.facts.group.is_none() {
            return self.not_shown("control group", Some(self.component.cgroup().to_owned()));
        }
        for (file, asked, _) in self.component.resources.limit_files() {
            // The kernel keeps whole pages.
            let whole = |text: String| match text.parse::<u64>() {
                Ok(bytes) if file.starts_with("memory.") => (bytes / PAGE * PAGE).to_string(),
                _ => text,
            };
            let applies =
                self.facts.group_file(file).or_else(|| asked.is_some().then(|| "no limit".to_owned()));
            self.compare(file, asked.map(whole), applies, None);
        }
    }
}

/// Memory is counted in pages.
const PAGE: u64 = 4096;

/// Numbers in order as `0-3,8`, which is how the kernel shows them.
fn ranges(numbers: &[u16]) -> String {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => ranges.push((*number, *number)),
        }
    }
    let text = |(first, last): &(u16, u16)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}
