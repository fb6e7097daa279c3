//! Exact texts: what answers say of limits, caches and time.

use edgeweir::headers::{
    CacheStatus, Timing, add_cache_status, add_composed_status, add_rate_limits, add_server_timing,
    is_kept_in_cache, none_match, revalidate,
};
use edgeweir::http::{Body, Headers, Response};
use edgeweir::limit::Quota;
use edgeweir::policy::HeaderProfile;

fn quota(name: &str, requests: u32, window_ms: u64, remaining: u32, reset_ms: u64) -> Quota {
    Quota {
        name: name.to_owned(),
        requests,
        capacity: u64::from(requests),
        window_ms,
        remaining,
        reset_ms,
        is_shadow: false,
        is_degraded: false,
    }
}

fn fields(headers: &Headers) -> Vec<(&str, &str)> {
    headers.iter().collect()
}

const NOW_MS: u64 = 1_770_000_000_400;

/// One item per limit, in the policy's order; the older fields tell the tightest one.
#[test]
fn rate_limits_are_said_in_both_profiles() {
    let quotas = [
        quota("hourly", 2_000, 3_600_000, 1_990, 12_001),
        quota("burst", 30, 10_500, 12, 3_900),
        quota("all-day", 50_000, 86_400_000, 12, 60_000),
    ];
    let mut headers = Headers::new();
    let both = [HeaderProfile::Draft11, HeaderProfile::Legacy];
    add_rate_limits(&mut headers, &both, &quotas, NOW_MS);
    let expected = [
        (
            "ratelimit-policy",
            r#""hourly";q=2000;w=3600, "burst";q=30;w=11, "all-day";q=50000;w=86400"#,
        ),
        (
            "ratelimit",
            r#""hourly";r=1990;t=13, "burst";r=12;t=4, "all-day";r=12;t=60"#,
        ),
        // Of two with as little left, the one for which it lasts longer.
        ("x-ratelimit-limit", "50000"),
        ("x-ratelimit-remaining", "12"),
        ("x-ratelimit-reset", "1770000061"),
        ("x-ratelimit-near", "all-day"),
    ];
    assert_eq!(fields(&headers), expected);
}

/// Only the profiles that are asked for, nothing without a limit, and never two values
/// of a field that the origin has set.
#[test]
fn rate_limits_are_said_only_where_they_mean_something() {
    let one = [quota("default", 100, 60_000, 0, 1)];
    let said = |profiles: &[HeaderProfile], quotas: &[Quota]| {
        let mut headers = Headers::new();
        add_rate_limits(&mut headers, profiles, quotas, NOW_MS);
        headers
    };
    assert!(said(&[], &one).is_empty());
    assert!(said(&[HeaderProfile::Draft11, HeaderProfile::Legacy], &[]).is_empty());
    let draft = said(&[HeaderProfile::Draft11], &one);
    assert_eq!(draft.get("ratelimit"), Some(r#""default";r=0;t=1"#));
    assert_eq!(draft.get("x-ratelimit-near"), Some("default"));
    assert_eq!(draft.len(), 3);
    let legacy = said(&[HeaderProfile::Legacy], &one);
    assert_eq!(legacy.get("x-ratelimit-reset"), Some("1770000001"));
    assert_eq!(legacy.len(), 4);
    for field in ["limit", "remaining", "reset"] {
        let name = format!("x-ratelimit-{field}");
        let mut origins = Headers::from_iter([(name.as_str(), "7")]);
        add_rate_limits(&mut origins, &[HeaderProfile::Legacy], &one, NOW_MS);
        let expected = [(name.as_str(), "7"), ("x-ratelimit-near", "default")];
        assert_eq!(fields(&origins), expected);
    }
}

/// A shadow and a limit that this isolate counts by itself say so, and a shadow warns
/// nobody.
#[test]
fn shadows_and_degraded_limits_say_so() {
    let shadow = Quota {
        is_shadow: true,
        ..quota("shadow", 10, 60_000, 0, 5_000)
    };
    let alone = Quota {
        is_degraded: true,
        ..quota("alone", 10, 60_000, 3, 5_000)
    };
    let mut headers = Headers::new();
    let both = [HeaderProfile::Draft11, HeaderProfile::Legacy];
    add_rate_limits(&mut headers, &both, &[shadow, alone], NOW_MS);
    assert_eq!(
        headers.get("ratelimit"),
        Some(r#""shadow";r=0;t=5;edgeweir-shadow, "alone";r=3;t=5;edgeweir-degraded"#)
    );
    assert_eq!(headers.get("x-ratelimit-remaining"), Some("3"));
    assert_eq!(headers.get("x-ratelimit-near"), None);
}

/// Cache-Status beside that of caches further up, in each case word for word.
#[test]
fn cache_status_says_what_happened() {
    let miss = |stored, why| CacheStatus::Miss { stored, why };
    let cases = [
        (
            CacheStatus::Hit { ttl_s: 42 },
            "edgeweir; hit; ttl=42; detail=l2",
            true,
        ),
        (
            CacheStatus::LocalHit { ttl_s: 42 },
            "edgeweir; hit; ttl=42; detail=l1",
            true,
        ),
        (
            CacheStatus::LastResort { ttl_s: -1 },
            "edgeweir; hit; ttl=-1; detail=last-resort",
            true,
        ),
        (
            CacheStatus::Stale { past_s: 7 },
            "edgeweir; hit; ttl=-7; detail=stale",
            true,
        ),
        (miss(true, None), "edgeweir; fwd=miss; stored", true),
        (
            miss(false, Some("set-cookie")),
            "edgeweir; fwd=miss; detail=set-cookie",
            false,
        ),
        (miss(false, None), "edgeweir; fwd=miss", false),
        (
            CacheStatus::Collapsed,
            "edgeweir; fwd=miss; collapsed",
            true,
        ),
        (
            CacheStatus::Bypass { why: "key" },
            "edgeweir; fwd=bypass; detail=key",
            false,
        ),
    ];
    for (status, text, is_kept) in cases {
        let mut headers = Headers::from_iter([("cache-status", "origin-cache; hit")]);
        add_cache_status(&mut headers, &status);
        let all: Vec<&str> = headers.get_all("cache-status").collect();
        assert_eq!(all, ["origin-cache; hit", text]);
        assert_eq!(status.is_kept(), is_kept, "{text}");
    }
}

#[test]
fn composed_status_names_the_parts_that_failed() {
    let said = |status: CacheStatus, failed: &[&str]| {
        let mut headers = Headers::new();
        let failed: Vec<String> = failed.iter().map(|name| (*name).to_owned()).collect();
        add_composed_status(&mut headers, &status, &failed);
        assert_eq!(headers.len(), 1);
        headers.get("cache-status").unwrap().to_owned()
    };
    let hit = || CacheStatus::Hit { ttl_s: 5 };
    assert_eq!(said(hit(), &[]), "edgeweir; hit; ttl=5; detail=l2");
    let names = ["tags", "top.\"\\\u{e9}\n,;="];
    assert_eq!(
        said(hit(), &names),
        "edgeweir; hit; ttl=5; detail=\"failed tags top.????,;=\""
    );
    let stale = CacheStatus::Stale { past_s: 3 };
    assert_eq!(
        said(stale, &["x"]),
        "edgeweir; hit; ttl=-3; detail=\"failed x\""
    );
    let miss = CacheStatus::Miss {
        stored: true,
        why: None,
    };
    assert_eq!(
        said(miss, &["x"]),
        "edgeweir; fwd=miss; detail=\"failed x\""
    );
}

#[test]
fn server_timing_says_who_was_waited_for() {
    let said = |redis_ms, origin_ms| {
        let mut headers = Headers::from_iter([("server-timing", "db;dur=3")]);
        let timing = Timing {
            redis_ms,
            origin_ms,
        };
        add_server_timing(&mut headers, timing);
        let all: Vec<String> = headers
            .get_all("server-timing")
            .map(str::to_owned)
            .collect();
        all
    };
    assert_eq!(said(None, None), ["db;dur=3"]);
    assert_eq!(said(Some(0), None), ["db;dur=3", "redis;dur=0"]);
    assert_eq!(said(None, Some(12)), ["db;dur=3", "origin;dur=12"]);
    assert_eq!(
        said(Some(4), Some(1_250)),
        ["db;dur=3", "redis;dur=4, origin;dur=1250"]
    );
}

/// Fields of one hop, of one visitor or of one moment are never replayed.
#[test]
fn what_a_cache_keeps_of_an_answer() {
    for name in [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "age",
        "content-encoding",
        "content-length",
        "date",
        "retry-after",
        "server-timing",
        "cache-status",
        "set-cookie",
        "ratelimit",
        "ratelimit-policy",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
    ] {
        assert!(!is_kept_in_cache(name), "{name}");
    }
    for name in [
        "content-type",
        "content-language",
        "etag",
        "last-modified",
        "cache-control",
        "link",
        "vary",
        "x-total-count",
        "access-control-allow-origin",
    ] {
        assert!(is_kept_in_cache(name), "{name}");
    }
}

/// RFC 9110, 13.1.2: weak comparison with any of the list, or `*`.
#[test]
fn if_none_match_by_weak_comparison() {
    for (field, etag, matches) in [
        ("\"a\"", "\"a\"", true),
        ("\"a\"", "\"b\"", false),
        ("W/\"a\"", "\"a\"", true),
        ("\"a\"", "W/\"a\"", true),
        ("W/\"a\"", "W/\"a\"", true),
        ("\"x\", \"a\"", "\"a\"", true),
        ("\"x\",W/\"a\" , \"y\"", "\"a\"", true),
        (" \"a\" ", "\"a\"", true),
        ("*", "\"a\"", true),
        (" * ", "W/\"a\"", true),
        ("\"*\"", "\"a\"", false),
        ("*, \"x\"", "\"a\"", false),
        ("", "\"a\"", false),
        (",,", "\"a\"", false),
        ("a", "\"a\"", false),
        ("\"A\"", "\"a\"", false),
        ("w/\"a\"", "\"a\"", false),
        ("\"aa\"", "\"a\"", false),
        ("\"x,\"a\"", "\"a\"", false),
        ("\"a,b\"", "\"a,b\"", true),
        ("\"x\", W/\"a,b\"", "\"a,b\"", true),
        ("\"a,b\"", "\"a\"", false),
        ("a, b", "b", true),
    ] {
        assert_eq!(none_match(field, etag), matches, "{field} and {etag}");
    }
}

/// Only a 200 with a tag that the visitor has becomes a 304, and keeps what it must.
#[test]
fn a_match_becomes_a_304_without_a_body() {
    let answer = |status, etag: Option<&str>| {
        let mut headers = Headers::from_iter([
            ("content-type", "application/json"),
            ("content-length", "2"),
            ("content-language", "en"),
            ("last-modified", "x"),
            ("cache-control", "max-age=1"),
            ("vary", "accept-encoding"),
        ]);
        if let Some(etag) = etag {
            headers.append("etag", etag);
        }
        Response::<()> {
            status,
            headers,
            body: Body::Bytes(b"{}"[..].into()),
        }
    };
    let done = revalidate(answer(200, Some("\"a\"")), Some("\"a\""));
    assert_eq!((done.status, done.body), (304, Body::Empty));
    let kept = [
        ("cache-control", "max-age=1"),
        ("vary", "accept-encoding"),
        ("etag", "\"a\""),
    ];
    assert_eq!(fields(&done.headers), kept);
    for (response, field) in [
        (answer(200, Some("\"a\"")), None),
        (answer(200, Some("\"a\"")), Some("\"b\"")),
        (answer(200, None), Some("*")),
        (answer(404, Some("\"a\"")), Some("\"a\"")),
        (answer(201, Some("\"a\"")), Some("*")),
    ] {
        assert_eq!(revalidate(response.clone(), field), response);
    }
}
