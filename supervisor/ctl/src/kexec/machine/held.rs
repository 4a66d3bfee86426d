//! What is to be there right before the jump, by the supervisor and by the store.

use std::path::Path;

use yakiros_checkpoint::store::{Checkpoint, Id, Store, StoreError};
use yakiros_core::control::{CheckpointMark, ComponentStatus};

/// Whether everything that was written down stands still as the process that it was: what has gone on since would be set back.
pub fn all_held(components: &[ComponentStatus], going: &[(String, i32)]) -> Result<(), String> {
    for (name, pid) in going {
        let found = components.iter().find(|one| *one.name == **name);
        let found = found.ok_or_else(|| format!("{name} is not declared any more"))?;
        if found.pid != Some(*pid) {
            let is = found.pid.map_or("no process".to_owned(), |pid| format!("process {pid}"));
            return Err(format!("{name} was written down as process {pid}, and has {is} now"));
        }
        if found.checkpoint != Some(CheckpointMark::Held) {
            return Err(format!(
                "{name} does not stand still any more: it has gone on since it was written down"
            ));
        }
    }
    Ok(())
}

/// A checkpoint that the supervisor has made, if it is where it is looked for. Nobody removes it as long as the value lives.
pub fn below(dir: &Path, component: &str, id: &Id) -> Result<Checkpoint, String> {
    match Store::open(dir).and_then(|store| store.find(component, Some(id))) {
        Ok(found) => Ok(found),
        Err(error @ StoreError::Absent { .. }) => Err(format!(
            "{error} below {}: the supervisor keeps them elsewhere, as its --checkpoints says, and has it there still; name \
             that place with --dir",
            dir.display()
        )),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use yakiros_core::control::Health;
    use yakiros_core::journal::State;

    use super::*;

    fn component(name: &str, pid: Option<i32>, checkpoint: Option<CheckpointMark>) -> ComponentStatus {
        ComponentStatus {
            name: name.into(),
            slice: None,
            cgroup: None,
            state: State::Active,
            pid,
            uptime_ms: None,
            restarts: 0,
            oom_kills: 0,
            strains: Vec::new(),
            health: Health::None,
            detail: None,
            status_text: None,
            announced: None,
            freezer: None,
            checkpoint,
            descriptors: Vec::new(),
        }
    }

    #[test]
    fn what_does_not_stand_still_any_more_is_found() {
        let held = Some(CheckpointMark::Held);
        let going = ["web", "cache"].map(|name| (name.to_owned(), 7));
        let with = |cache: &[ComponentStatus]| {
            let other = [component("other", Some(9), None), component("web", Some(7), held)];
            all_held(&[&other[..], cache].concat(), &going)
        };
        assert_eq!(with(&[component("cache", Some(7), held)]), Ok(()));
        for (cache, why) in [
            (Some(component("cache", Some(7), None)), "cache does not stand still"),
            (Some(component("cache", Some(7), Some(CheckpointMark::Restoring))), "does not stand still"),
            (Some(component("cache", Some(8), held)), "as process 7, and has process 8 now"),
            (Some(component("cache", None, None)), "as process 7, and has no process now"),
            (None, "cache is not declared"),
        ] {
            let said = with(cache.as_slice()).expect_err("refused");
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn a_checkpoint_that_lies_elsewhere_is_told_with_where_it_was_looked_for() {
        let dir = tempfile::tempdir().expect("a folder");
        let id: Id = "20261122T081530.123456Z-9f3a61c2".parse().expect("a name");
        let said = below(dir.path(), "web", &id).expect_err("it is not there");
        let place = dir.path().display().to_string();
        assert!(
            ["web has no checkpoint", &place, "--checkpoints", "--dir"]
                .iter()
                .all(|part| said.contains(part)),
            "{said}"
        );
        fs::create_dir_all(dir.path().join("web").join(id.as_str())).expect("a folder");
        let held = below(dir.path(), "web", &id).expect("it is there");
        let store = Store::open(dir.path()).expect("a store");
        assert!(matches!(store.remove("web", &id), Err(StoreError::InUse(_))), "another may need the room");
        drop(held);
        store.remove("web", &id).expect("nobody needs it");
    }
}
