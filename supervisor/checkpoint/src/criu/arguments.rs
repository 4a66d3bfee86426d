//! What CRIU is told: a pure function of what is wanted.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What it is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Copy the memory of a process tree that runs on, so that there is less to copy while it is frozen.
    PreDump {
        /// Its first process.
        pid: i32,
        /// The round before, as seen from the images' directory.
        parent: Option<String>,
    },
    /// Freeze a process tree and write everything.
    Dump {
        /// Its first process.
        pid: i32,
        /// The round before, as seen from the images' directory.
        parent: Option<String>,
        /// What becomes of the tree.
        then: Then,
    },
    /// Make it again.
    Restore {
        /// Where its number is written.
        pidfile: PathBuf,
        /// Where the root directory of its mount namespace is mounted, if it has one of its own.
        root: Option<PathBuf>,
        /// Asked before anything of it runs.
        ask: Option<PathBuf>,
        /// Descriptors of CRIU's own that take the place of what the process had, by CRIU's name of that, as
        /// `pipe:[4711]`.
        inherit: Vec<(i32, String)>,
    },
}

/// What becomes of a process tree that is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then {
    /// It runs on.
    Run,
    /// It runs on, once this program says that it may: whoever that asks may stop it, as by SIGSTOP, which it finds as
    /// soon as it would run. (CRIU's own `--leave-stopped` leaves connections locked, and in repair mode.)
    Stop(PathBuf),
    /// It is ended, once this program says that it may be.
    End(PathBuf),
}

/// How traffic is kept away from connections while their process is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkLock {
    /// Not at all: a peer that sends meanwhile may get a reset.
    Skip,
    /// By rules of nf_tables.
    #[default]
    Nftables,
}

/// What is done about control groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cgroups {
    /// Nothing: the process comes into the group of whoever restores it. The supervisor's are its own matter.
    #[default]
    Ignore,
    /// Groups below that of the process are made again where they are missing.
    Soft,
}

/// What a process tree has that CRIU takes only when told so; a restore needs the same as its dump.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of CRIU's, and all go together")]
pub struct Options {
    /// Connections that are up.
    pub tcp_established: bool,
    /// File locks.
    pub file_locks: bool,
    /// A terminal or a session that belongs to somebody else.
    pub shell_job: bool,
    /// Clients that are in the queue of a socket that listens and were not taken yet: they are left out.
    pub skip_in_flight: bool,
    /// Files that have no name any more and others have open, too.
    pub link_remap: bool,
    /// Largest file without a name that is kept, in bytes.
    pub ghost_limit: Option<u64>,
    /// See [`NetworkLock`].
    pub network_lock: NetworkLock,
    /// See [`Cgroups`].
    pub cgroups: Cgroups,
    /// The group that takes the place of the root of groups.
    pub cgroup_root: Option<String>,
    /// What stays outside, as CRIU names it: `unix[4711]`, `mnt[/dev/shm]:shm`.
    pub external: Vec<String>,
    /// Where the machine has the root directory of their mount namespace, if they have one of their own. A restore makes it
    /// in a place of its own, `--root`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// They have a cgroup namespace of their own, whose root is their own group. CRIU leaves groups alone, so whoever starts
    /// it sees to that.
    #[serde(skip_serializing_if = "is_false")]
    pub cgroup_namespace: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// Where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The images.
    pub images: PathBuf,
    /// Logs, figures and process numbers.
    pub work: PathBuf,
}

impl Action {
    /// The file with figures about it.
    pub(super) fn figures(&self) -> &'static str {
        match self {
            Self::PreDump { .. } | Self::Dump { .. } => "stats-dump",
            Self::Restore { .. } => "stats-restore",
        }
    }
}

/// All arguments, in the order in which they are given.
pub fn arguments(action: &Action, options: &Options, paths: &Paths) -> Vec<OsString> {
    let mut all: Vec<OsString> = Vec::new();
    let mut add = |words: &[&dyn AsRef<std::ffi::OsStr>]| {
        all.extend(words.iter().map(|word| word.as_ref().to_owned()));
    };
    match action {
        Action::PreDump { pid, .. } => add(&[&"pre-dump", &"--tree", &pid.to_string(), &"--track-mem"]),
        Action::Dump { pid, .. } => add(&[&"dump", &"--tree", &pid.to_string()]),
        Action::Restore { .. } => add(&[&"restore", &"--restore-detached"]),
    }
    // Errors and warnings; with more, the log of a large process is larger than its images.
    add(&[&"--no-default-config", &"--verbosity=2"]);
    add(&[&"--images-dir", &paths.images, &"--work-dir", &paths.work]);
    match action {
        Action::PreDump { parent, .. } | Action::Dump { parent, .. } => {
            if let Some(parent) = parent {
                add(&[&"--prev-images-dir", parent]);
            }
        }
        Action::Restore { pidfile, root, ask, inherit } => {
            add(&[&"--pidfile", pidfile]);
            if let Some(root) = root {
                add(&[&"--root", root]);
            }
            if let Some(ask) = ask {
                add(&[&"--action-script", ask]);
            }
            for (descriptor, name) in inherit {
                add(&[&"--inherit-fd", &format!("fd[{descriptor}]:{name}")]);
            }
        }
    }
    // Without it the round before is not compared with.
    if let Action::Dump { parent: Some(_), .. } = action {
        add(&[&"--track-mem"]);
    }
    if let Action::Dump { then, .. } = action {
        match then {
            Then::Run => add(&[&"--leave-running"]),
            Then::Stop(program) => add(&[&"--leave-running", &"--action-script", program]),
            Then::End(program) => add(&[&"--action-script", program]),
        }
    }
    let switches = [
        (options.tcp_established, "--tcp-established"),
        (options.skip_in_flight, "--skip-in-flight"),
        (options.file_locks, "--file-locks"),
        (options.shell_job, "--shell-job"),
        (options.link_remap, "--link-remap"),
    ];
    switches.into_iter().filter(|(wanted, _)| *wanted).for_each(|(_, switch)| add(&[&switch]));
    if let Some(limit) = options.ghost_limit {
        add(&[&"--ghost-limit", &limit.to_string()]);
    }
    if !matches!(action, Action::Restore { .. }) {
        // A restore does as its dump did.
        add(&[
            &"--network-lock",
            &match options.network_lock {
                NetworkLock::Skip => "skip",
                NetworkLock::Nftables => "nftables",
            },
        ]);
    }
    add(&[&match options.cgroups {
        Cgroups::Ignore => "--manage-cgroups=ignore",
        Cgroups::Soft => "--manage-cgroups=soft",
    }]);
    if let Some(root) = &options.cgroup_root {
        add(&[&"--cgroup-root", root]);
    }
    options.external.iter().for_each(|external| add(&[&"--external", external]));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(action: &Action, options: &Options) -> String {
        let paths = Paths { images: "/i".into(), work: "/w".into() };
        let words = arguments(action, options, &paths);
        words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_wanted_is_what_is_told() {
        let plain = Options::default();
        let dump =
            |parent: Option<&str>, then| Action::Dump { pid: 7, parent: parent.map(str::to_owned), then };
        let end = || Then::End("/ask".into());
        let usual = "--no-default-config --verbosity=2 --images-dir /i --work-dir /w";
        let rest = "--network-lock nftables --manage-cgroups=ignore";
        assert_eq!(
            line(&dump(None, end()), &plain),
            format!("dump --tree 7 {usual} --action-script /ask {rest}")
        );
        assert_eq!(
            line(&dump(Some("pre-2"), Then::Run), &plain),
            format!("dump --tree 7 {usual} --prev-images-dir pre-2 --track-mem --leave-running {rest}")
        );
        assert_eq!(
            line(&dump(None, Then::Stop("/ask".into())), &plain),
            format!("dump --tree 7 {usual} --leave-running --action-script /ask {rest}")
        );
        assert_eq!(
            line(&Action::PreDump { pid: 7, parent: Some("../pre-1".to_owned()) }, &plain),
            format!("pre-dump --tree 7 --track-mem {usual} --prev-images-dir ../pre-1 {rest}")
        );
        let all = Options {
            tcp_established: true,
            skip_in_flight: true,
            file_locks: true,
            shell_job: true,
            link_remap: true,
            ghost_limit: Some(4096),
            network_lock: NetworkLock::Skip,
            cgroups: Cgroups::Soft,
            cgroup_root: Some("/graph/web".to_owned()),
            external: vec!["unix[9]".to_owned(), "mnt[/x]:x".to_owned()],
            root: Some("/srv/jail".into()),
            cgroup_namespace: true,
        };
        let switches =
            "--tcp-established --skip-in-flight --file-locks --shell-job --link-remap --ghost-limit 4096";
        let outside =
            "--manage-cgroups=soft --cgroup-root /graph/web --external unix[9] --external mnt[/x]:x";
        assert_eq!(
            line(&dump(None, end()), &all),
            format!("dump --tree 7 {usual} --action-script /ask {switches} --network-lock skip {outside}")
        );
        let inherit = vec![(5, "pipe:[4711]".to_owned())];
        let restore = Action::Restore {
            pidfile: "/w/pid".into(),
            root: Some("/w/root".into()),
            ask: Some("/ask".into()),
            inherit,
        };
        assert_eq!(
            line(&restore, &all),
            format!(
                "restore --restore-detached {usual} --pidfile /w/pid --root /w/root --action-script /ask \
                 --inherit-fd fd[5]:pipe:[4711] {switches} {outside}"
            )
        );
    }
}
