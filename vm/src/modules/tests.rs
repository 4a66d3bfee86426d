use std::io::Write;

use super::*;

const RELEASE: &str = "6.1.0-test";

/// A relocatable ELF file with nothing but a `.modinfo` section.
pub(crate) fn module(info: &[&str]) -> Vec<u8> {
    const HEADER: usize = 64;
    const NAMES: &[u8] = b"\0.modinfo\0.shstrtab\0";
    let text: Vec<u8> = info.iter().flat_map(|field| [field.as_bytes(), b"\0"].concat()).collect();
    let mut elf = vec![0; HEADER];
    elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
    put(16, &1_u16.to_le_bytes()); // relocatable
    put(18, &62_u16.to_le_bytes()); // x86-64
    put(20, &1_u32.to_le_bytes());
    put(40, &((HEADER + text.len() + NAMES.len()) as u64).to_le_bytes()); // section headers
    put(52, &64_u16.to_le_bytes());
    put(58, &64_u16.to_le_bytes());
    put(60, &3_u16.to_le_bytes());
    put(62, &2_u16.to_le_bytes()); // section names are in section 2
    elf.extend_from_slice(&text);
    elf.extend_from_slice(NAMES);
    elf.extend_from_slice(&[0; 64]);
    let mut section = |name: u32, kind: u32, offset: usize, size: usize| {
        let mut header = [0; 64];
        header[..4].copy_from_slice(&name.to_le_bytes());
        header[4..8].copy_from_slice(&kind.to_le_bytes());
        header[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(size as u64).to_le_bytes());
        elf.extend_from_slice(&header);
    };
    section(1, 1, HEADER, text.len());
    section(10, 3, HEADER + text.len(), NAMES.len());
    elf
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

fn tree(base: &str, files: &[(&str, Vec<u8>)]) -> BTreeMap<Vec<u8>, Node> {
    let file = |bytes: &Vec<u8>| Node::root(0o644, NodeKind::File(Content::Bytes(bytes.clone())));
    files.iter().map(|(path, bytes)| (format!("{base}/{RELEASE}/{path}").into_bytes(), file(bytes))).collect()
}

fn sample() -> BTreeMap<Vec<u8>, Node> {
    let blk = module(&["license=GPL", "depends=virtio,virtio_ring", "alias=virtio:d00000002v*"]);
    let mut nodes = tree(
        "lib/modules",
        &[
            ("kernel/drivers/block/virtio_blk.ko.gz", gzip(&blk)),
            ("kernel/drivers/virtio/virtio.ko", module(&["depends="])),
            ("kernel/drivers/virtio/virtio_ring.ko.zst", zstd(&module(&["depends=virtio"]))),
            ("kernel/fs/ext4/ext4.ko", module(&["depends=jbd2", "softdep=pre: crc32c post: other"])),
            ("kernel/fs/jbd2/jbd2.ko", module(&["depends="])),
            ("kernel/crypto/crc32c-generic.ko", module(&["depends="])),
            ("kernel/sound/unwanted.ko", module(&["depends="])),
            ("modules.builtin", b"kernel/net/unix/unix.ko\n".to_vec()),
        ],
    );
    nodes.extend(tree("lib/modules/other", &[("x.ko", Vec::new())]));
    nodes
}

fn choose(nodes: &BTreeMap<Vec<u8>, Node>) -> Result<ModuleSet, ImageError> {
    ModuleSet::choose(nodes, RELEASE, Path::new("test"))
}

#[test]
fn dependencies_come_first_and_nothing_else_comes_along() {
    let set = choose(&sample()).unwrap();
    assert_eq!(set.names(), ["virtio", "virtio_ring", "virtio_blk", "crc32c_generic", "jbd2", "ext4"]);
    assert!(set.order().contains(
        "virtio_blk /lib/modules/6.1.0-test/kernel/drivers/block/virtio_blk.ko virtio,virtio_ring\n\
         crc32c_generic /lib/modules/6.1.0-test/kernel/crypto/crc32c-generic.ko -\n"
    ));
    assert!(set.order().ends_with(" jbd2,crc32c_generic\n"));
}

#[test]
fn modprobe_finds_its_tables() {
    let set = choose(&sample()).unwrap();
    let dep = set.dep();
    assert!(dep.contains(
        "kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko\n"
    ));
    assert_eq!(set.alias(), "alias virtio:d00000002v* virtio_blk\n");
}

#[test]
fn modules_are_unpacked_in_both_layouts() {
    let set = choose(&sample()).unwrap();
    for base in ["lib/modules", "usr/lib/modules"] {
        let mut layer = LayerBuilder::new();
        set.write_to(&mut layer, base).unwrap();
        let path = format!("{base}/{RELEASE}/kernel/drivers/virtio/virtio_ring.ko");
        let NodeKind::File(Content::Bytes(bytes)) = &layer.get(path).unwrap().kind else { panic!() };
        assert_eq!(bytes[..4], *b"\x7fELF");
        assert!(layer.get(format!("{base}/{RELEASE}/{ORDER_FILE}")).is_some());
    }
}

#[test]
fn merged_usr_is_understood() {
    let nodes = tree("usr/lib/modules", &[("kernel/veth.ko", module(&["depends="]))]);
    assert_eq!(choose(&nodes).unwrap().names(), ["veth"]);
}

#[test]
fn a_kernel_without_modules_has_an_empty_list() {
    let set = choose(&BTreeMap::new()).unwrap();
    assert_eq!((set.names().len(), set.order().as_str()), (0, ""));
}

#[test]
fn cycles_of_dependencies_end() {
    let nodes = tree(
        "lib/modules",
        &[("veth.ko", module(&["depends=bridge"])), ("bridge.ko", module(&["depends=veth"]))],
    );
    let set = choose(&nodes).unwrap();
    assert_eq!(set.names(), ["bridge", "veth"]);
    assert!(set.dep().contains("veth.ko:"));
}

#[test]
fn a_damaged_module_is_named() {
    for (path, bytes) in [("veth.ko", b"no elf".to_vec()), ("veth.ko.gz", vec![0x1f, 0x8b, 0])] {
        let error = choose(&tree("lib/modules", &[(path, bytes)])).unwrap_err().to_string();
        assert!(error.contains(&format!("module {path}")), "{error}");
    }
}

#[test]
fn every_wanted_module_is_named_as_the_kernel_does() {
    for (name, why) in WANTED {
        assert_eq!(underscored(name), name);
        assert!(!why.is_empty());
    }
}

#[test]
fn the_release_is_read_from_both_kinds_of_kernel() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kernel");
    let mut boot = vec![0; 0x1000];
    boot[0x202..0x206].copy_from_slice(b"HdrS");
    boot[0x20e..0x210].copy_from_slice(&0x600_u16.to_le_bytes());
    boot[0x800..0x816].copy_from_slice(b"6.18.5-virt (a@b) #1 S");
    fs::write(&path, &boot).unwrap();
    assert_eq!(kernel_release(&path).unwrap(), "6.18.5-virt");

    fs::write(&path, b"\x7fELF....Linux version 6.1.0-56-cloud (debian)").unwrap();
    assert_eq!(kernel_release(&path).unwrap(), "6.1.0-56-cloud");

    fs::write(&path, b"something else").unwrap();
    assert!(kernel_release(&path).unwrap_err().to_string().contains("neither a bzImage"));
}
