//! Orders about checkpoints that are there.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use super::mend::{self, LOOK, PATIENCE, Presence};
use super::{Done, named, work};
use crate::archive;
use crate::criu;
use crate::order::{Failure, Step, Teller};
use crate::store::{Id, Policy, Store, StoreError};

/// How often it is looked whether a killed worker's CRIU has ended, too.
const LOOKS: u32 = 100;

pub(super) fn verify<W: Write>(
    base: &Path,
    component: &str,
    id: Option<&Id>,
    teller: &mut Teller<W>,
) -> Result<Done, Failure> {
    let store = teller.step(Step::Open, || Store::open(base))?;
    let checkpoint = teller.step(Step::Find, || store.find(component, id))?;
    let metadata = teller.step(Step::Verify, || checkpoint.verify())?;
    let (images, bytes, id) = (metadata.images.len(), metadata.image_size, checkpoint.id());
    let message = format!("{component} {id} is as it was written: {images} images with {bytes} bytes");
    Ok((message, Some(named(component, id))))
}

pub(super) fn cleanup<W: Write>(
    base: &Path,
    policy: &Policy,
    component: Option<&str>,
    teller: &mut Teller<W>,
) -> Result<Done, Failure> {
    let store = teller.step(Step::Open, || Store::open(base))?;
    let swept = teller.step(Step::Sweep, || sweep(&store))?;
    let removed = teller.step(Step::Retain, || store.retain(policy, component))?;
    let (kept, gone): (Vec<_>, Vec<_>) = removed.into_iter().partition(|removed| removed.in_use);
    let bytes: u64 = gone.iter().map(|removed| removed.size).sum();
    let mut message = format!(
        "removed {} checkpoints with {bytes} bytes and {} half-made ones; {} are in use",
        gone.len(),
        swept.removed.len(),
        kept.len()
    );
    if swept.others_at_work {
        message.push_str("; others are at work, so nothing that is half made was removed");
    }
    Ok((message, None))
}

/// What became of what was left half made.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// What was removed.
    pub removed: Vec<PathBuf>,
    /// Others were at work, and did not end in time: nothing was removed, and may be there.
    pub others_at_work: bool,
}

/// Remove what was left half made, and put right what it says of connections. While others are at work, whose connections
/// would be taken for that, it is left to the next who begins one; then nothing is removed. They are waited for up to ten
/// seconds.
///
/// # Errors
/// Those of looking and removing.
pub fn sweep(store: &Store) -> Result<Swept, StoreError> {
    sweep_within(store, PATIENCE)
}

fn sweep_within(store: &Store, patience: Duration) -> Result<Swept, StoreError> {
    let path = store.path();
    let failed = |error| StoreError::Failed { what: "lock", path: path.to_owned(), error };
    let presence = Presence::take(path).map_err(failed)?;
    let mut swept = Ok(Vec::new());
    let alone = presence.alone_within(patience, || swept = store.sweep_with(mend::left));
    Ok(Swept { removed: swept?, others_at_work: !alone })
}

/// Of checkpoints that are kept nothing is made at this moment, so that nobody's peers have to wait.
pub(super) fn mend<W: Write>(
    base: &Path,
    component: &str,
    work: Option<&Path>,
    teller: &mut Teller<W>,
) -> Result<Done, Failure> {
    // Whoever is still at work there has it locked.
    work.into_iter().for_each(work::sweep);
    let store = teller.step(Step::Open, || Store::open(base))?;
    let presence = teller.step(Step::Sweep, || Presence::take(base))?;
    // CRIU ends a moment after the worker that was killed.
    for _ in 0..LOOKS {
        let mut swept = Ok(Vec::new());
        let alone = presence.alone(|| {
            swept = store.sweep_with(mend::left);
            for id in store.ids(component).unwrap_or_default() {
                // Where there is no nf_tables nobody was kept waiting.
                let _ = criu::unlock(&store.path().join(component).join(id.as_str()));
            }
        });
        teller.step(Step::Sweep, || swept)?;
        if !alone {
            let reason = "others are at work, whose connections would be taken for what was left".to_owned();
            return Err(Failure { step: Step::Sweep, reason });
        }
        if !teller.step(Step::Sweep, || store.has_drafts(component))? {
            break;
        }
        sleep(LOOK);
    }
    Ok((format!("nothing is left of what was begun for {component}"), None))
}

pub(super) fn export<W: Write>(
    base: &Path,
    component: &str,
    id: Option<&Id>,
    to: &Path,
    teller: &mut Teller<W>,
) -> Result<Done, Failure> {
    let store = teller.step(Step::Open, || Store::open(base))?;
    let checkpoint = teller.step(Step::Find, || store.find(component, id))?;
    teller.step(Step::Export, || {
        archive::export_to(&checkpoint, to).map_err(|error| format!("{}: {error}", to.display()))
    })?;
    let id = checkpoint.id();
    Ok((format!("wrote {component} {id} to {}", to.display()), Some(named(component, id))))
}

pub(super) fn remove<W: Write>(
    base: &Path,
    component: &str,
    id: &Id,
    teller: &mut Teller<W>,
) -> Result<Done, Failure> {
    let store = teller.step(Step::Open, || Store::open(base))?;
    teller.step(Step::Remove, || store.remove(component, id))?;
    Ok((format!("removed {component} {id}"), Some(named(component, id))))
}

pub(super) fn import<W: Write>(
    base: &Path,
    from: &Path,
    quota: Option<u64>,
    teller: &mut Teller<W>,
) -> Result<Done, Failure> {
    let store = teller.step(Step::Open, || Store::make(base))?;
    let (component, id) = teller.step(Step::Import, || -> Result<_, String> {
        let imported = archive::import_from(&store, from, quota);
        imported.map_err(|error| format!("{}: {error}", from.display()))
    })?;
    Ok((format!("took in {component} {id}"), Some(named(&component, &id))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_may_be_at_work_on_is_left_and_that_is_said() {
        let base = tempfile::tempdir().expect("a directory");
        let store = Store::make(base.path()).expect("a store");
        let left = base.path().join("web").join(".new-left");
        std::fs::create_dir_all(&left).expect("a directory");
        let other = Presence::take(base.path()).expect("another");
        let swept = sweep_within(&store, Duration::ZERO).expect("swept");
        assert_eq!(swept, Swept { removed: Vec::new(), others_at_work: true });
        assert!(left.exists());
        drop(other);
        let swept = sweep_within(&store, Duration::ZERO).expect("swept");
        assert_eq!(swept, Swept { removed: vec![left.clone()], others_at_work: false });
        assert!(!left.exists());
    }
}
