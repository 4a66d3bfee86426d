//! `metadata.json`: what a checkpoint is, and what it is made of.
//!
//! The last line holds the SHA-256 of all bytes before it, so a single bit that has changed is noticed, and each image
//! is listed with its own. Whatever the bytes are, reading them ends in a value or in the reason why not.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::damage::Damage;
use super::id::Id;
use crate::criu::{DumpFigures, Options};
use crate::preflight::Isolation;

/// Its name in the checkpoint's directory.
pub const FILE: &str = "metadata.json";
/// The form of checkpoint that this version writes and reads.
pub const FORMAT: u32 = 1;
/// Most images of one checkpoint: some eight for each process, with as many processes as a supervised tree may have.
pub const IMAGES_LIMIT: usize = 65_536;
/// Longest name of an image, in bytes: with a round before it, it fits the plain header of an archive.
pub const IMAGE_NAME_LIMIT: usize = 80;
/// Most rounds of memory before the dump itself; each takes longer than it saves long before that.
pub const ROUNDS_LIMIT: u32 = 16;
/// Largest `metadata.json`, in bytes: as many images as there may be, each with its line.
pub const SIZE_LIMIT: u64 = 16 << 20;
/// How CRIU calls the link from a round to the one before.
pub const PARENT: &str = "parent";

/// What comes between the content and its hash, and after that.
const SEAL: (&str, &str) = (",\n  \"checksum\": \"", "\"\n}\n");
/// Hexadecimal digits of a SHA-256.
const HASH_LENGTH: usize = 64;

/// Everything that is known of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// [`FORMAT`] of its writer.
    pub format: u32,
    /// Its name; that of its directory, too.
    pub id: Id,
    /// When it was begun, in seconds since 1970.
    pub timestamp: i64,
    /// What it is a checkpoint of, and how it was made.
    #[serde(rename = "component_name")]
    pub component: String,
    /// The process, as its own pid namespace's parent numbered it.
    pub original_pid: i32,
    /// What the component provided.
    pub capabilities: Vec<String>,
    /// Of the CRIU that wrote the images.
    pub criu_version: Version,
    /// Whether the process ran on after it.
    pub leave_running: bool,
    /// Descriptors that the component wants to keep over a restore.
    pub preserve_fds: Vec<String>,
    /// What of it has another end outside, or a place there, and is to be given again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<Role>,
    /// What CRIU was told, and is to be told again.
    pub options: Options,
    /// What CRIU counted, if it did.
    pub figures: Option<DumpFigures>,
    /// What the processes had for themselves, and are to have again.
    #[serde(default)]
    pub isolation: Isolation,
    /// Release of the kernel under which it was made.
    pub kernel: String,
    /// As `uname -m` calls it: images hold registers.
    pub architecture: String,
    /// Size of all images in bytes.
    pub image_size: u64,
    /// Rounds of memory before the dump itself, in the directories `pre-1` and so on.
    pub rounds: u32,
    /// All of them, by name.
    pub images: Vec<Image>,
}

/// Something that a process was given by who started it, and is given anew with its processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// What it is for, by the word of who gives it.
    pub name: String,
    /// What the kernel called it, as `pipe:[4711]` or `socket:[4712]`; or a path.
    pub link: String,
    /// Which process has it under which number, of an internet socket: CRIU makes it anew, and who holds it takes it from
    /// there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inet: Option<(i32, i32)>,
    /// Its path, of a unix socket that listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

impl Role {
    /// What has this name, and is called so by the kernel.
    pub fn new(name: impl Into<String>, link: impl Into<String>) -> Self {
        Self { name: name.into(), link: link.into(), inet: None, path: None }
    }
}

/// What whoever makes a checkpoint has to say of it; the rest is counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// See [`Metadata::original_pid`].
    pub original_pid: i32,
    /// See [`Metadata::capabilities`].
    pub capabilities: Vec<String>,
    /// See [`Metadata::criu_version`].
    pub criu_version: Version,
    /// See [`Metadata::leave_running`].
    pub leave_running: bool,
    /// See [`Metadata::preserve_fds`].
    pub preserve_fds: Vec<String>,
    /// See [`Metadata::roles`].
    pub roles: Vec<Role>,
    /// See [`Metadata::options`].
    pub options: Options,
    /// See [`Metadata::figures`].
    pub figures: Option<DumpFigures>,
    /// See [`Metadata::isolation`].
    pub isolation: Isolation,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its path in the checkpoint's directory: a name, or `pre-N/` and a name.
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// In hexadecimal.
    pub sha256: String,
}

/// A version of CRIU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// What comes first.
    pub major: u32,
    /// What comes second.
    pub minor: u32,
    /// What comes third, or 0.
    pub patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Metadata {
    /// As it is written.
    pub fn to_bytes(&self) -> Vec<u8> {
        // There is nothing in it that JSON cannot say.
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        let body = text.strip_suffix("\n}").unwrap_or(&text);
        format!("{body}{}{}{}", SEAL.0, hash(body.as_bytes()), SEAL.1).into_bytes()
    }

    /// Read it, and see that it says nothing impossible.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Damage> {
        let body = unseal(bytes)?;
        let unreadable = |error: &dyn fmt::Display| Damage::Metadata(error.to_string());
        let format: Format = serde_json::from_slice(&body).map_err(|error| unreadable(&error))?;
        if format.format != FORMAT {
            return Err(Damage::Format(format.format));
        }
        let metadata: Self = serde_json::from_slice(&body).map_err(|error| unreadable(&error))?;
        metadata.check()?;
        Ok(metadata)
    }

    fn check(&self) -> Result<(), Damage> {
        let wrong = |what: String| Err(Damage::Metadata(what));
        if let Err(error) = super::id::check_component(&self.component) {
            return wrong(error.to_string());
        }
        if self.images.len() > IMAGES_LIMIT || self.rounds > ROUNDS_LIMIT {
            return wrong(format!(
                "it lists {} images in {} rounds; {IMAGES_LIMIT} and {ROUNDS_LIMIT} are allowed",
                self.images.len(),
                self.rounds
            ));
        }
        if let Some(image) = self.images.iter().find(|image| !is_image(&image.name, self.rounds)) {
            return wrong(format!("{:?} cannot be an image's name", image.name));
        }
        if let Some(pair) = self.images.windows(2).find(|pair| pair[0].name >= pair[1].name) {
            return wrong(format!("{:?} is not listed in the order of names", pair[1].name));
        }
        let sizes = self.images.iter().try_fold(0_u64, |sum, image| sum.checked_add(image.size));
        if sizes != Some(self.image_size) {
            return wrong(format!("the images' sizes do not make {} bytes", self.image_size));
        }
        Ok(())
    }
}

/// What is read before anything else is believed.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// Where a round's images are, from the checkpoint's directory.
pub fn round_directory(round: u32) -> String {
    format!("pre-{round}")
}

/// Where the link of the dump, or of a round, to the round before has to lead; none if there is to be no link.
pub fn parent_of(round: Option<u32>, rounds: u32) -> Option<String> {
    match round {
        None if rounds > 0 => Some(round_directory(rounds)),
        Some(round) if round > 1 => Some(format!("../{}", round_directory(round - 1))),
        _ => None,
    }
}

/// Whether a path can be that of an image.
pub fn is_image(path: &str, rounds: u32) -> bool {
    let name = match path.split_once('/') {
        Some((directory, name)) if (1..=rounds).any(|round| round_directory(round) == directory) => name,
        Some(_) => return false,
        None => path,
    };
    let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    !name.is_empty()
        && name.len() <= IMAGE_NAME_LIMIT
        && !name.starts_with('.')
        && name.bytes().all(fits)
        && name != FILE
        && name != PARENT
}

/// In hexadecimal.
pub fn hash(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

pub(crate) fn hexadecimal(digest: &[u8]) -> String {
    use fmt::Write as _;
    digest.iter().fold(String::with_capacity(HASH_LENGTH), |mut text, byte| {
        // A string takes everything.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The content as JSON, if it has the hash that it says.
fn unseal(bytes: &[u8]) -> Result<Vec<u8>, Damage> {
    if bytes.len() as u64 > SIZE_LIMIT {
        return Err(Damage::Metadata(format!("it has more than {SIZE_LIMIT} bytes")));
    }
    let parts = || {
        let rest = bytes.strip_suffix(SEAL.1.as_bytes())?;
        let (rest, checksum) = rest.split_at_checked(rest.len().checked_sub(HASH_LENGTH)?)?;
        Some((rest.strip_suffix(SEAL.0.as_bytes())?, checksum))
    };
    let (body, checksum) =
        parts().ok_or_else(|| Damage::Metadata("it is cut off, or was never complete".to_owned()))?;
    if hash(body).as_bytes() != checksum {
        return Err(Damage::Metadata("it was changed after it had been written".to_owned()));
    }
    Ok([body, b"\n}"].concat())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use proptest::strategy::ValueTree as _;

    use super::*;

    fn texts_of(images: &[Image]) -> BTreeSet<String> {
        images.iter().map(|image| image.name.clone()).collect()
    }

    /// Any checkpoint that could have been made.
    pub fn metadata() -> impl Strategy<Value = Metadata> {
        let images = proptest::collection::btree_map("[a-z][a-z0-9.-]{0,20}\\.img", 0..1_u64 << 40, 0..5);
        let lists = proptest::collection::vec("\\PC{0,20}", 0..3);
        let numbers = (any::<u32>(), any::<u32>(), any::<i32>(), any::<bool>());
        ("[a-z][a-z0-9-]{0,20}", images, lists, numbers).prop_map(|(component, images, texts, numbers)| {
            let (random, minor, original_pid, leave_running) = numbers;
            let images: Vec<Image> = images
                .into_iter()
                .map(|(name, size)| Image { name, size, sha256: hash(&size.to_ne_bytes()) })
                .collect();
            Metadata {
                format: FORMAT,
                id: Id::next(i64::from(random) << 20, None, random),
                timestamp: i64::from(random),
                component,
                original_pid,
                capabilities: texts.clone(),
                criu_version: Version { major: 4, minor, patch: 0 },
                leave_running,
                preserve_fds: texts.clone(),
                roles: texts.iter().map(|text| Role::new(text, text)).collect(),
                options: Options { file_locks: leave_running, external: texts, ..Options::default() },
                figures: leave_running.then(DumpFigures::default),
                isolation: Isolation { namespaces: texts_of(&images), ..Isolation::default() },
                kernel: "6.18.1".to_owned(),
                architecture: "x86_64".to_owned(),
                image_size: images.iter().map(|image| image.size).sum(),
                rounds: 0,
                images,
            }
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(metadata in metadata()) {
            prop_assert_eq!(Metadata::from_bytes(&metadata.to_bytes()), Ok(metadata));
        }

        #[test]
        fn every_flipped_bit_is_noticed(metadata in metadata(), place in any::<prop::sample::Index>(), bit in 0..8) {
            let mut bytes = metadata.to_bytes();
            let place = place.index(bytes.len());
            bytes[place] ^= 1_u8 << bit;
            prop_assert!(Metadata::from_bytes(&bytes).is_err(), "bit {bit} of byte {place}");
        }

        #[test]
        fn every_cut_is_noticed(metadata in metadata(), place in any::<prop::sample::Index>()) {
            let bytes = metadata.to_bytes();
            prop_assert!(Metadata::from_bytes(&bytes[..place.index(bytes.len())]).is_err());
        }

        /// The hash protects from accidents; whoever writes a file on purpose can compute it.
        #[test]
        fn any_sealed_bytes_are_read_or_refused(body in "\\PC{0,80}|\\{\"format\":[0-9]{1,3}(,\"[a-z]{1,5}\":[0-9])*") {
            let sealed = format!("{body}{}{}{}", SEAL.0, hash(body.as_bytes()), SEAL.1);
            prop_assert!(Metadata::from_bytes(sealed.as_bytes()).is_err());
        }

        #[test]
        fn paths_stay_inside(path in "[a-z./-]{0,12}|pre-[0-9]{1,2}/[a-z./]{0,6}") {
            if is_image(&path, 3) {
                let parts: Vec<_> = path.split('/').collect();
                prop_assert!(parts.len() <= 2 && parts.iter().all(|part| !part.is_empty() && !part.starts_with('.')));
            }
        }
    }

    #[test]
    fn what_is_impossible_is_named() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let good = metadata().new_tree(&mut runner).expect("a value").current();
        let of = |change: &dyn Fn(&mut Metadata)| {
            let mut metadata = good.clone();
            change(&mut metadata);
            Metadata::from_bytes(&metadata.to_bytes()).expect_err("refused").to_string()
        };
        let image = |name: &str| Image { name: name.to_owned(), size: 0, sha256: String::new() };
        assert_eq!(of(&|m| m.format = 9), "it has format 9; this version reads format 1");
        assert!(of(&|m| m.component = "../x".to_owned()).contains("\"../x\" cannot be a component's name"));
        for name in ["../x", "/x", "pre-1/x", "a/b", "metadata.json", "parent", ".x", ""] {
            let said = of(&|m| m.images = vec![image(name)]);
            assert!(said.ends_with("cannot be an image's name"), "{name}: {said}");
        }
        assert!(of(&|m| m.images = vec![image("a"), image("a")]).contains("not listed in the order"));
        assert!(of(&|m| m.image_size += 1).contains("do not make"));
        assert!(of(&|m| m.rounds = 17).contains("17 rounds"));
    }
}
