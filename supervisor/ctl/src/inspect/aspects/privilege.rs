//! Whose process it is, and what it may ask of the kernel.

use yakiros_core::component::{Account, CapabilitySet, Restriction, SecureBit};

use super::Scene;

/// Capability sets of `/proc/PID/status`.
const SETS: [(&str, &str); 5] = [
    ("capabilities (bounding)", "CapBnd"),
    ("capabilities (permitted)", "CapPrm"),
    ("capabilities (effective)", "CapEff"),
    ("capabilities (inheritable)", "CapInh"),
    ("capabilities (ambient)", "CapAmb"),
];

impl Scene<'_> {
    pub(super) fn privilege(&mut self) {
        self.accounts();
        self.capabilities();
        let security = &self.component.security;
        let yes = |status: &str| self.facts.status.get(status).map(|value| (value == "1").to_string());
        let asked = security.keeps_privileges().then(|| true.to_string());
        self.compare("security.no_new_privs", asked, yes("NoNewPrivs"), None);
        let mode = self.facts.status.get("Seccomp").map(|mode| match mode.as_str() {
            "0" => "no filter".to_owned(),
            "1" => "strict".to_owned(),
            _ => "filter".to_owned(),
        });
        let filtered = mode.as_deref() == Some("filter");
        let asked = (!security.seccomp.is_empty()).then(|| security.seccomp.join(" "));
        self.judge("security.seccomp", asked, mode, filtered, Some(Restriction::Seccomp));
        let bits = security.securebits.iter().map(|bit| format!("{bit:?}")).collect::<Vec<_>>();
        self.not_shown("security.securebits", (!bits.is_empty()).then(|| bits.join(" ")));
        for (key, paths) in [
            ("security.landlock_read", &security.landlock_read),
            ("security.landlock_write", &security.landlock_write),
            ("security.landlock_execute", &security.landlock_execute),
        ] {
            self.not_shown(key, (!paths.is_empty()).then(|| paths.join(" ")));
        }
    }

    fn accounts(&mut self) {
        let security = &self.component.security;
        // Real, effective, saved, and that for files: all are set.
        let [users, groups] = &self.facts.id_maps;
        let ids = |line: &str| {
            let maps = if line == "Uid" { users } else { groups };
            let mut ids = self.numbers(line).map(|id| inside(maps, id)).collect::<Vec<_>>();
            ids.dedup();
            ids
        };
        let user = security.user.as_ref().map(|user| (self.accounts.user(user), user));
        let (uids, gids) = (ids("Uid"), ids("Gid"));
        let asked = user.as_ref().map(|(_, user)| named(user));
        let holds =
            user.as_ref().is_some_and(|(entry, _)| entry.as_ref().is_some_and(|entry| uids == [entry.id]));
        self.judge("security.user", asked, Some(joined(&uids)), holds, None);
        let group = match (&security.group, &user) {
            (Some(group), _) => Some((named(group), self.accounts.group(group))),
            (None, Some((Some(entry), _))) => {
                entry.group.map(|group| (format!("{group} (the user's)"), Some(group)))
            }
            (None, _) => None,
        };
        let holds = group.as_ref().is_some_and(|(_, id)| id.is_some_and(|id| gids == [id]));
        self.judge("security.group", group.map(|(text, _)| text), Some(joined(&gids)), holds, None);
        let mut others: Vec<u32> = self.numbers("Groups").map(|id| inside(groups, id)).collect();
        let asked = security.has_account().then(|| match &security.groups[..] {
            [] => "none".to_owned(),
            groups => groups.iter().map(named).collect::<Vec<_>>().join(" "),
        });
        let wanted: Option<Vec<_>> = security.groups.iter().map(|group| self.accounts.group(group)).collect();
        let applies = joined(&others);
        others.retain(|id| !gids.contains(id));
        let holds = wanted.is_some_and(|mut wanted| {
            wanted.retain(|id| !gids.contains(id));
            wanted.sort_unstable();
            wanted.dedup();
            others.sort_unstable();
            wanted == others
        });
        self.judge("security.groups", asked, Some(applies), holds, None);
    }

    fn capabilities(&mut self) {
        let security = &self.component.security;
        let ambient = security.ambient_capabilities;
        for (aspect, line) in SETS {
            let applies = self.facts.status.get(line).and_then(|bits| u64::from_str_radix(bits, 16).ok());
            let Some(applies) = applies.map(CapabilitySet) else { continue };
            let asked = match line {
                // A program of root gets them all by exec, one of another user the ambient ones.
                "CapPrm" | "CapEff" if !self.gets_all_by_exec() => security.capabilities.map(|_| ambient),
                "CapInh" | "CapAmb" => (!ambient.is_empty()).then_some(ambient),
                _ => security.capabilities,
            };
            // A program may give up what it has got.
            let holds = asked.is_some_and(|asked| applies.without(asked).is_empty());
            self.judge(aspect, asked.map(set_text), Some(set_text(applies)), holds, None);
        }
    }

    fn gets_all_by_exec(&self) -> bool {
        let is_root = self.numbers("Uid").next().map(|id| inside(&self.facts.id_maps[0], id)) == Some(0);
        is_root && !self.component.security.securebits.contains(&SecureBit::Noroot)
    }

    fn numbers(&self, line: &str) -> impl Iterator<Item = u32> + '_ {
        let line = self.facts.status.get(line).map(String::as_str).unwrap_or_default();
        line.split_ascii_whitespace().filter_map(|number| number.parse().ok())
    }
}

/// Who somebody is in the process's user namespace, by the lines of its map; the kernel tells who he is outside.
fn inside(maps: &[[u32; 3]], id: u32) -> u32 {
    let line =
        maps.iter().find(|[_, outside, count]| id.checked_sub(*outside).is_some_and(|more| more < *count));
    line.map_or(id, |[inside, outside, _]| inside + (id - outside))
}

fn named(account: &Account) -> String {
    match account {
        Account::Id(id) => id.to_string(),
        Account::Name(name) => name.clone(),
    }
}

fn joined(ids: &[u32]) -> String {
    if ids.is_empty() {
        return "none".to_owned();
    }
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}

/// Names, or in short what is missing of all.
fn set_text(set: CapabilitySet) -> String {
    let missing = CapabilitySet::ALL.without(set);
    match (set.names().count(), missing.names().count()) {
        (0, _) => "none".to_owned(),
        (_, 0) => "all".to_owned(),
        (there, lacking) if lacking < there => format!("all but {missing}"),
        _ => set.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_mapped_is_known_inside() {
        let maps = [[0, 100_000, 1000], [5000, 33, 1]];
        assert_eq!((inside(&maps, 100_000), inside(&maps, 100_999), inside(&maps, 33)), (0, 999, 5000));
        assert_eq!((inside(&maps, 101_000), inside(&[], 7)), (101_000, 7), "nobody there");
    }

    #[test]
    fn sets_are_told_by_what_is_shorter() {
        assert_eq!(set_text(CapabilitySet::default()), "none");
        assert_eq!(set_text(CapabilitySet::ALL), "all");
        assert_eq!(set_text(CapabilitySet(1)), "CAP_CHOWN");
        assert_eq!(set_text(CapabilitySet::ALL.without(CapabilitySet(1))), "all but CAP_CHOWN");
    }
}
