//! What the origin is asked for a stored answer, and what its 304 changes
//! (RFC 9111, 3.2, 4.3).

use super::condition::CONDITIONS;
use super::freshness::Span;
use super::record::Stored;
use super::storing::storable;
use crate::cache::Unstorable;
use crate::headers::{OF_CONNECTION, none_match};
use crate::http::Headers;

/// Fields of a request that say where it went to or what it is instead: an origin
/// may answer by them without saying so in `Vary`, and so one visitor could choose what all
/// get. The address in `X-Forwarded-For` is the edge's own word.
const OVERRIDES: [&str; 13] = [
    "forwarded",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-host",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
    "x-wap-profile",
];

/// Fields of the GET that fills or validates: the client's own, but for those of its
/// connection and its conditions.
pub fn outgoing(request: &Headers, replaced: Headers, stored: Option<&Stored>) -> Headers {
    let mut headers = request.clone();
    headers.keep(&|name| {
        !CONDITIONS.contains(&name)
            && !OVERRIDES.contains(&name)
            && !OF_CONNECTION.contains(&name)
            && !matches!(name, "accept-encoding" | "content-length" | "host")
    });
    for (name, value) in replaced.iter() {
        headers.set(name, value);
    }
    // What is stored is served to all, and the platform compresses on the way out.
    headers.append("accept-encoding", "identity");
    headers.append("surrogate-capability", "edgeweir=\"Surrogate/1.0\"");
    if let Some(stored) = stored {
        // 4.3.1: the stored answer's own validators.
        let of = |name| stored.headers.get(name);
        for (name, value) in [
            ("if-none-match", of("etag")),
            ("if-modified-since", of("last-modified")),
        ] {
            if let Some(value) = value {
                headers.append(name, value);
            }
        }
    }
    headers
}

/// Whether a 304 is about this stored answer (4.3.4): one with another tag is about
/// another.
pub fn is_about(stored: &Stored, answer: &Headers) -> bool {
    match (answer.get("etag"), stored.headers.get("etag")) {
        (Some(answered), Some(stored)) => none_match(answered, stored),
        _ => true,
    }
}

/// A stored answer with what a 304 says anew; an error when it may not be stored any more.
pub fn freshened(
    stored: &Stored,
    request: &Headers,
    answer: &Headers,
    span: Span,
    max_bytes: usize,
) -> (Stored, Option<Unstorable>) {
    // 3.2: a new value replaces all old ones of its name, but for what describes the bytes
    // that are stored, and what is not stored at all.
    let is_updated = |name: &str| {
        !matches!(
            name,
            "content-encoding" | "content-length" | "content-md5" | "content-range"
        )
    };
    let mut headers = stored.headers.clone();
    // Without a date of its own the 304 is of now, and not of then.
    headers.keep(&|name| name != "date" && !(is_updated(name) && answer.contains(name)));
    // A tag that was weakened because the bytes were decoded stays weak.
    let is_weakened = |name: &str| {
        let was = stored.headers.get("etag").unwrap_or_default();
        name == "etag" && was.starts_with("W/")
    };
    for (name, value) in answer.iter() {
        if is_weakened(name) {
            headers.append(name, stored.headers.get(name).unwrap_or(value));
        } else if is_updated(name) {
            headers.append(name, value);
        }
    }
    match storable(request, stored.status, &headers, span, max_bytes) {
        Ok(fresh) => {
            let body = stored.body.clone();
            (Stored { body, ..fresh }, None)
        }
        Err(why) => {
            let changed = Stored {
                headers,
                ..stored.clone()
            };
            (changed, Some(why))
        }
    }
}
