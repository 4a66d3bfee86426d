//! The cache: a directory of entries, each built once and used by every later run.
//!
//! Guarantees:
//! - An entry is complete or absent. It is built in a directory of its own, synced, and renamed into place.
//! - Each entry has a lock: one run builds, others wait and then use the result. A user of an entry holds the lock
//!   shared for as long as its [`Entry`] lives, so that nobody removes files under a running machine.
//! - Each use compares size and time stamp of every file with the entry's manifest; what differs is built anew.
//!   [`Cache::verify`] compares the content.
//! - What killed runs left behind is removed as soon as their lock is free.
//!
//! Layout: `entries/<name>/` with `entry.json`, `locks/<name>.lock`, `tmp/<name>@<pid>-<n>/`.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::artifacts::ArtifactRecord;
use crate::fetch::{hash_bytes, hash_file};
use crate::image::{ImageError, ImageErrorKind, IoContext, Progress};

/// Longest wait for another run's lock: a first build over a slow line (100 MB at 1 Mbit/s takes 14 minutes).
const LOCK_WAIT: Duration = Duration::from_secs(30 * 60);
/// How often a held lock is tried again. A blocking lock could not be given a limit.
const LOCK_POLL: Duration = Duration::from_millis(50);
/// Rounds of "build, then share": each failure means that another run removed the entry in between.
const BUILD_ROUNDS: usize = 3;
/// Up to this many files are synced one by one; beyond it, one sync of the whole file system is quicker.
const SYNC_EACH: usize = 64;
const MANIFEST: &str = "entry.json";
const SCHEMA: u32 = 1;

/// The cache directory.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// A complete entry. It cannot be removed by others while this value or a clone of it lives.
#[derive(Debug, Clone)]
pub struct Entry {
    name: String,
    dir: PathBuf,
    manifest: Arc<Manifest>,
    _lease: Arc<File>,
}

/// What `entry.json` holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Manifest {
    schema: u32,
    files: Vec<FileStamp>,
    records: Vec<ArtifactRecord>,
    notes: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct FileStamp {
    path: String,
    size: u64,
    mtime_ns: i64,
    sha256: String,
}

/// What a build hands over besides the files in [`Workspace::out`].
#[derive(Debug, Default)]
pub(crate) struct Built {
    pub records: Vec<ArtifactRecord>,
    pub notes: BTreeMap<String, String>,
}

/// Where a build works. Both directories are removed when it fails.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// Becomes the entry.
    pub out: PathBuf,
    /// For downloads and intermediate files; removed in any case.
    pub work: PathBuf,
}

/// One entry as found by [`Cache::entries`] or [`Cache::verify`].
#[derive(Debug, Clone)]
pub struct EntryStatus {
    /// Name of the entry.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// Sum of its files' sizes in bytes.
    pub bytes: u64,
    /// What it was made of.
    pub records: Vec<ArtifactRecord>,
    /// Why it is not usable; it is built anew at its next use.
    pub damage: Option<String>,
}

/// What [`Cache::remove`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// The entry is gone.
    Removed,
    /// Another run uses the entry; it was left alone.
    InUse,
}

impl Cache {
    /// The user's cache: `$YAKIROS_CACHE_DIR`, else `$XDG_CACHE_HOME/yakiros`, else `~/.cache/yakiros`.
    pub fn from_env() -> Result<Self, ImageError> {
        let absolute =
            |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let root = absolute("YAKIROS_CACHE_DIR")
            .or_else(|| absolute("XDG_CACHE_HOME").map(|dir| dir.join("yakiros")))
            .or_else(|| absolute("HOME").map(|dir| dir.join(".cache/yakiros")))
            .ok_or_else(|| ImageError::new("find the cache", ImageErrorKind::NoCacheDir))?;
        Self::at(root)
    }

    /// The cache in directory `root`, which is created when absent. Removes what killed runs left.
    pub fn at(root: impl Into<PathBuf>) -> Result<Self, ImageError> {
        let cache = Self { root: root.into() };
        for part in ["entries", "locks", "tmp"] {
            let dir = cache.root.join(part);
            fs::create_dir_all(&dir).at("create the cache", &dir)?;
        }
        let tag = cache.root.join("CACHEDIR.TAG");
        if !tag.exists() {
            // Backup programs know this signature and leave the directory out.
            fs::write(&tag, "Signature: 8a477f597d28d172789f06886806bc55\n").at("create the cache", &tag)?;
        }
        cache.sweep(None)?;
        Ok(cache)
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The entry `name`, built by `build` when it is absent or damaged.
    pub(crate) fn entry(
        &self,
        name: &str,
        progress: &dyn Progress,
        build: &dyn Fn(&Workspace) -> Result<Built, ImageError>,
    ) -> Result<Entry, ImageError> {
        for _ in 0..BUILD_ROUNDS {
            if let Some(entry) = self.existing(name, progress)? {
                return Ok(entry);
            }
            let lock = self.lock(name, Mode::Exclusive, progress)?;
            // Another run may have built it while this one waited.
            if matches!(self.load(name), Ok(Some(_))) {
                continue;
            }
            self.build(name, progress, build)?;
            drop(lock);
        }
        Err(ImageError::new(
            format!("build the cache entry {name}"),
            ImageErrorKind::Locked { entry: name.into(), waited: Duration::ZERO },
        ))
    }

    /// The entry `name` when it is complete; nothing is built.
    pub(crate) fn existing(&self, name: &str, progress: &dyn Progress) -> Result<Option<Entry>, ImageError> {
        let lease = self.lock(name, Mode::Shared, progress)?;
        match self.load(name) {
            Ok(None) => Ok(None),
            Ok(Some(manifest)) => Ok(Some(Entry {
                name: name.into(),
                dir: self.dir(name),
                manifest: Arc::new(manifest),
                _lease: Arc::new(lease),
            })),
            Err(damage) => {
                progress.step(&format!("build {name} anew: {damage}"));
                Ok(None)
            }
        }
    }

    /// All entries, sorted by name, checked by size and time stamp.
    pub fn entries(&self) -> Result<Vec<EntryStatus>, ImageError> {
        let dir = self.root.join("entries");
        let mut names = Vec::new();
        for item in fs::read_dir(&dir).at("list the cache", &dir)? {
            names.push(item.at("list the cache", &dir)?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names.into_iter().map(|name| self.status(name)).collect())
    }

    /// All entries with the content of every file hashed and compared.
    pub fn verify(&self, progress: &dyn Progress) -> Result<Vec<EntryStatus>, ImageError> {
        let mut found = self.entries()?;
        for status in found.iter_mut().filter(|status| status.damage.is_none()) {
            let Some(entry) = self.existing(&status.name, progress)? else { continue };
            progress.step(&format!("verify {}", status.name));
            status.damage = entry.content_damage()?;
            if status.damage.is_some() {
                // Spoil the manifest, so that the next use builds the entry anew.
                let manifest = entry.dir.join(MANIFEST);
                fs::remove_file(&manifest).at("mark the damaged entry", &manifest)?;
            }
        }
        Ok(found)
    }

    /// Removes the entry `name` unless another run uses it.
    pub fn remove(&self, name: &str) -> Result<Removal, ImageError> {
        let Some(_lock) = self.try_lock(name, Mode::Exclusive)? else { return Ok(Removal::InUse) };
        self.sweep_entry(name)?;
        self.discard(name)?;
        Ok(Removal::Removed)
    }

    fn build(
        &self,
        name: &str,
        progress: &dyn Progress,
        build: &dyn Fn(&Workspace) -> Result<Built, ImageError>,
    ) -> Result<(), ImageError> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        self.sweep_entry(name)?;
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let temporary =
            Temporary(self.root.join("tmp").join(format!("{name}@{}-{count}", std::process::id())));
        let space = Workspace { out: temporary.0.join("out"), work: temporary.0.join("work") };
        for dir in [&space.out, &space.work] {
            fs::create_dir_all(dir).at("create a work directory", dir)?;
        }
        let built = build(&space)?;
        let files = stamp_all(&space.out)?;
        let manifest = Manifest { schema: SCHEMA, files, records: built.records, notes: built.notes };
        let path = space.out.join(MANIFEST);
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|e| ImageError::format("record the cache entry", &path, e.to_string()))?;
        fs::write(&path, text).at("record the cache entry", &path)?;
        sync_tree(&space.out, manifest.files.len())?;
        self.discard(name)?;
        let dir = self.dir(name);
        fs::rename(&space.out, &dir).at("put the cache entry in place", &dir)?;
        sync_path(&self.root.join("entries"))?;
        progress.done();
        Ok(())
    }

    /// `None` when absent, the reason when damaged.
    fn load(&self, name: &str) -> Result<Option<Manifest>, String> {
        let dir = self.dir(name);
        if !dir.exists() {
            return Ok(None);
        }
        let text = fs::read(dir.join(MANIFEST)).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => "it failed its verification".into(),
            _ => format!("{MANIFEST}: {e}"),
        })?;
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|e| format!("{MANIFEST}: {e}"))?;
        if manifest.schema != SCHEMA {
            return Err(format!("{MANIFEST}: written by another version"));
        }
        for file in &manifest.files {
            let found =
                fs::symlink_metadata(dir.join(&file.path)).map_err(|e| format!("{}: {e}", file.path))?;
            if found.len() != file.size {
                return Err(format!("{}: {} bytes, expected {}", file.path, found.len(), file.size));
            }
            if mtime_ns(&found) != file.mtime_ns {
                return Err(format!("{}: changed since it was stored", file.path));
            }
        }
        Ok(Some(manifest))
    }

    fn status(&self, name: String) -> EntryStatus {
        let (bytes, records, damage) = match self.load(&name) {
            Ok(Some(manifest)) => (manifest.files.iter().map(|f| f.size).sum(), manifest.records, None),
            Ok(None) => (0, Vec::new(), Some("removed meanwhile".into())),
            Err(damage) => (0, Vec::new(), Some(damage)),
        };
        EntryStatus { dir: self.dir(&name), name, bytes, records, damage }
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.root.join("entries").join(name)
    }

    /// Moves the entry aside first: a removal that is cut short must not leave half an entry.
    fn discard(&self, name: &str) -> Result<(), ImageError> {
        let dir = self.dir(name);
        if !dir.exists() {
            return Ok(());
        }
        let aside = self.root.join("tmp").join(format!("{name}@{}-removed", std::process::id()));
        fs::rename(&dir, &aside).at("remove the cache entry", &dir)?;
        remove_tree(&aside)
    }

    fn lock(&self, name: &str, mode: Mode, progress: &dyn Progress) -> Result<File, ImageError> {
        let start = Instant::now();
        let mut said = false;
        loop {
            if let Some(lock) = self.try_lock(name, mode)? {
                return Ok(lock);
            }
            if start.elapsed() > LOCK_WAIT {
                let kind = ImageErrorKind::Locked { entry: name.into(), waited: start.elapsed() };
                return Err(ImageError::new("lock the cache", kind));
            }
            if !said {
                progress.step(&format!("wait for another run that holds {name}"));
                said = true;
            }
            thread::sleep(LOCK_POLL);
        }
    }

    fn try_lock(&self, name: &str, mode: Mode) -> Result<Option<File>, ImageError> {
        // Lock files stay: removing one that another run has just opened would give the same name two locks.
        let path = self.root.join("locks").join(format!("{name}.lock"));
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .at("lock the cache", &path)?;
        let locked = match mode {
            Mode::Shared => file.try_lock_shared(),
            Mode::Exclusive => file.try_lock(),
        };
        match locked {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(ImageError::io("lock the cache", &path, e)),
        }
    }

    /// Removes leftovers whose entry nobody is working on.
    fn sweep(&self, only: Option<&str>) -> Result<(), ImageError> {
        let dir = self.root.join("tmp");
        for item in fs::read_dir(&dir).at("clean up the cache", &dir)? {
            let item = item.at("clean up the cache", &dir)?;
            let file_name = item.file_name();
            let Some((name, _)) = file_name.to_str().and_then(|name| name.split_once('@')) else { continue };
            match only {
                Some(only) if only != name => {}
                // The caller holds the lock.
                Some(_) => remove_tree(&item.path())?,
                None => {
                    if let Some(_lock) = self.try_lock(name, Mode::Exclusive)? {
                        remove_tree(&item.path())?;
                    }
                }
            }
        }
        Ok(())
    }

    fn sweep_entry(&self, name: &str) -> Result<(), ImageError> {
        self.sweep(Some(name))
    }
}

#[derive(Debug, Clone, Copy)]
enum Mode {
    Shared,
    Exclusive,
}

impl Entry {
    /// Name of the entry.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Path of the entry's file `name`.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }

    /// What the entry was made of.
    pub fn records(&self) -> &[ArtifactRecord] {
        &self.manifest.records
    }

    /// A fact that the build noted; empty when it noted none.
    pub fn note(&self, key: &str) -> &str {
        self.manifest.notes.get(key).map_or("", String::as_str)
    }

    /// SHA-256 over names and hashes of all files: what else is built from the entry depends on it.
    pub(crate) fn digest(&self) -> String {
        let lines = self.manifest.files.iter().flat_map(|f| [f.sha256.as_str(), " ", &f.path, "\n"]);
        let lines: String = lines.collect();
        hash_bytes(lines.as_bytes())
    }

    fn content_damage(&self) -> Result<Option<String>, ImageError> {
        for file in &self.manifest.files {
            let path = self.dir.join(&file.path);
            let (found, _) = stamp_hash(&path)?;
            if found != file.sha256 {
                return Ok(Some(format!("{}: sha256 expected {}, found {found}", file.path, file.sha256)));
            }
        }
        Ok(None)
    }
}

/// Removed when dropped; what cannot be removed now is left to the next run's sweep.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = remove_tree(&self.0);
    }
}

fn stamp_all(dir: &Path) -> Result<Vec<FileStamp>, ImageError> {
    let mut files = Vec::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(next) = todo.pop() {
        for item in fs::read_dir(&next).at("record the cache entry", &next)? {
            let path = item.at("record the cache entry", &next)?.path();
            let found = fs::symlink_metadata(&path).at("record the cache entry", &path)?;
            if found.is_dir() {
                todo.push(path);
                continue;
            }
            let relative = path.strip_prefix(dir).unwrap_or(&path).to_string_lossy().into_owned();
            let (sha256, _) = stamp_hash(&path)?;
            files.push(FileStamp { path: relative, size: found.len(), mtime_ns: mtime_ns(&found), sha256 });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Hash of a file's content or of a link's target, and its size.
fn stamp_hash(path: &Path) -> Result<(String, u64), ImageError> {
    let found = fs::symlink_metadata(path).at("hash", path)?;
    if found.is_symlink() {
        let target = fs::read_link(path).at("hash", path)?;
        return Ok((hash_bytes(target.as_os_str().as_bytes()), found.len()));
    }
    hash_file(path)
}

fn mtime_ns(metadata: &fs::Metadata) -> i64 {
    metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec())
}

fn sync_tree(dir: &Path, files: usize) -> Result<(), ImageError> {
    if files > SYNC_EACH {
        let handle = File::open(dir).at("sync the cache entry", dir)?;
        return rustix::fs::syncfs(&handle).at("sync the cache entry", dir);
    }
    for item in fs::read_dir(dir).at("sync the cache entry", dir)? {
        let path = item.at("sync the cache entry", dir)?.path();
        let found = fs::symlink_metadata(&path).at("sync the cache entry", &path)?;
        if found.is_dir() {
            sync_tree(&path, files)?;
        } else if found.is_file() {
            sync_path(&path)?;
        }
    }
    sync_path(dir)
}

fn sync_path(path: &Path) -> Result<(), ImageError> {
    File::open(path).and_then(|file| file.sync_all()).at("sync the cache entry", path)
}

/// Like `remove_dir_all`, but also through directories that an archive made unwritable.
fn remove_tree(path: &Path) -> Result<(), ImageError> {
    use std::os::unix::fs::PermissionsExt;
    match fs::remove_dir_all(path) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {}
        Err(e) => return Err(ImageError::io("remove a work directory", path, e)),
    }
    let mut todo = vec![path.to_path_buf()];
    while let Some(dir) = todo.pop() {
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).at("remove a work directory", &dir)?;
        for item in fs::read_dir(&dir).at("remove a work directory", &dir)? {
            let item = item.at("remove a work directory", &dir)?;
            if item.file_type().is_ok_and(|kind| kind.is_dir()) {
                todo.push(item.path());
            }
        }
    }
    fs::remove_dir_all(path).at("remove a work directory", path)
}

#[cfg(test)]
mod tests;
