//! Fetching an entry anew that is still served: nobody waits for it.

use super::{Fill, Filled, Lock, Wanted, seed};
use crate::cache::flight::{Flight, FlightCell, Join};
use crate::cache::{Entry, Found};
use crate::deferred::settle;
use crate::http::Body;
use crate::ports::Ports;
use crate::visit::Visit;

/// What became of a refresh.
#[derive(Debug)]
pub enum Refreshed {
    Stored(Entry),
    /// Stored under tags that were not read: whoever waits for it must look it up.
    Tagged,
    /// Somebody else has done it: this is there now.
    Newer(Entry),
    /// Somebody else does it, or has found just now that it cannot be done.
    Held,
    /// The origin is well and said what is not stored.
    Unstored,
    Failed,
}

/// Fetches an entry anew, unless somebody else does, or has: one that is fresh for longer
/// than until `than_ms` is newer than what was to be refreshed.
pub async fn refresh<P: Ports>(
    visit: &Visit<'_, P>,
    wanted: &Wanted,
    generations: Vec<Option<String>>,
    than_ms: u64,
) -> Refreshed {
    let Some(generations) = seed(visit, &wanted.lookup, generations).await else {
        return Refreshed::Failed;
    };
    let fill = Fill {
        is_refresh: true,
        ..Fill::new(visit, wanted, generations, "")
    };
    let Join::Lead(cell) = fill.join() else {
        return Refreshed::Held;
    };
    let is_newer = |entry: &Entry| entry.fresh_until_ms > than_ms;
    match fill.take_lock().await {
        Lock::Taken {
            found: Found::Fresh(entry),
            ..
        } if is_newer(&entry) => fill.leave_to(&cell, entry),
        Lock::Taken {
            found: Found::Foreign(entry),
            ..
        } => fill.leave_to(&cell, entry),
        Lock::Taken { found, generations } => {
            let older = match found {
                Found::Stale(entry) | Found::Fresh(entry) => Some(entry),
                _ => None,
            };
            let filled = fill.ask_origin(&cell, generations, older).await;
            refreshed(visit, &cell, filled)
        }
        Lock::Again { tags, is_ours } => {
            fill.again(&cell, tags, is_ours);
            Refreshed::Held
        }
        // Followers of this flight were on their own anyway: they had the older entry.
        lock => {
            settle(&cell, Flight::Uncacheable);
            fill.land();
            match lock {
                Lock::Filled(entry) if is_newer(&entry) => Refreshed::Newer(entry),
                Lock::Failed(_) | Lock::Lost => Refreshed::Failed,
                _ => Refreshed::Held,
            }
        }
    }
}

fn refreshed<P: Ports>(
    visit: &Visit<'_, P>,
    cell: &FlightCell,
    filled: Filled<P::Body>,
) -> Refreshed {
    let Filled::Own(response, status) = filled else {
        return Refreshed::Failed;
    };
    let is_failing = is_failing(response.status);
    if let Body::Upstream(body) = response.body {
        visit.ports.discard(body);
    }
    match &*cell.borrow() {
        Flight::Done(entry) if status.is_kept() => Refreshed::Stored(entry.clone()),
        _ if status.is_kept() => Refreshed::Tagged,
        _ if is_failing => Refreshed::Failed,
        _ => Refreshed::Unstored,
    }
}

/// An origin that fails or is too busy.
pub fn is_failing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..)
}
