//! A new kernel laid out in memory: what kexec_load(2) takes.
//!
//! Three parts are placed: the kernel's code, the initrd, and a stage that holds the page of parameters
//! (Documentation/arch/x86/zero-page.rst), the command line and the few instructions between the old kernel and the new one.
//! The kernel's own code that jumps leaves the processor in 64-bit mode with one page table for all memory, and no
//! descriptor table that the new kernel could count on: those instructions load one, and tell it where the page is.

use std::ffi::CStr;
use std::fmt;

use crate::bzimage::{HEADER_AT, Header};
use crate::memory::{ENTRIES_MAX, Entry, Free, PAGE, Range, Wanted};

/// Where the 64-bit entry is, from the kernel's first byte.
const ENTRY: u64 = 0x200;

/// What is not to be above, for those that cannot be.
const FOUR_GIB: u64 = 1 << 32;

/// `type_of_loader` for one without a number of its own.
const UNKNOWN_LOADER: u8 = 0xff;

/// Places in the page of parameters.
mod at {
    pub const SCREEN: std::ops::Range<usize> = 0..0x40;
    pub const RSDP: usize = 0x70;
    pub const INITRD_HIGH: usize = 0xc0;
    pub const INITRD_LEN_HIGH: usize = 0xc4;
    pub const COMMAND_LINE_HIGH: usize = 0xc8;
    pub const ENTRIES: usize = 0x1e8;
    pub const LOADER: usize = 0x210;
    pub const INITRD: usize = 0x218;
    pub const INITRD_LEN: usize = 0x21c;
    pub const COMMAND_LINE: usize = 0x228;
    pub const TABLE: usize = 0x2d0;
}

/// Bytes of an entry of the table.
const ENTRY_LEN: usize = 20;

/// What the running kernel was told, and the new one is to be told as well.
#[derive(Clone, Debug, Default)]
pub struct Inherited {
    /// The running kernel's own page of parameters (`/sys/kernel/boot_params/data`); empty when it does not show it.
    pub parameters: Vec<u8>,
    /// Where ACPI's tables begin, where the page does not say so.
    pub rsdp: Option<u64>,
}

/// What is to be laid out.
#[derive(Debug)]
pub struct Wish<'a> {
    /// What the kernel needs.
    pub header: &'a Header,
    /// Its part in protected mode.
    pub code: &'a [u8],
    /// What it begins with.
    pub initrd: &'a [u8],
    /// Its command line.
    pub command_line: &'a CStr,
    /// The memory that it is told of.
    pub firmware: &'a [Entry],
    /// The memory that may be used until it has taken over.
    pub free: Vec<Range>,
    /// What else it is told.
    pub inherited: &'a Inherited,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPlan {
    /// The command line is longer than the new kernel reads.
    CommandLine {
        /// Its length in bytes.
        len: u64,
        /// The longest.
        max: u64,
    },
    /// There is no place in memory.
    NoRoom {
        /// For what.
        what: &'static str,
        /// How much it needs, in bytes.
        len: u64,
    },
    /// The firmware's map has more entries than the page of parameters.
    Entries(usize),
}

impl fmt::Display for NoPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine { len, max } => {
                write!(f, "the command line has {len} bytes, and the new kernel reads {max}")
            }
            Self::NoRoom { what, len } => {
                write!(f, "there are not {len} bytes of memory in one piece for the {what}")
            }
            Self::Entries(count) => {
                write!(f, "the firmware's map has {count} entries, and {ENTRIES_MAX} can be told")
            }
        }
    }
}

impl std::error::Error for NoPlan {}

/// Bytes and where they go. What the place has more is filled with zeros.
#[derive(Debug, PartialEq, Eq)]
pub struct Segment<B> {
    /// Where.
    pub place: Range,
    /// What.
    pub bytes: B,
}

/// Everything that is loaded.
#[derive(Debug)]
pub struct Plan<'a> {
    /// Where the old kernel jumps to.
    pub entry: u64,
    /// The kernel's code.
    pub code: Segment<&'a [u8]>,
    /// What it begins with, if anything.
    pub initrd: Option<Segment<&'a [u8]>>,
    /// Parameters, command line and the way in.
    pub stage: Segment<Vec<u8>>,
}

impl<'a> Plan<'a> {
    /// Lay it out.
    ///
    /// # Errors
    /// What there is no room for.
    pub fn new(wish: &Wish<'a>) -> Result<Self, NoPlan> {
        let header = wish.header;
        let text = wish.command_line.to_bytes_with_nul();
        let (len, max) = (wish.command_line.count_bytes() as u64, header.command_line_max);
        if len > max {
            return Err(NoPlan::CommandLine { len, max });
        }
        if wish.firmware.len() > ENTRIES_MAX {
            return Err(NoPlan::Entries(wish.firmware.len()));
        }
        let mut free = Free::of(wish.free.clone());
        let mut take =
            |what, wanted: Wanted| free.take(wanted).ok_or(NoPlan::NoRoom { what, len: wanted.len });
        let code = take("kernel", kernel(header))?;
        let ceiling = if header.above_4_gib { u64::MAX } else { header.initrd_max.saturating_add(1) };
        let anywhere = |len| Wanted { len, alignment: PAGE, from: 0, below: ceiling, high: true };
        let initrd = match wish.initrd {
            [] => None,
            bytes => Some(Segment { place: take("initrd", anywhere(bytes.len() as u64))?, bytes }),
        };
        let stage_len = PAGE + (text.len() as u64).next_multiple_of(PAGE) + PAGE;
        let stage = take("parameters", Wanted { below: FOUR_GIB, ..anywhere(stage_len) })?;

        let way_in = stage.end - PAGE;
        let mut bytes =
            parameters(wish, initrd.as_ref().map(|initrd| initrd.place.start), stage.start + PAGE);
        bytes.extend_from_slice(text);
        bytes.resize(to_len(way_in - stage.start), 0);
        bytes.extend(trampoline::code(code.start + ENTRY, stage.start));
        Ok(Self {
            entry: way_in,
            code: Segment { place: code, bytes: wish.code },
            initrd,
            stage: Segment { place: stage, bytes },
        })
    }
}

/// The place that the kernel unpacks itself in.
fn kernel(header: &Header) -> Wanted {
    let Header { memory: len, alignment, preferred: from, relocatable, above_4_gib, .. } = *header;
    if relocatable {
        let below = if above_4_gib { u64::MAX } else { FOUR_GIB };
        Wanted { len, alignment, from, below, high: false }
    } else {
        Wanted {
            len,
            alignment: PAGE,
            from,
            below: from.saturating_add(len.next_multiple_of(PAGE)),
            high: false,
        }
    }
}

/// The page of parameters.
fn parameters(wish: &Wish<'_>, initrd: Option<u64>, command_line: u64) -> Vec<u8> {
    let mut page = Page(vec![0; to_len(PAGE)]);
    let old = &wish.inherited.parameters;
    if let Some(screen) = old.get(at::SCREEN) {
        page.put(at::SCREEN.start, screen);
    }
    let rsdp = old.get(at::RSDP..at::RSDP + 8).filter(|bytes| bytes.iter().any(|byte| *byte != 0));
    match (rsdp, wish.inherited.rsdp) {
        (Some(bytes), _) => page.put(at::RSDP, bytes),
        (None, Some(place)) => page.put(at::RSDP, &place.to_le_bytes()),
        (None, None) => {}
    }
    page.put(HEADER_AT, &wish.header.raw);
    page.put(at::LOADER, &[UNKNOWN_LOADER]);
    page.halves(at::COMMAND_LINE, at::COMMAND_LINE_HIGH, command_line);
    if let Some(place) = initrd {
        page.halves(at::INITRD, at::INITRD_HIGH, place);
        page.halves(at::INITRD_LEN, at::INITRD_LEN_HIGH, wish.initrd.len() as u64);
    }
    page.put(at::ENTRIES, &[u8::try_from(wish.firmware.len()).unwrap_or(u8::MAX)]);
    for (place, entry) in (at::TABLE..).step_by(ENTRY_LEN).zip(wish.firmware) {
        page.put(place, &entry.start.to_le_bytes());
        page.put(place + 8, &entry.len.to_le_bytes());
        page.put(place + 16, &entry.kind.to_le_bytes());
    }
    page.0
}

struct Page(Vec<u8>);

impl Page {
    /// What does not fit is left out: the header of a file may claim any length.
    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(room) = self.0.get_mut(at..at + bytes.len()) {
            room.copy_from_slice(bytes);
        }
    }

    fn halves(&mut self, low: usize, high: usize, number: u64) {
        let bytes = number.to_le_bytes();
        self.put(low, &bytes[..4]);
        self.put(high, &bytes[4..]);
    }
}

/// Lengths of what lies in memory fit.
fn to_len(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

#[cfg(target_arch = "x86_64")]
mod trampoline {
    use std::arch::global_asm;
    use std::slice;

    use crate::memory::PAGE;

    // It is run at a place that is not known when it is assembled, with nothing but itself in memory.
    global_asm!(
        ".pushsection .rodata.yakiros_trampoline, \"a\"",
        ".balign 16",
        ".globl yakiros_trampoline",
        "yakiros_trampoline:",
        "cli",
        "cld",
        // The table of segments is beside, and its address is only known now.
        "lea rax, [rip + 5f]",
        "mov [rip + 4f + 2], rax",
        "lgdt [rip + 4f]",
        "mov eax, 0x18",
        "mov ds, eax",
        "mov es, eax",
        "mov ss, eax",
        "mov fs, eax",
        "mov gs, eax",
        // The rest of the page is its stack.
        "lea rsp, [rip + yakiros_trampoline + {page}]",
        "mov rsi, [rip + 3f]",
        "xor ebx, ebx",
        "xor ebp, ebp",
        "xor edi, edi",
        "push 0x10",
        "push qword ptr [rip + 2f]",
        "retfq",
        ".balign 16",
        // The limit and the address of the table of segments.
        "4: .word 31",
        ".quad 0",
        ".balign 16",
        // Nothing, nothing, 64-bit code at 0x10, data at 0x18: as the boot protocol has them.
        "5: .quad 0, 0, 0x00af9a000000ffff, 0x00cf92000000ffff",
        ".globl yakiros_trampoline_words",
        "yakiros_trampoline_words:",
        "2: .quad 0",
        "3: .quad 0",
        ".globl yakiros_trampoline_end",
        "yakiros_trampoline_end:",
        ".popsection",
        page = const PAGE,
    );

    unsafe extern "C" {
        static yakiros_trampoline: u8;
        static yakiros_trampoline_words: u8;
        static yakiros_trampoline_end: u8;
    }

    /// The instructions for this entry of the kernel and this page of parameters.
    pub fn code(entry: u64, parameters: u64) -> Vec<u8> {
        let part = |from: *const u8, to: *const u8| {
            // SAFETY: both are of the same part of the program, in this order.
            unsafe { slice::from_raw_parts(from, to.offset_from_unsigned(from)) }
        };
        let (begin, words) = (&raw const yakiros_trampoline, &raw const yakiros_trampoline_words);
        let mut bytes = part(begin, words).to_vec();
        bytes.extend(entry.to_le_bytes());
        bytes.extend(parameters.to_le_bytes());
        debug_assert_eq!(bytes.len(), part(begin, &raw const yakiros_trampoline_end).len());
        bytes
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod trampoline {
    /// Other processors have kexec_file_load(2), and no file of theirs gets here.
    pub fn code(_entry: u64, _parameters: u64) -> Vec<u8> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bzimage::tests::sample;

    const RAM: Range = Range { start: 0x10_0000, end: 0x2000_0000 };

    fn header() -> Header {
        Header::read(&sample(0x8000), 1024 + 0x8000).expect("a header")
    }

    fn word(bytes: &[u8], at: usize) -> u64 {
        bytes[at..at + 4].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    #[test]
    fn the_new_kernel_is_told_where_everything_is() {
        let (header, code, initrd) = (header(), vec![7; 0x8000], vec![9; 5000]);
        let firmware = [
            Entry { start: 0, len: 0x9_fc00, kind: 1 },
            Entry { start: 0x10_0000, len: 0x1ff0_0000, kind: 1 },
        ];
        let mut parameters = vec![0; 4096];
        parameters[0x07] = 80;
        parameters[0x70..0x74].copy_from_slice(&[0xd0, 0x12, 0x0f, 0]);
        // What the running kernel was given for itself alone is not passed on.
        parameters[0x1e8] = 77;
        parameters[0x250..0x258].fill(1);
        let inherited = Inherited { parameters, rsdp: Some(1) };
        let wish = Wish {
            header: &header,
            code: &code,
            initrd: &initrd,
            command_line: c"console=ttyS0",
            firmware: &firmware,
            free: vec![RAM],
            inherited: &inherited,
        };
        let plan = Plan::new(&wish).expect("a plan");
        assert_eq!(plan.code.place, Range { start: 0x100_0000, end: 0x110_8000 });
        let initrd = plan.initrd.expect("an initrd");
        assert_eq!(initrd.place, Range { start: 0x1fff_e000, end: 0x2000_0000 });
        let Segment { place, bytes } = plan.stage;
        assert_eq!(place, Range { start: 0x1fff_b000, end: 0x1fff_e000 });
        assert_eq!(plan.entry, place.start + 0x2000);

        assert_eq!(bytes[0x07], 80);
        assert_eq!(word(&bytes, 0x70), 0xf_12d0);
        assert_eq!(&bytes[0x202..0x206], b"HdrS");
        assert_eq!(word(&bytes, 0x250), 0);
        assert_eq!(bytes[0x210], 0xff);
        assert_eq!((word(&bytes, 0x218), word(&bytes, 0x21c)), (initrd.place.start, 5000));
        assert_eq!(word(&bytes, 0x228), place.start + PAGE);
        assert_eq!(&bytes[0x1000..0x100e], b"console=ttyS0\0");
        assert_eq!(bytes[0x1e8], 2);
        assert_eq!((word(&bytes, 0x2d0 + 20), word(&bytes, 0x2d0 + 36)), (0x10_0000, 1));
        // At the end of the way in stand the entry and the parameters.
        #[cfg(target_arch = "x86_64")]
        {
            let end = bytes.len();
            assert_eq!((word(&bytes, end - 16), word(&bytes, end - 8)), (0x100_0200, place.start));
            assert!(bytes.len() as u64 - 0x2000 < PAGE / 2, "there is room for a stack");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let header = header();
        let inherited = Inherited::default();
        let initrd = vec![0; 0x40_0000];
        let plan = |free, initrd: &[u8], command_line: &CStr| {
            let wish = Wish {
                header: &header,
                code: &vec![0; 0x8000],
                initrd,
                command_line,
                firmware: &[],
                free,
                inherited: &inherited,
            };
            Plan::new(&wish).map(drop).map_err(|error| error.to_string())
        };
        let small = Range { start: 0x100_0000, end: 0x140_0000 };
        assert_eq!(
            plan(vec![small], &initrd, c"").expect_err("no room"),
            "there are not 4194304 bytes of memory in one piece for the initrd"
        );
        assert!(plan(vec![], &[], c"").expect_err("no room").ends_with("for the kernel"));
        let long = std::ffi::CString::new("x".repeat(2048)).expect("a text");
        assert_eq!(
            plan(vec![RAM], &[], &long).expect_err("too long"),
            "the command line has 2048 bytes, and the new kernel reads 2047"
        );
    }
}
