//! One JSON object of other routes' bodies, read in one trip.
//!
//! Bodies are JSON already, so the answer is written by joining bytes. A part
//! that fails is `null` and named in Cache-Status.

use crate::admission::is_off;
use crate::ahead;
use crate::together::all;

use crate::cache::entry::is_json;
use crate::cache::{Entry, Found, Seen};
use crate::fill::{Filled, Wanted, fill};
use crate::headers::{CacheStatus, add_composed_status};
use crate::http::{Body, Bytes, Headers, Response};
use crate::json::write_text;
use crate::listing::{adopt, wanted};
use crate::policy::{Part, PathValues, Policy, Switch};
use crate::ports::{Bounded, Clock, Ports};
use crate::visit::Visit;

/// One body of a composed answer: which part it is of, under which value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub part: usize,
    pub value: Option<String>,
    pub wanted: Wanted,
}

/// Every body that a composed route is made of, in the policy's order.
pub fn pieces(policy: &Policy, parts: &[Part]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        match &part.each {
            None => pieces.extend(
                wanted(policy, part.route, &PathValues::default(), None).map(|wanted| Piece {
                    part: index,
                    value: None,
                    wanted,
                }),
            ),
            Some(each) => {
                for value in &each.values {
                    let mut values = PathValues::default();
                    values.insert(each.placeholder.clone(), value.clone());
                    pieces.extend(
                        wanted(policy, part.route, &values, None).map(|wanted| Piece {
                            part: index,
                            value: Some(value.clone()),
                            wanted,
                        }),
                    );
                }
            }
        }
    }
    pieces
}

/// What a part came to.
struct Got {
    body: Option<Bytes>,
    status: CacheStatus,
    stored_ms: u64,
}

/// Answers a composed route from what one trip found; `None` for a piece means
/// that Redis did not answer.
pub async fn compose<P: Ports>(
    visit: &Visit<'_, P>,
    parts: &[Part],
    pieces: &[Piece],
    mut seen: Vec<Option<Seen>>,
) -> Response<P::Body> {
    for (piece, seen) in pieces.iter().zip(&mut seen) {
        let route = visit.gateway.policy.routes.get(piece.wanted.route);
        if is_off(visit.gateway, route, Switch::NotificationCache) {
            *seen = None;
        }
    }
    adopt(visit, pieces.iter().map(|piece| &piece.wanted), &mut seen).await;
    let got = all(pieces
        .iter()
        .zip(seen)
        .map(|(piece, seen)| get(visit, &piece.wanted, seen)))
    .await;
    let now_ms = visit.now_ms();
    let failed: Vec<String> = pieces
        .iter()
        .zip(&got)
        .filter(|(_, got)| got.body.is_none())
        .map(|(piece, _)| name(parts, piece))
        .collect();
    let body = join(parts, pieces, &got);
    let mut headers = Headers::new();
    headers.append("content-type", "application/json");
    headers.append("etag", crate::cache::entry::etag(&body));
    add_composed_status(&mut headers, &overall(&got), &failed);
    let oldest_ms = got.iter().map(|got| got.stored_ms).min().unwrap_or(now_ms);
    headers.append("age", (now_ms.saturating_sub(oldest_ms) / 1000).to_string());
    if !failed.is_empty() {
        headers.append("cache-control", "no-store");
    }
    Response {
        status: 200,
        headers,
        body: Body::Bytes(body.into()),
    }
}

async fn get<P: Ports>(visit: &Visit<'_, P>, wanted: &Wanted, seen: Option<Seen>) -> Got {
    let now_ms = visit.now_ms();
    let entry = |entry: Entry, status| Got {
        stored_ms: entry.stored_ms,
        body: (entry.status == 200).then_some(entry.body),
        status,
    };
    let missing = match seen {
        Some(Seen {
            found: Found::Fresh(found) | Found::Foreign(found),
            generations,
            is_local,
            origin_tags,
            ..
        }) => {
            ahead::elect(visit, wanted, &origin_tags, &found, &generations);
            let status = CacheStatus::hit(found.fresh_until_ms, is_local, now_ms);
            return entry(found, status);
        }
        Some(Seen {
            found: Found::Stale(found),
            generations,
            origin_tags,
            ..
        }) => {
            let wanted = wanted.named(&origin_tags);
            let (found, status) = ahead::stale(visit, &wanted, found, generations).await;
            return entry(found, status);
        }
        Some(Seen {
            found: Found::Missing | Found::Record(_) | Found::Packed(_),
            generations,
            origin_tags,
            ..
        }) => Some((wanted.named(&origin_tags), generations)),
        None => None,
    };
    let filled = match missing {
        Some((wanted, generations)) => fill(visit, wanted, generations).await,
        None => crate::fill::without_redis(visit, wanted).await,
    };
    match filled {
        Filled::Entry(found, status) => entry(found, status),
        Filled::Own(response, status) => Got {
            body: own_body(visit, wanted, response).await,
            status,
            stored_ms: now_ms,
        },
        Filled::Failed(_) | Filled::Refused => Got {
            body: None,
            status: CacheStatus::Miss {
                stored: false,
                why: None,
            },
            stored_ms: now_ms,
        },
    }
}

/// An answer that may not be stored can still be a part, if it is JSON that fits.
async fn own_body<P: Ports>(
    visit: &Visit<'_, P>,
    wanted: &Wanted,
    response: Response<P::Body>,
) -> Option<Bytes> {
    if response.status != 200 {
        return None;
    }
    let rule = visit
        .gateway
        .policy
        .routes
        .get(wanted.route)
        .and_then(|route| route.cache.as_ref())?;
    let body: Bytes = match response.body {
        Body::Empty => return None,
        Body::Bytes(bytes) => bytes,
        Body::Upstream(body) => {
            let timeout_ms = visit.origin_timeout_ms();
            match visit.ports.read(body, rule.max_bytes, timeout_ms).await {
                Ok(Bounded::Whole(bytes)) => bytes.into(),
                Ok(Bounded::Longer(body) | Bounded::Slow(body)) => {
                    visit.ports.discard(body);
                    return None;
                }
                Err(_) => return None,
            }
        }
    };
    is_json(&body).then_some(body)
}

fn name(parts: &[Part], piece: &Piece) -> String {
    let part = parts.get(piece.part).map_or("", |part| part.name.as_str());
    match &piece.value {
        Some(value) => format!("{part}.{value}"),
        None => part.to_owned(),
    }
}

/// A hit only if every part is; stale if any is; its ttl is the shortest.
fn overall(got: &[Got]) -> CacheStatus {
    let mut shortest_s = u64::MAX;
    let mut longest_past_s = None;
    let mut missed = false;
    let mut is_local = true;
    for got in got {
        match &got.status {
            CacheStatus::LocalHit { ttl_s } => shortest_s = shortest_s.min(*ttl_s),
            CacheStatus::Hit { ttl_s } => {
                is_local = false;
                shortest_s = shortest_s.min(*ttl_s);
            }
            CacheStatus::LastResort { .. } => longest_past_s = longest_past_s.max(Some(1)),
            CacheStatus::Stale { past_s } => {
                longest_past_s = longest_past_s.max(Some(*past_s));
            }
            _ => missed = true,
        }
    }
    if missed {
        let stored = got.iter().all(|got| got.status.is_kept());
        return CacheStatus::Miss { stored, why: None };
    }
    match longest_past_s {
        Some(past_s) => CacheStatus::Stale { past_s },
        None if is_local => CacheStatus::LocalHit { ttl_s: shortest_s },
        None => CacheStatus::Hit { ttl_s: shortest_s },
    }
}

fn join(parts: &[Part], pieces: &[Piece], got: &[Got]) -> Vec<u8> {
    let length: usize = got
        .iter()
        .map(|got| got.body.as_ref().map_or(4, |body| body.len()) + 64)
        .sum();
    let mut json = Vec::with_capacity(length);
    json.push(b'{');
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        push_name(&mut json, &part.name);
        let mut bodies = pieces
            .iter()
            .zip(got)
            .filter(|(piece, _)| piece.part == index)
            .peekable();
        if part.each.is_none() {
            push_body(
                &mut json,
                bodies.next().and_then(|(_, got)| got.body.as_ref()),
            );
            continue;
        }
        json.push(b'{');
        while let Some((piece, got)) = bodies.next() {
            push_name(&mut json, piece.value.as_deref().unwrap_or(""));
            push_body(&mut json, got.body.as_ref());
            if bodies.peek().is_some() {
                json.push(b',');
            }
        }
        json.push(b'}');
    }
    json.push(b'}');
    json
}

fn push_name(json: &mut Vec<u8>, name: &str) {
    write_text(name, json);
    json.push(b':');
}

fn push_body(json: &mut Vec<u8>, body: Option<&Bytes>) {
    match body {
        Some(body) => json.extend_from_slice(body),
        None => json.extend_from_slice(b"null"),
    }
}
