//! One request of a route whose cache goes by the origin's headers (`mode = "http"`).
//!
//! The cache is transparent: the origin gets the visitor's own request, cookies and all,
//! and `cache::http` says what may be shared. Requests at once share one trip to the
//! origin as in `fill`, and whoever gets an answer that is not for him asks for himself.
//! Generations are those of `policy` mode, so a purge wins every race here too.

mod delivery;
mod key;
mod turn;

use std::rc::Rc;

use crate::bill::pay;
use crate::cache::flight::{Flight, Join};
use crate::cache::generation::standing;
use crate::cache::http::reuse::{self, Trouble};
use crate::cache::http::{Control, Forward, Record, Report, Reuse, Stored, vary};
use crate::cache::store::TAGS_MS;
use crate::cache::{Found, Lookup, Seen, Standing, generation};
use crate::deferred::{Deferred, settle};
use crate::failure::Failure;
use crate::fill::{Fill, Wanted, seed};
use crate::http::{Body, Headers, Request, Response};
use crate::listing::origin_failure;
use crate::origin::replaced_headers;
use crate::policy::{CacheRule, PathValues, Policy, Route, Values};
use crate::ports::{Clock, Ports, Random};
use crate::reading;
use crate::redis::Command;
use crate::visit::Visit;
use delivery::serve;
pub use key::{ended, key};
use turn::{Turn, Waited};

/// What a request wants, with all of it that may select an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    pub wanted: Wanted,
    pub request: Request,
}

impl Exchange {
    /// `target` is the path in normal form and the query as sent. `None`: a tag cannot be
    /// made of these values.
    pub fn new(
        route: &Route,
        index: usize,
        request: &Request,
        target: String,
        values: &PathValues,
    ) -> Option<Self> {
        let of = Values {
            path: values,
            selected: None,
            user: None,
            body: None,
            response: None,
        };
        let tags = route.cache.as_ref()?.tags.iter();
        let tags = tags.map(|tag| tag.render(&of)).collect::<Option<_>>()?;
        let key = key(&route.name, &request.base, &target);
        Some(Self {
            wanted: Wanted {
                route: index,
                lookup: Rc::new(Lookup {
                    key,
                    tags,
                    origin_tags: Vec::new(),
                }),
                target,
                fields: Headers::new(),
            },
            request: request.clone(),
        })
    }

    /// The same with these tags of the origin's.
    fn named(&self, origin_tags: &[String]) -> Self {
        Self {
            wanted: self.wanted.named(origin_tags),
            request: self.request.clone(),
        }
    }

    fn fields(&self) -> &Headers {
        &self.request.headers
    }

    /// Fills of one URL that are for requests like this one: by what the newest answer
    /// was chosen by.
    fn variant(&self, record: &Record) -> String {
        let mut out = String::new();
        if let Some(newest) = record.variants.first() {
            for (name, _) in &newest.selecting {
                out.push('\n');
                for line in self.fields().get_all(name) {
                    out.push_str(line);
                    out.push(',');
                }
            }
        }
        out
    }
}

/// What was found, as far as its generations, which are in the order of the lookup, let it
/// be used.
fn current(lookup: &Lookup, found: &Found, generations: &[Option<String>], now_ms: u64) -> Record {
    let Found::Record(bytes) = found else {
        return Record::default();
    };
    let mut record = Record::unpack(bytes).unwrap_or_default();
    match standing(lookup, &record.tags, &record.generations, generations) {
        Standing::Current => {}
        Standing::Soft => record.soften(now_ms),
        Standing::Unread | Standing::Gone => record = Record::default(),
    }
    record
}

/// Leaves which tags a URL's answers have, in place of any.
pub fn tags(lookup: &Lookup) -> Vec<Command> {
    let record = Record {
        tags: lookup.origin_tags.clone(),
        ..Record::default()
    };
    vec![Command::set_px(&lookup.key, record.pack(), TAGS_MS)]
}

fn rule(policy: &Policy, route: usize) -> Option<&CacheRule> {
    policy.routes.get(route)?.cache.as_ref()
}

/// Answers a request; `None`: Redis did not answer.
pub async fn answer<P: Ports>(
    visit: &Visit<'_, P>,
    exchange: &Exchange,
    incoming: &P::Incoming,
    seen: Option<Seen>,
) -> Result<Response<P::Body>, Failure> {
    let mut seen = seen;
    let mut named = None;
    let mut is_again = false;
    let report = loop {
        if let Some(seen) = &seen
            && seen.origin_tags != exchange.wanted.lookup.origin_tags
        {
            named = Some(exchange.named(&seen.origin_tags));
        }
        let exchange = named.as_ref().unwrap_or(exchange);
        match exchanged(visit, exchange, seen, is_again).await {
            Exchanged::Answer(answer) => return answer,
            Exchanged::PassOn(report) => break report,
            Exchanged::Again(tags) => {
                seen = reading::once_more(visit, &exchange.wanted.named(&tags)).await;
            }
        }
        is_again = true;
    };
    // The visitor's own request, to the origin and back untouched.
    if !pay(visit).await {
        return Err(Failure::ReducedCapacity);
    }
    let replaced = replaced_headers(&exchange.request);
    let mut response = visit
        .forward(incoming, &exchange.wanted.target, &replaced)
        .await
        .map_err(origin_failure)?;
    report.add_to(&mut response.headers);
    Ok(response)
}

/// What the cache can do for a request.
enum Exchanged<B> {
    Answer(Result<Response<B>, Failure>),
    PassOn(Report),
    /// What it waited for has these tags, with which it must be looked up once more.
    Again(Rc<[String]>),
}

async fn exchanged<P: Ports>(
    visit: &Visit<'_, P>,
    exchange: &Exchange,
    seen: Option<Seen>,
    is_again: bool,
) -> Exchanged<P::Body> {
    let without_redis = Exchanged::PassOn(Report::forwarded(Forward::Bypass, Some("redis")));
    let Some(seen) = seen else {
        return without_redis;
    };
    let fields = exchange.fields();
    let asked = Control::of_request(fields);
    let known: Option<Vec<String>> = seen.generations.clone().into_iter().collect();
    let lookup = &exchange.wanted.lookup;
    let now_ms = visit.now_ms();
    let record = current(lookup, &seen.found, &seen.generations, now_ms);
    let variant = exchange.variant(&record);
    let stored = record.select(fields);
    let stale_ms = stale_ms(visit, exchange);
    let forward = match stored.map(|stored| reuse::judge(stored, &asked, stale_ms, now_ms)) {
        Some(reuse @ (Reuse::Serve | Reuse::ServeAndAsk)) => {
            if reuse == Reuse::ServeAndAsk {
                visit.defer(Deferred::Revalidate {
                    exchange: Box::new(exchange.clone()),
                    generations: seen.generations,
                    variant,
                });
            }
            return Exchanged::Answer(hit(exchange, stored, now_ms));
        }
        Some(Reuse::Unwanted) => Forward::Request,
        Some(Reuse::Stale) => Forward::Stale,
        None if record.variants.is_empty() => Forward::UriMiss,
        None => Forward::VaryMiss,
    };
    // 5.2.1.7: only-if-cached.
    if asked.only_if_cached {
        return Exchanged::Answer(Err(Failure::NotCached));
    }
    let has = |name| fields.contains(name);
    // What cannot be filled goes on as it is: there is no whole answer to make of it, or none
    // that may be stored.
    let why = match exchange.request.method.as_str() {
        _ if has("if-match") || has("if-unmodified-since") => {
            return Exchanged::PassOn(Report::forwarded(forward, Some("condition")));
        }
        "HEAD" => Some("head"),
        _ if has("range") && stored.is_none() => Some("range"),
        _ if asked.no_store => Some("request"),
        _ => None,
    };
    let passed_on = Exchanged::PassOn(Report::forwarded(forward, why));
    // 5.2.2.4: what is always validated is so for each request. What credentials bring
    // is rarely for others, and must not keep them waiting, nor from sharing.
    let is_validated = |stored: &Stored| Control::of_response(&stored.headers).no_cache;
    let mut is_alone = has("authorization")
        || forward == Forward::Request
        || stored.is_some_and(is_validated)
        || (visit.gateway.flights.borrow()).is_uncacheable(&lookup.key, now_ms);
    let generations = match (why, known) {
        (None, _) => match seed(visit, lookup, seen.generations).await {
            Some(generations) => generations,
            None => return without_redis,
        },
        (Some(_), Some(known)) => known,
        (Some(_), None) => return passed_on,
    };
    let mut turn = Turn {
        fill: Fill::new(visit, &exchange.wanted, generations, &variant),
        visit,
        exchange,
        asked,
        forward,
    };
    let mut cell = None;
    let mut record = record;
    let joined = match why {
        // It may get what is being filled, and fills nothing itself.
        Some(_) => turn.fill.under_way().map(Join::Follow),
        None if is_alone => None,
        None => Some(turn.fill.join()),
    };
    let waited = match joined {
        None => Waited::Alone,
        Some(Join::Lead(own)) => {
            let waited = turn.lead(&own, Some(&record)).await;
            cell = Some(own);
            waited
        }
        Some(Join::Follow(cell)) => turn.follow(&cell).await,
    };
    match waited {
        Waited::Shared(stored) => return Exchanged::Answer(Ok(turn.collapsed(&stored))),
        _ if why.is_some() => return passed_on,
        Waited::Failed(error) => {
            let trouble = Trouble::NoAnswer(error);
            return Exchanged::Answer(turn.trouble(&record, trouble));
        }
        Waited::Leads(generations, now) => {
            turn.fill.generations = generations;
            record = now;
        }
        Waited::Beside(stored) => {
            if vary::selects(&stored.selecting, fields) {
                record.variants.insert(0, Stored::clone(&stored));
            }
            is_alone = true;
        }
        Waited::Again(tags) if !is_again => return Exchanged::Again(tags),
        Waited::Alone | Waited::Again(_) => is_alone = true,
    }
    if is_alone {
        // A lock of its own, which nobody waits for.
        let own = generation(visit.random());
        let generations = std::mem::take(&mut turn.fill.generations);
        turn.fill = Fill::new(visit, &exchange.wanted, generations, &own);
        cell = None;
    }
    if pay(visit).await {
        return Exchanged::Answer(turn.ask(cell.as_ref(), record).await);
    }
    if let Some(cell) = cell {
        settle(&cell, Flight::Uncacheable);
        turn.unlock();
    }
    // The bill says why.
    Exchanged::Answer(Err(Failure::ReducedCapacity))
}

/// How long past its freshness the policy lets an answer be served.
fn stale_ms<P: Ports>(visit: &Visit<'_, P>, exchange: &Exchange) -> u64 {
    let rule = rule(&visit.gateway.policy, exchange.wanted.route);
    rule.map_or(0, |rule| rule.stale_ms)
}

/// Asks anew for what was served stale, unless somebody else does.
pub async fn revalidate<P: Ports>(
    visit: &Visit<'_, P>,
    exchange: &Exchange,
    generations: Vec<Option<String>>,
    variant: &str,
) {
    let Some(generations) = seed(visit, &exchange.wanted.lookup, generations).await else {
        return;
    };
    let mut turn = Turn {
        fill: Fill::new(visit, &exchange.wanted, generations, variant),
        visit,
        exchange,
        // What the visitor wanted of the cache, he got.
        asked: Control::default(),
        forward: Forward::Stale,
    };
    let Join::Lead(cell) = turn.fill.join() else {
        return;
    };
    // Nobody waits with it for another's: everybody has the stale one.
    let Waited::Leads(generations, record) = turn.lead(&cell, None).await else {
        return;
    };
    turn.fill.generations = generations;
    let answered = turn.ask(Some(&cell), record).await;
    if let Ok(Response {
        body: Body::Upstream(body),
        ..
    }) = answered
    {
        visit.ports.discard(body);
    }
}

fn hit<B>(
    exchange: &Exchange,
    stored: Option<&Stored>,
    now_ms: u64,
) -> Result<Response<B>, Failure> {
    let stored = stored.ok_or(Failure::NotCached)?;
    Ok(serve(exchange, stored, Report::hit(stored, now_ms), now_ms))
}
