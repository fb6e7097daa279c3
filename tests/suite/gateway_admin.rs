//! The admin API: who may, what it takes, and that a purge holds once it is answered.

use std::rc::Rc;

use edgeweir::config::Secret;
use edgeweir::gateway::Settings;
use edgeweir::policy::Policy;
use serde_json::{Value, json};

use super::sim::{Fault, Passage, first_seed};
use super::world::{Ask, Isolate, Says, Served, World, policy};
use edgeweir::redis::RedisErrorKind;

fn shop() -> Policy {
    policy(&json!({
        "defaults": {
            "limit": [{ "name": "default", "requests": 100, "window": "60s", "by": "ip" }],
            "timeout": { "redis": "150ms", "origin": "2s" }
        },
        "route": [{ "name": "book", "match": "GET /books/{id}", "limit": [], "cache": {
            "key": "book:{id}", "ttl": "10m", "tags": ["books", "book:{id}"] } }],
    }))
}

fn world_as(token: Option<&str>) -> (Rc<World>, Isolate) {
    let world = World::new(first_seed());
    let mut version = 0;
    world.origin(move |_| {
        version += 1;
        Says::json(&json!({ "v": version }))
    });
    let settings = Settings {
        admin_token: token.map(Secret::new),
        ..Settings::default()
    };
    let isolate = world.isolate_with(shop(), settings);
    (world, isolate)
}

fn world() -> (Rc<World>, Isolate) {
    world_as(Some("admin-token"))
}

fn purge(isolate: &Isolate, body: &str) -> Served {
    let ask = Ask::new("POST", "/-/purge");
    isolate.ask(ask.header("authorization", "Bearer admin-token").body(body))
}

/// Only the whole token opens it; without one configured there is nothing to open.
#[test]
fn only_the_token_opens_the_admin_api() {
    let (world, isolate) = world();
    for (authorization, status) in [
        (None, 401),
        (Some(""), 401),
        (Some("Bearer"), 401),
        (Some("Bearer "), 401),
        (Some("Bearer admin-toke"), 401),
        (Some("Bearer admin-tokenx"), 401),
        (Some("Bearer Admin-Token"), 401),
        (Some("Basic admin-token"), 401),
        (Some("admin-token"), 401),
        (Some("bearer admin-token"), 200),
        (Some("Bearer admin-token"), 200),
    ] {
        let ask = Ask::new("POST", "/-/purge").body("{}");
        let served = isolate.ask(match authorization {
            Some(value) => ask.header("authorization", value),
            None => ask,
        });
        assert_eq!(served.status, status, "{authorization:?}");
        let challenge = if status == 401 { "Bearer" } else { "" };
        assert_eq!(served.get("www-authenticate"), challenge);
        assert_eq!(served.get("cache-control"), "no-store");
    }
    assert_eq!(
        world.asked.borrow().len(),
        0,
        "the edge's own paths never reach the origin"
    );
    let (_, closed) = world_as(None);
    for authorization in ["Bearer admin-token", "Bearer ", "Bearer"] {
        let ask = Ask::new("POST", "/-/purge")
            .header("authorization", authorization)
            .body("{}");
        assert_eq!(closed.ask(ask).status, 404);
    }
}

/// Everything below `/-/` is the edge's own, limited, and unknown until it is known.
#[test]
fn paths_of_the_edge_never_reach_the_origin_and_are_limited() {
    let (world, isolate) = world();
    for target in [
        "/-",
        "/-/",
        "/-/nothing",
        "/-/purge/",
        "/-/health/",
        "/-//purge",
    ] {
        let ask = Ask::get(target).header("authorization", "Bearer admin-token");
        let served = isolate.ask(ask);
        assert_eq!(
            (served.status, served.get("content-type")),
            (404, "application/problem+json"),
            "{target}"
        );
        assert!(
            served.get("ratelimit").starts_with("\"default\""),
            "{target}"
        );
    }
    let get = Ask::get("/-/purge").header("authorization", "Bearer admin-token");
    let served = isolate.ask(get);
    assert_eq!((served.status, served.get("allow")), (405, "POST"));
    assert_eq!(world.asked.borrow().len(), 0);
    for _ in 0..100 {
        isolate.get("/-/nothing");
    }
    assert_eq!(purge(&isolate, "{}").status, 429);
}

/// The contract's example names everything that it takes, and leaves it empty.
#[test]
fn an_empty_prefix_is_none() {
    let (world, isolate) = world();
    let nothing = r#"{"keys":[],"tags":[],"prefix":"","mode":"hard"}"#;
    let served = purge(&isolate, nothing);
    assert_eq!(served.status, 200);
    assert_eq!(
        served.json()["purged"],
        json!({ "keys": 0, "tags": 0, "prefixes": 0 })
    );
    let ran = world.redis.ran.borrow();
    assert!(!ran.iter().any(|ran| ran.words[0] == "APPEND"));
}

/// A body that is not understood purges nothing and says why.
#[test]
fn what_is_not_understood_is_refused() {
    let (world, isolate) = world();
    let many: Vec<String> = (0..1_001).map(|n| n.to_string()).collect();
    for body in [
        json!([]),
        json!("x"),
        json!({ "keys": "x" }),
        json!({ "keys": [1] }),
        json!({ "tags": [""] }),
        json!({ "tags": ["key:"] }),
        json!({ "tags": ["x".repeat(1_025)] }),
        json!({ "tags": null }),
        json!({ "prefix": 1 }),
        json!({ "prefix": "a\nb" }),
        json!({ "prefix": "x".repeat(1_025) }),
        json!({ "prefix": ["x"] }),
        json!({ "mode": "softly" }),
        json!({ "mode": 1 }),
        json!({ "key": ["x"] }),
        json!({ "keys": ["x"], "more": true }),
        json!({ "tags": many }),
        json!({ "tags": ["x"], "keys": many[..1_000] }),
    ] {
        let served = purge(&isolate, &body.to_string());
        let case = body.to_string();
        assert_eq!(
            (served.status, served.get("content-type")),
            (400, "application/problem+json"),
            "{case:.80}"
        );
        assert!(
            served.json()["detail"]
                .as_str()
                .is_some_and(|detail| !detail.is_empty())
        );
    }
    for body in [
        "",
        "{",
        "null",
        "\u{feff}{}",
        &format!("{{\"tags\":[\"{}\"]}}", "x".repeat(65_536)),
    ] {
        assert_eq!(purge(&isolate, body).status, 400, "{body:.20}");
    }
    let ran = world.redis.ran.borrow();
    assert!(
        ran.iter()
            .all(|ran| ran.words[0] != "SET" && ran.words[0] != "DEL")
    );
}

/// 200 once it holds: the next read of any isolate is fresh.
#[test]
fn a_purge_holds_once_it_is_answered() {
    let (world, isolate) = world();
    let other = world.isolate(shop());
    let version = |isolate: &Isolate| isolate.get_settled("/books/7").json()["v"].clone();
    for (round, body) in [
        json!({ "keys": ["book:7"] }),
        json!({ "tags": ["book:7"], "mode": "hard" }),
        json!({ "tags": ["other", "books"], "keys": ["other"] }),
        json!({ "prefix": "boo" }),
    ]
    .into_iter()
    .enumerate()
    {
        let round = round as u64 + 1;
        assert_eq!(
            (version(&isolate), version(&other)),
            (json!(round), json!(round))
        );
        let served = purge(&isolate, &body.to_string());
        let count = |member: &str| body[member].as_array().map_or(0, Vec::len);
        let prefixes = usize::from(body.get("prefix").is_some());
        let expected: Value = json!({
            "purged": { "keys": count("keys"), "tags": count("tags"), "prefixes": prefixes },
            "mode": "hard",
        });
        assert_eq!((served.status, served.json()), (200, expected));
    }
    assert_eq!(version(&other), json!(5));
    let same = purge(&isolate, r#"{"keys":["a","a"],"tags":[]}"#);
    let once = json!({ "keys": 1, "tags": 0, "prefixes": 0 });
    assert_eq!(same.json()["purged"], once);
    assert_eq!(world.immortal_keys(), [""; 0]);
}

/// Without Redis' word it is a 503, and the purge is tried again.
#[test]
fn a_purge_that_is_not_confirmed_is_a_503_and_tried_again() {
    let (world, isolate) = world();
    isolate.get_settled("/books/7");
    isolate.ask(Ask::get("/-/nothing"));
    world.settle();
    let mut trips = 0;
    world.network(move |batch| {
        let is_purge = batch.atomic && format!("{batch:?}").contains("gen:books");
        trips += u32::from(is_purge);
        match is_purge && trips == 1 {
            true => Passage {
                fault: Fault::Before(RedisErrorKind::Full),
                ..Passage::new(500, 500)
            },
            false => Passage::new(500, 500),
        }
    });
    let served = purge(&isolate, r#"{"tags":["books"]}"#);
    assert_eq!((served.status, served.get("retry-after")), (503, "5"));
    assert_eq!(served.json()["detail"], "Redis did not confirm in time.");
    // Redis is well and still has the old entry, which this isolate knows better than to serve.
    assert_eq!(
        isolate.get("/books/7").cache_status(),
        "edgeweir; fwd=miss; detail=redis"
    );
    world.settle();
    assert_eq!(
        isolate.get("/books/7").cache_status(),
        "edgeweir; fwd=miss; stored"
    );
}

/// How wrong an isolate's clock is shows, to the accuracy of a sample; without any it is not
/// said.
#[test]
fn the_offset_of_the_clock_is_a_metric() {
    for skew_ms in [0, 30_000, -30_000, 7, -123] {
        let (_, isolate) = world();
        isolate.skew(skew_ms);
        let ask = Ask::get("/-/metrics").header("authorization", "Bearer admin-token");
        let served = isolate.ask(ask);
        assert_eq!(
            (served.status, served.get("content-type")),
            (200, "text/plain; version=0.0.4; charset=utf-8")
        );
        let samples: Vec<&str> = served
            .text()
            .lines()
            .filter(|line| !line.starts_with('#'))
            .collect();
        let [sample] = samples[..] else {
            panic!("{}", served.text())
        };
        let seconds = sample
            .strip_prefix("edgeweir_redis_clock_offset_seconds{database=\"0\"} ")
            .unwrap();
        assert_eq!(seconds.split_once('.').unwrap().1.len(), 3, "{seconds}");
        let offset_ms = seconds.parse::<f64>().unwrap() * 1000.0;
        assert!(
            (offset_ms + skew_ms as f64).abs() <= 50.0,
            "{skew_ms}: {sample}"
        );
    }
    let (world, isolate) = world();
    world.network(|_| Passage {
        fault: Fault::Before(RedisErrorKind::Transport),
        ..Passage::new(500, 500)
    });
    let ask = Ask::get("/-/metrics").header("authorization", "Bearer admin-token");
    let served = isolate.ask(ask);
    assert_eq!(served.status, 200);
    assert!(served.text().lines().all(|line| line.starts_with('#')));
    assert_eq!(isolate.get("/-/metrics").status, 401);
}
