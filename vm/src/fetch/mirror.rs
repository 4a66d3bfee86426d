//! Files from a mirror that the user names: a directory, or a server that is asked by HTTP.
//!
//! Guarantees: each file has a limit in bytes and in time, progress is reported, and a file that does not exist is
//! told apart from all other failures. What is fetched is for the caller to check.
//!
//! The client is built in, unlike pip and apt: nothing on a host is sure to fetch a file, `curl` and `wget` report
//! failures in ways of their own, and this one needs nothing of the system. It trusts the host's certificates, and
//! honours `http_proxy`, `https_proxy` and `no_proxy`, as the others do.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

use crate::image::{ImageError, ImageErrorKind, IoContext, Progress, human_bytes};

/// For name, connection and answer together: a server that needs longer is as good as down.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// Slowest line that is waited for, 1 Mbit/s: gives the time limit of a body by its size.
const SLOWEST: u64 = 1_000_000 / 8;
/// Bytes between two reports of progress, and the largest read.
const CHUNK: usize = 64 << 10;
const FIX: &str = "name the folder of the mirror that holds its branches";

/// A mirror. Paths on it are relative to its base and use `/`.
#[derive(Debug)]
pub(crate) struct Mirror {
    base: Base,
}

#[derive(Debug)]
enum Base {
    Dir(PathBuf),
    Server(String),
}

impl Mirror {
    /// The mirror at `text`: `http://…`, `https://…`, `file:///…` or a directory.
    pub(crate) fn parse(text: &str) -> Result<Self, ImageError> {
        let doing = "use the mirror";
        let lower = text.to_ascii_lowercase();
        let base = if lower.starts_with("http://") || lower.starts_with("https://") {
            Base::Server(text.trim_end_matches('/').to_owned())
        } else {
            let dir = match text.split_once("://") {
                Some((scheme, rest)) if scheme.eq_ignore_ascii_case("file") && rest.starts_with('/') => rest,
                Some(_) => {
                    let reason = format!("{text:?} is no address of a mirror");
                    let fix = "give http://, https://, file:/// with a full path, or a directory";
                    return Err(ImageError::unsupported(doing, reason, fix));
                }
                None => text,
            };
            // The cache's entry is named after it, whatever directory the next run starts in.
            let dir = std::path::absolute(dir).at(doing, Path::new(dir))?;
            Base::Dir(dir.components().collect())
        };
        Ok(Self { base })
    }

    /// Address of the file at `path`.
    pub(crate) fn url(&self, path: &str) -> String {
        match &self.base {
            Base::Dir(dir) => dir.join(path).display().to_string(),
            Base::Server(base) => format!("{base}/{path}"),
        }
    }

    /// The file at `path`, which is small: at most `limit` bytes.
    pub(crate) fn read(&self, doing: &str, path: &str, limit: u64) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        self.transfer(doing, path, limit, &mut |chunk| {
            bytes.extend_from_slice(chunk);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Brings the file at `path` to `to`: at most `limit` bytes, of which `total` are announced.
    pub(crate) fn fetch(
        &self,
        doing: &str,
        path: &str,
        to: &Path,
        (limit, total): (u64, Option<u64>),
        progress: &dyn Progress,
    ) -> Result<(), ImageError> {
        let label = path.rsplit('/').next().unwrap_or(path);
        let mut file = File::create(to).at(doing, to)?;
        let mut done = 0;
        let result = self.transfer(doing, path, limit, &mut |chunk| {
            file.write_all(chunk).at(doing, to)?;
            done += chunk.len() as u64;
            progress.bytes(label, done, total);
            Ok(())
        });
        progress.done();
        result
    }

    fn transfer(
        &self,
        doing: &str,
        path: &str,
        limit: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        let url = self.url(path);
        let failed =
            |reason: String| ImageError::new(doing, ImageErrorKind::Transfer { url: url.clone(), reason });
        let mut from = match &self.base {
            Base::Dir(_) => open_file(doing, &url)?,
            Base::Server(_) => request(doing, &url, limit)?,
        };
        let mut buffer = vec![0; CHUNK];
        let mut done = 0;
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(failed(format!("after {}: {e}", human_bytes(done)))),
            };
            done += count as u64;
            if done > limit {
                return Err(failed(format!("it has more than {}", human_bytes(limit))));
            }
            take(&buffer[..count])?;
        }
    }
}

fn open_file(doing: &str, path: &str) -> Result<Box<dyn Read>, ImageError> {
    match File::open(path) {
        Ok(file) => Ok(Box::new(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(not_found(doing, path)),
        Err(e) => Err(ImageError::io(doing, Path::new(path), e)),
    }
}

fn request(doing: &str, url: &str, limit: u64) -> Result<Box<dyn Read>, ImageError> {
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .timeout_global(Some(ANSWER_LIMIT + Duration::from_secs(limit / SLOWEST)))
        .timeout_resolve(Some(ANSWER_LIMIT))
        .timeout_connect(Some(ANSWER_LIMIT))
        .timeout_recv_response(Some(ANSWER_LIMIT))
        .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
        .build();
    match Agent::new_with_config(config).get(url).call() {
        Ok(response) => Ok(Box::new(response.into_body().into_reader())),
        Err(ureq::Error::StatusCode(404 | 410)) => Err(not_found(doing, url)),
        Err(e) => {
            let kind = ImageErrorKind::Transfer { url: url.into(), reason: e.to_string() };
            Err(ImageError::new(doing, kind))
        }
    }
}

fn not_found(doing: &str, url: &str) -> ImageError {
    ImageError::new(doing, ImageErrorKind::NotFound { url: url.into(), fix: FIX.into() })
}

#[cfg(test)]
mod tests;
