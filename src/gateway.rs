//! The request flow.
//!
//! ```text
//! resolve route -> identify -> plan -> admit -> ONE trip -> judge limits -> judge cache -> (origin) -> headers
//! ```
//!
//! Another Worker uses this crate by building the ports and calling [`handle`]:
//!
//! ```text
//! let gateway = Gateway::new(policy, settings);           // once per isolate
//! let Answer { response, deferred, under_way } = handle(&gateway, &ports, request, incoming).await;
//! respond(response);
//! edgeweir::deferred::finish(&gateway, &ports, deferred, under_way).await; // in wait_until
//! ```
//!
//! The whole call must be owned by `wait_until`, so that a visitor who leaves
//! cancels neither a refund nor a fill that others wait for.

use std::cell::RefCell;

use crate::admin;
use crate::admission::{Admission, admit, is_denied, is_off};
use crate::ahead::UnderWay;
use crate::bill;
use crate::cache::purge::Unpurged;
use crate::cache::written::Known;
use crate::cache::{Adopted, Flights, L1, OriginTags, Seen};
use crate::compose::{self, Piece, compose};
use crate::concurrency::Concurrency;
use crate::conduct;
use crate::config::{CacheKey, Secret};
use crate::controls::{self, Controls};
use crate::deferred::Deferred;
use crate::exchange::{self, Exchange};
use crate::failure::Failure;
use crate::fill::Wanted;
use crate::headers::{
    CacheStatus, add_cache_status, add_rate_limits, add_server_timing, revalidate,
};
use crate::http::{Body, Request, Response};
use crate::limit::{Memory, Quota};
use crate::listing::{self, origin_failure};
use crate::origin::replaced_headers;
use crate::penalty::Penalties;
use crate::policy::{Form, HEALTH, Part, Policy, Resolved, Switch, is_own};
use crate::ports::{Clock, Ports};
use crate::presentation::{make_private, present};
use crate::redis::Shards;
use crate::refused::Refused;
use crate::together::boxed;
use crate::trip;
use crate::views::count::{self, Views};
use crate::views::due::Schedule;
use crate::views::merge::{has_merge, merge};
use crate::visit::Visit;
use crate::visitor::Visitor;
use crate::warm::top::{self, Top};
use crate::write::{self, Write};

/// Longer paths are answered 414; workerd itself takes at most 16 KB of URL.
pub const MAX_PATH_BYTES: usize = 16 * 1024;

/// The route name under which everything without a route is counted.
pub const UNMATCHED: &str = "*";

/// What the variables say, beside the policy.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub admin_token: Option<Secret>,
    pub jwt_secret: Option<Secret>,
    /// Of `hash_ids`.
    pub hash_key: Option<Secret>,
    /// Of users' entries; the first encrypts.
    pub cache_keys: Vec<CacheKey>,
    /// Which of the databases for limits counts an id.
    pub shards: Shards,
    /// Limits live in Redis; false: in this isolate.
    pub limits_in_redis: bool,
    /// `CACHE_REDIS_REST_URL` is set: both databases are asked at once.
    pub separate_cache: bool,
    /// `REDIS_ENABLED` is false: there is nothing to ask.
    pub without_redis: bool,
    /// Of the routes that name them, a part is off.
    pub switched_off: Vec<Switch>,
    /// When pending views go to the origin.
    pub views: Schedule,
}

/// One isolate's gateway: the policy and what is remembered between requests.
pub struct Gateway {
    pub policy: Policy,
    pub settings: Settings,
    pub limits: RefCell<Memory>,
    pub flights: RefCell<Flights>,
    pub adopted: RefCell<Adopted>,
    pub unpurged: RefCell<Unpurged>,
    pub l1: RefCell<L1>,
    pub origin_tags: RefCell<OriginTags>,
    pub concurrency: Concurrency,
    pub controls: RefCell<Controls>,
    pub penalties: RefCell<Penalties>,
    pub refused: RefCell<Refused>,
    /// What is asked most.
    pub asked: RefCell<Top>,
    pub views: RefCell<Views>,
}

impl Gateway {
    pub fn new(policy: Policy, settings: Settings) -> Self {
        Self {
            penalties: RefCell::new(Penalties::new(&policy)),
            refused: RefCell::default(),
            asked: RefCell::new(Top::new(&policy)),
            views: RefCell::default(),
            policy,
            settings,
            limits: RefCell::new(Memory::new()),
            flights: RefCell::new(Flights::default()),
            adopted: RefCell::new(Adopted::default()),
            unpurged: RefCell::new(Unpurged::default()),
            l1: RefCell::new(L1::default()),
            origin_tags: RefCell::new(OriginTags::default()),
            concurrency: Concurrency::default(),
            controls: RefCell::new(Controls::default()),
        }
    }
}

/// The answer, and the work that is due after it.
pub struct Answer<'a, B> {
    pub response: Response<B>,
    pub deferred: Vec<Deferred>,
    /// What was begun before it, and goes on.
    pub under_way: Vec<UnderWay<'a>>,
}

/// What a request will be answered with, if its limits admit it.
enum Plan<'p> {
    Admin,
    Listing(Wanted),
    Composed(&'p [Part], Vec<Piece>),
    /// By the origin's headers.
    Exchange(Exchange),
    /// To the origin as it is.
    Pass,
    /// The same; the answer becomes an entry, if these are still its generations then.
    Fill(Vec<String>, Option<Vec<Option<String>>>),
    /// A cached route that is not looked up: why, and what the origin is asked for.
    Bypass(&'static str, String),
    TooLong,
}

impl Plan<'_> {
    /// The entries that it is made of.
    fn wanted(&self) -> Vec<&Wanted> {
        match self {
            Plan::Listing(wanted) => vec![wanted],
            Plan::Exchange(exchange) => vec![&exchange.wanted],
            Plan::Composed(_, pieces) => pieces.iter().map(|piece| &piece.wanted).collect(),
            _ => Vec::new(),
        }
    }

    /// Keys of generations that are read before the origin is asked.
    fn generations(&self) -> &[String] {
        match self {
            Plan::Fill(keys, _) => keys,
            _ => &[],
        }
    }

    /// Names the origin's tags that are known of the entries.
    fn recall(&mut self, known: &mut OriginTags) {
        match self {
            Plan::Listing(wanted) => known.recall(&mut wanted.lookup),
            Plan::Exchange(exchange) => known.recall(&mut exchange.wanted.lookup),
            Plan::Composed(_, pieces) => {
                for piece in pieces {
                    known.recall(&mut piece.wanted.lookup);
                }
            }
            _ => {}
        }
    }
}

/// Answers one request. Never fails: whatever happens has an answer.
pub async fn handle<'a, P: Ports>(
    gateway: &'a Gateway,
    ports: &'a P,
    request: Request,
    incoming: P::Incoming,
) -> Answer<'a, P::Body> {
    let visit = Visit::new(gateway, ports);
    let response = answer(&visit, &request, incoming).await;
    Answer {
        response,
        deferred: visit.take_deferred(),
        under_way: visit.take_under_way(),
    }
}

async fn answer<P: Ports>(
    visit: &Visit<'_, P>,
    request: &Request,
    incoming: P::Incoming,
) -> Response<P::Body> {
    if request.path == HEALTH {
        return boxed(admin::health(visit, request)).await;
    }
    let gateway = visit.gateway;
    let resolved = gateway.policy.resolve(&request.method, &request.path);
    let visitor = Visitor::new(request, gateway, visit.now_ms() / 1000);
    let mut plan = plan(gateway, request, &resolved, &visitor);
    plan.recall(&mut gateway.origin_tags.borrow_mut());
    let admission = match admit(gateway, &resolved, &visitor) {
        Ok(admission) => admission,
        Err(denied) => {
            trip::read_controls_later(visit, controls::claim(gateway, visit.now_ms()));
            return finish(visit, request, &[], Err(denied));
        }
    };
    let admission = match plan {
        Plan::Listing(_) | Plan::Composed(..) | Plan::Exchange(_) => by_outcome(visit, admission),
        _ => admission,
    };
    let ip = conduct::watched(gateway, &admission, &visitor);
    let ip = ip.as_deref();
    if let Some(banned) = conduct::ban(visit, &admission, ip) {
        trip::read_controls_later(visit, controls::claim(gateway, visit.now_ms()));
        conduct::look(visit, ip);
        return finish(visit, request, &[], Err(banned));
    }
    let (wanted, generations) = (plan.wanted(), plan.generations());
    let asked = trip::ask(visit, &admission, ip, &wanted, generations).await;
    if let Plan::Fill(_, generations) = &mut plan {
        *generations = asked.generations;
    }
    if asked.has_news && is_denied(gateway, &resolved, &visitor) {
        return finish(visit, request, &[], Err(Failure::Denied));
    }
    if let Some(banned) = conduct::ban(visit, &admission, ip) {
        return finish(visit, request, &[], Err(banned));
    }
    let mut quotas = asked.checked.quotas;
    let checked_ms = visit.now_ms();
    let served = match Failure::of(asked.checked.verdict) {
        Some(refused) => Err(refused),
        None => {
            for wanted in plan.wanted() {
                top::count(visit, wanted);
            }
            let seen = asked.seen;
            let served = serve(visit, request, &incoming, &resolved, &visitor, &plan, seen).await;
            visit.bill.borrow_mut().refusal().map_or(served, Err)
        }
    };
    bill::settle(visit, has_failed(&served));
    conduct::note(visit, &admission, ip, &served);
    count::note(visit, request, &resolved, &visitor, &served);
    visit.bill.borrow_mut().renew(&mut quotas);
    // The visitor counts from the answer, for which the origin may have taken a while.
    let since_ms = visit.now_ms().saturating_sub(checked_ms);
    for quota in &mut quotas {
        quota.reset_ms = quota.reset_ms.saturating_sub(since_ms).max(1);
    }
    finish(visit, request, &quotas, served)
}

/// Charges a hit; what a miss costs more is owed until the origin is asked.
fn by_outcome<'p, P: Ports>(visit: &Visit<'p, P>, admission: Admission<'p>) -> Admission<'p> {
    let mut owed = Vec::new();
    let charges = admission.charges.into_iter().map(|charge| {
        let (hit, more) = charge.by_outcome();
        owed.extend(more);
        hit
    });
    let charges = charges.collect();
    visit.bill.borrow_mut().owe(owed, admission.redis_down);
    Admission {
        charges,
        ..admission
    }
}

/// Whether the origin failed, or said that it did.
fn has_failed<B>(served: &Result<Response<B>, Failure>) -> bool {
    match served {
        Ok(response) => response.status >= 500,
        Err(failure) => matches!(failure, Failure::OriginUnreachable | Failure::OriginTimeout),
    }
}

/// What a request gets that every limit admits.
async fn serve<P: Ports>(
    visit: &Visit<'_, P>,
    request: &Request,
    incoming: &P::Incoming,
    resolved: &Resolved<'_>,
    visitor: &Visitor<'_>,
    plan: &Plan<'_>,
    seen: Vec<Option<Seen>>,
) -> Result<Response<P::Body>, Failure> {
    let if_none_match = request.headers.get("if-none-match");
    match plan {
        Plan::Admin => boxed(admin::answer(visit, request, incoming)).await,
        Plan::Listing(wanted) => {
            let seen = seen.into_iter().next().flatten();
            let mut response = listing::answer(visit, wanted, seen).await?;
            if let Some(route) = resolved.route
                && has_merge(route)
            {
                let query = request.query.as_deref();
                response = boxed(merge(visit, route, &resolved.values, query, response)).await;
            }
            present(visit, wanted, request, incoming, response).await
        }
        Plan::Composed(parts, pieces) => {
            let response = boxed(compose(visit, parts, pieces, seen)).await;
            Ok(revalidate(response, if_none_match))
        }
        Plan::Exchange(exchange) => {
            let seen = seen.into_iter().next().flatten();
            boxed(exchange::answer(visit, exchange, incoming, seen)).await
        }
        Plan::Pass => {
            let passed = pass(visit, request, incoming, resolved, visitor, None);
            boxed(passed).await
        }
        Plan::Fill(keys, generations) => {
            let known = write::known(visit, keys.clone(), generations.clone());
            let known = boxed(known).await;
            boxed(pass(visit, request, incoming, resolved, visitor, known)).await
        }
        Plan::Bypass(why, target) => {
            let bypassed = bypass(visit, request, incoming, why, target);
            let mut response = boxed(bypassed).await?;
            let rule = resolved.route.and_then(|route| route.cache.as_ref());
            if response.status != 101 && rule.is_some_and(|rule| rule.form == Form::User) {
                make_private(&mut response.headers);
            }
            Ok(response)
        }
        Plan::TooLong => Err(Failure::UriTooLong),
    }
}

fn plan<'p>(
    gateway: &'p Gateway,
    request: &Request,
    resolved: &Resolved<'p>,
    visitor: &Visitor<'_>,
) -> Plan<'p> {
    let policy = &gateway.policy;
    if request.path.len() > MAX_PATH_BYTES {
        return Plan::TooLong;
    }
    if is_own(&resolved.path) {
        return Plan::Admin;
    }
    let (Some(route), Some(index), true) = (resolved.route, resolved.index, resolved.exact) else {
        return Plan::Pass;
    };
    if !matches!(request.method.as_str(), "GET" | "HEAD") {
        let write = Write::of(resolved).map(|write| write.generation_keys(policy));
        return match write.filter(|keys| !keys.is_empty()) {
            Some(keys) => Plan::Fill(keys, None),
            None => Plan::Pass,
        };
    }
    if let Some(parts) = &route.compose {
        return Plan::Composed(parts, compose::pieces(policy, parts));
    }
    let Some(rule) = &route.cache else {
        return Plan::Pass;
    };
    if is_off(gateway, Some(route), Switch::NotificationCache) {
        return Plan::Pass;
    }
    // Other upgrades, h2c for one, are offers that a server may ignore.
    let is_socket = (request.headers.get("upgrade"))
        .is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket"));
    if is_socket {
        return Plan::Bypass("upgrade", as_sent(request, resolved));
    }
    if rule.by_origin {
        let target = as_sent(request, resolved);
        return match Exchange::new(route, index, request, target, &resolved.values) {
            Some(exchange) => Plan::Exchange(exchange),
            None => Plan::Bypass("key", as_sent(request, resolved)),
        };
    }
    let query = request.query.as_deref();
    let user = match (rule.form, visitor.user()) {
        (Form::User, _) if gateway.settings.cache_keys.is_empty() => {
            return Plan::Bypass("no-cache-key", as_sent(request, resolved));
        }
        (Form::User, None) => return Plan::Bypass("user", as_sent(request, resolved)),
        (Form::User, Some(user)) => Some((user, &request.headers)),
        _ => None,
    };
    let Some(wanted) = listing::wanted_by(policy, index, &resolved.values, query, user) else {
        return Plan::Bypass("key", as_sent(request, resolved));
    };
    let has_credentials =
        request.headers.contains("cookie") || request.headers.contains("authorization");
    match rule.forward_credentials && has_credentials {
        true => Plan::Bypass("credentials", wanted.target),
        false => Plan::Listing(wanted),
    }
}

/// Path and query for the origin of a request that passes through.
fn as_sent(request: &Request, resolved: &Resolved<'_>) -> String {
    let mut target = resolved.path.clone();
    if let Some(query) = &request.query {
        target.push('?');
        target.push_str(query);
    }
    target
}

async fn pass<P: Ports>(
    visit: &Visit<'_, P>,
    request: &Request,
    incoming: &P::Incoming,
    resolved: &Resolved<'_>,
    visitor: &Visitor<'_>,
    known: Option<Known>,
) -> Result<Response<P::Body>, Failure> {
    let write = Write::of(resolved);
    let body = match &write {
        Some(write) if write.needs_body() => {
            visit
                .ports
                .read_incoming(incoming, write::MAX_JSON_BYTES, visit.origin_timeout_ms())
                .await
        }
        _ => None,
    };
    let target = as_sent(request, resolved);
    let response = visit
        .forward(incoming, &target, &replaced_headers(request))
        .await
        .map_err(origin_failure)?;
    let ended = exchange::ended(&visit.gateway.policy, request, &target, &response);
    let acted = match &write {
        Some(write) => {
            write::act(visit, write, known.as_ref(), visitor.user(), body, response).await
        }
        None => Ok(response),
    };
    // Also when the answer's body breaks off: the write has been done.
    if !ended.is_empty() {
        write::confirm(visit, &ended).await;
    }
    acted.map_err(origin_failure)
}

async fn bypass<P: Ports>(
    visit: &Visit<'_, P>,
    request: &Request,
    incoming: &P::Incoming,
    why: &'static str,
    target: &str,
) -> Result<Response<P::Body>, Failure> {
    let mut response = visit
        .forward(incoming, target, &replaced_headers(request))
        .await
        .map_err(origin_failure)?;
    add_cache_status(&mut response.headers, &CacheStatus::Bypass { why });
    Ok(response)
}

/// Says what happened, and answers HEAD requests.
fn finish<P: Ports>(
    visit: &Visit<'_, P>,
    request: &Request,
    quotas: &[Quota],
    served: Result<Response<P::Body>, Failure>,
) -> Response<P::Body> {
    let mut response = served.unwrap_or_else(Failure::into_response);
    let profiles = &visit.gateway.policy.defaults.headers;
    add_rate_limits(&mut response.headers, profiles, quotas, visit.now_ms());
    add_server_timing(&mut response.headers, visit.timing());
    if request.method == "HEAD" {
        if let Body::Bytes(bytes) = &response.body {
            response
                .headers
                .set("content-length", bytes.len().to_string());
        }
        // A fill asks with GET, so there may be a stream that nobody wants.
        response.body = Body::Empty;
    }
    response
}
