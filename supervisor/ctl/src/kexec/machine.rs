//! The phases on this machine: what is asked of the supervisor, of the store of checkpoints and of the kernel.

mod connections;
mod files;
mod held;
mod look;

use std::ffi::CString;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead as _, BufWriter, Seek as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use yakiros_checkpoint::barrier;
use yakiros_checkpoint::store::{Checkpoint, Id, Store, StoreError};
use yakiros_core::checkpoint::After;
use yakiros_core::control::{Answer, Request};
use yakiros_core::engine::HOLD_LIMIT;
use yakiros_core::journal::State;
use yakiros_kexec::archive::Archive;
use yakiros_kexec::load::{self, Image};
use yakiros_kexec::manifest::{self, Entry, Manifest};
use yakiros_kexec::phases::{Notes, Service, Trace, Work};

use connections::Closed;

use super::figures::{self, Size};
use super::{absolute, kept};
use crate::client::Client;
use crate::clock::rfc3339;
use crate::output::count;
use crate::{Failure, inspect, milliseconds, unexpected};

/// What processes that are held are left of their time when the jump begins: everything else is stopped then.
const HOLD_MARGIN: Duration = Duration::from_secs(15);
/// How long somebody may look at a checkpoint that is to be removed: its maker, who counts those that there are.
const USE_LIMIT: Duration = Duration::from_secs(5);
/// Between two attempts to remove it.
const USE_PAUSE: Duration = Duration::from_millis(20);
/// How what is packed is written at once, in bytes: images are many megabytes.
const BUFFER: usize = 1 << 20;

/// What is wanted.
#[derive(Debug)]
pub struct Wish {
    /// The kernel.
    pub kernel: PathBuf,
    /// What it is to begin with.
    pub initrd: Option<PathBuf>,
    /// What it is told beside what this one was told.
    pub append: String,
    /// For the checkpoint of one component.
    pub limit: Duration,
    /// Where the supervisor keeps checkpoints.
    pub dir: PathBuf,
    /// CRIU, as a path or a name.
    pub criu: PathBuf,
    /// Whether somebody is to be asked before it is done.
    pub ask: bool,
}

/// What lies in the base.
const RECORDS: [&str; 3] = [manifest::FILE, manifest::INFORMATION, barrier::FILE];

/// This machine, on the way.
pub struct Machine<'a> {
    client: Client,
    wish: Wish,
    interrupted: &'a AtomicBool,
    /// Which one it is: manifest and kernel are told so, and belong together by it.
    jump: String,
    /// What the new kernel is told.
    command_line: String,
    /// Where manifest and information lie.
    base: PathBuf,
    /// They and the images go along with the initrd.
    packed: bool,
    /// What the machine is, as it is written down.
    information: String,
    /// Since when processes stand still.
    held: Option<Instant>,
    /// Which, by their components.
    going: Vec<(String, i32)>,
    /// What is to go on.
    services: Vec<Service>,
    /// What they are connected with: nothing arrives there while they stand still.
    closed: Closed,
    /// The checkpoints that were made: nobody removes them meanwhile, for want of room or for their age.
    kept: Vec<Checkpoint>,
    /// Directories that were made on the way, the outermost first.
    made: Vec<PathBuf>,
}

/// What there is to go on.
#[derive(Debug, Default)]
struct Running {
    /// All components that are declared.
    components: usize,
    /// What goes on, in the order in which it is to be written down.
    services: Vec<Service>,
    /// What runs and declares no checkpoints: it is stopped, and started anew.
    anew: Vec<String>,
}

impl<'a> Machine<'a> {
    /// Before anything is done.
    ///
    /// # Errors
    /// Why the jump has no name.
    pub fn new(client: Client, wish: Wish, interrupted: &'a AtomicBool) -> io::Result<Self> {
        let running = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        let jump = manifest::random()?;
        let command_line = figures::command_line(&running, &wish.append, &jump);
        let named = manifest::base(&command_line).map(Path::to_owned);
        let wish = Wish {
            kernel: absolute(&wish.kernel),
            initrd: wish.initrd.as_deref().map(absolute),
            dir: absolute(&wish.dir),
            ..wish
        };
        Ok(Self {
            client,
            wish,
            interrupted,
            jump,
            command_line,
            packed: named.is_none(),
            base: named.unwrap_or_else(|| manifest::BASE.into()),
            information: String::new(),
            held: None,
            going: Vec::new(),
            services: Vec::new(),
            closed: Closed::default(),
            kept: Vec::new(),
            made: Vec::new(),
        })
    }

    /// What runs, by the supervisor.
    fn running(&mut self) -> Result<Running, Failure> {
        let order = kept::priorities(&self.client.graph()?);
        let status = self.client.status(None)?;
        let mut running = Running { components: status.components.len(), ..Running::default() };
        for one in status.components.into_iter().filter(|one| one.state == State::Active) {
            let Some(pid) = one.pid else { continue };
            let component = one.name.to_string();
            if inspect::declaration(&mut self.client, &component)?.component.checkpoint.enabled {
                let priority = order.get(&component).copied().unwrap_or_default();
                running.services.push(Service { component, pid, priority });
            } else {
                running.anew.push(component);
            }
        }
        // Who asks others stands still before those do, so that nobody waits for an answer meanwhile.
        running
            .services
            .sort_by(|one, other| (other.priority, &one.component).cmp(&(one.priority, &other.component)));
        Ok(running)
    }

    /// Make a directory that nobody else can read, and remember what was not there.
    fn make(&mut self, path: &Path) -> io::Result<()> {
        let mut missing: Vec<_> =
            path.ancestors().take_while(|path| !path.exists()).map(Path::to_owned).collect();
        missing.reverse();
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        self.made.extend(missing);
        Ok(())
    }

    /// Remove the directories that were made, as far as they are empty.
    fn unmake(&mut self) {
        while let Some(path) = self.made.last() {
            // What somebody else has put something into stays, and what is around it.
            if fs::remove_dir(path).is_err() && path.exists() {
                return;
            }
            self.made.pop();
        }
    }

    /// The initrd with all that the new kernel is to find, in memory.
    fn pack(&mut self, entries: &[Entry]) -> io::Result<File> {
        let mut file = File::from(memfd_create(c"initrd", MFdFlags::MFD_CLOEXEC)?);
        let mut before = 0;
        if let Some(initrd) = &self.wish.initrd {
            before = io::copy(&mut File::open(initrd)?, &mut file)?;
        }
        let mut archive = Archive::begin(BufWriter::with_capacity(BUFFER, file), before)?;
        let supervisor = self.client.supervisor().ok();
        for Entry { checkpoint_path, component_name, original_pid, .. } in entries {
            archive.tree(checkpoint_path)?;
            // What they have open is as it was written down only as long as nothing writes to it: they stand still.
            let group = supervisor.and_then(|own| inspect::group_of(*original_pid, own, component_name));
            for file in files::open(group.as_deref(), *original_pid).along {
                archive.tree(&file)?;
            }
        }
        let base = Path::new(manifest::BASE);
        for name in RECORDS {
            archive.content(&base.join(name), &fs::read(self.base.join(name))?)?;
        }
        let (out, _) = archive.end()?;
        let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        // The kernel reads no file that is open for writing.
        File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
    }

    /// From now on services stand still, one after the other. What one has sent and another has not got yet waits, as it
    /// does on what those have connected meanwhile that come now.
    fn stand_still(&mut self) -> Result<(), String> {
        self.held.get_or_insert_with(Instant::now);
        let Self { client, services, closed, .. } = self;
        closed.close(|| connections::of(client, services))
    }

    fn write_records(&mut self, entries: &[Entry]) -> io::Result<()> {
        self.make(&self.base.clone())?;
        let mut entries = entries.to_vec();
        entries.sort_by_key(|entry| entry.restore_priority);
        let manifest = Manifest {
            version: manifest::VERSION,
            jump: self.jump.clone(),
            creation_time: chrono::Utc::now().timestamp(),
            old_kernel_version: release(),
            new_kernel_path: Some(self.wish.kernel.clone()),
            initrd_path: self.wish.initrd.clone(),
            cmdline: self.command_line.clone(),
            last_pid: figures::last_pid(),
            entries,
        };
        manifest::write(&self.base.join(manifest::INFORMATION), self.information.as_bytes())?;
        let now = connections::of(&mut self.client, &self.services)?;
        let carried = self.closed.carried(now).map_err(io::Error::other)?;
        manifest::write(&self.base.join(barrier::FILE), &carried.to_bytes())?;
        manifest.write(&self.base.join(manifest::FILE))
    }
}

impl Work for Machine<'_> {
    fn validate(&mut self, notes: &mut Notes) -> Result<(), String> {
        look::validate(self, notes)
    }

    fn inform(&mut self, notes: &mut Notes) -> Result<Vec<Service>, String> {
        let Running { components, services, anew } = self.running().map_err(said)?;
        let name = nix::sys::utsname::uname().map_err(|errno| errno.to_string())?;
        let [host, release, version] =
            [name.nodename(), name.release(), name.version()].map(|text| text.to_string_lossy().into_owned());
        let time = rfc3339(chrono::Utc::now().timestamp_millis());
        let going = services.len();
        let anew_count = anew.len();
        notes.detail = format!(
            "{host}, Linux {release}, {time}: of {components} components {going} go on, {anew_count} are started anew"
        );
        let kernel = self.wish.kernel.display();
        let mut text = format!(
            "time: {time}\nhost: {host}\nkernel: {release} {version}\ncomponents: {components}\nnew kernel: {kernel}\n"
        );
        for Service { component, pid, priority } in &services {
            let detail = format!("process {pid} goes on, in step {priority}");
            // A String takes everything.
            let _ = writeln!(text, "service: {component}, {detail}");
            notes.good(component, detail);
        }
        for component in anew {
            let detail = "it is started anew: it does not declare [checkpoint] enabled = true";
            let _ = writeln!(text, "service: {component}, {detail}");
            notes.good(component, detail);
        }
        self.information = text;
        self.services.clone_from(&services);
        Ok(services)
    }

    fn agree(&mut self, services: &[Service]) -> Result<(), String> {
        if !self.wish.ask {
            return Ok(());
        }
        eprint!(
            "{} services go on under {}; everything else is stopped. Write yes to go on: ",
            services.len(),
            self.wish.kernel.display()
        );
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer);
        match read {
            Ok(_) if answer.trim() == "yes" => Ok(()),
            Ok(_) => Err("it was not confirmed".to_owned()),
            Err(error) => Err(format!("nobody could be asked: {error}")),
        }
    }

    fn checkpoint(
        &mut self,
        services: &[Service],
        hold: bool,
        notes: &mut Notes,
    ) -> Vec<Result<Entry, String>> {
        let dir = self.wish.dir.clone();
        if let Err(error) = self.make(&dir) {
            return vec![Err(format!("{}: {error}", dir.display()))];
        }
        if hold {
            if let Err(why) = self.stand_still() {
                return vec![Err(why)];
            }
            self.going.extend(services.iter().map(|one| (one.component.clone(), one.pid)));
        }
        let limit = self.wish.limit;
        let written: Vec<_> = thread::scope(|scope| {
            let ask = |service| {
                // Each answer comes when that one is done.
                let client = self.client.another();
                scope.spawn(move || write_down(client, service, hold, limit))
            };
            let asked: Vec<_> = services.iter().map(ask).collect();
            asked
                .into_iter()
                .map(|one| one.join().unwrap_or_else(|_| Err("asking for it failed".to_owned())))
                .collect()
        });
        let entries = services.iter().zip(written).map(|(service, written)| {
            let about = |error: String| format!("{}: {error}", service.component);
            let (entry, checkpoint) =
                written.and_then(|written| entry(&dir, service, &written, notes)).map_err(about)?;
            self.kept.push(checkpoint);
            Ok(entry)
        });
        let entries = entries.collect();
        notes.detail = format!("{} written down", count(notes.items.len(), "service"));
        entries
    }

    fn verify(&mut self, entry: &Entry, notes: &mut Notes) -> Result<(), String> {
        let about = |error: &dyn std::fmt::Display| format!("{}: {error}", entry.component_name);
        let id: Id = entry.checkpoint_id.parse().map_err(|error| about(&error))?;
        let store = Store::open(&self.wish.dir).map_err(|error| about(&error))?;
        let checkpoint = store.find(&entry.component_name, Some(&id)).map_err(|error| about(&error))?;
        let metadata = checkpoint.verify().map_err(|error| about(&error))?;
        if metadata.original_pid != entry.original_pid {
            return Err(about(&format!(
                "it is of process {}, and {} ran",
                metadata.original_pid, entry.original_pid
            )));
        }
        let images = metadata.images.len();
        notes.good(&entry.component_name, format!("{images} images, {}", Size(metadata.image_size)));
        notes.detail =
            format!("every byte of {} is as it was written", count(notes.items.len(), "checkpoint"));
        Ok(())
    }

    fn persist(&mut self, entries: &[Entry], notes: &mut Notes) -> Result<(), String> {
        let path = self.base.join(manifest::FILE);
        self.write_records(entries).map_err(|error| format!("{}: {error}", path.display()))?;
        notes.detail = format!("{} is on the disk", path.display());
        Ok(())
    }

    fn load(&mut self, entries: &[Entry], notes: &mut Notes) -> Result<(), String> {
        let packed = if self.packed {
            Some(self.pack(entries).map_err(|error| format!("failed to pack what goes along: {error}"))?)
        } else {
            None
        };
        let place = packed.as_ref().map(|file| PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())));
        let initrd = place.as_deref().or(self.wish.initrd.as_deref());
        let image = Image::open(&self.wish.kernel, initrd).map_err(|error| error.to_string())?;
        let command_line = CString::new(self.command_line.as_str()).map_err(|error| error.to_string())?;
        let loaded = image.load(&command_line).map_err(|error| error.to_string())?;
        if !load::is_loaded().map_err(|error| error.to_string())? {
            return Err("the kernel took it and says that none is loaded".to_owned());
        }
        let release = loaded.release.unwrap_or_else(|| "a kernel that does not tell its release".to_owned());
        let along = if self.packed { ", checkpoints included" } else { "" };
        notes.detail = format!("{release}, {}{along}", Size(loaded.bytes));
        Ok(())
    }

    fn execute(&mut self, notes: &mut Notes) -> Result<(), String> {
        nix::unistd::sync();
        let held = self.held.map_or(Duration::ZERO, |since| since.elapsed());
        if held + HOLD_MARGIN > HOLD_LIMIT {
            return Err(format!(
                "the processes have stood still for {} s, and go on by themselves after {} s",
                held.as_secs(),
                HOLD_LIMIT.as_secs()
            ));
        }
        // The one for all of this has had nothing to say for as long as it took to write and to load.
        let mut client = self.client.another();
        held::all_held(&client.status(None).map_err(said)?.components, &self.going)?;
        self.closed.close_for_good()?;
        match client.ask(Request::Kexec, Duration::ZERO).map_err(|error| error.to_string())? {
            Answer::Done { message, .. } => {
                notes.detail = message;
                Ok(())
            }
            other => Err(said(unexpected(other))),
        }
    }

    fn take_back(&mut self, trace: &Trace) -> Result<(), String> {
        match trace {
            Trace::Kernel => load::unload().map_err(|error| error.to_string()),
            Trace::Records => {
                for name in RECORDS {
                    remove(&self.base.join(name))?;
                }
                self.unmake();
                Ok(())
            }
            Trace::Checkpoint(Entry { component_name, checkpoint_id, .. }) => {
                let id: Id = checkpoint_id.parse().map_err(|error| format!("{checkpoint_id}: {error}"))?;
                self.kept.retain(|one| *one.id() != id);
                remove_checkpoint(&self.wish.dir, component_name, &id)?;
                self.unmake();
                Ok(())
            }
            Trace::Held => {
                let gone_on = match self.client.another().ask(Request::Continue, Duration::ZERO) {
                    Ok(Answer::Done { .. }) => Ok(()),
                    Ok(other) => Err(said(unexpected(other))),
                    Err(error) => Err(error.to_string()),
                };
                let open = connections::open(&mut self.closed);
                gone_on.and(open)
            }
        }
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

/// What is told of a checkpoint, in a form that goes from thread to thread.
struct Written {
    id: Id,
    bytes: u64,
    frozen_us: Option<u64>,
}

/// Have the supervisor write one down.
fn write_down(mut client: Client, service: &Service, hold: bool, limit: Duration) -> Result<Written, String> {
    let after = if hold { After::Hold } else { After::Run };
    let timeout_ms = Some(milliseconds(limit));
    let request = Request::Checkpoint { name: service.component.clone(), after, timeout_ms };
    match client.ask(request, limit).map_err(|error| error.to_string())? {
        Answer::Checkpointed { written, .. } => {
            let id = written.id.parse().map_err(|error: <Id as std::str::FromStr>::Err| error.to_string())?;
            Ok(Written { id, bytes: written.bytes, frozen_us: written.frozen_us })
        }
        other => Err(said(unexpected(other))),
    }
}

/// What the manifest says of one that was written down.
fn entry(
    dir: &Path,
    service: &Service,
    written: &Written,
    notes: &mut Notes,
) -> Result<(Entry, Checkpoint), String> {
    let (Service { component, pid, priority }, Written { id, bytes, frozen_us }) = (service, written);
    let checkpoint = held::below(dir, component, id)?;
    let frozen = frozen_us.map_or(String::new(), |us| format!(", stood still for {} ms", us / 1000));
    notes.good(component, format!("{}{frozen}", Size(*bytes)));
    let entry = Entry {
        component_name: component.clone(),
        checkpoint_id: id.to_string(),
        checkpoint_path: dir.join(component).join(id.as_str()),
        original_pid: *pid,
        timestamp: chrono::Utc::now().timestamp(),
        restore_priority: *priority,
    };
    Ok((entry, checkpoint))
}

/// Release of the running kernel.
pub fn release() -> String {
    nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default()
}

/// Remove a checkpoint. Who has made it may still look at it.
fn remove_checkpoint(base: &Path, component: &str, id: &Id) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        match Store::open(base).and_then(|store| store.remove(component, id)) {
            Ok(()) | Err(StoreError::Absent { .. }) => return Ok(()),
            Err(StoreError::InUse(_)) if begun.elapsed() < USE_LIMIT => thread::sleep(USE_PAUSE),
            Err(error) => return Err(error.to_string()),
        }
    }
}

fn remove(path: &Path) -> Result<(), String> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(format!("{}: {error}", path.display())),
        _ => Ok(()),
    }
}

/// What an error says, without its code.
fn said(failure: Failure) -> String {
    failure.parts().1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_that_somebody_looks_at_is_removed_when_that_is_over() {
        let base = tempfile::tempdir().expect("a folder");
        let id: Id = "20261122T081530.123456Z-9f3a61c2".parse().expect("a name");
        fs::create_dir_all(base.path().join("web").join(id.as_str())).expect("a folder");
        let store = Store::open(base.path()).expect("a store");
        let looked_at = store.find("web", Some(&id)).expect("a checkpoint");
        let over = Duration::from_millis(200);
        let other = thread::spawn(move || {
            thread::sleep(over);
            drop(looked_at);
        });
        let begun = Instant::now();
        remove_checkpoint(base.path(), "web", &id).expect("removed");
        assert!(begun.elapsed() >= over && !base.path().join("web").exists());
        other.join().expect("the other");
        remove_checkpoint(base.path(), "web", &id).expect("nothing is left to remove");
    }
}
