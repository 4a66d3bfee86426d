//! Carries orders out.

mod dump;
mod listeners;
mod live;
mod mend;
mod passage;
mod remount;
mod restore;
mod stored;
mod work;

use std::io::Write;
use std::path::Path;

pub use stored::{Swept, sweep};

use crate::criu::{Criu, Known};
use crate::order::{Ear, Event, Failure, Job, Name, Order, Step, Teller, VERSION};
use crate::store::Id;

/// Do what is ordered, and tell of it; false if it failed.
pub fn run<W: Write>(order: &Order, ear: &mut Ear, teller: &mut Teller<W>) -> std::io::Result<bool> {
    let result = carry_out(order, ear, teller);
    let succeeded = result.is_ok();
    teller.tell(match result {
        Ok((message, checkpoint)) => Event::Done { message, checkpoint },
        Err(Failure { step, reason }) => Event::Failed { step, reason },
    })?;
    Ok(succeeded)
}

type Done = (String, Option<Name>);

fn carry_out<W: Write>(order: &Order, ear: &mut Ear, teller: &mut Teller<W>) -> Result<Done, Failure> {
    if order.version != VERSION {
        let reason = format!("an order of version {}; this program reads version {VERSION}", order.version);
        return Err(Failure { step: Step::Open, reason });
    }
    let (base, known) = (&order.base, order.known.as_ref());
    match &order.job {
        Job::Preflight { criu, pid } => live::preflight(criu, *pid, teller),
        Job::Dump(dump) => dump::carry_out(base, dump, known, teller),
        Job::Move(wanted) => passage::carry_out(base, wanted, known, ear, teller),
        Job::Restore(wanted) => restore::carry_out(base, wanted, known, ear, teller),
        Job::Verify { component, id } => stored::verify(base, component, id.as_ref(), teller),
        Job::Remove { component, id } => stored::remove(base, component, id, teller),
        Job::Mend { component, work } => stored::mend(base, component, work.as_deref(), teller),
        Job::Raise { list, limit } => passage::raise(list, *limit, ear, teller),
        Job::Lower { on_the_way } => passage::lower(on_the_way, teller),
        Job::Cleanup { policy, component } => stored::cleanup(base, policy, component.as_deref(), teller),
        Job::Export { component, id, to } => stored::export(base, component, id.as_ref(), to, teller),
        Job::Import { from, quota } => stored::import(base, from, *quota, teller),
    }
}

/// The CRIU at this path, and what it is.
fn find_criu<W: Write>(path: &Path, known: Option<&Known>, teller: &mut Teller<W>) -> Result<Criu, Failure> {
    let (criu, news) = teller.step(Step::Criu, || Criu::find_again(path, known))?;
    if let Some(known) = news {
        teller.found(Step::Criu, Event::Known { known })?;
    }
    Ok(criu)
}

fn named(component: &str, id: &Id) -> Name {
    Name { component: component.to_owned(), id: id.clone() }
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> String {
    format!("failed to {what} {}: {error}", path.display())
}
