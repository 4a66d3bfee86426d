use std::fs;

use super::*;

/// A cache, and an image request that needs no network: kernel and root file system of the user's, no tools.
fn own_files() -> (tempfile::TempDir, Cache, ImageRequest) {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::at(dir.path().join("cache")).unwrap();
    let kernel = dir.path().join("vmlinux");
    fs::write(&kernel, "\x7fELF Linux version 6.9.0-own (me)").unwrap();
    let rootfs = dir.path().join("root");
    fs::create_dir_all(rootfs.join("usr/lib")).unwrap();
    fs::create_dir_all(rootfs.join("usr/bin")).unwrap();
    std::os::unix::fs::symlink("usr/lib", rootfs.join("lib")).unwrap();
    fs::write(rootfs.join("usr/bin/sh"), "shell").unwrap();
    let request = ImageRequest {
        kernel_file: Some(kernel),
        rootfs: Some(rootfs),
        tools: Tools::None,
        ..ImageRequest::default()
    };
    (dir, cache, request)
}

fn names(image: &BaseImage) -> Vec<String> {
    image.layers.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

#[test]
fn files_of_the_users_need_no_network() {
    let (_dir, cache, request) = own_files();
    let image = prepare(&cache, &request, &Silent).unwrap();
    assert_eq!(Some(&image.kernel), request.kernel_file.as_ref());
    assert_eq!(image.kernel_release, "6.9.0-own");
    assert_eq!(names(&image), ["base.cpio", "modules-usr.cpio"]);
    assert_eq!(image.dir_links, [("lib".to_owned(), "usr/lib".to_owned())]);
    let kinds: Vec<_> = image.records.iter().map(|r| (r.name.as_str(), r.origin)).collect();
    assert_eq!(kinds, [("kernel", Origin::UserFile), ("rootfs", Origin::UserFile)]);
    assert_eq!(image.records[0].sha256.len(), 64);
}

#[test]
fn layers_on_top_respect_the_links_of_the_base() {
    let (_dir, cache, request) = own_files();
    let image = prepare(&cache, &request, &Silent).unwrap();
    let mut layer = image.layer();
    layer.file("lib/own.so", 0o755, "").unwrap();
    assert!(layer.get("usr/lib/own.so").is_some());
}

#[test]
fn a_changed_root_file_system_is_built_anew() {
    let (_dir, cache, request) = own_files();
    let first = prepare(&cache, &request, &Silent).unwrap();
    let again = prepare(&cache, &request, &Silent).unwrap();
    assert_eq!(first.layers, again.layers);
    fs::write(request.rootfs.as_ref().unwrap().join("new"), "file").unwrap();
    let changed = prepare(&cache, &request, &Silent).unwrap();
    assert_ne!(first.layers[0], changed.layers[0]);
}

#[test]
fn an_initrd_comes_first() {
    let (dir, cache, mut request) = own_files();
    let initrd = dir.path().join("initrd");
    let tools = dir.path().join("tools");
    fs::write(&initrd, "packed").unwrap();
    fs::write(&tools, "packed").unwrap();
    request.initrd = Some(initrd);
    request.tools = Tools::Layer(tools);
    assert_eq!(
        names(&prepare(&cache, &request, &Silent).unwrap()),
        ["initrd", "base.cpio", "modules-usr.cpio", "tools"]
    );
    request.rootfs = None;
    assert_eq!(names(&prepare(&cache, &request, &Silent).unwrap()), ["initrd", "tools"]);
}

#[test]
fn a_missing_file_is_named() {
    let (_dir, cache, mut request) = own_files();
    request.kernel_file = Some("/nonexistent/kernel".into());
    let error = prepare(&cache, &request, &Silent).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/kernel"), "{error}");
}

#[test]
fn clean_leaves_what_is_in_use() {
    let (_dir, cache, request) = own_files();
    let image = prepare(&cache, &request, &Silent).unwrap();
    assert_eq!(list(&cache).unwrap().len(), 1);
    assert_eq!(clean(&cache).unwrap()[0].1, Removal::InUse);
    assert!(image.layers[0].exists());
    drop(image);
    assert_eq!(clean(&cache).unwrap()[0].1, Removal::Removed);
    assert!(list(&cache).unwrap().is_empty());
}
