//! Unpacks a kernel image, so that QEMU can enter the kernel itself (PVH) and the guest need not unpack it: a third
//! to half a second of each cold boot under emulation.

use std::fs;
use std::io::Read;
use std::path::Path;

use object::LittleEndian;
use object::elf::{FileHeader64, NoteType};
use object::read::elf::{FileHeader, ProgramHeader};

use super::{Built, ImageError, IoContext, KEY_LEN, Progress};
use crate::cache::{Cache, Entry};
use crate::fetch::hash_file;

/// The unpacked kernel's file; missing from the entry when the image cannot be entered this way.
pub(super) const VMLINUX: &str = "vmlinux";
/// Part of the key: raise it when the code below can unpack more.
const REVISION: u32 = 2;
/// Largest kernel accepted; real ones have 40 to 80 MB.
const MAX_VMLINUX: u64 = 512 << 20;
const DOING: &str = "unpack the kernel";

/// The entry for `kernel`, a bzImage. It is empty when the kernel is packed in an unknown way or lacks the entry point.
pub(super) fn unpacked(cache: &Cache, kernel: &Path, progress: &dyn Progress) -> Result<Entry, ImageError> {
    let (sha256, _) = hash_file(kernel)?;
    cache.entry(&format!("vmlinux-{REVISION}-{}", &sha256[..KEY_LEN]), progress, &|space| {
        progress.step("unpack the kernel for a quicker start");
        let image = fs::read(kernel).at(DOING, kernel)?;
        if let Some(vmlinux) = extract(&image).filter(|elf| has_pvh_entry(elf)) {
            let path = space.out.join(VMLINUX);
            fs::write(&path, vmlinux).at(DOING, &path)?;
        }
        Ok(Built::default())
    })
}

/// The lz4 format that kernels use: this magic number, then blocks, each after its packed size.
const LZ4_LEGACY: &[u8] = &[0x02, 0x21, 0x4c, 0x18];
/// What each of its blocks but the last unpacks to.
const LZ4_BLOCK: usize = 8 << 20;

/// The payload of a bzImage, as its header describes it.
fn extract(image: &[u8]) -> Option<Vec<u8>> {
    /// Offsets in the header, from the kernel's boot protocol (2.08 and later).
    const SETUP_SECTORS_AT: usize = 0x1f1;
    const SIGNATURE_AT: usize = 0x202;
    const PAYLOAD_OFFSET_AT: usize = 0x248;
    const PAYLOAD_LENGTH_AT: usize = 0x24c;
    let word = |at: usize| {
        let bytes: [u8; 4] = image.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes) as usize)
    };
    if image.get(SIGNATURE_AT..SIGNATURE_AT + 4)? != b"HdrS" {
        return None;
    }
    // Zero means four, for very old loaders.
    let sectors = match *image.get(SETUP_SECTORS_AT)? {
        0 => 4,
        count => usize::from(count),
    };
    let start = ((sectors + 1) * 512).checked_add(word(PAYLOAD_OFFSET_AT)?)?;
    let packed = image.get(start..start.checked_add(word(PAYLOAD_LENGTH_AT)?)?)?;
    // What follows the packed data (its unpacked size) is not part of it: only the first stream is read.
    let reader: Box<dyn Read + '_> = match packed.get(..4)? {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::GzDecoder::new(packed)),
        [0xfd, b'7', b'z', b'X'] => Box::new(lzma_rust2::XzReader::new(packed, false)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(ruzstd::decoding::StreamingDecoder::new(packed).ok()?),
        LZ4_LEGACY => return unpack_lz4(packed),
        _ => return None,
    };
    let mut vmlinux = Vec::new();
    reader.take(MAX_VMLINUX).read_to_end(&mut vmlinux).ok()?;
    Some(vmlinux)
}

fn unpack_lz4(packed: &[u8]) -> Option<Vec<u8>> {
    let mut vmlinux = Vec::new();
    let mut rest = packed.get(LZ4_LEGACY.len()..)?;
    // The last four bytes are the unpacked size, not a block.
    while rest.len() > 4 {
        let (size, blocks) = rest.split_at(4);
        let size = u32::from_le_bytes(size.try_into().ok()?) as usize;
        let done = vmlinux.len();
        if (done + LZ4_BLOCK) as u64 > MAX_VMLINUX {
            return None;
        }
        vmlinux.resize(done + LZ4_BLOCK, 0);
        let unpacked = lz4_flex::block::decompress_into(blocks.get(..size)?, &mut vmlinux[done..]).ok()?;
        vmlinux.truncate(done + unpacked);
        rest = blocks.get(size..)?;
    }
    Some(vmlinux)
}

/// Whether QEMU can enter this kernel: it carries the note with the address of its PVH entry point.
fn has_pvh_entry(elf: &[u8]) -> bool {
    /// `XEN_ELFNOTE_PHYS32_ENTRY`
    const ENTRY_NOTE: NoteType = NoteType(18);
    let find = || -> object::read::Result<bool> {
        let header = FileHeader64::<LittleEndian>::parse(elf)?;
        let endian = header.endian()?;
        for segment in header.program_headers(endian, elf)? {
            let Some(mut notes) = segment.notes(endian, elf)? else { continue };
            while let Some(note) = notes.next()? {
                if note.name() == b"Xen" && note.n_type(endian) == ENTRY_NOTE {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    };
    find().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 0x400 + 0x20];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&0x20_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend_from_slice(payload);
        image
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_payload_is_found_and_its_trailer_ignored() {
        let mut payload = gzip(b"kernel");
        payload.extend_from_slice(&6_u32.to_le_bytes());
        assert_eq!(extract(&bzimage(&payload)).as_deref(), Some(b"kernel".as_slice()));
    }

    #[test]
    fn the_kernels_lz4_format_is_understood() {
        // One block: a token for six literals, then these.
        let payload = [LZ4_LEGACY, &[7, 0, 0, 0, 0x60], b"kernel", &[6, 0, 0, 0]].concat();
        assert_eq!(extract(&bzimage(&payload)).as_deref(), Some(b"kernel".as_slice()));
        let cut = [LZ4_LEGACY, &[7, 0, 0, 0, 0x60], b"ker"].concat();
        assert_eq!(extract(&bzimage(&cut)), None);
    }

    #[test]
    fn what_cannot_be_unpacked_is_left_alone() {
        assert_eq!(extract(&bzimage(b"lz4?")), None);
        assert_eq!(extract(&bzimage(&gzip(b"kernel")[..9])), None);
        assert_eq!(extract(b"short"), None);
        let mut beyond = bzimage(b"abcd");
        beyond[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(extract(&beyond), None);
        assert!(!has_pvh_entry(b"no elf"));
    }
}
