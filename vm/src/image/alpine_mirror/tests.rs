use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use super::*;
use crate::image::{ImageRequest, Silent, Tools, prepare};
use crate::modules::tests::module;

const RELEASE: &str = "6.18.1-0-virt";
const VERSION: &str = "6.18.1-r0";
const ROOT: &str = "v3.23/releases/x86_64/alpine-minirootfs-3.23.1-x86_64.tar.gz";
const PACKAGE: &str = "v3.23/main/x86_64/linux-virt-6.18.1-r0.apk";

/// A mirror in a directory, and a cache.
struct World {
    dir: tempfile::TempDir,
    cache: Cache,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("cache")).unwrap();
        let world = Self { dir, cache };
        world.put_root(&tar(&[("./bin/busybox", b"shell"), ("./etc/alpine-release", b"3.23.1")]));
        world.put_package(&files());
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("mirror").join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), bytes).unwrap();
    }

    fn put_root(&self, archive: &[u8]) {
        let packed = gzip(archive);
        self.put(ROOT, &packed);
        let name = ROOT.rsplit('/').next().unwrap();
        self.put(&format!("{ROOT}.sha256"), format!("{}  {name}\n", hash_bytes(&packed)).as_bytes());
        self.put("v3.23/releases/x86_64/latest-releases.yaml", RELEASES.as_bytes());
    }

    fn put_package(&self, archive: &[u8]) {
        let data = gzip(archive);
        let info = format!("pkgname = linux-virt\npkgver = {VERSION}\ndatahash = {}\n", hash_bytes(&data));
        self.put_members(&gzip(cut(&tar(&[(".PKGINFO", info.as_bytes())]))), &data);
    }

    fn put_members(&self, control: &[u8], data: &[u8]) {
        let signature = gzip(cut(&tar(&[(".SIGN.RSA.some.rsa.pub", b"unchecked")])));
        let package = [&signature, control, data].concat();
        self.put(PACKAGE, &package);
        let sum = STANDARD.encode(Sha1::digest(control));
        let mut index = String::from("C:Q1AAAA\nP:linux-virt-doc\nV:9-r9\nS:1\n\n");
        write!(
            index,
            "C:Q1{sum}\nP:linux-virt\nV:{VERSION}\nA:x86_64\nS:{}\nT:A kernel: small\n\n",
            package.len()
        )
        .unwrap();
        let index = gzip(&tar(&[("DESCRIPTION", b"v3.23"), ("APKINDEX", index.as_bytes())]));
        self.put("v3.23/main/x86_64/APKINDEX.tar.gz", &[signature, index].concat());
    }

    fn root(&self) -> Result<Entry, ImageError> {
        root(&self.cache, &self.path("").display().to_string(), &Silent)
    }

    fn kernel(&self) -> Result<Entry, ImageError> {
        kernel(&self.cache, &self.path("").display().to_string(), &Silent)
    }
}

const RELEASES: &str = "---
-
  title: \"Standard\"
  version: 3.23.9
  flavor: alpine-standard
-
  title: \"Mini root filesystem\"
  desc: |
    Minimal: for containers.
  branch: v3.23
  version: 3.23.1
  flavor: alpine-minirootfs
";

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_ustar();
        // By hand: the crate's own way refuses the paths that a test needs.
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Without the zeros at its end, as all but the last member of a package are stored.
fn cut(archive: &[u8]) -> &[u8] {
    &archive[..archive.len() - 1024]
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// What a kernel package holds.
fn files() -> Vec<u8> {
    let kernel = format!("\x7fELF Linux version {RELEASE} (builder)");
    let block = gzip(&module(&["depends=virtio"]));
    let virtio = gzip(&module(&["depends="]));
    let dir = format!("lib/modules/{RELEASE}/kernel");
    tar(&[
        ("boot/vmlinuz-virt", kernel.as_bytes()),
        (&format!("{dir}/virtio_blk.ko.gz"), &block),
        (&format!("{dir}/virtio.ko.gz"), &virtio),
    ])
}

fn failure(result: Result<Entry, ImageError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn an_image_is_built_once_and_then_needs_no_mirror() {
    let world = World::new();
    let request = ImageRequest {
        alpine_mirror: Some(format!("file://{}/", world.path("").display())),
        tools: Tools::None,
        ..ImageRequest::default()
    };
    let image = prepare(&world.cache, &request, &Silent).unwrap();
    assert_eq!(image.kernel_release, RELEASE);
    let names: Vec<_> = image.layers.iter().map(|path| path.file_name().unwrap()).collect();
    assert_eq!(names, ["base.cpio", "modules.cpio"]);
    let base = fs::read(&image.layers[0]).unwrap();
    assert!(base.windows(11).any(|window| window == b"bin/busybox"));
    let records: Vec<_> =
        image.records.iter().map(|r| (r.name.as_str(), r.version.as_str(), r.origin)).collect();
    let expected = [("linux-virt", VERSION, Origin::Mirror), ("alpine-minirootfs", "3.23.1", Origin::Mirror)];
    assert_eq!(records, expected);
    assert!(image.records.iter().all(|record| record.sha256.len() == 64 && record.size > 0));

    fs::remove_dir_all(world.path("")).unwrap();
    assert_eq!(prepare(&world.cache, &request, &Silent).unwrap().layers, image.layers);
}

#[test]
fn modules_are_those_of_the_kernel_in_load_order() {
    let world = World::new();
    assert_eq!(world.kernel().unwrap().note("modules"), "virtio virtio_blk");
    // With a kernel of the user's, the mini root file system brings no modules.
    let own = world.dir.path().join("vmlinux");
    fs::write(&own, "\x7fELF Linux version 6.9.0-own (me)").unwrap();
    let request = ImageRequest {
        alpine_mirror: Some(world.path("").display().to_string()),
        kernel_file: Some(own),
        tools: Tools::None,
        ..ImageRequest::default()
    };
    assert_eq!(prepare(&world.cache, &request, &Silent).unwrap().layers.len(), 1);
}

#[test]
fn wrong_content_is_told_by_its_hash() {
    let world = World::new();
    world.put(ROOT, b"something else");
    let error = failure(world.root());
    assert!(
        error.contains("alpine-minirootfs-3.23.1-x86_64.tar.gz has the wrong content: sha256"),
        "{error}"
    );

    let mut package = fs::read(world.path(PACKAGE)).unwrap();
    *package.last_mut().unwrap() ^= 1;
    world.put(PACKAGE, &package);
    let error = failure(world.kernel());
    assert!(
        error.contains("the content of linux-virt-6.18.1-r0.apk has the wrong content: sha256"),
        "{error}"
    );

    let index = fs::read(world.path("v3.23/main/x86_64/APKINDEX.tar.gz")).unwrap();
    world.put_members(&gzip(cut(&tar(&[(".PKGINFO", b"datahash = 0\n")]))), b"data");
    let other = fs::read(world.path(PACKAGE)).unwrap();
    world.put("v3.23/main/x86_64/APKINDEX.tar.gz", &index);
    world.put(PACKAGE, &[other, vec![0; package.len()]].concat()[..package.len()]);
    let error = failure(world.kernel());
    assert!(error.contains("the description of linux-virt-6.18.1-r0.apk"), "{error}");
    assert!(error.contains("sha1"), "{error}");
    assert!(world.cache.entries().unwrap().is_empty());
}

#[test]
fn a_package_that_was_cut_is_incomplete() {
    let world = World::new();
    let package = fs::read(world.path(PACKAGE)).unwrap();
    world.put(PACKAGE, &package[..package.len() / 2]);
    let error = failure(world.kernel());
    assert!(error.contains("linux-virt-6.18.1-r0.apk is incomplete"), "{error}");
    world.put(PACKAGE, &[&package[..], b"more"].concat());
    let error = failure(world.kernel());
    assert!(error.contains("it has more than"), "{error}");
}

#[test]
fn what_is_missing_is_named_with_its_address() {
    for missing in [ROOT, &format!("{ROOT}.sha256")] {
        let world = World::new();
        fs::remove_file(world.path(missing)).unwrap();
        let error = failure(world.root());
        assert!(error.contains(&format!("{} does not exist", world.path(missing).display())), "{error}");
    }
    let world = World::new();
    fs::remove_file(world.path(PACKAGE)).unwrap();
    let error = failure(world.kernel());
    assert!(error.contains(&format!("{} does not exist", world.path(PACKAGE).display())), "{error}");
}

#[test]
fn a_mirror_without_the_branch_is_told_what_is_expected() {
    let world = World::new();
    fs::rename(world.path("v3.23"), world.path("v3.22")).unwrap();
    for error in [failure(world.root()), failure(world.kernel())] {
        assert!(error.contains("/v3.23/") && error.contains("the mirror's folder v3.23 lies"), "{error}");
    }
}

#[test]
fn paths_that_leave_the_tree_are_refused() {
    let world = World::new();
    world.put_root(&tar(&[("etc/../../outside", b"x")]));
    let error = failure(world.root());
    assert!(error.contains("\"etc/../../outside\" is not a plain path"), "{error}");
    world.put_package(&tar(&[("../outside", b"x")]));
    let error = failure(world.kernel());
    assert!(error.contains("\"../outside\" is not a plain path"), "{error}");
}

#[test]
fn a_package_without_kernel_or_modules_is_refused() {
    let world = World::new();
    world.put_package(&tar(&[("boot/other", b"x")]));
    let error = failure(world.kernel());
    assert!(error.contains("it holds no file boot/vmlinuz-virt"), "{error}");
    world.put_package(&tar(&[("boot/vmlinuz-virt", b"Linux version 6.18.1-0-virt (me)")]));
    let error = failure(world.kernel());
    assert!(error.contains("no modules of its own kernel, 6.18.1-0-virt"), "{error}");
}

#[test]
fn a_package_in_another_format_is_refused() {
    let world = World::new();
    let data = gzip(b"data");
    world.put_members(&data, b"");
    assert!(failure(world.kernel()).contains("no signed package of format version 2"));
    world.put_members(b"ADBd", b"");
    assert!(failure(world.kernel()).contains("linux-virt-6.18.1-r0.apk"));
}

#[test]
fn an_index_must_list_the_package_soundly() {
    let world = World::new();
    let with = |text: &str| {
        world.put("v3.23/main/x86_64/APKINDEX.tar.gz", &gzip(&tar(&[("APKINDEX", text.as_bytes())])));
        failure(world.kernel())
    };
    let cases = [
        ("P:linux-virt-doc\nV:1\n", "it lists no package linux-virt"),
        ("P:linux-virt\nV:1\nS:1\n", "has no field C"),
        ("P:linux-virt\nV:../1\nS:1\nC:Q1AAAA\n", "version \"../1\" of linux-virt"),
        ("P:linux-virt\nV:1\nS:x\nC:Q1AAAA\n", "size \"x\" of linux-virt"),
        ("P:linux-virt\nV:1\nS:1\nC:X9AAAA\n", "checksum \"X9AAAA\" of linux-virt"),
        ("P:linux-virt\nV:1\nS:99999999999\nC:Q1AAAA\n", "linux-virt-1.apk is too large"),
    ];
    for (text, expected) in cases {
        let error = with(text);
        assert!(error.contains(expected) && error.contains("APKINDEX.tar.gz"), "{error}");
    }
}

#[test]
fn the_newest_release_is_read() {
    assert_eq!(newest(RELEASES, "alpine-minirootfs").as_deref(), Ok("3.23.1"));
    assert_eq!(newest(RELEASES, "alpine-standard").as_deref(), Ok("3.23.9"));
    let inline = "- flavor: \"mini\"\n  version: '1.2'\n";
    assert_eq!(newest(inline, "mini").as_deref(), Ok("1.2"));
    assert!(newest("<html>", "mini").unwrap_err().contains("names no version of mini"));
    assert!(newest("- flavor: mini\n  version: ../1\n", "mini").unwrap_err().contains("is no version"));
}

#[test]
fn a_published_checksum_is_read() {
    let sum = hash_bytes(b"x");
    assert_eq!(checksum(&format!("{}  file\n", sum.to_uppercase())), Some(sum));
    assert_eq!(checksum("<html>"), None);
    assert_eq!(checksum(""), None);
}
