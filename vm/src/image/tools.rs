//! The tools layer: CRIU, kexec and friends from Debian, beside whatever C library the guest has.
//!
//! Programs and libraries lie in `/usr/lib/yakiros/debian/{bin,lib}`; a wrapper of the same name in
//! `/usr/local/sbin` starts each with its own program loader. Only libraries that a program really loads are taken.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Built, KEY_LEN, LAYER_REVISION, elf};
use crate::artifacts::{DebianTools, Program, artifacts};
use crate::cache::{Cache, Entry, Workspace};
use crate::cpio::LayerBuilder;
use crate::debian::{self, Apt, Package, Suite};
use crate::fetch::hash_bytes;
use crate::image::{ImageError, IoContext, Progress};

pub(super) const LAYER: &str = "tools.cpio";
/// Where programs and libraries lie in the guest.
const HOME: &str = "usr/lib/yakiros/debian";
/// Where their wrappers lie: before the system's own directories in the usual PATH.
const WRAPPERS: &str = "usr/local/sbin";
const LOADER: &str = "ld-linux-x86-64.so.2";
/// Further names under which a wrapper acts as another program.
const ALIASES: [(&str, &str); 2] = [("mke2fs", "mkfs.ext4"), ("e2fsck", "fsck.ext4")];
const DOING: &str = "fetch CRIU and the other tools for the guest";
const INSTEAD: &str = "give a layer of your own with the tools, or none";

/// The tools layer.
pub(super) fn layer(cache: &Cache, progress: &dyn Progress) -> Result<Entry, ImageError> {
    let tools = &artifacts().debian_tools;
    let names: String = tools.programs.iter().map(Program::key_line).collect();
    let key = hash_bytes(format!("{LAYER_REVISION}\n{}\n{names}", tools.suite).as_bytes());
    cache
        .entry(&format!("debian-tools-{}", &key[..KEY_LEN]), progress, &|space| build(space, tools, progress))
}

fn build(space: &Workspace, tools: &DebianTools, progress: &dyn Progress) -> Result<Built, ImageError> {
    let apt = Apt::open(Suite::Named(&tools.suite), &space.work, DOING, INSTEAD, progress)?;
    let mut roots: Vec<&str> = tools.programs.iter().map(|p| p.package.as_str()).collect();
    roots.dedup();
    let wanted: Vec<Package> =
        apt.closure(&roots)?.into_iter().filter(|package| is_wanted(package, &roots, &tools.skip)).collect();
    let debs = apt.fetch(&wanted, &space.work.join("debs"))?;
    let root = space.work.join("root");
    for deb in &debs {
        debian::unpack(&deb.path, &root, DOING, progress)?;
    }
    progress.step("build the layer with CRIU and the other tools");
    let programs: Vec<PathBuf> =
        tools.programs.iter().map(|program| find_program(&root, &program.path)).collect::<Result<_, _>>()?;
    let mut layer = compose(&root, &programs)?;
    for (program, path) in tools.programs.iter().zip(&programs) {
        if let (Some(link), Some(name)) = (&program.link, path.file_name()) {
            let wrapper = format!("/{WRAPPERS}/{}", name.to_string_lossy());
            layer.symlink(link, wrapper.as_bytes()).at(DOING, &root)?;
        }
    }
    let path = space.out.join(LAYER);
    layer.write_file(&path).at(DOING, &path)?;
    Ok(Built { records: debs.into_iter().map(|deb| deb.record).collect(), ..Built::default() })
}

/// Shared libraries are in packages named after them; everything else in the closure (interpreters, package tools)
/// is there for scripts that never run.
fn is_wanted(package: &Package, roots: &[&str], skip: &[String]) -> bool {
    let name = package.name.as_str();
    roots.contains(&name)
        || (package.is_library() && !skip.iter().any(|prefix| name.starts_with(prefix.as_str())))
}

/// Debian moves programs from `/sbin` to `/usr/sbin`.
fn find_program(root: &Path, path: &str) -> Result<PathBuf, ImageError> {
    let places = [root.join(path), root.join("usr").join(path)];
    let found = places.into_iter().find_map(|place| fs::canonicalize(place).ok());
    found.ok_or_else(|| ImageError::format(DOING, root, format!("no fetched package holds {path}")))
}

fn compose(root: &Path, programs: &[PathBuf]) -> Result<LayerBuilder, ImageError> {
    let mut libraries = elf::closure(root, programs, &|_| false)?;
    let loader = elf::find(root, LOADER);
    let loader = loader
        .ok_or_else(|| ImageError::format(DOING, root, format!("no fetched package holds {LOADER}")))?;
    libraries.insert(LOADER.into(), loader);
    let mut layer = LayerBuilder::new();
    let mut add = || -> std::io::Result<()> {
        for (name, path) in &libraries {
            layer.host_file(format!("{HOME}/lib/{name}"), 0o755, path)?;
        }
        for path in programs {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            layer.host_file(format!("{HOME}/bin/{name}"), 0o755, path)?;
            layer.file(format!("{WRAPPERS}/{name}"), 0o755, wrapper(&name))?;
            for (_, alias) in ALIASES.iter().filter(|(program, _)| *program == name) {
                layer.symlink(format!("{WRAPPERS}/{alias}"), name.as_bytes())?;
            }
        }
        Ok(())
    };
    add().at(DOING, root)?;
    Ok(layer)
}

fn wrapper(name: &str) -> String {
    format!(
        "#!/bin/sh\nexec /{HOME}/lib/{LOADER} --argv0 \"$0\" --library-path /{HOME}/lib /{HOME}/bin/{name} \"$@\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_libraries_and_the_programs_themselves_are_fetched() {
        let package = |name: &str| Package { name: name.into(), version: "1".into() };
        let skip = ["libpython".to_owned()];
        let wanted = |name| is_wanted(&package(name), &["criu"], &skip);
        assert!(wanted("criu") && wanted("libc6") && wanted("zlib1g"));
        assert!(!wanted("python3") && !wanted("libpython3.13-stdlib") && !wanted("dpkg"));
    }

    #[test]
    fn wrappers_use_their_own_loader() {
        assert_eq!(
            wrapper("criu"),
            "#!/bin/sh\nexec /usr/lib/yakiros/debian/lib/ld-linux-x86-64.so.2 --argv0 \"$0\" \
             --library-path /usr/lib/yakiros/debian/lib /usr/lib/yakiros/debian/bin/criu \"$@\"\n"
        );
    }
}
