//! Whether the running kernel lets another one be loaded, and by which call.

use std::fs;
use std::path::Path;

use nix::libc;
use serde::Serialize;

/// `CAP_SYS_BOOT`, as a bit of a set.
const SYS_BOOT: u64 = 1 << 22;

/// How a kernel is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// kexec_file_load(2): the kernel reads the files itself, and checks signatures where it is told to.
    File,
    /// kexec_load(2), with everything laid out here.
    Segments,
}

/// One thing that is needed.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Which.
    pub name: &'static str,
    /// There it is.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What would help, when it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<&'static str>,
}

impl Check {
    /// A finding; `fix` is kept where it is of use.
    pub fn new(name: &'static str, ok: bool, detail: impl Into<String>, fix: &'static str) -> Self {
        Self { name, ok, detail: detail.into(), fix: (!ok).then_some(fix) }
    }
}

/// Everything that is needed, in the order in which it is.
pub fn checks() -> Vec<Check> {
    vec![supported(Path::new("/sys/kernel")), allowed(Path::new("/proc/sys/kernel")), right(), lockdown()]
}

fn supported(sys: &Path) -> Check {
    let found = sys.join("kexec_loaded").exists();
    let detail = match (found, way()) {
        (false, _) => "the kernel was built without CONFIG_KEXEC_CORE",
        (true, Way::File) => "the kernel can load another, by kexec_file_load(2)",
        (true, Way::Segments) => "the kernel can load another, by kexec_load(2)",
    };
    Check::new("kexec", found, detail, "boot a kernel with CONFIG_KEXEC or CONFIG_KEXEC_FILE")
}

fn allowed(sysctl: &Path) -> Check {
    let value = fs::read_to_string(sysctl.join("kexec_load_disabled")).unwrap_or_default();
    let is_off = value.trim() == "1";
    let detail = if is_off { "kernel.kexec_load_disabled is 1" } else { "loading is not switched off" };
    Check::new(
        "allowed",
        !is_off,
        detail,
        "it cannot be switched on again before the next boot: leave kernel.kexec_load_disabled at 0 (sysctl.d), and \
         where the kernel's default is 1 boot it with kexec_load_disabled=0",
    )
}

fn right() -> Check {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = set.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0);
    let has = set & SYS_BOOT != 0;
    let detail = if has { "CAP_SYS_BOOT is there" } else { "CAP_SYS_BOOT is missing" };
    Check::new("right", has, detail, "do it as root")
}

fn lockdown() -> Check {
    let text = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    let mode =
        text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']')).unwrap_or("none");
    let ok = mode == "none" || way() == Way::File;
    Check::new(
        "lockdown",
        ok,
        format!("the kernel's lockdown is {mode}"),
        "boot without lockdown, or a kernel with CONFIG_KEXEC_FILE, which takes signed kernels",
    )
}

/// The call that is there. Asked with what cannot be loaded: the answer to that is that there is no such descriptor, or no
/// such call.
pub fn way() -> Way {
    // SAFETY: a call on numbers that are no descriptors, and a text of no length.
    let result = unsafe { libc::syscall(libc::SYS_kexec_file_load, -1, -1, 0, c"".as_ptr(), 0) };
    match result {
        -1 if nix::errno::Errno::last() == nix::errno::Errno::ENOSYS => Way::Segments,
        _ => Way::File,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_with_what_would_help() {
        let folder = tempfile::tempdir().expect("a folder");
        let check = supported(folder.path());
        assert!(!check.ok && check.fix.is_some_and(|fix| fix.contains("CONFIG_KEXEC")));
        fs::write(folder.path().join("kexec_load_disabled"), "1\n").expect("a file");
        let check = allowed(folder.path());
        assert!(!check.ok && check.detail.contains("kernel.kexec_load_disabled is 1"));
        fs::write(folder.path().join("kexec_load_disabled"), "0\n").expect("a file");
        assert!(allowed(folder.path()).ok);
    }
}
