//! Directives, freshness, storing and reuse.

use edgeweir::cache::Unstorable;
use edgeweir::cache::http::freshness::{Span, initial_age_ms, lifetime};
use edgeweir::cache::http::reuse::{Trouble, judge, stands_in};
use edgeweir::cache::http::storing::storable;
use edgeweir::cache::http::{Control, Reuse, Stored};
use edgeweir::http::Headers;
use edgeweir::ports::OriginError;

use super::{NOW_MS, at, headers};

const MAX: usize = 1_000_000;

fn control(value: &str) -> Control {
    Control::of_response(&headers(&format!("cache-control: {value}")))
}

/// Names in any case, arguments in quotes or not, nothing inside of quotes (5.2).
#[test]
fn directives_are_read_as_the_grammar_has_them() {
    let all = control("MAX-AGE=10, S-MaxAge=\"20\", no-store, No-Transform, public");
    assert_eq!((all.max_age_s, all.s_maxage_s), (Some(10), Some(20)));
    assert!(all.no_store && all.no_transform && all.public && !all.private);
    for (value, expected) in [
        ("max-age=3600", Some(3600)),
        ("max-age=003600", Some(3600)),
        ("foo, max-age=5", Some(5)),
        ("ext=\"max-age=3600\", max-age=1", Some(1)),
        ("max-age=1, ext=\"a\\\"b, max-age=3600\"", Some(1)),
        ("ext=\"max-age=3600\"", None),
        // Freshness that cannot be read is none (4.2.1).
        ("max-age='3600'", Some(0)),
        ("max-age=-1", Some(0)),
        ("max-age=1.5", Some(0)),
        ("max-age=a", Some(0)),
        ("max-age=", Some(0)),
        ("max-age", Some(0)),
        ("max-age= 5", Some(0)),
        ("max-age =5", None),
        ("max-age=1, max-age=100", Some(1)),
        ("max-age=100, max-age=1", Some(100)),
        // 1.2.2: too large is 2^31.
        ("max-age=99999999999999999999999", Some(1 << 31)),
        (",, max-age=7 ,,", Some(7)),
    ] {
        assert_eq!(control(value).max_age_s, expected, "{value}");
    }
    let lines = headers("cache-control: max-age=9\ncache-control: no-cache");
    let both = Control::of_response(&lines);
    assert!(both.no_cache && both.max_age_s == Some(9));
}

/// `private` and `no-cache` with field names are about these alone (5.2.2.4, 5.2.2.7).
#[test]
fn field_names_keep_only_fields_out() {
    let named = control("private=\"A, b\", no-cache=c");
    assert!(!named.private && !named.no_cache);
    assert_eq!(named.withheld, ["a", "b", "c"]);
    assert!(control("private=\"\"").private);
    assert!(control("no-cache=\" , \"").no_cache);
    assert!(control("private=\"a\", private").private);
}

/// The first targeted field that is valid and not empty counts alone (RFC 9213, 2.2).
#[test]
fn targeted_fields_come_first() {
    for (text, max_age, targeted) in [
        (
            "cdn-cache-control: max-age=5\ncache-control: max-age=9",
            Some(5),
            true,
        ),
        (
            "edgeweir-cache-control: max-age=1\ncdn-cache-control: max-age=5",
            Some(1),
            true,
        ),
        (
            "cdn-cache-control: max-age=5\ncdn-cache-control: public",
            Some(5),
            true,
        ),
        // Not valid, or empty: ignored.
        (
            "cdn-cache-control: max-age=5,\ncache-control: max-age=9",
            Some(9),
            false,
        ),
        (
            "cdn-cache-control: Max-Age=5\ncache-control: max-age=9",
            Some(9),
            false,
        ),
        (
            "cdn-cache-control:\ncache-control: max-age=9",
            Some(9),
            false,
        ),
        (
            "edgeweir-cache-control: ,\ncdn-cache-control: max-age=5",
            Some(5),
            true,
        ),
        // A wrong type is no freshness.
        (
            "cdn-cache-control: max-age=\"5\"\ncache-control: max-age=9",
            Some(0),
            true,
        ),
        ("cdn-cache-control: max-age=-5", Some(0), true),
        ("cdn-cache-control: max-age=5;x", Some(5), true),
        // Of Surrogate-Control a member may be for other devices.
        (
            "surrogate-control: max-age=5;other\ncache-control: max-age=9",
            Some(9),
            false,
        ),
        (
            "surrogate-control: max-age=5;edgeweir\ncache-control: max-age=9",
            Some(5),
            true,
        ),
        (
            "surrogate-control: max-age=5\ncdn-cache-control: max-age=3",
            Some(3),
            true,
        ),
    ] {
        let control = Control::of_response(&headers(text));
        assert_eq!(
            (control.max_age_s, control.is_targeted),
            (max_age, targeted),
            "{text}"
        );
    }
    let targeted = "cdn-cache-control: no-store, private=?0, no-cache=\"a\"";
    let targeted = Control::of_response(&headers(targeted));
    assert!(targeted.no_store && !targeted.private && targeted.withheld == ["a"]);
}

/// `Pragma: no-cache` counts only where there is no Cache-Control (5.4).
#[test]
fn pragma_is_for_old_clients() {
    let asked = |text| Control::of_request(&headers(text)).no_cache;
    assert!(asked("pragma: foo, No-Cache"));
    assert!(!asked("pragma: foo"));
    assert!(!asked("pragma: no-cache\ncache-control: max-age=9"));
    assert!(!Control::of_response(&headers("pragma: no-cache")).no_cache);
}

const DATE: &str = "date: Sat, 21 Mar 2026 12:00:00 GMT\n";

fn lifetime_s(status: u16, text: &str) -> (u64, bool) {
    let headers = headers(&format!("{DATE}{text}"));
    let control = Control::of_response(&headers);
    let lifetime = lifetime(status, &headers, &control, NOW_MS);
    assert_eq!(lifetime.ms % 1000, 0);
    (lifetime.ms / 1000, lifetime.is_explicit)
}

/// s-maxage, max-age, Expires, and a guess when nothing is said (4.2.1, 4.2.2).
#[test]
fn lifetimes_are_counted_in_the_order_of_the_rfc() {
    for (text, expected) in [
        ("cache-control: max-age=5, s-maxage=9", (9, true)),
        (
            "cache-control: max-age=5\nexpires: Sat, 21 Mar 2026 12:01:00 GMT",
            (5, true),
        ),
        ("expires: Sat, 21 Mar 2026 12:01:00 GMT", (60, true)),
        ("expires: Saturday, 21-Mar-26 12:01:00 GMT", (60, true)),
        ("expires: Sat Mar 21 12:01:00 2026", (60, true)),
        ("expires: Sat, 21 Mar 2026 11:59:00 GMT", (0, true)),
        // 5.3: what is no date is over.
        ("expires: 0", (0, true)),
        (
            "expires: 0\nlast-modified: Sat, 21 Mar 2026 11:00:00 GMT",
            (0, true),
        ),
        // 4.2.2: a tenth, and at most a day.
        ("last-modified: Sat, 21 Mar 2026 11:00:00 GMT", (360, false)),
        (
            "last-modified: Sat, 21 Mar 2020 11:00:00 GMT",
            (86_400, false),
        ),
        ("last-modified: Sat, 21 Mar 2026 13:00:00 GMT", (0, false)),
        ("etag: \"a\"", (0, false)),
        // RFC 9213, 2.2: with a targeted field Expires does not count.
        (
            "cdn-cache-control: public\nexpires: Sat, 21 Mar 2026 12:01:00 GMT",
            (0, false),
        ),
    ] {
        assert_eq!(lifetime_s(200, text), expected, "{text}");
    }
    let changed = "last-modified: Sat, 21 Mar 2026 11:00:00 GMT";
    for status in [203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
        assert_eq!(lifetime_s(status, changed), (360, false), "{status}");
    }
    for status in [201, 202, 302, 303, 307, 400, 403, 500, 502, 503, 504, 599] {
        assert_eq!(lifetime_s(status, changed), (0, false), "{status}");
        let public = format!("{changed}\ncache-control: public");
        assert_eq!(lifetime_s(status, &public), (360, false), "{status}");
    }
}

/// The age on arrival is the larger of what caches and clocks say (4.2.3).
#[test]
fn ages_add_up() {
    let span = Span {
        asked_ms: NOW_MS - 2_000,
        answered_ms: NOW_MS,
    };
    let age = |text: &str| initial_age_ms(&headers(text), span);
    assert_eq!(age(""), Some(2_000));
    assert_eq!(age("age: 30"), Some(32_000));
    assert_eq!(age("date: Sat, 21 Mar 2026 11:59:00 GMT"), Some(60_000));
    assert_eq!(
        age("date: Sat, 21 Mar 2026 11:59:00 GMT\nage: 70"),
        Some(72_000)
    );
    // A clock ahead of ours says nothing.
    assert_eq!(age("date: Sat, 21 Mar 2026 12:59:00 GMT"), Some(2_000));
    assert_eq!(age("age: 99999999999999"), Some((1 << 31) * 1000 + 2_000));
    for unknown in [
        "age: x",
        "age: -1",
        "age: 1.5",
        "age: 7200;a=b",
        "age: 0, 0",
        "age:",
        "age: 0\nage: 0",
    ] {
        assert_eq!(age(unknown), None, "{unknown}");
    }
}

fn stored(request: &str, status: u16, answer: &str) -> Result<Stored, Unstorable> {
    storable(&headers(request), status, &headers(answer), at(NOW_MS), MAX)
}

/// What section 3 asks of a shared cache, and what we do not do beyond it.
#[test]
fn only_what_may_be_stored_is() {
    use Unstorable::*;
    let fresh = "cache-control: max-age=60\n";
    for (request, status, answer, why) in [
        (
            "",
            200,
            "cache-control: no-store, max-age=60",
            Some(CacheControl),
        ),
        (
            "",
            200,
            "cache-control: private, max-age=60",
            Some(CacheControl),
        ),
        ("", 200, "cache-control: private=\"x\", max-age=60", None),
        (
            "",
            200,
            "cache-control: max-age=60\nset-cookie: a=b",
            Some(SetCookie),
        ),
        (
            "",
            200,
            "cache-control: max-age=60, no-cache=\"set-cookie\"\nset-cookie: a=b",
            Some(SetCookie),
        ),
        ("", 200, "", Some(Freshness)),
        ("", 200, "cache-control: public", Some(Freshness)),
        ("", 200, "etag: \"a\"", None),
        ("", 200, "cache-control: no-cache\netag: \"a\"", None),
        (
            "",
            200,
            "cache-control: no-cache, max-age=9",
            Some(Freshness),
        ),
        ("", 200, "cache-control: max-age=0", Some(Freshness)),
        (
            "",
            200,
            "cache-control: max-age=60\nage: 60",
            Some(Freshness),
        ),
        (
            "",
            200,
            "cache-control: max-age=60\nage: x",
            Some(Freshness),
        ),
        ("", 206, fresh, Some(Status)),
        ("", 304, fresh, Some(Status)),
        ("", 101, fresh, Some(Status)),
        ("", 201, fresh, None),
        ("", 599, fresh, None),
        ("", 201, "etag: \"a\"", Some(Status)),
        (
            "",
            599,
            "cache-control: max-age=60, must-understand",
            Some(Status),
        ),
        (
            "",
            200,
            "cache-control: max-age=60, must-understand, no-store",
            None,
        ),
        ("", 200, "cache-control: max-age=60\nvary: a, *", Some(Vary)),
        ("", 200, "cache-control: max-age=60\nvary: a, b", None),
        (
            "",
            200,
            "cache-control: max-age=60\ncontent-type: text/event-stream",
            Some(Stream),
        ),
        (
            "",
            200,
            "cache-control: max-age=60\ncontent-length: 1000001",
            Some(TooLarge),
        ),
        (
            "",
            200,
            "cache-control: max-age=60, no-transform\ncontent-encoding: gzip",
            Some(Encoding),
        ),
        (
            "",
            200,
            "cache-control: max-age=60, no-transform\ncontent-encoding: zstd",
            None,
        ),
        ("cache-control: no-store", 200, fresh, Some(Request)),
        ("authorization: x", 200, fresh, Some(Credentials)),
        (
            "authorization: x",
            200,
            "cache-control: max-age=60, public",
            None,
        ),
        (
            "authorization: x",
            200,
            "cache-control: max-age=60, must-revalidate",
            None,
        ),
        ("authorization: x", 200, "cache-control: s-maxage=60", None),
        ("cookie: a=b", 200, fresh, None),
        ("cookie: a=b", 200, "etag: \"a\"", Some(Credentials)),
        (
            "",
            200,
            "cdn-cache-control: max-age=60\ncache-control: no-store, private",
            None,
        ),
        (
            "",
            200,
            "cdn-cache-control: no-store\ncache-control: max-age=60",
            Some(CacheControl),
        ),
    ] {
        assert_eq!(
            stored(request, status, answer).err(),
            why,
            "{request} {status} {answer}"
        );
    }
    let large = format!("cache-control: max-age=60\nx: {}", "a".repeat(9000));
    assert_eq!(stored("", 200, &large).err(), Some(TooLarge));
    let many: String = (0..17).map(|n| format!("a{n},")).collect();
    assert_eq!(
        stored("", 200, &format!("{fresh}vary: {many}")).err(),
        Some(Vary)
    );
}

/// Fields of the connection, those that are named and those of us stay out (3.1).
#[test]
fn only_what_may_be_kept_is() {
    let answer = "cache-control: max-age=60, private=\"p\", no-cache=n\nconnection: a, B, close\na: 1\nb: 2\nc: 3
        keep-alive: x\nproxy-authenticate: x\nproxy-authentication-info: x\nproxy-authorization: x\nte: x
        proxy-connection: x\ntransfer-encoding: x\nupgrade: x\ntrailer: x\nage: 5\np: 1\nn: 2\nserver-timing: x
        ratelimit: x\nx-ratelimit-limit: 5\ncontent-length: 3\nset-cookie2: x\nretry-after: 7\ncontent-encoding: zz";
    let kept = stored("", 200, answer).unwrap().headers;
    let names: Vec<&str> = kept.iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        [
            "cache-control",
            "c",
            "set-cookie2",
            "retry-after",
            "content-encoding",
            "date"
        ]
    );
    // RFC 9110, 6.6.1: the date of its arrival.
    assert_eq!(kept.get("date"), Some("Sat, 21 Mar 2026 12:00:00 GMT"));
    // The platform decodes these, so the tag is no longer of the very bytes.
    let coded = "cache-control: max-age=60\ncontent-encoding: br\netag: \"a\"";
    let kept = stored("", 200, coded).unwrap().headers;
    assert!(!kept.contains("content-encoding"));
    assert_eq!(kept.get("etag"), Some("W/\"a\""));
}

fn entry(answer: &str) -> Stored {
    stored("", 200, &format!("{answer}\netag: \"a\"")).unwrap()
}

fn reused(answer: &str, request: &str, after_s: u64, policy_s: u64) -> Reuse {
    let asked = Control::of_request(&headers(request));
    judge(
        &entry(answer),
        &asked,
        policy_s * 1000,
        NOW_MS + after_s * 1000,
    )
}

/// Fresh answers are served unless the request or they themselves forbid it (4, 5.2.1).
#[test]
fn a_stored_answer_is_served_as_both_sides_want_it() {
    use Reuse::*;
    for (answer, request, after_s, expected) in [
        ("cache-control: max-age=60", "", 59, Serve),
        ("cache-control: max-age=60", "", 60, Stale),
        ("cache-control: max-age=60, no-cache", "", 0, Stale),
        (
            "cache-control: max-age=60, no-cache",
            "cache-control: max-stale",
            0,
            Stale,
        ),
        ("cache-control: max-age=60, no-cache=\"x\"", "", 0, Serve),
        (
            "cache-control: max-age=60",
            "cache-control: no-cache",
            0,
            Unwanted,
        ),
        ("cache-control: max-age=60", "pragma: no-cache", 0, Unwanted),
        (
            "cache-control: max-age=60",
            "cache-control: max-age=30",
            29,
            Serve,
        ),
        (
            "cache-control: max-age=60",
            "cache-control: max-age=30",
            31,
            Unwanted,
        ),
        (
            "cache-control: max-age=60",
            "cache-control: max-age=30, max-stale=1",
            31,
            Serve,
        ),
        (
            "cache-control: max-age=60",
            "cache-control: max-age=0",
            1,
            Unwanted,
        ),
        (
            "cache-control: max-age=60",
            "cache-control: max-age=0",
            0,
            Unwanted,
        ),
        // RFC 8246, 2: a reload of what never changes; but a no-cache is meant.
        (
            "cache-control: max-age=60, immutable",
            "cache-control: max-age=0",
            1,
            Serve,
        ),
        (
            "cache-control: max-age=60, immutable",
            "cache-control: no-cache",
            1,
            Unwanted,
        ),
        (
            "cache-control: max-age=60, immutable",
            "cache-control: max-age=0",
            61,
            Stale,
        ),
        (
            "cache-control: max-age=60",
            "cache-control: min-fresh=10",
            50,
            Serve,
        ),
        (
            "cache-control: max-age=60",
            "cache-control: min-fresh=10",
            51,
            Unwanted,
        ),
        (
            "cache-control: max-age=60",
            "cache-control: max-stale",
            9_999,
            Serve,
        ),
        (
            "cache-control: max-age=60",
            "cache-control: max-stale=5",
            65,
            Serve,
        ),
        (
            "cache-control: max-age=60",
            "cache-control: max-stale=5",
            66,
            Stale,
        ),
        (
            "cache-control: max-age=60, must-revalidate",
            "cache-control: max-stale",
            61,
            Stale,
        ),
        (
            "cache-control: max-age=60, proxy-revalidate",
            "cache-control: max-stale",
            61,
            Stale,
        ),
        (
            "cache-control: s-maxage=60",
            "cache-control: max-stale",
            61,
            Stale,
        ),
        // RFC 5861, 3.
        (
            "cache-control: max-age=60, stale-while-revalidate=10",
            "",
            69,
            ServeAndAsk,
        ),
        (
            "cache-control: max-age=60, stale-while-revalidate=10",
            "",
            70,
            Stale,
        ),
        (
            "cache-control: max-age=60, stale-while-revalidate=10, must-revalidate",
            "",
            61,
            Stale,
        ),
        (
            "cdn-cache-control: max-age=60, stale-while-revalidate=10",
            "",
            61,
            ServeAndAsk,
        ),
        (
            "cache-control: max-age=60, stale-while-revalidate=10",
            "cache-control: max-age=5",
            61,
            Stale,
        ),
    ] {
        assert_eq!(
            reused(answer, request, after_s, 0),
            expected,
            "{answer} | {request} | {after_s}"
        );
    }
    // The policy's own word, where the origin forbids nothing (4.2.4).
    assert_eq!(reused("cache-control: max-age=60", "", 69, 10), ServeAndAsk);
    assert_eq!(reused("cache-control: max-age=60", "", 70, 10), Stale);
    assert_eq!(
        reused("cache-control: max-age=60, must-revalidate", "", 61, 10),
        Stale
    );
}

/// A failing origin is stood in for if nothing forbids it (4.2.4; RFC 5861, 4).
#[test]
fn a_stale_answer_stands_in_for_a_failing_origin() {
    let gone = Trouble::NoAnswer(OriginError::Unreachable);
    let busy = Trouble::Status(503);
    for (answer, request, trouble, after_s, expected) in [
        ("cache-control: max-age=60", "", gone, 4_000, true),
        (
            "cache-control: max-age=60, must-revalidate",
            "",
            gone,
            61,
            false,
        ),
        (
            "cache-control: max-age=60, proxy-revalidate",
            "",
            gone,
            61,
            false,
        ),
        ("cache-control: max-age=60, no-cache", "", gone, 1, false),
        ("cache-control: s-maxage=60", "", gone, 61, false),
        (
            "cache-control: max-age=60",
            "cache-control: no-cache",
            gone,
            1,
            false,
        ),
        (
            "cache-control: max-age=60",
            "cache-control: max-age=0",
            gone,
            1,
            true,
        ),
        ("cache-control: max-age=60", "", busy, 61, false),
        (
            "cache-control: max-age=60, stale-if-error=9",
            "",
            busy,
            68,
            true,
        ),
        (
            "cache-control: max-age=60, stale-if-error=9",
            "",
            busy,
            69,
            false,
        ),
        (
            "cache-control: max-age=60, stale-if-error=9",
            "",
            Trouble::Status(404),
            61,
            false,
        ),
        (
            "cache-control: max-age=60, stale-if-error=9",
            "",
            Trouble::Status(501),
            61,
            false,
        ),
        (
            "cache-control: max-age=60, stale-if-error=9, must-revalidate",
            "",
            busy,
            61,
            false,
        ),
        (
            "cache-control: max-age=60",
            "cache-control: stale-if-error=9",
            busy,
            61,
            true,
        ),
    ] {
        let asked = Control::of_request(&headers(request));
        let now_ms = NOW_MS + after_s * 1000;
        let stood = stands_in(&entry(answer), &asked, trouble, 0, now_ms);
        assert_eq!(
            stood, expected,
            "{answer} | {request} | {trouble:?} | {after_s}"
        );
    }
    let asked = Control::of_request(&Headers::new());
    let plain = entry("cache-control: max-age=60");
    assert!(stands_in(&plain, &asked, busy, 10_000, NOW_MS + 69_000));
    assert!(!stands_in(&plain, &asked, busy, 10_000, NOW_MS + 70_000));
}
