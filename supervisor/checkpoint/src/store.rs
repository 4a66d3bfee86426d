//! Checkpoints as they lie in a directory: `<base>/<component>/<id>/` with CRIU's images and `metadata.json`.
//!
//! A checkpoint is there whole or not at all: it is made in a hidden directory beside its place, written to the disk and
//! renamed. Whatever ends the one who makes or removes it, at whatever point, the next [`Store::sweep`] finds what
//! is left by the lock that nobody holds any more. Nothing is used before every byte of it was compared with what was
//! written: [`Checkpoint::verify`]. Names never lead out of the directory, and no link is followed.
//!
//! Several processes may use a store at the same time.

mod checkpoint;
pub(crate) mod damage;
pub(crate) mod directory;
mod draft;
pub(crate) mod id;
pub(crate) mod metadata;
mod retention;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

pub(crate) use checkpoint::architecture;
pub use checkpoint::{Checkpoint, Outline};
pub use damage::Damage;
use directory::{Directory, Kind};
pub use draft::Draft;
pub(crate) use draft::WORK;
pub use id::{COMPONENT_LIMIT, Id, NameError};
pub use metadata::{
    FORMAT, Facts, IMAGE_NAME_LIMIT, IMAGES_LIMIT, Image, Metadata, ROUNDS_LIMIT, Role, SIZE_LIMIT, Version,
    round_directory,
};
pub use retention::{Excess, Policy};

/// Checkpoints that are kept.
pub const KEPT: &str = "/var/lib/graph/checkpoints";
/// Checkpoints that are needed during an upgrade only.
pub const FLEETING: &str = "/run/graph/checkpoints";

/// Begins the name of what is being made.
const NEW: &str = ".new-";
/// Begins the name of what is being removed.
const OLD: &str = ".old-";

/// All checkpoints below one directory.
#[derive(Debug)]
pub struct Store {
    base: Directory,
}

/// What is not done, and why.
#[derive(Debug)]
pub enum StoreError {
    /// A call to the system failed.
    Failed {
        /// Completes "failed to …".
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The directory can be changed by others, who could have a process restored as they like.
    Exposed(PathBuf),
    /// No name of a component.
    Name(NameError),
    /// There is no such checkpoint.
    Absent {
        /// Of this component.
        component: String,
        /// With this name; without one, none at all.
        id: Option<Id>,
    },
    /// It is there and not used.
    Damaged {
        /// Where.
        path: PathBuf,
        /// Why.
        damage: Damage,
    },
    /// Somebody reads it, or restores from it.
    InUse(PathBuf),
    /// There is one with its name already.
    Present(PathBuf),
    /// With others that cannot be removed it is larger than all may be.
    Quota {
        /// Its size in bytes.
        size: u64,
        /// Bytes of those that are in use.
        used: u64,
        /// What is allowed.
        quota: u64,
    },
}

/// What all checkpoints of one component take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// The component.
    pub component: String,
    /// How many there are, those that cannot be used included.
    pub checkpoints: usize,
    /// Bytes of their images, by what is there and not by what is said.
    pub bytes: u64,
}

/// What [`Store::retain`] did not keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Whose it was.
    pub component: String,
    /// What it was called.
    pub id: Id,
    /// In bytes.
    pub size: u64,
    /// Why.
    pub why: Excess,
    /// It is still there: somebody reads it.
    pub in_use: bool,
}

impl Store {
    /// The store in this directory, which is made if it is not there.
    pub fn make(base: &Path) -> Result<Self, StoreError> {
        use std::os::unix::fs::DirBuilderExt as _;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(base);
        made.map_err(failed("make the directory", base))?;
        Self::open(base)
    }

    /// The store in this directory.
    pub fn open(base: &Path) -> Result<Self, StoreError> {
        let directory = Directory::open(base).map_err(failed("open the directory", base))?;
        if !directory.is_private().map_err(failed("ask for the owner of", base))? {
            return Err(StoreError::Exposed(base.to_owned()));
        }
        Ok(Self { base: directory })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.base.path()
    }

    /// Bytes that may still be written to its file system.
    pub fn room(&self) -> Result<u64, StoreError> {
        self.base.room().map_err(failed("ask for the room of", self.path()))
    }

    /// The components with a directory, by name.
    pub fn components(&self) -> Result<Vec<String>, StoreError> {
        let entries = self.base.entries().map_err(failed("list", self.path()))?;
        let named = entries.into_iter().filter(|entry| entry.kind == Kind::Directory);
        let names = named.filter_map(|entry| entry.name.into_string().ok());
        Ok(names.filter(|name| id::check_component(name).is_ok()).collect())
    }

    /// The names of a component's checkpoints, newest first. None is no error.
    pub fn ids(&self, component: &str) -> Result<Vec<Id>, StoreError> {
        let Some(directory) = self.component(component)? else {
            return Ok(Vec::new());
        };
        let entries = directory.entries().map_err(failed("list", directory.path()))?;
        let named = entries.into_iter().filter(|entry| entry.kind == Kind::Directory);
        let mut ids: Vec<Id> = named.filter_map(|entry| entry.text().parse().ok()).collect();
        ids.sort_unstable_by(|one, other| other.cmp(one));
        Ok(ids)
    }

    /// All checkpoints of a component, or of all, newest first, as they describe themselves: images are not read.
    pub fn list(&self, component: Option<&str>) -> Result<Vec<Outline>, StoreError> {
        let components = match component {
            Some(component) => vec![component.to_owned()],
            None => self.components()?,
        };
        let mut outlines = Vec::new();
        for component in components {
            for id in self.ids(&component)? {
                match self.find(&component, Some(&id)) {
                    Ok(checkpoint) => outlines.push(checkpoint.outline()),
                    // It was removed meanwhile.
                    Err(StoreError::Absent { .. }) => {}
                    Err(error) => {
                        let (component, damage) = (component.clone(), Some(error.to_string()));
                        outlines.push(Outline { component, id, bytes: 0, metadata: None, damage });
                    }
                }
            }
        }
        outlines
            .sort_by(|one, other| other.id.cmp(&one.id).then_with(|| one.component.cmp(&other.component)));
        Ok(outlines)
    }

    /// A component's checkpoint, by its name or the newest. It is not removed as long as the value lives.
    pub fn find(&self, component: &str, id: Option<&Id>) -> Result<Checkpoint, StoreError> {
        let absent = || StoreError::Absent { component: component.to_owned(), id: id.cloned() };
        let directory = self.component(component)?.ok_or_else(absent)?;
        let id = match id {
            Some(id) => id.clone(),
            None => self.ids(component)?.into_iter().next().ok_or_else(absent)?,
        };
        let path = directory.path().join(id.as_str());
        let found = match directory.child(id.as_str()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(absent()),
            found => found.map_err(failed("open", &path))?,
        };
        // Who removes it has it alone for that moment, and has moved it away first.
        let locked = found.lock(false).map_err(failed("lock", &path))?;
        if !locked || !found.is(&directory, id.as_str()).map_err(failed("look at", &path))? {
            return Err(absent());
        }
        Ok(Checkpoint::new(found, component.to_owned(), id))
    }

    /// Have the disk write one that was put in its place before.
    pub(crate) fn sync(&self, checkpoint: &Checkpoint, metadata: &Metadata) -> Result<(), StoreError> {
        let directory = self.component(&metadata.component)?;
        let above = || directory.map_or(Ok(()), |directory| directory.sync()).and_then(|()| self.base.sync());
        checkpoint
            .sync(metadata)
            .and_then(|()| above())
            .map_err(failed("write to the disk", checkpoint.path()))
    }

    /// Begin a checkpoint of a component.
    pub fn begin(&self, component: &str) -> Result<Draft, StoreError> {
        id::check_component(component).map_err(StoreError::Name)?;
        let newest = self.ids(component)?.into_iter().next();
        Draft::begin(&self.base, component, || Id::next(now(), newest.as_ref(), random()))
    }

    /// Begin one that was made elsewhere and has its name.
    pub(crate) fn begin_named(&self, component: &str, id: &Id) -> Result<Draft, StoreError> {
        id::check_component(component).map_err(StoreError::Name)?;
        if self.ids(component)?.contains(id) {
            return Err(StoreError::Present(self.path().join(component).join(id.as_str())));
        }
        Draft::begin(&self.base, component, || id.clone())
    }

    /// Remove a checkpoint, whether it can be used or not. One that is in use is refused.
    pub fn remove(&self, component: &str, id: &Id) -> Result<(), StoreError> {
        let absent = || StoreError::Absent { component: component.to_owned(), id: Some(id.clone()) };
        let directory = self.component(component)?.ok_or_else(absent)?;
        let path = directory.path().join(id.as_str());
        let found = match directory.child(id.as_str()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(absent()),
            found => found.map_err(failed("open", &path))?,
        };
        if !found.lock(true).map_err(failed("lock", &path))? {
            return Err(StoreError::InUse(path));
        }
        let hidden = format!("{OLD}{id}");
        match directory.rename(id.as_str(), &directory, &hidden) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(absent()),
            renamed => renamed.map_err(failed("move away", &path))?,
        }
        directory.sync().map_err(failed("write to the disk", directory.path()))?;
        directory.remove(&hidden).map_err(failed("remove", &directory.path().join(&hidden)))?;
        self.base.remove_empty(component).map_err(failed("remove", directory.path()))?;
        Ok(())
    }

    /// Whether somebody makes a checkpoint of a component, or has left one half made.
    pub(crate) fn has_drafts(&self, component: &str) -> Result<bool, StoreError> {
        let Some(directory) = self.component(component)? else { return Ok(false) };
        let entries = directory.entries().map_err(failed("list", directory.path()))?;
        Ok(entries.iter().any(|entry| entry.text().starts_with(NEW)))
    }

    /// Remove what somebody began to make, or to remove, who is no more. Returns the paths. What that may have done to
    /// connections is put right by [`crate::worker::sweep`] alone.
    pub fn sweep(&self) -> Result<Vec<PathBuf>, StoreError> {
        self.sweep_with(|_| ())
    }

    /// The same, and look at each before it goes.
    pub(crate) fn sweep_with(&self, mut look: impl FnMut(&Path)) -> Result<Vec<PathBuf>, StoreError> {
        let mut swept = Vec::new();
        for component in self.components()? {
            let Some(directory) = self.component(&component)? else { continue };
            for entry in directory.entries().map_err(failed("list", directory.path()))? {
                let name = entry.text();
                if ![NEW, OLD].iter().any(|prefix| name.starts_with(prefix)) {
                    continue;
                }
                let path = directory.path().join(&*name);
                if entry.kind != Kind::Directory {
                    directory.remove(&entry.name).map_err(failed("remove", &path))?;
                    swept.push(path);
                    continue;
                }
                // Held until it is removed, so that nobody takes it up meanwhile.
                let held = match directory.child(&entry.name) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    held => held.map_err(failed("open", &path))?,
                };
                if held.lock(true).map_err(failed("lock", &path))? {
                    look(&path);
                    directory.remove(&entry.name).map_err(failed("remove", &path))?;
                    swept.push(path);
                }
            }
            self.base.remove_empty(&component).map_err(failed("remove", directory.path()))?;
        }
        Ok(swept)
    }

    /// Remove what is more than a policy allows: of one component, or of all and then by the quota, too. One that
    /// cannot be removed is told when all others are.
    pub fn retain(&self, policy: &Policy, component: Option<&str>) -> Result<Vec<Removed>, StoreError> {
        let present: Vec<_> = self.sizes(component)?;
        let policy = Policy { quota: policy.quota.filter(|_| component.is_none()), ..*policy };
        let (mut removed, mut failure) = (Vec::new(), None);
        for ((id, component), why) in retention::excess(&policy, now(), &present) {
            let size = present.iter().find(|one| one.key.0 == id && one.component == component);
            let size = size.map_or(0, |one| one.size);
            let in_use = match self.remove(&component, &id) {
                Ok(()) => false,
                Err(StoreError::InUse(_)) => true,
                // Somebody else was faster.
                Err(StoreError::Absent { .. }) => continue,
                Err(error) => {
                    failure.get_or_insert(error);
                    continue;
                }
            };
            removed.push(Removed { component, id, size, why, in_use });
        }
        failure.map_or(Ok(removed), Err)
    }

    /// Make room for so many bytes more: the oldest goes, of whichever component, until all together have no more than the
    /// quota. What is in use stays; if there is too much of that, nothing is removed at all.
    pub(crate) fn make_room(&self, size: u64, quota: u64) -> Result<(), StoreError> {
        let mut present = if size <= quota { self.sizes(None)? } else { Vec::new() };
        present.sort_by(|one, other| (one.micros, &one.key).cmp(&(other.micros, &other.key)));
        let mut used: u64 = present.iter().map(|one| one.size).fold(0, u64::saturating_add);
        let mut going = Vec::new();
        for one in present {
            if used.saturating_add(size) <= quota {
                break;
            }
            if self.is_in_use(&one.component, &one.key.0)? {
                continue;
            }
            used = used.saturating_sub(one.size);
            going.push(one);
        }
        if used.saturating_add(size) > quota {
            return Err(StoreError::Quota { size, used, quota });
        }
        for one in going {
            match self.remove(&one.component, &one.key.0) {
                Ok(()) | Err(StoreError::Absent { .. }) => {}
                // It has come into use since it was looked at.
                Err(StoreError::InUse(_)) => {
                    return Err(StoreError::Quota { size, used: used + one.size, quota });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether somebody reads it, or makes something from it, now. One that is not there is not.
    fn is_in_use(&self, component: &str, id: &Id) -> Result<bool, StoreError> {
        let Some(directory) = self.component(component)? else { return Ok(false) };
        let path = directory.path().join(id.as_str());
        let found = match directory.child(id.as_str()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            found => found.map_err(failed("open", &path))?,
        };
        Ok(!found.lock(true).map_err(failed("lock", &path))?)
    }

    /// What the checkpoints of each component take.
    pub fn usage(&self) -> Result<Vec<Usage>, StoreError> {
        let present = self.sizes(None)?;
        let of = |component: String| {
            let own = || present.iter().filter(|one| one.component == component);
            Usage { checkpoints: own().count(), bytes: own().map(|one| one.size).sum(), component }
        };
        Ok(self.components()?.into_iter().map(of).filter(|usage| usage.checkpoints > 0).collect())
    }

    fn sizes(&self, component: Option<&str>) -> Result<Vec<retention::Present<(Id, String)>>, StoreError> {
        let present = self.list(component)?.into_iter().map(|outline| retention::Present {
            micros: outline.id.micros(),
            begun: outline
                .metadata
                .map_or(outline.id.micros(), |metadata| metadata.timestamp.saturating_mul(1_000_000)),
            key: (outline.id, outline.component.clone()),
            component: outline.component,
            size: outline.bytes,
        });
        Ok(present.collect())
    }

    fn component(&self, component: &str) -> Result<Option<Directory>, StoreError> {
        id::check_component(component).map_err(StoreError::Name)?;
        match self.base.child(component) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found.map(Some).map_err(failed("open", &self.path().join(component))),
        }
    }
}

/// Adds what was tried, and with what.
fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |error| StoreError::Failed { what, path, error }
}

/// In microseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Names are told apart by their time; this keeps those of two machines apart. Without entropy, which a machine may lack
/// while it boots, the process's number has to do.
fn random() -> u32 {
    use rustix::rand::{GetRandomFlags, getrandom};
    let mut bytes = [0; 4];
    match getrandom(&mut bytes, GetRandomFlags::NONBLOCK) {
        Ok(4) => u32::from_ne_bytes(bytes),
        _ => std::process::id(),
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { what, path, error } => write!(f, "failed to {what} {}: {error}", path.display()),
            Self::Exposed(path) => write!(
                f,
                "{} can be changed by others than root, who could have any process restored: run chown root and \
                 chmod 700 on it, and remove what is in it",
                path.display()
            ),
            Self::Name(error) => error.fmt(f),
            Self::Absent { component, id: Some(id) } => write!(f, "{component} has no checkpoint {id}"),
            Self::Absent { component, id: None } => write!(f, "{component} has no checkpoint"),
            Self::Damaged { path, damage } => write!(f, "{} is not used: {damage}", path.display()),
            Self::InUse(path) => write!(f, "{} is in use; try again later", path.display()),
            Self::Present(path) => write!(f, "{} is there already", path.display()),
            Self::Quota { size, used, quota } => {
                write!(f, "it has {size} bytes, ")?;
                if *used > 0 {
                    write!(f, "others that are in use have {used}, ")?;
                }
                write!(f, "and all checkpoints together may have {quota}: raise the quota or do without it")
            }
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed { error, .. } => Some(error),
            Self::Name(error) => Some(error),
            Self::Damaged { damage, .. } => Some(damage),
            _ => None,
        }
    }
}
