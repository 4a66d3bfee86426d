//! What a jump needs, in numbers.

use std::fmt;
use std::fs;
use std::path::Path;

use yakiros_kexec::manifest;

/// What the new kernel gets, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// The kernel's file.
    pub kernel: u64,
    /// Its initrd.
    pub initrd: u64,
    /// The memory of all services, which is what their images hold.
    pub images: u64,
    /// Files that they have open and that go along.
    pub files: u64,
    /// Images lie in memory, and go along with the initrd.
    pub packed: bool,
}

impl Load {
    /// The most memory that it takes until the jump. What is packed lies there as checkpoints, and with the initrd; kernel and
    /// all that it begins with are read once more to be loaded, and the running kernel keeps a copy of that.
    pub fn memory(&self) -> u64 {
        let Self { kernel, initrd, images, files, packed } = *self;
        let (kept, along) = if packed { (images, images.saturating_add(files)) } else { (0, 0) };
        let file = if packed { initrd.saturating_add(along) } else { 0 };
        let loaded = kernel.saturating_add(initrd).saturating_add(along);
        kept.saturating_add(file).saturating_add(loaded.saturating_mul(2))
    }
}

/// Bytes, for people.
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = u128::from(self.0) * 10 / (1 << 20);
        write!(f, "{}.{} MiB", tenths / 10, tenths % 10)
    }
}

/// A line of `/proc/meminfo` or of a process's status, in bytes.
pub fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Memory of a service that no file can give back: of its group, or of its process alone where no group counts it.
pub fn memory_of(group: Option<&Path>, pid: i32) -> u64 {
    let counted = group.and_then(|group| fs::read_to_string(group.join("memory.stat")).ok());
    let counted = counted.as_deref().and_then(|text| Some(field(text, "anon")? + field(text, "shmem")?));
    counted.unwrap_or_else(|| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        ["RssAnon", "RssShmem"].iter().filter_map(|name| kilobytes(&status, name)).sum()
    })
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?.trim().parse().ok()
}

/// What a kernel is told that is loaded for this jump: what the running one was told, and more, before what is for its init.
/// What is wanted of which jump it is said to be for does not count.
pub fn command_line(running: &str, more: &str, jump: &str) -> String {
    let (kernels, inits) = match running.trim().split_once(" -- ") {
        Some((kernels, inits)) => (kernels, Some(inits)),
        None => (running.trim(), None),
    };
    // Of the boot loader, about files that are not used again.
    let kept = kernels.split_whitespace().filter(|word| !is_loaders(word));
    // What is added may itself end with something for the init.
    let jump = format!("{}{jump}", manifest::JUMP);
    let more = more.split_whitespace();
    let words = kept.chain([jump.as_str()]).chain(more.filter(|word| !word.starts_with(manifest::JUMP)));
    let mut text = words.collect::<Vec<_>>().join(" ");
    if let Some(inits) = inits {
        text.push_str(" -- ");
        text.push_str(inits);
    }
    text
}

/// The last number that a process got; 0 where the kernel does not say it.
pub fn last_pid() -> i32 {
    let text = fs::read_to_string("/proc/sys/kernel/ns_last_pid").unwrap_or_default();
    text.trim().parse().unwrap_or_default()
}

/// Of who has loaded the running kernel.
fn is_loaders(word: &str) -> bool {
    ["BOOT_IMAGE=", "initrd=", manifest::JUMP].iter().any(|prefix| word.starts_with(prefix))
}

/// What makes a kernel leave its initrd for another root, if anything does.
pub fn other_root(command_line: &str) -> Option<&str> {
    let mut kernels = command_line.split_whitespace().take_while(|word| *word != "--");
    kernels.find(|word| word.starts_with("root="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_for_every_copy_that_there_is_at_a_time() {
        let load = Load { kernel: 10, initrd: 100, images: 1000, files: 10_000, packed: false };
        assert_eq!(load.memory(), 220);
        // The checkpoints, the new initrd, and both with the kernel twice.
        // Open files are there already, and need no place of their own.
        assert_eq!(Load { packed: true, ..load }.memory(), 1000 + 11_100 + 2 * 11_110);
        assert_eq!(Load { images: u64::MAX, packed: true, ..load }.memory(), u64::MAX);
        assert_eq!(Size(3 << 19).to_string(), "1.5 MiB");
    }

    #[test]
    fn the_new_kernel_is_told_what_this_one_was_and_more() {
        let running = "BOOT_IMAGE=/vmlinuz console=ttyS0 initrd=/x quiet -- --verbose\n";
        let line = command_line(running, "loglevel=7 a=b", "5a");
        assert_eq!(line, "console=ttyS0 quiet yakiros.jump=5a loglevel=7 a=b -- --verbose");
        // It does not grow from jump to jump, and nobody says that it is of another one.
        let next = command_line(&line, "yakiros.jump=5c", "5b");
        assert_eq!(next, "console=ttyS0 quiet loglevel=7 a=b yakiros.jump=5b -- --verbose");
        assert_eq!(manifest::jump(&command_line("quiet", "a -- b", "5b")), Some("5b"));
        assert_eq!(command_line("quiet\n", "", "5a"), "quiet yakiros.jump=5a");
        assert_eq!(other_root("quiet root=/dev/vda"), Some("root=/dev/vda"));
        assert_eq!(other_root("quiet -- root=/dev/vda"), None);
    }

    #[test]
    fn the_memory_of_a_service_is_that_of_its_group() {
        let group = tempfile::tempdir().expect("a folder");
        let own = i32::try_from(std::process::id()).expect("a number");
        assert!(memory_of(None, own) > 0);
        assert!(memory_of(Some(group.path()), own) > 0, "a group without an account");
        fs::write(group.path().join("memory.stat"), "anon 4096\nanon_thp 9\nfile 7\nshmem 10\n")
            .expect("a file");
        assert_eq!(memory_of(Some(group.path()), own), 4106);
        assert_eq!(kilobytes("MemFree: 1 kB\nMemAvailable:   2 kB\n", "MemAvailable"), Some(2048));
    }
}
