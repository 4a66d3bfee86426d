//! Writes initramfs layers: cpio archives in the "newc" format that the kernel unpacks.
//!
//! Guarantees: the same tree gives the same bytes (sorted paths, time stamp 0, inode numbers by position), parents
//! come before children, and every archive is padded so that archives can be concatenated in any number.
//! Hard links are stored as separate files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Archives end on this boundary, as GNU cpio's do; the kernel needs 4.
const ARCHIVE_ALIGN: u64 = 512;
/// The format stores sizes as eight hex digits.
const MAX_FILE_SIZE: u64 = u32::MAX as u64;
/// The kernel refuses longer names (`PATH_MAX`).
const MAX_PATH: usize = 4095;
/// Directories that need other permissions than 0755 when a layer mentions them only by what is below them:
/// unpacking a layer sets the mode of each directory it names.
const SPECIAL_PARENTS: [(&str, u32); 3] = [("root", 0o700), ("tmp", 0o1777), ("var/tmp", 0o1777)];

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    /// A directory.
    Dir,
    /// A regular file.
    File(Content),
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A character device: major, minor.
    CharDevice(u32, u32),
    /// A block device: major, minor.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// Content of a regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// In memory.
    Bytes(Vec<u8>),
    /// Read from the host when the archive is written.
    Host(PathBuf),
}

/// One path of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Permission bits, with set-uid, set-gid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Type and content.
    pub kind: NodeKind,
}

impl Node {
    /// A node that belongs to root.
    pub fn root(mode: u32, kind: NodeKind) -> Self {
        Self { mode, uid: 0, gid: 0, kind }
    }
}

/// Collects a tree and writes it as one archive.
///
/// Paths are absolute or relative to the guest's root; `.` parts are dropped and `..` is refused. Parents that are
/// not added get mode 0755 (1777 and 0700 for the usual exceptions). A path added twice keeps the last node.
#[derive(Debug, Clone, Default)]
pub struct LayerBuilder {
    nodes: BTreeMap<Vec<u8>, Node>,
    dir_links: Vec<(Vec<u8>, Vec<u8>)>,
}

impl LayerBuilder {
    /// An empty layer for a base tree without symbolic links between directories.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty layer for a base tree where directories such as `lib` are links (`lib` → `usr/lib`).
    ///
    /// Each pair is link and target, relative to the root. Without this, a layer that adds `lib/x` would replace
    /// the link by a directory when the kernel unpacks it, and everything behind the link would be gone.
    pub fn with_dir_links<A: AsRef<[u8]>, B: AsRef<[u8]>>(links: &[(A, B)]) -> Self {
        let dir_links = links.iter().map(|(a, b)| (a.as_ref().to_vec(), b.as_ref().to_vec())).collect();
        Self { nodes: BTreeMap::new(), dir_links }
    }

    /// Adds a directory of root's.
    pub fn dir(&mut self, path: impl AsRef<[u8]>, mode: u32) -> io::Result<&mut Self> {
        self.node(path, Node::root(mode, NodeKind::Dir))
    }

    /// Adds a file of root's.
    pub fn file(
        &mut self,
        path: impl AsRef<[u8]>,
        mode: u32,
        content: impl Into<Vec<u8>>,
    ) -> io::Result<&mut Self> {
        self.node(path, Node::root(mode, NodeKind::File(Content::Bytes(content.into()))))
    }

    /// Adds a file of root's whose content is read from the host's `source` when the layer is written.
    pub fn host_file(&mut self, path: impl AsRef<[u8]>, mode: u32, source: &Path) -> io::Result<&mut Self> {
        self.node(path, Node::root(mode, NodeKind::File(Content::Host(source.to_path_buf()))))
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> io::Result<&mut Self> {
        self.node(path, Node::root(0o777, NodeKind::Symlink(target.as_ref().to_vec())))
    }

    /// Adds a character device of root's.
    pub fn char_device(
        &mut self,
        path: impl AsRef<[u8]>,
        mode: u32,
        major: u32,
        minor: u32,
    ) -> io::Result<&mut Self> {
        self.node(path, Node::root(mode, NodeKind::CharDevice(major, minor)))
    }

    /// Adds any node. The root directory itself is ignored.
    pub fn node(&mut self, path: impl AsRef<[u8]>, node: Node) -> io::Result<&mut Self> {
        let path = self.resolve(&normalise(path.as_ref())?);
        if path.is_empty() {
            return Ok(self);
        }
        if path.len() > MAX_PATH {
            return Err(invalid(format!("path of {} bytes is longer than {MAX_PATH}", path.len())));
        }
        self.nodes.insert(path, node);
        Ok(self)
    }

    /// All nodes, sorted by path relative to the root.
    pub fn nodes(&self) -> impl Iterator<Item = (&[u8], &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_slice(), node))
    }

    /// The node at `path`, without following links.
    pub fn get(&self, path: impl AsRef<[u8]>) -> Option<&Node> {
        self.nodes.get(&normalise(path.as_ref()).ok()?)
    }

    /// Removes `path` and everything below it, and returns what was removed.
    pub fn take(&mut self, path: impl AsRef<[u8]>) -> BTreeMap<Vec<u8>, Node> {
        let Ok(path) = normalise(path.as_ref()) else { return BTreeMap::new() };
        let mut below = path.clone();
        below.push(b'/');
        let (taken, kept) = std::mem::take(&mut self.nodes)
            .into_iter()
            .partition(|(name, _)| *name == path || name.starts_with(&below));
        self.nodes = kept;
        taken
    }

    /// The links between directories of this tree, for [`LayerBuilder::with_dir_links`] of the layers above it.
    pub fn dir_links(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let top = |path: &[u8]| !path.contains(&b'/');
        self.nodes
            .iter()
            .filter(|(path, _)| top(path) || path.starts_with(b"usr/") || path.starts_with(b"var/"))
            .filter_map(|(path, node)| {
                let NodeKind::Symlink(target) = &node.kind else { return None };
                let target = follow(path, target)?;
                matches!(self.nodes.get(&target)?.kind, NodeKind::Dir).then(|| (path.clone(), target))
            })
            .collect()
    }

    /// Writes the archive and returns its size in bytes.
    pub fn write_to(&self, out: &mut dyn Write) -> io::Result<u64> {
        let mut out = Archive { out, written: 0, inode: 0 };
        for (path, node) in &self.with_parents() {
            out.node(path, node)?;
        }
        out.finish()
    }

    /// Writes the archive to a new file at `path` and returns its size in bytes.
    pub fn write_file(&self, path: &Path) -> io::Result<u64> {
        let mut out = io::BufWriter::with_capacity(WRITE_BUFFER, File::create(path)?);
        let size = self.write_to(&mut out)?;
        out.flush()?;
        Ok(size)
    }

    fn resolve(&self, path: &[u8]) -> Vec<u8> {
        let mut path = path.to_vec();
        // Links may lead to links; more rounds than links means a loop, which the tree's owner has to live with.
        for _ in 0..=self.dir_links.len() {
            let found = self.dir_links.iter().find_map(|(link, target)| {
                let rest = path.strip_prefix(link.as_slice())?;
                rest.starts_with(b"/").then(|| [target, rest].concat())
            });
            match found {
                Some(next) => path = next,
                None => break,
            }
        }
        path
    }

    fn with_parents(&self) -> BTreeMap<&[u8], std::borrow::Cow<'_, Node>> {
        use std::borrow::Cow;
        let mut all: BTreeMap<&[u8], Cow<'_, Node>> =
            self.nodes.iter().map(|(path, node)| (path.as_slice(), Cow::Borrowed(node))).collect();
        for path in self.nodes.keys() {
            for (end, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
                let parent = &path[..end];
                all.entry(parent).or_insert_with(|| {
                    let special = SPECIAL_PARENTS.iter().find(|(name, _)| name.as_bytes() == parent);
                    Cow::Owned(Node::root(special.map_or(0o755, |(_, mode)| *mode), NodeKind::Dir))
                });
            }
        }
        all
    }
}

/// Large writes: a layer is tens of megabytes of mostly small files.
const WRITE_BUFFER: usize = 1 << 20;

/// Appends `layers` one after the other to `out`; returns their size there in bytes.
///
/// Every layer must be a cpio archive, compressed or not, as the kernel accepts it. It looks for each at a multiple of
/// four, where a compressed one rarely ends.
pub fn concatenate<P: AsRef<Path>>(layers: &[P], out: &mut File) -> io::Result<u64> {
    let mut total = 0;
    for layer in layers {
        let layer = layer.as_ref();
        // `io::copy` between files lets the kernel copy (or share) the blocks.
        let size = File::open(layer).and_then(|mut layer| io::copy(&mut layer, out));
        let size = size.map_err(|e| name_file(layer, &e))?;
        let pad = size.next_multiple_of(4) - size;
        out.write_all(&[0; 3][..pad as usize])?;
        total += size + pad;
    }
    Ok(total)
}

struct Archive<'a> {
    out: &'a mut dyn Write,
    written: u64,
    inode: u32,
}

struct Header<'a> {
    name: &'a [u8],
    mode: u32,
    uid: u32,
    gid: u32,
    links: u32,
    size: u64,
    device: (u32, u32),
}

impl Archive<'_> {
    fn node(&mut self, path: &[u8], node: &Node) -> io::Result<()> {
        const S_IFDIR: u32 = 0o040_000;
        const S_IFREG: u32 = 0o100_000;
        const S_IFLNK: u32 = 0o120_000;
        const S_IFCHR: u32 = 0o020_000;
        const S_IFBLK: u32 = 0o060_000;
        const S_IFIFO: u32 = 0o010_000;
        let head = |format: u32, links: u32, size: u64, device: (u32, u32)| Header {
            name: path,
            mode: format | (node.mode & 0o7777),
            uid: node.uid,
            gid: node.gid,
            links,
            size,
            device,
        };
        match &node.kind {
            NodeKind::Dir => self.header(&head(S_IFDIR, 2, 0, (0, 0))),
            NodeKind::Fifo => self.header(&head(S_IFIFO, 1, 0, (0, 0))),
            NodeKind::CharDevice(major, minor) => self.header(&head(S_IFCHR, 1, 0, (*major, *minor))),
            NodeKind::BlockDevice(major, minor) => self.header(&head(S_IFBLK, 1, 0, (*major, *minor))),
            NodeKind::Symlink(target) => {
                self.header(&head(S_IFLNK, 1, target.len() as u64, (0, 0)))?;
                self.bytes(target)?;
                self.pad(4)
            }
            NodeKind::File(Content::Bytes(bytes)) => {
                self.header(&head(S_IFREG, 1, bytes.len() as u64, (0, 0)))?;
                self.bytes(bytes)?;
                self.pad(4)
            }
            NodeKind::File(Content::Host(source)) => {
                let file = File::open(source).map_err(|e| name_file(source, &e))?;
                let size = file.metadata()?.size();
                self.header(&head(S_IFREG, 1, size, (0, 0)))?;
                let copied = io::copy(&mut file.take(size), self.out)?;
                if copied != size {
                    return Err(invalid(format!("{} shrank while it was read", source.display())));
                }
                self.written += copied;
                self.pad(4)
            }
        }
    }

    fn finish(mut self) -> io::Result<u64> {
        self.inode = u32::MAX; // becomes 0: the trailer is no file
        self.header(&Header {
            name: b"TRAILER!!!",
            mode: 0,
            uid: 0,
            gid: 0,
            links: 1,
            size: 0,
            device: (0, 0),
        })?;
        self.pad(ARCHIVE_ALIGN)?;
        Ok(self.written)
    }

    fn header(&mut self, head: &Header<'_>) -> io::Result<()> {
        if head.size > MAX_FILE_SIZE {
            let name = String::from_utf8_lossy(head.name);
            return Err(invalid(format!("{name} is larger than the 4 GiB that the format can hold")));
        }
        self.inode = self.inode.wrapping_add(1);
        let (major, minor) = head.device;
        let fields = [
            self.inode,
            head.mode,
            head.uid,
            head.gid,
            head.links,
            0, // modification time
            head.size as u32,
            0, // device that holds the file: major, minor
            0,
            major,
            minor,
            head.name.len() as u32 + 1,
            0, // checksum, unused in this format
        ];
        let mut text = String::from("070701");
        for field in fields {
            use std::fmt::Write as _;
            // Writing to a String cannot fail.
            let _ = write!(text, "{field:08x}");
        }
        self.bytes(text.as_bytes())?;
        self.bytes(head.name)?;
        self.bytes(&[0])?;
        self.pad(4)
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn pad(&mut self, align: u64) -> io::Result<()> {
        let pad = self.written.next_multiple_of(align) - self.written;
        self.bytes(&[0; ARCHIVE_ALIGN as usize][..pad as usize])
    }
}

fn normalise(path: &[u8]) -> io::Result<Vec<u8>> {
    let parts: Vec<&[u8]> =
        path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.contains(&b"..".as_slice()) || path.contains(&0) {
        return Err(invalid(format!("{:?} is not a plain path", String::from_utf8_lossy(path))));
    }
    Ok(parts.join(&b'/'))
}

/// Where the link at `path` leads, relative to the root; `None` when it leaves the tree.
fn follow(path: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = if target.starts_with(b"/") {
        Vec::new()
    } else {
        let mut parts: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
        parts.pop();
        parts
    };
    for part in target.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join(&b'/'))
}

fn name_file(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests;
