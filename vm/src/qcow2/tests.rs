use std::io::Write;

use super::*;

const CLUSTER_BITS: u32 = 9;
const CLUSTER: usize = 1 << CLUSTER_BITS;
const CLUSTERS: usize = 6;
/// Where the parts of the fabricated image lie, in clusters.
const L1: u64 = 1;
const L2: u64 = 2;
const DATA: u64 = 3;

struct Image {
    bytes: Vec<u8>,
}

impl Image {
    /// A disk of six small clusters: 0 has data, all others are absent.
    fn new(version: u32) -> Self {
        let mut image = Self { bytes: vec![0; CLUSTER * 4] };
        image.bytes[..4].copy_from_slice(&MAGIC);
        image.put32(4, version);
        image.put32(20, CLUSTER_BITS);
        image.put64(24, (CLUSTER * CLUSTERS) as u64);
        image.put32(36, 1);
        image.put64(40, L1 * CLUSTER as u64);
        image.put32(100, 112);
        image.put64(L1 as usize * CLUSTER, (L2 * CLUSTER as u64) | (1 << 63));
        image.entry(0, (DATA * CLUSTER as u64) | (1 << 63));
        image.bytes[DATA as usize * CLUSTER..].fill(b'd');
        image
    }

    fn put32(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }

    fn put64(&mut self, at: usize, value: u64) {
        self.bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
    }

    fn entry(&mut self, cluster: usize, value: u64) {
        self.put64(L2 as usize * CLUSTER + cluster * 8, value);
    }

    /// Appends packed data at an odd place and points `cluster` at it.
    fn compressed(&mut self, cluster: usize, packed: &[u8]) {
        self.bytes.extend_from_slice(&[0xaa; 77]);
        let offset = self.bytes.len() as u64;
        self.bytes.extend_from_slice(packed);
        let sectors = (offset + packed.len() as u64).div_ceil(512) - offset / 512 - 1;
        let bits = 62 - (CLUSTER_BITS - 8);
        self.entry(cluster, COMPRESSED | (sectors << bits) | offset);
    }

    fn open(&self) -> Result<(tempfile::NamedTempFile, Qcow2), String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&self.bytes).unwrap();
        let image = Qcow2::open(file.path()).map_err(|e| e.to_string())?;
        Ok((file, image))
    }

    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, String> {
        let (_file, mut image) = self.open()?;
        let mut buffer = vec![0xee; len];
        image.read_at(offset, &mut buffer).map_err(|e| e.to_string())?;
        Ok(buffer)
    }
}

fn deflated(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn plain_absent_zero_and_compressed_clusters() {
    let mut image = Image::new(3);
    image.entry(1, ZERO | (DATA * CLUSTER as u64));
    let text: Vec<u8> = (0..CLUSTER).map(|i| (i % 251) as u8).collect();
    image.compressed(3, &deflated(&text));
    let disk = image.read(0, CLUSTER * CLUSTERS).unwrap();
    assert_eq!(disk[..CLUSTER], [b'd'; CLUSTER]);
    assert_eq!(disk[CLUSTER..CLUSTER * 3], [0; CLUSTER * 2]);
    assert_eq!(disk[CLUSTER * 3..CLUSTER * 4], text);
    assert_eq!(disk[CLUSTER * 4..], [0; CLUSTER * 2]);
}

#[test]
fn reads_may_cross_clusters_at_any_offset() {
    let mut image = Image::new(2);
    image.compressed(1, &deflated(&[b'c'; CLUSTER]));
    let part = image.read(CLUSTER as u64 - 3, 6).unwrap();
    assert_eq!(part, b"dddccc");
    // In version 2 the lowest bit has no meaning.
    image.entry(0, ZERO | (DATA * CLUSTER as u64));
    assert_eq!(image.read(0, 2).unwrap(), b"dd");
}

#[test]
fn the_end_of_the_disk_is_a_limit() {
    let end = (CLUSTER * CLUSTERS) as u64;
    assert!(Image::new(3).read(end - 1, 2).unwrap_err().contains("past the end"));
    assert!(Image::new(3).read(u64::MAX, 2).unwrap_err().contains("past the end"));
}

#[test]
fn what_cannot_be_read_is_refused_with_its_reason() {
    let with = |change: &dyn Fn(&mut Image)| {
        let mut image = Image::new(3);
        change(&mut image);
        image.read(0, CLUSTER * CLUSTERS).unwrap_err()
    };
    assert!(with(&|i| i.bytes[0] = b'X').contains("not a qcow2 image"));
    assert!(with(&|i| i.bytes.truncate(20)).contains("not a qcow2 image"));
    assert!(with(&|i| i.put32(4, 4)).contains("a version other than"));
    assert!(with(&|i| i.put64(8, 512)).contains("a backing file"));
    assert!(with(&|i| i.put32(32, 1)).contains("encryption"));
    assert!(with(&|i| i.put64(72, 1 << 2)).contains("an external data file"));
    assert!(with(&|i| i.put64(72, 1 << 4)).contains("extended L2"));
    assert!(with(&|i| i.put32(20, 40)).contains("cluster size"));
    assert!(with(&|i| i.put64(24, u64::MAX)).contains("L1 table"));
    assert!(with(&|i| i.put64(40, 1 << 40)).contains("damaged"));
    assert!(with(&|i| i.compressed(2, b"no deflate at all")).contains("the compressed cluster"));
}

#[test]
fn dirty_images_are_readable() {
    let mut image = Image::new(3);
    image.put64(72, 1);
    assert_eq!(image.read(0, 1).unwrap(), b"d");
}
