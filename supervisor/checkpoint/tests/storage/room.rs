//! What all checkpoints together may take.

use std::fs;

use yakiros_checkpoint::store::{Id, Metadata, Store, StoreError};

use crate::common::{facts, store};

/// Ten times as much as the smallest here has, and room for what is said of some.
const QUOTA: u64 = 1_010_000;

/// One with so many bytes, where all may have this quota.
fn keep(store: &Store, component: &str, size: usize, quota: u64) -> Result<Metadata, StoreError> {
    let draft = store.begin(component).expect("a draft");
    fs::write(draft.images().join("pages-1.img"), vec![0; size]).expect("an image");
    draft.commit(facts(), Some(quota))
}

fn ids(store: &Store, component: &str) -> Vec<Id> {
    store.ids(component).expect("a list")
}

#[test]
fn the_oldest_goes_to_make_room_whosever_it_is() {
    let (_directory, store) = store();
    let web = keep(&store, "web", 400_000, QUOTA).expect("room").id;
    let first = keep(&store, "db", 400_000, QUOTA).expect("room").id;
    let second = keep(&store, "db", 200_000, QUOTA).expect("room").id;
    assert_eq!((ids(&store, "web"), ids(&store, "db")), (vec![web], vec![second.clone(), first]), "it fits");
    // As many go as it takes, and no more.
    let third = keep(&store, "db", 500_000, QUOTA).expect("room").id;
    assert_eq!((ids(&store, "web"), ids(&store, "db")), (Vec::new(), vec![third, second]));
    let bytes: u64 = store.usage().expect("usage").iter().map(|usage| usage.bytes).sum();
    assert!((700_000..720_000).contains(&bytes), "{bytes}");
}

#[test]
fn what_is_in_use_stays_and_what_has_no_room_is_refused_with_the_numbers() {
    let (_directory, store) = store();
    let used = keep(&store, "web", 600_000, QUOTA).expect("room").id;
    let idle = keep(&store, "web", 100_000, QUOTA).expect("room").id;
    let _in_use = store.find("web", Some(&used)).expect("it is there");
    let said = keep(&store, "db", 500_000, QUOTA).expect_err("no room").to_string();
    let expected = " bytes, others that are in use have 60";
    assert!(said.starts_with("it has 50") && said.contains(expected), "{said}");
    assert!(said.contains("and all checkpoints together may have 1010000: raise"), "{said}");
    assert_eq!(ids(&store, "db"), []);
    let mut both = ids(&store, "web");
    both.sort_unstable();
    assert_eq!(both, [used.clone(), idle.clone()], "what would not have been enough is not removed");
    let fits = keep(&store, "db", 400_000, QUOTA).expect("room").id;
    assert_eq!((ids(&store, "web"), ids(&store, "db")), (vec![used.clone()], vec![fits]));
    // What could not be kept in any case costs nobody anything.
    let said = keep(&store, "db", 1_100_000, QUOTA).expect_err("no room").to_string();
    assert!(said.starts_with("it has 110") && !said.contains("in use"), "{said}");
    assert_eq!((ids(&store, "web"), ids(&store, "db").len()), (vec![used], 1));
    assert_ne!(idle, ids(&store, "web")[0]);
}
