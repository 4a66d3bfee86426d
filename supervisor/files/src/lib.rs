//! Component files as they lie in a directory: which names count, and how one is read.
//!
//! The supervisor and `graphctl lint` share this, so what passes the one passes the other. What
//! looks like a component file and is none is refused with a finding, never passed over; nothing
//! here waits for a file that is not a regular one, and no file is read beyond its limit.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::libc;
use yakiros_core::component::{FILE_LIMIT, Parsed, parse_bytes};
use yakiros_core::diagnostic::Diagnostic;
use yakiros_core::diagnostic::rules;

/// The directory of component files, unless another is named.
pub const DIRECTORY: &str = "/etc/graph.d";

/// The end of a component file's name.
const SUFFIX: &[u8] = b".toml";

/// Component files by the path as it is shown, with the path as it is: a name need not be UTF-8.
pub type Files = BTreeMap<String, PathBuf>;

/// A file that is there.
#[derive(Debug)]
pub struct Loaded {
    /// Its bytes; empty if it was refused before they were read.
    pub bytes: Vec<u8>,
    /// What they declare, and what is wrong with them.
    pub parsed: Parsed,
}

/// The whole path, as it is shown and as it is, if the name is one of a component file. Hidden
/// files are editors' own.
pub fn component_file(directory: &Path, name: &OsStr) -> Option<(String, PathBuf)> {
    let bytes = name.as_bytes();
    let is_one = bytes.ends_with(SUFFIX) && !bytes.starts_with(b".");
    let shown = match name.to_str() {
        Some(text) => text.to_owned(),
        None => bytes.escape_ascii().to_string(),
    };
    let path = directory.join(name);
    is_one.then(|| (directory.join(shown).to_string_lossy().into_owned(), path))
}

/// The component files of a directory.
pub fn list(directory: &Path) -> io::Result<Files> {
    let entries = fs::read_dir(directory)?.flatten();
    Ok(entries.filter_map(|entry| component_file(directory, &entry.file_name())).collect())
}

/// Read one file; `None` if there is none.
pub fn load(path: &Path) -> Option<Loaded> {
    let (rule, message) = match read(path) {
        // A link to nothing has a name and no content.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let target = fs::read_link(path).ok()?;
            let message = format!("it is a link to {}, which does not exist", target.display());
            (&rules::UNREADABLE, message)
        }
        _ if path.to_str().is_none() => {
            (&rules::FILE_NAME, "the file's name is not UTF-8; rename it".to_owned())
        }
        Ok(bytes) => {
            let parsed = parse_bytes(&bytes);
            return Some(Loaded { bytes, parsed });
        }
        Err(error) => (&rules::UNREADABLE, format!("failed to read the file: {error}")),
    };
    let diagnostics = vec![Diagnostic::whole_file(rule, message)];
    Some(Loaded { bytes: Vec::new(), parsed: Parsed { component: None, diagnostics } })
}

/// Open without ever waiting for one that is not a regular file.
pub fn open(path: &Path) -> io::Result<fs::File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY).open(path)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed, so that the reader sees that it is too long.
    file.take(FILE_LIMIT + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    fn code(loaded: Option<Loaded>) -> String {
        let Some(Loaded { parsed, .. }) = loaded else {
            return "gone".to_owned();
        };
        parsed.diagnostics.first().map_or("", |d| &d.code).to_owned()
    }

    #[test]
    fn only_visible_toml_files_count() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["b.toml", "a.toml", ".c.toml", "d.toml~", "e"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let found = list(directory.path()).unwrap();
        let names = found.values().filter_map(|path| path.file_name()?.to_str()).collect::<Vec<_>>();
        assert_eq!(names, ["a.toml", "b.toml"]);
    }

    #[test]
    fn what_is_no_component_file_is_refused_and_named() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        assert_eq!(code(load(&at("absent.toml"))), "gone");
        std::os::unix::fs::symlink("nowhere", at("link.toml")).unwrap();
        assert_eq!(code(load(&at("link.toml"))), "Y0001");
        nix::unistd::mkfifo(&at("pipe.toml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(code(load(&at("pipe.toml"))), "Y0001");
        fs::write(at("large.toml"), vec![b'#'; FILE_LIMIT as usize + 1]).unwrap();
        assert_eq!(code(load(&at("large.toml"))), "Y0002");
        fs::write(at("latin.toml"), b"# caf\xe9\n").unwrap();
        assert_eq!(code(load(&at("latin.toml"))), "Y0003");
        let odd = std::ffi::OsString::from_vec(b"caf\xe9.toml".to_vec());
        fs::write(directory.path().join(&odd), "").unwrap();
        let (shown, path) = component_file(directory.path(), &odd).unwrap();
        assert!(shown.ends_with("caf\\xe9.toml"), "{shown}");
        assert_eq!(code(load(&path)), "Y0004");
    }
}
