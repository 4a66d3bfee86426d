//! Load, unload, and see whether a kernel is loaded.

use std::ffi::CStr;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::ptr;

use nix::errno::Errno;
use nix::libc;

use crate::bzimage::{HEAD_LIMIT, Header, NoKernel};
use crate::initrd;
use crate::machine::{Way, way};
use crate::memory;
use crate::plan::{Inherited, NoPlan, Plan, Wish};

/// `KEXEC_FILE_UNLOAD` and `KEXEC_FILE_NO_INITRAMFS` of kexec_file_load(2).
const FILE_UNLOAD: libc::c_ulong = 1;
const FILE_NO_INITRD: libc::c_ulong = 4;

/// The largest kernel and initrd that are read, in bytes: what does not fit into the machine's memory twice cannot be loaded.
const FILE_LIMIT: u64 = 16 << 30;

/// The most that is read of a table of the kernel's, in bytes.
const TABLE_LIMIT: u64 = 64 * 1024;

/// Why nothing was loaded.
#[derive(Debug)]
pub enum NotLoaded {
    /// A file cannot be read.
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is no kernel that can be loaded.
    Kernel {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: NoKernel,
    },
    /// The kernel would not unpack the file.
    Initrd {
        /// Which.
        path: PathBuf,
    },
    /// The machine's memory has no room for it.
    Plan(NoPlan),
    /// The running kernel refuses it.
    Refused {
        /// By which call.
        call: &'static str,
        /// Why.
        errno: Errno,
    },
}

impl fmt::Display for NotLoaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, error } => write!(f, "failed to read {}: {error}", path.display()),
            Self::Kernel { path, reason } => write!(f, "{} cannot be loaded: {reason}", path.display()),
            Self::Initrd { path } => write!(
                f,
                "{} is no initrd: it begins neither as a cpio archive nor as a compressed one",
                path.display()
            ),
            Self::Plan(reason) => reason.fmt(f),
            Self::Refused { call, errno } => write!(f, "{call}: {} ({})", errno.desc(), hint(*errno)),
        }
    }
}

impl std::error::Error for NotLoaded {}

fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM => "CAP_SYS_BOOT is needed, and kernel.kexec_load_disabled must be 0",
        Errno::EBUSY => "another program is loading a kernel",
        Errno::ENOMEM => "the machine has too little free memory to hold kernel and initrd",
        Errno::EADDRNOTAVAIL => "the place that was chosen is not memory",
        Errno::ENOEXEC => "the running kernel does not know the format of the file",
        Errno::EKEYREJECTED | Errno::ENODATA | Errno::ENOKEY | Errno::EBADMSG => {
            "the running kernel asks for a signature that it trusts"
        }
        Errno::ENOSYS => "the running kernel was built without it",
        _ => "see `graphctl kexec --check-prereq`",
    }
}

/// What was loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// By which call.
    pub way: Way,
    /// The release of the new kernel, by its file.
    pub release: Option<String>,
    /// Bytes of kernel and initrd.
    pub bytes: u64,
}

/// A kernel and what it begins with: read, and found to be what they should be.
#[derive(Debug)]
pub struct Image {
    kernel: Source,
    header: Header,
    initrd: Option<Source>,
}

#[derive(Debug)]
struct Source {
    path: PathBuf,
    file: File,
    len: u64,
}

impl Image {
    /// Open and look at the files. Nothing is loaded.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub fn open(kernel: &Path, initrd: Option<&Path>) -> Result<Self, NotLoaded> {
        let kernel = Source::open(kernel)?;
        let head = kernel.head(HEAD_LIMIT as u64)?;
        let header = Header::read(&head, kernel.len)
            .map_err(|reason| NotLoaded::Kernel { path: kernel.path.clone(), reason })?;
        let initrd = initrd.map(Source::open).transpose()?;
        if let Some(source) = &initrd {
            let head = source.head(initrd::HEAD_LIMIT as u64)?;
            if initrd::kind(&head).is_none() {
                return Err(NotLoaded::Initrd { path: source.path.clone() });
            }
        }
        Ok(Self { kernel, header, initrd })
    }

    /// What the kernel's file says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes of kernel and initrd.
    pub fn bytes(&self) -> u64 {
        self.kernel.len + self.initrd.as_ref().map_or(0, |source| source.len)
    }

    /// Load it in the place of what is loaded, by the call that the running kernel has.
    ///
    /// # Errors
    /// Why it was not; then what was loaded before is no longer.
    pub fn load(&self, command_line: &CStr) -> Result<Loaded, NotLoaded> {
        let way = way();
        match way {
            Way::File => self.load_files(command_line)?,
            Way::Segments => self.load_segments(command_line)?,
        }
        Ok(Loaded { way, release: self.header.release().map(str::to_owned), bytes: self.bytes() })
    }

    fn load_files(&self, command_line: &CStr) -> Result<(), NotLoaded> {
        let (initrd, flags) = match &self.initrd {
            Some(source) => (source.file.as_raw_fd(), 0),
            None => (-1, FILE_NO_INITRD),
        };
        let text = command_line.to_bytes_with_nul();
        let kernel = self.kernel.file.as_raw_fd();
        // SAFETY: descriptors of open files, and a text with its length.
        let result = unsafe {
            libc::syscall(libc::SYS_kexec_file_load, kernel, initrd, text.len(), text.as_ptr(), flags)
        };
        check("kexec_file_load", result)
    }

    fn load_segments(&self, command_line: &CStr) -> Result<(), NotLoaded> {
        let code = self.kernel.part(self.header.code_at, self.header.code_len)?;
        let initrd =
            self.initrd.as_ref().map(|source| source.part(0, source.len)).transpose()?.unwrap_or_default();
        let map = Path::new("/sys/firmware/memmap");
        let firmware = memory::firmware(map).map_err(|error| NotLoaded::Read { path: map.into(), error })?;
        let table = Source::table(Path::new("/proc/iomem"))?;
        let inherited = inherited();
        let wish = Wish {
            header: &self.header,
            code: &code,
            initrd: &initrd,
            command_line,
            firmware: &firmware,
            free: memory::in_use(&table),
            inherited: &inherited,
        };
        let plan = Plan::new(&wish).map_err(NotLoaded::Plan)?;
        let mut segments = vec![segment(plan.code.bytes, plan.code.place)];
        segments.extend(plan.initrd.as_ref().map(|initrd| segment(initrd.bytes, initrd.place)));
        segments.push(segment(&plan.stage.bytes, plan.stage.place));
        // SAFETY: the segments' bytes are alive until the call has copied them.
        let result = unsafe {
            libc::syscall(
                libc::SYS_kexec_load,
                plan.entry,
                segments.len(),
                segments.as_ptr(),
                0 as libc::c_ulong,
            )
        };
        check("kexec_load", result)
    }
}

impl Source {
    fn open(path: &Path) -> Result<Self, NotLoaded> {
        let opened = || {
            let file = File::open(path)?;
            let data = file.metadata()?;
            if !data.is_file() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
            }
            if data.len() > FILE_LIMIT {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 16 GiB"));
            }
            Ok(Self { path: path.to_owned(), file, len: data.len() })
        };
        opened().map_err(|error| NotLoaded::Read { path: path.to_owned(), error })
    }

    fn head(&self, len: u64) -> Result<Vec<u8>, NotLoaded> {
        self.part(0, len.min(self.len))
    }

    fn part(&self, at: u64, len: u64) -> Result<Vec<u8>, NotLoaded> {
        use std::os::unix::fs::FileExt as _;

        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        let read = self.file.read_exact_at(&mut bytes, at);
        read.map_err(|error| NotLoaded::Read { path: self.path.clone(), error })?;
        Ok(bytes)
    }

    /// A table of the kernel's, which has no length.
    fn table(path: &Path) -> Result<String, NotLoaded> {
        let read = || {
            let mut text = String::new();
            File::open(path)?.take(TABLE_LIMIT).read_to_string(&mut text)?;
            Ok(text)
        };
        read().map_err(|error| NotLoaded::Read { path: path.to_owned(), error })
    }
}

/// What the running kernel was told. What it does not show, the new one has to find by itself.
fn inherited() -> Inherited {
    let systab = fs::read_to_string("/sys/firmware/efi/systab").unwrap_or_default();
    let place = |name: &str| systab.lines().find_map(|line| line.strip_prefix(name));
    let rsdp = place("ACPI20=0x").or_else(|| place("ACPI=0x"));
    Inherited {
        parameters: fs::read("/sys/kernel/boot_params/data").unwrap_or_default(),
        rsdp: rsdp.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()),
    }
}

/// `struct kexec_segment` of kexec_load(2).
#[repr(C)]
struct KernelSegment {
    bytes: *const u8,
    len: usize,
    place: usize,
    room: usize,
}

fn segment(bytes: &[u8], place: memory::Range) -> KernelSegment {
    let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    KernelSegment {
        bytes: bytes.as_ptr(),
        len: bytes.len(),
        place: number(place.start),
        room: number(place.end - place.start),
    }
}

/// Take back what is loaded. It is no error when nothing is.
///
/// # Errors
/// Why it stays.
pub fn unload() -> Result<(), NotLoaded> {
    let none = ptr::null::<libc::c_void>();
    // SAFETY: calls without anything to load.
    unsafe {
        match way() {
            Way::File => {
                let result = libc::syscall(libc::SYS_kexec_file_load, -1, -1, 0, none, FILE_UNLOAD);
                check("kexec_file_load", result)
            }
            Way::Segments => check("kexec_load", libc::syscall(libc::SYS_kexec_load, 0, 0, none, 0)),
        }
    }
}

/// Whether a kernel is loaded.
///
/// # Errors
/// Those of reading `/sys/kernel/kexec_loaded`.
pub fn is_loaded() -> io::Result<bool> {
    Ok(fs::read_to_string("/sys/kernel/kexec_loaded")?.trim() == "1")
}

fn check(call: &'static str, result: libc::c_long) -> Result<(), NotLoaded> {
    if result < 0 { Err(NotLoaded::Refused { call, errno: Errno::last() }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bzimage::tests::sample;

    #[test]
    fn what_cannot_be_loaded_is_named_before_anything_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).expect("a file");
            path
        };
        let refused = |kernel: &Path, initrd: Option<&Path>| {
            Image::open(kernel, initrd).expect_err("refused").to_string()
        };
        let mut bytes = sample(0x8000);
        bytes.resize(1024 + 0x8000, 0);
        let kernel = file("kernel", &bytes);
        let (script, short) = (file("script", b"#!/bin/sh\n"), file("short", &bytes[..0x8000]));
        let (cpio, text) = (file("cpio", b"070701..."), file("text", b"hello"));
        assert_eq!(Image::open(&kernel, Some(&cpio)).expect("an image").bytes(), 1024 + 0x8000 + 9);
        assert!(
            refused(&folder.path().join("none"), None)
                .ends_with("none: No such file or directory (os error 2)")
        );
        assert!(refused(folder.path(), None).ends_with("it is not a file"));
        assert!(refused(&script, None).contains("script cannot be loaded: it is no kernel for x86"));
        assert!(refused(&short, None).contains("it is truncated"));
        assert!(refused(&kernel, Some(&text)).contains("text is no initrd"));
    }
}
