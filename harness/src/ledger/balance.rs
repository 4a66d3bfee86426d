//! The comparison of two accounts: what is there, or gone, and belongs to nobody. Pure.
//!
//! The rules, each a function of the table [`RULES`]:
//! - a **process** belongs to the component that runs in its control group, to the agent, to the kernel, or was there before
//!   outside of the supervisor's groups. A zombie that process 1 should have reaped belongs to nobody;
//! - a **watch** (inotify) of a control group's file has a group that is there: the kernel keeps those of groups that
//!   are gone until they are taken away;
//! - a **control group** below the supervisor's belongs to a component that is declared (it goes with the declaration, not
//!   with the process); that of one process of a component that hands over goes with the process;
//! - a **descriptor of process 1** is its own, or one of those that a component has by what it is (see
//!   [`super::descriptors`]);
//! - a **mount** of process 1 was there before, and those that were are still; each other namespace belongs to its processes;
//! - a **socket** is held by a process;
//! - a **file** of the supervisor's directory is a log, or a socket, of a component that is declared;
//! - a **timer** is process 1's one;
//! - a **table** of nf_tables was there before: one too many keeps somebody's connections closed;
//! - what the **kernel** holds for itself grows by no more than a part that is explained. Control groups that are removed and
//!   still *dying* are counted and not judged: the kernel keeps each until the last page that is charged to it is used by
//!   nobody, which may be the page cache of a program that others run too, and no process can have it wait for less
//!   (`Documentation/admin-guide/cgroup-v2.rst`, `nr_dying_descendants`).

use yakiros_guest::ledger::{DescriptorKind, Ledger};
use yakiros_reports::event::LedgerRow;

use super::Account;
use super::descriptors;
use super::owners::Owners;
use super::things;

/// What things are counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Of everybody; threads of the kernel aside.
    Processes,
    /// Of process 1, of any kind.
    Descriptors,
    /// Of process 1.
    Pidfds,
    /// Of process 1: descriptors of timers, and POSIX timers.
    Timers,
    /// Of process 1: files that it has the kernel tell of.
    Watches,
    /// All below the root.
    Groups,
    /// Of process 1.
    Mounts,
    /// Of any kind, with a process in it.
    Namespaces,
    /// Of all network namespaces.
    Sockets,
    /// In `/run` and `/tmp`.
    Files,
    /// Of nf_tables, of the network namespace of process 1.
    Tables,
    /// The kernel's memory that it cannot take back, in KiB.
    Slab,
    /// Control groups that are removed and whose memory is not given back yet.
    Dying,
}

/// A row of the account.
struct Row {
    what: What,
    name: &'static str,
    count: fn(&Ledger) -> u64,
}

/// In the order of the report.
const ROWS: [Row; 13] = [
    Row { what: What::Processes, name: "processes", count: processes },
    Row {
        what: What::Descriptors,
        name: "descriptors of process 1",
        count: |all| all.descriptors.len() as u64,
    },
    Row { what: What::Pidfds, name: "pidfds of process 1", count: |all| of_kind(all, DescriptorKind::Pidfd) },
    Row {
        what: What::Timers,
        name: "timers of process 1",
        count: |all| of_kind(all, DescriptorKind::Timerfd) + all.posix_timers,
    },
    Row { what: What::Watches, name: "watches of process 1", count: |all| all.watches.len() as u64 },
    Row { what: What::Groups, name: "control groups", count: |all| all.groups.len() as u64 },
    Row {
        what: What::Mounts,
        name: "mounts, all namespaces",
        count: |all| all.mounts.iter().map(|one| one.count).sum(),
    },
    Row { what: What::Namespaces, name: "namespaces", count: things::namespaces },
    Row { what: What::Sockets, name: "sockets", count: |all| all.sockets.len() as u64 },
    Row { what: What::Files, name: "files in /run and /tmp", count: |all| all.files.len() as u64 },
    Row { what: What::Tables, name: "tables of nf_tables", count: |all| all.tables.len() as u64 },
    Row { what: What::Slab, name: "kernel slab, KiB", count: |all| kernel(all, "slab_kb") },
    Row { what: What::Dying, name: "control groups dying", count: |all| kernel(all, "dying_groups") },
];

fn processes(all: &Ledger) -> u64 {
    all.processes.iter().filter(|process| !process.of_kernel).count() as u64
}

fn of_kind(all: &Ledger, kind: DescriptorKind) -> u64 {
    all.descriptors.iter().filter(|descriptor| descriptor.kind == kind).count() as u64
}

fn kernel(all: &Ledger, name: &str) -> u64 {
    all.kernel.get(name).copied().unwrap_or(0)
}

/// One thing that is there, or gone, and belongs to nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    what: Option<What>,
    /// In one line, with its name.
    pub text: String,
}

impl Finding {
    /// One of a kind.
    pub fn new(what: What, text: impl Into<String>) -> Self {
        Self { what: Some(what), text: text.into() }
    }

    /// Something is not at rest, so nothing can be said.
    pub fn unsettled(text: String) -> Self {
        Self { what: None, text }
    }

    /// Whether it depends on which groups are declared.
    pub fn is_about_groups(&self) -> bool {
        matches!(self.what, Some(What::Groups | What::Processes | What::Watches))
    }
}

/// What a comparison came to.
#[derive(Debug, Clone, Default)]
pub struct Balance {
    /// What was counted, in the order of the report.
    pub rows: Vec<LedgerRow>,
    /// Empty when everything has an owner.
    pub findings: Vec<Finding>,
}

/// Two accounts with their owners: before and after.
type Rule = fn(&Owners<'_>, &Owners<'_>) -> Vec<Finding>;

/// All rules.
const RULES: [Rule; 10] = [
    things::processes,
    things::groups,
    things::watches,
    descriptors::all,
    things::mounts,
    things::sockets,
    things::files,
    things::timers,
    things::tables,
    things::kernel,
];

/// Compares two accounts.
pub fn compare(before: &Account, after: &Account) -> Balance {
    let (was, is) = (Owners::of(before), Owners::of(after));
    let findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(&was, &is)).collect();
    let rows = ROWS.iter().map(|row| LedgerRow {
        what: row.name.into(),
        before: (row.count)(&before.ledger),
        after: (row.count)(&after.ledger),
        unowned: findings.iter().filter(|finding| finding.what == Some(row.what)).count() as u64,
    });
    Balance { rows: rows.collect(), findings }
}

#[cfg(test)]
mod tests;
