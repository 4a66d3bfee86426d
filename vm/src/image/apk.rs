//! Reads Alpine's package index and its packages, format version 2.
//!
//! A package is three gzip members in a row: signature, control, data; together they unpack to one tar archive. The
//! index holds the SHA-1 of the packed control member, and that holds the SHA-256 of the packed data member: what
//! [`unpack`] returns has passed both. Signatures are not checked.

use std::fs;
use std::io::Read;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::bufread::GzDecoder;
use flate2::read::MultiGzDecoder;
use sha1::{Digest, Sha1};

use super::{ImageError, ImageErrorKind};
use crate::cpio::LayerBuilder;
use crate::fetch::{hash_bytes, hex};
use crate::image::IoContext;
use crate::rootfs;

/// Largest unpacked index accepted; that of Alpine's main repository has 3 MB.
const MAX_INDEX: u64 = 64 << 20;
/// Largest unpacked control member accepted; real ones have some kilobytes.
const MAX_CONTROL: u64 = 16 << 20;
/// The index marks its only kind of checksum so: SHA-1, in base64.
const CHECKSUM_KIND: &str = "Q1";

/// A package as the index announces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Announced {
    pub version: String,
    /// Size of the package in bytes.
    pub size: u64,
    /// SHA-1 of the packed control member, in hex.
    control: String,
}

/// Finds the package `name` in the packed index `bytes`; `origin` is named in errors.
pub(super) fn find(doing: &str, name: &str, bytes: &[u8], origin: &Path) -> Result<Announced, ImageError> {
    let bad = |reason: String| ImageError::format(doing, origin, reason);
    let plain = MultiGzDecoder::new(bytes).take(MAX_INDEX);
    let text = tar_member(plain, "APKINDEX").map_err(&bad)?;
    let field = |block: &str, key: &str| {
        let mut values = block.lines().filter_map(|line| line.split_once(':'));
        values.find(|(found, _)| *found == key).map(|(_, value)| value.to_owned())
    };
    let named = |block: &&str| field(block, "P").as_deref() == Some(name);
    let block = text.split("\n\n").find(named).ok_or_else(|| bad(format!("it lists no package {name}")))?;
    let need = |key| field(block, key).ok_or_else(|| bad(format!("{name} has no field {key}")));
    let (version, size, checksum) = (need("V")?, need("S")?, need("C")?);
    let unsound = |what: &str, value: &str| bad(format!("{what} {value:?} of {name} is not understood"));
    let control = checksum.strip_prefix(CHECKSUM_KIND).and_then(|text| STANDARD.decode(text).ok());
    Ok(Announced {
        size: size.parse().map_err(|_| unsound("size", &size))?,
        control: hex(&control.ok_or_else(|| unsound("checksum", &checksum))?),
        version: Some(version.clone())
            .filter(|version| is_version(version))
            .ok_or_else(|| unsound("version", &version))?,
    })
}

/// Whether `text` can be a version, and so a part of a file's name on a mirror.
pub(super) fn is_version(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+~".contains(&b))
}

/// The files of the package at `path`, checked against what was announced.
pub(super) fn unpack(doing: &str, path: &Path, announced: &Announced) -> Result<LayerBuilder, ImageError> {
    let bytes = fs::read(path).at(doing, path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let expected = announced.size;
    let found = bytes.len() as u64;
    if found < expected {
        let kind = ImageErrorKind::Truncated { name: name.into(), expected, found };
        return Err(ImageError::new(doing, kind));
    }
    let compare = |part: &str, algorithm, expected: &str, found: String| {
        if expected == found {
            return Ok(());
        }
        let name = format!("{part} of {name}");
        let kind = ImageErrorKind::Hash { name, algorithm, expected: expected.into(), found };
        Err(ImageError::new(doing, kind))
    };
    let bad = |reason: String| ImageError::format(doing, path, reason);
    let (control, data) = split(&bytes).map_err(&bad)?;
    compare("the description", "sha1", &announced.control, hex(&Sha1::digest(control)))?;
    let info = tar_member(GzDecoder::new(control).take(MAX_CONTROL), ".PKGINFO").map_err(&bad)?;
    let mut values = info.lines().filter_map(|line| line.split_once('='));
    let data_hash = values.find(|(key, _)| key.trim() == "datahash").map(|(_, value)| value.trim());
    let data_hash = data_hash.ok_or_else(|| bad("its description holds no hash of its files".into()))?;
    compare("the content", "sha256", data_hash, hash_bytes(data))?;
    rootfs::load_tar(path, MultiGzDecoder::new(data))
}

/// The packed control member, and the packed data that follow it.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let (_signature, rest) = member(bytes)?;
    let (control, data) = member(rest)?;
    if data.is_empty() {
        return Err("it has two parts: no signed package of format version 2".into());
    }
    Ok((control, data))
}

/// The first gzip member of `bytes`, and what follows it.
fn member(bytes: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let mut decoder = GzDecoder::new(bytes).take(MAX_CONTROL);
    let size = std::io::copy(&mut decoder, &mut std::io::sink()).map_err(|e| format!("no package: {e}"))?;
    if size == MAX_CONTROL {
        return Err("its description is too large".into());
    }
    let rest = decoder.into_inner().into_inner();
    Ok(bytes.split_at(bytes.len() - rest.len()))
}

/// The text of `name` in a tar archive.
fn tar_member(archive: impl Read, name: &str) -> Result<String, String> {
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().map_err(|e| e.to_string())? {
        let mut entry = entry.map_err(|e| e.to_string())?;
        if *entry.path_bytes() == *name.as_bytes() {
            let mut text = String::new();
            entry.read_to_string(&mut text).map_err(|e| format!("{name}: {e}"))?;
            return Ok(text);
        }
    }
    Err(format!("it holds no {name}"))
}
