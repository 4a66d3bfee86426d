//! Archives: what is written is taken in elsewhere, and nothing else is.

use std::fs;

use crate::common::{everything, keep_with_rounds, store};
use crate::made::{keep, place};
use proptest::prelude::*;
use tar::{Builder, EntryType, Header};
use yakiros_checkpoint::archive::{export, import};
use yakiros_checkpoint::store::{Id, Metadata, Store};

const IMAGES: [(&str, &[u8]); 2] = [("core-1.img", b"registers"), ("pages-1.img", &[7; 5000])];

fn archive(store: &Store, metadata: &Metadata) -> Vec<u8> {
    let mut bytes = Vec::new();
    let checkpoint = store.find(&metadata.component, Some(&metadata.id)).expect("it is there");
    export(&checkpoint, &mut bytes).expect("an archive");
    bytes
}

/// What is said when this is taken in, and nothing is left of it.
fn refusal(bytes: &[u8]) -> String {
    let (_directory, store) = store();
    let said = import(&store, bytes, None).expect_err("refused").to_string();
    assert_eq!(everything(store.path()), [], "{said}");
    said
}

#[test]
fn a_checkpoint_is_the_same_elsewhere() {
    let (_here, here) = store();
    let (_there, there) = store();
    for kept in [keep(&here, "web", &IMAGES), keep_with_rounds(&here, "web")] {
        let bytes = archive(&here, &kept);
        assert_eq!(bytes, archive(&here, &kept), "the same bytes each time");
        let (component, id) = import(&there, bytes.as_slice(), None).expect("taken in");
        assert_eq!((component.as_str(), &id), ("web", &kept.id));
        assert_eq!(there.find("web", Some(&id)).unwrap().verify().unwrap(), kept);
        let again = import(&there, bytes.as_slice(), None).expect_err("it is there").to_string();
        assert!(again.ends_with("is there already"), "{again}");
        assert_eq!(archive(&there, &kept), bytes);
    }
    assert_eq!(everything(here.path()), everything(there.path()));
}

#[test]
fn what_comes_from_the_future_is_refused() {
    let (_here, here) = store();
    let kept = keep(&here, "web", &IMAGES);
    let day = 24 * 3600 * 1_000_000;
    for (ahead, is_refused) in [(2 * day, true), (day / 2, false)] {
        let (_there, there) = store();
        let id = Id::next(kept.id.micros() + ahead, None, 1);
        let bytes = Metadata { id, images: Vec::new(), image_size: 0, ..kept.clone() }.to_bytes();
        let archive = tar(&[("metadata.json", EntryType::Regular, &bytes)]);
        let taken = import(&there, archive.as_slice(), None).map_err(|error| error.to_string());
        let said = taken.as_ref().err().map(String::as_str).unwrap_or_default();
        assert_eq!(
            (taken.is_err(), said.contains("is in the future here: set the clock")),
            (is_refused, is_refused)
        );
    }
}

#[test]
fn what_is_damaged_is_not_written() {
    let (_directory, store) = store();
    let kept = keep(&store, "web", &IMAGES);
    fs::write(place(&store, "web", &kept.id).join("core-1.img"), "Registers").unwrap();
    let said = export(&store.find("web", None).unwrap(), Vec::new()).expect_err("refused").to_string();
    assert!(said.ends_with("its image core-1.img was changed after it had been written"), "{said}");
}

#[test]
fn what_is_too_large_is_refused_before_anything_is_written() {
    let (_here, here) = store();
    let bytes = archive(&here, &keep(&here, "web", &IMAGES));
    let (_there, there) = store();
    let said = import(&there, bytes.as_slice(), Some(5000)).expect_err("refused").to_string();
    assert!(said.starts_with("it has 5009 bytes"), "{said}");
    assert_eq!(everything(there.path()), []);
}

/// A name, a kind and a content.
type File<'a> = (&'a str, EntryType, &'a [u8]);

/// An archive of these entries.
fn tar(entries: &[File<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = Header::new_ustar();
        // Not by `set_path`, which refuses what is to be refused here.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.set_entry_type(*kind);
        header.set_cksum();
        builder.append(&header, *content).expect("an entry");
    }
    builder.into_inner().expect("an archive")
}

#[test]
fn what_is_something_else_is_refused_and_named() {
    let (_here, here) = store();
    let kept = keep(&here, "web", &IMAGES);
    let metadata = kept.to_bytes();
    let head = ("metadata.json", EntryType::Regular, metadata.as_slice());
    let core = ("core-1.img", EntryType::Regular, IMAGES[0].1);
    let pages = ("pages-1.img", EntryType::Regular, IMAGES[1].1);
    let mut evil = kept.clone();
    evil.images[0].name = "../core-1.img".to_owned();
    let evil = evil.to_bytes();
    // Entries, and what is said.
    let cases: [(&[File<'_>], &str); 12] = [
        (&[], "it ends where metadata.json should come"),
        (&[core, pages], "it has \"core-1.img\" where metadata.json should come"),
        (&[head, core], "it ends where pages-1.img should come"),
        (&[head, pages, core], "it has \"pages-1.img\" where core-1.img should come"),
        (&[head, core, pages, pages], "it has \"pages-1.img\", which is not in its list"),
        (
            &[head, core, pages, ("../x", EntryType::Regular, b"")],
            "it has \"../x\", which is not in its list",
        ),
        (
            &[head, ("/core-1.img", EntryType::Regular, b"registers")],
            "it has \"/core-1.img\" where core-1.img should",
        ),
        (&[head, ("core-1.img", EntryType::Symlink, b"")], "its \"core-1.img\" is no regular file"),
        (&[("metadata.json", EntryType::Directory, b"")], "its \"metadata.json\" is no regular file"),
        (&[head, ("core-1.img", EntryType::Regular, b"short"), pages], "its image core-1.img has 5 bytes"),
        (
            &[head, ("core-1.img", EntryType::Regular, b"Registers"), pages],
            "its image core-1.img was changed",
        ),
        (&[("metadata.json", EntryType::Regular, &evil)], "\"../core-1.img\" cannot be an image's name"),
    ];
    for (entries, expected) in cases {
        let said = refusal(&tar(entries));
        assert!(said.contains(expected), "{expected}: {said}");
    }
    // Long names are an extension.
    let long = ("././@LongLink", EntryType::GNULongName, b"core-1.img".as_slice());
    assert!(
        refusal(&tar(&[head, long, core, pages])).contains("\"././@LongLink\" where core-1.img should come")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_cut_archive_is_refused(place in any::<prop::sample::Index>()) {
        let (_here, here) = store();
        let bytes = archive(&here, &keep_with_rounds(&here, "web"));
        // After the last image there is only padding: two blocks that end an archive.
        let end = bytes.len() - 1024 - 511;
        refusal(&bytes[..place.index(end)]);
    }

    #[test]
    fn a_changed_byte_is_refused_or_means_nothing(place in any::<prop::sample::Index>(), change in 1..=255_u8) {
        let (_here, here) = store();
        let kept = keep_with_rounds(&here, "web");
        let mut bytes = archive(&here, &kept);
        let place = place.index(bytes.len());
        bytes[place] ^= change;
        let (_there, there) = store();
        if let Ok((component, id)) = import(&there, bytes.as_slice(), None) {
            // Padding, or what tar says of owners and times.
            prop_assert_eq!(there.find(&component, Some(&id)).unwrap().verify().unwrap(), kept);
        } else {
            prop_assert_eq!(everything(there.path()), []);
        }
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        refusal(&bytes);
    }
}
