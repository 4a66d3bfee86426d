//! What cannot be set keeps a component from being started, by name, unless it is optional.

use yakiros_core::journal::State;

use super::{declare, said, start};
use crate::guest::{Guest, until};

/// A processor that no machine has.
const NOWHERE: &str = "[resources]\ncpu_affinity = [8191]";

pub fn failed(guest: &Guest, name: &str) -> String {
    until("the declaration", || guest.status().0.iter().any(|c| *c.name == *name).then_some(()));
    guest.wait(name, State::Failed, None);
    guest.component(name).detail.expect("a reason")
}

#[test]
fn a_start_that_cannot_have_what_is_declared_is_refused_by_name() {
    let Some(guest) = start() else { return };
    for (name, more, expected) in [
        ("user", "[security]\nuser = \"no-such-user\"", "find the user \"no-such-user\" in /etc/passwd"),
        (
            "group",
            "[security]\ngroups = [\"no-such-group\"]",
            "find the group \"no-such-group\" in /etc/group",
        ),
        ("processors", NOWHERE, "set the processors that it may run on: invalid argument"),
        (
            "directory",
            "[environment]\nworking_directory = \"/no/such\"",
            "change to the directory /no/such: no such file",
        ),
    ] {
        declare(&guest, name, &format!("echo ran > @DIR@/{name}.ran"), more);
        let detail = failed(&guest, name);
        assert!(detail.contains(&format!("failed to {expected}")), "{name}: {detail}");
        assert!(!guest.dir.path().join(format!("{name}.ran")).exists(), "{name} ran");
    }
}

#[test]
fn what_is_optional_is_told_and_gone_without() {
    let Some(guest) = start() else { return };
    let more = format!("{NOWHERE}\n[security]\noptional = [\"scheduling\"]");
    declare(&guest, "optional", "echo ran", &more);
    until("the declaration", || (!guest.status().0.is_empty()).then_some(()));
    guest.wait("optional", State::Done, None);
    assert_eq!(said(&guest, "optional"), "ran");
    let told = "optional runs without what is optional: failed to set the processors that it may run on: Invalid argument";
    assert!(guest.log().contains(told), "{}", guest.log());
}
