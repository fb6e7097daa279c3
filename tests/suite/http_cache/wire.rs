//! Dates, conditions, ranges, `Vary`, validation, invalidation and what is said of it all.

use edgeweir::cache::Unstorable;
use edgeweir::cache::http::condition::{has_it, is_same_range};
use edgeweir::cache::http::invalidation::{is_safe, targets};
use edgeweir::cache::http::range::{Part, part};
use edgeweir::cache::http::storing::storable;
use edgeweir::cache::http::validation::{freshened, is_about, outgoing};
use edgeweir::cache::http::{Forward, Report, Stored, date, vary};
use edgeweir::http::Headers;

use super::{NOW_MS, NOW_S, at, headers};

/// All three formats, and nothing that only looks like one (RFC 9110, 5.6.7).
#[test]
fn dates_are_read_in_three_formats() {
    let now_s = NOW_S as i64;
    for text in [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        " Sun, 06 Nov 1994 08:49:37 GMT\t",
    ] {
        assert_eq!(date::parse(text, now_s), Some(784_111_777), "{text}");
    }
    // Two digits are at most 50 years ahead.
    assert_eq!(
        date::parse("Friday, 01-Jan-76 00:00:00 GMT", now_s),
        Some(3_345_062_400)
    );
    assert_eq!(
        date::parse("Friday, 01-Jan-77 00:00:00 GMT", now_s),
        Some(220_924_800)
    );
    for text in [
        "",
        "0",
        "-1",
        "now",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 NOV 1994 08:49:37 GMT",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun, 06-Nov-1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 8:49:37 GMT",
        "Sun, 06 Nov 1994 08.49.37 GMT",
        "Sun, 06  Nov 1994 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Sun, 29 Feb 1900 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:00 GMT",
        "Sun, 00 Nov 1994 08:00:00 GMT",
        "Sun 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT GMT",
    ] {
        assert_eq!(date::parse(text, now_s), None, "{text}");
    }
}

/// What is written is read as the same second, over four centuries.
#[test]
fn dates_are_written_as_they_are_read() {
    assert_eq!(date::format(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(date::format(0), "Thu, 01 Jan 1970 00:00:00 GMT");
    assert_eq!(date::format(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
    assert_eq!(date::format(-1), "Wed, 31 Dec 1969 23:59:59 GMT");
    for n in -20_000i64..80_000 {
        // Steps of forty hours and a bit: every day of the week, every hour and second.
        let at_s = n * 144_371;
        assert_eq!(date::parse(&date::format(at_s), 0), Some(at_s));
    }
}

/// A condition is judged by what is stored (4.3.2; RFC 9110, 13).
#[test]
fn a_client_that_has_it_is_known() {
    let stored = "etag: \"a\"\nlast-modified: Sat, 21 Mar 2026 11:00:00 GMT\ndate: Sat, 21 Mar 2026 12:00:00 GMT";
    for (request, response, expected) in [
        ("if-none-match: \"a\"", stored, true),
        ("if-none-match: W/\"a\"", stored, true),
        ("if-none-match: \"b\", \"a\"", stored, true),
        ("if-none-match: \"b\"\nif-none-match: \"a\"", stored, true),
        ("if-none-match: *", stored, true),
        ("if-none-match: *", "", true),
        ("if-none-match: \"b\"", stored, false),
        ("if-none-match: \"a\"", "", false),
        (
            "if-modified-since: Sat, 21 Mar 2026 11:00:00 GMT",
            stored,
            true,
        ),
        (
            "if-modified-since: Sat, 21 Mar 2026 11:00:01 GMT",
            stored,
            true,
        ),
        (
            "if-modified-since: Sat, 21 Mar 2026 10:59:59 GMT",
            stored,
            false,
        ),
        ("if-modified-since: yesterday", stored, false),
        // The tag counts, whatever the date says.
        (
            "if-none-match: \"b\"\nif-modified-since: Sat, 21 Mar 2026 11:00:00 GMT",
            stored,
            false,
        ),
        (
            "if-none-match: \"a\"\nif-modified-since: Sat, 21 Mar 2020 11:00:00 GMT",
            stored,
            true,
        ),
        (
            "if-modified-since: Sat, 21 Mar 2026 12:00:00 GMT",
            "date: Sat, 21 Mar 2026 12:00:00 GMT",
            true,
        ),
        (
            "if-modified-since: Sat, 21 Mar 2026 11:59:59 GMT",
            "date: Sat, 21 Mar 2026 12:00:00 GMT",
            false,
        ),
        ("", stored, false),
    ] {
        assert_eq!(
            has_it(&headers(request), &headers(response), NOW_MS),
            expected,
            "{request}"
        );
    }
    for (wanted, expected) in [
        ("\"a\"", true),
        ("\"b\"", false),
        ("W/\"a\"", false),
        ("Sat, 21 Mar 2026 11:00:00 GMT", true),
        ("Sat, 21 Mar 2026 11:00:01 GMT", false),
    ] {
        let request = headers(&format!("if-range: {wanted}"));
        assert_eq!(
            is_same_range(&request, &headers(stored)),
            expected,
            "{wanted}"
        );
    }
    assert!(is_same_range(&Headers::new(), &headers(stored)));
    assert!(!is_same_range(
        &headers("if-range: W/\"a\""),
        &headers("etag: W/\"a\"")
    ));
}

/// One range of bytes, or all of it, or none (RFC 9110, 14).
#[test]
fn ranges_are_of_what_is_there() {
    for (field, expected) in [
        ("bytes=0-4", Part::Bytes(0, 4)),
        ("bytes=9-9", Part::Bytes(9, 9)),
        ("bytes=5-", Part::Bytes(5, 9)),
        ("bytes=-3", Part::Bytes(7, 9)),
        ("bytes=-30", Part::Bytes(0, 9)),
        ("bytes=5-99999999999999999999999", Part::Bytes(5, 9)),
        ("BYTES = 1-2 ", Part::Bytes(1, 2)),
        ("bytes=10-", Part::None),
        ("bytes=10-20", Part::None),
        ("bytes=99999999999999999999999-", Part::None),
        ("bytes=-0", Part::None),
        ("bytes=5-4", Part::Whole),
        ("bytes=0-1,3-4", Part::Whole),
        ("bytes=a-b", Part::Whole),
        ("bytes=1-b", Part::Whole),
        ("bytes=-", Part::Whole),
        ("bytes=", Part::Whole),
        ("bytes", Part::Whole),
        ("lines=0-4", Part::Whole),
    ] {
        assert_eq!(part(field, 10), expected, "{field}");
    }
    assert_eq!(part("bytes=0-4", 0), Part::Whole);
}

/// Secondary keys (4.1).
#[test]
fn variants_are_told_apart_by_what_vary_names() {
    let of = |vary: &str, request: &str| {
        vary::selecting(&headers(&format!("vary: {vary}")), &headers(request))
    };
    for star in ["*", "a, *", "*, a", " , *"] {
        assert_eq!(of(star, "a: 1"), None, "{star}");
    }
    assert_eq!(of("", "a: 1"), Some(vec![]));
    let fields = of("A, b, , a", "a: 1\nb: x,y").unwrap();
    for (request, expected) in [
        ("a: 1\nb: x,y", true),
        ("a: 1\nb: x , y", true),
        ("a: 1\nb: x\nb: y", true),
        ("a: 1\nb: y,x", false),
        ("a: 2\nb: x,y", false),
        ("a: 1", false),
        ("b: x,y", false),
    ] {
        assert_eq!(
            vary::selects(&fields, &headers(request)),
            expected,
            "{request}"
        );
    }
    let absent = of("a", "").unwrap();
    assert!(vary::selects(&absent, &Headers::new()) && !vary::selects(&absent, &headers("a:")));
    // We ask for plain bytes in the name of all.
    let encoded = of("Accept-Encoding", "accept-encoding: br").unwrap();
    assert!(vary::selects(&encoded, &headers("accept-encoding: gzip")));
}

fn entry(answer: &str) -> Stored {
    let answer = headers(&format!("cache-control: max-age=60\n{answer}"));
    let stored = storable(&Headers::new(), 200, &answer, at(NOW_MS), 1000).unwrap();
    Stored {
        body: Vec::from("body").into(),
        ..stored
    }
}

/// The origin gets the client's fields, but for its conditions and for those by which
/// one visitor could choose what others get.
#[test]
fn a_fill_carries_what_may_select() {
    let request = headers(
        "accept: x\naccept-encoding: br\nauthorization: y\ncookie: c=d\nconnection: close\nhost: h\nif-none-match: \"q\"
        if-modified-since: x\nif-range: x\nrange: bytes=0-1\nx-forwarded-host: evil\nforwarded: host=evil
        x-http-method-override: DELETE\nx-method-override: DELETE\nx-original-url: /admin\nx-custom: 1",
    );
    let replaced = headers("x-forwarded-for: 198.51.100.7");
    let stored = entry("etag: \"a\"\nlast-modified: Sat, 21 Mar 2026 11:00:00 GMT");
    let sent = outgoing(&request, replaced.clone(), Some(&stored));
    let sent: Vec<(&str, &str)> = sent.iter().collect();
    let plain = [
        ("accept", "x"),
        ("authorization", "y"),
        ("cookie", "c=d"),
        ("x-custom", "1"),
        ("x-forwarded-for", "198.51.100.7"),
        ("accept-encoding", "identity"),
        ("surrogate-capability", "edgeweir=\"Surrogate/1.0\""),
    ];
    let validators = [
        ("if-none-match", "\"a\""),
        ("if-modified-since", "Sat, 21 Mar 2026 11:00:00 GMT"),
    ];
    assert_eq!(sent, [&plain[..], &validators[..]].concat());
    let unconditional = outgoing(&request, replaced, None);
    assert_eq!(unconditional.iter().collect::<Vec<_>>(), plain);
}

/// A 304 renews what it says, and nothing that describes the stored bytes (3.2).
#[test]
fn a_304_renews_the_stored_fields() {
    let stored = entry(
        "etag: \"a\"\na: 1\na: 2\nb: 3\ncontent-encoding: zz\ncontent-range: x\ncontent-md5: m\ncontent-type: text/plain
        date: Sat, 21 Mar 2026 11:59:30 GMT",
    );
    assert_eq!(stored.ttl_s(NOW_MS), 30);
    let answer = headers(
        "etag: \"a\"\na: 9\nc: 4\ncontent-encoding: yy\ncontent-range: y\ncontent-md5: n\ncontent-length: 0
        content-type: text/html\ncache-control: max-age=90\nconnection: d\nd: 5\ndate: Sat, 21 Mar 2026 12:00:00 GMT",
    );
    assert!(is_about(&stored, &answer));
    let (fresh, why) = freshened(&stored, &Headers::new(), &answer, at(NOW_MS), 1000);
    assert_eq!(why, None);
    assert_eq!(
        (&*fresh.body, fresh.status, fresh.ttl_s(NOW_MS)),
        (&b"body"[..], 200, 90)
    );
    let mut fields: Vec<(&str, &str)> = fresh.headers.iter().collect();
    fields.sort_unstable();
    let expected = [
        ("a", "9"),
        ("b", "3"),
        ("c", "4"),
        ("cache-control", "max-age=90"),
        ("content-encoding", "zz"),
        ("content-md5", "m"),
        ("content-range", "x"),
        ("content-type", "text/html"),
        ("date", "Sat, 21 Mar 2026 12:00:00 GMT"),
        ("etag", "\"a\""),
    ];
    assert_eq!(fields, expected);
    // A 304 may also end it.
    let over = headers("cache-control: no-store");
    let (_, why) = freshened(&stored, &Headers::new(), &over, at(NOW_MS), 1000);
    assert_eq!(why, Some(Unstorable::CacheControl));
    assert!(!is_about(&stored, &headers("etag: \"other\"")));
    assert!(is_about(&stored, &Headers::new()));
    // What was decoded keeps its weak tag.
    let decoded = entry("etag: \"a\"\ncontent-encoding: gzip");
    let (fresh, _) = freshened(
        &decoded,
        &Headers::new(),
        &headers("etag: \"a\""),
        at(NOW_MS),
        1000,
    );
    assert_eq!(
        fresh.headers.get_all("etag").collect::<Vec<_>>(),
        ["W/\"a\""]
    );
}

/// A write ends what it names, on its own host alone (4.4).
#[test]
fn a_write_ends_its_own_uri_and_those_it_names() {
    let base = "https://example.com";
    let ended = |status, answer: &str| targets(base, "/a/b?q=1", status, &headers(answer));
    assert_eq!(ended(200, ""), ["/a/b?q=1"]);
    assert_eq!(ended(303, ""), ["/a/b?q=1"]);
    for status in [199, 400, 404, 500] {
        assert!(ended(status, "location: /x").is_empty(), "{status}");
    }
    for (uri, expected) in [
        ("/x?y#z", Some("/x?y")),
        ("c", Some("/a/c")),
        ("?y", Some("/a/b?y")),
        ("https://example.com/x", Some("/x")),
        ("HTTPS://Example.com/x", Some("/x")),
        ("https://example.com", Some("/")),
        ("https://example.com?y", Some("/?y")),
        ("https://example.com.evil/x", None),
        ("https://example.com:444/x", None),
        ("https://evil/x", None),
        ("http://example.com/x", None),
        ("//evil/x", None),
        ("https://é", None),
        ("", None),
        ("#z", None),
    ] {
        for name in ["location", "content-location"] {
            let all = ended(201, &format!("{name}: {uri}"));
            assert_eq!(all.get(1).map(String::as_str), expected, "{uri}");
        }
    }
    assert!(["GET", "HEAD", "OPTIONS", "TRACE"].into_iter().all(is_safe));
    assert!(
        !["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "get"]
            .into_iter()
            .any(is_safe)
    );
}

/// RFC 9211.
#[test]
fn the_report_is_a_member_of_cache_status() {
    let said = |report: Report| {
        let mut headers = headers("cache-status: up; hit");
        report.add_to(&mut headers);
        headers.get_all("cache-status").nth(1).unwrap().to_owned()
    };
    let hit = Report {
        ttl_s: Some(-4),
        ..Report::default()
    };
    assert_eq!(said(hit), "edgeweir; hit; ttl=-4");
    let validated = Report {
        forward_status: Some(304),
        stored: true,
        collapsed: true,
        ttl_s: Some(60),
        ..Report::forwarded(Forward::Stale, None)
    };
    assert_eq!(
        said(validated),
        "edgeweir; fwd=stale; fwd-status=304; ttl=60; stored; collapsed"
    );
    let bypass = Report::forwarded(Forward::Bypass, Some("redis"));
    assert_eq!(said(bypass), "edgeweir; fwd=bypass; detail=redis");
}
