//! `/-/`: health and counts of views for everybody; purging, warming, limits, lists, metrics,
//! explanations and the sync of views for those who hold `ADMIN_TOKEN`.
//!
//! Every path below `/-/` is the edge's own; none reaches the origin.

mod explain;
mod limits;
mod lists;
mod metrics;
mod named;
mod purge;
mod query;
mod views;
mod warm;

use crate::failure::Failure;
use crate::http::{Body, Headers, Request, Response};
use crate::identity::{bearer, constant_time_eq};
use crate::json::{Map, Value, json};
use crate::policy::percent::decode;
use crate::ports::{Ports, Store};
use crate::redis::{Batch, Command, RedisError};
use crate::together::all;
use crate::visit::Visit;
use crate::write;

const PURGE: &str = "/-/purge";
const WARM: &str = "/-/warm";
const LISTS: &str = "/-/lists";
const LIMITS: &str = "/-/limits";
const METRICS: &str = "/-/metrics";
const EXPLAIN: &str = "/-/explain";

/// `GET /-/health`: always 200; says `degraded` while Redis does not answer, and
/// `disabled` where there is none to ask.
pub async fn health<P: Ports>(visit: &Visit<'_, P>, request: &Request) -> Response<P::Body> {
    if !matches!(request.method.as_str(), "GET" | "HEAD") {
        return Failure::MethodNotAllowed { allow: "GET, HEAD" }.into_response();
    }
    if visit.gateway.settings.without_redis {
        return answer_json(&json!({ "status": "ok", "redis": "disabled" }));
    }
    let ping = Batch::pipeline(vec![Command::new("PING")]);
    let timeout_ms = visit.redis_timeout_ms();
    let ask = async |store| word(&visit.ports.pipeline(store, &ping, timeout_ms).await);
    let settings = &visit.gateway.settings;
    let mut stores: Vec<Store> = (0..settings.shards.len()).map(Store::Limits).collect();
    stores.extend(settings.separate_cache.then_some(Store::Cache));
    let mut words = all(stores.into_iter().map(ask)).await;
    let cache = match settings.separate_cache {
        true => words.pop(),
        false => None,
    };
    let limits = words.into_iter().find(|word| *word != "ok").unwrap_or("ok");
    let mut report = Map::new();
    let well = limits == "ok" && cache.is_none_or(|cache| cache == "ok");
    report.insert("status", json!(if well { "ok" } else { "degraded" }));
    report.insert("redis", json!(limits));
    if let Some(cache) = cache {
        report.insert("cache", json!(cache));
    }
    let mut response = answer_json(&Value::Object(report));
    if request.method == "HEAD" {
        response.body = Body::Empty;
    }
    response
}

fn word<T>(outcome: &Result<T, RedisError>) -> &'static str {
    match outcome {
        Ok(_) => "ok",
        Err(error) => error.kind.as_str(),
    }
}

/// What an authorised call is about.
enum Call {
    Purge,
    Warm,
    Lists,
    Limits,
    Metrics,
    Explain,
    Sync,
    /// Of a route, by name.
    LimitsOf(String),
}

impl Call {
    fn of(path: &str) -> Option<Self> {
        match path {
            PURGE => Some(Self::Purge),
            WARM => Some(Self::Warm),
            LISTS => Some(Self::Lists),
            LIMITS => Some(Self::Limits),
            METRICS => Some(Self::Metrics),
            EXPLAIN => Some(Self::Explain),
            views::SYNC => Some(Self::Sync),
            _ => {
                let route = path.strip_prefix(LIMITS)?.strip_prefix('/')?;
                decode(route, false).map(Self::LimitsOf)
            }
        }
    }

    fn allow(&self) -> &'static str {
        match self {
            Self::Purge | Self::Warm | Self::Lists | Self::Sync => "POST",
            Self::Limits | Self::Metrics | Self::Explain => "GET",
            Self::LimitsOf(_) => "GET, PUT, DELETE",
        }
    }
}

/// Everything else under `/-/`.
pub async fn answer<P: Ports>(
    visit: &Visit<'_, P>,
    request: &Request,
    incoming: &P::Incoming,
) -> Result<Response<P::Body>, Failure> {
    if let Some(item) = views::item_of(&request.path) {
        return views::show(visit, request, item).await;
    }
    let call = Call::of(&request.path).ok_or(Failure::NotFound)?;
    let Some(token) = &visit.gateway.settings.admin_token else {
        return Err(Failure::NotFound);
    };
    let given = bearer(request.headers.get("authorization")).unwrap_or("");
    if !constant_time_eq(given.as_bytes(), token.as_bytes()) {
        return Err(Failure::Unauthorized);
    }
    let (method, allow) = (request.method.as_str(), call.allow());
    if !allow.split(',').any(|allowed| allowed.trim() == method) {
        return Err(Failure::MethodNotAllowed { allow });
    }
    let body = match method {
        "GET" | "DELETE" => Vec::new(),
        // It says nothing.
        _ if matches!(call, Call::Sync) => Vec::new(),
        _ => body(visit, incoming).await?,
    };
    match &call {
        Call::Purge => purge::purge(visit, &body).await,
        Call::Warm => warm::warm(visit, &body).await,
        Call::Lists => lists::change(visit, &body).await,
        Call::Limits => lists::show(visit).await,
        Call::Metrics => Ok(metrics::show(visit).await),
        Call::Explain => explain::show(visit.gateway, request.query.as_deref()),
        Call::Sync => views::sync(visit).await,
        Call::LimitsOf(route) => limits::answer(visit, request, route, &body).await,
    }
}

async fn body<P: Ports>(visit: &Visit<'_, P>, incoming: &P::Incoming) -> Result<Vec<u8>, Failure> {
    let timeout_ms = visit.origin_timeout_ms();
    let read = (visit.ports).read_incoming(incoming, write::MAX_JSON_BYTES, timeout_ms);
    let body = read.await;
    body.ok_or_else(|| bad("the body must be JSON of at most 64 KB"))
}

/// The members of a body.
fn object(body: &[u8]) -> Result<Map<'_>, Failure> {
    match Value::read(body) {
        Ok(Value::Object(members)) => Ok(members),
        _ => Err(bad("the body must be a JSON object")),
    }
}

fn bad(detail: &str) -> Failure {
    Failure::BadRequest {
        detail: detail.to_owned(),
    }
}

fn answer_json<B>(value: &Value<'_>) -> Response<B> {
    let mut headers = Headers::new();
    headers.append("content-type", "application/json");
    headers.append("cache-control", "no-store");
    Response {
        status: 200,
        headers,
        body: Body::Bytes(value.text().into_bytes().into()),
    }
}
