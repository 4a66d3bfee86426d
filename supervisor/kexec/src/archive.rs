//! What the new kernel finds beside its initrd: an archive (cpio, "newc") that is added to it.
//!
//! A directory that is there already is given the owner and the mode that the archive says, so those above what is added are
//! written as they are here.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use nix::libc;

/// An archive begins at a multiple of this, in bytes, as some that read them ask for.
const BLOCK: u64 = 512;
/// The most directories above each other that are packed: checkpoints have three.
const DEPTH_LIMIT: usize = 16;
/// The most that one archive holds: as many images as a hundred large checkpoints have.
const ENTRIES_LIMIT: usize = 1 << 20;
/// What the kernel takes as a directory's mode when none is here to be asked, and a file's.
const DIRECTORY: u32 = libc::S_IFDIR | 0o755;
const FILE: u32 = libc::S_IFREG | 0o600;

/// An archive while it is written.
#[derive(Debug)]
pub struct Archive<W: Write> {
    out: Counted<W>,
    made: BTreeSet<PathBuf>,
    entries: usize,
}

#[derive(Debug)]
struct Counted<W: Write> {
    out: W,
    written: u64,
}

/// What an entry says beside its name.
#[derive(Clone, Copy, Debug)]
struct Head {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
}

impl Head {
    fn of(found: &Metadata) -> Self {
        Self { mode: found.mode(), uid: found.uid(), gid: found.gid(), mtime: found.mtime() }
    }

    fn root(mode: u32) -> Self {
        Self { mode, uid: 0, gid: 0, mtime: 0 }
    }
}

impl<W: Write> Archive<W> {
    /// Begin one behind `before` bytes of something else.
    ///
    /// # Errors
    /// Those of writing.
    pub fn begin(out: W, before: u64) -> io::Result<Self> {
        let mut out = Counted { out, written: before };
        out.fill(BLOCK)?;
        Ok(Self { out, made: BTreeSet::new(), entries: 0 })
    }

    /// Add everything that lies at `from`, a directory, under the same path.
    ///
    /// # Errors
    /// Those of reading and writing; what is too large, too deep or too much for an archive.
    pub fn tree(&mut self, from: &Path) -> io::Result<()> {
        self.above(from)?;
        let mut todo = vec![(from.to_owned(), 0)];
        while let Some((path, depth)) = todo.pop() {
            let found = fs::symlink_metadata(&path)?;
            let kind = found.file_type();
            if kind.is_dir() {
                if depth == DEPTH_LIMIT {
                    return Err(refused(&path, "it is nested too deeply"));
                }
                self.directory(&path, Head::of(&found))?;
                let mut inside: Vec<_> = fs::read_dir(&path)?
                    .map(|entry| entry.map(|entry| entry.path()))
                    .collect::<Result<_, _>>()?;
                // The last is taken first.
                inside.sort_unstable_by(|one, other| other.cmp(one));
                todo.extend(inside.into_iter().map(|path| (path, depth + 1)));
            } else if kind.is_symlink() {
                let target = fs::read_link(&path)?;
                self.entry(&path, Head::of(&found), target.as_os_str().as_bytes())?;
            } else if kind.is_file() {
                self.file(&path)?;
            }
        }
        Ok(())
    }

    /// Add a file with this content; root's alone.
    ///
    /// # Errors
    /// Those of writing.
    pub fn content(&mut self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.above(path)?;
        self.entry(path, Head::root(FILE), content)
    }

    /// Write its end; gives what it was written to, and all bytes of that, with what was before it.
    ///
    /// # Errors
    /// Those of writing.
    pub fn end(mut self) -> io::Result<(W, u64)> {
        self.head(b"TRAILER!!!", Head::root(0), 0)?;
        self.out.fill(BLOCK)?;
        self.out.out.flush()?;
        Ok((self.out.out, self.out.written))
    }

    /// The directories above a path, as they are here.
    fn above(&mut self, path: &Path) -> io::Result<()> {
        let mut above: Vec<_> = path.ancestors().skip(1).filter(|path| path.parent().is_some()).collect();
        above.reverse();
        for path in above {
            let head = fs::metadata(path).map_or(Head::root(DIRECTORY), |found| Head::of(&found));
            self.directory(path, head)?;
        }
        Ok(())
    }

    fn directory(&mut self, path: &Path, head: Head) -> io::Result<()> {
        if self.made.insert(path.to_owned()) { self.entry(path, head, b"") } else { Ok(()) }
    }

    fn file(&mut self, path: &Path) -> io::Result<()> {
        let mut file = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
        let found = file.metadata()?;
        let length = u32::try_from(found.len()).map_err(|_| refused(path, "it is larger than 4 GiB"))?;
        self.head(name(path)?, Head::of(&found), length)?;
        let copied = io::copy(&mut (&mut file).take(found.len()), &mut self.out)?;
        if copied != found.len() {
            return Err(refused(path, "it has become shorter while it was read"));
        }
        self.out.fill(4)
    }

    fn entry(&mut self, path: &Path, head: Head, content: &[u8]) -> io::Result<()> {
        let length = u32::try_from(content.len()).map_err(|_| refused(path, "it is larger than 4 GiB"))?;
        self.head(name(path)?, head, length)?;
        self.out.write_all(content)?;
        self.out.fill(4)
    }

    /// The header of an entry and its name. Each has an inode of its own, so that none is taken for another link of one.
    fn head(&mut self, name: &[u8], head: Head, length: u32) -> io::Result<()> {
        if self.entries == ENTRIES_LIMIT {
            return Err(io::Error::other(format!("there are more than {ENTRIES_LIMIT} files")));
        }
        self.entries += 1;
        let Head { mode, uid, gid, mtime } = head;
        // Times before 1970 and after 2106 cannot be said.
        let mtime = u32::try_from(mtime).unwrap_or_default();
        let (inode, size) = (self.entries, name.len() + 1);
        let links = if mode & libc::S_IFMT == libc::S_IFDIR { 2 } else { 1 };
        let text = format!(
            "070701{inode:08x}{mode:08x}{uid:08x}{gid:08x}{links:08x}{mtime:08x}{length:08x}{0:08x}{0:08x}{0:08x}{0:08x}\
             {size:08x}{0:08x}",
            0
        );
        self.out.write_all(text.as_bytes())?;
        self.out.write_all(name)?;
        self.out.write_all(b"\0")?;
        self.out.fill(4)
    }
}

impl<W: Write> Counted<W> {
    /// Zeros up to the next multiple.
    fn fill(&mut self, of: u64) -> io::Result<()> {
        let missing = self.written.next_multiple_of(of) - self.written;
        let zeros = [0; BLOCK as usize];
        self.write_all(zeros.get(..usize::try_from(missing).unwrap_or_default()).unwrap_or_default())
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A path as an archive names it: from the root, and without a way back.
fn name(path: &Path) -> io::Result<&[u8]> {
    let plain = path.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
    match path.strip_prefix("/") {
        Ok(below) if plain && below != OsStr::new("") => Ok(below.as_os_str().as_bytes()),
        _ => Err(refused(path, "it is no path from the root")),
    }
}

fn refused(path: &Path, why: &str) -> io::Error {
    io::Error::other(format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::process::{Command, Stdio};

    use super::*;

    /// What is in an archive, by a reader of its own: name, mode, content.
    fn read(bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        let mut at = 0;
        loop {
            let number = |field: usize| {
                let text =
                    std::str::from_utf8(&bytes[at + 6 + 8 * field..at + 14 + 8 * field]).expect("a number");
                u32::from_str_radix(text, 16).expect("a number")
            };
            assert_eq!(&bytes[at..at + 6], b"070701");
            let (mode, length, size) = (number(1), number(6) as usize, number(11) as usize);
            let name = String::from_utf8(bytes[at + 110..at + 110 + size - 1].to_vec()).expect("a name");
            assert_eq!(bytes[at + 110 + size - 1], 0);
            let content = (at + 110 + size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                return found;
            }
            found.push((name, mode, bytes[content..content + length].to_vec()));
            at = (content + length).next_multiple_of(4);
        }
    }

    #[test]
    fn what_is_packed_lies_where_it_lay() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("web/1");
        fs::create_dir_all(root.join("pre-1")).expect("a folder");
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).expect("a mode");
        fs::write(root.join("core-7.img"), "seven").expect("a file");
        fs::write(root.join("pre-1/pages-1.img"), "").expect("a file");
        symlink("../pre-1", root.join("pre-1/parent")).expect("a link");
        let mut archive = Archive::begin(vec![b'x'; 700], 700).expect("an archive");
        archive.tree(&root).expect("packed");
        archive.content(Path::new("/checkpoint/manifest.json"), b"{}").expect("packed");
        archive.content(Path::new("/checkpoint/info"), b"text").expect("packed");
        let (bytes, length) = archive.end().expect("an end");
        assert_eq!((bytes.len() as u64, bytes.len() % 512), (length, 0));
        assert!(bytes[700..1024].iter().all(|byte| *byte == 0));
        let found = read(&bytes[1024..]);
        let below = |path: &str| root.join(path).to_str().expect("a path").trim_start_matches('/').to_owned();
        let of =
            |name: &str| found.iter().find(|(found, ..)| found == name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(of(&below("core-7.img")).2, b"seven");
        assert_eq!(of(&below("pre-1/parent")).2, b"../pre-1");
        assert_eq!(of(&below("pre-1/parent")).1 & libc::S_IFMT, libc::S_IFLNK);
        assert_eq!(of(root.to_str().expect("a path").trim_start_matches('/')).1, libc::S_IFDIR | 0o700);
        assert_eq!(of("checkpoint/info"), &("checkpoint/info".to_owned(), FILE, b"text".to_vec()));
        // What a file lies in comes before it, and once.
        let names: Vec<_> = found.iter().map(|(name, ..)| name.as_str()).collect();
        for (at, name) in names.iter().enumerate() {
            assert!(!names[..at].contains(name), "{name} is there twice");
            if let Some((above, _)) = name.rsplit_once('/') {
                assert!(names[..at].contains(&above), "{name} comes before {above}");
            }
        }
    }

    #[test]
    fn other_programs_read_it() {
        if Command::new("cpio").arg("--version").stdout(Stdio::null()).status().is_err() {
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("web");
        fs::create_dir(&root).expect("a folder");
        fs::write(root.join("a"), "abc").expect("a file");
        let mut archive = Archive::begin(Vec::new(), 0).expect("an archive");
        archive.tree(&root).expect("packed");
        let file = folder.path().join("archive");
        fs::write(&file, archive.end().expect("an end").0).expect("a file");
        let input = File::open(&file).expect("the file");
        let listed = Command::new("cpio").arg("-t").arg("--quiet").stdin(input).output().expect("cpio");
        let listed = String::from_utf8(listed.stdout).expect("text");
        assert!(listed.lines().any(|line| line.ends_with("web/a")), "{listed}");
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        let mut archive = Archive::begin(Vec::new(), 0).expect("an archive");
        for path in ["relative/path", "/", "/a/../b"] {
            assert!(archive.content(Path::new(path), b"").is_err(), "{path}");
        }
        let folder = tempfile::tempdir().expect("a folder");
        let large = folder.path().join("large");
        File::create(&large).expect("a file").set_len(u64::from(u32::MAX) + 1).expect("a length");
        let error = archive.tree(folder.path()).expect_err("refused").to_string();
        assert!(error.ends_with("large: it is larger than 4 GiB"), "{error}");
    }
}
