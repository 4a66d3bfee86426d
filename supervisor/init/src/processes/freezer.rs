//! Which group is frozen with a component.

use std::io;
use std::path::Path;
use std::rc::Rc;

use yakiros_core::engine::RunId;

use super::Processes;
use crate::cgroup::Cgroup;

impl Processes {
    /// The group of the component of a run, with all that is in it; or why it has none of its own.
    pub fn group_to_freeze(&self, run: RunId) -> Result<Cgroup, Rc<str>> {
        let process = self.runs.get(&run).ok_or("its process is gone")?;
        let name = &process.name;
        let Some(own) = &process.cgroup else {
            let why =
                "the supervisor runs without control groups (its log says why), and nothing else freezes";
            return Err(why.into());
        };
        let whole = self.cgroups.whole(name, own);
        let is_near = |path: &Path| path.starts_with(whole.path()) || whole.path().starts_with(path);
        let others = self.runs.values().filter(|process| process.name != *name);
        let mut near = others.filter(|other| other.cgroup.as_ref().is_some_and(|own| is_near(own.path())));
        match near.next() {
            None => Ok(whole),
            Some(other) => {
                let (path, other) = (whole.path().display(), &other.name);
                Err(format!(
                    "{name} has no control group of its own: {path} is also that of {other}, or inside of it, or \
                     around it; give {name} its own in resources.cgroup"
                )
                .into())
            }
        }
    }

    /// See [`crate::cgroup::Cgroups::set_frozen`].
    pub fn set_frozen(&mut self, run: RunId, path: &Rc<Path>, frozen: bool) -> io::Result<()> {
        let name = self.runs.get(&run).map(|process| Rc::clone(&process.name)).unwrap_or_default();
        self.cgroups.set_frozen(path, &name, frozen)
    }

    /// See [`crate::cgroup::Cgroups::expect_no_word`].
    pub fn expect_no_word(&mut self, path: &Path) {
        self.cgroups.expect_no_word(path);
    }
}
