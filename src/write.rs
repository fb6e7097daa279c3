//! What a successful write purges, from the policy's templates.
//!
//! A template whose value is not there purges the tags of `else` instead of
//! nothing. The writer's answer waits for Redis' acknowledgement, so that the
//! writer's next read is fresh.

use crate::cache::purge::Purge;
use crate::deferred::Deferred;
use crate::headers::{is_event_stream, is_readable};
use crate::http::{Body, Bytes, Response};
use crate::json::Value;
use crate::names::Names;
use crate::policy::{PathValues, Piece, PurgeRule, Template, Values};
use crate::ports::{Bounded, OriginError, Ports};
use crate::redis::Reply;
use crate::visit::Visit;

/// JSON that templates may point into (CONTRACT, Policy).
pub const MAX_JSON_BYTES: usize = 64 * 1024;

fn points_into(rule: &PurgeRule, wanted: fn(&Piece) -> bool) -> bool {
    rule.keys
        .iter()
        .chain(&rule.tags)
        .chain(&rule.otherwise)
        .any(|template| template.pieces.iter().any(wanted))
}

pub fn needs_body(rule: &PurgeRule) -> bool {
    points_into(rule, |piece| matches!(piece, Piece::Body(_)))
}

fn needs_response(rule: &PurgeRule) -> bool {
    points_into(rule, |piece| matches!(piece, Piece::Response(_)))
}

pub fn needs_user(rule: &PurgeRule) -> bool {
    points_into(rule, |piece| matches!(piece, Piece::User))
}

/// Keys and tags that are purged for these values.
pub fn plan(rule: &PurgeRule, values: &Values<'_>) -> Purge {
    let mut absent = false;
    let mut render = |templates: &[Template]| {
        let mut rendered = Names::new();
        for template in templates {
            match template.render(values) {
                Some(name) => drop(rendered.insert(name)),
                None => absent = true,
            }
        }
        rendered
    };
    let mut purge = Purge {
        keys: render(&rule.keys),
        tags: render(&rule.tags),
    };
    if absent {
        purge.tags.extend(
            rule.otherwise
                .iter()
                .filter_map(|template| template.render(values)),
        );
    }
    purge
}

/// Purges after a write; the answer is the origin's, its body read only when a
/// template points into it. When it breaks off there, the write has been done.
pub async fn purge_after<P: Ports>(
    visit: &Visit<'_, P>,
    rule: &PurgeRule,
    path: &PathValues,
    user: Option<&str>,
    body: Option<Vec<u8>>,
    mut response: Response<P::Body>,
) -> Result<Response<P::Body>, OriginError> {
    if !(200..300).contains(&response.status) {
        return Ok(response);
    }
    let mut answered = None;
    let mut broken = None;
    let headers = &response.headers;
    if needs_response(rule) && !is_event_stream(headers) && is_readable(headers) {
        let body = std::mem::replace(&mut response.body, Body::Empty);
        match peek(visit, body).await {
            Ok(Peeked::Whole(bytes)) => {
                response = response.with_bytes(bytes.clone());
                answered = Some(bytes);
            }
            Ok(Peeked::Unread(body)) => response.body = body,
            Err(error) => broken = Some(error),
        }
    }
    let json = |bytes| Value::read(bytes).ok();
    let body = body.as_deref().and_then(json);
    let answered = answered.as_deref().and_then(json);
    let purge = plan(
        rule,
        &Values {
            path,
            selected: None,
            user,
            body: body.as_ref(),
            response: answered.as_ref(),
        },
    );
    if !purge.is_empty() && !confirm(visit, &purge).await {
        visit
            .ports
            .log("purge not confirmed in time; it is tried again");
    }
    match broken {
        None => Ok(response),
        Some(error) => Err(error),
    }
}

/// Whether Redis confirmed the purge; if not, it is tried again after the answer.
pub async fn confirm<P: Ports>(visit: &Visit<'_, P>, purge: &Purge) -> bool {
    if visit.gateway.settings.without_redis {
        // Nothing is stored, so nothing old can be served.
        return true;
    }
    let batch = purge.batch(visit.ports.random());
    let confirmed = match visit.cache_trip(&batch).await {
        Ok(replies) => !replies.iter().any(Reply::is_error),
        Err(_) => false,
    };
    visit.gateway.l1.borrow_mut().purge(purge);
    if !confirmed {
        let mut unpurged = visit.gateway.unpurged.borrow_mut();
        unpurged.begin(purge, visit.ports.now_ms());
        visit.defer(Deferred::Purge {
            purge: purge.clone(),
        });
    }
    confirmed
}

/// An answer's body after a look into it.
enum Peeked<B> {
    Whole(Bytes),
    /// Too long or too slow for templates.
    Unread(Body<B>),
}

async fn peek<P: Ports>(
    visit: &Visit<'_, P>,
    body: Body<P::Body>,
) -> Result<Peeked<P::Body>, OriginError> {
    let Body::Upstream(body) = body else {
        return Ok(Peeked::Unread(body));
    };
    let timeout_ms = visit.origin_timeout_ms();
    Ok(
        match visit.ports.read(body, MAX_JSON_BYTES, timeout_ms).await? {
            Bounded::Whole(bytes) => Peeked::Whole(bytes.into()),
            Bounded::Longer(body) | Bounded::Slow(body) => Peeked::Unread(Body::Upstream(body)),
        },
    )
}
