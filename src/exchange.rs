//! One request of a route whose cache goes by the origin's headers (`mode = "http"`).
//!
//! The cache is transparent: the origin gets the visitor's own request, cookies and all,
//! and `cache::http` says what may be shared. Requests at once share one trip to the
//! origin as in `fill`, and whoever gets an answer that is not for him asks for himself.
//! Generations are those of `policy` mode, so a purge wins every race here too.

use std::rc::Rc;

use crate::bill::pay;
use crate::cache::flight::{Flight, FlightCell, Join, UNCACHEABLE_MS};
use crate::cache::http::condition::{has_it, is_same_range};
use crate::cache::http::freshness::Span;
use crate::cache::http::range::{Part, part};
use crate::cache::http::reuse::{self, Trouble};
use crate::cache::http::storing::{is_decoded, storable};
use crate::cache::http::validation::{freshened, is_about, outgoing};
use crate::cache::http::{Control, Forward, Record, Report, Reuse, Stored, invalidation, vary};
use crate::cache::lookup::HTTP_KEYS;
use crate::cache::purge::Purge;
use crate::cache::{Found, GENERATION_TTL_S, Lookup, Seen, Unstorable, entry, generation};
use crate::deferred::{Deferred, settle};
use crate::failure::Failure;
use crate::fill::{FIRST_PAUSE_MS, Fill, Lock, Wanted, next_pause_ms, seed};
use crate::http::{Body, Headers, Request, Response};
use crate::listing::origin_failure;
use crate::origin::replaced_headers;
use crate::policy::{CacheRule, PathValues, Policy, Route, Values};
use crate::ports::{Bounded, Clock, OriginError, Ports, Random};
use crate::redis::{Batch, Command};
use crate::visit::Visit;

/// A longer key has the URL's hash in its place; purges take names up to this length.
const MAX_KEY_BYTES: usize = 1024;
/// How long past its freshness an answer is kept for an origin that is gone, and how long
/// one that can be validated.
const KEEP_MS: u64 = 3_600_000;
const KEEP_VALIDATOR_MS: u64 = 86_400_000;

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
                lookup: Lookup { key, tags },
                target,
            },
            request: request.clone(),
        })
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

/// Of a URL; no method is in it, so that a write can name what it ends. It is not the
/// query's nor the path's to look like another route's key: the name has no colon.
fn key(route: &str, base: &str, target: &str) -> String {
    let mut key = HTTP_KEYS.to_owned();
    key.push_str(route);
    key.push(':');
    let begin = key.len();
    key.push_str(base);
    key.push_str(target);
    if key.len() > MAX_KEY_BYTES {
        let hash = entry::hash(key.as_bytes());
        key.truncate(begin);
        // No URL begins so.
        key.push('#');
        key.push_str(&hash);
    }
    key
}

/// What an answer to a write ends of routes in `http` mode (RFC 9111, 4.4).
pub fn ended<B>(policy: &Policy, request: &Request, target: &str, response: &Response<B>) -> Purge {
    let mut purge = Purge::default();
    if invalidation::is_safe(&request.method) {
        return purge;
    }
    let (status, base) = (response.status, &request.base);
    for target in invalidation::targets(base, target, status, &response.headers) {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (&*target, None),
        };
        let resolved = policy.resolve("GET", path);
        let Some(route) = resolved.route.filter(|_| resolved.exact) else {
            continue;
        };
        if route.cache.as_ref().is_some_and(|rule| rule.by_origin) {
            let mut target = resolved.path.clone();
            if let Some(query) = query {
                target.push('?');
                target.push_str(query);
            }
            purge.keys.insert(key(&route.name, base, &target));
        }
    }
    purge
}

/// What was found, if it is of these generations.
fn current(found: &Found, generations: &[String]) -> Record {
    let Found::Record(bytes) = found else {
        return Record::default();
    };
    let record = Record::unpack(bytes);
    let is_current = |record: &Record| record.generations == generations;
    record.filter(is_current).unwrap_or_default()
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
    let report = match exchanged(visit, exchange, seen).await {
        Exchanged::Answer(answer) => return answer,
        Exchanged::PassOn(report) => report,
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
}

async fn exchanged<P: Ports>(
    visit: &Visit<'_, P>,
    exchange: &Exchange,
    seen: Option<Seen>,
) -> Exchanged<P::Body> {
    let without_redis = Exchanged::PassOn(Report::forwarded(Forward::Bypass, Some("redis")));
    let Some(seen) = seen else {
        return without_redis;
    };
    let fields = exchange.fields();
    let asked = Control::of_request(fields);
    let known: Option<Vec<String>> = seen.generations.clone().into_iter().collect();
    let record = match &known {
        Some(known) => current(&seen.found, known),
        None => Record::default(),
    };
    let variant = exchange.variant(&record);
    let stored = record.select(fields);
    let now_ms = visit.now_ms();
    let stale_ms = stale_ms(visit, exchange);
    let forward = match stored.map(|stored| reuse::judge(stored, &asked, stale_ms, now_ms)) {
        Some(reuse @ (Reuse::Serve | Reuse::ServeAndAsk)) => {
            if reuse == Reuse::ServeAndAsk {
                visit.defer(Deferred::Revalidate {
                    exchange: Box::new(exchange.clone()),
                    generations: record.generations.clone(),
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
    let lookup = &exchange.wanted.lookup;
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
            let waited = turn.lead(&own, &record).await;
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
        Waited::Alone => is_alone = true,
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

fn hit<B>(
    exchange: &Exchange,
    stored: Option<&Stored>,
    now_ms: u64,
) -> Result<Response<B>, Failure> {
    let stored = stored.ok_or(Failure::NotCached)?;
    Ok(serve(exchange, stored, Report::hit(stored, now_ms), now_ms))
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
    generations: Vec<String>,
    variant: &str,
) {
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
    let Waited::Leads(generations, record) = turn.lead(&cell, &Record::default()).await else {
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

/// What became of waiting for others.
enum Waited {
    /// What another's trip to the origin brought.
    Shared(Rc<Stored>),
    /// The origin failed for all who waited.
    Failed(OriginError),
    /// This request asks for all: with these generations, and what is stored now.
    Leads(Vec<String>, Record),
    /// What another's trip brought is not what this request wants, but may be validated.
    Beside(Rc<Stored>),
    /// Nothing to share: it asks for itself.
    Alone,
}

/// A request that needs the origin.
struct Turn<'v, 'a, P: Ports> {
    fill: Fill<'v, 'a, P>,
    visit: &'v Visit<'a, P>,
    exchange: &'v Exchange,
    asked: Control,
    forward: Forward,
}

impl<P: Ports> Turn<'_, '_, P> {
    fn report(&self) -> Report {
        Report::forwarded(self.forward, None)
    }

    /// Whether a stored answer serves this request as it is.
    fn is_usable(&self, stored: &Stored) -> bool {
        let now_ms = self.visit.now_ms();
        let selects = vary::selects(&stored.selecting, self.exchange.fields());
        selects && reuse::judge(stored, &self.asked, 0, now_ms) == Reuse::Serve
    }

    fn collapsed(&self, stored: &Stored) -> Response<P::Body> {
        let now_ms = self.visit.now_ms();
        let report = Report {
            collapsed: true,
            ttl_s: Some(stored.ttl_s(now_ms)),
            ..self.report()
        };
        serve(self.exchange, stored, report, now_ms)
    }

    fn unlock(&self) {
        let unlock = Command::new("DEL").arg(self.fill.lock_key.as_str());
        self.fill.end(vec![unlock]);
    }

    async fn lead(&self, cell: &FlightCell, record: &Record) -> Waited {
        let mut pause_ms = FIRST_PAUSE_MS;
        loop {
            match self.fill.take_lock().await {
                Lock::Taken { found, generations } => {
                    let record = current(&found, &generations);
                    let stored = record.select(self.exchange.fields());
                    let Some(stored) = stored.filter(|stored| self.is_usable(stored)) else {
                        return Waited::Leads(generations, record);
                    };
                    let stored = Rc::new(stored.clone());
                    settle(cell, Flight::Stored(Rc::clone(&stored)));
                    self.unlock();
                    return Waited::Shared(stored);
                }
                // The lock may be ours all the same: then nobody else would end it.
                Lock::Lost => {
                    return Waited::Leads(self.fill.generations.clone(), record.clone());
                }
                Lock::Failed(error) => {
                    settle(cell, Flight::Failed(error));
                    self.fill.land();
                    return Waited::Failed(error);
                }
                Lock::Held | Lock::Filled(_) if !self.fill.out_of_patience() => {}
                _ => {
                    self.fill.uncacheable(cell, UNCACHEABLE_MS);
                    self.fill.land();
                    return Waited::Alone;
                }
            }
            self.visit.sleep(pause_ms).await;
            pause_ms = next_pause_ms(pause_ms);
        }
    }

    async fn follow(&self, cell: &FlightCell) -> Waited {
        let mut pause_ms = FIRST_PAUSE_MS;
        loop {
            self.visit.sleep(pause_ms).await;
            pause_ms = next_pause_ms(pause_ms);
            let outcome = cell.borrow().clone();
            match outcome {
                Flight::Stored(stored) => {
                    return match self.is_usable(&stored) {
                        true => Waited::Shared(stored),
                        false => Waited::Beside(stored),
                    };
                }
                Flight::Failed(error) => return Waited::Failed(error),
                Flight::Pending if !self.fill.out_of_patience() => {}
                _ => return Waited::Alone,
            }
        }
    }

    /// A stale answer in place of a failure, where that is allowed.
    fn trouble(&self, record: &Record, trouble: Trouble) -> Result<Response<P::Body>, Failure> {
        let now_ms = self.visit.now_ms();
        let stale_ms = stale_ms(self.visit, self.exchange);
        match (record.select(self.exchange.fields()), trouble) {
            (Some(stored), _)
                if reuse::stands_in(stored, &self.asked, trouble, stale_ms, now_ms) =>
            {
                let report = Report {
                    detail: Some("origin-failed"),
                    ..Report::hit(stored, now_ms)
                };
                Ok(serve(self.exchange, stored, report, now_ms))
            }
            (_, Trouble::NoAnswer(error)) => Err(origin_failure(error)),
            (_, Trouble::Status(_)) => Err(Failure::OriginUnreachable),
        }
    }

    /// Asks the origin, and stores what may be; with a cell, for those that wait too.
    async fn ask(
        &self,
        cell: Option<&FlightCell>,
        record: Record,
    ) -> Result<Response<P::Body>, Failure> {
        let (visit, request) = (self.visit, &self.exchange.request);
        let Some(rule) = rule(&visit.gateway.policy, self.exchange.wanted.route) else {
            return Err(Failure::NotCached);
        };
        let stored = record.select(&request.headers).cloned();
        let mut validated = stored.as_ref().filter(|stored| stored.has_validator());
        let (mut response, span) = loop {
            let asked_ms = visit.now_ms();
            let fields = outgoing(&request.headers, replaced_headers(request), validated);
            let response = match self.fill.fetch(fields).await {
                Ok(response) => response,
                Err(error) => return self.fail(cell, &record, Trouble::NoAnswer(error), error),
            };
            let answered_ms = visit.now_ms();
            let span = Span {
                asked_ms,
                answered_ms,
            };
            match validated {
                // 4.3.4: this 304 is about an answer that we have not.
                Some(stored) if response.status == 304 && !is_about(stored, &response.headers) => {
                    validated = None;
                }
                _ => break (response, span),
            }
        };
        let headers = &response.headers;
        if let (304, Some(stored)) = (response.status, validated) {
            let (fresh, why) = freshened(stored, &request.headers, headers, span, rule.max_bytes);
            let report = Report {
                forward_status: Some(304),
                stored: why.is_none(),
                ttl_s: Some(fresh.ttl_s(span.answered_ms)),
                detail: why.map(Unstorable::as_str),
                ..self.report()
            };
            let answer = serve(self.exchange, &fresh, report, span.answered_ms);
            match why {
                None => self.store(cell, fresh, record, rule),
                Some(_) => self.forget(cell, true),
            }
            return Ok(answer);
        }
        let trouble = Trouble::Status(response.status);
        if let Some(stored) = &stored
            && reuse::stands_in(
                stored,
                &self.asked,
                trouble,
                rule.stale_ms,
                span.answered_ms,
            )
        {
            if let Body::Upstream(body) = response.body {
                visit.ports.discard(body);
            }
            return self.fail(cell, &record, trouble, OriginError::Unreachable);
        }
        let is_failing = matches!(response.status, 408 | 425 | 429 | 500..);
        let ends = stored.is_some() && !is_failing;
        let mut draft = match storable(
            &request.headers,
            response.status,
            headers,
            span,
            rule.max_bytes,
        ) {
            Ok(draft) => draft,
            Err(why) => return Ok(self.unstored(cell, response, why.as_str(), ends)),
        };
        let bytes = match self.fill.read(&mut response, rule.max_bytes).await {
            Ok(Bounded::Whole(bytes)) => bytes,
            Ok(Bounded::Longer(body)) => {
                response.body = Body::Upstream(body);
                let why = Unstorable::TooLarge.as_str();
                return Ok(self.unstored(cell, response, why, ends));
            }
            Ok(Bounded::Slow(body)) => {
                response.body = Body::Upstream(body);
                return Ok(self.unstored(cell, response, "slow-body", false));
            }
            Err(error) => return self.fail(cell, &record, Trouble::NoAnswer(error), error),
        };
        (visit.gateway.flights.borrow_mut()).learn(
            self.exchange.wanted.route,
            visit.now_ms().saturating_sub(span.asked_ms),
        );
        draft.body = bytes.into();
        // This visitor gets all fields that the origin sent; the stored answer has fewer.
        if is_decoded(&response.headers) {
            response.headers.remove("content-encoding");
        }
        response.headers.remove("content-length");
        response.body = whole(&draft);
        let now_ms = visit.now_ms();
        let report = Report {
            stored: true,
            ttl_s: Some(draft.ttl_s(now_ms)),
            ..self.report()
        };
        self.store(cell, draft, record, rule);
        let mut response = delivered(request, response, now_ms);
        report.add_to(&mut response.headers);
        Ok(response)
    }

    fn fail(
        &self,
        cell: Option<&FlightCell>,
        record: &Record,
        trouble: Trouble,
        error: OriginError,
    ) -> Result<Response<P::Body>, Failure> {
        if let Some(cell) = cell {
            self.fill.fail(cell, error);
        }
        self.trouble(record, trouble)
    }

    /// The answer is this request's alone. `ends`: what is stored is no longer so.
    fn unstored(
        &self,
        cell: Option<&FlightCell>,
        mut response: Response<P::Body>,
        why: &'static str,
        ends: bool,
    ) -> Response<P::Body> {
        self.forget(cell, ends);
        let report = Report {
            detail: Some(why),
            ..self.report()
        };
        report.add_to(&mut response.headers);
        response
    }

    /// Lets the others ask for themselves.
    fn forget(&self, cell: Option<&FlightCell>, ends: bool) {
        let mut commands = Vec::new();
        if let Some(cell) = cell {
            commands.push(self.fill.uncacheable(cell, UNCACHEABLE_MS));
        }
        if ends {
            let key = self.exchange.wanted.lookup.key.as_str();
            commands.push(Command::new("DEL").arg(key));
            let generations = self.fill.generations.clone();
            self.fill
                .end_if_current(Batch::multi(commands), generations);
        } else if !commands.is_empty() {
            self.fill.end(commands);
        }
    }

    fn store(
        &self,
        cell: Option<&FlightCell>,
        stored: Stored,
        mut record: Record,
        rule: &CacheRule,
    ) {
        if let Some(cell) = cell {
            settle(cell, Flight::Stored(Rc::new(stored.clone())));
        }
        record.put(stored, self.exchange.fields(), rule.max_bytes);
        let generations = self.fill.generations.clone();
        record.generations.clone_from(&generations);
        let now_ms = self.visit.now_ms();
        let mut longest_ms = 1;
        for stored in &record.variants {
            longest_ms = longest_ms.max(life_ms(stored, rule, now_ms));
        }
        let lookup = &self.exchange.wanted.lookup;
        let mut commands = vec![Command::set_px(&lookup.key, record.pack(), longest_ms)];
        for key in lookup.generation_keys() {
            commands.push(Command::new("EXPIRE").arg(key).arg(GENERATION_TTL_S));
        }
        commands.push(Command::new("DEL").arg(self.fill.lock_key.as_str()));
        self.fill
            .end_if_current(Batch::multi(commands), generations);
    }
}

/// How long a stored answer is of use, no longer than its generations live.
fn life_ms(stored: &Stored, rule: &CacheRule, now_ms: u64) -> u64 {
    let control = Control::of_response(&stored.headers);
    let stale_s = control
        .stale_while_revalidate_s
        .max(control.stale_if_error_s);
    let keep_ms = match stored.has_validator() {
        true => KEEP_VALIDATOR_MS,
        false => KEEP_MS,
    };
    let left_ms = stored.fresh_ms.saturating_sub(stored.age_ms(now_ms));
    (left_ms + keep_ms.max(stale_s * 1000).max(rule.stale_ms)).min(GENERATION_TTL_S * 1000)
}

/// The platform refuses even an empty body beside a 204.
fn whole<B>(stored: &Stored) -> Body<B> {
    match stored.body.is_empty() {
        true => Body::Empty,
        false => Body::Bytes(Rc::clone(&stored.body)),
    }
}

/// A stored answer to this request.
fn serve<B>(exchange: &Exchange, stored: &Stored, report: Report, now_ms: u64) -> Response<B> {
    let response = Response {
        status: stored.status,
        headers: stored.headers.clone(),
        body: whole(stored),
    };
    let mut response = delivered(&exchange.request, response, now_ms);
    // 5.1: what was not validated just now has an age.
    let age_s = stored.age_ms(now_ms) / 1000;
    if report.forward.is_none() || report.collapsed || age_s > 0 {
        response.headers.append("age", age_s.to_string());
    }
    report.add_to(&mut response.headers);
    response
}

/// What of a complete answer this request gets, by its conditions and its range.
fn delivered<B>(request: &Request, mut response: Response<B>, now_ms: u64) -> Response<B> {
    if response.status != 200 {
        return response;
    }
    let headers = &request.headers;
    if has_it(headers, &response.headers, now_ms) {
        // RFC 9110, 15.4.5: nothing of the content but what tells which one it is.
        response.headers.keep(&|name| {
            !matches!(
                name,
                "content-type"
                    | "content-length"
                    | "content-encoding"
                    | "content-language"
                    | "content-range"
            )
        });
        response.status = 304;
        response.body = Body::Empty;
        return response;
    }
    // RFC 9110, 14.2: a range is for GET alone, and judged after the conditions.
    let (Some(field), Body::Bytes(bytes)) = (headers.get("range"), &response.body) else {
        return response;
    };
    if request.method != "GET" || !is_same_range(headers, &response.headers) {
        return response;
    }
    let length = bytes.len();
    let mut place = "bytes ".to_owned();
    match part(field, length) {
        Part::Whole => return response,
        Part::None => {
            place.push('*');
            response.status = 416;
            response.body = Body::Empty;
        }
        Part::Bytes(first, last) => {
            push_number(&mut place, first);
            place.push('-');
            push_number(&mut place, last);
            let bytes = bytes.get(first..=last).unwrap_or_default();
            response.body = Body::Bytes(bytes.into());
            response.status = 206;
        }
    }
    place.push('/');
    push_number(&mut place, length);
    response.headers.set("content-range", place);
    response
}

fn push_number(out: &mut String, number: usize) {
    out.push_str(&(number as u64).to_string());
}
