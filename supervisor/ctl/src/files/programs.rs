//! Whether the programs that a component names are there, on this machine or in another's tree.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component as Part, Path, PathBuf};

use yakiros_core::component::{Check, Command, Component, Readiness, place};
use yakiros_core::diagnostic::Diagnostic;
use yakiros_core::diagnostic::rules;

/// Links followed on the way to a program, as many as Linux follows.
const LINK_LIMIT: usize = 40;

/// Findings about the programs of a component, as they are below `root`.
pub fn check(component: &Component, source: &str, root: &Path) -> Vec<Diagnostic> {
    let inside = component.isolation.root.as_deref().unwrap_or("/");
    let own_root =
        resolve(root, Path::new(inside)).unwrap_or_else(|| root.join(inside.trim_start_matches('/')));
    let mut findings = Vec::new();
    for (key, program) in programs(component) {
        // A probe is run by the supervisor, outside of the component's root.
        let root = if key == "binary" { &own_root } else { root };
        let rule = match resolve(root, Path::new(program)).map(|path| fs::metadata(path).ok()) {
            Some(Some(meta)) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => continue,
            Some(Some(_)) => &rules::NOT_EXECUTABLE,
            _ => &rules::NO_BINARY,
        };
        let message = format!("{program:?}: {}", rule.title);
        let section = if key == "binary" { "component" } else { "lifecycle" };
        findings.push(match place(source, section, key, None) {
            Some(span) => Diagnostic::at(rule, source, span, message),
            None => Diagnostic::whole_file(rule, message),
        });
    }
    findings
}

/// The programs by the key that names them. What a shell will look for is not known.
fn programs(component: &Component) -> Vec<(&'static str, &str)> {
    let mut programs = vec![("binary", component.binary.as_str())];
    if let Readiness::Command(Command::Direct(words)) = &component.lifecycle.readiness {
        programs.extend(words.first().map(|program| ("readiness_check", program.as_str())));
    }
    if let Some(Check::Command(Command::Direct(words))) =
        component.lifecycle.health.as_ref().map(|h| &h.check)
    {
        programs.extend(words.first().map(|program| ("health_check", program.as_str())));
    }
    // An extension of the kernel has none.
    programs.retain(|(_, program)| !program.is_empty());
    programs
}

/// Where an absolute path leads when `root` is the root directory, links included.
fn resolve(root: &Path, path: &Path) -> Option<PathBuf> {
    let mut links = 0;
    let mut open: Vec<PathBuf> = parts(path);
    let mut inside = PathBuf::new();
    while let Some(part) = open.pop() {
        if part.as_os_str() == ".." {
            inside.pop();
            continue;
        }
        let here = root.join(&inside).join(&part);
        let Ok(target) = fs::read_link(&here) else {
            inside.push(part);
            continue;
        };
        links += 1;
        if links > LINK_LIMIT {
            return None;
        }
        if target.is_absolute() {
            inside.clear();
        }
        open.extend(parts(&target));
    }
    let found = root.join(inside);
    found.exists().then_some(found)
}

/// The names in a path, the last one first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let names = path.components().rev().filter(|part| matches!(part, Part::Normal(_) | Part::ParentDir));
    names.map(|part| PathBuf::from(part.as_os_str())).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_stay_inside_the_root() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("usr/bin")).unwrap();
        fs::write(at("usr/bin/busybox"), "").unwrap();
        symlink("usr/bin", at("bin")).unwrap();
        symlink("/bin/busybox", at("usr/bin/sh")).unwrap();
        symlink("../../../../bin/busybox", at("usr/bin/up")).unwrap();
        symlink("loop", at("usr/bin/loop")).unwrap();
        let busybox = Some(at("usr/bin/busybox"));
        for path in ["/usr/bin/busybox", "/bin/sh", "/bin/up", "//bin/./sh"] {
            assert_eq!(resolve(root.path(), Path::new(path)), busybox, "{path}");
        }
        for path in ["/bin/loop", "/bin/absent", "/etc/passwd"] {
            assert_eq!(resolve(root.path(), Path::new(path)), None, "{path}");
        }
    }
}
