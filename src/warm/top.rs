//! What is asked most on routes that say `warm.top`: counted in each isolate, added up in
//! Redis for the last hour.
//!
//! A key is counted as the path and query that it is fetched with, from which the request
//! can be made again; whatever Redis says is read as a request and nothing else. Counts are
//! those of `refused`: bounded, and a flood of keys that come once pushes out itself.

use crate::deferred::Deferred;
use crate::fill::Wanted;
use crate::listing;
use crate::policy::{Policy, Route};
use crate::ports::{Clock, Ports, Store};
use crate::redis::{Batch, Reply};
use crate::refused::{self, Refused};
use crate::visit::Visit;

/// At most 66 commands a minute of each such route and isolate.
const FLUSH_MS: u64 = 60_000;
const SLOT_MS: u64 = 15 * 60_000;
/// The last hour touches so many slots.
const SLOTS: u64 = 5;
/// The last hour, and the slot that is being filled.
const TTL_MS: u64 = SLOTS * SLOT_MS;
/// Whatever is asked for with more than this is not counted: 1 000 members a slot are 0.5 MB.
const MAX_TARGET_BYTES: usize = 512;

/// One isolate's counts.
#[derive(Debug)]
pub struct Top {
    /// By route, for those that say so.
    counts: Vec<(usize, Refused)>,
}

impl Top {
    pub fn new(policy: &Policy) -> Self {
        let routes = policy.routes.iter().enumerate();
        let counts = routes.filter(|(_, route)| most(route) > 0);
        Self {
            counts: counts.map(|(at, _)| (at, Refused::default())).collect(),
        }
    }

    fn of(&mut self, route: usize) -> Option<&mut Refused> {
        let (_, counts) = self.counts.iter_mut().find(|(at, _)| *at == route)?;
        Some(counts)
    }
}

fn most(route: &Route) -> usize {
    let warm = route.cache.as_ref().and_then(|rule| rule.warm.as_ref());
    warm.map_or(0, |warm| warm.top)
}

/// Counts what a request asks for; what is due goes to Redis after the answer.
pub fn count<P: Ports>(visit: &Visit<'_, P>, wanted: &Wanted) {
    let gateway = visit.gateway;
    let mut top = gateway.asked.borrow_mut();
    let Some(counts) = top.of(wanted.route) else {
        return;
    };
    if gateway.settings.without_redis || wanted.target.len() > MAX_TARGET_BYTES {
        return;
    }
    let now_ms = visit.now_ms();
    counts.add(wanted.target.clone(), now_ms);
    if counts.is_due(now_ms, FLUSH_MS)
        && let Some(route) = gateway.policy.routes.get(wanted.route)
    {
        let batch = counts.take(&key(route, now_ms / SLOT_MS), TTL_MS);
        visit.defer(Deferred::Send {
            store: Store::Limits(0),
            batch,
        });
    }
}

/// How many replies there are of a route.
pub fn replies(route: &Route) -> usize {
    match most(route) {
        0 => 0,
        _ => SLOTS as usize,
    }
}

/// What a route was asked for most, from the replies to that.
pub fn judge(policy: &Policy, index: usize, replies: &[Reply]) -> Vec<Wanted> {
    let most = policy.routes.get(index).map_or(0, most);
    let mut sums = refused::sums(replies).unwrap_or_default();
    let mut top = Vec::new();
    while top.len() < most
        && let Some((target, _)) = refused::take_highest(&mut sums)
    {
        top.extend(again(policy, index, target));
    }
    top
}

/// The request for a target, if it is this route's.
fn again(policy: &Policy, index: usize, target: &str) -> Option<Wanted> {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let resolved = policy.resolve("GET", path);
    let is_own = resolved.exact && resolved.index == Some(index);
    is_own.then(|| listing::wanted(policy, index, &resolved.values, query))?
}

fn key(route: &Route, slot: u64) -> String {
    let mut key = String::from("metrics:top:");
    key.push_str(&route.name);
    key.push(':');
    key.push_str(&slot.to_string());
    key
}

/// The reading of all these routes, in their order.
pub fn read_all(policy: &Policy, routes: &[usize], now_ms: u64) -> Batch {
    let mut batch = Batch::default();
    for route in routes.iter().filter_map(|at| policy.routes.get(*at)) {
        let newest = now_ms / SLOT_MS;
        for back in 0..replies(route) as u64 {
            let key = key(route, newest.saturating_sub(back));
            batch.commands.push(refused::read(&key));
        }
    }
    batch
}
