//! Keys of control groups that components share.

use super::{Fallback, Key, NONE, Shape, key};

pub(super) const SLICE: &[Key] = &[
    key(
        "name",
        Shape::SlicePath,
        Fallback::Required,
        "The slice's name, unique among all files. It says where the slice lies, too: `batch/reports` in `batch`, which a \
         file has to declare as well.",
    ),
    key("description", Shape::Text, NONE, "What it is for, in words."),
];
