//! Looks names up in `/etc/passwd` and `/etc/group`: by the child, for the file system may take its time.

use std::ffi::CStr;

use nix::libc;
use syscalls::{Errno, Sysno, syscall};

use super::descriptor;

/// Users: name, password, number, group.
pub const USERS: &CStr = c"/etc/passwd";

/// Groups: name, password, number.
pub const GROUPS: &CStr = c"/etc/group";

/// Bytes that are read at once, onto the child's small stack.
const CHUNK: usize = 512;

/// The most bytes that are looked through: twenty thousand accounts. Larger files are kept elsewhere.
const LIMIT: usize = 1024 * 1024;

/// The numbers of an account: its own, and what stands behind it, which for a user is its group. `ENODATA` if the file
/// has no such name.
///
/// # Safety
/// Only in a child process.
pub unsafe fn find(path: &CStr, name: &CStr) -> Result<(u32, u32), Errno> {
    // SAFETY: plain calls on a path and a local.
    unsafe {
        let fd = descriptor(syscall!(
            Sysno::openat,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::O_RDONLY | libc::O_CLOEXEC
        )?);
        let found = search(name, |buffer| syscall!(Sysno::read, fd, buffer.as_mut_ptr(), buffer.len()));
        let _ = syscall!(Sysno::close, fd);
        found
    }
}

fn search(
    name: &CStr,
    mut read: impl FnMut(&mut [u8; CHUNK]) -> Result<usize, Errno>,
) -> Result<(u32, u32), Errno> {
    let mut line = Line::new(name.to_bytes());
    let mut left = LIMIT;
    loop {
        let mut buffer = [0_u8; CHUNK];
        let count = read(&mut buffer)?;
        if count == 0 {
            return line.end().ok_or(Errno::ENODATA);
        }
        left = left.checked_sub(count).ok_or(Errno::EFBIG)?;
        for byte in buffer.iter().take(count) {
            if let Some(found) = line.take(*byte) {
                return Ok(found);
            }
        }
    }
}

/// One line, as far as it is read.
struct Line<'a> {
    name: &'a [u8],
    /// Bytes of the name that agree.
    agreed: usize,
    /// It is not the one that is looked for, or no good.
    other: bool,
    field: usize,
    /// The third field and the fourth.
    numbers: [Option<u32>; 2],
}

impl<'a> Line<'a> {
    fn new(name: &'a [u8]) -> Self {
        Self { name, agreed: 0, other: false, field: 0, numbers: [None; 2] }
    }

    /// One byte more. The numbers, if it ends the line that is looked for.
    fn take(&mut self, byte: u8) -> Option<(u32, u32)> {
        match (byte, self.field) {
            (b'\n', _) => return self.end(),
            (b':', field) => {
                self.other |= field == 0 && self.agreed != self.name.len();
                self.field = field.saturating_add(1);
            }
            (byte, 0) => {
                self.other |= self.name.get(self.agreed) != Some(&byte);
                self.agreed = self.agreed.saturating_add(1);
            }
            (byte, field) => {
                // The fields before have no number; from the fifth on nothing counts.
                if let Some(number) = field.checked_sub(2).and_then(|place| self.numbers.get_mut(place)) {
                    let digit = byte.is_ascii_digit().then(|| u32::from(byte.wrapping_sub(b'0')));
                    let longer =
                        digit.and_then(|digit| number.unwrap_or(0).checked_mul(10)?.checked_add(digit));
                    *number = longer;
                    // The group's own members are no number.
                    self.other |= longer.is_none() && field == 2;
                }
            }
        }
        None
    }

    /// The line is over.
    fn end(&mut self) -> Option<(u32, u32)> {
        let found = match self.numbers {
            [Some(own), next] if !self.other && self.field >= 2 => Some((own, next.unwrap_or(own))),
            _ => None,
        };
        *self = Self::new(self.name);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(text: &str, name: &CStr) -> Result<(u32, u32), Errno> {
        let mut rest = text.as_bytes();
        search(name, |buffer| std::io::Read::read(&mut rest, buffer).map_err(|_| Errno::EIO))
    }

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nwww:x:3x:3::/:/bin/sh\nwww-data:x:33:34:w:/var/www:/bin/sh\n\
                          +::::::\nshort:x\nlast:x:4294967294:7:::";

    #[test]
    fn a_name_is_found_in_whole() {
        assert_eq!(look(PASSWD, c"root"), Ok((0, 0)));
        assert_eq!(look(PASSWD, c"www-data"), Ok((33, 34)));
        assert_eq!(look(PASSWD, c"last"), Ok((u32::MAX - 1, 7)));
        for absent in [c"roo", c"rootx", c"x", c"www", c"short", c"+", c"data"] {
            assert_eq!(look(PASSWD, absent), Err(Errno::ENODATA), "{absent:?}");
        }
        assert_eq!(look("audio:x:29:pulse,web\nvideo:*:44:\n", c"audio").map(|(own, _)| own), Ok(29));
        assert_eq!(look("audio:x:29:pulse,web\nvideo:*:44:\n", c"video").map(|(own, _)| own), Ok(44));
        assert_eq!(look("big:x:4294967296:1::", c"big"), Err(Errno::ENODATA));
    }

    #[test]
    fn a_file_without_end_is_not_read_for_ever() {
        let endless = search(c"a", |buffer| {
            buffer.fill(b'x');
            Ok(buffer.len())
        });
        assert_eq!(endless, Err(Errno::EFBIG));
    }

    #[test]
    fn the_machines_own_files_are_read() {
        // SAFETY: it only reads, and this test has no handlers that errno could matter to.
        let (root, nobody) = unsafe { (find(USERS, c"root"), find(GROUPS, c"no-such-group")) };
        assert_eq!((root, nobody.map(drop)), (Ok((0, 0)), Err(Errno::ENODATA)));
    }
}
