//! What happens around an entry's end, before anybody waits for it: the hit that is elected
//! to refresh it early, and the request that waits a little for a stale one's successor.
//!
//! `cache::early` elects, `fill::refresh` fetches. A fetch that outlasts its request's
//! patience is not begun anew: it goes on after the answer, still this request's own.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use futures_util::future::select;

use crate::cache::flight::{Flight, FlightCell};
use crate::cache::{Entry, early};
use crate::deferred::{self, Deferred};
use crate::fill::{self, FIRST_PAUSE_MS, Fill, Refreshed, Wanted, next_look_ms};
use crate::headers::CacheStatus;
use crate::ports::{Clock, Ports, Random};
use crate::visit::Visit;

/// What goes on after the answer.
pub type UnderWay<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Elects, or not, the request that gets this fresh entry to refresh it after its answer.
pub fn elect<P: Ports>(
    visit: &Visit<'_, P>,
    wanted: &Wanted,
    origin_tags: &[String],
    entry: &Entry,
    generations: &[Option<String>],
) {
    let Some(took_ms) = entry.took_ms else { return };
    let mut flights = visit.gateway.flights.borrow_mut();
    flights.hint(wanted.route, took_ms);
    drop(flights);
    if !early::is_elected(entry, visit.now_ms(), || visit.random()) {
        return;
    }
    let (wanted, generations) = match generations {
        // It was served without a trip.
        [] => {
            let generations = visit.gateway.l1.borrow().generations(&wanted.lookup);
            (wanted.clone(), generations)
        }
        known => (wanted.named(origin_tags), known.to_vec()),
    };
    if !generations.is_empty() {
        visit.defer(Deferred::Refresh {
            wanted,
            generations,
            than_ms: entry.fresh_until_ms,
        });
    }
}

/// What a request gets that found a stale entry: that one, or with `patience` its successor
/// if it comes in time.
pub async fn stale<P: Ports>(
    visit: &Visit<'_, P>,
    wanted: &Wanted,
    entry: Entry,
    generations: Vec<Option<String>>,
) -> (Entry, CacheStatus) {
    let route = visit.gateway.policy.routes.get(wanted.route);
    let patience_ms = route.and_then(|route| route.cache.as_ref()?.patience_ms);
    let successor = match patience_ms {
        Some(patience_ms) => successor(visit, wanted, generations, patience_ms).await,
        None => {
            visit.defer(Deferred::Refresh {
                wanted: wanted.clone(),
                generations,
                than_ms: 0,
            });
            None
        }
    };
    successor.unwrap_or_else(|| {
        let status = CacheStatus::stale(entry.fresh_until_ms, visit.now_ms());
        (entry, status)
    })
}

async fn successor<P: Ports>(
    visit: &Visit<'_, P>,
    wanted: &Wanted,
    generations: Vec<Option<String>>,
    patience_ms: u64,
) -> Option<(Entry, CacheStatus)> {
    let known = generations.iter().cloned().collect::<Option<Vec<_>>>();
    if let Some(known) = known
        && let Some(cell) = Fill::new(visit, wanted, known, "").under_way()
    {
        return follow(visit, &cell, patience_ms).await;
    }
    let (gateway, ports, wanted) = (visit.gateway, visit.ports, wanted.clone());
    let told: Rc<RefCell<Option<Refreshed>>> = Rc::default();
    let teller = told.clone();
    let mut under_way: UnderWay<'_> = Box::pin(async move {
        let visit = Visit::new(gateway, ports);
        let refreshed = fill::refresh(&visit, &wanted, generations, 0).await;
        *teller.borrow_mut() = Some(refreshed);
        deferred::run(gateway, ports, visit.take_deferred()).await;
    });
    // Until it is told what came of it; to store it takes longer.
    let mut is_done = false;
    let is_told = poll_fn(|context| {
        is_done = under_way.as_mut().poll(context).is_ready();
        match is_done || told.borrow().is_some() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    });
    select(is_told, pin!(visit.sleep(patience_ms))).await;
    if !is_done {
        visit.keep(under_way);
    }
    match told.take()? {
        Refreshed::Stored(entry) => {
            let status = CacheStatus::Miss {
                stored: true,
                why: None,
            };
            Some((entry, status))
        }
        Refreshed::Newer(entry) => Some((entry, CacheStatus::Collapsed)),
        Refreshed::Tagged | Refreshed::Held | Refreshed::Unstored | Refreshed::Failed => None,
    }
}

/// Looks at the refresh of another request of this isolate.
async fn follow<P: Ports>(
    visit: &Visit<'_, P>,
    cell: &FlightCell,
    patience_ms: u64,
) -> Option<(Entry, CacheStatus)> {
    let ends_ms = visit.now_ms().saturating_add(patience_ms);
    let mut pause_ms = FIRST_PAUSE_MS;
    loop {
        match &*cell.borrow() {
            Flight::Done(entry) => return Some((entry.clone(), CacheStatus::Collapsed)),
            Flight::Pending if visit.now_ms() < ends_ms => {}
            _ => return None,
        }
        visit.sleep(pause_ms).await;
        pause_ms = next_look_ms(pause_ms);
    }
}
