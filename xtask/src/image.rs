//! `cargo xtask image`.

use clap::Subcommand;
use yakiros_harness::progress::Preparation;
use yakiros_reports::{EXIT_FAILED, EXIT_INFRA, EXIT_PASSED};
use yakiros_vm::cache::{Cache, EntryStatus, Removal};
use yakiros_vm::image::{self, ImageError, ImageRequest, Kernel, human_bytes};
use yakiros_vm::provision::{QemuChoice, provision_qemu};

#[derive(Subcommand)]
pub enum Command {
    /// Fetch and build what is missing, for both kernels, so that later runs need no network
    Build,
    /// What is in the cache, with versions
    List,
    /// Hash everything in the cache
    Verify,
    /// The folder of the cache
    Path,
    /// Remove everything that no run is using
    Clean,
}

pub fn run(command: &Command) -> i32 {
    match act(command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            EXIT_INFRA
        }
    }
}

fn act(command: &Command) -> Result<i32, ImageError> {
    let cache = Cache::from_env()?;
    let progress = Preparation::default();
    match command {
        Command::Build => {
            for kernel in [Kernel::Alpine, Kernel::Debian] {
                let request = ImageRequest { kernel, ..ImageRequest::default() };
                let mut image = image::prepare(&cache, &request, &progress)?;
                image.daemons(&cache, &progress)?;
                println!("{kernel}: kernel {}", image.kernel_release);
            }
            let qemu = provision_qemu(&cache, &QemuChoice::from_env(), &progress)?;
            println!("QEMU {}, {}", qemu.version, qemu.origin);
            Ok(EXIT_PASSED)
        }
        Command::List => {
            let entries = image::list(&cache)?;
            print(&entries);
            Ok(EXIT_PASSED)
        }
        Command::Verify => {
            let entries = image::verify(&cache, &progress)?;
            print(&entries);
            let sound = entries.iter().all(|entry| entry.damage.is_none());
            Ok(if sound { EXIT_PASSED } else { EXIT_FAILED })
        }
        Command::Path => {
            println!("{}", cache.root().display());
            Ok(EXIT_PASSED)
        }
        Command::Clean => {
            for (entry, removal) in image::clean(&cache)? {
                match removal {
                    Removal::Removed => println!("removed {} ({})", entry.name, human_bytes(entry.bytes)),
                    Removal::InUse => println!("kept {}: a run is using it", entry.name),
                }
            }
            Ok(EXIT_PASSED)
        }
    }
}

fn print(entries: &[EntryStatus]) {
    for entry in entries {
        let state =
            entry.damage.as_deref().map_or_else(|| "good".into(), |damage| format!("DAMAGED: {damage}"));
        println!("{} ({}): {state}", entry.name, human_bytes(entry.bytes));
        for record in &entry.records {
            println!("  {} {} [{}] sha256 {}", record.name, record.version, record.origin, record.sha256);
        }
    }
}
