//! One database, two, or none for limits; and what `/-/health` says of them.

use edgeweir::config::Secret;
use edgeweir::gateway::Settings;
use edgeweir::policy::Policy;
use edgeweir::redis::RedisErrorKind;
use serde_json::json;

use super::sim::{Fault, Passage, first_seed};
use super::world::{Ask, Isolate, Says, World, policy};

fn shop() -> Policy {
    policy(&json!({
        "defaults": { "limit": [], "timeout": { "redis": "150ms", "origin": "2s" } },
        "route": [
            { "name": "book", "match": "GET /books/{id}", "limit": [
                { "name": "burst", "requests": 3, "window": "10s", "by": "ip" } ],
              "cache": { "key": "book:{id}", "ttl": "10m", "tags": ["books"] } },
            { "name": "drop", "match": "DELETE /books/{id}", "limit": [
                { "name": "writes", "requests": 3, "window": "10s", "by": "ip" } ],
              "purge": { "keys": ["book:{id}"] } },
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

/// The first version of a book, then the next one with each fetch.
fn count_versions(world: &World) {
    let mut version = 0;
    world.origin(move |asked| {
        version += u32::from(asked.method == "GET");
        Says::json(&json!(version))
    });
}

/// Limits that hang, or whose breaker is open: a listing is still a hit, and what a
/// write purges is gone before the writer has its answer.
#[test]
fn the_cache_is_asked_although_the_limits_are_down() {
    let open = Passage {
        fault: Fault::Before(RedisErrorKind::Open),
        ..Passage::new(0, 0)
    };
    for down in [open, Passage::new(500, 10_000_000)] {
        let world = World::with_two_databases(first_seed());
        count_versions(&world);
        let (isolate, other) = (world.isolate(shop()), world.isolate(shop()));
        assert_eq!(isolate.get_settled("/books/1").text(), "1");
        let passage = down.clone();
        world.network(move |_| passage.clone());
        world.cache_network(|_| Passage::new(500, 500));
        let hit = isolate.get_settled("/books/1");
        assert!(
            hit.cache_status().starts_with("edgeweir; hit"),
            "{down:?}: {}",
            hit.cache_status()
        );
        let write = isolate.ask(Ask::new("DELETE", "/books/1"));
        assert_eq!(write.status, 200, "{down:?}");
        assert_eq!(world.cache.get("book:1"), None, "{down:?}");
        let next = other.get("/books/1");
        assert_eq!(
            (next.text(), next.cache_status()),
            ("2", "edgeweir; fwd=miss; stored"),
            "{down:?}"
        );
    }
}

/// A cache that is down keeps no refused charge from being given back: the window holds
/// what was admitted, and `Retry-After` does not move.
#[test]
fn refused_charges_are_given_back_although_the_cache_is_down() {
    let world = World::with_two_databases(first_seed());
    world.cache_network(|_| Passage {
        fault: Fault::Before(RedisErrorKind::Transport),
        ..Passage::new(100, 100)
    });
    let isolate = world.isolate(shop());
    for _ in 0..3 {
        assert_eq!(isolate.get_settled("/books/1").status, 200);
    }
    let wait_s = |isolate: &Isolate| {
        let refused = isolate.get_settled("/books/1");
        assert_eq!(refused.status, 429);
        refused.get("retry-after").parse::<u64>().unwrap()
    };
    let named_s = wait_s(&isolate);
    for passed_s in 1..named_s {
        world.pass(1_000);
        // One that has no refusal of its own to repeat.
        let left_s = wait_s(&world.isolate(shop()));
        assert!(
            passed_s + left_s <= named_s,
            "{left_s} s after {passed_s} s"
        );
    }
    let keys = world.redis.ttls_ms(world.sim.now_us());
    let counts = keys.keys().filter_map(|key| world.redis.get(key));
    let totals: Vec<u32> = counts
        .map(|bytes| u32::from_be_bytes(bytes[..4].try_into().unwrap()))
        .collect();
    assert_eq!(totals.iter().sum::<u32>(), 3, "{totals:?}");
    world.pass(1_000);
    assert_eq!(isolate.get_settled("/books/1").status, 200);
}

/// No Redis at all is nothing that fails: nobody is asked, nothing is logged, listings
/// come from the origin, and this isolate counts alone.
#[test]
fn without_redis_nothing_is_asked_and_nothing_is_wrong() {
    let world = World::new(first_seed());
    let settings = Settings {
        without_redis: true,
        ..Settings::default()
    };
    let isolate = world.isolate_as(shop(), settings);
    let health = isolate.get("/-/health");
    assert_eq!(
        (health.status, health.text()),
        (200, r#"{"redis":"disabled","status":"ok"}"#)
    );
    assert!(!health.headers.contains("server-timing"));
    for left in [2, 1, 0] {
        let served = isolate.get_settled("/books/1");
        assert_eq!(
            (served.status, served.cache_status(), served.trips),
            (200, "edgeweir; fwd=miss; detail=redis", 0)
        );
        assert_eq!(served.get("server-timing"), "origin;dur=20");
        assert_eq!(served.get("x-ratelimit-remaining"), left.to_string());
    }
    assert_eq!(isolate.get_settled("/books/1").status, 429);
    let written = isolate.ask(Ask::new("DELETE", "/books/1"));
    assert_eq!((written.status, written.trips), (200, 0));
    let begun_us = world.sim.now_us();
    world.settle();
    assert_eq!(world.sim.now_us(), begun_us, "nothing is tried again");
    assert_eq!(*world.log.borrow(), [""; 0]);
    assert_eq!(world.redis.trips.get(), 0);
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

/// Entries that are too large for one answer take nobody's limits out of Redis.
#[test]
fn a_too_large_entry_leaves_the_limits_in_redis() {
    let world = World::new(first_seed());
    world.network(|batch| {
        let text = format!("{batch:?}");
        let fault = match text.contains("MGET") && text.contains("BITFIELD") {
            true => Fault::After(RedisErrorKind::TooLarge),
            false => Fault::None,
        };
        Passage {
            fault,
            ..Passage::new(500, 500)
        }
    });
    let statuses: Vec<u16> = (0..4)
        .flat_map(|_| {
            let isolate = world.isolate(shop());
            (0..5).map(move |_| isolate.get_settled("/books/1").status)
        })
        .collect();
    let admitted = statuses.iter().filter(|status| **status == 200).count();
    assert!((1..=3).contains(&admitted), "{statuses:?}");
}
