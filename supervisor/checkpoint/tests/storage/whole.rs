//! The store, as its users see it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use crate::common::{everything, facts, keep_with_rounds, store};
use crate::made::{keep, place};
use proptest::prelude::*;
use yakiros_checkpoint::store::{Damage, Id, Policy, Store, StoreError};

const IMAGES: [(&str, &[u8]); 3] =
    [("core-1.img", b"registers"), ("empty.img", b""), ("pages-1.img", &[7; 5000])];

fn damage(store: &Store, component: &str, id: &Id) -> Damage {
    let checkpoint = store.find(component, Some(id)).expect("it is there");
    match checkpoint.verify() {
        Err(StoreError::Damaged { damage, .. }) => damage,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn what_is_kept_is_found_and_verified() {
    let (_directory, store) = store();
    let first = keep(&store, "web", &IMAGES);
    let second = keep_with_rounds(&store, "web");
    let other = keep(&store, "database", &IMAGES);
    assert!(first.id < second.id && second.id < other.id);
    assert_eq!(store.ids("web").unwrap(), [second.id.clone(), first.id.clone()]);
    assert_eq!(store.components().unwrap(), ["database", "web"]);
    let newest = store.find("web", None).unwrap();
    assert_eq!((newest.id(), newest.verify().unwrap()), (&second.id, second.clone()));
    let names: Vec<_> = second.images.iter().map(|image| image.name.as_str()).collect();
    assert_eq!(names, ["pages-1.img", "pre-1/pages-1.img", "pre-2/pages-1.img"]);
    assert_eq!(first.image_size, 5009);
    assert_eq!(first.original_pid, 4711);
    let listed: Vec<_> = store.list(None).unwrap().into_iter().map(|outline| outline.id).collect();
    assert_eq!(listed, [other.id, second.id, first.id]);
}

#[test]
fn what_is_not_there_is_named() {
    let (directory, store) = store();
    let of = |result: Result<_, StoreError>| match result {
        Err(error) => error.to_string(),
        Ok(checkpoint) => panic!("{checkpoint:?}"),
    };
    assert_eq!(of(store.find("web", None)), "web has no checkpoint");
    let id: Id = "20261122T081530.123456Z-9f3a61c2".parse().unwrap();
    assert_eq!(of(store.find("web", Some(&id))), format!("web has no checkpoint {id}"));
    assert!(of(store.find("../web", None)).contains("cannot be a component's name"));
    assert!(matches!(store.remove("web", &id), Err(StoreError::Absent { .. })));
    let nowhere = directory.path().join("nowhere");
    let said = Store::open(&nowhere).expect_err("no store").to_string();
    assert!(
        said.starts_with("failed to open the directory ")
            && said.ends_with("No such file or directory (os error 2)")
    );
}

#[test]
fn a_flipped_bit_in_any_file_is_found() {
    let (_directory, store) = store();
    let kept = keep_with_rounds(&store, "web");
    let at = place(&store, "web", &kept.id);
    let files = everything(&at).into_iter().filter(|(path, content)| {
        !content.is_empty() && at.join(path).symlink_metadata().is_ok_and(|status| status.is_file())
    });
    for (path, content) in files {
        for place in [0, content.len() / 2, content.len() - 1] {
            let mut changed = content.clone();
            changed[place] ^= 0x10;
            fs::write(at.join(&path), &changed).unwrap();
            let found = damage(&store, "web", &kept.id);
            let is_metadata = path == Path::new("metadata.json");
            assert!(
                if is_metadata {
                    matches!(found, Damage::Metadata(_))
                } else {
                    matches!(found, Damage::Content(_))
                },
                "byte {place} of {}: {found}",
                path.display()
            );
        }
        fs::write(at.join(&path), &content).unwrap();
    }
    store.find("web", None).unwrap().verify().expect("restored");
}

/// Is done to a checkpoint's directory.
type Harm<'a> = &'a dyn Fn(&Path);

#[test]
fn whatever_else_is_wrong_is_named() {
    // What is done to a checkpoint with two rounds, and what is said of it.
    let cases: [(Harm<'_>, Damage); 10] = [
        (&|at| fs::remove_file(at.join("pages-1.img")).unwrap(), Damage::Missing("pages-1.img".into())),
        (&|at| fs::remove_dir_all(at.join("pre-1")).unwrap(), Damage::Missing("pre-1".into())),
        (&|at| fs::remove_file(at.join("parent")).unwrap(), Damage::Missing("parent".into())),
        (&|at| fs::write(at.join("more.img"), "").unwrap(), Damage::Unexpected("more.img".into())),
        (&|at| fs::write(at.join("pre-2/.x"), "").unwrap(), Damage::Unexpected("pre-2/.x".into())),
        (
            &|at| fs::write(at.join("pages-1.img"), "las").unwrap(),
            Damage::Size { name: "pages-1.img".into(), listed: 4, found: 3 },
        ),
        (&|at| fs::create_dir(at.join("pre-3")).unwrap(), Damage::Kind("pre-3".into())),
        (&|at| symlink("/etc/passwd", at.join("core.img")).unwrap(), Damage::Kind("core.img".into())),
        (
            &|at| {
                fs::remove_file(at.join("parent")).unwrap();
                symlink("../../other", at.join("parent")).unwrap();
            },
            Damage::Kind("parent".into()),
        ),
        (
            &|at| {
                fs::remove_file(at.join("pages-1.img")).unwrap();
                symlink("pre-1/pages-1.img", at.join("pages-1.img")).unwrap();
            },
            Damage::Kind("pages-1.img".into()),
        ),
    ];
    for (harm, expected) in cases {
        let (_directory, store) = store();
        let kept = keep_with_rounds(&store, "web");
        harm(&place(&store, "web", &kept.id));
        assert_eq!(damage(&store, "web", &kept.id), expected);
        store.remove("web", &kept.id).expect("what is damaged can be removed");
    }
}

#[test]
fn what_belongs_elsewhere_is_refused() {
    let (_directory, store) = store();
    let kept = keep(&store, "web", &IMAGES);
    let from = place(&store, "web", &kept.id);
    fs::create_dir(store.path().join("database")).unwrap();
    fs::rename(&from, place(&store, "database", &kept.id)).unwrap();
    let said = damage(&store, "database", &kept.id).to_string();
    assert_eq!(said, "it does not belong here: it is of web and lies among those of database");
    let other = Id::next(0, Some(&kept.id), 1);
    fs::rename(place(&store, "database", &kept.id), place(&store, "web", &other)).unwrap();
    assert!(matches!(damage(&store, "web", &other), Damage::Foreign(_)));
    // Written with a hash of its own: only what it says is wrong.
    let change = |change: &dyn Fn(&mut yakiros_checkpoint::store::Metadata)| {
        let mut metadata = kept.clone();
        metadata.id = other.clone();
        change(&mut metadata);
        fs::write(place(&store, "web", &other).join("metadata.json"), metadata.to_bytes()).unwrap();
        damage(&store, "web", &other)
    };
    assert!(matches!(change(&|m| m.architecture = "riscv64".into()), Damage::Architecture { .. }));
    assert_eq!(change(&|m| m.format = 2), Damage::Format(2));
    fs::remove_file(place(&store, "web", &other).join("metadata.json")).unwrap();
    assert!(damage(&store, "web", &other).to_string().contains("No such file"));
    let outline = &store.list(None).unwrap()[0];
    assert!(outline.damage.is_some() && outline.metadata.is_none() && outline.bytes == 5009, "{outline:?}");
}

#[test]
fn a_damaged_one_is_in_nobody_elses_way() {
    use std::os::unix::ffi::OsStrExt as _;
    let (_directory, store) = store();
    let whole = keep(&store, "web", &IMAGES);
    let odd = keep(&store, "web", &IMAGES);
    let name = std::ffi::OsStr::from_bytes(b"core-\xff.img");
    fs::write(place(&store, "web", &odd.id).join(name), "odd").unwrap();
    let listed = store.list(None).unwrap();
    let found: Vec<_> = listed.iter().map(|outline| (&outline.id, outline.bytes > 5009)).collect();
    assert_eq!(found, [(&odd.id, true), (&whole.id, true)]);
    assert!(listed[0].bytes == listed[1].bytes + 3, "{listed:?}");
    assert!(matches!(damage(&store, "web", &odd.id), Damage::Unexpected(_)));
    assert_eq!(store.usage().unwrap()[0].checkpoints, 2);
    let one = Policy { per_component: 1, ..Policy::default() };
    assert_eq!(store.retain(&one, None).unwrap().len(), 1);
    store.remove("web", &odd.id).unwrap();
}

#[test]
fn a_store_that_others_can_change_is_refused() {
    let (_directory, store) = store();
    for mode in [0o770, 0o702] {
        fs::set_permissions(store.path(), fs::Permissions::from_mode(mode)).unwrap();
        let said = Store::open(store.path()).expect_err("exposed").to_string();
        assert!(said.contains("can be changed by others than root"), "{said}");
    }
}

#[test]
fn nothing_is_left_of_what_was_given_up() {
    let (_directory, store) = store();
    let draft = store.begin("web").unwrap();
    fs::write(draft.images().join("core-1.img"), "half").unwrap();
    // Somebody is at work on it.
    assert_eq!(store.sweep().unwrap(), Vec::<std::path::PathBuf>::new());
    assert_eq!(store.ids("web").unwrap(), []);
    drop(draft);
    assert_eq!(everything(store.path()), []);
    // What CRIU cannot have made is not kept either.
    for name in ["parent", "metadata.json", "a b", ".x"] {
        let draft = store.begin("web").unwrap();
        fs::write(draft.images().join(name), "").unwrap();
        assert!(matches!(draft.commit(facts(), None), Err(StoreError::Damaged { .. })), "{name}");
        assert_eq!(everything(store.path()), [], "{name}");
    }
    let draft = store.begin("web").unwrap();
    fs::write(draft.images().join("pages-1.img"), [0; 100]).unwrap();
    let said = draft.commit(facts(), Some(99)).expect_err("too large").to_string();
    // With what is said of it.
    assert!(said.contains(" bytes, and all checkpoints together may have 99: raise the quota"), "{said}");
    assert_eq!(everything(store.path()), []);
}

#[test]
fn what_was_left_half_made_is_swept() {
    let (_directory, store) = store();
    let kept = keep(&store, "web", &IMAGES);
    let before = everything(store.path());
    for name in [".new-a/images/pre-1", ".old-b/work", ".new-c"] {
        fs::create_dir_all(store.path().join("web").join(name)).unwrap();
    }
    fs::write(store.path().join("web/.new-a/images/pre-1/x"), "x").unwrap();
    fs::write(store.path().join("web/.new-file"), "x").unwrap();
    symlink("/etc", store.path().join("web/.old-link")).unwrap();
    fs::create_dir(store.path().join("empty")).unwrap();
    assert_eq!(store.sweep().unwrap().len(), 5);
    assert_eq!(everything(store.path()), before);
    store.find("web", Some(&kept.id)).unwrap().verify().unwrap();
}

#[test]
fn what_is_used_is_not_removed() {
    let (_directory, store) = store();
    let kept = keep(&store, "web", &IMAGES);
    let used = store.find("web", None).unwrap();
    assert!(matches!(store.remove("web", &kept.id), Err(StoreError::InUse(_))));
    let none = Policy { per_component: 0, ..Policy::default() };
    let removed = store.retain(&none, None).unwrap();
    assert!(removed.len() == 1 && removed[0].in_use, "{removed:?}");
    used.verify().unwrap();
    drop(used);
    let removed = store.retain(&none, None).unwrap();
    assert!(removed.len() == 1 && !removed[0].in_use && removed[0].size > 5009, "{removed:?}");
    assert_eq!(everything(store.path()), []);
}

#[test]
fn names_never_clash() {
    let (_directory, store) = store();
    let drafts: Vec<_> = (0..20).map(|_| store.begin("web").unwrap()).collect();
    let mut ids: Vec<_> = drafts.iter().map(|draft| draft.id().clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 20);
    drop(drafts);
    // The clock was set back since then: the next is the newest all the same.
    let ahead = Id::next(4_000_000_000_000_000, None, 1);
    fs::create_dir_all(place(&store, "web", &ahead)).unwrap();
    let kept = keep(&store, "web", &IMAGES);
    assert!(kept.id > ahead);
    assert_eq!(store.ids("web").unwrap(), [kept.id.clone(), ahead]);
    // Its name says when it comes, and it itself when it was made.
    assert!(kept.timestamp < 4_000_000_000, "{}", kept.timestamp);
}

/// Something that is done to a store.
#[derive(Clone, Debug)]
enum Act {
    Keep { component: usize, size: usize },
    GiveUp { component: usize },
    Remove { component: usize, which: prop::sample::Index },
    Retain { per_component: usize, quota: Option<u64> },
    Sweep,
}

const COMPONENTS: [&str; 3] = ["a", "b", "c"];

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let component = 0..COMPONENTS.len();
    let act = prop_oneof![
        4 => (component.clone(), 0..3000_usize).prop_map(|(component, size)| Act::Keep { component, size }),
        1 => component.clone().prop_map(|component| Act::GiveUp { component }),
        2 => (component, any::<prop::sample::Index>()).prop_map(|(component, which)| Act::Remove { component, which }),
        1 => (0..4_usize, prop::option::of(0..9000_u64))
            .prop_map(|(per_component, quota)| Act::Retain { per_component, quota }),
        1 => Just(Act::Sweep),
    ];
    prop::collection::vec(act, 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is done: what was kept and not removed is there, whole and newest first, and nothing else is.
    #[test]
    fn a_store_is_what_was_put_into_it(acts in acts()) {
        let (_directory, store) = store();
        // Newest last.
        let mut model: BTreeMap<usize, Vec<(Id, usize)>> = BTreeMap::new();
        for act in acts {
            match act {
                Act::Keep { component, size } => {
                    let kept = keep(&store, COMPONENTS[component], &[("pages-1.img", &vec![1; size])]);
                    model.entry(component).or_default().push((kept.id, size));
                }
                Act::GiveUp { component } => drop(store.begin(COMPONENTS[component]).unwrap()),
                Act::Remove { component, which } => {
                    let there = model.entry(component).or_default();
                    if !there.is_empty() {
                        let (id, _) = there.remove(which.index(there.len()));
                        store.remove(COMPONENTS[component], &id).unwrap();
                    }
                }
                Act::Retain { per_component, quota } => {
                    let policy = Policy { per_component, quota, max_age: None };
                    for removed in store.retain(&policy, None).unwrap() {
                        let component = COMPONENTS.iter().position(|name| *name == removed.component).unwrap();
                        model.entry(component).or_default().retain(|(id, _)| *id != removed.id);
                    }
                    prop_assert!(model.values().all(|there| there.len() <= per_component));
                    let bytes: u64 = store.usage().unwrap().iter().map(|usage| usage.bytes).sum();
                    prop_assert!(quota.is_none_or(|quota| bytes <= quota));
                }
                Act::Sweep => prop_assert_eq!(store.sweep().unwrap().len(), 0),
            }
            model.retain(|_, there| !there.is_empty());
            let names: Vec<_> = model.keys().map(|component| COMPONENTS[*component]).collect();
            prop_assert_eq!(store.components().unwrap(), names);
            for (component, there) in &model {
                let newest_first: Vec<_> = there.iter().rev().map(|(id, _)| id.clone()).collect();
                prop_assert_eq!(store.ids(COMPONENTS[*component]).unwrap(), newest_first);
                for (id, size) in there {
                    let verified = store.find(COMPONENTS[*component], Some(id)).unwrap().verify().unwrap();
                    prop_assert_eq!(verified.image_size, *size as u64);
                }
            }
        }
    }
}
