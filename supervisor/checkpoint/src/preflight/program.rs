//! Whether a process executes the file that now has the name by which it was executed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::read::folder_of;

/// The entry of the auxiliary vector with the address of the name by which a program was executed (getauxval(3)).
const EXECFN: usize = 31;
/// Most bytes of that vector: the kernel's own has some twenty entries.
const VECTOR_LIMIT: u64 = 4096;
/// Most bytes of a path.
const PATH_LIMIT: usize = 4096;
/// Most bytes of the first line of a script that the kernel looks at.
const LINE_LIMIT: u64 = 256;

/// Whether the file with the name `program`, by which this process was executed, is another one now. Of a script that is
/// its interpreter. It is not if the process was executed by another name, as what a wrapper ends in is, or if that cannot
/// be found out.
pub fn is_replaced(pid: i32, program: &Path) -> bool {
    let folder = folder_of(pid);
    if !executed_as(&folder).is_ok_and(|name| name == program) {
        return false;
    }
    let Ok(running) = fs::metadata(folder.join("exe")) else { return false };
    let is_it = |path: &Path| {
        fs::metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == (running.dev(), running.ino()))
    };
    !is_it(program) && !interpreter(program).is_some_and(|interpreter| is_it(&interpreter))
}

/// The name that was given to execve(2).
fn executed_as(folder: &Path) -> io::Result<PathBuf> {
    let mut vector = Vec::new();
    File::open(folder.join("auxv"))?.take(VECTOR_LIMIT).read_to_end(&mut vector)?;
    let mut words = vector.chunks_exact(size_of::<usize>()).map(|word| {
        let mut bytes = [0; size_of::<usize>()];
        bytes.copy_from_slice(word);
        usize::from_ne_bytes(bytes)
    });
    let address = loop {
        match (words.next(), words.next()) {
            (Some(EXECFN), Some(address)) => break address as u64,
            (Some(_), Some(_)) => {}
            _ => return Err(io::ErrorKind::NotFound.into()),
        }
    };
    // It may be cut off by the end of the memory.
    let mut name = vec![0; PATH_LIMIT];
    let count = File::open(folder.join("mem"))?.read_at(&mut name, address)?;
    let end = name[..count].iter().position(|byte| *byte == 0).ok_or(io::ErrorKind::InvalidData)?;
    Ok(OsStr::from_bytes(&name[..end]).into())
}

/// What the first line of a script names.
fn interpreter(script: &Path) -> Option<PathBuf> {
    let mut head = Vec::new();
    File::open(script).ok()?.take(LINE_LIMIT).read_to_end(&mut head).ok()?;
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    words.next().map(|path| OsStr::from_bytes(path).into())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// Executed by this path, and past execve.
    fn started(program: &Path) -> Child {
        let mut child = Command::new(program);
        let child = child.arg("1000000").stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = child.spawn().expect("it is executed");
        let folder = folder_of(i32::try_from(child.id()).expect("a number"));
        // The kernel lets who started it go on before all of that is there.
        while !executed_as(&folder).is_ok_and(|name| name == program) {
            std::thread::yield_now();
        }
        child
    }

    fn of(child: &Child, program: &Path) -> bool {
        is_replaced(i32::try_from(child.id()).expect("a number"), program)
    }

    fn end(mut child: Child) {
        child.kill().and_then(|()| child.wait()).expect("it ends");
    }

    #[test]
    fn a_program_that_was_replaced_is_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let (sleep, next) = (directory.path().join("sleep"), directory.path().join("next"));
        fs::copy("/bin/sleep", &sleep).expect("a copy");
        let child = started(&sleep);
        assert!(!of(&child, &sleep));
        assert!(!of(&child, Path::new("/bin/sleep")), "it was not executed by that name");
        fs::copy("/bin/sleep", &next).and_then(|_| fs::rename(&next, &sleep)).expect("it is replaced");
        assert!(of(&child, &sleep));
        fs::remove_file(&sleep).expect("it is there");
        assert!(of(&child, &sleep));
        end(child);
    }

    #[test]
    fn links_are_followed_and_of_scripts_it_is_the_interpreter() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        fs::copy("/bin/sleep", at("one")).and_then(|_| fs::copy("/bin/sleep", at("two"))).expect("copies");
        std::os::unix::fs::symlink("one", at("link")).expect("a link");
        let child = started(&at("link"));
        assert!(!of(&child, &at("link")));
        fs::remove_file(at("link")).expect("it is there");
        std::os::unix::fs::symlink("two", at("link")).expect("a link");
        assert!(of(&child, &at("link")), "it leads elsewhere");
        end(child);
        fs::write(at("script"), "#! /bin/sh\necho\nread line\n").expect("a script");
        fs::set_permissions(at("script"), fs::Permissions::from_mode(0o755)).expect("it is there");
        let mut child = started(&at("script"));
        // Then it has read all of it.
        child.stdout.as_mut().expect("a pipe").read_exact(&mut [0]).expect("a line");
        assert!(!of(&child, &at("script")));
        fs::write(at("script"), "#!/bin/cat\n").expect("a script");
        assert!(of(&child, &at("script")), "another interpreter");
        end(child);
        fs::write(at("wrapper"), "#!/bin/sh\nread line\nexec sleep 1000000\n").expect("a script");
        fs::set_permissions(at("wrapper"), fs::Permissions::from_mode(0o755)).expect("it is there");
        let mut child = started(&at("wrapper"));
        child.stdin.as_mut().expect("a pipe").write_all(b"\n").expect("it reads");
        let comm = format!("/proc/{}/comm", child.id());
        while fs::read_to_string(&comm).expect("a process") != "sleep\n" {
            std::thread::yield_now();
        }
        assert!(!of(&child, &at("wrapper")), "it has executed something else since");
        end(child);
    }
}
