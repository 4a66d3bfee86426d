//! Reads QEMU's qcow2 disk images at random offsets, without QEMU and without mounting anything.
//!
//! Versions 2 and 3, plain, zero and compressed (deflate or zstd) clusters. Refused with a reason: backing files,
//! encryption, external data files, extended L2 entries, images marked corrupt. Memory is bounded by
//! [`L2_TABLES_KEPT`] and [`CLUSTERS_KEPT`], whatever the size of the image.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// First bytes of every qcow2 file.
pub(crate) const MAGIC: [u8; 4] = *b"QFI\xfb";
/// L2 tables held in memory; one maps 512 MiB of disk in the usual 64 KiB clusters.
const L2_TABLES_KEPT: usize = 64;
/// Decompressed clusters held in memory: metadata blocks are read again and again, and may be compressed.
const CLUSTERS_KEPT: usize = 64;
/// Largest L1 table accepted (32 MiB), as in QEMU: a hostile header must not make us allocate more.
const MAX_L1_BYTES: u64 = 32 << 20;
const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;
/// Compressed clusters are stored in units of this many bytes.
const SECTOR: u64 = 512;

/// An open image.
pub struct Qcow2 {
    path: PathBuf,
    file: File,
    cluster_bits: u32,
    size: u64,
    version: u32,
    compression: Compression,
    l1: Vec<u64>,
    l2: HashMap<u64, Vec<u64>>,
    recent: VecDeque<(u64, Vec<u8>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Deflate,
    Zstd,
}

/// An image that cannot be read.
#[derive(Debug)]
pub struct Qcow2Error {
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Io(io::Error),
    NotQcow2,
    Unsupported(&'static str),
    Damaged(String),
}

impl Qcow2 {
    /// Opens the image and checks its header.
    pub fn open(path: &Path) -> Result<Self, Qcow2Error> {
        Self::open_inner(path).map_err(|kind| Qcow2Error { path: path.to_path_buf(), kind })
    }

    /// Fills `buf` from the disk's byte `offset` on; past the end of the disk is an error.
    pub fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Qcow2Error> {
        self.read_inner(offset, buf).map_err(|kind| Qcow2Error { path: self.path.clone(), kind })
    }

    fn open_inner(path: &Path) -> Result<Self, Kind> {
        let file = File::open(path)?;
        let mut head = [0; 104];
        match file.read_exact_at(&mut head[..72], 0) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(Kind::NotQcow2),
            other => other?,
        }
        if head[..4] != MAGIC {
            return Err(Kind::NotQcow2);
        }
        let version = be32(&head, 4);
        if !matches!(version, 2 | 3) {
            return Err(Kind::Unsupported("a version other than 2 and 3"));
        }
        if be64(&head, 8) != 0 {
            return Err(Kind::Unsupported("a backing file"));
        }
        if be32(&head, 32) != 0 {
            return Err(Kind::Unsupported("encryption"));
        }
        let cluster_bits = be32(&head, 20);
        if !(9..=21).contains(&cluster_bits) {
            return Err(Kind::Damaged(format!("cluster size of 2^{cluster_bits}")));
        }
        let compression = if version == 3 {
            file.read_exact_at(&mut head[72..], 72)?;
            let kind = &mut [0];
            if be32(&head, 100) > 104 {
                file.read_exact_at(kind, 104)?;
            }
            check_features(be64(&head, 72), kind[0])?
        } else {
            Compression::Deflate
        };
        let size = be64(&head, 24);
        let entries = u64::from(be32(&head, 36));
        let covered = entries.saturating_mul(1 << (2 * cluster_bits - 3));
        if entries * 8 > MAX_L1_BYTES || covered < size {
            return Err(Kind::Damaged(format!(
                "an L1 table of {entries} entries for a disk of {size} bytes"
            )));
        }
        let l1 = read_table(&file, be64(&head, 40), entries as usize)?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            cluster_bits,
            size,
            version,
            compression,
            l1,
            l2: HashMap::new(),
            recent: VecDeque::new(),
        })
    }

    fn read_inner(&mut self, mut offset: u64, mut buf: &mut [u8]) -> Result<(), Kind> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.size);
        if end.is_none() {
            return Err(Kind::Damaged(format!(
                "a read of {} bytes at {offset}, past the end of the disk",
                buf.len()
            )));
        }
        let cluster_size = 1_u64 << self.cluster_bits;
        while !buf.is_empty() {
            let within = offset % cluster_size;
            let len = (cluster_size - within).min(buf.len() as u64);
            let (now, rest) = buf.split_at_mut(len as usize);
            self.read_cluster(offset >> self.cluster_bits, within, now)?;
            buf = rest;
            offset += len;
        }
        Ok(())
    }

    fn read_cluster(&mut self, index: u64, within: u64, out: &mut [u8]) -> Result<(), Kind> {
        let entry = self.l2_entry(index)?;
        if entry & COMPRESSED != 0 {
            let data = self.decompressed(entry)?;
            out.copy_from_slice(&data[within as usize..][..out.len()]);
        } else if entry & OFFSET_MASK == 0 || (self.version >= 3 && entry & ZERO != 0) {
            out.fill(0);
        } else {
            // The file may end before the last cluster does: QEMU reads zeros there.
            let mut done = 0;
            let start = (entry & OFFSET_MASK) + within;
            while done < out.len() {
                match self.file.read_at(&mut out[done..], start + done as u64)? {
                    0 => break,
                    n => done += n,
                }
            }
            out[done..].fill(0);
        }
        Ok(())
    }

    fn l2_entry(&mut self, index: u64) -> Result<u64, Kind> {
        let per_table = 1_u64 << (self.cluster_bits - 3);
        let table = self.l1[(index / per_table) as usize] & OFFSET_MASK;
        if table == 0 {
            return Ok(0);
        }
        if !self.l2.contains_key(&table) {
            if self.l2.len() >= L2_TABLES_KEPT {
                self.l2.clear();
            }
            let entries = read_table(&self.file, table, per_table as usize)?;
            self.l2.insert(table, entries);
        }
        Ok(self.l2[&table][(index % per_table) as usize])
    }

    fn decompressed(&mut self, entry: u64) -> Result<&[u8], Kind> {
        if let Some(at) = self.recent.iter().position(|(key, _)| *key == entry) {
            return Ok(&self.recent[at].1);
        }
        let offset_bits = 62 - (self.cluster_bits - 8);
        let offset = entry & ((1 << offset_bits) - 1);
        let sectors = ((entry & !COMPRESSED & !(1 << 63)) >> offset_bits) + 1;
        let mut packed = vec![0; (sectors * SECTOR - offset % SECTOR) as usize];
        let mut got = 0;
        // The last sector may be cut off at the end of the file.
        while got < packed.len() {
            match self.file.read_at(&mut packed[got..], offset + got as u64)? {
                0 => break,
                n => got += n,
            }
        }
        packed.truncate(got);
        let mut data = vec![0; 1 << self.cluster_bits];
        match self.compression {
            Compression::Deflate => flate2::read::DeflateDecoder::new(&packed[..]).read_exact(&mut data),
            Compression::Zstd => ruzstd::decoding::StreamingDecoder::new(&packed[..])
                .map_err(io::Error::other)
                .and_then(|mut decoder| decoder.read_exact(&mut data)),
        }
        .map_err(|e| Kind::Damaged(format!("the compressed cluster at byte {offset}: {e}")))?;
        if self.recent.len() >= CLUSTERS_KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back((entry, data));
        Ok(self.recent.back().map_or(&[], |(_, data)| data))
    }
}

fn check_features(incompatible: u64, compression: u8) -> Result<Compression, Kind> {
    // Bit 0 (dirty) only says that reference counts may be wrong, which reading does not use.
    const REFUSED: [(u64, &str); 3] =
        [(1, "the mark of a corrupt image"), (2, "an external data file"), (4, "extended L2 entries")];
    if let Some((_, what)) = REFUSED.iter().find(|(bit, _)| incompatible & (1 << bit) != 0) {
        return Err(Kind::Unsupported(what));
    }
    if incompatible >> 5 != 0 {
        return Err(Kind::Unsupported("a feature of a newer QEMU"));
    }
    match compression {
        0 => Ok(Compression::Deflate),
        1 => Ok(Compression::Zstd),
        _ => Err(Kind::Unsupported("an unknown compression")),
    }
}

fn read_table(file: &File, offset: u64, entries: usize) -> Result<Vec<u64>, Kind> {
    let mut bytes = vec![0; entries * 8];
    file.read_exact_at(&mut bytes, offset)
        .map_err(|e| Kind::Damaged(format!("the table at byte {offset}: {e}")))?;
    Ok(bytes.chunks_exact(8).map(|chunk| be64(chunk, 0)).collect())
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |acc, byte| (acc << 8) | u32::from(*byte))
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().fold(0, |acc, byte| (acc << 8) | u64::from(*byte))
}

impl From<io::Error> for Kind {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for Qcow2Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        match &self.kind {
            Kind::Io(e) => write!(f, "{e}"),
            Kind::NotQcow2 => f.write_str("not a qcow2 image"),
            Kind::Unsupported(what) => write!(f, "the image has {what}, which cannot be read here"),
            Kind::Damaged(what) => write!(f, "the image is damaged: {what}"),
        }
    }
}

impl std::error::Error for Qcow2Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            Kind::Io(e) => Some(e),
            _ => None,
        }
    }
}

impl ext4_view::Ext4Read for Qcow2 {
    fn read(
        &mut self,
        start_byte: u64,
        dst: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        self.read_at(start_byte, dst).map_err(Into::into)
    }
}

#[cfg(test)]
mod tests;
