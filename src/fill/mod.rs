//! Filling a missing entry: one leader asks the origin, the others wait for its entry.
//!
//! Across isolates the leader holds a lock in Redis (`fill:…`, renewed while it
//! fetches); within one it holds a flight. Followers poll on their own timers
//! and only accept an entry whose generations are current. Redis failing
//! anywhere means that a request asks the origin itself.

mod ending;
mod refreshing;
mod seeding;

pub use refreshing::{Refreshed, is_failing, refresh};
pub use seeding::{seed, seed_keys};

use futures_util::future::{Either, select};
use sha2::{Digest, Sha256};
use std::pin::pin;
use std::rc::Rc;

use crate::bill::pay;
use crate::cache::flight::{Flight, FlightCell, Join, UNCACHEABLE_MS};
use crate::cache::{
    Entry, Found, Lookup, Lookups, Unstorable, generation, origin_tags, storable, store,
};
use crate::deferred::settle;
use crate::headers::CacheStatus;
use crate::http::{Body, Headers, Response};
use crate::identity::push_hex;
use crate::packing;
use crate::policy::CacheRule;
use crate::ports::{Bounded, Clock, OriginError, Ports, Store};
use crate::reading;
use crate::redis::{Batch, Command, Reply};
use crate::visit::Visit;
use seeding::seed_together;

/// A lock that is not renewed has lost its leader.
const LOCK_MS: u64 = 3_000;
/// Three renewals may be lost before the lock is.
const RENEW_MS: u64 = 750;
/// First pause of a follower; each is a quarter longer than the one before, up to the last
/// one: so whoever waits is late by a quarter of what he waited for at most.
pub const FIRST_PAUSE_MS: u64 = 4;
const LAST_PAUSE_MS: u64 = 25;
/// Looking at a cell of this isolate costs no trip.
const LAST_LOOK_MS: u64 = 20;
/// What a follower that gave up waiting has for the origin at least.
const LEAST_FETCH_MS: u64 = 1_000;

const UNCACHEABLE: &str = "uncacheable";
const FAILED_TIMEOUT: &str = "failed:timeout";
const FAILED_UNREACHABLE: &str = "failed:unreachable";

/// An entry and how to fetch it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Index into the policy's routes; that route has a cache rule.
    pub route: usize,
    pub lookup: Rc<Lookup>,
    /// Path and listed query: the same for everybody who wants this key.
    pub target: String,
    /// What the origin is told beside the edge's own fields: who a user is.
    pub fields: Headers,
}

/// How a missing entry was answered.
#[derive(Debug)]
pub enum Filled<B> {
    /// An entry that another request fetched, or that was kept.
    Entry(Entry, CacheStatus),
    /// The origin's answer to this request.
    Own(Response<B>, CacheStatus),
    Failed(OriginError),
    /// A limit refused what the origin's answer costs.
    Refused,
}

impl Wanted {
    /// The same entry with these tags of the origin's.
    #[must_use]
    pub fn named(&self, origin_tags: &[String]) -> Self {
        Self {
            route: self.route,
            lookup: Rc::new(self.lookup.named(origin_tags)),
            target: self.target.clone(),
            fields: self.fields.clone(),
        }
    }
}

/// Answers a request whose entry is missing.
pub async fn fill<P: Ports>(
    visit: &Visit<'_, P>,
    wanted: Wanted,
    generations: Vec<Option<String>>,
) -> Filled<P::Body> {
    let mut wanted = wanted;
    let mut generations = generations;
    let mut is_again = false;
    let why = loop {
        match attempt(visit, &wanted, generations).await {
            Ok(filled) => return filled,
            // Its tags change faster than they can be read.
            Err(_) if is_again => break "slow",
            Err(tags) => wanted = wanted.named(&tags),
        }
        is_again = true;
        let Some(seen) = reading::once_more(visit, &wanted).await else {
            break "redis";
        };
        match seen.found {
            Found::Fresh(entry) | Found::Foreign(entry) => {
                return Filled::Entry(entry, CacheStatus::Collapsed);
            }
            Found::Stale(entry) => {
                let status = CacheStatus::stale(entry.fresh_until_ms, visit.now_ms());
                return Filled::Entry(entry, status);
            }
            Found::Missing | Found::Record(_) | Found::Packed(_) => {}
        }
        wanted = wanted.named(&seen.origin_tags);
        generations = seen.generations;
    };
    alone(visit, &wanted, visit.origin_timeout_ms(), why).await
}

/// One attempt at it; the error: what was waited for has these tags, so that it must be
/// looked up once more with them.
async fn attempt<P: Ports>(
    visit: &Visit<'_, P>,
    wanted: &Wanted,
    generations: Vec<Option<String>>,
) -> Result<Filled<P::Body>, Rc<[String]>> {
    let now_ms = visit.now_ms();
    let known = visit
        .gateway
        .flights
        .borrow()
        .is_uncacheable(&wanted.lookup.key, now_ms);
    let timeout_ms = visit.origin_timeout_ms();
    if known {
        return Ok(alone(visit, wanted, timeout_ms, UNCACHEABLE).await);
    }
    let Some(generations) = seed_together(visit, &wanted.lookup, generations).await else {
        return Ok(alone(visit, wanted, timeout_ms, "redis").await);
    };
    let fill = Fill::new(visit, wanted, generations, "");
    match fill.join() {
        Join::Lead(cell) => fill.lead(&cell).await,
        Join::Follow(cell) => fill.follow(&cell).await,
    }
}

/// Answers a request whose lookup failed: the origin as it is, nothing shared. When it
/// fails too, what this isolate had a moment ago is better than nothing.
pub async fn without_redis<P: Ports>(visit: &Visit<'_, P>, wanted: &Wanted) -> Filled<P::Body> {
    let filled = alone(visit, wanted, visit.origin_timeout_ms(), "redis").await;
    if !matches!(filled, Filled::Failed(_)) {
        return filled;
    }
    match reading::last_resort(visit, wanted) {
        Some((entry, status)) => Filled::Entry(entry, status),
        None => filled,
    }
}

/// What the edge sends with nothing of a visitor in it, but for a user's own answers.
fn own_fields(wanted: &Wanted) -> Headers {
    let mut fields = Headers::from_iter([
        ("accept", "application/json"),
        ("accept-encoding", "identity"),
        ("user-agent", "edgeweir"),
    ]);
    fields.keep(&|name| !wanted.fields.contains(name));
    for (name, value) in wanted.fields.iter() {
        fields.append(name, value);
    }
    fields
}

/// Asks the origin for this request only; nothing is stored.
pub async fn alone<P: Ports>(
    visit: &Visit<'_, P>,
    wanted: &Wanted,
    timeout_ms: u64,
    why: &'static str,
) -> Filled<P::Body> {
    if !pay(visit).await {
        return Filled::Refused;
    }
    match visit
        .fetch(&wanted.target, own_fields(wanted), timeout_ms)
        .await
    {
        Ok(response) => Filled::Own(
            response,
            CacheStatus::Miss {
                stored: false,
                why: Some(why),
            },
        ),
        Err(error) => Filled::Failed(error),
    }
}

/// What an attempt at the lock brought.
pub enum Lock {
    /// It is ours; what was found in the same trip, and the generations then.
    Taken {
        found: Found,
        generations: Vec<String>,
    },
    /// Somebody else has it, but the entry is there already.
    Filled(Entry),
    /// Another leader is at work.
    Held,
    Uncacheable,
    Failed(OriginError),
    /// An entry with these tags is there, whose generations were not read. Whether the lock
    /// is ours.
    Again {
        tags: Rc<[String]>,
        is_ours: bool,
    },
    /// Redis did not answer.
    Lost,
}

pub struct Fill<'v, 'a, P: Ports> {
    visit: &'v Visit<'a, P>,
    wanted: &'v Wanted,
    lookups: Lookups,
    pub generations: Vec<String>,
    /// Also the name of the flight.
    pub lock_key: String,
    begun_ms: u64,
    /// There is a stale entry, which an answer that may not be stored ends.
    pub is_refresh: bool,
}

impl<'v, 'a, P: Ports> Fill<'v, 'a, P> {
    /// `variant` tells fills of one key apart that are not for each other.
    pub fn new(
        visit: &'v Visit<'a, P>,
        wanted: &'v Wanted,
        generations: Vec<String>,
        variant: &str,
    ) -> Self {
        let mut identity = wanted.lookup.key.clone();
        for generation in &generations {
            identity.push('\n');
            identity.push_str(generation);
        }
        identity.push_str(variant);
        Self {
            visit,
            wanted,
            lookups: Lookups::one(&wanted.lookup),
            lock_key: lock_name(&identity),
            generations,
            begun_ms: visit.now_ms(),
            is_refresh: false,
        }
    }

    pub fn join(&self) -> Join {
        // Headers and body may each take the origin's timeout; then the leader is gone.
        let most_ms = self.visit.origin_timeout_ms() * 2 + LOCK_MS;
        let mut flights = self.visit.gateway.flights.borrow_mut();
        flights.join(&self.lock_key, self.begun_ms, most_ms)
    }

    /// The flight of another request, if there is one.
    pub fn under_way(&self) -> Option<FlightCell> {
        let flights = self.visit.gateway.flights.borrow();
        flights.under_way(&self.lock_key)
    }

    fn rule(&self) -> Option<&CacheRule> {
        self.visit
            .gateway
            .policy
            .routes
            .get(self.wanted.route)
            .and_then(|route| route.cache.as_ref())
    }

    async fn lead(&self, cell: &FlightCell) -> Result<Filled<P::Body>, Rc<[String]>> {
        let mut pause_ms = FIRST_PAUSE_MS;
        loop {
            match self.take_lock().await {
                // What is stale was stored by a fill that began before a soft purge: those
                // who wait may have come after it.
                Lock::Taken {
                    found: Found::Fresh(entry) | Found::Foreign(entry),
                    ..
                } => {
                    settle(cell, Flight::Done(entry.clone()));
                    self.end(vec![Command::new("DEL").arg(&self.lock_key)]);
                    return Ok(Filled::Entry(entry, CacheStatus::Collapsed));
                }
                Lock::Taken { generations, .. } => {
                    return Ok(self.pay_and_ask(cell, generations).await);
                }
                Lock::Filled(entry) => {
                    settle(cell, Flight::Done(entry.clone()));
                    self.land();
                    return Ok(Filled::Entry(entry, CacheStatus::Collapsed));
                }
                Lock::Uncacheable => {
                    self.uncacheable(cell, UNCACHEABLE_MS);
                    self.land();
                    return Ok(alone(self.visit, self.wanted, self.left_ms(), UNCACHEABLE).await);
                }
                Lock::Failed(error) => {
                    settle(cell, Flight::Failed(error));
                    self.land();
                    return Ok(Filled::Failed(error));
                }
                // The lock may be ours all the same: then nobody else would fill and end
                // it. The generations of our own lookup are old enough.
                Lock::Lost => {
                    return Ok(self.pay_and_ask(cell, self.generations.clone()).await);
                }
                Lock::Again { tags, is_ours } => {
                    self.again(cell, Rc::clone(&tags), is_ours);
                    return Err(tags);
                }
                Lock::Held => {}
            }
            if self.out_of_patience() {
                settle(cell, Flight::Uncacheable);
                self.land();
                return Ok(alone(self.visit, self.wanted, self.left_ms(), "slow").await);
            }
            self.visit.sleep(pause_ms).await;
            pause_ms = next_pause_ms(pause_ms);
        }
    }

    /// What came of another request of this isolate; pending: patience has ended before.
    pub async fn outcome(&self, cell: &FlightCell) -> Flight {
        let mut pause_ms = FIRST_PAUSE_MS;
        loop {
            self.visit.sleep(pause_ms).await;
            pause_ms = next_look_ms(pause_ms);
            let outcome = cell.borrow().clone();
            if !matches!(outcome, Flight::Pending) || self.out_of_patience() {
                return outcome;
            }
        }
    }

    /// Waits for another request of this isolate.
    async fn follow(&self, cell: &FlightCell) -> Result<Filled<P::Body>, Rc<[String]>> {
        let why = match self.outcome(cell).await {
            Flight::Done(entry) => return Ok(Filled::Entry(entry, CacheStatus::Collapsed)),
            Flight::Tagged(tags) => return Err(tags),
            Flight::Failed(error) => return Ok(Filled::Failed(error)),
            Flight::Uncacheable | Flight::Stored(_) | Flight::Seeded(_) => UNCACHEABLE,
            Flight::Pending => "slow",
        };
        Ok(alone(self.visit, self.wanted, self.left_ms(), why).await)
    }

    /// Takes the lock and looks again in the same trip: whoever had it before may
    /// have stored the entry since our lookup.
    pub async fn take_lock(&self) -> Lock {
        let token = generation(self.visit.ports.random());
        let mut commands = vec![Command::set_nx_get_px(&self.lock_key, token, LOCK_MS)];
        commands.extend(self.lookups.commands());
        let Ok(replies) = self.visit.cache_trip(&Batch::pipeline(commands)).await else {
            return Lock::Lost;
        };
        let Some((holder, values)) = replies.split_first() else {
            return Lock::Lost;
        };
        let Some(mut seen) = self
            .lookups
            .judge(values, self.visit.now_ms())
            .and_then(|mut seen| seen.pop())
        else {
            return Lock::Lost;
        };
        packing::opened(self.visit, self.wanted, &mut seen).await;
        if seen.is_unread {
            return Lock::Again {
                tags: seen.origin_tags.into(),
                is_ours: *holder == Reply::Nil,
            };
        }
        match (holder, seen.found) {
            (Reply::Nil, found) => Lock::Taken {
                found,
                generations: self
                    .generations
                    .iter()
                    .zip(seen.generations)
                    .map(|(ours, now)| now.unwrap_or_else(|| ours.clone()))
                    .collect(),
            },
            (_, Found::Fresh(entry) | Found::Foreign(entry)) => Lock::Filled(entry),
            (holder, _) => match holder.as_str() {
                Some(UNCACHEABLE) => Lock::Uncacheable,
                Some(FAILED_TIMEOUT) => Lock::Failed(OriginError::Timeout),
                Some(FAILED_UNREACHABLE) => Lock::Failed(OriginError::Unreachable),
                Some(_) => Lock::Held,
                None => Lock::Lost,
            },
        }
    }

    /// Ends a fill for which there is no need any more.
    fn leave_to(&self, cell: &FlightCell, entry: Entry) -> Refreshed {
        settle(cell, Flight::Done(entry.clone()));
        self.end(vec![Command::new("DEL").arg(&self.lock_key)]);
        self.visit
            .gateway
            .l1
            .borrow_mut()
            .forget(&self.wanted.lookup.key);
        Refreshed::Newer(entry)
    }

    /// A leader whose limits do not let him ask leaves the place to others.
    async fn pay_and_ask(&self, cell: &FlightCell, generations: Vec<String>) -> Filled<P::Body> {
        if pay(self.visit).await {
            return self.ask_origin(cell, generations, None).await;
        }
        settle(cell, Flight::Uncacheable);
        self.end(vec![Command::new("DEL").arg(&self.lock_key)]);
        Filled::Refused
    }

    /// The leader's part. `generations` were current when the lock was taken,
    /// before the origin is asked; `stale` is what is to be refreshed.
    async fn ask_origin(
        &self,
        cell: &FlightCell,
        generations: Vec<String>,
        stale: Option<Entry>,
    ) -> Filled<P::Body> {
        let begun_ms = self.visit.now_ms();
        let fetch = (self.visit.gateway.origin_tags.borrow_mut()).begin_fetch();
        let response = match self.fetch(own_fields(self.wanted)).await {
            Ok(response) => response,
            Err(error) => return self.fail(cell, error),
        };
        let Some(rule) = self.rule() else {
            return self.keep_to_itself(cell, response, UNCACHEABLE);
        };
        let times = match storable(response.status, &response.headers, rule) {
            Ok(times) => times,
            Err(why) => return self.keep_to_itself(cell, response, why.as_str()),
        };
        let Some(tags) = origin_tags::named(&response.headers) else {
            return self.keep_to_itself(cell, response, Unstorable::Tags.as_str());
        };
        let mut response = response;
        let read = self.read(&mut response, times.max_bytes).await;
        let now_ms = self.visit.now_ms();
        let bytes = match read {
            Ok(Bounded::Whole(bytes)) => bytes,
            Ok(Bounded::Longer(body)) => {
                response.body = Body::Upstream(body);
                return self.keep_to_itself(cell, response, Unstorable::TooLarge.as_str());
            }
            Ok(Bounded::Slow(body)) if self.is_refresh => {
                self.visit.ports.discard(body);
                return self.fail(cell, OriginError::Timeout);
            }
            Ok(Bounded::Slow(body)) => {
                response.body = Body::Upstream(body);
                return self.keep_to_itself(cell, response, "slow-body");
            }
            Err(error) => return self.fail(cell, error),
        };
        match store::entry(response.status, &response.headers, bytes, times, now_ms) {
            Err((why, bytes)) => {
                self.keep_to_itself(cell, response.with_bytes(bytes.into()), why.as_str())
            }
            Ok(mut entry) => {
                let took_ms = now_ms.saturating_sub(begun_ms);
                entry.took_ms = Some(took_ms);
                let key = &self.wanted.lookup.key;
                self.visit
                    .gateway
                    .flights
                    .borrow_mut()
                    .learn(self.wanted.route, key, took_ms);
                packing::compress(self.visit, times.form, &mut entry).await;
                // The same body has the same tag, also when the origin names one no more.
                if let Some(stale) = &stale
                    && stale.body == entry.body
                    && !response.headers.contains("etag")
                    && let Some(etag) = stale.headers.get("etag")
                {
                    entry.headers.set("etag", etag);
                }
                let proof = self.label(&tags, generations, fetch);
                let stored = self.done(cell, &entry, times, proof, stale).await;
                // This visitor gets all that the origin sent; the entry keeps less.
                if !response.headers.contains("etag") {
                    let etag = entry.headers.get("etag").unwrap_or_default();
                    response.headers.append("etag", etag);
                }
                let mut response = response.with_bytes(entry.body);
                if let Some(coding) = entry.headers.get("content-encoding") {
                    response.headers.append("content-encoding", coding);
                }
                let why = (!stored).then_some("encryption");
                Filled::Own(response, CacheStatus::Miss { stored, why })
            }
        }
    }

    /// Asks the origin with these fields, and keeps the lock meanwhile.
    pub async fn fetch(&self, fields: Headers) -> Result<Response<P::Body>, OriginError> {
        let timeout_ms = self.visit.origin_timeout_ms();
        self.renewing(self.visit.fetch(&self.wanted.target, fields, timeout_ms))
            .await
    }

    /// Takes an answer's body out of it.
    pub async fn read(
        &self,
        response: &mut Response<P::Body>,
        max_bytes: usize,
    ) -> Result<Bounded<P::Body>, OriginError> {
        match std::mem::replace(&mut response.body, Body::Empty) {
            Body::Empty => Ok(Bounded::Whole(Vec::new())),
            Body::Bytes(bytes) => Ok(Bounded::Whole(bytes.to_vec())),
            Body::Upstream(body) => {
                let timeout_ms = self.visit.origin_timeout_ms();
                self.renewing(self.visit.ports.read(body, max_bytes, timeout_ms))
                    .await
            }
        }
    }

    /// Awaits a step of the fill and keeps the lock meanwhile.
    async fn renewing<T>(&self, step: impl Future<Output = T>) -> T {
        let mut step = pin!(step);
        loop {
            let renewal = pin!(self.visit.ports.sleep(RENEW_MS));
            match select(step, renewal).await {
                Either::Left((output, _)) => return output,
                Either::Right(((), pending)) => step = pending,
            }
            let renew = Batch::pipeline(vec![Command::pexpire(&self.lock_key, LOCK_MS)]);
            let timeout_ms = self.visit.redis_timeout_ms();
            let renewed = pin!(self.visit.ports.pipeline(Store::Cache, &renew, timeout_ms));
            match select(step, renewed).await {
                Either::Left((output, _)) => return output,
                Either::Right((_, pending)) => step = pending,
            }
        }
    }

    fn waited_ms(&self) -> u64 {
        self.visit.now_ms().saturating_sub(self.begun_ms)
    }

    pub fn out_of_patience(&self) -> bool {
        // A leader's failure is known a trip and a poll after its deadline: those that
        // wait must not all ask an origin that hangs just before that.
        let max_ms =
            self.visit.origin_timeout_ms() + self.visit.redis_timeout_ms() * 2 + LAST_PAUSE_MS;
        let patience_ms = self.visit.gateway.flights.borrow().patience_ms(
            self.wanted.route,
            &self.wanted.lookup.key,
            max_ms,
        );
        self.waited_ms() >= patience_ms
    }

    /// What is left of the origin's timeout after waiting for another's fill.
    pub fn left_ms(&self) -> u64 {
        self.visit
            .origin_timeout_ms()
            .saturating_sub(self.waited_ms())
            .max(LEAST_FETCH_MS)
    }
}

/// By a hash that nobody finds a second text for: whoever chose a key with another's name
/// would be given his answer.
fn lock_name(identity: &str) -> String {
    let mut name = "fill:".to_owned();
    push_hex(&Sha256::digest(identity), &mut name);
    name
}

pub fn next_pause_ms(pause_ms: u64) -> u64 {
    (pause_ms + pause_ms / 4).min(LAST_PAUSE_MS)
}

/// The same between looks at a request of this isolate.
pub fn next_look_ms(pause_ms: u64) -> u64 {
    next_pause_ms(pause_ms).min(LAST_LOOK_MS)
}
