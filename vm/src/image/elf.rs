//! Finds the shared libraries that programs of an unpacked package tree load.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use object::LittleEndian;
use object::elf::{DT_NEEDED, FileHeader64};
use object::read::elf::{Dyn, FileHeader, SectionHeader};

use super::{ImageError, IoContext};

/// Where Debian's packages keep libraries.
const LIBRARY_DIRS: [&str; 4] =
    ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib64", "usr/lib/x86_64-linux-gnu/pulseaudio"];

/// All libraries that `programs` need, directly or not: name to file. The program loader is among them.
/// Libraries for which `skip` holds are neither looked for nor followed.
pub(crate) fn closure(
    root: &Path,
    programs: &[PathBuf],
    skip: &dyn Fn(&str) -> bool,
) -> Result<BTreeMap<String, PathBuf>, ImageError> {
    let mut found = BTreeMap::new();
    let mut todo = programs.to_vec();
    while let Some(file) = todo.pop() {
        for name in needed(&file)? {
            if found.contains_key(&name) || skip(&name) {
                continue;
            }
            let Some(path) = find(root, &name) else {
                let reason = format!("needs {name}, which none of the fetched packages holds");
                return Err(ImageError::format("collect shared libraries", &file, reason));
            };
            todo.push(path.clone());
            found.insert(name, path);
        }
    }
    Ok(found)
}

/// The library `name` in the package tree at `root`, with links followed.
pub(crate) fn find(root: &Path, name: &str) -> Option<PathBuf> {
    LIBRARY_DIRS.iter().map(|dir| root.join(dir).join(name)).find_map(|path| fs::canonicalize(path).ok())
}

/// The names in the dynamic section of an ELF file.
fn needed(path: &Path) -> Result<Vec<String>, ImageError> {
    let doing = "collect shared libraries";
    let data = fs::read(path).at(doing, path)?;
    let parse = || -> object::read::Result<Vec<String>> {
        let header = FileHeader64::<LittleEndian>::parse(&*data)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, &*data)?;
        let mut names = Vec::new();
        for section in sections.iter() {
            let Some((entries, strings)) = section.dynamic(endian, &*data)? else { continue };
            let strings = sections.strings(endian, &*data, strings)?;
            for entry in entries.iter().filter(|entry| entry.tag(endian) == DT_NEEDED) {
                let name = strings.get(entry.val(endian) as u32).unwrap_or_default();
                names.push(String::from_utf8_lossy(name).into_owned());
            }
        }
        Ok(names)
    };
    parse().map_err(|e| ImageError::format(doing, path, e.to_string()))
}
