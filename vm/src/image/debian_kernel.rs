//! The second kernel: Debian's for virtual machines, with its modules.

use std::fs;
use std::path::Path;

use super::{Built, KEY_LEN, LAYER_REVISION, write_modules};
use crate::artifacts::artifacts;
use crate::cache::{Cache, Entry, Workspace};
use crate::debian::{self, Apt, Suite};
use crate::fetch::hash_bytes;
use crate::image::{ImageError, IoContext, Progress};
use crate::modules::{ModuleSet, kernel_release};
use crate::rootfs;

pub(super) const KERNEL: &str = "kernel";
const DOING: &str = "fetch Debian's kernel";
const INSTEAD: &str = "name a kernel file instead, or use Alpine's kernel";

/// Kernel and modules layers. The entry stays until it is cleaned: a newer kernel in the suite does not replace it.
pub(super) fn layers(cache: &Cache, progress: &dyn Progress) -> Result<Entry, ImageError> {
    let meta = &artifacts().debian_kernel.meta;
    let key = hash_bytes(format!("{LAYER_REVISION}\n{meta}").as_bytes());
    cache.entry(&format!("debian-kernel-{}", &key[..KEY_LEN]), progress, &|space| build(space, progress))
}

fn build(space: &Workspace, progress: &dyn Progress) -> Result<Built, ImageError> {
    let names = &artifacts().debian_kernel;
    let apt = Apt::open(Suite::System, &space.work, DOING, INSTEAD, progress)?;
    // The meta package holds nothing; it depends on the newest real one.
    let closure = apt.closure(&[&names.meta])?;
    let real: Vec<_> =
        closure.into_iter().filter(|p| p.name.starts_with(&names.prefix) && p.name != names.meta).collect();
    if real.is_empty() {
        let reason = format!("{} depends on no package named {}*", names.meta, names.prefix);
        return Err(ImageError::unsupported(DOING, reason, INSTEAD));
    }
    let debs = apt.fetch(&real, &space.work.join("debs"))?;
    let root = space.work.join("root");
    for deb in &debs {
        debian::unpack(&deb.path, &root, DOING, progress)?;
    }
    progress.step("choose the modules of Debian's kernel");
    let kernel = find_kernel(&root.join("boot"))?;
    let release = kernel_release(&kernel)?;
    let mut tree = rootfs::load_dir(&root)?;
    let mut nodes = tree.take("lib/modules");
    nodes.extend(tree.take("usr/lib/modules"));
    let modules = ModuleSet::choose(&nodes, &release, &root)?;
    write_modules(space, &modules)?;
    let target = space.out.join(KERNEL);
    fs::copy(&kernel, &target).at(DOING, &target)?;
    let mut built = Built { records: debs.into_iter().map(|deb| deb.record).collect(), ..Built::default() };
    built.notes.insert("kernel_release".into(), release);
    built.notes.insert("modules".into(), modules.names().join(" "));
    Ok(built)
}

fn find_kernel(boot: &Path) -> Result<std::path::PathBuf, ImageError> {
    let items = fs::read_dir(boot).at(DOING, boot)?;
    let mut kernels = items.flatten().map(|item| item.path());
    let kernel =
        kernels.find(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz-")));
    kernel.ok_or_else(|| ImageError::format(DOING, boot, "the package holds no vmlinuz-*"))
}
