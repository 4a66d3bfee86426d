//! Looks at processes.

use std::io::Write;
use std::path::Path;

use super::Done;
use crate::criu::{Criu, Options};
use crate::order::{Event, Failure, Step, Teller};
use crate::preflight::{self, Finding, Tree, Verdict};
use crate::probe;
use crate::store::Version;

pub(super) fn preflight<W: Write>(criu: &Path, pid: i32, teller: &mut Teller<W>) -> Result<Done, Failure> {
    let criu = teller.step(Step::Criu, || Criu::find(criu))?;
    let (verdict, _) = look(pid, criu.version, teller)?;
    Ok((format!("{} processes, {} things in the way", verdict.processes, verdict.findings.len()), None))
}

/// Look at a tree, and for what would be in the way.
pub(super) fn look<W: Write>(
    pid: i32,
    criu: Version,
    teller: &mut Teller<W>,
) -> Result<(Verdict, Tree), Failure> {
    let read = || preflight::read(pid).map_err(|error| format!("process {pid}: {error}"));
    let tree = teller.step(Step::Preflight, read)?;
    let mut verdict = preflight::judge(&tree, criu);
    let has_network = tree.isolation.namespaces.contains("net");
    let tar = preflight::keeps_files(&tree).then(probe::tar);
    let ip = has_network.then(probe::ip);
    let needed = [
        (tar, "its file systems in memory", "install GNU tar"),
        (ip, "its network namespace", "install iproute2"),
    ];
    for (answer, what, fix) in needed {
        if let Some(Err((why, _))) = answer {
            let [what, fix] = [what, fix].map(str::to_owned);
            verdict.findings.push(Finding { pid, what, why, fix });
        }
    }
    teller.found(Step::Preflight, Event::Judged { verdict: verdict.clone() })?;
    Ok((verdict, tree))
}

/// What is wanted, and what the tree needs.
pub(super) fn merged(wanted: &Options, needed: &Options) -> Options {
    Options {
        tcp_established: wanted.tcp_established || needed.tcp_established,
        file_locks: wanted.file_locks || needed.file_locks,
        shell_job: wanted.shell_job || needed.shell_job,
        ghost_limit: wanted.ghost_limit.max(needed.ghost_limit),
        external: wanted.external.iter().chain(&needed.external).cloned().collect(),
        root: needed.root.clone(),
        cgroup_namespace: needed.cgroup_namespace,
        ..wanted.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_tree_needs_is_added_to_what_is_wanted() {
        let wanted = Options { link_remap: true, ghost_limit: Some(5), ..Options::default() };
        let external = vec!["mnt[]:ms".to_owned()];
        let needed = Options { tcp_established: true, ghost_limit: Some(9), external, ..Options::default() };
        let merged = merged(&wanted, &needed);
        assert!(merged.link_remap && merged.tcp_established && !merged.file_locks);
        assert_eq!(merged.ghost_limit, Some(9));
        assert_eq!(merged.external, needed.external);
    }
}
