//! Control groups of the kernel, below one that the test has made: who is in which, whose they are, and that they go.
//!
//! Not every machine has version 2, or a right to make groups; limits are tried by the suite `isolation`, in a machine.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use yakiros_core::control::Request;
use yakiros_core::journal::State;

use crate::guest::{Guest, until};

/// A group of the test's own. Dropping it ends what is in it.
struct Groups(PathBuf);

impl Groups {
    /// `None` (with the reason printed) where there are none to be had.
    fn make(name: &str) -> Option<Self> {
        let places = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let is_v2 =
            |place: &&Path| statfs(*place).is_ok_and(|it| it.filesystem_type() == CGROUP2_SUPER_MAGIC);
        let own = places.into_iter().find(is_v2)?.join(format!("yakiros-test-{name}-{}", std::process::id()));
        if let Err(error) = fs::create_dir(&own) {
            eprintln!("not tried: {}: {error}", own.display());
            return None;
        }
        Some(Self(own))
    }

    fn has(&self, group: &str) -> bool {
        self.0.join("graph").join(group).exists()
    }

    /// Numbers of the processes in a group, by this process's own count.
    fn members(&self, group: &str) -> Vec<i32> {
        let members =
            fs::read_to_string(self.0.join("graph").join(group).join("cgroup.procs")).unwrap_or_default();
        members.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        let empty =
            || fs::read_to_string(self.0.join("cgroup.events")).is_ok_and(|it| it.contains("populated 0"));
        until("the test's group to be empty", || empty().then_some(()));
        let mut all = vec![self.0.clone()];
        while let Some(group) = all.last().cloned() {
            let inner = fs::read_dir(&group).into_iter().flatten().flatten();
            let inner: Vec<_> = inner.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
            if inner.is_empty() {
                let _ = fs::remove_dir(&group);
                all.pop();
            }
            all.extend(inner);
        }
    }
}

/// A supervisor that is root of the machine, with the groups that it has.
fn start(name: &str) -> Option<(Guest, Groups)> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not tried: groups are root's");
        return None;
    }
    let groups = Groups::make(name)?;
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::create_dir(dir.path().join("graph.d")).expect("configuration directory");
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("its mode");
    let program = Path::new(env!("CARGO_BIN_EXE_graph-resolver"));
    let guest = Guest::start_below(dir, "-pmf", program, &groups.0);
    Some((guest, groups))
}

fn sleeper(name: &str, more: &str) -> String {
    format!("[component]\nname = {name:?}\nbinary = \"/bin/sleep\"\nargs = [\"10000\"]\n{more}\n")
}

#[test]
fn slices_hold_what_lies_in_them_and_go_with_it() {
    let Some((guest, groups)) = start("slices") else { return };
    guest.declare("web.toml", &sleeper("web", "[resources]\nslice = \"shop/back\""));
    guest.declare("inner.toml", "[slice]\nname = \"shop/back\"\n");
    until("the declaration", || guest.status().0.iter().any(|c| &*c.name == "web").then_some(()));
    guest.wait("web", State::Inactive, None);
    assert!(!groups.has("shop.slice"), "nothing is in it");
    guest.declare("outer.toml", "[slice]\nname = \"shop\"\n");
    guest.wait("web", State::Active, None);
    let web = "shop.slice/back.slice/web";
    let first = groups.members(web);
    assert_eq!(first.len(), 1);
    // What knows nothing of the supervisor before knows where everything is.
    guest.ask(Request::Reexec);
    guest.wait("web", State::Active, None);
    assert_eq!(groups.members(web), first);
    guest.undeclare("outer.toml");
    guest.wait("web", State::Inactive, None);
    assert_eq!(groups.members(web), [0; 0]);
    guest.declare("outer.toml", "[slice]\nname = \"shop\"\n");
    guest.wait("web", State::Active, None);
    guest.undeclare("web.toml");
    guest.wait("web", State::Removed, None);
    until("the slices to be gone", || (!groups.has("shop.slice")).then_some(()));
}
