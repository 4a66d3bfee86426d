//! The file of a kernel for x86: the setup header of the boot protocol (Documentation/arch/x86/boot.rst).

use std::fmt;

/// The most that is read of a file to find its header, in bytes: two sectors and the words of its version, which the header
/// points to within the first 32 KiB.
pub const HEAD_LIMIT: usize = 0x8200;

/// A sector of the boot protocol, in bytes.
const SECTOR: u64 = 512;

/// Where the header begins, in the file as in the page of parameters.
pub const HEADER_AT: usize = 0x1f1;

/// The oldest protocol (2.12) that says whether a kernel can be entered in 64-bit mode.
const OLDEST: u16 = 0x020c;

/// `XLF_KERNEL_64`: there is an entry in 64-bit mode, 512 bytes into the part in protected mode.
const HAS_64_BIT_ENTRY: u16 = 1;

/// `XLF_CAN_BE_LOADED_ABOVE_4G`: also what it is given may lie there.
const ABOVE_4_GIB: u16 = 2;

/// The longest text of a version that is read, in bytes. The kernel's own limit for a release is 64, and a sentence follows.
const VERSION_LIMIT: usize = 256;

/// What is wrong with a kernel's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoKernel {
    /// There is no header of the boot protocol in it.
    NotAKernel,
    /// It is a kernel, but in a form that the boot protocol does not load, as `vmlinux` is.
    Elf,
    /// The protocol is older than 2.12.
    TooOld {
        /// Its number, as 0x020c for 2.12.
        protocol: u16,
    },
    /// It cannot be entered in 64-bit mode.
    Not64Bit,
    /// The part in protected mode ends beyond the file.
    Truncated {
        /// Bytes that the header promises.
        promised: u64,
        /// Bytes that the file has.
        length: u64,
    },
    /// A number in the header cannot be.
    Contradictory {
        /// Which.
        field: &'static str,
    },
}

impl fmt::Display for NoKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAKernel => f.write_str("it is no kernel for x86: it has no header of the boot protocol"),
            Self::Elf => {
                f.write_str("it is an ELF file; take the bzImage of the same kernel (as /boot/vmlinuz-…)")
            }
            Self::TooOld { protocol } => {
                write!(f, "its boot protocol is {}.{:02}, and 2.12 is needed", protocol >> 8, protocol & 0xff)
            }
            Self::Not64Bit => f.write_str("it cannot be entered in 64-bit mode"),
            Self::Truncated { promised, length } => {
                write!(f, "it is truncated: its header promises {promised} bytes, and there are {length}")
            }
            Self::Contradictory { field } => write!(f, "its header contradicts itself in {field}"),
        }
    }
}

impl std::error::Error for NoKernel {}

/// What a kernel's file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The header as it stands in the file, from [`HEADER_AT`] on.
    pub raw: Vec<u8>,
    /// Release and builder, as `6.18.56-0-virt (…) #1-Alpine …`.
    pub version: Option<String>,
    /// Where the part in protected mode begins in the file.
    pub code_at: u64,
    /// Its length in the file.
    pub code_len: u64,
    /// Memory that it needs from its place on until it has unpacked itself, in bytes.
    pub memory: u64,
    /// Its place is a multiple of this, in bytes.
    pub alignment: u64,
    /// Where it likes best to be.
    pub preferred: u64,
    /// It may be anywhere else.
    pub relocatable: bool,
    /// It, and what it is given, may be above 4 GiB.
    pub above_4_gib: bool,
    /// The last byte at which an initrd may end, for those that cannot be above 4 GiB.
    pub initrd_max: u64,
    /// The longest command line, in bytes without the null at its end.
    pub command_line_max: u64,
}

impl Header {
    /// Read the header. `head` is the file's first [`HEAD_LIMIT`] bytes, or all of it; `length` that of the whole file.
    ///
    /// # Errors
    /// What keeps the file from being loaded.
    pub fn read(head: &[u8], length: u64) -> Result<Self, NoKernel> {
        if head.starts_with(b"\x7fELF") {
            return Err(NoKernel::Elf);
        }
        let fields = Fields(head);
        if fields.u16(0x1fe) != Some(0xaa55) || head.get(0x202..0x206) != Some(b"HdrS") {
            return Err(NoKernel::NotAKernel);
        }
        let protocol = fields.u16(0x206).ok_or(NoKernel::NotAKernel)?;
        if protocol < OLDEST {
            return Err(NoKernel::TooOld { protocol });
        }
        Self::of_protocol(&fields, length).ok_or(NoKernel::NotAKernel)?
    }

    /// `None` where the head is shorter than the fields.
    fn of_protocol(fields: &Fields<'_>, length: u64) -> Option<Result<Self, NoKernel>> {
        let flags = fields.u16(0x236)?;
        if flags & HAS_64_BIT_ENTRY == 0 {
            return Some(Err(NoKernel::Not64Bit));
        }
        // What is 0 there means 4, by the protocol.
        let sectors = match fields.0.get(HEADER_AT)? {
            0 => 4,
            sectors => u64::from(*sectors),
        };
        let code_at = (sectors + 1) * SECTOR;
        let code_len = u64::from(fields.u32(0x1f4)?) * 16;
        if length < code_at + code_len {
            return Some(Err(NoKernel::Truncated { promised: code_at + code_len, length }));
        }
        let header = Self {
            raw: fields.0.get(HEADER_AT..0x202 + usize::from(*fields.0.get(0x201)?))?.to_vec(),
            version: fields.text(usize::from(fields.u16(0x20e)?) + 0x200),
            code_at,
            code_len,
            memory: u64::from(fields.u32(0x260)?),
            alignment: u64::from(fields.u32(0x230)?),
            preferred: fields.u64(0x258)?,
            relocatable: *fields.0.get(0x234)? != 0,
            above_4_gib: flags & ABOVE_4_GIB != 0,
            initrd_max: u64::from(fields.u32(0x22c)?),
            command_line_max: u64::from(fields.u32(0x238)?),
        };
        Some(match header.contradiction() {
            Some(field) => Err(NoKernel::Contradictory { field }),
            None => Ok(header),
        })
    }

    /// The first word of the version: what uname(2) will call the release.
    pub fn release(&self) -> Option<&str> {
        self.version.as_deref()?.split_whitespace().next()
    }

    fn contradiction(&self) -> Option<&'static str> {
        let pages = |number: u64| number.is_multiple_of(crate::memory::PAGE);
        if self.code_len == 0 {
            Some("syssize")
        } else if !self.alignment.is_power_of_two() || !pages(self.alignment) {
            Some("kernel_alignment")
        } else if self.memory < self.code_len {
            Some("init_size")
        } else if !self.relocatable && !pages(self.preferred) {
            Some("pref_address")
        } else {
            None
        }
    }
}

/// Numbers of the header, in the machine's order.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..at + N)?.try_into().ok()
    }

    fn u16(&self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
    }

    /// The text up to its null; what is not printed is left out.
    fn text(&self, at: usize) -> Option<String> {
        let bytes = self.0.get(at..)?.iter().take(VERSION_LIMIT).take_while(|byte| **byte != 0);
        let text: String = bytes.map(|byte| char::from(*byte)).filter(|c| !c.is_control()).collect();
        (!text.is_empty() && at != 0x200).then_some(text)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The head of a kernel of so many bytes of code.
    pub(crate) fn sample(code_len: u32) -> Vec<u8> {
        let mut head = vec![0; HEAD_LIMIT];
        let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x1f1, &[1]);
        put(0x1f4, &(code_len / 16).to_le_bytes());
        put(0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
        put(0x202, b"HdrS\x0f\x02");
        put(0x20e, &0x100_u16.to_le_bytes());
        put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
        put(0x230, &0x20_0000_u32.to_le_bytes());
        put(0x234, &[1, 21, 3, 0]);
        put(0x238, &2047_u32.to_le_bytes());
        put(0x258, &0x100_0000_u64.to_le_bytes());
        put(0x260, &(code_len + 0x10_0000 - 1).to_le_bytes());
        put(0x300, b"6.1.0-test (nobody@nowhere) #1\0more");
        head
    }

    fn read(head: &[u8]) -> Result<Header, NoKernel> {
        Header::read(head, 1024 + 0x8000)
    }

    #[test]
    fn a_kernel_says_what_it_is_and_needs() {
        let header = read(&sample(0x8000)).expect("a header");
        assert_eq!(header.version.as_deref(), Some("6.1.0-test (nobody@nowhere) #1"));
        assert_eq!(header.release(), Some("6.1.0-test"));
        assert_eq!((header.code_at, header.code_len), (1024, 0x8000));
        assert_eq!((header.memory, header.alignment, header.preferred), (0x10_7fff, 0x20_0000, 0x100_0000));
        assert!(header.relocatable && header.above_4_gib);
        assert_eq!((header.initrd_max, header.command_line_max), (0x7fff_ffff, 2047));
        assert_eq!(header.raw.len(), 0x202 + 0x6a - HEADER_AT);
    }

    #[test]
    fn what_is_no_kernel_is_refused_with_its_reason() {
        let broken = |at: usize, byte: u8| {
            let mut head = sample(0x8000);
            head[at] = byte;
            read(&head).expect_err("refused")
        };
        assert_eq!(read(b"#!/bin/sh\n"), Err(NoKernel::NotAKernel));
        assert_eq!(read(b"\x7fELF\x02\x01"), Err(NoKernel::Elf));
        assert_eq!(read(&sample(0x8000)[..0x250]), Err(NoKernel::NotAKernel));
        assert_eq!(broken(0x202, b'h'), NoKernel::NotAKernel);
        assert_eq!(broken(0x206, 0x0a), NoKernel::TooOld { protocol: 0x020a });
        assert_eq!(broken(0x236, 0), NoKernel::Not64Bit);
        assert_eq!(broken(0x230, 1), NoKernel::Contradictory { field: "kernel_alignment" });
        assert_eq!(broken(0x262, 0), NoKernel::Contradictory { field: "init_size" });
        let truncated = Header::read(&sample(0x8000), 0x8000).expect_err("refused");
        assert_eq!(truncated, NoKernel::Truncated { promised: 0x8400, length: 0x8000 });
        assert!(truncated.to_string().contains("promises 33792 bytes, and there are 32768"));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(
            changes in proptest::collection::vec((0_usize..0x400, any::<u8>()), 0..8), length in 0_u64..0x20_0000
        ) {
            let mut head = sample(0x8000);
            for (at, byte) in changes {
                head[at] = byte;
            }
            if let Ok(header) = Header::read(&head, length) {
                prop_assert!(header.code_at + header.code_len <= length);
                prop_assert!(header.alignment.is_power_of_two() && header.memory >= header.code_len);
            }
        }
    }
}
