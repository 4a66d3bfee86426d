//! What a file is that a kernel is to begin with: an archive, as it is or compressed.

/// First bytes of an initrd that the kernel unpacks (lib/decompress.c, init/initramfs.c).
const KINDS: [(&str, &[u8]); 9] = [
    ("cpio", b"070701"),
    ("cpio", b"070702"),
    ("gzip", b"\x1f\x8b"),
    ("zstd", b"\x28\xb5\x2f\xfd"),
    ("xz", b"\xfd7zXZ\0"),
    ("lz4", b"\x02\x21\x4c\x18"),
    ("bzip2", b"BZh"),
    ("lzo", b"\x89LZO\0\r\n\x1a\n"),
    ("lzma", b"\x5d\0\0"),
];

/// How many of the first bytes are needed.
pub const HEAD_LIMIT: usize = 9;

/// What the file is, by its first bytes; `None` when the kernel would not unpack it.
pub fn kind(head: &[u8]) -> Option<&'static str> {
    KINDS.iter().find(|(_, magic)| head.starts_with(magic)).map(|(kind, _)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_unpacks_is_known_by_its_first_bytes() {
        assert!(
            KINDS.iter().all(|(kind_of, magic)| kind(magic) == Some(*kind_of) && magic.len() <= HEAD_LIMIT)
        );
        assert_eq!(kind(b"070707 old"), None);
        assert_eq!(kind(b""), None);
    }
}
