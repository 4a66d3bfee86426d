//! The pinned Alpine image: from the wheel to kernel, base layer and modules layer.

use std::fs::{self, File};
use std::path::Path;

use super::{KEY_LEN, LAYER_REVISION, build_tree};
use crate::artifacts::{AlpineWheel, ArtifactRecord, Origin, artifacts};
use crate::cache::{Built, Cache, Entry, Workspace};
use crate::fetch::{check_file, hash_bytes};
use crate::image::{ImageError, IoContext, Progress};
use crate::modules::kernel_release;
use crate::pip::{self, Pip};

pub(super) const KERNEL: &str = "kernel";
const IMAGE: &str = "image";

/// The wheel's members, fetched and checked.
pub(super) fn wheel(cache: &Cache, progress: &dyn Progress) -> Result<Entry, ImageError> {
    let wheel = &artifacts().alpine;
    let name = format!("alpine-{}-{}", wheel.version, &wheel.sha256[..KEY_LEN]);
    cache.entry(&name, progress, &|space| fetch_wheel(cache, wheel, space, progress))
}

/// Base and modules layers of the image in `wheel`.
pub(super) fn layers(cache: &Cache, wheel: &Entry, progress: &dyn Progress) -> Result<Entry, ImageError> {
    let key = hash_bytes(format!("{LAYER_REVISION}\n{}", wheel.digest()).as_bytes());
    cache.entry(&format!("alpine-layers-{}", &key[..KEY_LEN]), progress, &|space| {
        progress.step("unpack Alpine's root file system into initramfs layers");
        let release = kernel_release(&wheel.path(KERNEL))?;
        let mut built = build_tree(space, &wheel.path(IMAGE), &release)?;
        built.records.extend_from_slice(wheel.records());
        Ok(built)
    })
}

fn fetch_wheel(
    cache: &Cache,
    wheel: &AlpineWheel,
    space: &Workspace,
    progress: &dyn Progress,
) -> Result<Built, ImageError> {
    let doing = format!("fetch {} {}", wheel.package, wheel.version);
    let pip = Pip::provide(cache, progress)?;
    let file = pip::download(&pip, wheel, &space.work, progress)?;
    check_file(&doing, &wheel.package, &file, Some(wheel.size), &wheel.sha256)?;
    let mut built = Built::default();
    built.records.push(ArtifactRecord {
        name: wheel.package.clone(),
        version: wheel.version.clone(),
        sha256: wheel.sha256.clone(),
        origin: Origin::Pinned,
        size: wheel.size,
    });
    unpack_members(&doing, wheel, &file, space, &mut built)?;
    Ok(built)
}

fn unpack_members(
    doing: &str,
    wheel: &AlpineWheel,
    file: &Path,
    space: &Workspace,
    built: &mut Built,
) -> Result<(), ImageError> {
    let bad = |e: zip::result::ZipError| ImageError::format(doing, file, e.to_string());
    let mut archive = zip::ZipArchive::new(File::open(file).at(doing, file)?).map_err(bad)?;
    for (name, member) in &wheel.members {
        let target = space.out.join(name);
        let mut from = archive.by_name(&member.path).map_err(bad)?;
        let mut to = File::create(&target).at(doing, &target)?;
        std::io::copy(&mut from, &mut to).at(doing, &target)?;
        check_file(doing, &member.path, &target, Some(member.size), &member.sha256)?;
        built.records.push(ArtifactRecord {
            name: format!("alpine-{name}"),
            version: wheel.version.clone(),
            sha256: member.sha256.clone(),
            origin: Origin::Pinned,
            size: member.size,
        });
    }
    // The wheel is as large as its members; only they are used.
    fs::remove_file(file).at(doing, file)
}
