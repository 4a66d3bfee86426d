//! Limits of the process and of its control group.

use std::fs;
use std::path::Path;

use yakiros_core::component::{IoClassKind, Restriction, RlimitResource, SchedulingPolicy, slice};

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
            return self.not_shown("control group", Some(self.component.cgroup().into_owned()));
        }
        let depth = Path::new(&*self.component.cgroup()).components().count();
        let slice = self.facts.group.as_deref().and_then(|group| slice_around(group, depth));
        self.compare("resources.slice", self.component.resources.slice.clone(), slice, None);
        for (file, asked, _) in self.component.resources.limit_files() {
            // The kernel keeps whole pages.
            let whole = |text: String| match text.parse::<u64>() {
                Ok(bytes) if file.starts_with("memory.") => (bytes / PAGE * PAGE).to_string(),
                _ => text,
            };
            let applies =
                self.facts.group_file(file).or_else(|| asked.is_some().then(|| "no limit".to_owned()));
            self.compare(file, asked.map(whole), applies, None);
            if let Some((value, owner)) = self.facts.group.as_deref().and_then(|group| narrowest(group, file))
            {
                self.compare(&format!("{file}, effective"), None, Some(format!("{value}, of {owner}")), None);
            }
        }
    }
}

/// The limit that is felt first, where that is one of a group around this one: its value, and whose it is.
fn narrowest(group: &Path, file: &str) -> Option<(String, String)> {
    const FELT_FROM_ABOVE: [&str; 5] =
        ["memory.max", "memory.high", "memory.swap.max", "cpu.max", "pids.max"];
    let read = |group: &Path| fs::read_to_string(group.join(file)).ok();
    let own = read(group).filter(|_| FELT_FROM_ABOVE.contains(&file))?;
    let around = group.ancestors().skip(1).map_while(|around| Some((around, read(around)?)));
    let around = around.filter(|(_, value)| share(value) < share(&own));
    // Of equal ones the inner one.
    let (around, value) = around.min_by(|(_, one), (_, other)| share(one).total_cmp(&share(other)))?;
    let owner =
        slice_of(around).map_or_else(|| around.display().to_string(), |slice| format!("slice {slice}"));
    Some((value.trim().to_owned(), owner))
}

/// A limit as a number: a count, or of `cpu.max` the share of the time.
fn share(value: &str) -> f64 {
    let mut numbers = value.split_whitespace().map(|word| word.parse().unwrap_or(f64::INFINITY));
    let first: f64 = numbers.next().unwrap_or(f64::INFINITY);
    first / numbers.next().unwrap_or(1.0)
}

/// The name of the slice that a group lies in which has so many names in its path below the supervisor's groups. Between
/// the two there may be groups of nobody.
fn slice_around(group: &Path, depth: usize) -> Option<String> {
    group.ancestors().take(depth).skip(1).find_map(slice_of)
}

/// The name of the slice whose group this is.
fn slice_of(group: &Path) -> Option<String> {
    let parts = group.components().rev().filter_map(|part| part.as_os_str().to_str());
    let mut parts: Vec<_> = parts.take_while(|part| slice::is_slice(part)).collect();
    parts.reverse();
    (!parts.is_empty()).then(|| slice::name_of(&parts.join("/")))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_that_is_felt_first_is_named_with_its_owner() {
        let root = tempfile::tempdir().expect("temporary directory");
        let group = root.path().join("graph/shop.slice/back.slice/web");
        fs::create_dir_all(&group).expect("groups");
        let limits = [
            ("", "memory.max", "50"),
            ("graph", "memory.max", "max"),
            ("graph/shop.slice", "memory.max", "40"),
            ("graph/shop.slice/back.slice", "memory.max", "40"),
            ("graph/shop.slice/back.slice/web", "memory.max", "90"),
            ("graph/shop.slice/back.slice/web", "cpu.max", "max 100000"),
            ("graph/shop.slice/back.slice", "cpu.max", "50000 100000"),
            ("graph/shop.slice", "cpu.max", "60000 200000"),
            ("graph/shop.slice/back.slice/web", "pids.max", "5"),
            ("graph/shop.slice/back.slice", "pids.max", "6"),
            ("graph/shop.slice/back.slice/web", "cpu.weight", "100"),
            ("graph/shop.slice/back.slice", "cpu.weight", "1"),
        ];
        for (group, file, value) in limits {
            fs::write(root.path().join(group).join(file), format!("{value}\n")).expect("file");
        }
        let felt = |file| narrowest(&group, file).map(|(value, owner)| format!("{value} {owner}"));
        assert_eq!(felt("memory.max").as_deref(), Some("40 slice shop/back"));
        assert_eq!(felt("cpu.max").as_deref(), Some("60000 200000 slice shop"));
        assert_eq!([felt("pids.max"), felt("cpu.weight"), felt("memory.high")], [None, None, None]);
        fs::write(group.join("memory.max"), "7").expect("file");
        assert_eq!(felt("memory.max"), None);
        assert_eq!(slice_of(group.parent().expect("a slice")).as_deref(), Some("shop/back"));
        assert_eq!(slice_of(&group), None);
    }

    #[test]
    fn the_slice_around_a_group_is_the_next_one_among_the_supervisors_own() {
        let around =
            |group: &str, depth| slice_around(&Path::new("/c/outer.slice/tenant/graph").join(group), depth);
        assert_eq!(around("batch.slice/web", 2).as_deref(), Some("batch"));
        assert_eq!(around("batch.slice/a/b", 3).as_deref(), Some("batch"));
        assert_eq!(around("batch.slice/in.slice/a/b", 4).as_deref(), Some("batch/in"));
        // Those around the supervisor are no slices of its.
        assert_eq!([around("web", 1), around("a/b", 2)], [None, None]);
    }
}
