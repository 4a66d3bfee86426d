//! A checkpoint that is being made.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::libc;

use super::checkpoint::{ScanError, architecture, hash_file, scan};
use super::damage::Damage;
use super::directory::Directory;
use super::id::Id;
use super::metadata::{
    self, FORMAT, Facts, Image, Metadata, PARENT, ROUNDS_LIMIT, parent_of, round_directory,
};
use super::{NEW, Store, StoreError, failed, now};

/// Bytes that are read at once.
const CHUNK: usize = 1 << 18;
/// Where the images are until it is complete.
const IMAGES: &str = "images";
/// Where CRIU puts its logs and figures.
pub(crate) const WORK: &str = "work";
/// Where those wait who make room in the store and take it.
const TURN: &str = ".quota";
/// How often another name is tried before it is given up: each time somebody else was faster by less than the time
/// between two system calls.
const ATTEMPTS: usize = 16;

/// A hidden directory beside the place where the checkpoint will be; if it is dropped before, nothing is left of it.
#[derive(Debug)]
pub struct Draft {
    base: Directory,
    /// The component's.
    parent: Directory,
    /// Locked, so that a sweep sees that somebody is here.
    hidden: Directory,
    images: Directory,
    component: String,
    id: Id,
    /// In microseconds since 1970; its name may be later, so that it is the newest.
    begun: i64,
    rounds: u32,
    /// Whether it is on the disk before it is in its place.
    is_synced: bool,
}

impl Draft {
    pub(super) fn begin(
        base: &Directory,
        component: &str,
        mut id: impl FnMut() -> Id,
    ) -> Result<Self, StoreError> {
        let path = base.path().join(component);
        for _ in 0..ATTEMPTS {
            match Self::try_begin(base, component, id()) {
                Ok(Some(draft)) => return Ok(draft),
                Ok(None) => {}
                Err(error) => return Err(failed("make a directory in", &path)(error)),
            }
        }
        let error = io::Error::other("others make or remove what is there without end");
        Err(failed("make a directory in", &path)(error))
    }

    /// None if somebody else makes or removes the same.
    fn try_begin(base: &Directory, component: &str, id: Id) -> io::Result<Option<Self>> {
        let gone = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists)
        };
        match base.make(component) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let hidden = format!("{NEW}{id}");
        let made = base.child(component).and_then(|parent| {
            parent.make(&hidden)?;
            let hidden = parent.child(&hidden)?;
            Ok((parent, hidden))
        });
        let (parent, directory) = match made {
            Err(error) if gone(&error) => return Ok(None),
            made => made?,
        };
        // A sweep may have come between.
        if !directory.lock(true)? || !directory.is(&parent, &hidden)? {
            return Ok(None);
        }
        directory.make(IMAGES)?;
        directory.make(WORK)?;
        let images = directory.child(IMAGES)?;
        let base = Directory::open(base.path())?;
        let component = component.to_owned();
        Ok(Some(Self {
            base,
            parent,
            hidden: directory,
            images,
            component,
            id,
            begun: now(),
            rounds: 0,
            is_synced: true,
        }))
    }

    /// Put it in its place before it is on the disk, which [`Store::sync`] sees to. Until then a cut of the power leaves one
    /// of which some bytes are others than are listed.
    pub(crate) fn sync_later(&mut self) {
        self.is_synced = false;
    }

    /// What it will be called.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// Where images go.
    pub fn images(&self) -> &Path {
        self.images.path()
    }

    /// Where logs and figures go, which are not kept.
    pub fn work(&self) -> PathBuf {
        self.hidden.path().join(WORK)
    }

    /// A directory for a round of memory before the dump itself; with the path, as seen from it, of the one before.
    pub fn round(&mut self) -> Result<(PathBuf, Option<String>), StoreError> {
        let round = self.rounds + 1;
        let path = self.images().join(round_directory(round));
        if round > ROUNDS_LIMIT {
            let error = io::Error::other(format!("more than {ROUNDS_LIMIT} rounds"));
            return Err(failed("make the directory", &path)(error));
        }
        self.images.make(&round_directory(round)).map_err(failed("make the directory", &path))?;
        self.rounds = round;
        Ok((path, parent_of(Some(round), round)))
    }

    /// The newest round, as seen from the images.
    pub fn parent(&self) -> Option<String> {
        parent_of(None, self.rounds)
    }

    /// What says that somebody is at work here, as long as it is open.
    pub(crate) fn lock(&self) -> BorrowedFd<'_> {
        self.hidden.as_fd()
    }

    /// Have nobody remove it, for want of room or for its age, once it is in its place: as long as what is given is open.
    pub(crate) fn hold(&self) -> Result<OwnedFd, StoreError> {
        self.images.hold().map_err(failed("lock", self.images()))
    }

    /// Everything is there: count and hash it, write it to the disk if not [later](Self::sync_later), and put it in its place.
    pub fn commit(self, facts: Facts, quota: Option<u64>) -> Result<Metadata, StoreError> {
        self.keep(facts, quota)
    }

    /// The same while somebody still works beside the images.
    pub(crate) fn keep(&self, facts: Facts, quota: Option<u64>) -> Result<Metadata, StoreError> {
        let images = self.seal_images()?;
        let image_size = images.iter().map(|image| image.size).sum();
        let metadata = Metadata {
            format: FORMAT,
            timestamp: self.begun / 1_000_000,
            id: self.id.clone(),
            component: self.component.clone(),
            original_pid: facts.original_pid,
            capabilities: facts.capabilities,
            criu_version: facts.criu_version,
            leave_running: facts.leave_running,
            preserve_fds: facts.preserve_fds,
            roles: facts.roles,
            options: facts.options,
            figures: facts.figures,
            isolation: facts.isolation,
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            architecture: architecture(),
            image_size,
            rounds: self.rounds,
            images,
        };
        self.place(&metadata, &metadata.to_bytes(), quota)?;
        Ok(metadata)
    }

    /// The same for what was made elsewhere: it is to be what its metadata say.
    pub(crate) fn commit_as(self, metadata: &Metadata, bytes: &[u8]) -> Result<(), StoreError> {
        let images = self.seal_images()?;
        if let Some(damage) = difference(&metadata.images, &images) {
            return Err(StoreError::Damaged { path: self.images().to_owned(), damage });
        }
        self.place(metadata, bytes, None)
    }

    /// Write an image that comes from elsewhere, of at most so many bytes.
    pub(crate) fn receive(&self, image: &Image, from: &mut impl Read) -> Result<(), StoreError> {
        let path = self.images().join(&image.name);
        let mut receive = || {
            let mut file = match image.name.split_once('/') {
                Some((round, name)) => self.images.child(round)?.create(name)?,
                None => self.images.create(&image.name)?,
            };
            io::copy(&mut from.take(image.size), &mut file)
        };
        receive().map(drop).map_err(failed("write", &path))
    }

    /// Directories and links of rounds that come from elsewhere.
    pub(crate) fn receive_rounds(&mut self, rounds: u32) -> Result<(), StoreError> {
        for _ in 0..rounds {
            self.round()?;
        }
        let link = |round: Option<u32>| {
            let Some(target) = parent_of(round, rounds) else { return Ok(()) };
            match round {
                Some(round) => self.images.child(round_directory(round))?.link(PARENT, &target),
                None => self.images.link(PARENT, &target),
            }
        };
        let linked = (1..=rounds).map(Some).chain([None]).try_for_each(link);
        linked.map_err(failed("link the rounds in", self.images()))
    }

    /// Hash all images and have the disk write them: what is hashed is on its way while the next is, and the file system, which
    /// writes down what it did for all of them at once, has to do so once in place of once for each.
    fn seal_images(&self) -> Result<Vec<Image>, StoreError> {
        let here = || failed("write to the disk", self.images());
        let refused = |damage| StoreError::Damaged { path: self.images().to_owned(), damage };
        let found = scan(&self.images, self.rounds).map_err(|error| match error {
            ScanError::Damage(damage) => refused(damage),
            ScanError::Failed(error) => here()(error),
        })?;
        if let Some(odd) = found.keys().find(|name| !metadata::is_image(name, self.rounds)) {
            return Err(refused(Damage::Unexpected(odd.clone())));
        }
        let mut buffer = vec![0; CHUNK];
        let mut images = Vec::with_capacity(found.len());
        for name in found.into_keys() {
            images.push(self.hash_image(name, &mut buffer).map_err(here())?);
        }
        if self.is_synced {
            sync_images(&self.images, &images, self.rounds).map_err(here())?;
        }
        Ok(images)
    }

    fn hash_image(&self, name: String, buffer: &mut [u8]) -> io::Result<Image> {
        let mut file = image(&self.images, &name)?;
        let (size, sha256) = hash_file(&mut file, u64::MAX - 1, buffer)?;
        begin_to_write(&file);
        Ok(Image { name, size, sha256 })
    }

    fn place(&self, metadata: &Metadata, bytes: &[u8], quota: Option<u64>) -> Result<(), StoreError> {
        // Until it is there, so that no two of them take the same room.
        let mut turn = None;
        if let Some(quota) = quota {
            let waited = self.base.turn(TURN).map_err(failed("lock", &self.base.path().join(TURN)))?;
            turn = Some(waited);
            Store::open(self.base.path())?.make_room(metadata.image_size + bytes.len() as u64, quota)?;
        }
        let write = || {
            let mut file = self.images.create(metadata::FILE)?;
            file.write_all(bytes)?;
            if self.is_synced { file.sync_all().and_then(|()| self.images.sync()) } else { Ok(()) }
        };
        write().map_err(failed("write", &self.images().join(metadata::FILE)))?;
        let path = self.parent.path().join(self.id.as_str());
        match self.hidden.rename(IMAGES, &self.parent, self.id.as_str()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(StoreError::Present(path));
            }
            renamed => renamed.map_err(failed("make", &path))?,
        }
        drop(turn);
        if !self.is_synced {
            return Ok(());
        }
        let synced = self.parent.sync().and_then(|()| self.base.sync());
        synced.map_err(failed("write to the disk", &path))
    }
}

/// Have the disk write images and the directories of rounds.
pub(super) fn sync_images(directory: &Directory, images: &[Image], rounds: u32) -> io::Result<()> {
    for one in images {
        image(directory, &one.name)?.sync_all()?;
    }
    (1..=rounds).try_for_each(|round| directory.child(round_directory(round))?.sync())
}

fn image(directory: &Directory, name: &str) -> io::Result<File> {
    match name.split_once('/') {
        Some((round, name)) => directory.child(round)?.file(name),
        None => directory.file(name),
    }
}

/// Have the disk begin with a file. That it can is no promise, so that it cannot is no failure.
fn begin_to_write(file: &File) {
    // SAFETY: a call on a descriptor that is open, which touches no memory.
    let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
}

impl Drop for Draft {
    fn drop(&mut self) {
        // What cannot be removed now is left to a sweep.
        let _ = self.parent.remove(format!("{NEW}{}", self.id));
        let _ = self.base.remove_empty(&self.component);
    }
}

/// The first thing that is not as it is listed. Both are in the order of names, and nothing is found that is not listed.
fn difference(listed: &[Image], found: &[Image]) -> Option<Damage> {
    let pairs = listed.iter().zip(found.iter().map(Some).chain(std::iter::repeat(None)));
    pairs.into_iter().find_map(|(listed, found)| {
        let name = || listed.name.clone();
        match found {
            Some(found) if found == listed => None,
            Some(found) if found.name == listed.name && found.size == listed.size => {
                Some(Damage::Content(name()))
            }
            Some(found) if found.name == listed.name => {
                Some(Damage::Size { name: name(), listed: listed.size, found: found.size })
            }
            _ => Some(Damage::Missing(name())),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::time::Duration;

    use super::*;
    use crate::criu::Options;
    use crate::preflight::Isolation;
    use crate::store::Version;

    /// For what is not to happen.
    const NEVER: Duration = Duration::from_millis(200);
    const SIZE: usize = 100_000;
    /// For one of that size, with what is said of it.
    const QUOTA: u64 = 150_000;

    fn facts() -> Facts {
        Facts {
            original_pid: 4711,
            capabilities: Vec::new(),
            criu_version: Version { major: 4, minor: 1, patch: 1 },
            leave_running: true,
            preserve_fds: Vec::new(),
            roles: Vec::new(),
            options: Options::default(),
            figures: None,
            isolation: Isolation::default(),
        }
    }

    fn draft(store: &Store, component: &str) -> Draft {
        let draft = store.begin(component).expect("a draft");
        std::fs::write(draft.images().join("pages-1.img"), vec![0; SIZE]).expect("an image");
        draft
    }

    #[test]
    fn what_was_just_made_does_not_make_room_for_another() {
        let base = tempfile::tempdir().expect("a directory");
        let store = Store::make(base.path()).expect("a store");
        let first = draft(&store, "web");
        let held = first.hold().expect("held");
        let id = first.keep(facts(), Some(QUOTA)).expect("kept").id;
        drop(first);
        let other = draft(&store, "db");
        let refused = other.keep(facts(), Some(QUOTA)).expect_err("there is no room");
        assert!(matches!(refused, StoreError::Quota { .. }), "{refused}");
        // Whoever needs it finds it, and then it is nobody's.
        drop(store.find("web", Some(&id)).expect("it is there"));
        drop(held);
        other.keep(facts(), Some(QUOTA)).expect("it made room");
        assert!(matches!(store.find("web", Some(&id)), Err(StoreError::Absent { .. })));
    }

    #[test]
    fn room_is_made_and_taken_by_one_at_a_time() {
        let base = tempfile::tempdir().expect("a directory");
        let store = Store::make(base.path()).expect("a store");
        let turn = Directory::open(base.path()).and_then(|base| base.turn(TURN)).expect("its turn");
        let draft = draft(&store, "web");
        let (sender, kept) = channel();
        let waits = std::thread::spawn(move || sender.send(draft.keep(facts(), Some(QUOTA)).is_ok()));
        assert_eq!(kept.recv_timeout(NEVER), Err(RecvTimeoutError::Timeout));
        assert_eq!(store.ids("web").expect("a list"), []);
        drop(turn);
        assert_eq!(kept.recv(), Ok(true));
        waits.join().expect("its end").expect("it is heard");
    }
}
