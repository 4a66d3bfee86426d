//! Loads a root file system into a tree that becomes an initramfs layer.
//!
//! Sources: a directory, a tar archive (plain or gzip), an ext4 file system in a raw file or in a qcow2 image. Nothing
//! is mounted and no privilege is needed. Owners, modes, symbolic links and device nodes are kept, where the source
//! holds them: a directory of an ordinary user's is taken as root's, extended attributes are dropped.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use ext4_view::{Ext4, Ext4Read, FileType};

use crate::cpio::{Content, LayerBuilder, Node, NodeKind};
use crate::image::{ImageError, IoContext};
use crate::qcow2::{self, Qcow2};

/// Largest tree accepted. It is unpacked into the guest's memory, so more than this is a mistake in the path given.
const MAX_TREE_BYTES: u64 = 1 << 30;
/// Deepest nesting of directories followed: the kernel's own limit on paths is reached before it.
const MAX_DEPTH: usize = 2048;
const LOAD: &str = "load the root file system";

/// What is taken out of a root file system before it becomes the guest's base layer.
const DROPPED: [(&str, &str); 9] = [
    ("boot", "the kernel is given to QEMU, not read by the guest; 26 MB in Alpine's image"),
    ("dev", "devtmpfs is mounted over it, and images made in containers have plain files there"),
    ("proc", "mounted over; empty but for leftovers"),
    ("sys", "mounted over; empty but for leftovers"),
    ("lost+found", "belongs to the disk's file system"),
    (".dockerenv", "would make programs believe that they run in a container"),
    ("lib/firmware", "no virtual device asks for it"),
    ("var/cache/apk", "package lists, stale by definition"),
    ("usr/share/man", "nobody reads manuals in a test guest"),
];

/// Nodes every guest needs before the first program runs: the kernel opens the console for init, and the preinit
/// mounts the rest.
const BASE_DIRS: [&str; 5] = ["dev", "proc", "sys", "run", "tmp"];

/// Loads the tree at `path`, whatever kind of source that is.
pub(crate) fn load(path: &Path) -> Result<LayerBuilder, ImageError> {
    let found = fs::metadata(path).at(LOAD, path)?;
    if found.is_dir() {
        return load_dir(path);
    }
    match sniff(path)? {
        Kind::Qcow2 => {
            let image = Qcow2::open(path).map_err(|e| ImageError::format(LOAD, path, e.to_string()))?;
            load_ext4(path, Box::new(image))
        }
        Kind::Ext4 => load_ext4(path, Box::new(File::open(path).at(LOAD, path)?)),
        Kind::Gzip => load_tar(path, flate2::read::MultiGzDecoder::new(BufReader::new(open(path)?))),
        Kind::Tar => load_tar(path, BufReader::new(open(path)?)),
    }
}

/// Turns a loaded tree into a base layer: takes out what the guest does not need, adds what it needs to start.
pub(crate) fn make_base(tree: &mut LayerBuilder) -> io::Result<()> {
    for (path, _why) in DROPPED {
        tree.take(path);
    }
    for dir in ["lib/modules", "usr/lib/modules"] {
        tree.take(dir);
    }
    for dir in BASE_DIRS {
        if tree.get(dir).is_none() {
            tree.dir(dir, if dir == "tmp" { 0o1777 } else { 0o755 })?;
        }
    }
    tree.char_device("dev/console", 0o600, 5, 1)?.char_device("dev/null", 0o666, 1, 3)?;
    Ok(())
}

/// Identifies the tree at `path` without reading its content: names, sizes, modes and time stamps.
pub(crate) fn fingerprint(path: &Path) -> Result<String, ImageError> {
    use std::fmt::Write as _;
    let doing = "look at the root file system";
    let mut lines = Vec::new();
    let mut todo = vec![path.to_path_buf()];
    while let Some(next) = todo.pop() {
        // The root itself may be given as a link.
        let found =
            if next == path { fs::metadata(&next) } else { fs::symlink_metadata(&next) }.at(doing, &next)?;
        let (size, seconds, nanos) = (found.len(), found.mtime(), found.mtime_nsec());
        let owner = (found.uid(), found.gid());
        lines.push(format!("{} {:o} {owner:?} {size} {seconds}.{nanos}", next.display(), found.mode()));
        if found.is_dir() {
            for item in fs::read_dir(&next).at(doing, &next)? {
                todo.push(item.at(doing, &next)?.path());
            }
        }
    }
    lines.sort();
    let mut text = String::new();
    for line in lines {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{line}");
    }
    Ok(text)
}

enum Kind {
    Qcow2,
    Ext4,
    Gzip,
    Tar,
}

fn sniff(path: &Path) -> Result<Kind, ImageError> {
    /// The ext4 magic number lies at 0x38 of the superblock, which lies at 1024.
    const EXT4_MAGIC_AT: usize = 1024 + 0x38;
    /// Tar archives carry "ustar" here, and disks with a partition table 0x55aa at 510.
    const USTAR_AT: usize = 257;
    let mut head = Vec::new();
    open(path)?.take(2048).read_to_end(&mut head).at(LOAD, path)?;
    let at = |from: usize, bytes: &[u8]| head.get(from..from + bytes.len()) == Some(bytes);
    if at(0, &qcow2::MAGIC) {
        Ok(Kind::Qcow2)
    } else if at(0, &[0x1f, 0x8b]) {
        Ok(Kind::Gzip)
    } else if at(USTAR_AT, b"ustar") {
        Ok(Kind::Tar)
    } else if at(EXT4_MAGIC_AT, &[0x53, 0xef]) {
        Ok(Kind::Ext4)
    } else if at(510, &[0x55, 0xaa]) {
        let reason = "a disk with a partition table; give a file that holds the root partition alone";
        Err(ImageError::format(LOAD, path, reason))
    } else {
        let reason = "neither a directory nor a tar archive (plain, gzip) nor an ext4 image (raw, qcow2)";
        Err(ImageError::format(LOAD, path, reason))
    }
}

fn open(path: &Path) -> Result<File, ImageError> {
    File::open(path).at(LOAD, path)
}

/// Counts what a tree holds against [`MAX_TREE_BYTES`].
struct Budget<'a> {
    path: &'a Path,
    left: u64,
}

impl<'a> Budget<'a> {
    fn new(path: &'a Path) -> Self {
        Self { path, left: MAX_TREE_BYTES }
    }

    fn take(&mut self, bytes: u64) -> Result<(), ImageError> {
        let Some(left) = self.left.checked_sub(bytes) else {
            let reason = format!("holds more than {} MiB, too much for an initramfs", MAX_TREE_BYTES >> 20);
            return Err(ImageError::format(LOAD, self.path, reason));
        };
        self.left = left;
        Ok(())
    }
}

/// Loads a directory; file contents are read when the layer is written.
pub(crate) fn load_dir(root: &Path) -> Result<LayerBuilder, ImageError> {
    let mut tree = LayerBuilder::new();
    let mut budget = Budget::new(root);
    let own = rustix::process::geteuid().as_raw();
    let mut todo = vec![(root.to_path_buf(), 0)];
    while let Some((dir, depth)) = todo.pop() {
        for item in fs::read_dir(&dir).at(LOAD, &dir)? {
            let path = item.at(LOAD, &dir)?.path();
            let found = fs::symlink_metadata(&path).at(LOAD, &path)?;
            let kind = found.file_type();
            let kind = if kind.is_dir() {
                if depth >= MAX_DEPTH {
                    return Err(ImageError::format(LOAD, &path, "nested too deeply"));
                }
                todo.push((path.clone(), depth + 1));
                NodeKind::Dir
            } else if kind.is_file() {
                budget.take(found.len())?;
                NodeKind::File(Content::Host(path.clone()))
            } else if kind.is_symlink() {
                NodeKind::Symlink(fs::read_link(&path).at(LOAD, &path)?.as_os_str().as_bytes().to_vec())
            } else if kind.is_fifo() {
                NodeKind::Fifo
            } else if kind.is_char_device() {
                NodeKind::CharDevice(rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()))
            } else if kind.is_block_device() {
                NodeKind::BlockDevice(rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()))
            } else {
                // A socket is of no use without the process that made it.
                continue;
            };
            // An ordinary user cannot own files as root: what is theirs is meant to be root's in the guest.
            let owner = |id: u32| if own == 0 { id } else { 0 };
            let node =
                Node { mode: found.mode() & 0o7777, uid: owner(found.uid()), gid: owner(found.gid()), kind };
            let relative = path.strip_prefix(root).unwrap_or(&path);
            tree.node(relative.as_os_str().as_bytes(), node).at(LOAD, &path)?;
        }
    }
    Ok(tree)
}

/// Loads a tar archive.
pub(crate) fn load_tar(path: &Path, reader: impl Read) -> Result<LayerBuilder, ImageError> {
    let mut tree = LayerBuilder::new();
    let mut budget = Budget::new(path);
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries().at(LOAD, path)? {
        let mut entry = entry.at(LOAD, path)?;
        let name = entry.path_bytes().into_owned();
        let header = entry.header().clone();
        let kind = match header.entry_type() {
            tar::EntryType::Directory => NodeKind::Dir,
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                budget.take(entry.size())?;
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).at(LOAD, path)?;
                NodeKind::File(Content::Bytes(bytes))
            }
            tar::EntryType::Symlink => {
                NodeKind::Symlink(entry.link_name_bytes().unwrap_or_default().into_owned())
            }
            tar::EntryType::Link => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                let Some(node) = tree.get(&target) else {
                    let reason =
                        format!("hard link to {}, which is not in it", String::from_utf8_lossy(&target));
                    return Err(ImageError::format(LOAD, path, reason));
                };
                let node = node.clone();
                tree.node(&name, node).at(LOAD, path)?;
                continue;
            }
            tar::EntryType::Fifo => NodeKind::Fifo,
            tar::EntryType::Char | tar::EntryType::Block => {
                let major = header.device_major().at(LOAD, path)?.unwrap_or(0);
                let minor = header.device_minor().at(LOAD, path)?.unwrap_or(0);
                match header.entry_type() {
                    tar::EntryType::Char => NodeKind::CharDevice(major, minor),
                    _ => NodeKind::BlockDevice(major, minor),
                }
            }
            _ => continue,
        };
        let node = Node {
            mode: header.mode().at(LOAD, path)? & 0o7777,
            uid: header.uid().at(LOAD, path)? as u32,
            gid: header.gid().at(LOAD, path)? as u32,
            kind,
        };
        tree.node(&name, node).at(LOAD, path)?;
    }
    Ok(tree)
}

/// Loads an ext4 file system. Device nodes are left out: the guest's /dev is made by the kernel.
fn load_ext4(path: &Path, reader: Box<dyn Ext4Read>) -> Result<LayerBuilder, ImageError> {
    let bad = |e: ext4_view::Ext4Error| ImageError::format(LOAD, path, e.to_string());
    let fs = Ext4::load(reader).map_err(bad)?;
    let mut tree = LayerBuilder::new();
    let mut budget = Budget::new(path);
    let mut todo = vec![(ext4_view::PathBuf::new("/"), 0)];
    while let Some((dir, depth)) = todo.pop() {
        for entry in fs.read_dir(&dir).map_err(bad)? {
            let entry = entry.map_err(bad)?;
            if matches!(entry.file_name().as_ref(), b"." | b"..") {
                continue;
            }
            let name = entry.path();
            let found = entry.metadata().map_err(bad)?;
            let kind = match found.file_type() {
                FileType::Directory => {
                    if depth >= MAX_DEPTH {
                        return Err(ImageError::format(LOAD, path, "directories are nested too deeply"));
                    }
                    todo.push((name.clone(), depth + 1));
                    NodeKind::Dir
                }
                FileType::Regular => {
                    budget.take(found.len())?;
                    NodeKind::File(Content::Bytes(fs.read(&name).map_err(bad)?))
                }
                FileType::Symlink => NodeKind::Symlink(fs.read_link(&name).map_err(bad)?.as_ref().to_vec()),
                FileType::Fifo => NodeKind::Fifo,
                FileType::BlockDevice | FileType::CharacterDevice | FileType::Socket => continue,
            };
            let node = Node { mode: u32::from(found.mode()), uid: found.uid(), gid: found.gid(), kind };
            let bytes: &[u8] = name.as_ref();
            tree.node(bytes, node).at(LOAD, path)?;
        }
    }
    Ok(tree)
}

#[cfg(test)]
mod tests;
