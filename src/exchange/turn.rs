//! A request that needs the origin: it leads, follows or goes alone.

use std::rc::Rc;

use super::delivery::{delivered, serve, whole};
use super::{Exchange, current, rule, stale_ms};
use crate::cache::flight::{Flight, FlightCell, UNCACHEABLE_MS};
use crate::cache::http::freshness::Span;
use crate::cache::http::reuse::{self, Trouble};
use crate::cache::http::storing::{is_decoded, storable};
use crate::cache::http::validation::{freshened, is_about, outgoing};
use crate::cache::http::{Control, Forward, Record, Report, Reuse, Stored, vary};
use crate::cache::origin_tags::named;
use crate::cache::{GENERATION_TTL_S, Unstorable};
use crate::deferred::settle;
use crate::failure::Failure;
use crate::fill::{FIRST_PAUSE_MS, Fill, Lock, next_pause_ms};
use crate::http::{Body, Headers, Response};
use crate::listing::origin_failure;
use crate::origin::replaced_headers;
use crate::policy::CacheRule;
use crate::ports::{Bounded, Clock, OriginError, Ports};
use crate::redis::{Batch, Command};
use crate::visit::Visit;

/// How long past its freshness an answer is kept for an origin that is gone, and how long
/// one that can be validated.
const KEEP_MS: u64 = 3_600_000;
const KEEP_VALIDATOR_MS: u64 = 86_400_000;

/// What became of waiting for others.
pub enum Waited {
    /// What another's trip to the origin brought.
    Shared(Rc<Stored>),
    /// The origin failed for all who waited.
    Failed(OriginError),
    /// This request asks for all: with these generations, and what is stored now.
    Leads(Vec<String>, Record),
    /// What another's trip brought is not what this request wants, but may be validated.
    Beside(Rc<Stored>),
    /// What another's trip brought has these tags, which were not read.
    Again(Rc<[String]>),
    /// Nothing to share: it asks for itself.
    Alone,
}

/// A request that needs the origin.
pub struct Turn<'v, 'a, P: Ports> {
    pub fill: Fill<'v, 'a, P>,
    pub visit: &'v Visit<'a, P>,
    pub exchange: &'v Exchange,
    pub asked: Control,
    pub forward: Forward,
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

    pub fn collapsed(&self, stored: &Stored) -> Response<P::Body> {
        let now_ms = self.visit.now_ms();
        let report = Report {
            collapsed: true,
            ttl_s: Some(stored.ttl_s(now_ms)),
            ..self.report()
        };
        serve(self.exchange, stored, report, now_ms)
    }

    pub fn unlock(&self) {
        let unlock = Command::new("DEL").arg(&self.fill.lock_key);
        self.fill.end(vec![unlock]);
    }

    /// `record` is what this visitor found; without one nobody waits, and another leader is
    /// left to it.
    pub async fn lead(&self, cell: &FlightCell, record: Option<&Record>) -> Waited {
        let mut pause_ms = FIRST_PAUSE_MS;
        loop {
            match self.fill.take_lock().await {
                Lock::Again { tags, is_ours } => {
                    self.fill.again(cell, Rc::clone(&tags), is_ours);
                    return Waited::Again(tags);
                }
                Lock::Taken { found, generations } => {
                    let now = generations.iter().cloned().map(Some).collect::<Vec<_>>();
                    let lookup = &self.exchange.wanted.lookup;
                    let record = current(lookup, &found, &now, self.visit.now_ms());
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
                    let record = record.cloned().unwrap_or_default();
                    return Waited::Leads(self.fill.generations.clone(), record);
                }
                Lock::Failed(error) => {
                    settle(cell, Flight::Failed(error));
                    self.fill.land();
                    return Waited::Failed(error);
                }
                Lock::Uncacheable => {
                    self.fill.uncacheable(cell, UNCACHEABLE_MS);
                    self.fill.land();
                    return Waited::Alone;
                }
                _ if record.is_some() && !self.fill.out_of_patience() => {}
                _ => {
                    settle(cell, Flight::Uncacheable);
                    self.fill.land();
                    return Waited::Alone;
                }
            }
            self.visit.sleep(pause_ms).await;
            pause_ms = next_pause_ms(pause_ms);
        }
    }

    pub async fn follow(&self, cell: &FlightCell) -> Waited {
        match self.fill.outcome(cell).await {
            Flight::Stored(stored) => match self.is_usable(&stored) {
                true => Waited::Shared(stored),
                false => Waited::Beside(stored),
            },
            Flight::Failed(error) => Waited::Failed(error),
            Flight::Tagged(tags) => Waited::Again(tags),
            _ => Waited::Alone,
        }
    }

    /// A stale answer in place of a failure, where that is allowed.
    pub fn trouble(&self, record: &Record, trouble: Trouble) -> Result<Response<P::Body>, Failure> {
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
    pub async fn ask(
        &self,
        cell: Option<&FlightCell>,
        record: Record,
    ) -> Result<Response<P::Body>, Failure> {
        let (visit, request) = (self.visit, &self.exchange.request);
        let Some(rule) = rule(&visit.gateway.policy, self.exchange.wanted.route) else {
            return Err(Failure::NotCached);
        };
        let stored = record.select(&request.headers).cloned();
        let fetch = (visit.gateway.origin_tags.borrow_mut()).begin_fetch();
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
            let why = why.or_else(|| untagged(&fresh, None));
            let report = Report {
                forward_status: Some(304),
                stored: why.is_none(),
                ttl_s: Some(fresh.ttl_s(span.answered_ms)),
                detail: why.map(Unstorable::as_str),
                ..self.report()
            };
            let answer = serve(self.exchange, &fresh, report, span.answered_ms);
            match why {
                None => self.store(cell, fresh, record, rule, fetch),
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
        if let Some(why) = untagged(&draft, Some(headers)) {
            return Ok(self.unstored(cell, response, why.as_str(), ends));
        }
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
            &self.exchange.wanted.lookup.key,
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
        self.store(cell, draft, record, rule, fetch);
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
            let key = &self.exchange.wanted.lookup.key;
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
        fetch: u64,
    ) {
        let outcome = Flight::Stored(Rc::new(stored.clone()));
        record.put(stored, self.exchange.fields(), rule.max_bytes);
        record.name();
        let proof = (self.fill).label(&record.tags, self.fill.generations.clone(), fetch);
        record.tags.clone_from(&proof.lookup.origin_tags);
        record.generations.clone_from(&proof.generations);
        let now_ms = self.visit.now_ms();
        let mut longest_ms = 1;
        for stored in &record.variants {
            longest_ms = longest_ms.max(life_ms(stored, rule, now_ms));
        }
        let lookup = &proof.lookup;
        let mut commands = vec![Command::set_px(&lookup.key, record.pack(), longest_ms)];
        for key in lookup.generation_keys() {
            commands.push(Command::new("EXPIRE").arg(key).arg(GENERATION_TTL_S));
        }
        commands.push(Command::new("DEL").arg(&self.fill.lock_key));
        let batch = Batch::multi(commands);
        self.fill.end_proven(cell, outcome, batch, proof, None);
    }
}

/// Whether purges of the tags that the origin gave an answer could not be honoured: they
/// are too many, or the stored answer would not have them.
fn untagged(stored: &Stored, sent: Option<&Headers>) -> Option<Unstorable> {
    let tags = named(&stored.headers);
    let is_kept = tags.is_some() && sent.is_none_or(|sent| named(sent) == tags);
    (!is_kept).then_some(Unstorable::Tags)
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
