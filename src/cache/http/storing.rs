//! Whether an answer may be stored, and what of it (RFC 9111, 3).
//!
//! Beyond the RFC nothing with `Set-Cookie` is stored (CONTRACT), and an answer to a
//! request with a cookie only when the origin says how long it is fresh: what says nothing
//! to somebody who is known may be his alone.

use super::control::Control;
use super::freshness::{self, Span, number};
use super::record::Stored;
use super::{date, vary};
use crate::cache::store::{MAX_HEADER_BYTES, Unstorable};
use crate::headers::{is_event_stream, is_kept_in_cache};
use crate::http::Headers;

/// An answer to a GET as it would be stored, with its body still to come.
pub fn storable(
    request: &Headers,
    status: u16,
    headers: &Headers,
    span: Span,
    max_bytes: usize,
) -> Result<Stored, Unstorable> {
    let control = Control::of_response(headers);
    let lifetime = freshness::lifetime(status, headers, &control, span.answered_ms);
    // 3: the answer is final, and complete: 206 and 304 are parts of others.
    if !(200..600).contains(&status) || matches!(status, 206 | 304) {
        return Err(Unstorable::Status);
    }
    // 5.2.2.3: with must-understand only a status that is understood, and then no-store
    // does not count.
    if control.must_understand && !is_understood(status) {
        return Err(Unstorable::Status);
    }
    if control.no_store && !control.must_understand {
        return Err(Unstorable::CacheControl);
    }
    // 5.2.1.5: nothing of a request with no-store, or of its answer.
    if Control::of_request(request).no_store {
        return Err(Unstorable::Request);
    }
    // 3: a shared cache stores nothing that is private as a whole.
    if control.private {
        return Err(Unstorable::CacheControl);
    }
    if headers.contains("set-cookie") {
        return Err(Unstorable::SetCookie);
    }
    // 3.5: an answer to somebody who said who he is, only if the origin says so.
    let is_for_all = control.public || control.must_revalidate || control.s_maxage_s.is_some();
    if request.contains("authorization") && !is_for_all {
        return Err(Unstorable::Credentials);
    }
    if request.contains("cookie") && !lifetime.is_explicit && !control.public {
        return Err(Unstorable::Credentials);
    }
    // 3: something has to say that it may be.
    if !lifetime.is_explicit && !control.public && !freshness::is_heuristic(status) {
        return Err(Unstorable::Status);
    }
    let has_validator = headers.contains("etag") || headers.contains("last-modified");
    let initial_age_ms = freshness::initial_age_ms(headers, span);
    let is_ever_fresh = lifetime.ms > initial_age_ms.unwrap_or(u64::MAX) && !control.no_cache;
    // What is never fresh and cannot be validated is of no use.
    if !is_ever_fresh && !has_validator {
        return Err(Unstorable::Freshness);
    }
    let Some(selecting) = vary::selecting(headers, request) else {
        return Err(Unstorable::Vary);
    };
    if is_event_stream(headers) {
        return Err(Unstorable::Stream);
    }
    let is_decoded = is_decoded(headers);
    if is_decoded && control.no_transform {
        return Err(Unstorable::Encoding);
    }
    let declared = headers.get("content-length").unwrap_or_default();
    if number(declared.trim()).is_some_and(|bytes| bytes > max_bytes as u64) {
        return Err(Unstorable::TooLarge);
    }
    let mut kept = kept(headers, &control, is_decoded);
    let mut bytes = 0;
    for (name, value) in kept.iter() {
        bytes += name.len() + value.len();
    }
    for (name, value) in &selecting {
        bytes += name.len() + value.as_ref().map_or(0, String::len);
    }
    if bytes > MAX_HEADER_BYTES {
        return Err(Unstorable::TooLarge);
    }
    // RFC 9110, 6.6.1: an answer that brings no date gets the one of its arrival.
    if !kept.contains("date") {
        let now_s = i64::try_from(span.answered_ms / 1000).unwrap_or(0);
        kept.append("date", date::format(now_s));
    }
    Ok(Stored {
        status,
        headers: kept,
        body: Vec::new().into(),
        born_ms: span.answered_ms.saturating_sub(initial_age_ms.unwrap_or(0)),
        // An age that is not known may be any.
        fresh_ms: initial_age_ms.map_or(0, |_| lifetime.ms),
        selecting,
    })
}

/// 3.1: all fields but those of the connection, and those that the answer keeps out itself.
fn kept(headers: &Headers, control: &Control, is_decoded: bool) -> Headers {
    let mut listed = control.withheld.clone();
    for line in headers.get_all("connection") {
        for name in line.split(',') {
            listed.push(name.trim().to_ascii_lowercase());
        }
    }
    let is_kept = |name: &str| match name {
        "date" | "retry-after" => true,
        "content-encoding" => !is_decoded,
        _ => is_kept_in_cache(name),
    };
    let mut kept = headers.clone();
    kept.keep(&|name| is_kept(name) && !listed.iter().any(|listed| listed == name));
    if is_decoded {
        weaken(&mut kept);
    }
    kept
}

/// Whether the platform hands over other bytes than were sent: it decodes these two.
pub fn is_decoded(headers: &Headers) -> bool {
    let mut codings = headers.get_all("content-encoding");
    let coding = codings.next();
    matches!(coding, Some("gzip" | "br")) && codings.next().is_none()
}

/// RFC 9110, 8.8.1: a strong tag is one of exactly these bytes.
fn weaken(headers: &mut Headers) {
    let tag = headers.get("etag").filter(|tag| !tag.starts_with("W/"));
    if let Some(tag) = tag {
        let weak = format!("W/{tag}");
        headers.set("etag", weak);
    }
}

/// The final statuses that RFC 9110 defines and this cache can store.
fn is_understood(status: u16) -> bool {
    matches!(
        status,
        200..=204 | 300..=303 | 307 | 308 | 400 | 401 | 403..=417 | 421 | 422 | 426 | 500..=505
    )
}
