//! The kernel command line as key and value pairs, and the keys that this crate gives a meaning.

/// The init under test, as the kernel itself would take it: `init=/sbin/graph-resolver`.
pub const INIT: &str = "init";
/// Kernel modules to load before the init starts, by name: `yakiros.modules=virtio_blk,ext4`.
pub const MODULES: &str = "yakiros.modules";
/// A disk with ext4 that is mounted before the init starts, and where: `yakiros.mount=/dev/vda:/var/lib/graph`.
pub const MOUNT: &str = "yakiros.mount";
/// Whether the agent is started: not where this is [`NO_AGENT`], in a machine that has no channel for it.
pub const AGENT: &str = "yakiros.agent";
/// See [`AGENT`].
pub const NO_AGENT: &str = "none";
/// What is executed when the command line names no init.
pub const DEFAULT_INIT: &str = "/sbin/graph-resolver";

/// The last value of `key` in a kernel command line; the kernel, too, lets the last one win.
///
/// Values in double quotes may contain spaces, as in the kernel's own parser.
pub fn value<'a>(cmdline: &'a str, key: &str) -> Option<&'a str> {
    words(cmdline)
        .filter_map(|word| word.split_once('='))
        .filter(|(name, _)| *name == key)
        .map(|(_, value)| value.trim_matches('"'))
        .last()
}

fn words(cmdline: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    cmdline
        .split(move |c: char| {
            if c == '"' {
                quoted = !quoted;
            }
            c.is_whitespace() && !quoted
        })
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_wins() {
        assert_eq!(value("init=/a quiet init=/b\n", INIT), Some("/b"));
    }

    #[test]
    fn quotes_keep_spaces_together() {
        assert_eq!(value(r#"x="a b" init=/b"#, "x"), Some("a b"));
        assert_eq!(value(r#"x="a b" init=/b"#, INIT), Some("/b"));
    }

    #[test]
    fn a_key_is_matched_whole() {
        assert_eq!(value("rdinit=/init yakiros.init=/x", INIT), None);
        assert_eq!(value("init", INIT), None);
    }
}
