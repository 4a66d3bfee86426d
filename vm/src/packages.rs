//! Whole programs of Debian, unpacked with all that they depend on, for whoever compares with them.
//!
//! Nothing is installed: packages come through a private apt and lie in the cache. Owners are lost and no maintainer
//! script runs, so this serves programs that need neither.

use std::path::PathBuf;

use crate::artifacts::ArtifactRecord;
use crate::cache::{Built, Cache, Entry, Workspace};
use crate::debian::{self, Apt, Suite};
use crate::fetch::hash_bytes;
use crate::image::{ImageError, KEY_LEN, Progress};

const DOING: &str = "fetch a program from Debian";
const INSTEAD: &str = "leave it out";
/// Part of the key: raise it when what is kept changes.
const REVISION: u32 = 1;

/// An unpacked program. It stays in the cache as long as this value lives.
#[derive(Debug)]
pub struct Unpacked {
    /// The folder that holds `usr` and so on.
    pub root: PathBuf,
    /// The version of the first package that was asked for.
    pub version: String,
    /// It and all that it depends on.
    pub records: Vec<ArtifactRecord>,
    _lease: Entry,
}

/// Fetches `packages` of this system's release, and all that they depend on. The version is the first one's.
pub fn unpacked(cache: &Cache, packages: &[&str], progress: &dyn Progress) -> Result<Unpacked, ImageError> {
    let key = hash_bytes(format!("{REVISION} {packages:?}").as_bytes());
    let name = format!("debian-program-{}", &key[..KEY_LEN]);
    let entry = cache.entry(&name, progress, &|space| unpack(packages, space, progress))?;
    Ok(Unpacked {
        root: entry.path(""),
        version: entry.note("version").to_owned(),
        records: entry.records().to_vec(),
        _lease: entry,
    })
}

fn unpack(packages: &[&str], space: &Workspace, progress: &dyn Progress) -> Result<Built, ImageError> {
    let apt = Apt::open(Suite::System, &space.work, DOING, INSTEAD, progress)?;
    let debs = apt.fetch(&apt.closure(packages)?, &space.work.join("debs"))?;
    for deb in &debs {
        debian::unpack(&deb.path, &space.out, DOING, progress)?;
    }
    let mut built = Built { records: debs.into_iter().map(|deb| deb.record).collect(), ..Built::default() };
    let version = built
        .records
        .iter()
        .find(|record| packages.first() == Some(&record.name.as_str()))
        .map(|record| record.version.clone());
    built.notes.insert("version".into(), version.unwrap_or_default());
    Ok(built)
}
