//! A service's own state, in memory that nobody can change any more.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};

/// Nothing may change it, nor take that away.
const SEALS: SealFlags =
    SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// State of the application, of any size, with the version of its format.
#[derive(Debug)]
pub struct State {
    version: u32,
    length: u64,
    memory: File,
}

impl State {
    /// From bytes. The version is the application's; a successor that does not know it must refuse.
    pub fn new(version: u32, bytes: &[u8]) -> io::Result<Self> {
        Self::write(version, |memory| memory.write_all(bytes))
    }

    /// From whatever is written: for large states, without a copy of them on the heap.
    pub fn write(version: u32, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut memory = File::from(memfd_create("handoff-state", flags)?);
        fill(&mut memory)?;
        fcntl_add_seals(&memory, SEALS)?;
        Self::of(version, memory)
    }

    /// No state.
    pub fn empty() -> io::Result<Self> {
        Self::new(0, &[])
    }

    /// What another process sent; refused unless it is sealed.
    pub(crate) fn received(version: u32, memory: OwnedFd) -> io::Result<Self> {
        if !fcntl_get_seals(&memory).is_ok_and(|seals| seals.contains(SEALS)) {
            return Err(io::Error::other("the state is not in sealed memory"));
        }
        Self::of(version, memory.into())
    }

    fn of(version: u32, memory: File) -> io::Result<Self> {
        let length = memory.metadata()?.len();
        Ok(Self { version, length, memory })
    }

    /// The version of its format.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Its size in bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// All of it, on the heap.
    pub fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut reader = self.reader()?;
        let mut bytes = Vec::with_capacity(usize::try_from(self.length).map_err(io::Error::other)?);
        reader.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// To be read from its beginning, piece by piece. There is one position for all readers.
    pub fn reader(&self) -> io::Result<impl io::Read + '_> {
        let mut reader = &self.memory;
        reader.rewind()?;
        Ok(reader)
    }
}

impl AsFd for State {
    /// The memory itself, for who wants to map it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}
