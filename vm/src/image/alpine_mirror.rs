//! Alpine from a mirror that the user names: the mini root file system, and the kernel from its package.
//!
//! What is trusted is the mirror: the root file system is checked against the checksum beside it, the package against
//! the index of its repository. The index's signature is not checked: the keys that lie in the root file system come
//! from the same mirror and prove nothing. Records say so, by [`Origin::Mirror`].
//!
//! Entries are named after the mirror's address and stay until they are cleaned: a newer release on the mirror does
//! not replace them, and the mirror need not be there any more.

use std::fs;
use std::path::Path;

use super::apk;
use super::{BASE_LAYER, Built, ImageErrorKind, KEY_LEN, LAYER_REVISION, write_base, write_modules};
use crate::artifacts::{AlpineMirror, ArtifactRecord, Origin, artifacts};
use crate::cache::{Cache, Entry, Workspace};
use crate::cpio::{Content, NodeKind};
use crate::fetch::mirror::Mirror;
use crate::fetch::{check_file, ensure_space, hash_bytes, hash_file};
use crate::image::{ImageError, IoContext, Progress, human_bytes};
use crate::modules::{ModuleSet, kernel_release};
use crate::rootfs;

pub(super) const KERNEL: &str = "kernel";
/// Largest list of releases or checksum accepted; real ones have 5 kB.
const MAX_LIST: u64 = 1 << 20;
/// Largest packed index accepted; that of Alpine's main repository has 500 kB.
const MAX_INDEX: u64 = 16 << 20;
/// Largest mini root file system accepted; real ones have 4 MB.
const MAX_ROOT: u64 = 64 << 20;
/// Largest kernel package accepted; real ones have 25 MB.
const MAX_PACKAGE: u64 = 256 << 20;
/// What an archive is estimated to take unpacked, times its packed size.
const UNPACK_FACTOR: u64 = 4;
const DOING_ROOT: &str = "fetch Alpine's mini root file system";
const DOING_KERNEL: &str = "fetch Alpine's kernel";

/// The base layer of the mirror's mini root file system.
pub(super) fn root(cache: &Cache, address: &str, progress: &dyn Progress) -> Result<Entry, ImageError> {
    let mirror = Mirror::parse(address)?;
    cache.entry(&entry_name("root", &mirror), progress, &|space| build_root(space, &mirror, progress))
}

/// Kernel and modules layers of the mirror's kernel package.
pub(super) fn kernel(cache: &Cache, address: &str, progress: &dyn Progress) -> Result<Entry, ImageError> {
    let mirror = Mirror::parse(address)?;
    cache.entry(&entry_name("kernel", &mirror), progress, &|space| build_kernel(space, &mirror, progress))
}

fn entry_name(part: &str, mirror: &Mirror) -> String {
    let AlpineMirror { branch, architecture, flavor, repository, package, kernel } =
        &artifacts().alpine_mirror;
    let wanted = [branch, architecture, flavor, repository, package, kernel].map(String::as_str).join("\n");
    let key = hash_bytes(format!("{LAYER_REVISION}\n{}\n{wanted}", mirror.url("")).as_bytes());
    format!("alpine-mirror-{part}-{}", &key[..KEY_LEN])
}

fn build_root(space: &Workspace, mirror: &Mirror, progress: &dyn Progress) -> Result<Built, ImageError> {
    let AlpineMirror { branch, architecture, flavor, .. } = &artifacts().alpine_mirror;
    let folder = format!("{branch}/releases/{architecture}");
    let list = format!("{folder}/latest-releases.yaml");
    let text = mirror.read(DOING_ROOT, &list, MAX_LIST).map_err(|e| about_branch(e, branch))?;
    let version = newest(&String::from_utf8_lossy(&text), flavor)
        .map_err(|reason| ImageError::format(DOING_ROOT, Path::new(&mirror.url(&list)), reason))?;
    let name = format!("{flavor}-{version}-{architecture}.tar.gz");
    let sum = format!("{folder}/{name}.sha256");
    let text = mirror.read(DOING_ROOT, &sum, MAX_LIST)?;
    let sha256 = checksum(&String::from_utf8_lossy(&text))
        .ok_or_else(|| ImageError::format(DOING_ROOT, Path::new(&mirror.url(&sum)), "it holds no SHA-256"))?;
    let path = format!("{folder}/{name}");
    progress.step(&format!("fetch {}", mirror.url(&path)));
    let file = space.work.join(&name);
    mirror.fetch(DOING_ROOT, &path, &file, (MAX_ROOT, None), progress)?;
    let size = check_file(DOING_ROOT, &name, &file, None, &sha256)?;
    ensure_space(DOING_ROOT, &space.out, size * UNPACK_FACTOR)?;
    let mut built = Built::default();
    write_base(&space.out.join(BASE_LAYER), rootfs::load(&file)?, &file, &mut built)?;
    let name = flavor.clone();
    built.records.push(ArtifactRecord { name, version, sha256, origin: Origin::Mirror, size });
    Ok(built)
}

fn build_kernel(space: &Workspace, mirror: &Mirror, progress: &dyn Progress) -> Result<Built, ImageError> {
    let AlpineMirror { branch, architecture, repository, package, .. } = &artifacts().alpine_mirror;
    let folder = format!("{branch}/{repository}/{architecture}");
    let list = format!("{folder}/APKINDEX.tar.gz");
    progress.step(&format!("fetch {}", mirror.url(&list)));
    let index = mirror.read(DOING_KERNEL, &list, MAX_INDEX).map_err(|e| about_branch(e, branch))?;
    let announced = apk::find(DOING_KERNEL, package, &index, Path::new(&mirror.url(&list)))?;
    let name = format!("{package}-{}.apk", announced.version);
    let path = format!("{folder}/{name}");
    if announced.size > MAX_PACKAGE {
        let reason = format!("{name} is too large: {}", human_bytes(announced.size));
        return Err(ImageError::format(DOING_KERNEL, Path::new(&mirror.url(&list)), reason));
    }
    ensure_space(DOING_KERNEL, &space.work, announced.size.saturating_mul(1 + UNPACK_FACTOR))?;
    progress.step(&format!("fetch {}", mirror.url(&path)));
    let file = space.work.join(&name);
    mirror.fetch(DOING_KERNEL, &path, &file, (announced.size, Some(announced.size)), progress)?;
    let (sha256, size) = hash_file(&file)?;
    let mut built = unpack_kernel(space, &file, &announced)?;
    let (name, version) = (package.clone(), announced.version);
    built.records.push(ArtifactRecord { name, version, sha256, origin: Origin::Mirror, size });
    Ok(built)
}

fn unpack_kernel(space: &Workspace, file: &Path, announced: &apk::Announced) -> Result<Built, ImageError> {
    let path = &artifacts().alpine_mirror.kernel;
    let mut tree = apk::unpack(DOING_KERNEL, file, announced)?;
    let Some(NodeKind::File(Content::Bytes(content))) = tree.get(path).map(|node| &node.kind) else {
        return Err(ImageError::format(DOING_KERNEL, file, format!("it holds no file {path}")));
    };
    let target = space.out.join(KERNEL);
    fs::write(&target, content).at(DOING_KERNEL, &target)?;
    let release = kernel_release(&target)?;
    let mut nodes = tree.take("lib/modules");
    nodes.extend(tree.take("usr/lib/modules"));
    let modules = ModuleSet::choose(&nodes, &release, file)?;
    if modules.names().is_empty() {
        let reason = format!("it holds no modules of its own kernel, {release}");
        return Err(ImageError::format(DOING_KERNEL, file, reason));
    }
    write_modules(space, &modules)?;
    let mut built = Built::default();
    built.notes.insert("modules".into(), modules.names().join(" "));
    built.notes.insert("kernel_release".into(), release);
    Ok(built)
}

/// The first file asked for decides whether the mirror has the branch at all.
fn about_branch(error: ImageError, branch: &str) -> ImageError {
    let ImageErrorKind::NotFound { url, .. } = error.kind() else { return error };
    let fix = format!("give the address under which the mirror's folder {branch} lies");
    ImageError::new(error.doing(), ImageErrorKind::NotFound { url: url.clone(), fix })
}

/// The version of `flavor` in the list of newest releases: YAML, of which only this form is understood: items that
/// begin with `-` in the first column, and plain `key: value` lines in them.
fn newest(text: &str, flavor: &str) -> Result<String, String> {
    let mut items: Vec<Vec<(&str, &str)>> = Vec::new();
    for line in text.lines().filter(|line| *line != "---") {
        if line.starts_with('-') {
            items.push(Vec::new());
        }
        let pair = line.trim_start_matches('-').split_once(':');
        if let (Some(item), Some((key, value))) = (items.last_mut(), pair) {
            item.push((key.trim(), value.trim().trim_matches(['"', '\''])));
        }
    }
    let field = |item: &[(&str, &str)], key: &str| {
        item.iter().find(|(found, _)| *found == key).map(|(_, value)| (*value).to_owned())
    };
    let item = items.iter().find(|item| field(item, "flavor").as_deref() == Some(flavor));
    let version = item.and_then(|item| field(item, "version"));
    let version = version.ok_or_else(|| format!("it names no version of {flavor}"))?;
    if apk::is_version(&version) { Ok(version) } else { Err(format!("{version:?} is no version")) }
}

/// The hash in a line of `sha256sum`.
fn checksum(text: &str) -> Option<String> {
    let word = text.split_whitespace().next()?;
    let sound = word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
    sound.then(|| word.to_ascii_lowercase())
}

#[cfg(test)]
mod tests;
