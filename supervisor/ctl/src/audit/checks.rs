//! What is looked at, how much it counts, and what would help.
//!
//! Weights are relative: how much somebody who has taken the program over gains by what is open. They are chosen so that
//! a program of root without any restriction has [`WORST`], and one that has no right but its own files close to 0.

use yakiros_core::component::{Account, CapabilitySet, Component, Namespace, seccomp};

/// The exposure of a component that restricts nothing.
pub const WORST: f64 = 10.0;

/// How much is open, from 0 for nothing to 1.
type Open = fn(&Component) -> f64;

/// Something that can be open.
pub struct Check {
    /// Its share of the whole.
    pub weight: f64,
    /// What somebody can do who has taken the program over.
    pub exposure: &'static str,
    /// The lines of the component file that close it.
    pub proposal: &'static str,
    /// How far it is.
    pub open: Open,
}

/// All of them; within one group of keys the heaviest first.
pub const CHECKS: &[Check] = &[
    Check {
        weight: 15.0,
        exposure: "runs as root",
        proposal: "[security] user = \"NAME\"",
        open: |c| share(is_root(c)),
    },
    Check {
        weight: 10.0,
        exposure: "can administer the system (CAP_SYS_ADMIN)",
        proposal: "[security] capabilities = [], with only what it needs",
        open: |c| of_set(c, &["CAP_SYS_ADMIN"]),
    },
    Check {
        weight: 6.0,
        exposure: "can change the kernel or reach the hardware",
        proposal: "[security] capabilities without CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_BOOT, CAP_BPF, CAP_MKNOD",
        open: |c| of_set(c, &["CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_BOOT", "CAP_BPF", "CAP_MKNOD"]),
    },
    Check {
        weight: 6.0,
        exposure: "can become any user and pass over permissions of files",
        proposal: "[security] capabilities without CAP_SETUID, CAP_SETGID, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, \
                   CAP_FOWNER, CAP_CHOWN, CAP_SETFCAP",
        open: |c| {
            const NAMES: [&str; 7] = [
                "CAP_SETUID",
                "CAP_SETGID",
                "CAP_DAC_OVERRIDE",
                "CAP_DAC_READ_SEARCH",
                "CAP_FOWNER",
                "CAP_CHOWN",
                "CAP_SETFCAP",
            ];
            of_set(c, &NAMES)
        },
    },
    Check {
        weight: 5.0,
        exposure: "can look into other processes and end them",
        proposal: "[security] capabilities without CAP_SYS_PTRACE and CAP_KILL",
        open: |c| of_set(c, &["CAP_SYS_PTRACE", "CAP_KILL"]),
    },
    Check {
        weight: 4.0,
        exposure: "can change the network's configuration and see all packets",
        proposal: "[security] capabilities without CAP_NET_ADMIN and CAP_NET_RAW",
        open: |c| of_set(c, &["CAP_NET_ADMIN", "CAP_NET_RAW"]),
    },
    Check {
        weight: 2.0,
        exposure: "can set the clock, the log of the kernel and priorities",
        proposal: "[security] capabilities without CAP_SYS_TIME, CAP_SYSLOG, CAP_SYS_NICE, CAP_SYS_RESOURCE",
        open: |c| of_set(c, &["CAP_SYS_TIME", "CAP_SYSLOG", "CAP_SYS_NICE", "CAP_SYS_RESOURCE"]),
    },
    Check {
        weight: 8.0,
        exposure: "can get privileges by executing a set-user-ID program",
        proposal: "[security] no_new_privs = true",
        open: |c| share(!c.security.keeps_privileges()),
    },
    Check {
        weight: 10.0,
        exposure: "can make any system call",
        proposal: "[security] seccomp = [\"@service\"]",
        open: |c| calls(c),
    },
    Check {
        weight: 8.0,
        exposure: "can write wherever its user may",
        proposal: "[isolation] namespaces = [\"mount\"], read_only = [\"/\"]; or [security] landlock_write = [\"/var/lib/NAME\"]",
        open: |c| writable(c),
    },
    Check {
        weight: 3.0,
        exposure: "can read homes and the superuser's files where permissions allow it",
        proposal: "[isolation] namespaces = [\"mount\"], inaccessible = [\"/home\", \"/root\"]",
        open: |c| {
            share(
                c.isolation.inaccessible.is_empty()
                    && c.isolation.root.is_none()
                    && c.security.landlock_read.is_empty(),
            )
        },
    },
    Check {
        weight: 3.0,
        exposure: "shares /tmp with everybody",
        proposal: "[isolation] namespaces = [\"mount\"], private_tmp = true",
        open: |c| share(!c.isolation.private_tmp && c.isolation.root.is_none()),
    },
    Check {
        weight: 4.0,
        exposure: "sees all processes",
        proposal: "[isolation] namespaces = [\"pid\", \"mount\"]",
        open: |c| share(!c.isolation.has(Namespace::Pid)),
    },
    Check {
        weight: 4.0,
        exposure: "reaches the machine's network",
        proposal: "[isolation] namespaces = [\"net\"], if it needs none",
        open: |c| share(!c.isolation.has(Namespace::Net)),
    },
    Check {
        weight: 2.0,
        exposure: "shares System V and POSIX message queues and memory with everybody",
        proposal: "[isolation] namespaces = [\"ipc\"]",
        open: |c| share(!c.isolation.has(Namespace::Ipc)),
    },
    Check {
        weight: 1.0,
        exposure: "can be told, and tell, the machine's host name and control groups",
        proposal: "[isolation] namespaces = [\"uts\", \"cgroup\"]",
        open: |c| part(&[!c.isolation.has(Namespace::Uts), !c.isolation.has(Namespace::Cgroup)]),
    },
    Check {
        weight: 4.0,
        exposure: "can use up the memory of the machine",
        proposal: "[resources] memory_max = \"SIZE\"",
        open: |c| share(c.resources.memory_max.is_none()),
    },
    Check {
        weight: 3.0,
        exposure: "can use up the machine's process numbers",
        proposal: "[resources] pids_max = COUNT",
        open: |c| share(c.resources.pids_max.is_none()),
    },
    Check {
        weight: 1.0,
        exposure: "can keep all processors busy",
        proposal: "[resources] cpu_max = \"QUOTA PERIOD\", or a low cpu_weight",
        open: |c| {
            share(c.resources.cpu_max.is_none() && c.resources.cpu_weight.is_none_or(|weight| weight >= 100))
        },
    },
    Check {
        weight: 2.0,
        exposure: "shows secrets in its environment to whoever may read /proc/PID/environ",
        proposal: "[isolation] secrets = { NAME = \"/path/of/file\" }",
        open: |c| share(variables(c).any(is_secret)),
    },
];

/// The exposure of a component, from 0 to [`WORST`], and the checks that are open, the heaviest first.
pub fn exposure(component: &Component) -> (f64, Vec<(&'static Check, f64)>) {
    let weighed = CHECKS.iter().map(|check| (check, check.weight * (check.open)(component)));
    let mut open: Vec<_> = weighed.filter(|(_, weight)| *weight > 0.0).collect();
    open.sort_by(|one, other| other.1.total_cmp(&one.1));
    let whole: f64 = CHECKS.iter().filter(|check| !is_about_secrets(check)).map(|check| check.weight).sum();
    let found: f64 = open.iter().map(|(_, weight)| weight).sum();
    ((WORST * found / whole).min(WORST), open)
}

/// Most components have no secrets: they are not to look better for it.
fn is_about_secrets(check: &Check) -> bool {
    check.proposal.contains("secrets")
}

fn share(open: bool) -> f64 {
    f64::from(u8::from(open))
}

/// The part of some that is open.
fn part(open: &[bool]) -> f64 {
    let count = u32::try_from(open.iter().filter(|open| **open).count()).unwrap_or(u32::MAX);
    f64::from(count) / f64::from(u32::try_from(open.len()).unwrap_or(u32::MAX).max(1))
}

fn is_root(component: &Component) -> bool {
    let alone = component.isolation.has(Namespace::User);
    let root = match &component.security.user {
        None | Some(Account::Id(0)) => true,
        Some(Account::Name(name)) => name == "root",
        Some(Account::Id(_)) => false,
    };
    root && !alone
}

/// What it can do from its start on: of root all that is kept, of another user what is ambient. In a user namespace of its
/// own none of it reaches the machine.
fn capabilities(component: &Component) -> CapabilitySet {
    let security = &component.security;
    match (component.isolation.has(Namespace::User), is_root(component)) {
        (true, _) => CapabilitySet::default(),
        (false, true) => security.capabilities.unwrap_or(CapabilitySet::ALL),
        (false, false) => security.ambient_capabilities,
    }
}

/// The part of these capabilities that it has.
fn of_set(component: &Component, names: &[&str]) -> f64 {
    let has: Vec<_> = capabilities(component).names().collect();
    part(&names.iter().map(|name| has.contains(name)).collect::<Vec<_>>())
}

/// A list of what is allowed closes it; one of what is forbidden leaves what it does not name.
fn calls(component: &Component) -> f64 {
    const LEFT_BY_FORBIDDING: f64 = 0.4;
    let rules = &component.security.seccomp;
    match rules.is_empty() {
        true => 1.0,
        false if seccomp::meaning_of(rules).forbids => LEFT_BY_FORBIDDING,
        false => 0.0,
    }
}

/// Programs and configuration count as much as all the rest.
fn writable(component: &Component) -> f64 {
    let isolation = &component.isolation;
    let closed =
        |path: &str| isolation.read_only.iter().any(|closed| std::path::Path::new(path).starts_with(closed));
    if isolation.root.is_some() || !component.security.landlock_write.is_empty() {
        return 0.0;
    }
    part(&["/usr", "/etc", "/var", "/boot"].map(|path| !closed(path)))
}

fn variables(component: &Component) -> impl Iterator<Item = &str> {
    let all = component.environment.variables.iter().chain(&component.hotswap.env_vars);
    all.map(String::as_str)
}

/// Whether its name says so.
fn is_secret(variable: &str) -> bool {
    const WORDS: [&str; 5] = ["PASSWORD", "PASSWD", "SECRET", "TOKEN", "PRIVATE_KEY"];
    let name = variable.split('=').next().unwrap_or_default().to_ascii_uppercase();
    WORDS.iter().any(|word| name.contains(word)) && !name.ends_with("_FILE")
}

#[cfg(test)]
mod tests {
    use super::*;
    use yakiros_core::component::parse;

    fn component(more: &str) -> Component {
        let text = format!("[component]\nname = \"a\"\nbinary = \"/bin/a\"\n{more}");
        let parsed = parse(&text);
        parsed.component.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics))
    }

    const CLOSED: &str = "[security]\nuser = \"web\"\nno_new_privs = true\ncapabilities = []\nseccomp = [\"@service\"]\n\
        [isolation]\nnamespaces = [\"mount\", \"pid\", \"net\", \"ipc\", \"uts\", \"cgroup\"]\nread_only = [\"/\"]\n\
        inaccessible = [\"/home\"]\n[resources]\nmemory_max = \"64M\"\npids_max = 10\ncpu_max = \"1000 10000\"\n";

    #[test]
    fn what_restricts_nothing_is_the_worst_and_what_restricts_all_is_none() {
        let (score, open) = exposure(&component(""));
        assert!((score - WORST).abs() < 1e-9, "{score}");
        assert!(open.windows(2).all(|pair| pair[0].1 >= pair[1].1), "the heaviest first");
        let (score, open) = exposure(&component(CLOSED));
        let left: Vec<_> = open.iter().map(|(check, _)| check.exposure).collect();
        assert!(score < 1e-9, "{score} {left:?}");
    }

    #[test]
    fn each_restriction_counts() {
        let open = component("");
        for more in [
            "[security]\nuser = 33\n",
            "[security]\ncapabilities = [\"CAP_NET_BIND_SERVICE\"]\n",
            "[security]\nno_new_privs = true\n",
            "[security]\nseccomp = [\"~@mount\"]\n",
            "[security]\nlandlock_write = [\"/var/lib/a\"]\n",
            "[isolation]\nnamespaces = [\"pid\"]\n",
            "[isolation]\nnamespaces = [\"net\"]\n",
            "[isolation]\nnamespaces = [\"user\"]\n",
            "[resources]\nmemory_max = \"1G\"\n",
        ] {
            assert!(exposure(&component(more)).0 < exposure(&open).0, "{more}");
        }
        let part = exposure(&component("[security]\nseccomp = [\"~@mount\"]\n")).0;
        assert!(exposure(&component("[security]\nseccomp = [\"@service\"]\n")).0 < part);
        let told = component("[environment]\nvariables = [\"DB_PASSWORD=x\"]\n");
        assert!(exposure(&told).1.iter().any(|(check, _)| is_about_secrets(check)));
        let file = component("[environment]\nvariables = [\"DB_PASSWORD_FILE=/x\", \"TOKENS=3\"]\n");
        assert_eq!(variables(&file).filter(|text| is_secret(text)).count(), 1, "TOKENS");
    }
}
