//! Every section and key that a component file may have, aliases included.
//!
//! The table serves the search for unknown keys and their nearest neighbours; the types are
//! checked where the values are read, in `build`.

/// Section names and their keys.
pub(super) const SECTIONS: &[(&str, &[&str])] = &[
    ("component", &["name", "binary", "args", "type", "handoff"]),
    ("provides", &["capabilities"]),
    ("requires", &["capabilities"]),
    ("optional", &["capabilities"]),
    (
        "lifecycle",
        &[
            "handoff",
            "reload_signal",
            "readiness",
            "readiness_file",
            "readiness_check",
            "readiness_command",
            "readiness_signal",
            "readiness_timeout",
            "readiness_interval",
            "health_check",
            "health_tcp",
            "health_http",
            "health_unix",
            "health_file",
            "health_signal",
            "health_interval",
            "health_timeout",
            "health_fail_threshold",
            "health_failures",
            "health_restart_threshold",
            "restart_max",
            "restart_window",
        ],
    ),
    (
        "resources",
        &[
            "cgroup",
            "cgroup_path",
            "memory_max",
            "memory_high",
            "cpu_weight",
            "io_weight",
            "cpu_max",
            "pids_max",
            "processes_max",
            "files_max",
        ],
    ),
    ("isolation", &["namespaces", "hostname", "root", "private_tmp"]),
    ("checkpoint", &["enabled", "preserve_fds", "leave_running", "memory_estimate", "max_age"]),
    ("hotswap", &["transfer_fds", "env_vars", "shutdown_grace", "preserve_state"]),
];

/// The keys of `section`, if there is one of that name.
pub(super) fn keys_of(section: &str) -> Option<&'static [&'static str]> {
    SECTIONS.iter().find(|(name, _)| *name == section).map(|(_, keys)| *keys)
}

/// The section that has `key`, when the key stands in the wrong one.
pub(super) fn home_of(key: &str) -> Option<&'static str> {
    SECTIONS.iter().find(|(_, keys)| keys.contains(&key)).map(|(name, _)| *name)
}

/// The word of `known` that `word` was probably meant to be.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Two slips in a short word, a third of a long one: more is another word.
    let limit = (word.chars().count() / 3).max(2);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= limit && *distance < candidate.len())
        .min()
        .map(|(_, candidate)| candidate)
}
