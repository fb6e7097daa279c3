//! Whole answers, field by field, and what they and the log never hold.

use std::rc::Rc;

use edgeweir::config::Secret;
use edgeweir::gateway::Settings;
use edgeweir::policy::Policy;
use edgeweir::redis::RedisErrorKind;
use serde_json::json;

use super::sim::{Fault, Passage, Rng, first_seed};
use super::world::{Ask, Isolate, START_MS, Says, Served, World, policy};

fn shop(headers: &[&str]) -> Policy {
    policy(&json!({
        "defaults": {
            "limit": [
                { "name": "burst", "requests": 3, "window": "10s", "by": "ip" },
                { "name": "hourly", "requests": 2000, "window": "1h", "by": "user", "per": "all" },
                { "name": "device", "requests": 40, "window": "90s", "by": "header:x-device" }
            ],
            "timeout": { "redis": "150ms", "origin": "2s" },
            "headers": headers,
        },
        "route": [
            { "name": "book", "match": "GET /books/{id}", "cache": {
                "key": "book:{id}", "ttl": "10m", "stale": "1h", "tags": ["books"] } },
            { "name": "shut", "match": "GET /shut", "redis_down": "closed" },
            { "name": "write", "match": "PUT /books/{id}", "purge": {
                "keys": ["book:{id}", "user:{user}:history"], "tags": ["by:{body:/author}"], "else": ["books"] } },
            { "name": "free", "match": "GET /free", "limit": [] },
        ],
    }))
}

fn world() -> (Rc<World>, Isolate) {
    let world = World::new(first_seed());
    world.origin(|_| {
        Says::new(200, "{}")
            .header("x-origin", "1")
            .header("cache-status", "shield; hit")
            .header("server-timing", "db;dur=9")
    });
    let isolate = world.isolate(shop(&["draft-11", "legacy"]));
    (world, isolate)
}

fn fields(served: &Served) -> Vec<String> {
    let fields = served.headers.iter();
    fields
        .map(|(name, value)| format!("{name}: {value}"))
        .collect()
}

/// A miss has all that the origin sent, and a hit all that may be replayed.
#[test]
fn a_miss_and_a_hit_field_by_field() {
    let (world, isolate) = world();
    let miss = isolate.get_settled("/books/1");
    let policies =
        r#"ratelimit-policy: "burst";q=3;w=10, "hourly";q=2000;w=3600, "device";q=40;w=90"#;
    let expected = [
        "content-type: application/json",
        "x-origin: 1",
        "cache-status: shield; hit",
        "server-timing: db;dur=9",
        r#"etag: "dc7048f8f8747f561349cde127705c16""#,
        "cache-status: edgeweir; fwd=miss; stored",
        policies,
        r#"ratelimit: "burst";r=2;t=11, "hourly";r=1999;t=1210, "device";r=39;t=11"#,
        "x-ratelimit-limit: 3",
        "x-ratelimit-remaining: 2",
        "x-ratelimit-reset: 1770000031",
        "server-timing: redis;dur=3, origin;dur=20",
    ];
    assert_eq!(fields(&miss), expected);
    world.pass(5_000);
    let hit = isolate.get("/books/1");
    assert_eq!(
        fields(&hit)[..6],
        [
            "content-type: application/json",
            "x-origin: 1",
            r#"etag: "dc7048f8f8747f561349cde127705c16""#,
            "cache-status: edgeweir; hit; ttl=594; detail=l2",
            "age: 5",
            policies,
        ]
    );
    assert_eq!(fields(&hit)[10..], ["server-timing: redis;dur=1"]);
    assert_eq!((hit.status, hit.text()), (200, "{}"));
}

/// A refusal: what was violated, when it fits, and nothing of the entry.
#[test]
fn a_refusal_field_by_field() {
    let (_, isolate) = world();
    for _ in 0..3 {
        isolate.get_settled("/books/1");
    }
    let refused = isolate.get("/books/1");
    let wait_s: u64 = refused.get("retry-after").parse().unwrap();
    assert!((1..=11).contains(&wait_s)); // At most two buckets later than the window.
    let reset_s = (refused.get("x-ratelimit-reset")).parse::<u64>().unwrap();
    assert!(reset_s.abs_diff(isolate.world.now_ms() / 1_000 + wait_s) <= 1);
    let expected = [
        "content-type: application/problem+json".to_owned(),
        "cache-control: no-store".to_owned(),
        format!("retry-after: {wait_s}"),
        r#"ratelimit-policy: "burst";q=3;w=10, "hourly";q=2000;w=3600, "device";q=40;w=90"#
            .to_owned(),
    ];
    assert_eq!(fields(&refused)[..4], expected);
    assert!(
        refused
            .get("ratelimit")
            .starts_with(&format!(r#""burst";r=0;t={wait_s}, "hourly";r=1997;"#))
    );
    assert_eq!(
        (
            refused.get("x-ratelimit-limit"),
            refused.get("x-ratelimit-remaining")
        ),
        ("3", "0")
    );
    let body = refused.json();
    assert_eq!(body["violated-policies"], json!(["burst"]));
    assert_eq!(
        body["detail"],
        format!("This request fits again in {wait_s} seconds.")
    );
}

/// Each profile alone, and a route without limits says nothing of any.
#[test]
fn only_the_profiles_of_the_policy_are_said() {
    let said = |headers: &[&str], target: &str| {
        let (world, _) = world();
        let served = world.isolate(shop(headers)).get(target);
        [
            "ratelimit",
            "ratelimit-policy",
            "x-ratelimit-limit",
            "x-ratelimit-remaining",
            "x-ratelimit-reset",
        ]
        .map(|name| served.headers.get_all(name).count())
    };
    assert_eq!(said(&["draft-11", "legacy"], "/x"), [1, 1, 1, 1, 1]);
    assert_eq!(said(&["draft-11"], "/x"), [1, 1, 0, 0, 0]);
    assert_eq!(said(&["legacy"], "/x"), [0, 0, 1, 1, 1]);
    assert_eq!(said(&[], "/x"), [0; 5]);
    assert_eq!(said(&["draft-11", "legacy"], "/free"), [0; 5]);
}

/// One item for each limit in every answer: also of one that was not asked because a
/// narrower one refused, or of which nothing is known.
#[test]
fn every_answer_says_every_limit() {
    const DAY_MS: u64 = 86_400_000;
    let names = |served: &Served, field: &str| {
        let items = served.get(field).split(", ");
        let names = items.map(|item| item.split(';').next().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    for redis_down in ["local", "open", "closed"] {
        let world = World::new(first_seed());
        let isolate = world.isolate(policy(&json!({
            "defaults": { "limit": [] },
            "route": [{ "name": "r", "match": "GET /r", "redis_down": redis_down, "limit": [
                { "name": "wide", "requests": 1000, "window": "24h", "by": "global" },
                { "name": "narrow", "requests": 2, "window": "60s", "by": "ip" } ] }],
        })));
        let is_complete = |served: &Served| {
            for field in ["ratelimit", "ratelimit-policy"] {
                assert_eq!(names(served, field), [r#""wide""#, r#""narrow""#]);
            }
        };
        // Two minutes into a day, whose yesterday is not known yet.
        world.pass(DAY_MS - START_MS % DAY_MS + 120_000);
        for status in [200, 200, 429, 429, 429] {
            let served = isolate.get_settled("/r");
            assert_eq!(served.status, status);
            is_complete(&served);
        }
        world.network(|_| Passage {
            fault: Fault::Before(RedisErrorKind::Open),
            ..Passage::new(0, 0)
        });
        let down = isolate.ask(Ask::get("/r").header("cf-connecting-ip", "192.0.2.9"));
        assert_eq!(down.status, if redis_down == "closed" { 503 } else { 200 });
        is_complete(&down);
        let left = if redis_down == "local" { 1 } else { 2 };
        assert_eq!(down.get("x-ratelimit-remaining"), left.to_string());
    }
}

/// A visitor counts from the answer, however long the origin took: it says what the
/// next refusal says.
#[test]
fn after_a_slow_origin_the_time_counts_from_the_answer() {
    let world = World::new(first_seed());
    world.origin(|_| Says::new(200, "{}").after(4_000));
    let isolate = world.isolate(policy(&json!({
        "defaults": {
            "limit": [{ "name": "one", "requests": 1, "window": "10s", "by": "ip" }],
            "timeout": { "origin": "10s" },
        },
        "route": [],
    })));
    let first = isolate.get("/r");
    let refused = isolate.get("/r");
    assert_eq!((first.status, refused.status), (200, 429));
    let wait_s = refused.get("retry-after");
    assert_eq!(first.get("ratelimit"), format!("\"one\";r=0;t={wait_s}"));
    assert_eq!(refused.get("ratelimit"), first.get("ratelimit"));
    assert_eq!(
        first.get("x-ratelimit-reset"),
        refused.get("x-ratelimit-reset")
    );
    world.pass(wait_s.parse::<u64>().unwrap() * 1_000);
    assert_eq!(isolate.get("/r").status, 200);
}

/// Server-Timing: who was asked, and nobody else.
#[test]
fn server_timing_names_only_who_was_asked() {
    let (world, isolate) = world();
    assert_eq!(
        isolate.get("/free").headers.get_all("server-timing").last(),
        Some("origin;dur=20")
    );
    isolate.get_settled("/books/1");
    assert_eq!(isolate.get("/books/1").get("server-timing"), "redis;dur=1");
    // Longer than this isolate serves what it has itself.
    world.pass(1_000);
    world.network(|_| Passage::new(500, 1_000_000));
    let down = isolate.get("/books/1");
    assert_eq!(
        down.headers.get_all("server-timing").last(),
        Some("redis;dur=150, origin;dur=20")
    );
    assert_eq!(
        down.headers.get_all("cache-status").last(),
        Some("edgeweir; fwd=miss; detail=redis")
    );
}

/// Words of a visitor that nobody but Redis' keys and the origin may ever see.
const SECRETS: [&str; 8] = [
    "203.0.113.77",
    "visitor-cookie",
    "visitor-token",
    "device-4711",
    "anna%40example",
    "author-99",
    "2001:db8",
    "query-secret",
];

fn telling(method: &str, target: &str) -> Ask {
    Ask::new(method, target)
        .header("cf-connecting-ip", "203.0.113.77")
        .header("cookie", "session=visitor-cookie")
        .header("authorization", "Bearer visitor-token")
        .header("x-device", "device-4711")
        .body(r#"{"author":"author-99"}"#)
}

/// Neither the log nor anything that the edge itself answers holds an id, a token or a
/// key, whatever fails.
#[test]
fn nothing_logged_or_said_holds_ids_or_tokens() {
    let first = first_seed();
    println!("seeds {first}..{}", first + 60);
    let mut lines = 0;
    for seed in first..first + 60 {
        let world = World::new(seed);
        let mut origin_rng = Rng::new(seed ^ 1);
        world.origin(move |_| match origin_rng.between(0, 3) {
            0 => Says::refused(),
            1 => Says::new(200, "{}").after(60_000),
            _ => Says::new(200, "{}"),
        });
        let mut rng = Rng::new(seed);
        world.network(move |_| Passage {
            fault: match rng.between(0, 5) {
                0 => Fault::Before(RedisErrorKind::Quota),
                1 => Fault::After(RedisErrorKind::Malformed),
                _ => Fault::None,
            },
            ..Passage::new(500, if rng.chance(10) { 1_000_000 } else { 500 })
        });
        let settings = Settings {
            admin_token: Some(Secret::new("admin-secret")),
            jwt_secret: Some(Secret::new("jwt-secret")),
            ..Settings::default()
        };
        let isolate = world.isolate_with(shop(&["draft-11", "legacy"]), settings);
        for (method, target) in [
            ("GET", "/books/anna%40example"),
            ("GET", "/books/anna%40example?query-secret"),
            ("PUT", "/books/anna%40example"),
            ("GET", "/shut"),
            ("POST", "/-/purge"),
            ("GET", "/-/anna%40example"),
            ("GET", "/books/anna%40example"),
        ] {
            let served = isolate.ask(telling(method, target));
            world.settle();
            let mut said = fields(&served).join("\n");
            if served.get("content-type") == "application/problem+json" {
                said.push_str(served.text());
            }
            for secret in SECRETS.iter().chain(&["admin-secret", "jwt-secret"]) {
                assert!(!said.contains(secret), "seed {seed}: {secret} in {said}");
            }
        }
        for line in world.log.borrow().iter() {
            lines += 1;
            for secret in
                SECRETS
                    .iter()
                    .chain(&["admin-secret", "jwt-secret", "book:", "ratelimit:"])
            {
                assert!(!line.contains(secret), "seed {seed}: {secret} in {line}");
            }
        }
    }
    assert!(lines > 100, "{lines} lines say little");
}
