//! A checkpoint that is there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::damage::Damage;
use super::directory::{Directory, Kind};
use super::draft::sync_images;
use super::id::Id;
use super::metadata::{self, Metadata, PARENT, hexadecimal, parent_of, round_directory};
use super::{StoreError, failed};

/// Bytes that are read at once.
const CHUNK: usize = 1 << 18;

/// One whose directory is open, so that nobody removes it.
#[derive(Debug)]
pub struct Checkpoint {
    directory: Directory,
    component: String,
    id: Id,
}

/// What is known of one without reading its images.
#[derive(Clone, Debug, Serialize)]
pub struct Outline {
    /// Whose it is.
    pub component: String,
    /// What it is called.
    pub id: Id,
    /// Bytes of the files that are there.
    pub bytes: u64,
    /// What it says of itself.
    pub metadata: Option<Metadata>,
    /// Why it cannot be used, if that is plain already.
    pub damage: Option<String>,
}

impl Checkpoint {
    pub(super) fn new(directory: Directory, component: String, id: Id) -> Self {
        Self { directory, component, id }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// What it is called.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// What it says of itself, if it belongs here: on this kind of machine, to this component, under this name.
    pub fn metadata(&self) -> Result<Metadata, StoreError> {
        let metadata =
            Metadata::from_bytes(&self.metadata_bytes()?).map_err(|damage| self.damaged(damage))?;
        let here = architecture();
        let damage = if metadata.component != self.component {
            Damage::Foreign(format!(
                "it is of {} and lies among those of {}",
                metadata.component, self.component
            ))
        } else if metadata.id != self.id {
            Damage::Foreign(format!("it is called {} and lies at {}", metadata.id, self.id))
        } else if metadata.architecture != here {
            Damage::Architecture { found: metadata.architecture, here }
        } else {
            return Ok(metadata);
        };
        Err(self.damaged(damage))
    }

    /// Compare all that is there with all that was written.
    pub fn verify(&self) -> Result<Metadata, StoreError> {
        let metadata = self.metadata()?;
        self.look_for_strangers(&metadata)?;
        let mut buffer = vec![0; CHUNK];
        for image in &metadata.images {
            let mut file = self.image(&image.name)?;
            let size = file.metadata().map_err(failed("look at", &self.path().join(&image.name)))?.len();
            let damage = if size == image.size {
                let read = hash_file(&mut file, image.size, &mut buffer);
                let (size, sha256) = read.map_err(failed("read", &self.path().join(&image.name)))?;
                (size != image.size || sha256 != image.sha256).then(|| Damage::Content(image.name.clone()))
            } else {
                Some(Damage::Size { name: image.name.clone(), listed: image.size, found: size })
            };
            if let Some(damage) = damage {
                return Err(self.damaged(damage));
            }
        }
        Ok(metadata)
    }

    /// Have the disk write all of it.
    pub(super) fn sync(&self, metadata: &Metadata) -> io::Result<()> {
        sync_images(&self.directory, &metadata.images, metadata.rounds)?;
        self.directory.file(metadata::FILE)?.sync_all()?;
        self.directory.sync()
    }

    /// An image of it, to be read.
    pub(crate) fn image(&self, name: &str) -> Result<File, StoreError> {
        let opened = match name.split_once('/') {
            Some((round, name)) => self.directory.child(round).and_then(|round| round.file(name)),
            None => self.directory.file(name),
        };
        match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(self.damaged(Damage::Missing(name.to_owned())))
            }
            opened => opened.map_err(failed("open", &self.path().join(name))),
        }
    }

    /// `metadata.json` as it is.
    pub(crate) fn metadata_bytes(&self) -> Result<Vec<u8>, StoreError> {
        let unreadable =
            |error: io::Error| self.damaged(Damage::Metadata(format!("failed to read it: {error}")));
        let file = self.directory.file(metadata::FILE).map_err(unreadable)?;
        let mut bytes = Vec::new();
        // One byte more than allowed, so that the reader sees that it is too long.
        file.take(metadata::SIZE_LIMIT + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        Ok(bytes)
    }

    /// The lock by which nobody removes it, as long as it is open.
    pub(crate) fn lock(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// For a list. Whatever is wrong with it is its own damage, and nobody else's.
    pub(super) fn outline(&self) -> Outline {
        let (metadata, damage) = match self.metadata() {
            Ok(metadata) => (Some(metadata), None),
            Err(StoreError::Damaged { damage, .. }) => (None, Some(damage.to_string())),
            Err(error) => (None, Some(error.to_string())),
        };
        let (bytes, unlisted) = size_below(&self.directory);
        let unlisted = unlisted.map(|error| failed("list", self.path())(error).to_string());
        let (component, id) = (self.component.clone(), self.id.clone());
        let metadata = metadata.filter(|_| unlisted.is_none());
        Outline { component, id, bytes, metadata, damage: damage.or(unlisted) }
    }

    /// What is there and not listed, and links that lead elsewhere than CRIU made them.
    fn look_for_strangers(&self, metadata: &Metadata) -> Result<(), StoreError> {
        let found = scan(&self.directory, metadata.rounds).map_err(|error| match error {
            ScanError::Damage(damage) => self.damaged(damage),
            ScanError::Failed(error) => failed("list", self.path())(error),
        })?;
        let listed =
            |name: &str| metadata.images.binary_search_by(|image| image.name.as_str().cmp(name)).is_ok();
        match found.keys().find(|name| *name != metadata::FILE && !listed(name)) {
            Some(stranger) => Err(self.damaged(Damage::Unexpected(stranger.clone()))),
            None => Ok(()),
        }
    }

    fn damaged(&self, damage: Damage) -> StoreError {
        StoreError::Damaged { path: self.path().to_owned(), damage }
    }
}

/// Why a directory cannot be, or become, a checkpoint's.
pub(super) enum ScanError {
    Damage(Damage),
    Failed(io::Error),
}

impl From<io::Error> for ScanError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// All regular files of a checkpoint's directory and of its rounds, with their sizes. Links and directories are there
/// exactly as CRIU makes them.
pub(super) fn scan(directory: &Directory, rounds: u32) -> Result<BTreeMap<String, u64>, ScanError> {
    let mut found = BTreeMap::new();
    scan_round(directory, None, rounds, &mut found)?;
    for round in 1..=rounds {
        match directory.child(round_directory(round)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ScanError::Damage(Damage::Missing(round_directory(round))));
            }
            child => scan_round(&child?, Some(round), rounds, &mut found)?,
        }
    }
    Ok(found)
}

fn scan_round(
    directory: &Directory,
    round: Option<u32>,
    rounds: u32,
    found: &mut BTreeMap<String, u64>,
) -> Result<(), ScanError> {
    let mut parent = parent_of(round, rounds);
    for entry in directory.entries()? {
        let name = entry.text();
        let path = match round {
            Some(round) => format!("{}/{name}", round_directory(round)),
            None => name.clone().into_owned(),
        };
        match entry.kind {
            Kind::File => {
                let size = directory.file(&entry.name)?.metadata()?.len();
                found.insert(path, size);
            }
            Kind::Directory
                if round.is_none() && (1..=rounds).any(|round| round_directory(round) == name) => {}
            Kind::Link if name == PARENT && parent.is_some() => {
                let target = directory.target(PARENT)?;
                if parent.take().as_deref().map(str::as_bytes) != Some(target.as_bytes()) {
                    return Err(ScanError::Damage(Damage::Kind(path)));
                }
            }
            _ => return Err(ScanError::Damage(Damage::Kind(path))),
        }
    }
    match parent {
        Some(_) => Err(ScanError::Damage(Damage::Missing(PARENT.to_owned()))),
        None => Ok(()),
    }
}

/// Bytes of all regular files, whatever they are called, of a directory and those in it; and why some are not counted.
fn size_below(directory: &Directory) -> (u64, Option<io::Error>) {
    let (mut bytes, mut failure) = (0, None);
    let mut count = |directory: &Directory, inner: &mut Vec<Directory>| -> io::Result<()> {
        for entry in directory.entries()? {
            match entry.kind {
                Kind::File => bytes += directory.file(&entry.name)?.metadata()?.len(),
                Kind::Directory => inner.push(directory.child(&entry.name)?),
                _ => {}
            }
        }
        Ok(())
    };
    let mut inner = Vec::new();
    failure = count(directory, &mut inner).err().or(failure);
    for round in &inner {
        failure = count(round, &mut Vec::new()).err().or(failure);
    }
    (bytes, failure)
}

/// Size and SHA-256 of what can be read of a file, up to one byte more than expected.
pub(super) fn hash_file(file: &mut File, expected: u64, buffer: &mut [u8]) -> io::Result<(u64, String)> {
    let mut digest = Sha256::new();
    let mut file = file.take(expected.saturating_add(1));
    let mut size = 0;
    loop {
        match file.read(buffer) {
            Ok(0) => return Ok((size, hexadecimal(&digest.finalize()))),
            Ok(length) => {
                digest.update(&buffer[..length]);
                size += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// As `uname -m` calls this machine.
pub(crate) fn architecture() -> String {
    rustix::system::uname().machine().to_string_lossy().into_owned()
}
