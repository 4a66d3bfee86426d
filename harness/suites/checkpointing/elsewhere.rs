//! Checkpoints that go on in another machine.

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::client::Client;
use super::{REACTION, STATEFUL, attempt, checkpoint, list, restore};

/// The archive, in both machines.
const FILE: &str = "/run/moved.tar";
/// The same, damaged.
const DAMAGED: &str = "/run/damaged.tar";
/// The program of the service.
const PROGRAM: &str = "/usr/local/bin/test-stateful-service";

pub async fn another_machine(vm: &Vm) -> Result<(), Failure> {
    let mut client = Client::connect(vm).await?;
    for _ in 0..5 {
        client.increment(vm).await?;
    }
    client.tell(vm, "from the first machine").await?;
    let made = checkpoint(vm, STATEFUL).await?;
    vm.graphctl_within(&["migrate", STATEFUL, &made.id, "--to", FILE], REACTION).await?;
    let archive = vm.ask("read the archive", REACTION, vm.guest.agent.read_file(FILE)).await?;
    check!(
        archive.len() as u64 > made.bytes,
        "images with {} bytes are {} in all",
        made.bytes,
        archive.len()
    );

    let there = vm.another().await?;
    let mut client = Client::connect(&there).await?;
    check!(client.increment(&there).await? == 1, "the other machine's service has counted before");
    let write = there.guest.agent.write_file(FILE, 0o600, true, &archive);
    there.ask("write the archive", REACTION, write).await?;
    refused_if_damaged(&there, archive).await?;
    there.graphctl_within(&["migrate", "--from", FILE], REACTION).await?;
    let again = restore(&there, STATEFUL, &made.id).await?;
    check!(again.id.as_deref() == Some(&made.id), "in the other machine it goes on from {again:?}");
    let mut client = Client::connect(&there).await?;
    let status = client.status(&there).await?;
    check!(
        status["counter"] == 5 && status["last_message"] == "from the first machine",
        "it was written down at 5, and goes on with {status}"
    );
    check!(client.increment(&there).await? == 6, "it does not count on");
    // Both go on, each for itself.
    check!(Client::connect(vm).await?.count(vm).await? == 5, "the first one has changed");
    refused_if_the_program_is_another(&there, &made.id).await?;
    there.still_works().await.map(drop)
}

/// Nothing is taken in, and nothing is left.
async fn refused_if_damaged(there: &Vm, mut archive: Vec<u8>) -> Result<(), Failure> {
    let middle = archive.len() / 2;
    archive[middle] ^= 1;
    for (what, length, says) in
        [("damaged", archive.len(), ".img"), ("cut", archive.len() / 3, "the archive")]
    {
        let write = there.guest.agent.write_file(DAMAGED, 0o600, true, &archive[..length]);
        there.ask("write the archive", REACTION, write).await?;
        let (done, text, error) = attempt(there, &["migrate", "--from", DAMAGED]).await?;
        check!(!done && error.contains(says), "of a {what} archive it says {text}{error:?}");
        check!(list(there, STATEFUL).await?.is_empty(), "a {what} archive is taken in");
    }
    Ok(())
}

/// It has the same name, and is not the program that was running.
async fn refused_if_the_program_is_another(there: &Vm, id: &str) -> Result<(), Failure> {
    let other = format!("cp {PROGRAM} {PROGRAM}.new; echo >> {PROGRAM}.new; mv {PROGRAM}.new {PROGRAM}");
    there.sh(&other).await?;
    let (done, text, error) = attempt(there, &["restore", STATEFUL, id, "--no-fallback"]).await?;
    check!(
        !done && error.contains(PROGRAM.trim_start_matches('/')),
        "with another program it was made again, or it is not named: {text}{error:?}"
    );
    let again = restore(there, STATEFUL, id).await?;
    check!(
        again.id.is_none() && again.passed_over.is_some(),
        "what cannot be made again is started anew with the reason, and here it says {again:?}"
    );
    check!(
        Client::connect(there).await?.count(there).await? == 0,
        "what is started anew remembers something"
    );
    Ok(())
}
