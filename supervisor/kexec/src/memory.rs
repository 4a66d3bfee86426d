//! The machine's memory: what the firmware says of it, and places in it that are free for a new kernel.

use std::fs;
use std::io;
use std::path::Path;

/// Smallest part of memory that can be given, in bytes.
pub const PAGE: u64 = 4096;

/// The most entries that the page of parameters has room for (`E820_MAX_ENTRIES_ZEROPAGE`).
pub const ENTRIES_MAX: usize = 128;

/// Below is what firmware and old devices use.
const LOWEST: u64 = 1 << 20;

/// The most that is read of a table of the kernel's, in bytes: some hundred lines of 80.
const TABLE_LIMIT: usize = 64 * 1024;

/// A part of the machine's memory, as the firmware describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its first byte.
    pub start: u64,
    /// Its length in bytes.
    pub len: u64,
    /// 1 for memory, 2 reserved, 3 and 4 ACPI's, 5 broken, 7 persistent.
    pub kind: u32,
}

/// A part of memory from its first byte to the one behind its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Its first byte.
    pub start: u64,
    /// Behind its last byte.
    pub end: u64,
}

/// What the firmware said when the machine was switched on, lowest first.
///
/// # Errors
/// Those of reading; `NotFound` where the kernel does not show it; `InvalidData` for what it cannot have written.
pub fn firmware(folder: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for part in fs::read_dir(folder)? {
        let part = part?.path();
        let read = |name: &str| fs::read_to_string(part.join(name)).map(|text| text.trim().to_owned());
        let number = |name: &str| {
            let text = read(name)?;
            let digits = text.strip_prefix("0x").ok_or(io::ErrorKind::InvalidData)?;
            u64::from_str_radix(digits, 16).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
        };
        let (start, end) = (number("start")?, number("end")?);
        let len =
            end.checked_sub(start).and_then(|len| len.checked_add(1)).ok_or(io::ErrorKind::InvalidData)?;
        entries.push(Entry { start, len, kind: kind_of(&read("type")?) });
    }
    entries.sort_by_key(|entry| entry.start);
    if entries.len() > ENTRIES_MAX {
        return Err(io::Error::other(format!("the firmware's map has more than {ENTRIES_MAX} entries")));
    }
    Ok(entries)
}

/// Names of arch/x86/kernel/e820.c. What is not known is left alone.
fn kind_of(name: &str) -> u32 {
    match name {
        "System RAM" => 1,
        "ACPI Tables" => 3,
        "ACPI Non-volatile Storage" => 4,
        "Unusable memory" => 5,
        "Persistent Memory" => 7,
        _ => 2,
    }
}

/// Memory that is in use as such, without what is set apart in it, by a table as `/proc/iomem`. Root alone is shown numbers.
pub fn in_use(table: &str) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for line in table.get(..TABLE_LIMIT.min(table.len())).unwrap_or_default().lines() {
        let Some((place, name)) = line.split_once(" : ") else { continue };
        let depth = place.len() - place.trim_start().len();
        let Some(range) = range_of(place.trim()) else { continue };
        match (depth, name) {
            (0, "System RAM") => ranges.push(range),
            // The new kernel may lie where the old one is, but not where something is kept for others.
            (1.., "Crash kernel" | "Reserved" | "reserved") => cut(&mut ranges, range),
            _ => {}
        }
    }
    cut(&mut ranges, Range { start: 0, end: LOWEST });
    ranges
}

fn range_of(text: &str) -> Option<Range> {
    let (start, last) = text.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    let (start, last) = (number(start)?, number(last)?);
    (start < last).then(|| Range { start, end: last.saturating_add(1) })
}

/// Take a part out of others.
fn cut(ranges: &mut Vec<Range>, out: Range) {
    let without = |range: &Range| {
        [
            Range { start: range.start, end: range.end.min(out.start) },
            Range { start: range.start.max(out.end), end: range.end },
        ]
    };
    *ranges = ranges.iter().flat_map(without).filter(|range| range.start < range.end).collect();
}

/// Places that are still free.
#[derive(Debug)]
pub struct Free(Vec<Range>);

/// What a place has to be.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Its length in bytes.
    pub len: u64,
    /// Its first byte is a multiple of this power of two.
    pub alignment: u64,
    /// It does not begin before.
    pub from: u64,
    /// It ends here at most.
    pub below: u64,
    /// The highest of all places, rather than the lowest.
    pub high: bool,
}

impl Free {
    /// All of these.
    pub fn of(ranges: Vec<Range>) -> Self {
        Self(ranges)
    }

    /// Take a place, in whole pages; `None` where there is none.
    pub fn take(&mut self, wanted: Wanted) -> Option<Range> {
        let len = wanted.len.checked_next_multiple_of(PAGE)?;
        let alignment = wanted.alignment.max(PAGE);
        let place = |range: &Range| {
            let lowest = range.start.max(wanted.from).checked_next_multiple_of(alignment)?;
            let highest = range.end.min(wanted.below).checked_sub(len)? / alignment * alignment;
            (lowest <= highest).then_some(if wanted.high { highest } else { lowest })
        };
        let places = self.0.iter().filter_map(place);
        let start = if wanted.high { places.max() } else { places.min() }?;
        let taken = Range { start, end: start + len };
        cut(&mut self.0, taken);
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TABLE: &str = "\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
000f0000-000fffff : Reserved
00100000-1ffdffff : System RAM
  01000000-01ffffff : Kernel code
  10000000-17ffffff : Crash kernel
1ffe0000-1fffffff : Reserved
fee00000-fee00fff : Local APIC
100000000-13fffffff : System RAM
";

    fn range(start: u64, end: u64) -> Range {
        Range { start, end }
    }

    #[test]
    fn memory_is_what_is_left_of_the_kernels_table() {
        let expected = [
            range(0x10_0000, 0x1000_0000),
            range(0x1800_0000, 0x1ffe_0000),
            range(0x1_0000_0000, 0x1_4000_0000),
        ];
        assert_eq!(in_use(TABLE), expected);
        // Who is not root sees no numbers.
        assert_eq!(in_use("00000000-00000000 : System RAM\n"), []);
        assert_eq!(in_use("x-y : System RAM\n : \n10-1 : System RAM\n"), []);
    }

    #[test]
    fn the_firmwares_map_is_read_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, start, end, kind) in
            [("0", "0x100000", "0x1ffdffff", "System RAM"), ("1", "0x0", "0xfff", "Reserved")]
        {
            let part = folder.path().join(name);
            fs::create_dir(&part).expect("a folder");
            for (file, text) in [("start", start), ("end", end), ("type", kind)] {
                fs::write(part.join(file), format!("{text}\n")).expect("a file");
            }
        }
        let expected =
            [Entry { start: 0, len: 0x1000, kind: 2 }, Entry { start: 0x10_0000, len: 0x1fee_0000, kind: 1 }];
        assert_eq!(firmware(folder.path()).expect("a map"), expected);
        fs::write(folder.path().join("1/end"), "0xffffffffffffffff").expect("a file");
        assert!(firmware(folder.path()).is_err(), "a length of 2^64");
    }

    #[test]
    fn places_are_the_lowest_or_the_highest() {
        let mut free = Free::of(in_use(TABLE));
        let wanted =
            Wanted { len: 5000, alignment: 0x20_0000, from: 0x100_0000, below: 1 << 32, high: false };
        assert_eq!(free.take(wanted), Some(range(0x100_0000, 0x100_2000)));
        assert_eq!(
            free.take(Wanted { alignment: 1, high: true, ..wanted }),
            Some(range(0x1ffd_e000, 0x1ffe_0000))
        );
        assert_eq!(free.take(Wanted { len: 1 << 30, ..wanted }), None);
        assert_eq!(free.take(Wanted { len: u64::MAX, ..wanted }), None);
        assert_eq!(free.take(Wanted { below: 0x100_1000, from: 0x100_0000, ..wanted }), None);
    }

    proptest! {
        #[test]
        fn places_are_as_wanted_and_nobody_elses(
            wishes in proptest::collection::vec((1_u64..0x400_0000, 0_u32..23, any::<bool>()), 1..20)
        ) {
            let mut free = Free::of(in_use(TABLE));
            let mut taken: Vec<Range> = Vec::new();
            for (len, power, high) in wishes {
                let wanted = Wanted { len, alignment: 1 << power, from: 0x20_0000, below: 1 << 32, high };
                let Some(place) = free.take(wanted) else { continue };
                prop_assert!(place.start.is_multiple_of(wanted.alignment.max(PAGE)) && place.end.is_multiple_of(PAGE));
                prop_assert!(place.end - place.start >= len && place.start >= wanted.from && place.end <= wanted.below);
                prop_assert!(in_use(TABLE).iter().any(|range| range.start <= place.start && place.end <= range.end));
                prop_assert!(taken.iter().all(|other| place.end <= other.start || other.end <= place.start));
                taken.push(place);
            }
        }
    }
}
