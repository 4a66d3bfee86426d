//! A checkpoint as one file, for another machine: a plain tar archive with `metadata.json` first and every image in the
//! order of its list.
//!
//! The same checkpoint always makes the same bytes. What is taken in is compared with its list while it arrives, and goes
//! nowhere but to the place that the list allows; extensions of tar, links and directories do not occur.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use tar::{Archive, Builder, Entry, EntryType, Header};

use crate::store::damage::Damage;
use crate::store::metadata::FILE;
use crate::store::{Checkpoint, Id, Metadata, SIZE_LIMIT, Store, StoreError, now};

/// Files are root's alone, wherever they are unpacked by hand.
const MODE: u32 = 0o600;

/// How far the clock of another machine may be ahead, in microseconds: one day, as time zones that are taken for UTC make
/// it. A name from the future would be the newest until then, and the names of all that are made after it follow it.
const FUTURE_LIMIT: i64 = 24 * 3600 * 1_000_000;

/// What is not done, and why.
#[derive(Debug)]
pub enum ArchiveError {
    /// The checkpoint, or its place, is the reason.
    Store(StoreError),
    /// The archive cannot be read or written.
    Failed {
        /// Completes "failed to …".
        what: &'static str,
        /// Why.
        error: io::Error,
    },
    /// It is no archive of a checkpoint.
    Refused(String),
    /// There is too little room for what it holds.
    Room {
        /// Bytes of its images.
        needed: u64,
        /// Bytes that may be written.
        free: u64,
    },
}

/// Write a checkpoint as an archive, after it was verified.
pub fn export(checkpoint: &Checkpoint, to: impl Write) -> Result<Metadata, ArchiveError> {
    let metadata = checkpoint.verify()?;
    let written = |error| ArchiveError::Failed { what: "write the archive", error };
    let mut builder = Builder::new(to);
    let bytes = checkpoint.metadata_bytes()?;
    let head = header(FILE, bytes.len() as u64, &metadata).map_err(written)?;
    builder.append(&head, bytes.as_slice()).map_err(written)?;
    for image in &metadata.images {
        let head = header(&image.name, image.size, &metadata).map_err(written)?;
        builder.append(&head, checkpoint.image(&image.name)?.take(image.size)).map_err(written)?;
    }
    builder.into_inner().and_then(|mut to| to.flush()).map_err(written)?;
    Ok(metadata)
}

/// The same into a new file, which is root's alone, for it holds what was in the processes' memory. It is on the disk
/// then, or not there.
pub fn export_to(checkpoint: &Checkpoint, path: &Path) -> Result<Metadata, ArchiveError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path);
    let file = file.map_err(|error| ArchiveError::Failed { what: "make the archive", error })?;
    let written = export(checkpoint, BufWriter::new(&file)).and_then(|metadata| {
        // Its name as well.
        let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        let synced = file.sync_all().and_then(|()| File::open(folder)?.sync_all()).map(|()| metadata);
        synced.map_err(|error| ArchiveError::Failed { what: "write the archive", error })
    });
    if written.is_err() {
        // What is left of it could be taken for an archive; that it cannot be removed is the lesser trouble.
        let _ = std::fs::remove_file(path);
    }
    written
}

/// Take the checkpoint of a file in: see [`import`].
pub fn import_from(store: &Store, path: &Path, quota: Option<u64>) -> Result<(String, Id), ArchiveError> {
    let file = File::open(path).map_err(|error| ArchiveError::Failed { what: "open the archive", error })?;
    import(store, BufReader::new(file), quota)
}

/// Take a checkpoint in under the name that it has, unless there is one already, or its images have more bytes than the
/// quota. No other is removed for it.
pub fn import(store: &Store, from: impl Read, quota: Option<u64>) -> Result<(String, Id), ArchiveError> {
    let read = |error| ArchiveError::Failed { what: "read the archive", error };
    let mut archive = Archive::new(from);
    // Raw: nothing of tar's extensions, which may ask for any amount of memory, is taken up.
    let mut entries = archive.entries().map_err(read)?.raw(true);
    let bytes = first(entries.next().transpose().map_err(read)?)?;
    let damaged = |damage: Damage| ArchiveError::Refused(damage.to_string());
    let metadata = Metadata::from_bytes(&bytes).map_err(damaged)?;
    let here = crate::store::architecture();
    if metadata.architecture != here {
        return Err(damaged(Damage::Architecture { found: metadata.architecture, here }));
    }
    let ahead = now().saturating_add(FUTURE_LIMIT);
    if metadata.id.micros() > ahead || metadata.timestamp > ahead / 1_000_000 {
        let why = format!("{} is in the future here: set the clock of this machine, or of that", metadata.id);
        return Err(ArchiveError::Refused(why));
    }
    let (needed, free) = (metadata.image_size, store.room()?);
    if let Some(quota) = quota.filter(|quota| needed > *quota) {
        return Err(StoreError::Quota { size: needed, used: 0, quota }.into());
    }
    if needed > free {
        return Err(ArchiveError::Room { needed, free });
    }
    let mut draft = store.begin_named(&metadata.component, &metadata.id)?;
    draft.receive_rounds(metadata.rounds)?;
    for image in &metadata.images {
        let entry = entries.next().transpose().map_err(read)?;
        let mut entry = expect(entry, &image.name)?;
        if entry.size() != image.size {
            return Err(damaged(Damage::Size {
                name: image.name.clone(),
                listed: image.size,
                found: entry.size(),
            }));
        }
        draft.receive(image, &mut entry)?;
    }
    if let Some(more) = entries.next().transpose().map_err(read)? {
        return Err(damaged(Damage::Unexpected(more.path_bytes().escape_ascii().to_string())));
    }
    draft.commit_as(&metadata, &bytes)?;
    Ok((metadata.component, metadata.id))
}

fn header(name: &str, size: u64, metadata: &Metadata) -> io::Result<Header> {
    let mut header = Header::new_ustar();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(MODE);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(u64::try_from(metadata.timestamp).unwrap_or(0));
    header.set_entry_type(EntryType::Regular);
    header.set_cksum();
    Ok(header)
}

fn first<R: Read>(entry: Option<Entry<'_, R>>) -> Result<Vec<u8>, ArchiveError> {
    let entry = expect(entry, FILE)?;
    let mut bytes = Vec::new();
    // One byte more than allowed, so that the reader sees that it is too long.
    let read = entry.take(SIZE_LIMIT + 1).read_to_end(&mut bytes);
    read.map_err(|error| ArchiveError::Failed { what: "read the archive", error })?;
    Ok(bytes)
}

/// The next file, if it is the one that comes now.
fn expect<'a, R: Read>(entry: Option<Entry<'a, R>>, name: &str) -> Result<Entry<'a, R>, ArchiveError> {
    let Some(entry) = entry else {
        return Err(ArchiveError::Refused(format!("it ends where {name} should come")));
    };
    let found = entry.path_bytes().escape_ascii().to_string();
    if found != name {
        return Err(ArchiveError::Refused(format!("it has {found:?} where {name} should come")));
    }
    if entry.header().entry_type() != EntryType::Regular {
        return Err(ArchiveError::Refused(Damage::Kind(found).to_string()));
    }
    Ok(entry)
}

impl From<StoreError> for ArchiveError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Failed { what, error } => write!(f, "failed to {what}: {error}"),
            Self::Refused(why) => write!(f, "it is no archive of a checkpoint that can be used: {why}"),
            Self::Room { needed, free } => {
                write!(f, "its images have {needed} bytes, and there is room for {free}: remove something")
            }
        }
    }
}

impl std::error::Error for ArchiveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::Failed { error, .. } => Some(error),
            _ => None,
        }
    }
}
