//! The guest image: a kernel and initramfs layers, built once into the cache and used offline afterwards.
//!
//! [`prepare`] is the way in. It returns paths that stay valid as long as the [`BaseImage`] lives. The base layer is
//! the root file system's tree, the tools layer adds CRIU and friends, the modules layer belongs to the kernel; the
//! caller adds its own layer (see [`crate::cpio::LayerBuilder`]) and joins all with [`crate::cpio::concatenate`].

mod alpine;
mod alpine_mirror;
mod apk;
mod debian_kernel;
pub(crate) mod elf;
mod error;
mod tools;
mod vmlinux;

use std::fmt;
use std::path::{Path, PathBuf};

pub use error::{ImageError, ImageErrorKind, human_bytes};
pub(crate) use error::{IoContext, free_bytes};

use crate::artifacts::{ArtifactRecord, Origin};
use crate::cache::{Built, Cache, Entry, EntryStatus, Removal, Workspace};
use crate::cpio::LayerBuilder;
use crate::fetch::{hash_bytes, hash_file};
use crate::modules::{ModuleSet, kernel_release};
use crate::rootfs;

/// Part of the key of everything built here: raise it when the code that builds layers changes what it writes.
pub(crate) const LAYER_REVISION: u32 = 1;
/// Hex digits of a SHA-256 that name a cache entry: 48 bits tell entries apart, and still fit a line.
pub(crate) const KEY_LEN: usize = 12;

const BASE_LAYER: &str = "base.cpio";
/// The modules layer, and the directory it writes to: where `/lib` is a link, a layer must not name it.
const MODULE_LAYERS: [(&str, &str); 2] =
    [("modules.cpio", "lib/modules"), ("modules-usr.cpio", "usr/lib/modules")];

/// Hears about what is done. All methods may be called from any thread.
pub trait Progress: Sync {
    /// One thing that is done now, as one line without a final newline.
    fn step(&self, line: &str);
    /// `label` has brought `done` bytes so far, of `total` where that is known. Called often.
    fn bytes(&self, label: &str, done: u64, total: Option<u64>) {
        let _ = (label, done, total);
    }
    /// What [`Progress::bytes`] counted has ended.
    fn done(&self) {}
}

/// A [`Progress`] that says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _line: &str) {}
}

/// Which kernel to boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kernel {
    /// The one of the pinned Alpine image.
    #[default]
    Alpine,
    /// Debian's kernel for virtual machines.
    Debian,
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Alpine => "alpine",
            Self::Debian => "debian",
        })
    }
}

/// What image is wanted. The default is the pinned Alpine with its own kernel.
#[derive(Debug, Clone, Default)]
pub struct ImageRequest {
    /// The kernel, unless `kernel_file` names one.
    pub kernel: Kernel,
    /// A kernel image of the user's (bzImage or PVH vmlinux).
    pub kernel_file: Option<PathBuf>,
    /// An initramfs of the user's, compressed or not. It takes the place of the base layer.
    pub initrd: Option<PathBuf>,
    /// A root file system of the user's: a directory, a tar archive (plain, gzip) or an ext4 image (raw, qcow2).
    /// It takes the place of the base layer; with `initrd` it comes on top of it.
    pub rootfs: Option<PathBuf>,
    /// CRIU and the other tools.
    pub tools: Tools,
    /// Where Alpine's kernel and root file system come from instead of the pinned image: the base of a mirror, as
    /// `http://…`, `https://…`, `file:///…` or a directory. Its own checksums are trusted.
    pub alpine_mirror: Option<String>,
}

/// Where the guest's CRIU, kexec, ip, tc, nft and e2fsprogs come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Tools {
    /// Debian's packages, as pinned in `artifacts.toml`.
    #[default]
    Debian,
    /// An initramfs layer of the user's.
    Layer(PathBuf),
    /// None: scenarios that need them cannot run.
    None,
}

/// A guest image, ready to be booted once the caller's layer is added.
#[derive(Debug, Clone)]
pub struct BaseImage {
    /// The kernel image (a bzImage, unless the user named another).
    pub kernel: PathBuf,
    /// The same kernel unpacked, where QEMU can enter it directly: boots quicker. `kexec` needs `kernel`.
    pub vmlinux: Option<PathBuf>,
    /// Its release, as `uname -r` says in the guest.
    pub kernel_release: String,
    /// Initramfs layers in the order they are to be joined.
    pub layers: Vec<PathBuf>,
    /// Everything that it was made of.
    pub records: Vec<ArtifactRecord>,
    /// Links between directories of the base tree (`lib` → `usr/lib`).
    pub dir_links: Vec<(String, String)>,
    leases: Vec<Entry>,
}

/// A kernel that the guest does not begin with, and may be led into.
#[derive(Debug, Clone)]
pub struct OtherKernel {
    /// A bzImage.
    pub kernel: PathBuf,
    /// The initramfs layer of its modules, which goes beside any other kernel's.
    pub modules: PathBuf,
}

impl BaseImage {
    /// Provides the kernel that `request` does not ask for: Debian's, or beside that Alpine's.
    pub fn other_kernel(
        &mut self,
        cache: &Cache,
        request: &ImageRequest,
        progress: &dyn Progress,
    ) -> Result<OtherKernel, ImageError> {
        let other = match request.kernel {
            Kernel::Alpine => Kernel::Debian,
            Kernel::Debian => Kernel::Alpine,
        };
        let (kernel, entry) = self.kernel_of(other, cache, request.alpine_mirror.as_deref(), progress)?;
        let modules = entry.path(self.modules_layer());
        merge_records(&mut self.records, entry.records());
        self.leases.push(entry);
        Ok(OtherKernel { kernel, modules })
    }

    /// The bzImage of a kernel, and the entry with its modules.
    fn kernel_of(
        &mut self,
        kernel: Kernel,
        cache: &Cache,
        mirror: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<(PathBuf, Entry), ImageError> {
        Ok(match (kernel, mirror) {
            (Kernel::Alpine, Some(mirror)) => {
                let entry = alpine_mirror::kernel(cache, mirror, progress)?;
                (entry.path(alpine_mirror::KERNEL), entry)
            }
            (Kernel::Alpine, None) => {
                let wheel = alpine::wheel(cache, progress)?;
                let kernel = wheel.path(alpine::KERNEL);
                let entry = alpine::layers(cache, &wheel, progress)?;
                self.leases.push(wheel);
                (kernel, entry)
            }
            (Kernel::Debian, _) => {
                let entry = debian_kernel::layers(cache, progress)?;
                (entry.path(debian_kernel::KERNEL), entry)
            }
        })
    }

    /// Which of [`MODULE_LAYERS`] fits the base layer.
    fn modules_layer(&self) -> &'static str {
        let merged = self.dir_links.iter().any(|(link, _)| link == "lib");
        MODULE_LAYERS[usize::from(merged)].0
    }

    /// Provides daemons of Debian for guests that are to have them; the layer, which the caller adds.
    pub fn daemons(&mut self, cache: &Cache, progress: &dyn Progress) -> Result<PathBuf, ImageError> {
        let entry = tools::daemons(cache, progress)?;
        let layer = entry.path(tools::DAEMONS.layer);
        merge_records(&mut self.records, entry.records());
        self.leases.push(entry);
        Ok(layer)
    }

    /// An empty layer to go on top of these.
    pub fn layer(&self) -> LayerBuilder {
        LayerBuilder::with_dir_links(&self.dir_links)
    }
}

/// Provides the image: fetches and builds what the cache lacks. Without network when it lacks nothing.
pub fn prepare(
    cache: &Cache,
    request: &ImageRequest,
    progress: &dyn Progress,
) -> Result<BaseImage, ImageError> {
    let mut image = BaseImage {
        kernel: PathBuf::new(),
        vmlinux: None,
        kernel_release: String::new(),
        layers: Vec::new(),
        records: Vec::new(),
        dir_links: Vec::new(),
        leases: Vec::new(),
    };
    let modules = add_kernel(&mut image, cache, request, progress)?;
    add_base(&mut image, cache, request, modules, progress)?;
    add_tools(&mut image, cache, &request.tools, progress)?;
    Ok(image)
}

/// Where the modules layer comes from.
enum Modules {
    /// Files of a cache entry, as [`MODULE_LAYERS`] names them.
    Entry(Entry),
    /// The root file system may hold them.
    FromRootfs,
}

fn add_kernel(
    image: &mut BaseImage,
    cache: &Cache,
    request: &ImageRequest,
    progress: &dyn Progress,
) -> Result<Modules, ImageError> {
    if let Some(kernel) = &request.kernel_file {
        image.kernel_release = kernel_release(kernel)?;
        image.records.push(user_file("kernel", kernel)?);
        image.kernel.clone_from(kernel);
        return Ok(Modules::FromRootfs);
    }
    let (kernel, entry) =
        image.kernel_of(request.kernel, cache, request.alpine_mirror.as_deref(), progress)?;
    image.kernel = kernel;
    entry.note("kernel_release").clone_into(&mut image.kernel_release);
    let unpacked = vmlinux::unpacked(cache, &image.kernel, progress)?;
    image.vmlinux = Some(unpacked.path(vmlinux::VMLINUX)).filter(|path| path.exists());
    image.leases.push(unpacked);
    merge_records(&mut image.records, entry.records());
    Ok(Modules::Entry(entry))
}

fn add_base(
    image: &mut BaseImage,
    cache: &Cache,
    request: &ImageRequest,
    modules: Modules,
    progress: &dyn Progress,
) -> Result<(), ImageError> {
    if let Some(initrd) = &request.initrd {
        image.records.push(user_file("initrd", initrd)?);
        image.layers.push(initrd.clone());
    }
    let base = match (&request.rootfs, &request.initrd, &request.alpine_mirror) {
        (Some(rootfs), ..) => Some(user_rootfs(cache, rootfs, &image.kernel_release, progress)?),
        (None, Some(_), _) => None,
        (None, None, Some(mirror)) => Some(alpine_mirror::root(cache, mirror, progress)?),
        (None, None, None) => Some(alpine::layers(cache, &alpine::wheel(cache, progress)?, progress)?),
    };
    if let Some(base) = &base {
        image.layers.push(base.path(BASE_LAYER));
        image.dir_links = parse_links(base.note("dir_links"));
        merge_records(&mut image.records, base.records());
    }
    let layer = image.modules_layer();
    match (modules, &base) {
        (Modules::Entry(entry), _) => {
            image.layers.push(entry.path(layer));
            image.leases.push(entry);
        }
        (Modules::FromRootfs, Some(base)) => {
            // A mini root file system holds no modules.
            image.layers.extend(Some(base.path(layer)).filter(|path| path.exists()));
        }
        (Modules::FromRootfs, None) => {}
    }
    image.leases.extend(base);
    Ok(())
}

fn add_tools(
    image: &mut BaseImage,
    cache: &Cache,
    tools: &Tools,
    progress: &dyn Progress,
) -> Result<(), ImageError> {
    match tools {
        Tools::Debian => {
            let entry = tools::tools(cache, progress)?;
            image.layers.push(entry.path(tools::TOOLS.layer));
            merge_records(&mut image.records, entry.records());
            image.leases.push(entry);
        }
        Tools::Layer(path) => {
            image.records.push(user_file("tools", path)?);
            image.layers.push(path.clone());
        }
        Tools::None => {}
    }
    Ok(())
}

/// Layers of a user's root file system: its tree, and the modules in it that belong to the kernel.
fn user_rootfs(
    cache: &Cache,
    rootfs: &Path,
    release: &str,
    progress: &dyn Progress,
) -> Result<Entry, ImageError> {
    let found = rootfs::fingerprint(rootfs)?;
    let key = hash_bytes(format!("{LAYER_REVISION}\n{release}\n{found}").as_bytes());
    let name = format!("user-rootfs-{}", &key[..KEY_LEN]);
    cache.entry(&name, progress, &|space| {
        progress.step(&format!("unpack {}", rootfs.display()));
        let mut built = build_tree(space, rootfs, release)?;
        built.records.push(user_file("rootfs", rootfs)?);
        Ok(built)
    })
}

/// Builds base and modules layers out of the tree at `rootfs` for kernel `release`.
fn build_tree(space: &Workspace, rootfs: &Path, release: &str) -> Result<Built, ImageError> {
    let mut tree = rootfs::load(rootfs)?;
    let mut modules = tree.take("lib/modules");
    modules.extend(tree.take("usr/lib/modules"));
    let modules = ModuleSet::choose(&modules, release, rootfs)?;
    let mut built = Built::default();
    write_base(&space.out.join(BASE_LAYER), tree, rootfs, &mut built)?;
    write_modules(space, &modules)?;
    built.notes.insert("kernel_release".into(), release.into());
    built.notes.insert("modules".into(), modules.names().join(" "));
    Ok(built)
}

/// Writes the base layer of `tree`, which came from `origin`, to `path`.
fn write_base(
    path: &Path,
    mut tree: LayerBuilder,
    origin: &Path,
    built: &mut Built,
) -> Result<(), ImageError> {
    let doing = "write the base layer";
    rootfs::make_base(&mut tree).at(doing, origin)?;
    tree.write_file(path).at(doing, path)?;
    let links = tree.dir_links().into_iter().map(|(link, target)| {
        format!("{}\t{}\n", String::from_utf8_lossy(&link), String::from_utf8_lossy(&target))
    });
    built.notes.insert("dir_links".into(), links.collect());
    Ok(())
}

fn write_modules(space: &Workspace, modules: &ModuleSet) -> Result<(), ImageError> {
    for (file, dir) in MODULE_LAYERS {
        let path = space.out.join(file);
        let mut layer = LayerBuilder::new();
        modules
            .write_to(&mut layer, dir)
            .and_then(|()| layer.write_file(&path))
            .at("write the modules layer", &path)?;
    }
    Ok(())
}

fn user_file(name: &str, path: &Path) -> Result<ArtifactRecord, ImageError> {
    let (sha256, size) = if path.is_dir() { (String::new(), 0) } else { hash_file(path)? };
    let version = path.display().to_string();
    Ok(ArtifactRecord { name: name.into(), version, sha256, origin: Origin::UserFile, size })
}

fn merge_records(all: &mut Vec<ArtifactRecord>, more: &[ArtifactRecord]) {
    for record in more {
        if !all.contains(record) {
            all.push(record.clone());
        }
    }
}

fn parse_links(text: &str) -> Vec<(String, String)> {
    text.lines().filter_map(|line| line.split_once('\t')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

/// All entries of the cache, checked by size and time stamp.
pub fn list(cache: &Cache) -> Result<Vec<EntryStatus>, ImageError> {
    cache.entries()
}

/// All entries of the cache with every file hashed; damaged ones are built anew at their next use.
pub fn verify(cache: &Cache, progress: &dyn Progress) -> Result<Vec<EntryStatus>, ImageError> {
    cache.verify(progress)
}

/// Removes every entry that no other run uses; says for each what became of it.
pub fn clean(cache: &Cache) -> Result<Vec<(EntryStatus, Removal)>, ImageError> {
    let entries = cache.entries()?;
    entries.into_iter().map(|entry| cache.remove(&entry.name).map(|removal| (entry, removal))).collect()
}

#[cfg(test)]
mod tests;
