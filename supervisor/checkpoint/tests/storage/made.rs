//! Checkpoints for tests in one process.

use std::fs;
use std::path::PathBuf;

use yakiros_checkpoint::store::{Id, Metadata, Store};

use crate::common::facts;

/// Make one of these images.
pub fn keep(store: &Store, component: &str, images: &[(&str, &[u8])]) -> Metadata {
    let draft = store.begin(component).expect("a draft");
    for (name, bytes) in images {
        fs::write(draft.images().join(name), bytes).expect("an image");
    }
    draft.commit(facts(), None).expect("a checkpoint")
}

/// Where it lies.
pub fn place(store: &Store, component: &str, id: &Id) -> PathBuf {
    store.path().join(component).join(id.as_str())
}
