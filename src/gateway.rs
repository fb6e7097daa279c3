//! The request flow.
//!
//! ```text
//! resolve route -> identify -> plan -> ONE trip -> judge limits -> judge cache -> (origin) -> headers
//! ```
//!
//! Another Worker uses this crate by building the ports and calling [`handle`]:
//!
//! ```text
//! let gateway = Gateway::new(policy, settings);           // once per isolate
//! let answer = edgeweir::gateway::handle(&gateway, &ports, request, incoming).await;
//! respond(answer.response);
//! edgeweir::deferred::run(&gateway, &ports, answer.deferred).await; // in wait_until
//! ```
//!
//! The whole call must be owned by `wait_until`, so that a visitor who leaves
//! cancels neither a refund nor a fill that others wait for.

use std::cell::RefCell;

use futures_util::future::join;

use crate::admin;
use crate::cache::purge::Unpurged;
use crate::cache::{Adopted, Flights, Lookups, Seen};
use crate::compose::{self, Piece, compose};
use crate::concurrency::Concurrency;
use crate::config::Secret;
use crate::deferred::Deferred;
use crate::failure::Failure;
use crate::fill::Wanted;
use crate::headers::{
    CacheStatus, add_cache_status, add_rate_limits, add_server_timing, revalidate,
};
use crate::http::{Body, Request, Response};
use crate::limit::{self, Charge, Checked, Memory, Verdict};
use crate::listing::{self, origin_failure};
use crate::origin::replaced_headers;
use crate::policy::{Part, Policy, RedisDown, Resolved, is_own};
use crate::ports::{Clock, Ports, Random, Redis, Store};
use crate::redis::{Batch, RedisError, RedisErrorKind, Reply};
use crate::visit::Visit;
use crate::visitor::Visitor;
use crate::write;

/// Longer paths are answered 414; workerd itself takes at most 16 KB of URL.
pub const MAX_PATH_BYTES: usize = 16 * 1024;

/// The route name under which everything without a route is counted.
pub const UNMATCHED: &str = "*";

/// What the variables say, beside the policy.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub admin_token: Option<Secret>,
    pub jwt_secret: Option<Secret>,
    /// Limits live in Redis; false: in this isolate.
    pub limits_in_redis: bool,
    /// `CACHE_REDIS_REST_URL` is set: both databases are asked at once.
    pub separate_cache: bool,
    /// `REDIS_ENABLED` is false: there is nothing to ask.
    pub without_redis: bool,
}

/// One isolate's gateway: the policy and what is remembered between requests.
pub struct Gateway {
    pub policy: Policy,
    pub settings: Settings,
    pub limits: RefCell<Memory>,
    pub flights: RefCell<Flights>,
    pub adopted: RefCell<Adopted>,
    pub unpurged: RefCell<Unpurged>,
    pub concurrency: Concurrency,
}

impl Gateway {
    pub fn new(policy: Policy, settings: Settings) -> Self {
        Self {
            policy,
            settings,
            limits: RefCell::new(Memory::new()),
            flights: RefCell::new(Flights::default()),
            adopted: RefCell::new(Adopted::default()),
            unpurged: RefCell::new(Unpurged::default()),
            concurrency: Concurrency::default(),
        }
    }
}

/// The answer, and the work that is due after it.
pub struct Answer<B> {
    pub response: Response<B>,
    pub deferred: Vec<Deferred>,
}

/// What a request will be answered with, if its limits admit it.
enum Plan<'p> {
    Admin,
    Listing(Wanted),
    Composed(&'p [Part], Vec<Piece>),
    /// To the origin as it is.
    Pass,
    /// A cached route that is not looked up: why, and what the origin is asked for.
    Bypass(&'static str, String),
    TooLong,
}

/// Answers one request. Never fails: whatever happens has an answer.
pub async fn handle<P: Ports>(
    gateway: &Gateway,
    ports: &P,
    request: Request,
    incoming: P::Incoming,
) -> Answer<P::Body> {
    let visit = Visit::new(gateway, ports);
    let response = answer(&visit, &request, incoming).await;
    Answer {
        response,
        deferred: visit.take_deferred(),
    }
}

async fn answer<P: Ports>(
    visit: &Visit<'_, P>,
    request: &Request,
    incoming: P::Incoming,
) -> Response<P::Body> {
    if request.path == admin::HEALTH {
        return admin::health(visit, request).await;
    }
    let gateway = visit.gateway;
    let resolved = gateway.policy.resolve(&request.method, &request.path);
    let plan = plan(&gateway.policy, request, &resolved);
    let visitor = Visitor::new(
        request,
        gateway.settings.jwt_secret.as_ref(),
        visit.now_ms() / 1000,
    );
    let lookups = match &plan {
        Plan::Listing(wanted) => vec![wanted.lookup.clone()],
        Plan::Composed(_, pieces) => pieces
            .iter()
            .map(|piece| piece.wanted.lookup.clone())
            .collect(),
        Plan::Admin | Plan::Pass | Plan::Bypass(..) | Plan::TooLong => Vec::new(),
    };
    let (mut checked, seen) = ask(visit, &resolved, &visitor, Lookups::new(lookups)).await;
    let checked_ms = visit.now_ms();
    let if_none_match = request.headers.get("if-none-match");
    let served = match &checked.verdict {
        Verdict::Refused {
            retry_after_ms,
            violated,
        } => Err(Failure::QuotaExceeded {
            violated: violated.clone(),
            retry_after_ms: *retry_after_ms,
        }),
        Verdict::Unavailable => Err(Failure::ReducedCapacity),
        Verdict::Admitted => match &plan {
            Plan::Admin => admin::answer(visit, request, &incoming).await,
            Plan::Listing(wanted) => {
                listing::answer(visit, wanted, seen.into_iter().next().flatten())
                    .await
                    .map(|response| revalidate(response, if_none_match))
            }
            Plan::Composed(parts, pieces) => Ok(revalidate(
                compose(visit, parts, pieces, seen).await,
                if_none_match,
            )),
            Plan::Pass => pass(visit, request, &incoming, &resolved, &visitor).await,
            Plan::Bypass(why, target) => bypass(visit, request, &incoming, why, target).await,
            Plan::TooLong => Err(Failure::UriTooLong),
        },
    };
    // The visitor counts from the answer, for which the origin may have taken a while.
    let since_ms = visit.now_ms().saturating_sub(checked_ms);
    for quota in &mut checked.quotas {
        quota.reset_ms = quota.reset_ms.saturating_sub(since_ms).max(1);
    }
    finish(visit, request, &checked, served)
}

fn plan<'p>(policy: &'p Policy, request: &Request, resolved: &Resolved<'p>) -> Plan<'p> {
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
        return Plan::Pass;
    }
    if let Some(parts) = &route.compose {
        return Plan::Composed(parts, compose::pieces(policy, parts));
    }
    let Some(rule) = &route.cache else {
        return Plan::Pass;
    };
    // Other upgrades, h2c for one, are offers that a server may ignore.
    let is_socket = (request.headers.get("upgrade"))
        .is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket"));
    if is_socket {
        return Plan::Bypass("upgrade", as_sent(request, resolved));
    }
    let Some(wanted) = listing::wanted(policy, index, &resolved.values, request.query.as_deref())
    else {
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

/// The one trip: limits are charged and entries are read.
async fn ask<P: Ports>(
    visit: &Visit<'_, P>,
    resolved: &Resolved<'_>,
    visitor: &Visitor<'_>,
    lookups: Lookups,
) -> (Checked, Vec<Option<Seen>>) {
    let gateway = visit.gateway;
    let defaults = &gateway.policy.defaults;
    // The route itself, or a stricter one that an origin may fold this spelling into.
    let (limits, name, redis_down) = match resolved.limited_as {
        Some(route) => (&route.limits, route.name.as_str(), route.redis_down),
        None => (&defaults.limits, UNMATCHED, defaults.redis_down),
    };
    let charges: Vec<Charge<'_>> = limits
        .iter()
        .map(|limit| Charge::new(limit, visitor.limit_id(&limit.by), name))
        .collect();
    let read = if lookups.is_empty() {
        Vec::new()
    } else {
        vec![lookups.command()]
    };
    let timeout_ms = visit.redis_timeout_ms();
    let asks = gateway.settings.limits_in_redis && !charges.is_empty() || !read.is_empty();
    let place = match asks && !gateway.settings.without_redis {
        false => None,
        true => {
            // A refusal that is known already stands in nobody's way.
            let known = || limit::refused(&gateway.limits, visit, timeout_ms, &charges);
            if gateway.concurrency.is_full()
                && let Some(checked) = known()
            {
                return (checked, vec![None; lookups.len()]);
            }
            Some(gateway.concurrency.enter(visit, timeout_ms).await)
        }
    };
    let check = |redis_down, riders| {
        limit::check(
            &gateway.limits,
            visit,
            timeout_ms,
            redis_down,
            &charges,
            riders,
        )
    };
    let (mut checked, found) = if !gateway.settings.limits_in_redis {
        let alone = Isolated(visit);
        let local = limit::check(
            &gateway.limits,
            &alone,
            timeout_ms,
            RedisDown::Local,
            &charges,
            Vec::new(),
        )
        .await;
        let found = match &local.verdict {
            Verdict::Admitted if !read.is_empty() => {
                Some(visit.cache_trip(&Batch::pipeline(read)).await)
            }
            _ => None,
        };
        (local, found)
    } else if gateway.settings.separate_cache && !read.is_empty() {
        let batch = Batch::pipeline(read);
        let (checked, found) = join(check(redis_down, Vec::new()), visit.cache_trip(&batch)).await;
        (checked, Some(found))
    } else {
        let mut checked = check(redis_down, read).await;
        let found = checked.riders.take();
        (checked, found)
    };
    if let Some(place) = place
        && let Some(trip_ms) = visit.slowest_trip_ms()
    {
        place.leave(trip_ms, timeout_ms);
    }
    for (shard, batch) in std::mem::take(&mut checked.deferred) {
        visit.defer(Deferred::Send {
            store: Store::Limits(shard),
            batch,
        });
    }
    for shard in std::mem::take(&mut checked.merges) {
        visit.defer(Deferred::Merge { shard });
    }
    let seen = found
        .and_then(Result::ok)
        .and_then(|replies| lookups.judge(replies.first()?, visit.now_ms()));
    let mut seen = match seen {
        Some(seen) => seen.into_iter().map(Some).collect(),
        None => vec![None; lookups.len()],
    };
    gateway
        .unpurged
        .borrow()
        .hide(&lookups, &mut seen, visit.now_ms());
    (checked, seen)
}

async fn pass<P: Ports>(
    visit: &Visit<'_, P>,
    request: &Request,
    incoming: &P::Incoming,
    resolved: &Resolved<'_>,
    visitor: &Visitor<'_>,
) -> Result<Response<P::Body>, Failure> {
    // A write that the origin may fold into another route's path purges like it.
    let purging = [
        (resolved.route.filter(|_| resolved.exact), &resolved.values),
        (resolved.limited_as, &resolved.folded_values),
    ];
    let purging = purging
        .into_iter()
        .find_map(|(route, values)| Some((route?.purge.as_ref()?, values)));
    let body = match purging {
        Some((rule, _)) if write::needs_body(rule) => {
            visit
                .ports
                .read_incoming(incoming, write::MAX_JSON_BYTES, visit.origin_timeout_ms())
                .await
        }
        _ => None,
    };
    let target = as_sent(request, resolved);
    let mut response = visit
        .forward(incoming, &target, &replaced_headers(request))
        .await
        .map_err(origin_failure)?;
    if let Some((rule, values)) = purging {
        let user = visitor.user();
        response = write::purge_after(visit, rule, values, user, body, response)
            .await
            .map_err(origin_failure)?;
    }
    Ok(response)
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
    checked: &Checked,
    served: Result<Response<P::Body>, Failure>,
) -> Response<P::Body> {
    let mut response = served.unwrap_or_else(Failure::into_response);
    let profiles = &visit.gateway.policy.defaults.headers;
    add_rate_limits(
        &mut response.headers,
        profiles,
        &checked.quotas,
        visit.now_ms(),
    );
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

/// Limits that are kept in this isolate by choice: Redis is never asked.
struct Isolated<'v, 'a, P: Ports>(&'v Visit<'a, P>);

impl<P: Ports> Clock for Isolated<'_, '_, P> {
    fn now_ms(&self) -> u64 {
        self.0.now_ms()
    }

    async fn sleep(&self, duration_ms: u64) {
        self.0.sleep(duration_ms).await;
    }
}

impl<P: Ports> Random for Isolated<'_, '_, P> {
    fn random(&self) -> u128 {
        self.0.ports.random()
    }
}

impl<P: Ports> Redis for Isolated<'_, '_, P> {
    async fn pipeline(
        &self,
        _store: Store,
        _batch: &Batch,
        _timeout_ms: u64,
    ) -> Result<Vec<Reply>, RedisError> {
        Err(RedisError::new(RedisErrorKind::Open, "limits are local"))
    }
}
