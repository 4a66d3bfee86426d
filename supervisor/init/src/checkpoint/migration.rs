//! What waits in the queue of a socket that is closed goes over to another one at the same place, while anything is moved:
//! that is what `net.ipv4.tcp_migrate_req` says, of the network namespace of the supervisor.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tracing::warn;

/// The setting.
const SETTING: &str = "/proc/sys/net/ipv4/tcp_migrate_req";

/// How many moves are under way, and how the setting was before the first.
#[derive(Default)]
struct State {
    count: Cell<u32>,
    /// It was off, and is to be so again.
    was_off: Cell<bool>,
}

/// See the module documentation.
pub struct Migrations {
    setting: PathBuf,
    state: Rc<State>,
}

/// One move. The last one that is dropped puts the setting back.
pub struct Migration {
    setting: PathBuf,
    state: Rc<State>,
}

impl Migrations {
    /// None is under way.
    pub fn new() -> Self {
        Self::at(Path::new(SETTING))
    }

    fn at(setting: &Path) -> Self {
        Self { setting: setting.to_owned(), state: Rc::default() }
    }

    /// One begins. A setting that cannot be changed costs clients that wait, and nothing else.
    pub fn begin(&self) -> Migration {
        let state = &self.state;
        if state.count.get() == 0 {
            let is_off = fs::read_to_string(&self.setting).is_ok_and(|text| text.trim() == "0");
            let changed = is_off.then(|| fs::write(&self.setting, "1"));
            state.was_off.set(matches!(changed, Some(Ok(()))));
            if let Some(Err(error)) = changed {
                warn!(
                    "clients that wait in a queue during a move are lost: {}: {error}",
                    self.setting.display()
                );
            }
        }
        state.count.set(state.count.get() + 1);
        Migration { setting: self.setting.clone(), state: Rc::clone(state) }
    }
}

impl Migrations {
    /// Whether the setting has to be put back, by whoever is there then.
    pub fn pass(&self) -> bool {
        self.state.was_off.get()
    }

    /// Nothing of what the process image before this one began goes on.
    pub fn put_back(&self) {
        // See below.
        let _ = fs::write(&self.setting, "0");
    }
}

impl Drop for Migration {
    fn drop(&mut self) {
        let state = &self.state;
        state.count.set(state.count.get() - 1);
        if state.count.get() == 0 && state.was_off.take() {
            // It could be changed before, and does no harm as it is.
            let _ = fs::write(&self.setting, "0");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_is_put_back_by_the_last_move_as_it_was() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let file = folder.path().join("setting");
        let all = Migrations::at(&file);
        let now = || fs::read_to_string(&file).expect("a setting");
        for before in ["0", "1"] {
            fs::write(&file, before).expect("a setting");
            let (one, two) = (all.begin(), all.begin());
            assert_eq!(now(), "1");
            drop(one);
            assert_eq!(now(), "1");
            assert_eq!(all.pass(), before == "0", "what another image of the supervisor has to do");
            drop(two);
            assert_eq!((now().as_str(), all.pass()), (before, false));
        }
    }
}
