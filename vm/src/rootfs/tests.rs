use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn content<'a>(tree: &'a LayerBuilder, path: &str) -> &'a NodeKind {
    &tree.get(path).unwrap_or_else(|| panic!("{path} is missing")).kind
}

fn tar_bytes() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, data: &[u8], link: Option<&str>| {
        let mut header = tar::Header::new_ustar();
        header.set_path(path).unwrap();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(100);
        header.set_mtime(12345);
        header.set_size(data.len() as u64);
        if let Some(link) = link {
            header.set_link_name(link).unwrap();
        }
        if kind == tar::EntryType::Char {
            header.set_device_major(1).unwrap();
            header.set_device_minor(9).unwrap();
        }
        header.set_cksum();
        builder.append(&header, data).unwrap();
    };
    add("etc/", tar::EntryType::Directory, 0o750, b"", None);
    add("etc/name", tar::EntryType::Regular, 0o4755, b"guest", None);
    add("etc/same", tar::EntryType::Link, 0, b"", Some("etc/name"));
    add("link", tar::EntryType::Symlink, 0o777, b"", Some("etc/name"));
    add("urandom", tar::EntryType::Char, 0o666, b"", None);
    add("pipe", tar::EntryType::Fifo, 0o600, b"", None);
    builder.into_inner().unwrap()
}

fn check_tar_tree(tree: &LayerBuilder) {
    let file = tree.get("etc/name").unwrap();
    assert_eq!((file.mode, file.uid, file.gid), (0o4755, 1000, 100));
    assert_eq!(file.kind, NodeKind::File(Content::Bytes(b"guest".to_vec())));
    assert_eq!(tree.get("etc/same").unwrap(), file);
    assert_eq!(*content(tree, "link"), NodeKind::Symlink(b"etc/name".to_vec()));
    assert_eq!(*content(tree, "urandom"), NodeKind::CharDevice(1, 9));
    assert_eq!(*content(tree, "pipe"), NodeKind::Fifo);
    assert_eq!(tree.get("etc").unwrap().mode, 0o750);
}

#[test]
fn tar_archives_plain_and_packed() {
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("root.tar");
    fs::write(&plain, tar_bytes()).unwrap();
    check_tar_tree(&load(&plain).unwrap());

    let packed = dir.path().join("root.tgz");
    let mut encoder =
        flate2::write::GzEncoder::new(File::create(&packed).unwrap(), flate2::Compression::fast());
    encoder.write_all(&tar_bytes()).unwrap();
    encoder.finish().unwrap();
    check_tar_tree(&load(&packed).unwrap());
}

#[test]
fn a_truncated_archive_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root.tar");
    fs::write(&path, &tar_bytes()[..700]).unwrap();
    let error = load(&path).unwrap_err().to_string();
    // The content of a five-byte file fits; what follows does not.
    assert!(error.contains("root.tar"), "{error}");
}

#[test]
fn directories() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::write(root.join("bin/sh"), "shell").unwrap();
    fs::set_permissions(root.join("bin/sh"), fs::Permissions::from_mode(0o2755)).unwrap();
    symlink("sh", root.join("bin/ash")).unwrap();
    let tree = load(&root).unwrap();
    assert_eq!(*content(&tree, "bin/sh"), NodeKind::File(Content::Host(root.join("bin/sh"))));
    assert_eq!(tree.get("bin/sh").unwrap().mode, 0o2755);
    assert_eq!(*content(&tree, "bin/ash"), NodeKind::Symlink(b"sh".to_vec()));
}

#[test]
fn a_changed_directory_has_another_fingerprint() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "1").unwrap();
    let before = fingerprint(dir.path()).unwrap();
    assert_eq!(fingerprint(dir.path()).unwrap(), before);
    fs::write(dir.path().join("a"), "22").unwrap();
    assert_ne!(fingerprint(dir.path()).unwrap(), before);
}

#[test]
fn what_is_no_root_file_system_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let with = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        load(&path).unwrap_err().to_string()
    };
    assert!(with("text", b"hello").contains("neither a directory nor a tar"));
    let mut disk = vec![0; 2048];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    assert!(with("disk", &disk).contains("a partition table"));
    let mut ext4 = vec![0; 4096];
    ext4[1024 + 0x38..1024 + 0x3a].copy_from_slice(&[0x53, 0xef]);
    assert!(with("ext4", &ext4).contains("ext4"));
    let missing = dir.path().join("missing");
    assert!(load(&missing).unwrap_err().to_string().contains("missing"));
}

#[test]
fn the_base_layer_has_what_a_start_needs_and_no_ballast() {
    let mut tree = LayerBuilder::new();
    tree.file("boot/vmlinuz", 0o644, "k").unwrap();
    tree.file("lib/modules/1/x.ko", 0o644, "m").unwrap();
    tree.file("dev/console", 0o755, "left by a container").unwrap();
    tree.file("bin/sh", 0o755, "s").unwrap();
    make_base(&mut tree).unwrap();
    assert_eq!(*content(&tree, "dev/console"), NodeKind::CharDevice(5, 1));
    assert_eq!(tree.get("tmp").unwrap().mode, 0o1777);
    assert!(tree.get("proc").is_some() && tree.get("bin/sh").is_some());
    assert!(tree.get("boot/vmlinuz").is_none() && tree.get("lib/modules/1/x.ko").is_none());
}

#[test]
fn a_tree_that_is_too_large_is_refused() {
    let mut budget = Budget::new(Path::new("root.tar"));
    budget.take(MAX_TREE_BYTES).unwrap();
    assert!(budget.take(1).unwrap_err().to_string().contains("1024 MiB"));
}
