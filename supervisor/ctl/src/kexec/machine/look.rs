//! The first phase: everything that can be known before anything is done.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{self, FsType};
use yakiros_checkpoint::probe::{KEPT, Report, Verdict};
use yakiros_kexec::load::{self, Image};
use yakiros_kexec::machine::checks;
use yakiros_kexec::manifest;
use yakiros_kexec::phases::{Note, Notes};

use super::{Machine, connections, files, said};
use crate::inspect;
use crate::kexec::figures::{self, Load, Size, kilobytes, memory_of};

/// File systems that are in memory.
pub const IN_MEMORY: [FsType; 2] = [statfs::TMPFS_MAGIC, FsType(RAMFS_MAGIC)];
/// `RAMFS_MAGIC` of linux/magic.h: the root that a kernel begins with.
const RAMFS_MAGIC: i64 = 0x8584_58f6;
/// What a service is taken to need for its registers, descriptors and files, in bytes, beside its memory.
const IMAGES_BESIDE: u64 = 1 << 20;

/// Look at everything, and say all that is missing at once.
pub fn validate(machine: &mut Machine<'_>, notes: &mut Notes) -> Result<(), String> {
    for check in checks() {
        notes.check(check);
    }
    let files = files(machine, notes);
    notes.items.push(nothing_else(&machine.base));
    notes.items.push(criu(&machine.wish.criu));
    let images = images(machine, notes);
    if let (Some((kernel, initrd)), Some((images, files))) = (files, images) {
        let packed = machine.packed;
        notes.items.push(memory(&Load { kernel, initrd, images, files, packed }));
        notes.items.push(storage(&machine.wish.dir, images));
        notes.items.push(place(machine));
    }
    notes.verdict()?;
    let found = notes.items.iter().find(|note| note.name == "files");
    notes.detail = found.map_or(String::new(), |note| note.detail.clone());
    Ok(())
}

fn note(name: &str, ok: bool, detail: impl Into<String>, fix: &str) -> Note {
    Note { name: name.to_owned(), ok, detail: detail.into(), fix: (!ok).then(|| fix.to_owned()) }
}

/// Kernel and initrd; gives their lengths.
fn files(machine: &Machine<'_>, notes: &mut Notes) -> Option<(u64, u64)> {
    const FIX: &str = "give the bzImage of a kernel, and the initrd that was made for it";
    let wish = &machine.wish;
    match Image::open(&wish.kernel, wish.initrd.as_deref()) {
        Ok(image) => {
            let header = image.header();
            let release = header.release().unwrap_or("a kernel that does not tell its release").to_owned();
            notes.items.push(note("files", true, format!("{release}, {}", Size(image.bytes())), FIX));
            let (said, most) = (machine.command_line.len() as u64, header.command_line_max);
            let detail = format!("{said} bytes of at most {most}");
            notes.items.push(note("command-line", said <= most, detail, "take some of --append away"));
            let initrd =
                wish.initrd.as_ref().and_then(|path| fs::metadata(path).ok()).map_or(0, |found| found.len());
            Some((image.bytes().saturating_sub(initrd), initrd))
        }
        Err(error) => {
            notes.items.push(note("files", false, error.to_string(), FIX));
            None
        }
    }
}

/// Nothing is there that would be taken for what is made here.
fn nothing_else(base: &Path) -> Note {
    let manifest = base.join(manifest::FILE);
    if load::is_loaded().unwrap_or(false) {
        return note("nothing-else", false, "a kernel is loaded already", "take it back with --unload");
    }
    if manifest.exists() {
        let detail = format!("{} is there already", manifest.display());
        return note(
            "nothing-else",
            false,
            detail,
            "remove it, if nothing is to be restored from it any more",
        );
    }
    note("nothing-else", true, "no kernel is loaded, and no manifest waits", "")
}

fn criu(program: &Path) -> Note {
    let report = Report::required(program, Path::new(KEPT));
    let missing = report.features.iter().find_map(|feature| match &feature.verdict {
        Verdict::Missing { why, help } if feature.required => {
            Some(format!("{}: {why}; {help}", feature.name))
        }
        _ => None,
    });
    let ok = report.is_usable();
    let detail = match (&report.criu, missing) {
        (None, _) => "there is no CRIU".to_owned(),
        (Some(_), Some(missing)) => missing,
        (Some(found), None) => format!("CRIU {} at {}", found.version, found.path.display()),
    };
    note("criu", ok, detail, "see `graphctl checkpoint --check`")
}

/// How much memory the services have, which is what their images hold, and how much is in open files that go along.
fn images(machine: &mut Machine<'_>, notes: &mut Notes) -> Option<(u64, u64)> {
    let services = match machine.running() {
        Ok(running) => running.services,
        Err(failure) => {
            notes.items.push(note(
                "supervisor",
                false,
                said(failure),
                "start it, or name its socket with --socket",
            ));
            return None;
        }
    };
    notes.items.push(connections::note(connections::of(&mut machine.client, &services)));
    let supervisor = machine.client.supervisor().ok()?;
    let own = own_group();
    let (mut bytes, mut along, mut inside, mut lost) = (0_u64, 0_u64, None, Vec::new());
    for service in &services {
        let group = inspect::group_of(service.pid, supervisor, &service.component);
        if group.as_ref().zip(own.as_ref()).is_some_and(|(group, own)| own.starts_with(group)) {
            inside = Some(&service.component);
        }
        bytes = bytes.saturating_add(memory_of(group.as_deref(), service.pid)).saturating_add(IMAGES_BESIDE);
        let files = files::open(group.as_deref(), service.pid);
        along = along.saturating_add(files.bytes);
        lost.extend(files.refusal(machine.packed).map(|why| format!("{}: {why}", service.component)));
    }
    notes.items.push(note(
        "open-files",
        lost.is_empty(),
        if lost.is_empty() { "all go along, or are on a disk".to_owned() } else { lost.join("; ") },
        "have the service close it, or keep it on a disk that the new kernel mounts",
    ));
    let detail = match inside {
        None => format!("{} services, {} of memory", services.len(), Size(bytes)),
        Some(component) => format!("this program runs inside of {component} and cannot write itself down"),
    };
    notes.items.push(note("supervisor", inside.is_none(), detail, "do it from outside of every component"));
    Some((bytes, along))
}

/// The group that this program is in.
fn own_group() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new("/sys/fs/cgroup").join(path))
}

fn memory(load: &Load) -> Note {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = kilobytes(&text, "MemAvailable").unwrap_or_default();
    let detail = format!("{} of {} available are needed", Size(load.memory()), Size(available));
    note("memory", load.memory() <= available, detail, "stop what is large, or add memory")
}

/// Room for the images where they are kept.
fn storage(dir: &Path, images: u64) -> Note {
    const FIX: &str = "make room, as with `graphctl checkpoint-cleanup`";
    match room(dir) {
        Ok(room) => {
            let detail =
                format!("{} of {} free below {} are needed", Size(images), Size(room), dir.display());
            note("storage", images <= room, detail, FIX)
        }
        Err(error) => note("storage", false, format!("{}: {error}", dir.display()), FIX),
    }
}

/// Bytes that may be written at a place, which may not be there yet.
fn room(path: &Path) -> nix::Result<u64> {
    let found = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let status = statfs::statfs(found)?;
    // The kernel's first root counts nothing: it is as large as memory is.
    let counts = status.blocks() > 0;
    let block = u64::try_from(status.block_size()).unwrap_or_default();
    Ok(if counts { status.blocks_available().saturating_mul(block) } else { u64::MAX })
}

/// Whether the new kernel finds what is left for it.
fn place(machine: &Machine<'_>) -> Note {
    let is_in_memory = |path: &Path| {
        let found = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        statfs::statfs(found).is_ok_and(|status| IN_MEMORY.contains(&status.filesystem_type()))
    };
    let base = &machine.base;
    if !machine.packed {
        let dir = &machine.wish.dir;
        let lost = [base, dir].into_iter().find(|path| is_in_memory(path));
        let detail = match lost {
            None => format!("what is kept below {} and {} is on a disk", base.display(), dir.display()),
            Some(path) => format!("{} is in memory and does not outlast the jump", path.display()),
        };
        return note(
            "place",
            lost.is_none(),
            detail,
            "leave yakiros.checkpoint= away, or mount a disk there",
        );
    }
    let fix = "keep it on a disk: --append yakiros.checkpoint=DIR";
    match (figures::other_root(&machine.command_line), &machine.wish.initrd) {
        (Some(root), _) => {
            let detail = format!("the new kernel leaves its initrd for {root}, and what goes along with it");
            note("place", false, detail, fix)
        }
        (None, None) => note("place", false, "there is no initrd that it could go along with", fix),
        (None, Some(_)) => note("place", true, "what is kept goes along with the initrd", fix),
    }
}
