//! `manifest.json`: which processes go on under the next kernel, from which checkpoints, and in which order.
//!
//! It is written by whoever loads the kernel and read by process 1 when that has booted. Whatever the bytes are, reading them
//! ends in a value or in the reason why not.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where it lies if the kernel's command line says nothing of it.
pub const BASE: &str = "/checkpoint";
/// The argument of the kernel's command line that says where, as `yakiros.checkpoint=/mnt/jump`.
pub const ARGUMENT: &str = "yakiros.checkpoint=";
/// Its name there.
pub const FILE: &str = "manifest.json";
/// What the old machine was, as text for people, beside it.
pub const INFORMATION: &str = "pre-kexec-info.txt";
/// The form that this version writes and reads.
pub const VERSION: u32 = 1;
/// The most entries of one: as many components as a supervisor may have.
pub const ENTRIES_LIMIT: usize = 100_000;
/// The largest file that is read, in bytes: as many entries, each with its paths.
const SIZE_LIMIT: u64 = 64 << 20;
/// What has been written is not under its name before it is on the disk.
const UNFINISHED: &str = ".manifest.json.new";

/// Everything that the next kernel's supervisor has to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`VERSION`] of its writer.
    pub version: u32,
    /// When it was written, in seconds since 1970.
    pub creation_time: i64,
    /// Release of the kernel on which the checkpoints were made.
    pub old_kernel_version: String,
    /// The kernel that was to be loaded; nothing if it was not known yet.
    pub new_kernel_path: Option<PathBuf>,
    /// What that was to begin with.
    pub initrd_path: Option<PathBuf>,
    /// What it was told.
    pub cmdline: String,
    /// The last number that a process got. Those that go on have their numbers from before that.
    #[serde(default)]
    pub last_pid: i32,
    /// In the order in which they are to be restored.
    pub entries: Vec<Entry>,
}

/// One component's checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Whose it is.
    pub component_name: String,
    /// Its name among those of the component.
    pub checkpoint_id: String,
    /// Where it lies, on the old kernel as on the new one.
    pub checkpoint_path: PathBuf,
    /// The process.
    pub original_pid: i32,
    /// When it was made, in seconds since 1970.
    pub timestamp: i64,
    /// Lower ones first; equal ones in any order.
    pub restore_priority: u32,
}

/// Why there is no manifest to be had.
#[derive(Debug)]
pub enum NoManifest {
    /// It cannot be read.
    Read(io::Error),
    /// It is larger than [`SIZE_LIMIT`], or says what cannot be.
    Damaged(String),
    /// A version that is not known here has written it.
    Version(u32),
}

impl fmt::Display for NoManifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Damaged(what) => write!(f, "it is damaged: {what}"),
            Self::Version(version) => {
                write!(f, "it has version {version}; this supervisor reads version {VERSION}")
            }
        }
    }
}

impl std::error::Error for NoManifest {}

impl Manifest {
    /// As it is written.
    pub fn to_bytes(&self) -> Vec<u8> {
        // There is nothing in it that JSON cannot say but paths that are no text, and those are refused before.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Read it, and see that it says nothing impossible.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NoManifest> {
        #[derive(Deserialize)]
        struct Said {
            version: u32,
        }
        let damaged = |error: &dyn fmt::Display| NoManifest::Damaged(error.to_string());
        let said: Said = serde_json::from_slice(bytes).map_err(|error| damaged(&error))?;
        if said.version != VERSION {
            return Err(NoManifest::Version(said.version));
        }
        let mut manifest: Self = serde_json::from_slice(bytes).map_err(|error| damaged(&error))?;
        if manifest.entries.len() > ENTRIES_LIMIT {
            return Err(damaged(&format!("it has more than {ENTRIES_LIMIT} entries")));
        }
        if let Some(entry) = manifest.entries.iter().find(|entry| entry.original_pid < 1) {
            return Err(damaged(&format!("process {} of {}", entry.original_pid, entry.component_name)));
        }
        manifest.entries.sort_by_key(|entry| entry.restore_priority);
        let mut names = BTreeSet::new();
        if let Some(twice) = manifest.entries.iter().find(|entry| !names.insert(&entry.component_name)) {
            return Err(damaged(&format!("{} is there twice", twice.component_name)));
        }
        Ok(manifest)
    }

    /// Read the one in a directory; `None` if there is none.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn read(base: &Path) -> Result<Option<Self>, NoManifest> {
        let file = match File::open(base.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(NoManifest::Read)?,
        };
        let mut bytes = Vec::new();
        // One byte more than allowed, so that one that is too long is seen to be.
        file.take(SIZE_LIMIT + 1).read_to_end(&mut bytes).map_err(NoManifest::Read)?;
        if bytes.len() as u64 > SIZE_LIMIT {
            return Err(NoManifest::Damaged("it is too large".to_owned()));
        }
        Self::from_bytes(&bytes).map(Some)
    }

    /// Write it to a file, in place of one that is there: whole and on the disk, or not at all.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        let new = folder.join(UNFINISHED);
        let write = || {
            let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&self.to_bytes())?;
            file.sync_all()?;
            fs::rename(&new, path)?;
            File::open(folder)?.sync_all()
        };
        write().inspect_err(|_| {
            // What went wrong is told; that this is not there is what is wanted.
            let _ = fs::remove_file(&new);
        })
    }
}

/// Where a kernel with this command line has its manifest, if the line says so.
pub fn base(command_line: &str) -> Option<&Path> {
    // What follows is the init's.
    let kernels = command_line.split_whitespace().take_while(|word| *word != "--");
    let path = kernels.filter_map(|word| word.strip_prefix(ARGUMENT)).last()?;
    Some(Path::new(path)).filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(name: &str, priority: u32) -> Entry {
        Entry {
            component_name: name.to_owned(),
            checkpoint_id: "1".to_owned(),
            checkpoint_path: format!("/var/lib/graph/checkpoints/{name}/1").into(),
            original_pid: 7,
            timestamp: 1,
            restore_priority: priority,
        }
    }

    fn manifest(entries: Vec<Entry>) -> Manifest {
        Manifest {
            version: VERSION,
            creation_time: 1,
            old_kernel_version: "6.1".to_owned(),
            new_kernel_path: Some("/boot/vmlinuz".into()),
            initrd_path: None,
            cmdline: "quiet".to_owned(),
            last_pid: 7,
            entries,
        }
    }

    #[test]
    fn what_was_written_is_read_in_the_order_of_restoring() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(Manifest::read(folder.path()).expect("no manifest").is_none());
        let written = manifest(vec![entry("web", 2), entry("database", 0), entry("cache", 1)]);
        written.write(&folder.path().join(FILE)).expect("written");
        let read = Manifest::read(folder.path()).expect("read").expect("a manifest");
        let names: Vec<_> = read.entries.iter().map(|entry| entry.component_name.as_str()).collect();
        assert_eq!(names, ["database", "cache", "web"]);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing unfinished is left");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |manifest: &Manifest| {
            Manifest::from_bytes(&manifest.to_bytes()).expect_err("refused").to_string()
        };
        assert!(refused(&manifest(vec![entry("a", 0), entry("a", 1)])).contains("a is there twice"));
        let mut early = entry("a", 0);
        early.original_pid = 0;
        assert!(refused(&manifest(vec![early])).contains("process 0 of a"));
        let later = Manifest { version: 2, ..manifest(Vec::new()) };
        assert_eq!(refused(&later), "it has version 2; this supervisor reads version 1");
        assert!(matches!(Manifest::from_bytes(b"{}"), Err(NoManifest::Damaged(_))));
    }

    #[test]
    fn the_kernels_command_line_says_where_it_lies() {
        assert_eq!(base("quiet yakiros.checkpoint=/a yakiros.checkpoint=/b"), Some(Path::new("/b")));
        assert_eq!(base("quiet -- yakiros.checkpoint=/a"), None);
        assert_eq!(base("yakiros.checkpoint=relative"), None);
        assert_eq!(base("quiet"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Manifest::from_bytes(&bytes);
        }

        #[test]
        fn a_changed_manifest_is_read_or_refused(at in 0_usize..600, byte in any::<u8>()) {
            let mut bytes = manifest(vec![entry("web", 2), entry("database", 0)]).to_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(manifest) = Manifest::from_bytes(&bytes) {
                prop_assert!(manifest.entries.iter().all(|entry| entry.original_pid > 0));
            }
        }
    }
}
