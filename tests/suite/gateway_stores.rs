//! One database, two, or none for limits; and what `/-/health` says of them.

use edgeweir::config::Secret;
use edgeweir::gateway::Settings;
use edgeweir::policy::Policy;
use edgeweir::redis::RedisErrorKind;
use serde_json::json;

use super::sim::{Fault, Passage, first_seed};
use super::world::{Ask, World, policy};

fn shop() -> Policy {
    policy(&json!({
        "defaults": { "limit": [], "timeout": { "redis": "150ms", "origin": "2s" } },
        "route": [
            { "name": "book", "match": "GET /books/{id}", "limit": [
                { "name": "burst", "requests": 3, "window": "10s", "by": "ip" } ],
              "cache": { "key": "book:{id}", "ttl": "10m", "tags": ["books"] } },
            { "name": "drop", "match": "DELETE /books/{id}", "purge": { "keys": ["book:{id}"] } },
        ],
    }))
}

/// Two databases: limits in one, the cache in the other, both asked at the same time.
#[test]
fn two_databases_are_asked_at_once_and_hold_their_own() {
    let world = World::with_two_databases(first_seed());
    world.network(|_| Passage::new(20_000, 20_000));
    let isolate = world.isolate(shop());
    isolate.get_settled("/books/1");
    let hit = isolate.get("/books/1");
    assert_eq!(
        (hit.cache_status(), hit.trips, hit.took_us),
        ("edgeweir; hit; ttl=599; detail=l2", 2, 40_000)
    );
    assert_eq!(hit.get("server-timing"), "redis;dur=40");
    let now_us = world.sim.now_us();
    assert!(
        world
            .redis
            .ttls_ms(now_us)
            .keys()
            .all(|key| key.starts_with("ratelimit:"))
    );
    assert!(
        !world
            .cache
            .ttls_ms(now_us)
            .keys()
            .any(|key| key.starts_with("ratelimit:"))
    );
    assert_eq!(world.immortal_keys(), [""; 0]);
    isolate.ask(Ask::new("DELETE", "/books/1"));
    assert_eq!(world.cache.get("book:1"), None);
}

/// Either database may be down alone: the other goes on.
#[test]
fn one_of_two_databases_may_be_down() {
    for is_cache_down in [false, true] {
        let world = World::with_two_databases(first_seed());
        world.network(move |batch| {
            let is_cache = format!("{batch:?}").contains("MGET");
            let fault = match is_cache == is_cache_down {
                true => Fault::Before(RedisErrorKind::Transport),
                false => Fault::None,
            };
            Passage {
                fault,
                ..Passage::new(500, 500)
            }
        });
        let isolate = world.isolate(shop());
        let served: Vec<_> = (0..4).map(|_| isolate.get_settled("/books/1")).collect();
        let statuses: Vec<u16> = served.iter().map(|served| served.status).collect();
        assert_eq!(
            statuses,
            [200, 200, 200, 429],
            "cache down: {is_cache_down}"
        );
    }
}

/// `REDIS` limits switched off: this isolate counts alone and the cache goes on.
#[test]
fn local_limits_need_no_trip() {
    let world = World::new(first_seed());
    let isolate = world.isolate_as(shop(), Settings::default());
    let served: Vec<_> = (0..4).map(|_| isolate.get_settled("/books/1")).collect();
    let statuses: Vec<u16> = served.iter().map(|served| served.status).collect();
    assert_eq!(statuses, [200, 200, 200, 429]);
    assert_eq!((served[1].trips, served[3].trips), (1, 0));
    assert!(served[1].cache_status().contains("hit"));
    let keys = world.redis.ttls_ms(world.sim.now_us());
    assert!(
        !keys.keys().any(|key| key.starts_with("ratelimit:")),
        "{keys:?}"
    );
}

/// Health is open, never limited, and says whether Redis answers.
#[test]
fn health_is_open_and_never_limited() {
    let world = World::with_two_databases(first_seed());
    let settings = Settings {
        admin_token: Some(Secret::new("token")),
        ..Settings::default()
    };
    let isolate = world.isolate_with(shop(), settings);
    for _ in 0..20 {
        let served = isolate.get("/-/health");
        assert_eq!(
            (served.status, served.text()),
            (200, r#"{"cache":"ok","redis":"ok","status":"ok"}"#)
        );
        assert_eq!(served.get("cache-control"), "no-store");
    }
    let head = isolate.ask(Ask::new("HEAD", "/-/health"));
    assert_eq!((head.status, head.body.len()), (200, 0));
    let post = isolate.ask(Ask::new("POST", "/-/health"));
    assert_eq!((post.status, post.get("allow")), (405, "GET, HEAD"));
    world.network(|_| Passage::new(500, 1_000_000));
    let down = isolate.get("/-/health");
    assert_eq!(down.json()["status"], "degraded");
    assert_eq!(
        (down.status, down.json()["redis"].as_str()),
        (200, Some("timeout"))
    );
    assert!(down.redis_us <= 150_000, "{} us", down.redis_us);
}
