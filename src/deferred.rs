//! Work after the answer, as values.
//!
//! `gateway::handle` returns it, the edge runs it in `wait_until`; nothing else
//! outlives a request.

use std::rc::Rc;

use futures_util::future::join;

use crate::ahead::UnderWay;
use crate::together::{all, boxed};

use crate::cache::entry::hash;
use crate::cache::flight::{Flight, FlightCell};
use crate::cache::lookup::HTTP_KEYS;
use crate::cache::purge::Purge;
use crate::cache::{Found, Lookup, Lookups, store};
use crate::controls;
use crate::exchange::{self, Exchange};
use crate::fill::{self, Wanted};
use crate::gateway::Gateway;
use crate::limit;
use crate::packing::{self, Extension};
use crate::penalty;
use crate::policy::Form;
use crate::ports::{Ports, Store};
use crate::redis::{Batch, Command, Reply};
use crate::views;
use crate::views::item::Sight;
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

/// Pauses before a purge is tried again, or the expiry of a new key. With five timeouts of a Redis that hangs, all
/// are within the half minute that the platform lets work go on after an answer.
pub const RETRY_MS: [u64; 5] = [200, 1_000, 3_000, 5_000, 8_000];

#[derive(Debug, Clone, PartialEq)]
pub enum Deferred {
    /// Refunds and expiries of limits, adopted records of the cache.
    Send { store: Store, batch: Batch },
    /// Ends a fill at Redis, then in this isolate: with the batch, or only its lock when
    /// the generations are others by now.
    EndFill {
        flight: String,
        only_if: Option<Box<Proof>>,
        form: Form,
        batch: Batch,
        /// What does as well while the same body lies there.
        or: Option<Box<Extension>>,
    },
    /// Fetches an entry that was served, unless one is there that is fresh for longer than
    /// until `than_ms`.
    Refresh {
        wanted: Wanted,
        generations: Vec<Option<String>>,
        than_ms: u64,
    },
    /// The same of an answer in `http` mode.
    Revalidate {
        exchange: Box<Exchange>,
        generations: Vec<Option<String>>,
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
    Count { sights: Vec<Sight> },
}

/// What must be so when a fill ends: the generations that were there before it began.
#[derive(Debug, Clone, PartialEq)]
pub struct Proof {
    /// With the tags that the answer has.
    pub lookup: Rc<Lookup>,
    pub generations: Vec<String>,
    /// Of tags that nobody knew before: they are set if there are none.
    pub seeds: Vec<Command>,
    /// Who waits in this isolate and must look up what the fill has stored.
    pub waiting: Option<FlightCell>,
}

/// Does all the work side by side, and the work that follows from it: the platform ends
/// it some time after the answer, and a composed answer may have many entries to refresh.
pub async fn run<P: Ports>(gateway: &Gateway, ports: &P, work: Vec<Deferred>) {
    all(work.into_iter().map(|next| perform(gateway, ports, next))).await;
}

/// All that is due after an answer: the work, and what was begun before it.
pub async fn finish<P: Ports>(
    gateway: &Gateway,
    ports: &P,
    work: Vec<Deferred>,
    under_way: Vec<UnderWay<'_>>,
) {
    if !work.is_empty() || !under_way.is_empty() {
        boxed(join(run(gateway, ports, work), all(under_way))).await;
    }
}

async fn perform<P: Ports>(gateway: &Gateway, ports: &P, work: Deferred) {
    match work {
        Deferred::Send { store, batch } => {
            let is_sent = send(ports, store, &batch, timeout_ms(gateway)).await;
            if !is_sent && batch.insists {
                persist(ports, store, |_| batch.clone()).await;
            }
        }
        Deferred::EndFill {
            flight,
            only_if,
            form,
            batch,
            or,
        } => {
            let timeout_ms = timeout_ms(gateway);
            let ended = match &only_if {
                Some(proof) => {
                    let same = or.as_ref().map(|or| or.hash.as_str());
                    prove(ports, proof, form, same, timeout_ms).await
                }
                None => Ended::Proven,
            };
            let is_sent = match (ended, &or) {
                (Ended::Unknown | Ended::Purged, _) => false,
                (Ended::Same, Some(or)) => extend(ports, &or.batch, &batch, timeout_ms).await,
                _ => send(ports, Store::Cache, &batch, timeout_ms).await,
            };
            if !is_sent {
                let mut commands = match (ended, &only_if) {
                    // Tags are not for others to read that an answer to one user has.
                    (Ended::Unknown, Some(proof)) if form != Form::User => {
                        leave_tags(&proof.lookup)
                    }
                    _ => Vec::new(),
                };
                // Nobody should wait for a lock whose holder is done.
                commands.push(Command::new("DEL").arg(&flight));
                send(ports, Store::Cache, &Batch::multi(commands), timeout_ms).await;
            }
            if let Some(proof) = only_if {
                if is_sent {
                    // What is there now is newer than what this isolate may have itself.
                    gateway.l1.borrow_mut().forget(&proof.lookup.key);
                }
                if let Some(cell) = &proof.waiting {
                    settle(
                        cell,
                        Flight::Tagged(proof.lookup.origin_tags.as_slice().into()),
                    );
                }
            }
            gateway.flights.borrow_mut().land(&flight);
        }
        Deferred::Refresh {
            wanted,
            generations,
            than_ms,
        } => {
            let visit = Visit::new(gateway, ports);
            fill::refresh(&visit, &wanted, generations, than_ms).await;
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
            // A new generation each time: the last one may have been set after
            // all, and to set it again would bring back what a later purge ended.
            let batch = |random| purge.batch(random).insisting();
            if !persist(ports, Store::Cache, batch).await {
                ports.log("a purge is given up: Redis never confirmed it");
            }
            gateway.unpurged.borrow_mut().end(&purge);
            gateway.l1.borrow_mut().purge(&purge);
        }
        Deferred::Controls { ticket } => controls::refresh(gateway, ports, ticket).await,
        Deferred::Count { sights } => views::count::count(gateway, ports, sights).await,
    }
}

/// Whether what a fill brought may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Proven,
    /// And the body that the fill brought lies there as an entry of ours.
    Same,
    /// It has tags of which nobody knows whether they were purged meanwhile, and nothing is
    /// stored that would say what they are.
    Unknown,
    /// Or another service has put a value there.
    Purged,
}

/// Whether these are still the generations of an entry, and no other service has put a
/// value in its place. Without an answer: no.
async fn prove<P: Ports>(
    ports: &P,
    proof: &Proof,
    form: Form,
    same: Option<&str>,
    timeout_ms: u64,
) -> Ended {
    let lookups = Lookups::one(&proof.lookup);
    let mut commands = proof.seeds.clone();
    commands.extend(lookups.commands());
    let batch = Batch::pipeline(commands);
    let replies = ports.pipeline(Store::Cache, &batch, timeout_ms);
    let Ok(replies) = replies.await else {
        return Ended::Purged;
    };
    let seen = replies
        .get(proof.seeds.len()..)
        .and_then(|replies| lookups.judge(replies, ports.now_ms())?.pop());
    let Some(mut seen) = seen else {
        return Ended::Purged;
    };
    // A user's key is nobody else's: whatever lies there gives way.
    if form != Form::User && matches!(seen.found, Found::Foreign(_)) {
        return Ended::Purged;
    }
    let is_same = |(now, then): (&Option<String>, &String)| now.as_ref() == Some(then);
    let mut pairs = seen.generations.iter().zip(&proof.generations);
    // The record that is there may name more tags, which are the last ones.
    let is_proven = seen.generations.len() >= proof.generations.len() && pairs.all(is_same);
    packing::unpacked(form, &proof.lookup, &mut seen, ports.now_ms());
    match seen.found {
        Found::Fresh(entry) | Found::Stale(entry)
            if is_proven && same.is_some_and(|same| hash(&entry.body) == same) =>
        {
            Ended::Same
        }
        _ if is_proven => Ended::Proven,
        Found::Missing if !seen.is_unread && !proof.seeds.is_empty() => Ended::Unknown,
        _ => Ended::Purged,
    }
}

/// Lets the body live on; it is written after all when it is gone in between.
async fn extend<P: Ports>(ports: &P, or: &Batch, whole: &Batch, timeout_ms: u64) -> bool {
    match ports.pipeline(Store::Cache, or, timeout_ms).await {
        Ok(replies) if replies.iter().any(Reply::is_error) => false,
        Ok(replies) if replies.first().and_then(Reply::as_int) == Some(1) => true,
        Ok(_) => send(ports, Store::Cache, whole, timeout_ms).await,
        Err(error) => {
            ports.log_failed_trip(&error);
            false
        }
    }
}

/// In place of an answer that could not be stored, for those who fill it next.
fn leave_tags(lookup: &Lookup) -> Vec<Command> {
    match lookup.key.starts_with(HTTP_KEYS) {
        true => exchange::tags(lookup),
        false => store::tags(lookup),
    }
}

/// Sends a batch, made anew each time, until Redis confirms it; whether it did.
async fn persist<P: Ports>(ports: &P, store: Store, batch: impl Fn(u128) -> Batch) -> bool {
    for pause_ms in RETRY_MS {
        ports.sleep(pause_ms).await;
        let batch = batch(ports.random());
        if send(ports, store, &batch, DEFERRED_REDIS_TIMEOUT_MS).await {
            return true;
        }
    }
    false
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
