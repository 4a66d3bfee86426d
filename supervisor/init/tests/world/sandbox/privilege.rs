//! Users, capabilities, limits and scheduling.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::{Row, compare, compare_in, start};

#[test]
fn a_user_and_its_groups_are_those_that_are_declared() {
    compare(&[
        Row {
            name: "number",
            free: "",
            bound: "[security]\nuser = 33\ngroups = [7, 8]",
            script: "id -u; id -g; id -G; test -r /etc/shadow && echo readable; true",
            without: "0 0 0 readable",
            with: "33 33 33 7 8",
        },
        Row {
            name: "name",
            free: "[security]\nuser = \"root\"",
            bound: "[security]\nuser = \"nobody\"\ngroup = \"daemon\"",
            script: "id -un; id -gn; touch /root/.yakiros-$$ && rm /root/.yakiros-$$ && echo written; true",
            without: "root root written",
            with: "nobody daemon touch: cannot touch '/root/.yakiros-1': Permission denied",
        },
    ]
    .map(in_a_namespace));
}

/// The number of the process is 1, so that what it says is the same each time.
fn in_a_namespace(mut row: Row) -> Row {
    let spaces = |more: &str| format!("{more}\n[isolation]\nnamespaces = [\"pid\"]").leak();
    (row.free, row.bound) = (spaces(row.free), spaces(row.bound));
    row
}

#[test]
fn programs_find_the_environment_that_is_declared() {
    compare(&[
        Row {
            name: "directory",
            free: "",
            bound: "[environment]\nworking_directory = \"/usr\"\numask = \"027\"",
            script: "pwd; umask",
            without: "/ 0022",
            with: "/usr 0027",
        },
        Row {
            name: "variables",
            free: "[hotswap]\nenv_vars = [\"A=old\", \"B=kept\"]",
            bound: "[hotswap]\nenv_vars = [\"A=old\", \"B=kept\"]\n[environment]\nvariables = { A = \"new\" }",
            script: "echo $A $B",
            without: "old kept",
            with: "new kept",
        },
    ]);
}

#[test]
fn capabilities_are_those_that_are_kept() {
    compare(&[
        Row {
            name: "chown",
            free: "",
            bound: "[security]\ncapabilities = [\"CAP_KILL\"]",
            script: "grep -c 'Cap[PEB][rfn][mfd]:.0000000000000020' /proc/self/status; \
                     touch @DIR@/owned-$$ && chown 7 @DIR@/owned-$$ 2>/dev/null && echo changed; true",
            without: "0 changed",
            with: "3",
        },
        Row {
            name: "none",
            free: "",
            bound: "[security]\ncapabilities = []",
            script: "grep Cap /proc/self/status | grep -vc 0000000000000000; mount -t tmpfs x /mnt 2>/dev/null && \
                     umount /mnt && echo mounted; true",
            without: "3 mounted",
            with: "0",
        },
        Row {
            name: "ambient",
            free: "[security]\nuser = 33",
            bound: "[security]\nuser = 33\nambient_capabilities = [\"CAP_DAC_READ_SEARCH\"]",
            script: "grep -c 'Cap[IPEA][nrfm][hmfb]:.0000000000000004' /proc/self/status; \
                     cat /etc/shadow >/dev/null 2>&1 && echo read; true",
            without: "0",
            with: "4 read",
        },
        Row {
            // Who never executes shows what was taken from the process itself.
            name: "process",
            free: "[isolation]\nnamespaces = [\"pid\", \"mount\"]\ninit = true",
            bound: "[isolation]\nnamespaces = [\"pid\", \"mount\"]\ninit = true\n[security]\ncapabilities = []",
            script: "grep -E 'Cap(Prm|Eff)' /proc/1/status | grep -c 0000000000000000; true",
            without: "0",
            with: "2",
        },
        Row {
            name: "noroot",
            free: "",
            bound: "[security]\nsecurebits = [\"noroot\", \"noroot-locked\"]",
            script: "grep CapEff /proc/self/status | grep -c 0000000000000000; true",
            without: "0",
            with: "1",
        },
    ]);
}

#[test]
fn a_set_user_id_program_gives_nothing_without_new_privileges() {
    let Some(guest) = start() else { return };
    let program = guest.dir.path().join("id");
    fs::copy("/usr/bin/id", &program).expect("a program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).expect("its mode");
    compare_in(
        &guest,
        &[Row {
            name: "setuid",
            free: "[security]\nuser = 33",
            bound: "[security]\nuser = 33\nno_new_privs = true",
            script: "@DIR@/id -u; grep NoNewPrivs /proc/self/status",
            without: "0 NoNewPrivs: 0",
            with: "33 NoNewPrivs: 1",
        }],
    );
}

/// The processors that this process may run on, as the kernel lists them, and the last of them.
pub fn allowed() -> (String, String) {
    let status = fs::read_to_string("/proc/self/status").expect("this process");
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let all = list.expect("processors").trim().to_owned();
    let last = all.rsplit([',', '-']).next().expect("a processor").to_owned();
    (all, last)
}

#[test]
fn limits_and_scheduling_are_those_that_are_declared() {
    let (all, one) = allowed();
    let many = if all == one { "1" } else { "0" };
    let affinity = |processors: &str| &*format!("[resources]\ncpu_affinity = {processors:?}").leak();
    compare(&[
        Row {
            name: "limits",
            free: "",
            bound: "[resources]\nrlimits = { core = 0, fsize = \"8K:16K\" }",
            script: "trap '' XFSZ; ulimit -Hf; head -c 20000 /dev/zero > @DIR@/large-$PPID-$$ 2>/dev/null && echo written; true",
            without: "unlimited written",
            with: "32",
        },
        Row {
            name: "nice",
            free: "[resources]\nnice = 3",
            bound: "[resources]\nnice = 5",
            script: "nice",
            without: "3",
            with: "5",
        },
        Row {
            // Field 41 of proc(5)'s stat is the policy, 40 the priority.
            name: "policy",
            free: "",
            bound: "[resources]\nscheduling = \"rr:7\"",
            script: "cut -d ' ' -f 40,41 /proc/self/stat",
            without: "0 0",
            with: "7 2",
        },
        Row {
            name: "io",
            free: "[resources]\nio_class = \"idle\"",
            bound: "[resources]\nio_class = \"best-effort:6\"",
            script: "ionice -p $$",
            without: "idle",
            with: "best-effort: prio 6",
        },
        Row {
            name: "processors",
            free: affinity(&all),
            bound: affinity(&one),
            script: format!("grep -c 'Cpus_allowed_list:.{one}$' /proc/self/status; true").leak(),
            without: many,
            with: "1",
        },
        Row {
            name: "score",
            free: "",
            bound: "[resources]\noom_score_adjust = 300",
            script: "cat /proc/self/oom_score_adj",
            without: "0",
            with: "300",
        },
    ]);
}
