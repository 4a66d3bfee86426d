use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use ::cpio::NewcReader;
use proptest::prelude::*;

use super::*;

/// What another reader of the format finds: path to (mode, owner, group, content, device).
type Found = BTreeMap<String, (u32, u32, u32, Vec<u8>, (u32, u32))>;

fn read_back(bytes: &[u8]) -> Found {
    let mut found = Found::new();
    let mut reader = NewcReader::new(Cursor::new(bytes)).unwrap();
    while !reader.entry().is_trailer() {
        let entry = reader.entry();
        let name = entry.name().to_owned();
        let fixed = (entry.mode(), entry.uid(), entry.gid(), (entry.rdev_major(), entry.rdev_minor()));
        assert_eq!(entry.mtime(), 0);
        let mut content = Vec::new();
        reader.read_to_end(&mut content).unwrap();
        found.insert(name, (fixed.0, fixed.1, fixed.2, content, fixed.3));
        reader = NewcReader::new(reader.finish().unwrap()).unwrap();
    }
    found
}

fn written(layer: &LayerBuilder) -> Vec<u8> {
    let mut bytes = Vec::new();
    let size = layer.write_to(&mut bytes).unwrap();
    assert_eq!(size, bytes.len() as u64);
    bytes
}

fn sample() -> LayerBuilder {
    let mut layer = LayerBuilder::new();
    layer.file("/sbin/init", 0o755, "#!/bin/sh\n").unwrap();
    layer.symlink("bin", "usr/bin").unwrap();
    layer.dir("usr/bin/", 0o755).unwrap();
    layer.char_device("dev/console", 0o600, 5, 1).unwrap();
    layer.file("tmp/x", 0o4711, vec![7; 5]).unwrap();
    layer
}

#[test]
fn every_kind_of_node_is_read_back() {
    let found = read_back(&written(&sample()));
    assert_eq!(found["sbin/init"], (0o100_755, 0, 0, b"#!/bin/sh\n".to_vec(), (0, 0)));
    assert_eq!(found["bin"].0, 0o120_777);
    assert_eq!(found["bin"].3, b"usr/bin");
    assert_eq!(found["dev/console"].0, 0o020_600);
    assert_eq!(found["dev/console"].4, (5, 1));
    assert_eq!(found["tmp/x"].0, 0o104_711);
}

#[test]
fn parents_are_added_with_fitting_permissions() {
    let found = read_back(&written(&sample()));
    assert_eq!(found["sbin"].0, 0o040_755);
    assert_eq!(found["usr"].0, 0o040_755);
    assert_eq!(found["tmp"].0, 0o041_777);
}

#[test]
fn the_same_tree_gives_the_same_bytes_in_any_order() {
    let mut other = LayerBuilder::new();
    let nodes: Vec<_> = sample().nodes().map(|(path, node)| (path.to_vec(), node.clone())).collect();
    for (path, node) in nodes.into_iter().rev() {
        other.node(path, node).unwrap();
    }
    assert_eq!(written(&sample()), written(&other));
}

#[test]
fn paths_that_leave_the_tree_are_refused() {
    let mut layer = LayerBuilder::new();
    for path in ["../x", "a/../../b", "a\0b"] {
        assert!(layer.file(path, 0o644, "").is_err(), "{path:?}");
    }
    assert!(layer.file("a".repeat(MAX_PATH + 1), 0o644, "").is_err());
}

#[test]
fn linked_directories_stay_links() {
    let mut base = LayerBuilder::new();
    base.dir("usr/lib", 0o755).unwrap().symlink("lib", "usr/lib").unwrap();
    base.dir("run/lock", 0o755).unwrap().symlink("var/lock", "/run/lock").unwrap();
    base.symlink("etc", "nowhere").unwrap().symlink("up", "../..").unwrap();
    let links = base.dir_links();
    let pair = |a: &str, b: &str| (a.as_bytes().to_vec(), b.as_bytes().to_vec());
    assert_eq!(links, [pair("lib", "usr/lib"), pair("var/lock", "run/lock")]);

    let mut layer = LayerBuilder::with_dir_links(&links);
    layer.file("lib/modules/x", 0o644, "").unwrap();
    let found = read_back(&written(&layer));
    assert!(found.contains_key("usr/lib/modules/x"));
    assert!(!found.contains_key("lib"), "the directory entry would replace the link");
}

#[test]
fn subtrees_can_be_taken_out() {
    let mut layer = sample();
    layer.file("sbinary", 0o644, "").unwrap();
    let taken = layer.take("sbin");
    assert_eq!(taken.len(), 1);
    assert!(layer.get("sbin/init").is_none());
    assert!(layer.get("sbinary").is_some(), "only whole path parts count");
}

#[test]
fn archives_are_padded_for_concatenation() {
    let dir = tempfile::tempdir().unwrap();
    let mut second = LayerBuilder::new();
    second.file("etc/added", 0o644, "2").unwrap();
    let (one, two, odd) = (dir.path().join("1"), dir.path().join("2"), dir.path().join("3"));
    sample().write_file(&one).unwrap();
    second.write_file(&two).unwrap();
    // A compressed archive of the user's may have any length.
    std::fs::write(&odd, [1; 7]).unwrap();
    let all = dir.path().join("all");
    let size = concatenate(&[&one, &odd, &two], &mut File::create(&all).unwrap()).unwrap();
    let bytes = std::fs::read(&all).unwrap();
    assert_eq!(bytes.len() as u64, size);
    let at = std::fs::metadata(&one).unwrap().len();
    assert_eq!(at % 512, 0);
    assert_eq!(&bytes[at as usize + 8..][..6], b"070701");
}

#[test]
fn a_file_that_is_gone_is_named() {
    let mut layer = LayerBuilder::new();
    layer.host_file("x", 0o644, Path::new("/nonexistent/file")).unwrap();
    let error = layer.write_to(&mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/file"), "{error}");
}

fn any_node() -> impl Strategy<Value = Node> {
    let kind = prop_oneof![
        Just(NodeKind::Dir),
        proptest::collection::vec(any::<u8>(), 0..300)
            .prop_map(|bytes| NodeKind::File(Content::Bytes(bytes))),
        "[a-z/.]{1,20}".prop_map(|target| NodeKind::Symlink(target.into_bytes())),
        (0_u32..4096, 0_u32..100_000).prop_map(|(major, minor)| NodeKind::BlockDevice(major, minor)),
        Just(NodeKind::Fifo),
    ];
    (0_u32..0o10000, any::<u32>(), any::<u32>(), kind).prop_map(|(mode, uid, gid, kind)| Node {
        mode,
        uid,
        gid,
        kind,
    })
}

proptest! {
    #[test]
    fn whatever_is_written_is_read_back(
        nodes in proptest::collection::btree_map("[a-z]{1,9}(/[a-zA-Z0-9_.-]{1,9}x){0,3}", any_node(), 0..12)
    ) {
        let mut layer = LayerBuilder::new();
        for (path, node) in &nodes {
            layer.node(path, node.clone()).unwrap();
        }
        let found = read_back(&written(&layer));
        for (path, node) in &nodes {
            let (mode, uid, gid, content, device) = &found[path];
            prop_assert_eq!((mode & 0o7777, *uid, *gid), (node.mode, node.uid, node.gid));
            match &node.kind {
                NodeKind::File(Content::Bytes(bytes)) | NodeKind::Symlink(bytes) => prop_assert_eq!(content, bytes),
                NodeKind::BlockDevice(major, minor) => prop_assert_eq!(device, &(*major, *minor)),
                _ => prop_assert!(content.is_empty()),
            }
        }
        for path in found.keys() {
            let is_parent = nodes.keys().any(|name| name.starts_with(&format!("{path}/")));
            prop_assert!(nodes.contains_key(path) || is_parent, "{} was made up", path);
        }
    }
}
