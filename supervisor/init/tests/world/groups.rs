//! Control groups of the kernel, below one that the test has made: who is in which, whose they are, and that they go.
//!
//! Not every machine has version 2, or a right to make groups; limits are tried by the suite `isolation`, in a machine.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
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
        let Some(place) = places.into_iter().find(is_v2) else {
            eprintln!("not tried: there are no control groups of version 2");
            return None;
        };
        let own = place.join(format!("yakiros-test-{name}-{}", std::process::id()));
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

/// A supervisor and the groups that it has; it ends before they go.
struct World {
    guest: Guest,
    groups: Groups,
}

/// A supervisor that is root of the machine.
fn start(name: &str) -> Option<World> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not tried: groups are root's");
        return None;
    }
    let groups = Groups::make(name)?;
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::create_dir(dir.path().join("graph.d")).expect("configuration directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
    let program = Path::new(env!("CARGO_BIN_EXE_graph-resolver"));
    let guest = Guest::start_below(dir, "-pmf", program, &groups.0);
    Some(World { guest, groups })
}

fn sleeper(name: &str, more: &str) -> String {
    format!("[component]\nname = {name:?}\nbinary = \"/bin/sleep\"\nargs = [\"10000\"]\n{more}\n")
}

#[test]
fn slices_hold_what_lies_in_them_and_go_with_it() {
    let Some(world) = start("slices") else { return };
    let World { guest, groups } = &world;
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

/// Who has nothing but what is given to it.
const NOBODY: u32 = 65534;

/// A supervisor of nobody, in a group that is given to it, with a component of its own.
fn declare_nest(guest: &Guest, groups: &Groups) {
    let home = guest.dir.path().join("nest");
    let program = guest.dir.path().join("nested-resolver");
    // Where the program was built, nobody may have no way to.
    fs::copy(env!("CARGO_BIN_EXE_graph-resolver"), &program).expect("a copy");
    fs::create_dir_all(home.join("graph.d")).expect("directories");
    fs::write(home.join("graph.d/inner.toml"), sleeper("inner", "")).expect("a component file");
    fs::create_dir(home.join("state")).expect("a directory");
    for path in [home.clone(), home.join("graph.d"), home.join("state")] {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("its owner");
    }
    let path = |path: PathBuf| path.display().to_string();
    let args = [
        ("--config-dir", path(home.join("graph.d"))),
        ("--control-socket", path(home.join("sock"))),
        ("--state-dir", path(home.join("state"))),
        ("--cgroup-root", path(groups.0.join("graph/nest"))),
        ("--log", "stderr".to_owned()),
    ];
    let args: Vec<_> = args.iter().flat_map(|(flag, value)| [(*flag).to_owned(), value.clone()]).collect();
    let text = format!(
        "[component]\nname = \"nest\"\nbinary = \"{}\"\nargs = {args:?}\n\
         [security]\nuser = {NOBODY}\n[resources]\ndelegate = true\n",
        program.display()
    );
    guest.declare("nest.toml", &text);
}

#[test]
fn a_supervisor_divides_the_group_that_it_is_given() {
    let Some(world) = start("nest") else { return };
    let World { guest, groups } = &world;
    declare_nest(guest, groups);
    let inner = "nest/graph/inner";
    until("a component of the inner supervisor", || (groups.members(inner).len() == 1).then_some(()));
    let owner =
        |file: &str| fs::metadata(groups.0.join("graph").join(file)).expect("a file of a group").uid();
    for given in ["nest", "nest/cgroup.procs", "nest/cgroup.threads", "nest/cgroup.subtree_control", inner] {
        assert_eq!(owner(given), NOBODY, "{given}");
    }
    for kept in ["nest/cgroup.max.descendants", "nest/cgroup.freeze", "cgroup.procs"] {
        assert_eq!(owner(kept), 0, "{kept}");
    }
    for (file, bound) in [("cgroup.max.descendants", "1023"), ("cgroup.max.depth", "8")] {
        let said = fs::read_to_string(groups.0.join("graph/nest").join(file)).expect("a file of a group");
        assert_eq!(said.trim(), bound, "{file}");
    }
    // A group with processes could hand nothing down.
    assert_eq!(groups.members("nest"), [0; 0]);
    assert!(!groups.members("nest/supervisor").is_empty());
    let processes = || (guest.component("nest").pid, groups.members(inner));
    let before = processes();
    guest.ask(Request::Reexec);
    guest.wait("nest", State::Active, None);
    assert_eq!(processes(), before, "the outer supervisor is another image, and nothing else is");
    guest.undeclare("nest.toml");
    guest.wait("nest", State::Removed, None);
    until("all that was given to be gone", || (!groups.has("nest")).then_some(()));
}

#[test]
fn a_group_that_was_given_away_comes_back() {
    let Some(world) = start("back") else { return };
    let World { guest, groups } = &world;
    let owner =
        |file: &str| fs::metadata(groups.0.join("graph").join(file)).expect("a file of a group").uid();
    let given = ["tenant", "tenant/cgroup.procs", "tenant/cgroup.subtree_control"];
    let lived = |more: &str| {
        let before = guest.status().0.iter().find(|c| &*c.name == "tenant").and_then(|c| c.pid);
        guest.declare("tenant.toml", &sleeper("tenant", more));
        let is_another = || {
            let now = guest.status().0.into_iter().find(|c| &*c.name == "tenant")?;
            (now.state == State::Active && now.pid.is_some() && now.pid != before).then_some(())
        };
        until("the component as it is declared now", is_another);
        let bound = fs::read_to_string(groups.0.join("graph/tenant/cgroup.max.descendants"));
        (given.map(owner), bound.expect("a file of a group").trim().to_owned())
    };
    let user = format!("[security]\nuser = {NOBODY}\n");
    let delegated = "[resources]\ndelegate = true\n";
    assert_eq!(lived(&format!("{user}{delegated}")), ([NOBODY; 3], "1023".to_owned()));
    assert_eq!(lived(delegated), ([0; 3], "1023".to_owned()), "it has no user");
    assert_eq!(lived(&format!("{user}{delegated}")), ([NOBODY; 3], "1023".to_owned()));
    assert_eq!(lived(&user), ([0; 3], "max".to_owned()), "it is not given away");
}
