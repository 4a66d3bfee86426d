//! What the services are connected with: from the moment before the first of them is written down until all are there again
//! below the next kernel, nothing is to arrive on that.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use yakiros_checkpoint::barrier::{self, Barrier, Connections};
use yakiros_checkpoint::criu::has_nf_tables;
use yakiros_core::engine::HOLD_LIMIT;
use yakiros_kexec::phases::{Note, Service};

use super::files;
use crate::client::Client;
use crate::inspect;
use crate::output::count;

/// For process 1 to end everything else, from the word to execute the kernel: components have ten seconds each to stop where
/// they declare no longer, those that others need after those, and then the disks a minute and a half.
const END_LIMIT: Duration = Duration::from_secs(300);
/// How often one looks again for what was made while the last of it was closed. Who makes connections all the time would
/// never let it come to an end; whether the one that counts was among them is seen before the jump.
const LOOKS: usize = 3;

/// The services' connections as they are now.
pub fn of(client: &mut Client, services: &[Service]) -> io::Result<Connections> {
    let supervisor = client.supervisor().ok();
    let pids = services.iter().flat_map(|Service { component, pid, .. }| {
        let group = supervisor.and_then(|own| inspect::group_of(*pid, own, component));
        files::processes(group.as_deref(), *pid)
    });
    Connections::of(pids.filter_map(|pid| pid.parse().ok()))
}

/// What is closed, as far as there was something to close and something to close it with.
#[derive(Debug, Default)]
pub struct Closed {
    barrier: Option<Barrier>,
    /// Something stands still: what is not closed loses what arrives.
    is_held: bool,
}

impl Closed {
    /// Have nothing arrive from now on, on whatever there is by now. It ends by itself when the services go on by
    /// themselves, and with this process.
    pub fn close(&mut self, mut look: impl FnMut() -> io::Result<Connections>) -> Result<(), String> {
        self.is_held = true;
        for _ in 0..LOOKS {
            if self.add(&look().map_err(|error| error.to_string())?)? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// How many connections were not closed before.
    fn add(&mut self, now: &Connections) -> Result<usize, String> {
        let added = if let Some(barrier) = &mut self.barrier {
            barrier.more(now)
        } else {
            // What another has left who was on the way is nobody's: there is one at a time.
            let _ = barrier::take_left();
            Barrier::raise(now, HOLD_LIMIT).map(|raised| {
                self.barrier = Some(raised);
                now.pairs.len()
            })
        };
        match added {
            // Without connections there is nothing that could be lost.
            Err(_) if now.pairs.is_empty() => Ok(0),
            Err(error) => {
                Err(format!("what is sent to the services meanwhile would be lost: nf_tables: {error}"))
            }
            Ok(count) => Ok(count),
        }
    }

    /// What the next kernel has to close, when everything stands still that does so, and this is what there is: nothing that
    /// was made while its end was written down may have been open.
    pub fn carried(&self, now: Connections) -> Result<Connections, String> {
        let closed = self.barrier.as_ref().map(Barrier::closed).cloned().unwrap_or_default();
        let open = match &self.barrier {
            Some(barrier) => barrier.open(&now),
            None => now.pairs.first().map(|first| (*first, now.pairs.len() - 1)),
        };
        if let Some(open) = open.filter(|_| self.is_held) {
            return Err(refusal(open));
        }
        let mut all = closed;
        all.extend(now);
        Ok(all)
    }

    /// The same until the kernel is executed, which outlasts this process.
    pub fn close_for_good(&self) -> Result<(), String> {
        let Some(barrier) = &self.barrier else { return Ok(()) };
        match barrier::leave(barrier.closed(), END_LIMIT) {
            Err(error) if !barrier.closed().pairs.is_empty() => {
                Err(format!("what is sent to the services meanwhile would be lost: nf_tables: {error}"))
            }
            _ => Ok(()),
        }
    }
}

fn refusal(((local, remote), more): ((SocketAddr, SocketAddr), usize)) -> String {
    let others = if more == 0 { String::new() } else { format!(", as {more} more were") };
    format!(
        "the connection of {local} with {remote} was made while its end was written down{others}, and what has arrived there \
         since would be lost: do it again when fewer are made"
    )
}

/// Let it arrive again.
pub fn open(closed: &mut Closed) -> Result<(), String> {
    *closed = Closed::default();
    if !has_nf_tables() {
        return Ok(());
    }
    barrier::take_left()
        .map(drop)
        .map_err(|error| format!("connections are kept waiting: nf_tables: {error}"))
}

/// What becomes of connections that there are.
pub fn note(found: io::Result<Connections>) -> Note {
    judge(found, &barrier::try_out())
}

fn judge(found: io::Result<Connections>, can_be_closed: &io::Result<()>) -> Note {
    let note = |detail: String, fix: Option<&str>| Note {
        name: "connections".to_owned(),
        ok: fix.is_none(),
        detail,
        fix: fix.map(str::to_owned),
    };
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            let fix = "have the services end some of them";
            return note(format!("they cannot be looked at: {error}"), Some(fix));
        }
    };
    let (ends, places) = (found.pairs.len(), found.listeners.len());
    let mut detail = match (can_be_closed, ends) {
        (Ok(()), _) => format!(
            "{} of connections and {} to listen at: what is sent there meanwhile waits",
            count(ends, "end"),
            count(places, "place")
        ),
        (Err(error), 0) => format!("there are none; if one is made, there is no jump: nf_tables: {error}"),
        (Err(error), _) => format!(
            "{} of connections cannot be closed, and what is sent there meanwhile would be lost: nf_tables: {error}",
            count(ends, "end")
        ),
    };
    if found.elsewhere > 0 {
        let elsewhere = count(found.elsewhere, "end");
        // A String takes everything.
        let _ = write!(detail, "; {elsewhere} more are in networks of services' own, and need not be closed");
    }
    let is_lost = can_be_closed.is_err() && ends > 0;
    note(detail, is_lost.then_some("load the kernel module nf_tables: see `graphctl checkpoint --check`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(all: &[(&str, &str)]) -> Connections {
        let end = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let pairs = all.iter().map(|(local, remote)| (end(local), end(remote))).collect();
        Connections { pairs, ..Connections::default() }
    }

    #[test]
    fn what_was_made_while_its_end_was_written_down_is_refused() {
        let now = pairs(&[("10.0.0.1:80", "10.0.0.2:9"), ("10.0.0.1:81", "10.0.0.2:9")]);
        // A trial leaves everything as it is.
        assert_eq!(Closed::default().carried(now.clone()), Ok(now.clone()));
        let closed = Closed { barrier: None, is_held: true };
        let why = closed.carried(now).expect_err("nothing is closed");
        assert!(why.contains("10.0.0.1:80 with 10.0.0.2:9") && why.contains("as 1 more were"), "{why}");
        assert_eq!(closed.carried(pairs(&[])), Ok(pairs(&[])));
    }

    #[test]
    fn what_can_be_closed_and_what_cannot_is_told_with_numbers() {
        let one = || pairs(&[("10.0.0.1:80", "10.0.0.2:9")]);
        let no = || Err(io::Error::from_raw_os_error(nix::libc::EPROTONOSUPPORT));
        let good = judge(Ok(Connections { elsewhere: 2, ..one() }), &Ok(()));
        assert!(good.ok && good.detail.starts_with("1 end of connections and 0 places"), "{good:?}");
        assert!(good.detail.contains("2 ends more are in networks of services' own"), "{good:?}");
        let lost = judge(Ok(one()), &no());
        assert!(!lost.ok && lost.fix.is_some() && lost.detail.contains("cannot be closed"), "{lost:?}");
        let none = judge(Ok(pairs(&[])), &no());
        assert!(none.ok && none.detail.contains("there are none"), "{none:?}");
        let unknown = judge(Err(io::Error::other("there are too many")), &Ok(()));
        assert!(!unknown.ok && unknown.detail.contains("too many"), "{unknown:?}");
    }
}
