//! `/-/`: health for everybody, purging for those who hold `ADMIN_TOKEN`.
//!
//! Every path below `/-/` is the edge's own; none reaches the origin.

use futures_util::future::join;
use serde_json::{Value, json};

use crate::cache::purge::Purge;
use crate::failure::Failure;
use crate::http::{Body, Headers, Request, Response};
use crate::identity::{bearer, constant_time_eq};
use crate::policy::OWN_KEYS;
use crate::policy::percent::{decode, encode_component};
use crate::ports::{Ports, Store};
use crate::redis::{Batch, Command, RedisError};
use crate::visit::Visit;
use crate::write;

pub const HEALTH: &str = "/-/health";
const PURGE: &str = "/-/purge";

/// Names in one purge call; each is up to two commands of one transaction.
const MAX_PURGED: usize = 1_000;
/// Upstash takes keys up to 32 KB; ours are never longer than this.
const MAX_NAME_BYTES: usize = 1_024;

/// `GET /-/health`: always 200; says `degraded` while Redis does not answer, and
/// `disabled` where there is none to ask.
pub async fn health<P: Ports>(visit: &Visit<'_, P>, request: &Request) -> Response<P::Body> {
    if !matches!(request.method.as_str(), "GET" | "HEAD") {
        return Failure::MethodNotAllowed { allow: "GET, HEAD" }.into_response();
    }
    if visit.gateway.settings.without_redis {
        return answer_json(200, &json!({ "status": "ok", "redis": "disabled" }));
    }
    let ping = Batch::pipeline(vec![Command::new("PING")]);
    let timeout_ms = visit.redis_timeout_ms();
    let ask = async |store| word(&visit.ports.pipeline(store, &ping, timeout_ms).await);
    let (limits, cache) = match visit.gateway.settings.separate_cache {
        true => {
            join(ask(Store::Limits(0)), async {
                Some(ask(Store::Cache).await)
            })
            .await
        }
        false => (ask(Store::Limits(0)).await, None),
    };
    let mut report = json!({ "status": "ok", "redis": limits });
    let mut well = limits == "ok";
    if let Some(cache) = cache {
        well &= cache == "ok";
        if let Some(members) = report.as_object_mut() {
            members.insert("cache".to_owned(), json!(cache));
        }
    }
    if !well && let Some(members) = report.as_object_mut() {
        members.insert("status".to_owned(), json!("degraded"));
    }
    let mut response = answer_json(200, &report);
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

/// Everything else under `/-/`.
pub async fn answer<P: Ports>(
    visit: &Visit<'_, P>,
    request: &Request,
    incoming: &P::Incoming,
) -> Result<Response<P::Body>, Failure> {
    if request.path != PURGE {
        return Err(Failure::NotFound);
    }
    let Some(token) = &visit.gateway.settings.admin_token else {
        return Err(Failure::NotFound);
    };
    let given = bearer(request.headers.get("authorization")).unwrap_or("");
    if !constant_time_eq(given.as_bytes(), token.as_bytes()) {
        return Err(Failure::Unauthorized);
    }
    if request.method != "POST" {
        return Err(Failure::MethodNotAllowed { allow: "POST" });
    }
    let body = visit
        .ports
        .read_incoming(incoming, write::MAX_JSON_BYTES, visit.origin_timeout_ms())
        .await
        .ok_or_else(|| bad("the body must be JSON of at most 64 KB"))?;
    let mut purge = parse(&body)?;
    let report = json!({ "purged": { "keys": purge.keys.len(), "tags": purge.tags.len() } });
    for names in [&mut purge.keys, &mut purge.tags] {
        let encoded: Vec<String> = names.iter().map(|name| as_in_keys(name)).collect();
        names.extend(encoded);
    }
    if !purge.is_empty() && !write::confirm(visit, &purge).await {
        return Err(Failure::RedisUnavailable);
    }
    Ok(answer_json(200, &report))
}

fn parse(body: &[u8]) -> Result<Purge, Failure> {
    let value: Value =
        serde_json::from_slice(body).map_err(|_| bad("the body must be a JSON object"))?;
    let members = value
        .as_object()
        .ok_or_else(|| bad("the body must be a JSON object"))?;
    let mut purge = Purge::default();
    for (name, value) in members {
        match (name.as_str(), value) {
            ("keys", value) => purge.keys = names("keys", value)?,
            ("tags", value) => purge.tags = names("tags", value)?,
            ("prefix", Value::String(prefix)) if prefix.is_empty() => {}
            ("prefix", _) => {
                return Err(bad(
                    "`prefix` is not built in this version; use keys or tags",
                ));
            }
            ("mode", Value::String(mode)) if mode == "hard" => {}
            ("mode", _) => {
                return Err(bad(
                    "`mode` other than \"hard\" is not built in this version",
                ));
            }
            _ => return Err(bad("known members are keys, tags, prefix and mode")),
        }
    }
    if purge.keys.len() + purge.tags.len() > MAX_PURGED {
        return Err(bad("at most 1000 keys and tags in one call"));
    }
    Ok(purge)
}

fn names(member: &str, value: &Value) -> Result<std::collections::BTreeSet<String>, Failure> {
    value
        .as_array()
        .and_then(|items| {
            items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect::<Option<std::collections::BTreeSet<_>>>()
        })
        .filter(|names| {
            names.iter().all(|name| {
                !name.is_empty()
                    && name.len() <= MAX_NAME_BYTES
                    && (member != "keys" || !is_own(name) && !is_own(&as_in_keys(name)))
            })
        })
        .ok_or_else(|| {
            bad(&format!(
                "`{member}` must be a list of strings of 1 to {MAX_NAME_BYTES} bytes, without the edge's own keys"
            ))
        })
}

/// Without its generation a meta record's body would pass for another service's.
fn is_own(key: &str) -> bool {
    key.split_once(':')
        .is_some_and(|(first, _)| OWN_KEYS.contains(&first))
}

/// The name with its values encoded as the policy's templates write them, for those
/// who send `search:a b`. As it was sent it is purged too.
fn as_in_keys(name: &str) -> String {
    let encoded = |value: &str| {
        let plain = decode(value, false);
        encode_component(plain.as_deref().unwrap_or(value))
    };
    let values: Vec<String> = name.split(':').map(encoded).collect();
    values.join(":")
}

fn bad(detail: &str) -> Failure {
    Failure::BadRequest {
        detail: detail.to_owned(),
    }
}

fn answer_json<B>(status: u16, value: &Value) -> Response<B> {
    let mut headers = Headers::new();
    headers.append("content-type", "application/json");
    headers.append("cache-control", "no-store");
    Response {
        status,
        headers,
        body: Body::Bytes(value.to_string().into_bytes().into()),
    }
}
