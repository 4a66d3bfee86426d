//! `manifest.json`: which processes go on under the next kernel, from which checkpoints, and in which order.
//!
//! It is written by whoever loads the kernel and read by process 1 when that has booted. Whatever the bytes are, reading them
//! ends in a value or in the reason why not.
//!
//! One that is left behind by a jump that never was must not be taken for that of a later boot: each has a random name, and is
//! only meant for the kernel whose command line says that name.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::libc;
use serde::{Deserialize, Serialize};

/// Where it lies if the kernel's command line says nothing of it.
pub const BASE: &str = "/checkpoint";
/// The argument of the kernel's command line that says where, as `yakiros.checkpoint=/mnt/jump`.
pub const ARGUMENT: &str = "yakiros.checkpoint=";
/// The argument that says which jump a kernel was loaded for: the name of the manifest that is meant for it.
pub const JUMP: &str = "yakiros.jump=";
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
/// What has been written is not under its name before it is on the disk. Something random follows, which nobody can have put
/// there before.
const UNFINISHED: &str = ".new-";
/// Write permission of the group or of others.
const OTHERS_WRITE: u32 = 0o022;

/// Everything that the next kernel's supervisor has to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`VERSION`] of its writer.
    pub version: u32,
    /// Which jump it is for, by [`random`]: the next kernel is told it. One without is for none.
    #[serde(default)]
    pub jump: String,
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
    /// It is no file of this user's own, or others may write to it.
    Foreign,
    /// It is larger than [`SIZE_LIMIT`], or says what cannot be.
    Damaged(String),
    /// A version that is not known here has written it.
    Version(u32),
}

impl fmt::Display for NoManifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Foreign => f.write_str("it is not the supervisor's own file, or others may write to it"),
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

    /// Whether a kernel with this command line was loaded for it.
    ///
    /// # Errors
    /// Why it is for another one.
    pub fn is_for(&self, command_line: &str) -> Result<(), String> {
        match jump(command_line) {
            _ if self.jump.is_empty() => Err("it does not say which jump it is for".to_owned()),
            Some(jump) if jump == self.jump => Ok(()),
            Some(jump) => Err(format!("it is for the jump {}, and this kernel is of {jump}", self.jump)),
            None => {
                Err(format!("it is for the jump {}, and this kernel was booted in another way", self.jump))
            }
        }
    }

    /// Read the one in a directory; `None` if there is none. It has to be this user's own, and nobody else's to write.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn read(base: &Path) -> Result<Option<Self>, NoManifest> {
        // What is a pipe does not keep anybody waiting.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = match File::options().read(true).custom_flags(flags).open(base.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(NoManifest::Foreign),
            file => file.map_err(NoManifest::Read)?,
        };
        let status = file.metadata().map_err(NoManifest::Read)?;
        let own = nix::unistd::geteuid().as_raw();
        if !status.is_file() || status.uid() != own || status.mode() & OTHERS_WRITE != 0 {
            return Err(NoManifest::Foreign);
        }
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
        write(path, &self.to_bytes())
    }
}

/// Write a file that only this user reads, in place of one that is there: whole and on the disk, or not at all.
///
/// # Errors
/// Those of writing.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let new = folder.join(format!("{UNFINISHED}{}", random()?));
    // Nothing that somebody else has put there is written to, nor what a link leads to.
    let mut file =
        File::options().write(true).create_new(true).custom_flags(libc::O_NOFOLLOW).mode(0o600).open(&new)?;
    let mut write = || {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(folder)?.sync_all()
    };
    write().inspect_err(|_| {
        // What went wrong is told; that this is not there is what is wanted.
        let _ = fs::remove_file(&new);
    })
}

/// A name that nobody can guess, and that no other has: 32 hexadecimal digits.
///
/// # Errors
/// Those of reading `/dev/urandom`.
pub fn random() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// Where a kernel with this command line has its manifest, if the line says so.
pub fn base(command_line: &str) -> Option<&Path> {
    Some(Path::new(said(command_line, ARGUMENT)?)).filter(|path| path.is_absolute())
}

/// Which jump a kernel with this command line was loaded for, if for any.
pub fn jump(command_line: &str) -> Option<&str> {
    said(command_line, JUMP).filter(|jump| !jump.is_empty())
}

/// What the last argument of a kernel's command line says that begins so.
fn said<'a>(command_line: &'a str, argument: &str) -> Option<&'a str> {
    // What follows is the init's.
    let kernels = command_line.split_whitespace().take_while(|word| *word != "--");
    kernels.filter_map(|word| word.strip_prefix(argument)).last()
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
            jump: "5a".to_owned(),
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

    #[test]
    fn it_is_for_the_kernel_that_was_loaded_for_it() {
        let own = manifest(Vec::new());
        assert_eq!(own.is_for("quiet yakiros.jump=5a\n"), Ok(()));
        assert_eq!(own.is_for("yakiros.jump=5b yakiros.jump=5a -- yakiros.jump=5c"), Ok(()));
        for (line, why) in [
            ("quiet", "booted in another way"),
            ("quiet -- yakiros.jump=5a", "booted in another way"),
            ("yakiros.jump=5a yakiros.jump=5b", "this kernel is of 5b"),
            ("yakiros.jump=5a yakiros.jump=", "booted in another way"),
        ] {
            let said = own.is_for(line).expect_err("for another");
            assert!(said.contains(why), "{line}: {said}");
        }
        // One that an earlier version has written has no name, and that is not the name of a kernel without one.
        let nameless = Manifest { jump: String::new(), ..own };
        assert!(nameless.is_for("yakiros.jump=").is_err() && nameless.is_for("quiet").is_err());
        let text = String::from_utf8(nameless.to_bytes()).expect("text").replace("\"jump\": \"\",", "");
        assert_eq!(Manifest::from_bytes(text.as_bytes()).expect("a manifest"), nameless);
        let names = [random().expect("a name"), random().expect("a name")];
        assert!(names[0] != names[1] && names.iter().all(|name| name.len() == 32), "{names:?}");
    }

    #[test]
    fn what_others_could_have_written_is_not_read() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(FILE);
        manifest(Vec::new()).write(&path).expect("written");
        let foreign = || matches!(Manifest::read(folder.path()), Err(NoManifest::Foreign));
        assert!(!foreign());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o662)).expect("mode");
        assert!(foreign(), "others may write to it");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("mode");
        fs::rename(&path, folder.path().join("other")).expect("moved");
        std::os::unix::fs::symlink("other", &path).expect("a link");
        assert!(foreign(), "a link");
        fs::remove_file(&path).expect("removed");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).expect("a pipe");
        assert!(foreign(), "a pipe");
    }

    #[test]
    fn nothing_is_written_where_somebody_else_has_put_a_link() {
        let folder = tempfile::tempdir().expect("a folder");
        let (other, path) = (folder.path().join("other"), folder.path().join(FILE));
        fs::write(&other, "of somebody else").expect("a file");
        // The name that was used once, and the one that it gets.
        for link in [&folder.path().join(".manifest.json.new"), &path] {
            std::os::unix::fs::symlink(&other, link).expect("a link");
        }
        manifest(Vec::new()).write(&path).expect("written");
        assert_eq!(fs::read_to_string(&other).expect("a file"), "of somebody else");
        assert!(Manifest::read(folder.path()).expect("read").is_some());
        // What stays where it cannot be put under its name is nothing.
        let busy = folder.path().join("busy");
        fs::create_dir_all(busy.join("in")).expect("a folder");
        assert!(write(&busy, b"text").is_err());
        let new = fs::read_dir(folder.path()).expect("a folder").flatten();
        let left = new.filter(|entry| entry.file_name().to_string_lossy().starts_with(UNFINISHED)).count();
        assert_eq!(left, 0);
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
