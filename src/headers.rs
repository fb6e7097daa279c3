//! What an answer says of itself: RateLimit, Cache-Status, Age, Server-Timing, ETag.
//!
//! Everything is added beside what the origin sent. Header values are built from
//! policy names, numbers and closed enums only.

use std::cmp::Reverse;

use itoa::Buffer as Digits;

use crate::failure::whole_seconds;
use crate::http::{Body, Headers, Response};
use crate::limit::Quota;
use crate::policy::HeaderProfile;

/// Why a request went on, or what was served instead (RFC 9211).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheStatus {
    /// From Redis, fresh for `ttl_s` more seconds.
    Hit { ttl_s: u64 },
    /// The same from this isolate.
    LocalHit { ttl_s: u64 },
    /// From this isolate, for neither Redis nor the origin answered.
    LastResort { ttl_s: i64 },
    /// From Redis, `past_s` seconds after its freshness ended.
    Stale { past_s: u64 },
    /// Fetched for this request.
    Miss {
        stored: bool,
        why: Option<&'static str>,
    },
    /// Fetched by another request at the same time.
    Collapsed,
    /// Not looked up.
    Bypass { why: &'static str },
}

impl CacheStatus {
    /// Of an entry that is fresh.
    pub fn hit(fresh_until_ms: u64, is_local: bool, now_ms: u64) -> Self {
        let ttl_s = fresh_until_ms.saturating_sub(now_ms) / 1000;
        match is_local {
            true => Self::LocalHit { ttl_s },
            false => Self::Hit { ttl_s },
        }
    }

    /// At least a second, or it would look fresh.
    pub fn stale(fresh_until_ms: u64, now_ms: u64) -> Self {
        let past_ms = now_ms.saturating_sub(fresh_until_ms);
        Self::Stale {
            past_s: past_ms.div_ceil(1000).max(1),
        }
    }

    /// Whether the next request finds this answer in the cache.
    pub fn is_kept(&self) -> bool {
        match self {
            Self::Hit { .. }
            | Self::LocalHit { .. }
            | Self::LastResort { .. }
            | Self::Stale { .. }
            | Self::Collapsed => true,
            Self::Miss { stored, .. } => *stored,
            Self::Bypass { .. } => false,
        }
    }

    /// This cache's member of the list (RFC 9211, 2).
    fn member(&self) -> String {
        let hit = |ttl: &str, detail| ["edgeweir; hit; ttl=", ttl, "; detail=", detail].concat();
        let forwarded = |why: &str, more: &str| ["edgeweir; fwd=", why, more].concat();
        let mut digits = Digits::new();
        match self {
            Self::Hit { ttl_s } => hit(digits.format(*ttl_s), "l2"),
            Self::LocalHit { ttl_s } => hit(digits.format(*ttl_s), "l1"),
            Self::LastResort { ttl_s } => hit(digits.format(*ttl_s), "last-resort"),
            Self::Stale { past_s } => hit(digits.format(-past_s.cast_signed()), "stale"),
            Self::Miss { stored: true, .. } => forwarded("miss", "; stored"),
            Self::Miss {
                stored: false,
                why: Some(why),
            } => forwarded("miss; detail=", why),
            Self::Miss { .. } => forwarded("miss", ""),
            Self::Collapsed => forwarded("miss", "; collapsed"),
            Self::Bypass { why } => forwarded("bypass; detail=", why),
        }
    }
}

/// Appends this cache to the list that may have come from further up (RFC 9211, 2).
pub fn add_cache_status(headers: &mut Headers, status: &CacheStatus) {
    headers.append("cache-status", status.member());
}

/// The same for a composed answer; `failed` are names of parts, `name.value`.
pub fn add_composed_status(headers: &mut Headers, status: &CacheStatus, failed: &[String]) {
    if failed.is_empty() {
        add_cache_status(headers, status);
        return;
    }
    let fields = match status {
        CacheStatus::Hit { ttl_s } | CacheStatus::LocalHit { ttl_s } => format!("hit; ttl={ttl_s}"),
        CacheStatus::Stale { past_s } => format!("hit; ttl=-{past_s}"),
        _ => "fwd=miss".to_owned(),
    };
    let mut names = String::new();
    for part in failed {
        // An sf-string takes printable ASCII without quote and backslash (RFC 9651, 3.3.3).
        names.push(' ');
        names.extend(part.chars().map(|c| match c {
            ' '..='~' if c != '"' && c != '\\' => c,
            _ => '?',
        }));
    }
    headers.append(
        "cache-status",
        format!("edgeweir; {fields}; detail=\"failed{names}\""),
    );
}

/// `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-11),
/// and the older `X-RateLimit-*` of the limit with the least left.
pub fn add_rate_limits(
    headers: &mut Headers,
    profiles: &[HeaderProfile],
    quotas: &[Quota],
    now_ms: u64,
) {
    if quotas.is_empty() || profiles.is_empty() {
        return;
    }
    for profile in profiles {
        match profile {
            HeaderProfile::Draft11 => add_draft_11(headers, quotas),
            HeaderProfile::Legacy => add_legacy(headers, quotas, now_ms),
        }
    }
    add_near(headers, quotas);
}

/// Names the limits of which four fifths are used: plan 4's warning, for clients that
/// would rather slow down than be refused.
fn add_near(headers: &mut Headers, quotas: &[Quota]) {
    let is_near =
        |quota: &&Quota| !quota.is_shadow && u64::from(quota.remaining) * 5 <= quota.capacity;
    let names: Vec<&str> = (quotas.iter().filter(is_near))
        .map(|quota| quota.name.as_str())
        .collect();
    if !names.is_empty() {
        headers.append("x-ratelimit-near", names.join(", "));
    }
}

fn add_draft_11(headers: &mut Headers, quotas: &[Quota]) {
    let mut policies = String::with_capacity(48 * quotas.len());
    let mut states = String::with_capacity(48 * quotas.len());
    for quota in quotas {
        let name = &quota.name;
        let window_s = whole_seconds(quota.window_ms);
        add_item(
            &mut policies,
            name,
            [";q=", ";w="],
            [quota.requests.into(), window_s],
        );
        let reset_s = whole_seconds(quota.reset_ms);
        add_item(
            &mut states,
            name,
            [";r=", ";t="],
            [quota.remaining.into(), reset_s],
        );
        // The draft leaves room for parameters of one's own, with a name in front.
        if quota.is_shadow {
            states.push_str(";edgeweir-shadow");
        }
        if quota.is_degraded {
            states.push_str(";edgeweir-degraded");
        }
    }
    headers.append("ratelimit-policy", policies);
    headers.append("ratelimit", states);
}

/// An item of a list (RFC 9651, 3.1): the name as an sf-string, and two parameters.
fn add_item(list: &mut String, name: &str, parameters: [&str; 2], values: [u64; 2]) {
    list.push_str(if list.is_empty() { "\"" } else { ", \"" });
    list.push_str(name);
    list.push('"');
    for (parameter, value) in parameters.into_iter().zip(values) {
        list.push_str(parameter);
        list.push_str(Digits::new().format(value));
    }
}

/// `X-RateLimit-Reset` is in Unix seconds, as express-rate-limit and GitHub
/// write it. An origin's own fields stay: two values would mean nothing.
fn add_legacy(headers: &mut Headers, quotas: &[Quota], now_ms: u64) {
    let tightness = |quota: &&Quota| (quota.remaining, Reverse(quota.reset_ms));
    let real = quotas.iter().filter(|quota| !quota.is_shadow);
    let Some(tightest) = real.min_by_key(tightness) else {
        return;
    };
    let fields = [
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
    ];
    if fields.iter().any(|field| headers.contains(field)) {
        return;
    }
    let reset_s = now_ms.saturating_add(tightest.reset_ms).div_ceil(1000);
    let mut digits = Digits::new();
    headers.append("x-ratelimit-limit", digits.format(tightest.requests));
    headers.append("x-ratelimit-remaining", digits.format(tightest.remaining));
    headers.append("x-ratelimit-reset", digits.format(reset_s));
}

/// Milliseconds spent waiting, by whom; `None`: not asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timing {
    pub redis_ms: Option<u64>,
    pub origin_ms: Option<u64>,
}

pub fn add_server_timing(headers: &mut Headers, timing: Timing) {
    let mut entries = String::new();
    for (name, spent_ms) in [("redis", timing.redis_ms), ("origin", timing.origin_ms)] {
        let Some(spent_ms) = spent_ms else { continue };
        entries.push_str(if entries.is_empty() { "" } else { ", " });
        entries.push_str(name);
        entries.push_str(";dur=");
        entries.push_str(Digits::new().format(spent_ms));
    }
    if !entries.is_empty() {
        headers.append("server-timing", entries);
    }
}

/// Whether the platform decodes a body when it is read: it knows these two, alone and
/// written so.
pub fn is_readable(headers: &Headers) -> bool {
    let mut codings = headers.get_all("content-encoding");
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => matches!(coding, "gzip" | "br" | "identity"),
        _ => false,
    }
}

/// A stream must reach its visitor while it goes on.
pub fn is_event_stream(headers: &Headers) -> bool {
    let kind = headers.get("content-type").unwrap_or("");
    let essence = kind.split(';').next().unwrap_or("").trim();
    essence.eq_ignore_ascii_case("text/event-stream")
}

/// Fields that describe one hop.
pub const OF_CONNECTION: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-authentication-info",
];

/// Not fields that describe one hop, nor those that must never be replayed from a cache.
pub fn is_kept_in_cache(name: &str) -> bool {
    !OF_CONNECTION.contains(&name)
        && !matches!(
            name,
            "age"
                | "content-encoding"
                | "content-length"
                | "date"
                | "retry-after"
                | "server-timing"
                | "cache-status"
                | "set-cookie"
        )
        && !name.starts_with("ratelimit")
        && !name.starts_with("x-ratelimit")
}

/// Whether an `If-None-Match` list names this entity tag, by weak comparison
/// (RFC 9110, 13.1.2 and 8.8.3.2).
pub fn none_match(field: &str, etag: &str) -> bool {
    let opaque = etag.strip_prefix("W/").unwrap_or(etag);
    if field.trim() == "*" {
        return true;
    }
    let Some(inner) = opaque
        .strip_prefix('"')
        .and_then(|tag| tag.strip_suffix('"'))
    else {
        // Not a tag by the grammar, but what this origin uses for one.
        return field
            .split(',')
            .map(str::trim)
            .any(|candidate| candidate.strip_prefix("W/").unwrap_or(candidate) == opaque);
    };
    // A comma may stand inside the quotes, a quote may not.
    let mut parts = field.split('"');
    while let (Some(before), Some(candidate)) = (parts.next(), parts.next()) {
        let prefix = before.trim_start_matches([',', ' ', '\t']);
        if candidate == inner && matches!(prefix, "" | "W/") {
            return true;
        }
    }
    false
}

/// Turns a 200 that the visitor already has into a 304 (RFC 9110, 15.4.5).
pub fn revalidate<B>(response: Response<B>, if_none_match: Option<&str>) -> Response<B> {
    let matches = match (if_none_match, response.headers.get("etag")) {
        (Some(field), Some(etag)) => response.status == 200 && none_match(field, etag),
        _ => false,
    };
    if !matches {
        return response;
    }
    let mut headers = response.headers;
    for name in [
        "content-type",
        "content-length",
        "content-language",
        "last-modified",
    ] {
        headers.remove(name);
    }
    Response {
        status: 304,
        headers,
        body: Body::Empty,
    }
}
