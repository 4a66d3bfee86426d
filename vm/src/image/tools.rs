//! Layers of Debian's programs, beside whatever C library the guest has: CRIU, kexec and friends as tools, and daemons.
//!
//! Programs and libraries lie in `{bin,lib}` of a folder of the layer's own in `/usr/lib/yakiros`; a wrapper of the same
//! name in `/usr/local/sbin` starts each with its own program loader. Only libraries that a program really loads are taken.
//! Programs of a suite of their own have a folder of their own as well: one C library does not fit both.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Built, KEY_LEN, LAYER_REVISION, elf};
use crate::artifacts::{ArtifactRecord, DebianTools, Program, artifacts};
use crate::cache::{Cache, Entry, Workspace};
use crate::cpio::LayerBuilder;
use crate::debian::{self, Apt, Package, Suite};
use crate::fetch::hash_bytes;
use crate::image::{ImageError, IoContext, Progress};

/// What is special about a layer.
#[derive(Debug)]
pub(super) struct Kind {
    /// Its file in its cache entry.
    pub layer: &'static str,
    /// What the names of its cache entries begin with.
    entry: &'static str,
    /// Where its programs and libraries lie in the guest.
    home: &'static str,
    /// For errors: what is being done, and what to give instead.
    doing: &'static str,
    instead: &'static str,
}

/// What guests need to be tested.
pub(super) const TOOLS: Kind = Kind {
    layer: "tools.cpio",
    entry: "debian-tools",
    home: "usr/lib/yakiros/debian",
    doing: "fetch CRIU and the other tools for the guest",
    instead: "give a layer of your own with the tools, or none",
};

/// What is supervised in some of them.
pub(super) const DAEMONS: Kind = Kind {
    layer: "daemons.cpio",
    entry: "debian-daemons",
    home: "usr/lib/yakiros/debian-daemons",
    doing: "fetch daemons for the guest",
    instead: "leave out suites with `daemons = true`",
};

/// Where their wrappers lie: before the system's own directories in the usual PATH.
const WRAPPERS: &str = "usr/local/sbin";
const LOADER: &str = "ld-linux-x86-64.so.2";
/// Further names under which a wrapper acts as another program.
const ALIASES: [(&str, &str); 2] = [("mke2fs", "mkfs.ext4"), ("e2fsck", "fsck.ext4")];

/// The tools layer.
pub(super) fn tools(cache: &Cache, progress: &dyn Progress) -> Result<Entry, ImageError> {
    layer(cache, &TOOLS, &artifacts().debian_tools, progress)
}

/// The daemons' layer.
pub(super) fn daemons(cache: &Cache, progress: &dyn Progress) -> Result<Entry, ImageError> {
    layer(cache, &DAEMONS, &artifacts().debian_daemons, progress)
}

fn layer(
    cache: &Cache,
    kind: &Kind,
    tools: &DebianTools,
    progress: &dyn Progress,
) -> Result<Entry, ImageError> {
    let names: String = tools.programs.iter().map(Program::key_line).collect();
    let key = hash_bytes(format!("{LAYER_REVISION}\n{}\n{names}", tools.suite).as_bytes());
    let name = format!("{}-{}", kind.entry, &key[..KEY_LEN]);
    cache.entry(&name, progress, &|space| build(space, kind, tools, progress))
}

fn build(
    space: &Workspace,
    kind: &Kind,
    tools: &DebianTools,
    progress: &dyn Progress,
) -> Result<Built, ImageError> {
    let mut layer = LayerBuilder::new();
    let mut built = Built::default();
    for (suite, programs) in by_suite(tools) {
        let part = Part { kind, suite, skip: &tools.skip, home: home(kind, tools, suite), programs };
        built.records.extend(part.add(space, &mut layer, progress)?);
    }
    progress.step(&format!("build {}", kind.layer));
    let path = space.out.join(kind.layer);
    layer.write_file(&path).at(kind.doing, &path)?;
    Ok(built)
}

/// The programs of each suite, in their order.
fn by_suite(tools: &DebianTools) -> BTreeMap<&str, Vec<&Program>> {
    let mut suites = BTreeMap::<_, Vec<_>>::new();
    for program in &tools.programs {
        suites.entry(program.suite.as_deref().unwrap_or(&tools.suite)).or_default().push(program);
    }
    suites
}

/// Where the programs of a suite lie in the guest, with their libraries.
fn home(kind: &Kind, tools: &DebianTools, suite: &str) -> String {
    if suite == tools.suite { kind.home.to_owned() } else { format!("{}-{suite}", kind.home) }
}

/// What a layer has of one suite.
struct Part<'a> {
    kind: &'a Kind,
    suite: &'a str,
    skip: &'a [String],
    home: String,
    programs: Vec<&'a Program>,
}

impl Part<'_> {
    /// Fetch it and add it to the layer.
    fn add(
        &self,
        space: &Workspace,
        layer: &mut LayerBuilder,
        progress: &dyn Progress,
    ) -> Result<Vec<ArtifactRecord>, ImageError> {
        let Kind { doing, instead, .. } = self.kind;
        let work = space.work.join(self.suite);
        let apt = Apt::open(Suite::Named(self.suite), &work, doing, instead, progress)?;
        let mut roots: Vec<&str> = self.programs.iter().map(|p| p.package.as_str()).collect();
        roots.dedup();
        let closure = apt.closure(&roots)?.into_iter();
        let wanted: Vec<Package> = closure.filter(|package| is_wanted(package, &roots, self.skip)).collect();
        let debs = apt.fetch(&wanted, &work.join("debs"))?;
        let root = work.join("root");
        for deb in &debs {
            debian::unpack(&deb.path, &root, doing, progress)?;
        }
        self.compose(&root, layer)?;
        Ok(debs.into_iter().map(|deb| deb.record).collect())
    }

    /// Add the programs and what they load, out of the packages that were unpacked at `root`.
    fn compose(&self, root: &Path, layer: &mut LayerBuilder) -> Result<(), ImageError> {
        let Self { kind: Kind { doing, .. }, home, .. } = self;
        let find = |program: &&Program| find_program(self.kind, root, &program.path);
        let paths: Vec<PathBuf> = self.programs.iter().map(find).collect::<Result<_, _>>()?;
        let mut libraries = elf::closure(root, &paths, &|_| false)?;
        let loader = elf::find(root, LOADER);
        let loader = loader
            .ok_or_else(|| ImageError::format(*doing, root, format!("no fetched package holds {LOADER}")))?;
        libraries.insert(LOADER.into(), loader);
        let mut add = || -> std::io::Result<()> {
            for (name, path) in &libraries {
                layer.host_file(format!("{home}/lib/{name}"), 0o755, path)?;
            }
            for (program, path) in self.programs.iter().zip(&paths) {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                layer.host_file(format!("{home}/bin/{name}"), 0o755, path)?;
                layer.file(format!("{WRAPPERS}/{name}"), 0o755, wrapper(home, &name))?;
                for (_, alias) in ALIASES.iter().filter(|(program, _)| *program == name) {
                    layer.symlink(format!("{WRAPPERS}/{alias}"), name.as_bytes())?;
                }
                if let Some(link) = &program.link {
                    layer.symlink(link, format!("/{WRAPPERS}/{name}").as_bytes())?;
                }
            }
            Ok(())
        };
        add().at(doing, root)
    }
}

/// Shared libraries are in packages named after them; everything else in the closure (interpreters, package tools)
/// is there for scripts that never run.
fn is_wanted(package: &Package, roots: &[&str], skip: &[String]) -> bool {
    let name = package.name.as_str();
    roots.contains(&name)
        || (package.is_library() && !skip.iter().any(|prefix| name.starts_with(prefix.as_str())))
}

/// Debian moves programs from `/sbin` to `/usr/sbin`.
fn find_program(kind: &Kind, root: &Path, path: &str) -> Result<PathBuf, ImageError> {
    let places = [root.join(path), root.join("usr").join(path)];
    let found = places.into_iter().find_map(|place| fs::canonicalize(place).ok());
    found.ok_or_else(|| ImageError::format(kind.doing, root, format!("no fetched package holds {path}")))
}

fn wrapper(home: &str, name: &str) -> String {
    format!(
        "#!/bin/sh\nexec /{home}/lib/{LOADER} --argv0 \"$0\" --library-path /{home}/lib /{home}/bin/{name} \"$@\"\n"
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
    fn programs_of_another_suite_lie_apart() {
        let program = |package: &str, suite: Option<&str>| Program {
            package: package.into(),
            path: format!("sbin/{package}"),
            link: None,
            suite: suite.map(str::to_owned),
        };
        let tools = DebianTools {
            suite: "old".into(),
            skip: Vec::new(),
            programs: vec![program("a", None), program("b", Some("new")), program("c", None)],
        };
        let suites = by_suite(&tools);
        let named = |suite| suites[suite].iter().map(|p| p.package.as_str()).collect::<Vec<_>>();
        assert_eq!((named("old"), named("new")), (vec!["a", "c"], vec!["b"]));
        assert_eq!(home(&TOOLS, &tools, "old"), "usr/lib/yakiros/debian");
        assert_eq!(home(&TOOLS, &tools, "new"), "usr/lib/yakiros/debian-new");
        assert_ne!(program("b", None).key_line(), program("b", Some("new")).key_line());
    }

    #[test]
    fn wrappers_use_their_own_loader() {
        assert_eq!(
            wrapper(TOOLS.home, "criu"),
            "#!/bin/sh\nexec /usr/lib/yakiros/debian/lib/ld-linux-x86-64.so.2 --argv0 \"$0\" \
             --library-path /usr/lib/yakiros/debian/lib /usr/lib/yakiros/debian/bin/criu \"$@\"\n"
        );
    }
}
