//! For tests: groups that are directories and nothing else.

use std::fs;
use std::path::PathBuf;
use std::rc::Rc;

use yakiros_core::component::{Component, Resources};

use super::tree::SUBTREE;
use super::{Cgroup, Cgroups, Prepared, Refusal, Work};

/// A hierarchy that is none of the kernel's: its groups have no files but those that are written here.
pub struct Bench {
    pub root: tempfile::TempDir,
    pub all: Cgroups,
}

impl Bench {
    pub fn new() -> Self {
        let root = tempfile::tempdir().expect("temporary directory");
        let subtree = root.path().join(SUBTREE);
        fs::create_dir(&subtree).expect("directory");
        Self { root, all: Cgroups::below(Some(subtree)) }
    }

    pub fn path(&self, group: &str) -> PathBuf {
        self.root.path().join(SUBTREE).join(group)
    }

    pub fn prepare(&mut self, name: &str, group: &str) -> Result<Prepared, Refusal> {
        self.all.prepare(&component(name, group, ""), &[])
    }

    pub fn start(&mut self, name: &str, group: &str) -> Cgroup {
        match self.prepare(name, group) {
            Ok(Prepared::Ready(Some(cgroup))) => {
                self.all.hold(&cgroup);
                cgroup
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn kill(&mut self, cgroup: &Cgroup) {
        let file = cgroup.path.join("cgroup.kill");
        fs::write(&file, "").expect("file");
        self.all.kill(cgroup);
        assert_eq!(fs::read_to_string(&file).expect("file"), "1");
        // The kernel's files are no reason not to remove a directory.
        fs::remove_file(file).expect("file");
    }

    /// A group has these controllers.
    pub fn offer(&self, group: &str, controllers: &str) {
        fs::write(self.path(group).join("cgroup.controllers"), controllers).expect("file");
    }

    /// It has no such file, which would keep the directory from being removed.
    pub fn offer_nothing(&self, group: &str) {
        fs::remove_file(self.path(group).join("cgroup.controllers")).expect("file");
    }

    pub fn change(&self, cgroup: &Cgroup, resources: &Resources) -> Work {
        self.all.change(cgroup, resources).expect("a change")
    }

    /// What shows that a group was made anew.
    pub fn mark(&self, group: &str) {
        fs::create_dir(self.path(group).join("made-by-itself")).expect("directory");
    }

    pub fn is_marked(&self, group: &str) -> bool {
        self.path(group).join("made-by-itself").exists()
    }
}

pub fn component(name: &str, group: &str, more: &str) -> Component {
    let text = format!(
        "[component]\nname = {name:?}\nbinary = \"/bin/true\"\n[resources]\ncgroup = {group:?}\n{more}\n"
    );
    yakiros_core::component::parse(&text).component.expect("a component")
}

pub fn slice(name: &str, limits: &str) -> Rc<Component> {
    let text = format!("[slice]\nname = {name:?}\n[resources]\n{limits}\n");
    Rc::new(yakiros_core::component::parse(&text).component.expect("a slice"))
}
