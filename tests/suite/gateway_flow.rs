//! The request flow: which route counts, what reaches Redis and the origin, and what
//! comes back.

use std::rc::Rc;

use edgeweir::gateway::MAX_PATH_BYTES;
use edgeweir::http::Headers;
use edgeweir::policy::Policy;
use serde_json::json;

use super::sim::first_seed;
use super::world::{Ask, Isolate, Says, World, policy};

fn shop() -> Policy {
    policy(&json!({
        "defaults": {
            "limit": [{ "name": "default", "requests": 5, "window": "60s", "by": "ip" }],
            "timeout": { "redis": "150ms", "origin": "2s" }
        },
        "route": [
            { "name": "book", "match": "GET /books/{id}", "limit": [
                { "name": "burst", "requests": 3, "window": "10s", "by": "ip" } ], "cache": {
                "key": "book:{id}:{page}", "query": { "page": "1" }, "ttl": "10m", "tags": ["books"] } },
            { "name": "mine", "match": "GET /mine", "limit": [], "cache": {
                "key": "mine:all", "ttl": "10m", "credentials": "forward" } },
            { "name": "live", "match": "GET /live", "limit": [], "cache": { "key": "live:all", "ttl": "10m" } },
            { "name": "login", "match": "POST /login", "limit": [
                { "name": "logins", "requests": 2, "window": "60s", "by": "ip" } ] },
            { "name": "drop", "match": "DELETE /books/{id}", "limit": [], "purge": { "keys": ["book:{id}:1"] } },
        ],
    }))
}

fn world() -> (Rc<World>, Isolate) {
    let world = World::new(first_seed());
    world.origin(|asked| Says::json(&json!({ "of": asked.target, "method": asked.method })));
    let isolate = world.isolate(shop());
    (world, isolate)
}

/// A refused request reaches neither the cache nor the origin.
#[test]
fn a_refused_request_reaches_neither_cache_nor_origin() {
    let (world, isolate) = world();
    for _ in 0..3 {
        assert_eq!(isolate.get_settled("/books/1").status, 200);
    }
    let asked = world.asked.borrow().len();
    for id in ["1", "2"] {
        let refused = isolate.get_settled(&format!("/books/{id}"));
        assert_eq!(
            (refused.status, refused.get("content-type")),
            (429, "application/problem+json")
        );
        assert_eq!(refused.json()["violated-policies"], json!(["burst"]));
        assert!(!refused.headers.contains("cache-status") && !refused.headers.contains("etag"));
        assert!(!refused.text().contains("\"of\""), "an entry got out");
    }
    assert_eq!(world.asked.borrow().len(), asked);
    assert_eq!(world.redis.get("book:2:1"), None);
    // Another address has its own count.
    let other = Ask::get("/books/1").header("cf-connecting-ip", "192.0.2.2");
    assert_eq!(isolate.ask(other).status, 200);
}

/// The time that a refusal tells is exact: refused a second before it, admitted at it.
#[test]
fn a_refused_request_is_admitted_when_it_was_told() {
    let (world, isolate) = world();
    for _ in 0..3 {
        isolate.get_settled("/books/1");
    }
    let refused = isolate.get("/books/1");
    let wait_s: u64 = refused.get("retry-after").parse().unwrap();
    let told_ms = world.now_ms() + wait_s * 1_000;
    assert!(
        refused
            .get("ratelimit")
            .ends_with(&format!("r=0;t={wait_s}"))
    );
    world.pass(told_ms - 1_000 - world.now_ms());
    assert_eq!(isolate.get("/books/1").status, 429);
    world.settle();
    world.pass(told_ms - world.now_ms());
    assert_eq!(isolate.get("/books/1").status, 200);
}

/// Spellings that an origin may fold share a route's limits, but never its cache.
#[test]
fn hostile_spellings_share_limits_but_not_the_cache() {
    for spelling in [
        "//login",
        "/login/",
        "/%2Flogin",
        "/login;x=1",
        "/x/..//login",
        "/login%00",
    ] {
        let (world, isolate) = world();
        let post = |target: &str| isolate.ask(Ask::new("POST", target)).status;
        assert_eq!(
            [post("/login"), post(spelling), post(spelling)],
            [200, 200, 429],
            "{spelling}"
        );
        assert_eq!(
            world.asked.borrow()[1].target,
            spelling,
            "passes as it was sent"
        );
    }
    for spelling in ["/books//1", "/books/1/", "/books/1;v=2", "/books%2F1"] {
        let (world, isolate) = world();
        isolate.get_settled("/books/1");
        for _ in 0..2 {
            let served = isolate.get_settled(spelling);
            assert_eq!(
                (served.status, served.is_streamed),
                (200, true),
                "{spelling}"
            );
            assert!(!served.headers.contains("cache-status"), "{spelling}");
            assert!(
                served.get("ratelimit-policy").starts_with("\"burst\""),
                "{spelling}"
            );
        }
        assert_eq!(isolate.get(spelling).status, 429, "{spelling}");
        let asked = world.asked.borrow();
        assert!(
            asked[1..].iter().all(|asked| asked.is_forwarded),
            "{spelling}"
        );
    }
}

/// One path has one normal form for matching, key and origin.
#[test]
fn harmless_spellings_are_one_page() {
    let (world, isolate) = world();
    for spelling in ["/books/a~b", "/books/a%7Eb", "/./books/x/../a%7eb"] {
        assert_eq!(isolate.get_settled(spelling).status, 200);
    }
    assert_eq!(world.asked_for("/books/a~b?page=1"), 1);
    assert_eq!(world.asked.borrow().len(), 1);
}

/// Unlisted parameters reach neither key nor origin; defaults and order make no difference.
#[test]
fn only_listed_parameters_count() {
    let (world, isolate) = world();
    let queries = [
        "",
        "?page=1",
        "?utm_source=x&page=1",
        "?page=1&page=2",
        "?x=1&x=2",
        "?%70age=%31",
    ];
    for (n, query) in queries.iter().enumerate() {
        let address = format!("192.0.2.{n}");
        let ask = Ask::get(&format!("/books/7{query}")).header("cf-connecting-ip", &address);
        assert_eq!(isolate.ask(ask).status, 200);
        world.settle();
    }
    let targets: Vec<String> = world
        .asked
        .borrow()
        .iter()
        .map(|asked| asked.target.clone())
        .collect();
    assert_eq!(targets, ["/books/7?page=1"]);
    assert!(world.redis.get("book:7:1").is_some());
    // A listed value that is no text makes no key: the request passes as it is.
    let odd =
        isolate.ask(Ask::get("/books/7?page=%ff&a=b").header("cf-connecting-ip", "192.0.2.9"));
    assert_eq!(odd.cache_status(), "edgeweir; fwd=bypass; detail=key");
    assert_eq!(
        world.asked.borrow().last().unwrap().target,
        "/books/7?page=%ff&a=b"
    );
}

/// HEAD is answered from a cached GET, and fills it.
#[test]
fn head_is_answered_from_a_cached_get() {
    let (world, isolate) = world();
    let body = r#"{"method":"GET","of":"/books/1?page=1"}"#;
    for status in [
        "edgeweir; fwd=miss; stored",
        "edgeweir; hit; ttl=599; detail=l2",
    ] {
        let head = isolate.ask(Ask::new("HEAD", "/books/1"));
        world.settle();
        assert_eq!(
            (head.status, head.text(), head.cache_status()),
            (200, "", status)
        );
        assert_eq!(head.get("content-length"), body.len().to_string());
        assert_eq!(head.get("content-type"), "application/json");
        assert!(head.headers.contains("etag"));
    }
    assert_eq!(isolate.get("/books/1").text(), body);
    assert_eq!(world.asked.borrow().len(), 1);
}

/// A visitor who has the entry gets a 304, from a hit as from a miss.
#[test]
fn a_visitor_who_has_the_entry_gets_a_304() {
    let (world, isolate) = world();
    let etag = isolate.get_settled("/live").get("etag").to_owned();
    for is_miss in [false, true] {
        for field in [etag.clone(), format!("\"x\", W/{etag}"), "*".to_owned()] {
            if is_miss {
                world.redis.flush(world.sim.now_us());
            }
            let served = isolate.ask(Ask::get("/live").header("if-none-match", &field));
            world.settle();
            assert_eq!(
                (served.status, served.body.len(), served.get("etag")),
                (304, 0, etag.as_str())
            );
            assert_eq!(served.cache_status().contains("fwd=miss"), is_miss);
            assert!(!served.headers.contains("content-type"));
        }
    }
    let other = isolate.ask(Ask::get("/live").header("if-none-match", "\"other\""));
    assert_eq!(other.status, 200);
}

/// What a shared entry is made of has nothing of a visitor in it.
#[test]
fn a_fill_sends_nothing_of_the_visitor() {
    let (world, isolate) = world();
    let mut ask = Ask::get("/live?secret=1");
    for name in [
        "cookie",
        "authorization",
        "range",
        "if-none-match",
        "if-modified-since",
        "x-forwarded-for",
        "x-custom",
        "accept-language",
        "origin",
        "referer",
        "user-agent",
        "accept-encoding",
    ] {
        ask = ask.header(name, "visitor");
    }
    isolate.ask(ask);
    let asked = world.asked.borrow();
    let expected = [
        ("accept", "application/json"),
        ("accept-encoding", "identity"),
        ("user-agent", "edgeweir"),
    ];
    assert_eq!(asked[0].headers, Headers::from_iter(expected));
    assert_eq!(
        (asked[0].target.as_str(), asked[0].is_forwarded),
        ("/live", false)
    );
}

/// `credentials = "forward"`: with a cookie or a token the request passes untouched and
/// nothing is stored; without them it is cached as ever.
#[test]
fn forwarded_credentials_pass_by_the_cache() {
    let (world, isolate) = world();
    for name in ["cookie", "authorization"] {
        let served = isolate.ask(Ask::get("/mine").header(name, "secret"));
        world.settle();
        assert_eq!(
            served.cache_status(),
            "edgeweir; fwd=bypass; detail=credentials"
        );
        let asked = world.asked.borrow().last().unwrap().clone();
        assert_eq!(
            (asked.is_forwarded, asked.headers.get(name)),
            (true, Some("secret"))
        );
        assert_eq!(world.redis.get("mine:all"), None);
    }
    assert_eq!(
        isolate.get_settled("/mine").cache_status(),
        "edgeweir; fwd=miss; stored"
    );
    assert!(isolate.get("/mine").cache_status().contains("hit"));
    // Elsewhere they are left behind, and the entry serves everybody.
    isolate.get_settled("/live");
    let hit = isolate.ask(Ask::get("/live").header("cookie", "secret"));
    assert!(hit.cache_status().contains("hit"));
}

/// Upgrades, other methods and unmatched paths pass through unread, unstored, uncut.
#[test]
fn what_is_no_listing_passes_through() {
    let (world, isolate) = world();
    let upgrade = Ask::get("/live").header("upgrade", "websocket");
    for ask in [
        upgrade,
        Ask::new("POST", "/live").body("x"),
        Ask::new("OPTIONS", "/live"),
        Ask::get("/elsewhere?a=%2F&b"),
        Ask::new("PURGE", "/"),
    ] {
        let sent = ask.clone();
        let served = isolate.ask(ask);
        world.settle();
        assert_eq!((served.status, served.is_streamed), (200, true), "{sent:?}");
        match sent.headers.contains("upgrade") {
            true => assert_eq!(
                served.cache_status(),
                "edgeweir; fwd=bypass; detail=upgrade"
            ),
            false => assert!(!served.headers.contains("cache-status"), "{sent:?}"),
        }
        let asked = world.asked.borrow().last().unwrap().clone();
        assert_eq!(
            (asked.method, asked.target, asked.body),
            (sent.method, sent.target, sent.body)
        );
        assert_eq!(asked.headers.get("upgrade"), sent.headers.get("upgrade"));
    }
    assert_eq!(world.redis.get("live:all"), None);
    // An offer that a server may ignore is no way around the cache.
    let offer = Ask::get("/live?utm=1").header("upgrade", "h2c");
    let served = isolate.ask(offer.header("cookie", "secret"));
    assert_eq!(served.cache_status(), "edgeweir; fwd=miss; stored");
    let asked = world.asked.borrow().last().unwrap().clone();
    assert_eq!(
        (asked.target.as_str(), asked.is_forwarded),
        ("/live", false)
    );
}

/// The origin gets the client's address once, at the end of X-Forwarded-For.
#[test]
fn the_origin_is_told_the_clients_address() {
    for (before, after) in [
        (None, "192.0.2.1"),
        (Some(""), "192.0.2.1"),
        (Some("10.0.0.1"), "10.0.0.1, 192.0.2.1"),
        (
            Some("10.0.0.1,,  10.0.0.2"),
            "10.0.0.1, 10.0.0.2, 192.0.2.1",
        ),
        (Some("10.0.0.1, 192.0.2.1"), "10.0.0.1, 192.0.2.1"),
        (
            Some("192.0.2.1, 10.0.0.1"),
            "192.0.2.1, 10.0.0.1, 192.0.2.1",
        ),
    ] {
        let (world, isolate) = world();
        let ask = Ask::get("/x");
        let ask = match before {
            Some(before) => ask.header("x-forwarded-for", before),
            None => ask,
        };
        isolate.ask(ask);
        let asked = world.asked.borrow();
        let told: Vec<&str> = asked[0].headers.get_all("x-forwarded-for").collect();
        assert_eq!(told, [after], "{before:?}");
    }
}

/// A path that is too long is counted like any other and not sent on.
#[test]
fn a_path_that_is_too_long_is_a_414() {
    let (world, isolate) = world();
    let fits = format!("/{}", "x".repeat(MAX_PATH_BYTES - 1));
    assert_eq!(isolate.get(&fits).status, 200);
    world.asked.borrow_mut().clear();
    let served = isolate.get(&format!("{fits}x"));
    assert_eq!((served.status, served.trips), (414, 1));
    assert!(served.headers.contains("ratelimit"));
    assert_eq!(world.asked.borrow().len(), 0);
}
