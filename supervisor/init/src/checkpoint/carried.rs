//! What a supervisor on the kernel before this one has written down, to go on here.
//!
//! It is read once, before any component is declared, and put aside: the next boot begins anew.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::Deserialize;
use tracing::{info, warn};
use yakiros_core::checkpoint::Origin;
use yakiros_core::engine::Event;

use crate::supervisor::Supervisor;
use crate::{machine, sys};

/// Where it is if the kernel's command line says nothing of it.
const BASE: &str = "/checkpoint";

/// Says where, on the kernel's command line.
const ARGUMENT: &str = "yakiros.checkpoint=";

/// Its name there, and what it is called when it was read.
const FILE: &str = "manifest.json";
const USED: &str = "manifest.json.used";

/// The version that is read.
const VERSION: u32 = 1;

/// Write permission of the group or of others.
const OTHERS_WRITE: u32 = 0o022;

/// What is needed of it.
#[derive(Deserialize)]
struct Manifest {
    version: u32,
    /// What is started here gets its number after this one, so that those that go on find theirs free.
    #[serde(default)]
    last_pid: i32,
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    component_name: Rc<str>,
    checkpoint_id: Rc<str>,
    checkpoint_path: PathBuf,
}

/// Have the engine know what was carried over to this kernel, if anything was.
pub fn take(supervisor: &Rc<Supervisor>) {
    if !machine::is_whole_machine() {
        return;
    }
    let line = sys::read_small(Path::new("/proc/cmdline")).unwrap_or_default();
    let path = place(&line);
    match read(&path) {
        Ok(Manifest { last_pid, entries, .. }) => {
            if let Err(error) = machine::begin_after(Path::new(machine::LAST_NUMBER), last_pid) {
                warn!("numbers that processes had may be taken: {error}");
            }
            info!("{} components go on as they were under the kernel before this one", entries.len());
            let all = entries.iter().map(|entry| {
                (Rc::clone(&entry.component_name), Origin { id: Some(Rc::clone(&entry.checkpoint_id)) })
            });
            let event = Event::Carried(all.collect());
            let bases = entries.into_iter().filter_map(|entry| {
                // Above it are its component's directory, and the store.
                let base = entry.checkpoint_path.parent()?.parent()?.to_owned();
                Some((entry.checkpoint_id, base))
            });
            supervisor.checkpoints.elsewhere.borrow_mut().extend(bases);
            supervisor.dispatch(event);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => warn!("nothing goes on from before this kernel: {}: {error}", path.display()),
    }
    if let Err(error) = fs::rename(&path, path.with_file_name(USED)) {
        warn!("{} cannot be put aside, and counts for the next boot, too: {error}", path.display());
    }
}

/// Where the manifest is by the kernel's command line.
fn place(line: &str) -> PathBuf {
    let said = line.split_whitespace().filter_map(|word| word.strip_prefix(ARGUMENT)).next_back();
    Path::new(said.filter(|base| !base.is_empty()).unwrap_or(BASE)).join(FILE)
}

fn read(path: &Path) -> io::Result<Manifest> {
    let status = fs::symlink_metadata(path)?;
    let own = nix::unistd::geteuid().as_raw();
    if !status.is_file() || status.uid() != own || status.mode() & OTHERS_WRITE != 0 {
        return Err(io::Error::other("it is not the supervisor's own file, or others may write to it"));
    }
    let text = sys::read_small(path)?;
    let manifest: Manifest = serde_json::from_str(&text)?;
    if manifest.version != VERSION {
        let version = manifest.version;
        return Err(io::Error::other(format!("it has version {version}; {VERSION} is read here")));
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_place_is_the_last_that_the_kernel_was_told() {
        for (line, expected) in [
            ("quiet console=ttyS0\n", "/checkpoint/manifest.json"),
            ("yakiros.checkpoint=/mnt/jump quiet", "/mnt/jump/manifest.json"),
            ("yakiros.checkpoint=/a yakiros.checkpoint=/b\n", "/b/manifest.json"),
            ("yakiros.checkpoint=", "/checkpoint/manifest.json"),
        ] {
            assert_eq!(place(line), Path::new(expected), "{line}");
        }
    }

    #[test]
    fn what_others_could_have_written_is_not_believed() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let path = folder.path().join(FILE);
        let missing = read(&path).err().expect("none");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let entry =
            r#"{"component_name":"web","checkpoint_id":"7","checkpoint_path":"/s/web/7","original_pid":9}"#;
        let write = |version: u32, mode: u32| {
            fs::write(
                &path,
                format!(r#"{{"version":{version},"cmdline":"","last_pid":5020,"entries":[{entry}]}}"#),
            )
            .expect("file");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode");
            read(&path)
        };
        let Manifest { last_pid, entries, .. } = write(1, 0o600).expect("a manifest");
        assert_eq!(last_pid, 5020);
        assert_eq!((&*entries[0].component_name, &*entries[0].checkpoint_id), ("web", "7"));
        assert_eq!(entries[0].checkpoint_path.parent().and_then(Path::parent), Some(Path::new("/s")));
        assert!(write(2, 0o600).is_err());
        assert!(write(1, 0o662).is_err());
        fs::write(&path, "{").expect("file");
        assert!(read(&path).is_err());
    }
}
