//! A guest's disk, looked at from the host after the guest has ended.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use ext4_view::Ext4;

use crate::error::VmError;

/// Where the superblock is, and where in it are the fields that tell how it was left; see the kernel's
/// `Documentation/filesystems/ext4/super.rst`.
const SUPERBLOCK: u64 = 1024;
const SUPERBLOCK_BYTES: usize = 1024;
const MAGIC_OFFSET: usize = 0x38;
const MAGIC: u16 = 0xef53;
const STATE_OFFSET: usize = 0x3a;
const STATE_CLEAN: u16 = 1;
const INCOMPATIBLE_OFFSET: usize = 0x60;
const NEEDS_RECOVERY: u16 = 4;

/// A disk with an ext4 file system.
#[derive(Debug)]
pub struct Ext4Disk {
    /// The guest has unmounted it, or mounted it read-only, before it ended.
    pub was_unmounted: bool,
    path: PathBuf,
}

impl Ext4Disk {
    /// Looks at a raw image. Fails if it has no ext4 file system, but not if that was left in disorder.
    pub fn open(path: &Path) -> Result<Self, VmError> {
        let attempt = format!("read the ext4 file system on {}", path.display());
        let superblock = read_superblock(path).map_err(VmError::host(attempt))?;
        Ok(Self { was_unmounted: was_unmounted(&superblock), path: path.to_path_buf() })
    }

    /// A file's content, by its path from the file system's root.
    pub fn read(&self, file: &str) -> Result<Vec<u8>, VmError> {
        let content = Ext4::load_from_path(&self.path).and_then(|files| files.read(file));
        content.map_err(|error| {
            VmError::host(format!("read {file} on the guest's disk {}", self.path.display()))(
                io::Error::other(error),
            )
        })
    }
}

fn read_superblock(path: &Path) -> io::Result<[u8; SUPERBLOCK_BYTES]> {
    let mut file = File::open(path)?;
    let mut superblock = [0; SUPERBLOCK_BYTES];
    file.seek(SeekFrom::Start(SUPERBLOCK))?;
    file.read_exact(&mut superblock)?;
    if field(&superblock, MAGIC_OFFSET) == MAGIC {
        Ok(superblock)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "it has no ext4 superblock"))
    }
}

/// The low 16 bits of a field; the superblock is little endian.
fn field(superblock: &[u8; SUPERBLOCK_BYTES], offset: usize) -> u16 {
    u16::from_le_bytes([superblock[offset], superblock[offset + 1]])
}

fn was_unmounted(superblock: &[u8; SUPERBLOCK_BYTES]) -> bool {
    field(superblock, STATE_OFFSET) == STATE_CLEAN
        && field(superblock, INCOMPATIBLE_OFFSET) & NEEDS_RECOVERY == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock(state: u16, incompatible: u16) -> [u8; SUPERBLOCK_BYTES] {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        bytes[STATE_OFFSET..][..2].copy_from_slice(&state.to_le_bytes());
        bytes[INCOMPATIBLE_OFFSET..][..2].copy_from_slice(&incompatible.to_le_bytes());
        bytes
    }

    #[test]
    fn a_journal_that_waits_for_its_replay_was_not_unmounted() {
        assert!(was_unmounted(&superblock(1, 0x2c2)));
        assert!(!was_unmounted(&superblock(1, 0x2c6)));
        assert!(!was_unmounted(&superblock(0, 0x2c2)));
    }

    #[test]
    fn an_empty_disk_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let error = Ext4Disk::open(file.path()).unwrap_err().to_string();
        assert!(error.contains("no ext4 superblock"), "{error}");
    }
}
