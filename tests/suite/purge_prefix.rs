//! Purges by prefix: all keys that begin so, however many, without a look at any of them.

use edgeweir::config::Secret;
use edgeweir::gateway::Settings;
use edgeweir::policy::Policy;
use serde_json::{Value, json};
use std::rc::Rc;

use super::sim::first_seed;
use super::world::{Ask, Isolate, Says, World, policy};

fn shop() -> Policy {
    policy(&json!({
        "defaults": { "limit": [] },
        "route": [
            { "name": "search", "match": "GET /search/{q}", "cache": { "key": "books:search:{q}", "ttl": "10m", "stale": "1h" } },
            { "name": "book", "match": "GET /books/{id}", "cache": { "key": "books:{id}", "ttl": "10m" } },
            { "name": "page", "match": "GET /page/{id}", "cache": { "mode": "http" } },
        ],
    }))
}

fn world() -> (Rc<World>, Isolate, Isolate) {
    let world = World::new(first_seed());
    let mut version = 0;
    world.origin(move |_| {
        version += 1;
        Says::json(&json!(version)).header("cache-control", "max-age=600")
    });
    let isolate = || {
        let settings = Settings {
            admin_token: Some(Secret::new("t")),
            ..Settings::default()
        };
        world.isolate_with(shop(), settings)
    };
    (world.clone(), isolate(), isolate())
}

fn purge(isolate: &Isolate, body: &Value) -> Value {
    let ask = Ask::new("POST", "/-/purge").header("authorization", "Bearer t");
    let served = isolate.ask(ask.body(body.to_string()));
    assert_eq!(served.status, 200, "{}", served.text());
    served.json()
}

const TARGETS: [&str; 5] = [
    "/search/a",
    "/search/b%20c",
    "/books/1",
    "/page/1?x=1",
    "/page/2",
];

/// What is a hit after a purge.
fn hits(isolate: &Isolate) -> Vec<&'static str> {
    let is_hit = |target: &&str| {
        isolate
            .get_settled(target)
            .cache_status()
            .contains("; hit; ttl=5")
    };
    TARGETS.into_iter().filter(is_hit).collect()
}

#[test]
fn all_keys_with_the_prefix_are_purged_and_no_other() {
    for (prefix, left) in [
        ("books:search:", vec!["/books/1", "/page/1?x=1", "/page/2"]),
        (
            "books:search:b c",
            vec!["/search/a", "/books/1", "/page/1?x=1", "/page/2"],
        ),
        (
            "books:search:b%20",
            vec!["/search/a", "/books/1", "/page/1?x=1", "/page/2"],
        ),
        ("books", vec!["/page/1?x=1", "/page/2"]),
        (
            "http:page:https://edge.example/page/1",
            vec!["/search/a", "/search/b%20c", "/books/1", "/page/2"],
        ),
        ("http:page:https://other.example/", TARGETS.to_vec()),
        ("ooks:", TARGETS.to_vec()),
    ] {
        let (world, one, other) = world();
        for _ in 0..2 {
            hits(&one);
        }
        assert_eq!(hits(&other), TARGETS, "{prefix}");
        let report = purge(&one, &json!({ "prefix": prefix }));
        let expected = json!({ "purged": { "keys": 0, "tags": 0, "prefixes": 1 }, "mode": "hard" });
        assert_eq!(report, expected);
        assert_eq!(hits(&other), left, "{prefix}");
        assert_eq!(hits(&one), TARGETS, "all are there again: {prefix}");
        assert_eq!(world.immortal_keys(), [""; 0]);
    }
}

/// It costs no command more on a hit: the log is one more name in the MGET that is sent anyway.
#[test]
fn a_hit_is_one_command_and_one_trip() {
    let (world, one, _) = world();
    one.get_settled("/books/1");
    purge(&one, &json!({ "prefix": "books:search:" }));
    world.settle();
    world.redis.ran.borrow_mut().clear();
    let served = one.get_settled("/books/1");
    assert!(
        served.cache_status().contains("; hit; "),
        "{}",
        served.cache_status()
    );
    let ran = world.redis.ran.borrow();
    let names: Vec<&str> = ran.iter().map(|ran| ran.words[0].as_str()).collect();
    assert_eq!((names, served.trips), (vec!["MGET"], 1));
}

/// A log that is lost is only a miss for all, and never brings back what was purged.
#[test]
fn a_lost_log_is_a_miss() {
    let (world, one, other) = world();
    for _ in 0..2 {
        hits(&one);
    }
    purge(&one, &json!({ "prefix": "books:" }));
    world.redis.evict("gen:key:");
    assert!(hits(&other).is_empty());
    assert_eq!(hits(&other), TARGETS);
    world.redis.evict("gen:key:");
    purge(&one, &json!({ "prefix": "nothing" }));
    assert!(hits(&other).is_empty());
    assert_eq!(hits(&other), TARGETS);
}

/// A log that has become too long begins anew, which purges everything once.
#[test]
fn a_full_log_begins_anew() {
    let (world, one, other) = world();
    for _ in 0..2 {
        hits(&one);
    }
    let long = "x".repeat(1_000);
    for round in 0..3 {
        purge(&one, &json!({ "prefix": long, "mode": "soft" }));
        world.settle();
        assert_eq!(hits(&other), TARGETS, "{round}");
    }
    purge(&one, &json!({ "prefix": long }));
    world.settle();
    assert_eq!(world.redis.get("gen:key:").map(|log| log.len()), Some(32));
    assert!(hits(&other).is_empty());
    assert_eq!(hits(&other), TARGETS);
}
