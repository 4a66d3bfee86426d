//! Orders about checkpoints that are there.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::{Done, failed, named};
use crate::archive;
use crate::order::{Failure, Step, Teller};
use crate::store::{Id, Policy, Store};

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
    let swept = teller.step(Step::Sweep, || store.sweep())?;
    let removed = teller.step(Step::Retain, || store.retain(policy, component))?;
    let (kept, gone): (Vec<_>, Vec<_>) = removed.into_iter().partition(|removed| removed.in_use);
    let bytes: u64 = gone.iter().map(|removed| removed.size).sum();
    let message = format!(
        "removed {} checkpoints with {bytes} bytes and {} half-made ones; {} are in use",
        gone.len(),
        swept.len(),
        kept.len()
    );
    Ok((message, None))
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
        // It holds what was in the process's memory.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
        let file = file.map_err(|error| failed("make", to, &error))?;
        let written = archive::export(&checkpoint, BufWriter::new(&file)).map_err(|error| error.to_string());
        let written = written.and_then(|_| file.sync_all().map_err(|error| failed("write", to, &error)));
        if written.is_err() {
            // What is left of it could be taken for an archive; that it cannot be removed is the lesser trouble.
            let _ = std::fs::remove_file(to);
        }
        written
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
        let file = File::open(from).map_err(|error| failed("open", from, &error))?;
        let imported = archive::import(&store, BufReader::new(file), quota);
        imported.map_err(|error| format!("{}: {error}", from.display()))
    })?;
    Ok((format!("took in {component} {id}"), Some(named(&component, &id))))
}
