//! Conditions of a request, judged by a stored answer (RFC 9111, 4.3.2; RFC 9110, 13).

use super::freshness::date_ms;
use crate::headers::none_match;
use crate::http::Headers;

/// Fields of a request that a cache judges by itself, or cannot: they never go to the
/// origin with a request whose answer is for others too.
pub const CONDITIONS: [&str; 6] = [
    "if-none-match",
    "if-modified-since",
    "if-match",
    "if-unmodified-since",
    "if-range",
    "range",
];

/// Whether the client has this 200 already. `If-Modified-Since` counts only without
/// `If-None-Match` (RFC 9110, 13.1.3).
pub fn has_it(request: &Headers, response: &Headers, now_ms: u64) -> bool {
    if request.contains("if-none-match") {
        let etag = response.get("etag");
        return request.get_all("if-none-match").any(|field| match etag {
            Some(etag) => none_match(field, etag),
            None => field.trim() == "*",
        });
    }
    // 4.3.2: without a date of its last change, that of the answer counts.
    let changed_ms =
        date_ms(response, "last-modified", now_ms).or_else(|| date_ms(response, "date", now_ms));
    let since_ms = date_ms(request, "if-modified-since", now_ms);
    matches!((changed_ms, since_ms), (Some(changed), Some(since)) if changed <= since)
}

/// RFC 9110, 13.1.5: whether a range is wanted of this answer. Only a strong tag, or the
/// very date of its last change, says that the bytes are the same.
pub fn is_same_range(request: &Headers, response: &Headers) -> bool {
    let Some(wanted) = request.get("if-range").map(str::trim) else {
        return true;
    };
    match wanted.starts_with('"') {
        true => response.get("etag").map(str::trim) == Some(wanted),
        false => {
            !wanted.starts_with("W/")
                && response.get("last-modified").map(str::trim) == Some(wanted)
        }
    }
}
