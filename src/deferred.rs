//! Work after the answer, as values.
//!
//! `gateway::handle` returns it, the edge runs it in `wait_until`; nothing else
//! outlives a request.

use crate::together::all;

use crate::cache::flight::Flight;
use crate::cache::purge::Purge;
use crate::cache::{Found, Lookup, Lookups};
use crate::controls;
use crate::exchange::{self, Exchange};
use crate::fill::{self, Wanted};
use crate::gateway::Gateway;
use crate::limit;
use crate::penalty;
use crate::ports::{Ports, Store};
use crate::redis::{Batch, Command, Reply};
use crate::views;
use crate::views::item::View;
use crate::visit::Visit;

/// Nothing waits for it any more, so it may take longer than a visitor's trip usually
/// may; a lost refund costs accuracy, never the bound.
const DEFERRED_REDIS_TIMEOUT_MS: u64 = 2_000;

/// Of a trip that is made once: no shorter than a visitor's, or a Redis that is known to be
/// slow would be read and never written.
pub fn timeout_ms(gateway: &Gateway) -> u64 {
    let visitors_ms = gateway.policy.defaults.timeout.redis_ms;
    visitors_ms.max(DEFERRED_REDIS_TIMEOUT_MS)
}

/// Pauses before a purge is tried again. With five timeouts of a Redis that hangs, all
/// are within the half minute that the platform lets work go on after an answer.
pub const PURGE_RETRY_MS: [u64; 5] = [200, 1_000, 3_000, 5_000, 8_000];

#[derive(Debug, Clone, PartialEq)]
pub enum Deferred {
    /// Refunds and expiries of limits, adopted records of the cache.
    Send { store: Store, batch: Batch },
    /// Ends a fill at Redis, then in this isolate: with the batch, or only its lock when
    /// the generations are others by now.
    EndFill {
        flight: String,
        only_if: Option<(Lookup, Vec<String>)>,
        batch: Batch,
    },
    /// Fetches an entry that was served stale.
    Refresh {
        wanted: Wanted,
        generations: Vec<Option<String>>,
    },
    /// The same of an answer in `http` mode.
    Revalidate {
        exchange: Box<Exchange>,
        generations: Vec<String>,
        variant: String,
    },
    /// Looks at the reports about an address, whose key-safe id this is.
    Look { ip: String, offset_ms: i64 },
    /// Charges what was counted while a database for limits was away.
    Merge { shard: usize },
    /// A purge that Redis has not confirmed.
    Purge { purge: Purge },
    /// Reads what operators have changed.
    Controls { ticket: u64 },
    /// What an answer has shown.
    Count { views: Vec<View> },
}

/// Does all the work side by side, and the work that follows from it: the platform ends
/// it some time after the answer, and a composed answer may have many entries to refresh.
pub async fn run<P: Ports>(gateway: &Gateway, ports: &P, work: Vec<Deferred>) {
    all(work.into_iter().map(|next| perform(gateway, ports, next))).await;
}

async fn perform<P: Ports>(gateway: &Gateway, ports: &P, work: Deferred) {
    match work {
        Deferred::Send { store, batch } => {
            send(ports, store, &batch, timeout_ms(gateway)).await;
        }
        Deferred::EndFill {
            flight,
            only_if,
            batch,
        } => {
            let timeout_ms = timeout_ms(gateway);
            let is_current = match &only_if {
                Some((lookup, generations)) => {
                    is_current(ports, lookup, generations, timeout_ms).await
                }
                None => true,
            };
            if !is_current || !send(ports, Store::Cache, &batch, timeout_ms).await {
                // Nobody should wait for a lock whose holder is done.
                let unlock = Command::new("DEL").arg(flight.as_str());
                let batch = Batch::pipeline(vec![unlock]);
                send(ports, Store::Cache, &batch, timeout_ms).await;
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
        Deferred::Revalidate {
            exchange,
            generations,
            variant,
        } => {
            let visit = Visit::new(gateway, ports);
            exchange::revalidate(&visit, &exchange, generations, &variant).await;
            Box::pin(run(gateway, ports, visit.take_deferred())).await;
        }
        Deferred::Look { ip, offset_ms } => {
            penalty::settle(&gateway.penalties, ports, &ip, offset_ms).await;
        }
        Deferred::Merge { shard } => {
            limit::merge(&gateway.limits, ports, timeout_ms(gateway), shard).await;
        }
        Deferred::Purge { purge } => {
            let mut is_done = false;
            for pause_ms in PURGE_RETRY_MS {
                ports.sleep(pause_ms).await;
                // A new generation each time: the last one may have been set after
                // all, and to set it again would bring back what a later purge ended.
                let batch = purge.batch(ports.random()).insisting();
                is_done = send(ports, Store::Cache, &batch, DEFERRED_REDIS_TIMEOUT_MS).await;
                if is_done {
                    break;
                }
            }
            if !is_done {
                ports.log("a purge is given up: Redis never confirmed it");
            }
            gateway.unpurged.borrow_mut().end(&purge);
            gateway.l1.borrow_mut().purge(&purge);
        }
        Deferred::Controls { ticket } => controls::refresh(gateway, ports, ticket).await,
        Deferred::Count { views } => views::count::count(gateway, ports, views).await,
    }
}

/// Whether these are still the generations of an entry, and no other service has put a
/// value in its place. Without an answer: no.
async fn is_current<P: Ports>(
    ports: &P,
    lookup: &Lookup,
    generations: &[String],
    timeout_ms: u64,
) -> bool {
    let lookups = Lookups::new(vec![lookup.clone()]);
    let batch = Batch::pipeline(vec![lookups.command()]);
    let replies = ports.pipeline(Store::Cache, &batch, timeout_ms);
    let Ok(replies) = replies.await else {
        return false;
    };
    let seen = replies
        .first()
        .and_then(|reply| lookups.judge(reply, ports.now_ms())?.pop());
    let Some(seen) = seen else { return false };
    !matches!(seen.found, Found::Foreign(_))
        && seen.generations.len() == generations.len()
        && (seen.generations.iter().zip(generations)).all(|(now, then)| now.as_ref() == Some(then))
}

async fn send<P: Ports>(ports: &P, store: Store, batch: &Batch, timeout_ms: u64) -> bool {
    match ports.pipeline(store, batch, timeout_ms).await {
        Ok(replies) => !replies.iter().any(Reply::is_error),
        Err(error) => {
            ports.log_failed_trip(&error);
            false
        }
    }
}

/// Sets a flight's outcome for those that look at it.
pub fn settle(cell: &crate::cache::flight::FlightCell, outcome: Flight) {
    *cell.borrow_mut() = outcome;
}
