//! Work after the answer, as values.
//!
//! `gateway::handle` returns it, the edge runs it in `wait_until`; nothing else
//! outlives a request.

use crate::together::all;

use crate::cache::flight::Flight;
use crate::cache::purge::Purge;
use crate::fill::{self, Wanted};
use crate::gateway::Gateway;
use crate::ports::{Ports, Store};
use crate::redis::{Batch, Command};
use crate::visit::Visit;

/// Nothing waits for it any more, so it may take longer than a visitor's trip;
/// a lost refund costs accuracy, never the bound.
pub const DEFERRED_REDIS_TIMEOUT_MS: u64 = 2_000;

/// Pauses before a purge is tried again.
const PURGE_RETRY_MS: [u64; 3] = [200, 1_000, 5_000];

#[derive(Debug, Clone, PartialEq)]
pub enum Deferred {
    /// Refunds and expiries of limits, adopted records of the cache.
    Send { store: Store, batch: Batch },
    /// Ends a fill at Redis, then in this isolate.
    EndFill { flight: String, batch: Batch },
    /// Fetches an entry that was served stale.
    Refresh {
        wanted: Wanted,
        generations: Vec<Option<String>>,
    },
    /// A purge that Redis has not confirmed.
    Purge { purge: Purge },
}

/// Does all the work side by side, and the work that follows from it: the platform ends
/// it some time after the answer, and a composed answer may have many entries to refresh.
pub async fn run<P: Ports>(gateway: &Gateway, ports: &P, work: Vec<Deferred>) {
    all(work.into_iter().map(|next| perform(gateway, ports, next))).await;
}

async fn perform<P: Ports>(gateway: &Gateway, ports: &P, work: Deferred) {
    match work {
        Deferred::Send { store, batch } => {
            send(ports, store, &batch).await;
        }
        Deferred::EndFill { flight, batch } => {
            if !send(ports, Store::Cache, &batch).await {
                // Nobody should wait for a lock whose holder is done.
                let unlock = Command::new("DEL").arg(flight.as_str());
                send(ports, Store::Cache, &Batch::pipeline(vec![unlock])).await;
            }
            gateway.flights.borrow_mut().land(&flight);
        }
        Deferred::Refresh {
            wanted,
            generations,
        } => {
            let visit = Visit::new(gateway, ports);
            fill::refresh(&visit, &wanted, generations).await;
            // What follows is the end of that fill, never another refresh.
            Box::pin(run(gateway, ports, visit.take_deferred())).await;
        }
        Deferred::Purge { purge } => {
            for pause_ms in PURGE_RETRY_MS {
                ports.sleep(pause_ms).await;
                // A new generation each time: the last one may have been set after
                // all, and to set it again would bring back what a later purge ended.
                let batch = purge.batch(ports.random());
                if send(ports, Store::Cache, &batch).await {
                    break;
                }
            }
        }
    }
}

async fn send<P: Ports>(ports: &P, store: Store, batch: &Batch) -> bool {
    match ports
        .pipeline(store, batch, DEFERRED_REDIS_TIMEOUT_MS)
        .await
    {
        Ok(replies) => !replies.iter().any(crate::redis::Reply::is_error),
        Err(error) => {
            ports.log(&error.to_string());
            false
        }
    }
}

/// Sets a flight's outcome for those that look at it.
pub fn settle(cell: &crate::cache::flight::FlightCell, outcome: Flight) {
    *cell.borrow_mut() = outcome;
}
