//! Kills for want of memory and limits that were reached: in whose group, and who was it.
//!
//! The kernel counts a kill before it sends the signal. So what an end shows is told before the end, and a kill that the
//! end has told is not told again. Whatever tells of it first is acted on: its log, which waits for no more than a tick;
//! its word on the group, which it may hold back for 10 ms and more; the end of the process.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use nix::libc;
use tracing::error;
use yakiros_core::control::Strain;
use yakiros_core::engine::{Event, RunId};
use yakiros_core::journal::{Exit, OutOfMemory};

use super::{Process, Processes};
use crate::cgroup::Counts;
use crate::freezer;
use crate::kernel_log::{Kill, Scope};
use crate::supervisor::Supervisor;
use crate::sys;

/// Records of the kernel's log that are read before everybody else gets a chance: the report of a kill has about forty,
/// and one more for each process that could have been it.
const READ_BUDGET: usize = 256;

/// Pause after so many: whoever floods the log keeps the supervisor busy for no more than some hundredths of the time.
const READ_PAUSE: Duration = Duration::from_millis(10);

/// The most that are read after a kill, to have what the log says of it: more than a log of the usual size holds.
const LOOK_BUDGET: usize = 16 * 1024;

/// One process of those that are in a group.
#[derive(Clone, Copy)]
struct Member {
    run: RunId,
    /// Of its own process.
    pid: Option<i32>,
    /// That one has just ended so.
    ended: Option<Exit>,
}

/// Act on what the kernel tells of control groups, for ever.
pub async fn follow(supervisor: Rc<Supervisor>) {
    let descriptor = supervisor.processes.borrow().cgroups.descriptor();
    let watched = match descriptor.map(|descriptor| descriptor.and_then(sys::watch)) {
        None => return,
        Some(Ok(watched)) => watched,
        Some(Err(error)) => return error!("failed to wait for events of control groups: {error}"),
    };
    // What happened while one process image followed another was told to nobody.
    let groups = supervisor.processes.borrow().cgroups.in_use();
    for path in &groups {
        look(&supervisor, path, None);
    }
    loop {
        match watched.readable().await {
            Ok(mut ready) => ready.clear_ready(),
            Err(error) => return error!("failed to wait for events of control groups: {error}"),
        }
        while look_at_changed(&supervisor) {
            tokio::task::yield_now().await;
        }
    }
}

/// Act on what the kernel's log says of kills, for ever.
pub async fn follow_log(supervisor: Rc<Supervisor>) {
    let descriptor = supervisor.processes.borrow().kernel_log.descriptor();
    let watched = match descriptor.map(|descriptor| descriptor.and_then(sys::watch)) {
        None => return,
        Some(Ok(watched)) => watched,
        Some(Err(error)) => return error!("failed to wait for the kernel's log: {error}"),
    };
    loop {
        match watched.readable().await {
            Ok(mut ready) => ready.clear_ready(),
            Err(error) => return error!("failed to wait for the kernel's log: {error}"),
        }
        loop {
            let more = supervisor.processes.borrow_mut().kernel_log.read(READ_BUDGET);
            look_at_killed(&supervisor);
            if !more {
                break;
            }
            tokio::time::sleep(READ_PAUSE).await;
        }
    }
}

/// Look at the groups in which somebody was killed, by what was read of the kernel's log.
fn look_at_killed(supervisor: &Rc<Supervisor>) {
    let killed = supervisor.processes.borrow_mut().kernel_log.take_killed();
    for path in killed {
        let groups = supervisor.processes.borrow().cgroups.named_in_log(&path);
        for group in &groups {
            look_at(supervisor, group, None);
        }
    }
}

/// Whether there is more to look at.
fn look_at_changed(supervisor: &Rc<Supervisor>) -> bool {
    let (changed, more) = supervisor.processes.borrow_mut().cgroups.changed();
    for path in &changed {
        look(supervisor, path, None);
        freezer::look(supervisor, path);
    }
    more
}

/// The process of a run was reaped: what has happened in its group until then is told before its end.
pub(super) fn look_at_end(supervisor: &Rc<Supervisor>, run: RunId, pid: i32, exit: Exit) {
    let path = {
        let own = supervisor.processes.borrow();
        own.runs.get(&run).and_then(|process| process.cgroup.as_ref()).map(|own| Rc::clone(own.path()))
    };
    if let Some(path) = path {
        look(supervisor, &path, Some(Member { run, pid: Some(pid), ended: Some(exit) }));
    }
}

/// Tell what has happened in a group since the last look, and in others what the kernel's log says meanwhile.
fn look(supervisor: &Rc<Supervisor>, path: &Path, ended: Option<Member>) {
    look_at(supervisor, path, ended);
    look_at_killed(supervisor);
}

fn look_at(supervisor: &Rc<Supervisor>, path: &Path, ended: Option<Member>) {
    let events = {
        let mut own = supervisor.processes.borrow_mut();
        let Some(mut happened) = own.cgroups.look(path) else { return };
        if happened.kills > 0 {
            own.kernel_log.read(LOOK_BUDGET);
            // What the log has is counted by now.
            happened = happened + own.cgroups.look(path).unwrap_or_default();
        }
        own.tell(path, happened, ended)
    };
    for event in events {
        supervisor.dispatch(event);
    }
}

impl Processes {
    fn tell(&mut self, path: &Path, happened: Counts, ended: Option<Member>) -> Vec<Event> {
        let in_it = |process: &&Process| process.cgroup.as_ref().is_some_and(|own| **own.path() == *path);
        let members = self.runs.iter().filter(|(_, process)| in_it(&&***process));
        let mut members: Vec<_> = members
            .map(|(run, process)| match ended {
                Some(ended) if ended.run == *run => ended,
                _ => Member { run: *run, pid: process.pid, ended: process.ended },
            })
            .collect();
        members.sort_by_key(|member| member.run);
        let mut events = strains(happened, &self.held_up(path, &members));
        if happened.kills == 0 {
            return events;
        }
        let kills = self.cgroups.kills(path, self.kernel_log.kept(), happened.kills);
        let is_own = |member: &Member| self.runs.get(&member.run).is_some_and(|process| process.delegated);
        let (kills, count) = if !members.is_empty() && members.iter().all(is_own) {
            without_inner(kills, happened.kills)
        } else {
            (kills, happened.kills)
        };
        if count == 0 {
            return events;
        }
        let hit = members.iter().find(|member| member.was_killed(&kills, count)).copied();
        let shared = hit.is_none() && members.iter().any(|member| self.shares(member.run));
        let told = hit.map_or(members, |hit| vec![hit]);
        let event = |member: &Member| {
            let what = self.describe(member, hit.is_some(), count, &kills);
            Event::OutOfMemory(member.run, OutOfMemory { shared, ..what })
        };
        events.extend(told.iter().map(event));
        events
    }

    /// Whom the limits of a group hold up: who is in it, or one process of each component whose processes are in groups
    /// inside of it, for what holds one of them up is the component's.
    fn held_up(&self, path: &Path, members: &[Member]) -> Vec<RunId> {
        if !members.is_empty() {
            return members.iter().map(|member| member.run).collect();
        }
        let of = |process: &Process| {
            let own = process.cgroup.as_ref()?;
            (**self.cgroups.whole(&process.name, own).path() == *path).then(|| Rc::clone(&process.name))
        };
        let inside = self.runs.iter().filter_map(|(run, process)| Some((of(process)?, *run)));
        let mut first = BTreeMap::new();
        for (name, run) in inside {
            first.entry(name).and_modify(|known: &mut RunId| *known = run.min(*known)).or_insert(run);
        }
        first.into_values().collect()
    }

    /// Whether the group of a run is another's too.
    fn shares(&self, run: RunId) -> bool {
        let group = self.runs.get(&run).and_then(|process| process.cgroup.as_ref());
        group.is_some_and(|group| self.cgroups.is_shared(group))
    }

    fn describe(&self, member: &Member, main: bool, count: u64, kills: &[Kill]) -> OutOfMemory {
        let Some(process) = self.runs.get(&member.run) else { return OutOfMemory::default() };
        let own = process.cgroup.as_ref();
        let whole = own.map(|own| self.cgroups.whole(&process.name, own));
        let limit = own.and_then(|own| own.number("memory.max"));
        let mine = |kill: &&Kill| !main || Some(kill.victim.pid) == member.pid;
        let kill = kills.iter().find(mine);
        OutOfMemory {
            kills: count,
            limit: limit.or_else(|| whole.and_then(|whole| whole.number("memory.max"))),
            usage: own.and_then(|own| own.number("memory.current")),
            scope: kill.and_then(|kill| Some(self.cgroups.name_of(kill.scope.as_ref()?))),
            victim: kill.map(|kill| kill.victim.clone()),
            main,
            shared: false,
        }
    }
}

/// Kills without those for a limit of a group inside: whoever has made that group knows of them.
fn without_inner(mut kills: Vec<Kill>, count: u64) -> (Vec<Kill>, u64) {
    let all = kills.len();
    kills.retain(|kill| !matches!(kill.scope, Some(Scope::Inner(_))));
    let inner = all - kills.len();
    (kills, count.saturating_sub(inner as u64))
}

/// Limits that were reached, and nobody was killed for.
fn strains(happened: Counts, runs: &[RunId]) -> Vec<Event> {
    let counted = [("memory.high", happened.high), ("pids.max", happened.pids)];
    let counted = counted.into_iter().filter(|(_, times)| *times > 0);
    let event = |run: &RunId, what: &str, times| Event::Strained(*run, Strain { what: what.into(), times });
    counted.flat_map(|(what, times)| runs.iter().map(move |run| event(run, what, times))).collect()
}

impl Member {
    /// Whether its own process is one of those that were killed: by the log, or else by how it ended.
    fn was_killed(&self, kills: &[Kill], count: u64) -> bool {
        let named = kills.iter().any(|kill| Some(kill.victim.pid) == self.pid);
        // Of each kill that the log names, the victim is known to be another.
        let unnamed = (kills.len() as u64) < count;
        named || (unnamed && self.ended == Some(Exit::Signal(libc::SIGKILL)))
    }
}

#[cfg(test)]
mod tests {
    use yakiros_core::journal::Victim;

    use super::*;

    #[test]
    fn whether_it_was_the_process_itself_is_told_by_the_log_or_by_its_end() {
        let kill = |pid| Kill { victim: Victim { pid, name: "a".into() }, scope: None, time_us: None };
        let inner = Kill { scope: Some(Scope::Inner("/graph/a/b".into())), ..kill(9) };
        assert_eq!(without_inner(vec![inner, kill(7)], 3), (vec![kill(7)], 2), "of one nothing is known");
        let member = |ended| Member { run: RunId(1), pid: Some(7), ended };
        let (lives, killed) = (None, Some(Exit::Signal(libc::SIGKILL)));
        let cases = [
            (lives, vec![kill(7)], 1, true),
            (lives, vec![kill(8)], 1, false),
            (lives, vec![], 1, false),
            (killed, vec![kill(8)], 1, false),
            (killed, vec![kill(8)], 2, true),
            (killed, vec![], 1, true),
            (Some(Exit::Code(1)), vec![], 1, false),
        ];
        for (ended, kills, count, was) in cases {
            assert_eq!(member(ended).was_killed(&kills, count), was, "{ended:?} {kills:?} {count}");
        }
    }
}
