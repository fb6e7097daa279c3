//! Keeping entries warm: what `warm` names is fetched before it ends, so that no visitor
//! waits for it.
//!
//! A fetch is a refresh or a fill like any other, with its lock and its generations; here
//! is only which entries are due, and how many at once. A pass goes through all of them in
//! the policy's order, the most asked ones after the listed ones, and begins behind the one
//! that was tried last: what cannot be fetched keeps nothing else from its turn.

pub mod top;

use crate::admission::is_off;
use crate::cache::entry::{Meta, Origin, hash};
use crate::cache::generation::{Standing, standing};
use crate::cache::lookup::generation_of;
use crate::cache::packed;
use crate::deferred;
use crate::fill::{self, Filled, Refreshed, Wanted};
use crate::gateway::Gateway;
use crate::headers::CacheStatus;
use crate::http::Body;
use crate::jobs::{PERIOD_MS, Run};
use crate::listing;
use crate::policy::{CacheRule, Form, Policy, Switch, warm_request};
use crate::ports::{Ports, Store};
use crate::redis::{Batch, Command, Reply};
use crate::together::all;
use crate::visit::Visit;

/// The platform lets six connections wait for headers; renewals of locks need some.
const AT_ONCE: usize = 4;
/// So many failures one after the other are the origin's, not one entry's.
const MAX_FAILURES: usize = 3;
/// Entries that one trip looks at: at most 18 keys each.
const LOOKED_AT: usize = 100;
/// A trigger may be late, and a fetch takes a while.
const MARGIN_MS: u64 = 60_000;
/// Where the last pass stopped.
const CURSOR: &str = "metrics:warm:next";
const CURSOR_TTL_MS: u64 = 24 * 3_600_000;
/// The same of the passes that an operator asks for, which end with the last entry.
const OWN_CURSOR: &str = "metrics:warm:asked:";
const OWN_CURSOR_TTL_MS: u64 = 10 * 60_000;

/// What a pass has done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Warmed {
    /// Fetched and stored.
    pub warmed: usize,
    pub failed: usize,
    /// Not tried: for the next pass.
    pub left: usize,
}

/// Which entries a pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those that are due, beginning anew after the last one.
    Due,
    /// All, and no further than the last one.
    All,
}

/// Routes with `warm`, by their places.
pub fn routes(policy: &Policy) -> Vec<usize> {
    let mut warm = Vec::new();
    for (at, route) in policy.routes.iter().enumerate() {
        if route.cache.as_ref().is_some_and(|rule| rule.warm.is_some()) {
            warm.push(at);
        }
    }
    warm
}

/// The cron's job.
pub async fn job<P: Ports>(run: &Run<'_, P>) {
    let routes = routes(&run.gateway.policy);
    if !routes.is_empty() && run.requests_left() > 0 {
        pass(run, &routes, Which::Due).await;
    }
}

/// Goes through what these routes keep warm; `None`: Redis did not answer.
pub async fn pass<P: Ports>(run: &Run<'_, P>, routes: &[usize], which: Which) -> Option<Warmed> {
    let (gateway, ports) = (run.gateway, run.ports);
    let policy = &gateway.policy;
    let mut cursor = CURSOR.to_owned();
    if which == Which::All {
        // Where a pass through these routes stopped says nothing of others.
        let mut names = String::new();
        for route in routes.iter().filter_map(|at| policy.routes.get(*at)) {
            names.push_str(&route.name);
            names.push(',');
        }
        cursor = format!("{OWN_CURSOR}{}", hash(names.as_bytes()));
    }
    let mut batch = top::read_all(policy, routes, ports.now_ms());
    batch.commands.push(Command::new("GET").arg(&cursor));
    let replies = trip(gateway, ports, Store::Limits(0), &batch).await?;
    let (last, counts) = replies.split_last()?;
    let mut wanted = candidates(gateway, routes, counts);
    let last = last.as_str();
    let behind = last.and_then(|last| {
        let at = wanted.iter().position(|wanted| wanted.lookup.key == last)?;
        Some(at + 1)
    });
    let mut before = std::mem::take(&mut wanted);
    wanted = before.split_off(behind.unwrap_or(0));
    if which == Which::Due {
        wanted.append(&mut before);
    }
    let mut done = Done::default();
    let mut looked_at = 0;
    for some in wanted.chunks(LOOKED_AT) {
        if done.is_over(run) {
            break;
        }
        let Some(due) = due(gateway, ports, some, which).await else {
            break;
        };
        looked_at += some.len();
        done.warmed.left += due.len();
        fetch(run, due, &mut done).await;
    }
    done.warmed.left += wanted.len() - looked_at;
    let keep = match (done.tried, which) {
        (Some(_), Which::All) if done.warmed.left == 0 => Some(Command::new("DEL").arg(cursor)),
        (Some(key), Which::Due) => Some(Command::set_px(&cursor, key, CURSOR_TTL_MS)),
        (Some(key), Which::All) => Some(Command::set_px(&cursor, key, OWN_CURSOR_TTL_MS)),
        (None, _) => None,
    };
    if let Some(keep) = keep {
        trip(
            gateway,
            ports,
            Store::Limits(0),
            &Batch::pipeline(vec![keep]),
        )
        .await;
    }
    Some(done.warmed)
}

async fn trip<P: Ports>(
    gateway: &Gateway,
    ports: &P,
    store: Store,
    batch: &Batch,
) -> Option<Vec<Reply>> {
    let answer = ports.pipeline(store, batch, deferred::timeout_ms(gateway));
    match answer.await {
        Ok(replies) => Some(replies),
        Err(error) => {
            ports.log_failed_trip(&error);
            None
        }
    }
}

/// All entries of these routes, none twice.
fn candidates(gateway: &Gateway, routes: &[usize], counts: &[Reply]) -> Vec<Wanted> {
    let policy = &gateway.policy;
    let mut counts = counts;
    let mut all: Vec<Wanted> = Vec::new();
    for index in routes {
        let Some(route) = policy.routes.get(*index) else {
            continue;
        };
        let Some(warm) = route.cache.as_ref().and_then(|rule| rule.warm.as_ref()) else {
            continue;
        };
        let (of_route, rest) = counts
            .split_at_checked(top::replies(route))
            .unwrap_or_default();
        counts = rest;
        if is_off(gateway, Some(route), Switch::NotificationCache) {
            continue;
        }
        let mut these = Vec::new();
        for combination in warm.combinations() {
            let (values, query) = warm_request(&route.path, &combination);
            these.extend(listing::wanted(policy, *index, &values, Some(&query)));
        }
        for wanted in top::judge(policy, *index, of_route) {
            if these
                .iter()
                .all(|known| known.lookup.key != wanted.lookup.key)
            {
                these.push(wanted);
            }
        }
        all.append(&mut these);
    }
    let mut origin_tags = gateway.origin_tags.borrow_mut();
    for wanted in &mut all {
        origin_tags.recall(&mut wanted.lookup);
    }
    all
}

/// An entry that is to be fetched.
struct Due {
    wanted: Wanted,
    generations: Vec<Option<String>>,
    /// Until when what is there is fresh; `None`: nothing is there.
    fresh_until_ms: Option<u64>,
}

/// Which of some entries are to be fetched; `None`: Redis did not answer. Bodies are not
/// read for it: one command tells whether those that should be there are. Of packed ones
/// the beginning is read, where their record is.
async fn due<P: Ports>(
    gateway: &Gateway,
    ports: &P,
    some: &[Wanted],
    which: Which,
) -> Option<Vec<Due>> {
    let is_packed = |wanted: &Wanted| {
        let route = gateway.policy.routes.get(wanted.route);
        let rule = route.and_then(|route| route.cache.as_ref());
        rule.is_some_and(|rule| rule.form == Form::Packed)
    };
    let mut keys = Vec::new();
    let mut heads = Vec::new();
    for wanted in some {
        keys.push(wanted.lookup.meta_key());
        keys.extend(wanted.lookup.generation_keys());
        if is_packed(wanted) {
            let head = Command::new("GETRANGE").arg(&wanted.lookup.key);
            heads.push(head.args([0, packed::HEAD_BYTES as u64 - 1]));
        }
    }
    let mut batch = Batch::pipeline(vec![Command::new("MGET").args(keys)]);
    batch.commands.append(&mut heads);
    let replies = trip(gateway, ports, Store::Cache, &batch).await?;
    let (values, heads) = replies.split_first()?;
    let mut values = values.as_list()?.iter();
    let mut heads = heads.iter();
    let mut all = Vec::with_capacity(some.len());
    let mut bodies = Vec::new();
    for wanted in some {
        let meta = values.next().and_then(Reply::as_bytes);
        let mut generations = Vec::new();
        for key in wanted.lookup.generation_keys() {
            let value = values.next().and_then(Reply::as_str);
            generations.push(value.and_then(|value| generation_of(&wanted.lookup, &key, value)));
        }
        let mut meta = meta.and_then(Meta::read).filter(Meta::is_possible);
        let is_packed = is_packed(wanted);
        let mut is_long = false;
        if is_packed {
            let head = heads.next().and_then(Reply::as_bytes).unwrap_or_default();
            meta = packed::record(head, meta.as_ref());
            is_long = meta.is_none() && head.len() >= packed::HEAD_BYTES;
        }
        let standing = meta.as_ref().map_or(Standing::Gone, |meta| {
            standing(&wanted.lookup, &meta.tags, &meta.generations, &generations)
        });
        // Tags that this isolate has not met are read before the fetch. Until then nothing is known of
        // them: whoever misses the entry fills it.
        let mut named = wanted.clone();
        if let Some(meta) = &meta
            && meta.tags != wanted.lookup.origin_tags
        {
            named = wanted.named(&meta.tags);
            generations.truncate(wanted.lookup.own_generations());
            generations.resize(named.lookup.generation_keys().len(), None);
        }
        let meta = meta.filter(|_| standing != Standing::Gone);
        let is_soft = standing == Standing::Soft;
        let is_of_edge = |meta: &Meta| meta.origin == Origin::Edge;
        if !is_packed && meta.as_ref().is_some_and(is_of_edge) {
            bodies.push(wanted.lookup.key.as_str());
        }
        all.push((named, generations, meta, is_long, is_soft));
    }
    let gone = gone(gateway, ports, &bodies).await?;
    let now_ms = ports.now_ms();
    let mut due = Vec::new();
    for (wanted, generations, meta, is_long, is_soft) in all {
        let meta = meta.filter(|_| !gone.contains(&wanted.lookup.key.as_str()));
        let rule = gateway.policy.routes.get(wanted.route)?.cache.as_ref()?;
        let is_due = meta.as_ref().is_none_or(|meta| is_due(meta, rule, now_ms));
        if is_due || is_soft || which == Which::All {
            due.push(Due {
                wanted,
                generations,
                // Of a record that is too long it is not known: whatever is there is older.
                fresh_until_ms: match is_long {
                    true => Some(u64::MAX),
                    false => meta.map(|meta| meta.fresh_until),
                },
            });
        }
    }
    Some(due)
}

/// Which of these keys are not there.
async fn gone<'k, P: Ports>(
    gateway: &Gateway,
    ports: &P,
    keys: &[&'k str],
) -> Option<Vec<&'k str>> {
    if keys.is_empty() {
        return Some(Vec::new());
    }
    let all = Command::new("EXISTS").args(keys.iter().map(|key| (*key).to_owned()));
    let replies = trip(gateway, ports, Store::Cache, &Batch::pipeline(vec![all])).await?;
    let there = replies.first().and_then(Reply::as_int)?;
    if usize::try_from(there) == Ok(keys.len()) {
        return Some(Vec::new());
    }
    let mut batch = Batch::default();
    for key in keys {
        batch
            .commands
            .push(Command::new("EXISTS").arg((*key).to_owned()));
    }
    let replies = trip(gateway, ports, Store::Cache, &batch).await?;
    let mut gone = Vec::new();
    for (key, reply) in keys.iter().zip(&replies) {
        if reply.as_int() == Some(0) {
            gone.push(*key);
        }
    }
    Some(gone)
}

/// Whether its time has come, or its end would come before the next run is done.
fn is_due(meta: &Meta, rule: &CacheRule, now_ms: u64) -> bool {
    let Some(warm) = &rule.warm else { return false };
    let fresh_ms = match meta.origin {
        Origin::Edge => rule.ttl_ms,
        Origin::Negative => rule.negative_ms.unwrap_or(0),
        Origin::Tags => 0,
    };
    let stored_ms = meta.fresh_until.saturating_sub(fresh_ms);
    let next_ms = now_ms.saturating_add(PERIOD_MS + MARGIN_MS);
    now_ms >= stored_ms.saturating_add(warm.every_ms) || next_ms >= meta.fresh_until
}

/// How far a pass is.
#[derive(Default)]
struct Done {
    warmed: Warmed,
    /// One after the other, the last one among them.
    failures: usize,
    /// The last one's key.
    tried: Option<String>,
}

impl Done {
    fn is_over<P: Ports>(&self, run: &Run<'_, P>) -> bool {
        self.failures >= MAX_FAILURES || run.requests_left() == 0
    }
}

/// What became of one.
enum Outcome {
    Stored,
    /// Somebody else's, or another service's.
    NotOurs,
    /// The origin is well, but there is nothing to store.
    Unstored,
    Failed,
}

async fn fetch<P: Ports>(run: &Run<'_, P>, due: Vec<Due>, done: &mut Done) {
    let mut due = due.into_iter();
    while !done.is_over(run) {
        let many = AT_ONCE.min(run.requests_left());
        let now: Vec<Due> = due.by_ref().take(many).collect();
        if now.is_empty() {
            return;
        }
        run.spend(now.len());
        done.warmed.left -= now.len();
        done.tried = now.last().map(|due| due.wanted.lookup.key.clone());
        for outcome in all(now.into_iter().map(|due| fetch_one(run, due))).await {
            match outcome {
                Outcome::Stored => done.warmed.warmed += 1,
                Outcome::NotOurs => {}
                Outcome::Unstored | Outcome::Failed => done.warmed.failed += 1,
            }
            done.failures = match outcome {
                Outcome::Failed => done.failures + 1,
                _ => 0,
            };
        }
    }
}

async fn fetch_one<P: Ports>(run: &Run<'_, P>, due: Due) -> Outcome {
    let (gateway, ports) = (run.gateway, run.ports);
    let visit = Visit::new(gateway, ports);
    let wanted = &due.wanted;
    let outcome = match due.fresh_until_ms {
        Some(than_ms) => match fill::refresh(&visit, wanted, due.generations, than_ms).await {
            Refreshed::Stored(_) | Refreshed::Tagged => Outcome::Stored,
            Refreshed::Newer(_) | Refreshed::Held => Outcome::NotOurs,
            Refreshed::Unstored => Outcome::Unstored,
            Refreshed::Failed => Outcome::Failed,
        },
        // Visitors may wait for it already, or begin to.
        None => match fill::fill(&visit, wanted.clone(), due.generations).await {
            Filled::Entry(..) => Outcome::NotOurs,
            Filled::Own(response, status) => {
                // Without Redis nothing is kept of what the origin is asked for.
                let without_redis = CacheStatus::Miss {
                    stored: false,
                    why: Some("redis"),
                };
                let is_failing = fill::is_failing(response.status) || status == without_redis;
                if let Body::Upstream(body) = response.body {
                    ports.discard(body);
                }
                match status.is_kept() {
                    true => Outcome::Stored,
                    false if is_failing => Outcome::Failed,
                    false => Outcome::Unstored,
                }
            }
            Filled::Failed(_) | Filled::Refused => Outcome::Failed,
        },
    };
    deferred::run(gateway, ports, visit.take_deferred()).await;
    outcome
}
