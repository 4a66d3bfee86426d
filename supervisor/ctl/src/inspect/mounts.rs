//! The mounts that a process sees.

use std::path::Path;

/// A line of `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is, seen from the process's root.
    pub path: String,
    /// The kind of file system.
    pub kind: String,
    /// Whether nothing can be written through it.
    pub is_read_only: bool,
    /// Options of the mount.
    pub options: String,
    /// Options of the file system.
    pub details: String,
    /// Whether changes of it reach other namespaces, or theirs this one.
    pub is_tied: bool,
}

/// All lines that can be read.
pub fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(mount).collect()
}

/// The mount through which a path is reached: of those above it the nearest, and of several there the last.
pub fn at<'m>(mounts: &'m [Mount], path: &str) -> Option<&'m Mount> {
    let above = mounts.iter().filter(|mount| Path::new(path).starts_with(&mount.path));
    above.max_by_key(|mount| Path::new(&mount.path).components().count())
}

fn mount(line: &str) -> Option<Mount> {
    let (own, rest) = line.split_once(" - ")?;
    let own: Vec<_> = own.split(' ').collect();
    let mut rest = rest.split(' ');
    let (kind, _, details) = (rest.next()?, rest.next()?, rest.next()?);
    let options = *own.get(5)?;
    let has = |options: &str, word| options.split(',').any(|option| option == word);
    Some(Mount {
        path: unescaped(own.get(4)?),
        kind: kind.to_owned(),
        is_read_only: has(options, "ro") || has(details, "ro"),
        options: options.to_owned(),
        details: details.to_owned(),
        is_tied: own.iter().skip(6).any(|field| field.starts_with("shared:") || field.starts_with("master:")),
    })
}

/// Blanks and the like are written as three octal digits behind a backslash.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let digits = more.get(..3).filter(|_| *first == b'\\');
        let byte = digits.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &more[3..] } else { more };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /usr ro,nosuid master:3 - ext4 /dev/vda rw
24 23 0:22 / /usr/with\\040blank rw - tmpfs tmpfs rw,size=64k
25 22 0:23 / /usr rw,nodev - tmpfs tmpfs ro,size=4k
no line
";

    #[test]
    fn a_path_is_reached_through_the_nearest_mount_and_the_last_there() {
        let mounts = parse(TEXT);
        assert_eq!(mounts.len(), 4);
        let at = |path| at(&mounts, path).map(|mount| (mount.kind.as_str(), mount.is_read_only));
        assert_eq!(at("/var"), Some(("ext4", false)));
        assert_eq!(at("/usr/bin"), Some(("tmpfs", true)), "the one on top");
        assert_eq!(at("/usrlocal"), Some(("ext4", false)), "no part of a name");
        assert_eq!(at("/usr/with blank/x"), Some(("tmpfs", false)));
        assert_eq!(mounts.iter().map(|mount| mount.is_tied).collect::<Vec<_>>(), [true, true, false, false]);
    }
}
