//! L1 in the whole gateway: which hits cost no trip, which move no body, and what a purge
//! does to either.

use std::rc::Rc;

use edgeweir::policy::Policy;
use edgeweir::redis::RedisErrorKind;
use serde_json::{Value, json};

use super::sim::{Fault, Passage, first_seed};
use super::world::{Ask, Isolate, Says, Served, World, policy};

fn shop() -> Policy {
    let plain = json!([{ "name": "plain", "requests": 1000, "window": "60s", "by": "ip" }]);
    let leased = json!([{ "name": "leased", "requests": 100_000, "window": "1h", "by": "ip", "lease": true }]);
    let cache = |name: &str, more: Value| {
        let mut cache = json!({ "key": format!("{name}:{{id}}"), "ttl": "10m", "stale": "5m",
            "negative": "1m", "tags": ["items", format!("{name}:{{id}}")] });
        for (field, value) in more.as_object().unwrap() {
            cache[field] = value.clone();
        }
        cache
    };
    policy(&json!({
        "defaults": { "limit": [], "timeout": { "redis": "150ms", "origin": "2s" } },
        "route": [
            { "name": "plain", "match": "GET /plain/{id}", "limit": plain, "cache": cache("plain", json!({})) },
            { "name": "leased", "match": "GET /leased/{id}", "limit": leased, "cache": cache("leased", json!({})) },
            { "name": "off", "match": "GET /off/{id}", "limit": leased, "cache": cache("off", json!({ "l1": "0s" })) },
            { "name": "free", "match": "GET /free/{id}", "cache": cache("free", json!({})) },
            { "name": "asked", "match": "GET /asked/{id}", "cache": cache("asked", json!({ "l1": "5s" })) },
            { "name": "page", "match": "GET /page", "compose": {
                "a": { "route": "asked", "each": { "id": ["1", "2"] } },
                "b": { "route": "asked", "each": { "id": ["3"] } } } },
            { "name": "write", "match": "PUT /items/{id}", "purge": { "tags": ["items"] } },
            { "name": "drop", "match": "DELETE /asked/{id}", "purge": { "keys": ["asked:{id}"] } },
        ],
    }))
}

const LONG: usize = 40_000;

/// An origin whose bodies have a version, and a long one for the id `long`.
fn world() -> (Rc<World>, Isolate) {
    let world = World::new(first_seed());
    let mut version = 0;
    world.origin(move |asked| {
        version += 1;
        let padding = match asked.target.ends_with("long") {
            true => " ".repeat(LONG),
            false => String::new(),
        };
        Says::new(200, format!("{{\"v\":{version}}}{padding}"))
    });
    let isolate = world.isolate(shop());
    (world, isolate)
}

fn detail(served: &Served) -> &str {
    let status = served.cache_status();
    status.rsplit("detail=").next().unwrap_or(status)
}

fn version(served: &Served) -> u64 {
    served.json()["v"].as_u64().unwrap()
}

/// Asks until the isolate has leases enough and its own copy.
fn warm(world: &World, isolate: &Isolate, target: &str) {
    for _ in 0..40 {
        isolate.get_settled(target);
    }
    world.settle();
}

fn down(_: &edgeweir::redis::Batch) -> Passage {
    Passage {
        fault: Fault::Before(RedisErrorKind::Transport),
        ..Passage::new(500, 500)
    }
}

/// On a route whose limits are leased a hot hit costs no trip, with the right age and
/// time left; `l1` after Redis confirmed it one asks again.
#[test]
fn a_hot_hit_on_a_leased_route_costs_no_trip() {
    let (world, isolate) = world();
    warm(&world, &isolate, "/leased/1");
    world.pass(1_000);
    let read = isolate.get_settled("/leased/1");
    assert_eq!((detail(&read), read.trips), ("l2", 1));
    let trips = world.redis.trips.get();
    for _ in 0..50 {
        let hit = isolate.get_settled("/leased/1");
        assert_eq!((hit.status, detail(&hit), hit.trips), (200, "l1", 0));
        assert_eq!(
            (hit.text(), hit.get("etag")),
            (read.text(), read.get("etag"))
        );
        assert_eq!(
            (hit.get("age"), hit.get("server-timing")),
            (read.get("age"), "")
        );
        assert!(!hit.get("ratelimit").is_empty());
    }
    let same = isolate.ask(Ask::get("/leased/1").header("if-none-match", read.get("etag")));
    assert_eq!((same.status, same.trips), (304, 0));
    assert_eq!(isolate.ask(Ask::new("HEAD", "/leased/1")).trips, 0);
    assert_eq!(world.redis.trips.get(), trips);
    world.pass(1_000);
    let again = isolate.get_settled("/leased/1");
    assert_eq!((detail(&again), again.trips), ("l2", 1));
    assert_eq!(again.cache_status(), "edgeweir; hit; ttl=597; detail=l2");
    assert_eq!(world.asked_for("/leased/1"), 1);
}

/// `l1 = "0s"` keeps nothing. Without limits nothing is trusted unless the policy says so:
/// no default makes a backend's purge late there.
#[test]
fn l1_is_off_where_the_policy_says_so_or_has_no_limits() {
    let (world, isolate) = world();
    for target in ["/off/1", "/free/1"] {
        warm(&world, &isolate, target);
        let hit = isolate.get_settled(target);
        assert_eq!((detail(&hit), hit.trips), ("l2", 1), "{target}");
    }
    warm(&world, &isolate, "/asked/1");
    let hit = isolate.get_settled("/asked/1");
    assert_eq!((detail(&hit), hit.trips), ("l1", 0));
}

/// When the limits need a trip, a long body is validated in it: it does not move, and
/// every change of it is noticed at once.
#[test]
fn a_long_body_is_validated_and_not_moved() {
    let (world, isolate) = world();
    isolate.get_settled("/plain/long");
    for expected in ["l2", "l2", "l1", "l1"] {
        let hit = isolate.get_settled("/plain/long");
        assert_eq!(
            (detail(&hit), hit.trips, hit.body.len()),
            (expected, 1, LONG + 7)
        );
    }
    let bodies = world.redis.ran.borrow().len();
    isolate.get_settled("/plain/long");
    let ran = world.redis.ran.borrow()[bodies..].to_vec();
    let asks_for = |key: &str| {
        ran.iter()
            .any(|ran| ran.words.iter().any(|word| word == key))
    };
    assert!(asks_for("gen:items") && asks_for("PEXPIRETIME") && !asks_for("meta:plain:long"));
    // Longer than any trust: it is validated all the same.
    world.pass(20_000);
    assert_eq!(detail(&isolate.get_settled("/plain/long")), "l1");

    let now_us = || world.sim.now_us();
    // A backend's purge of a tag, its own value in the place of ours, and DEL.
    (world.redis).set_px(now_us(), "gen:items", "a-backends-uuid", 172_800_000);
    assert_eq!(version(&isolate.get_settled("/plain/long")), 2);
    for _ in 0..3 {
        isolate.get_settled("/plain/long");
    }
    assert_eq!(detail(&isolate.get_settled("/plain/long")), "l1");
    (world.redis).set_px(now_us(), "plain:long", "{\"v\":77}", 600_000);
    let theirs = isolate.get_settled("/plain/long");
    assert_eq!(
        (version(&theirs), detail(&theirs), theirs.trips),
        (77, "l2", 3)
    );
    world.redis.evict("plain:long");
    assert_eq!(version(&isolate.get_settled("/plain/long")), 3);
    for _ in 0..3 {
        isolate.get_settled("/plain/long");
    }
    assert_eq!(detail(&isolate.get_settled("/plain/long")), "l1");
    world.redis.evict("plain:long");
    let missed = isolate.get_settled("/plain/long");
    assert_eq!(
        (version(&missed), missed.cache_status()),
        (4, "edgeweir; fwd=miss; stored")
    );
}

/// A short body is read whole with one command, as without L1.
#[test]
fn a_short_body_is_read_whole() {
    let (world, isolate) = world();
    isolate.get_settled("/plain/1");
    let filled = world.redis.ran.borrow().len();
    isolate.get_settled("/plain/1");
    let ran = world.redis.ran.borrow();
    assert!(
        !ran[filled..]
            .iter()
            .any(|ran| ran.words[0] == "PEXPIRETIME")
    );
    drop(ran);
    (world.redis).set_px(world.sim.now_us(), "plain:1", "{\"v\":9}", 600_000);
    assert_eq!(version(&isolate.get_settled("/plain/1")), 9);
}

/// A value of another service is never kept: `DEL` ends it at once.
#[test]
fn another_services_value_is_not_kept() {
    let (world, isolate) = world();
    (world.redis).set_px(world.sim.now_us(), "asked:1", "{\"v\":9}", 600_000);
    for _ in 0..3 {
        let hit = isolate.get_settled("/asked/1");
        assert_eq!((version(&hit), detail(&hit)), (9, "l2"));
    }
    world.redis.evict("asked:1");
    assert_eq!(version(&isolate.get_settled("/asked/1")), 1);
}

/// A purge through this isolate holds when it is answered; one elsewhere after `l1`.
#[test]
fn a_purge_here_holds_at_once_and_one_elsewhere_after_l1() {
    let (world, isolate) = world();
    let other = world.isolate(shop());
    for purge in [Ask::new("PUT", "/items/1"), Ask::new("DELETE", "/asked/1")] {
        warm(&world, &isolate, "/asked/1");
        let before = isolate.get_settled("/asked/1");
        assert_eq!(detail(&before), "l1");
        isolate.ask(purge.clone());
        let after = isolate.get_settled("/asked/1");
        assert!(version(&after) > version(&before), "{purge:?}");
        warm(&world, &isolate, "/asked/1");
        world.pass(5_000);
        let read_ms = world.now_ms();
        let before = isolate.get_settled("/asked/1");
        assert_eq!(detail(&before), "l2");
        other.ask(purge.clone());
        let late = isolate.get_settled("/asked/1");
        assert_eq!((version(&late), detail(&late)), (version(&before), "l1"));
        world.pass(read_ms + 5_000 - world.now_ms());
        assert!(version(&isolate.get_settled("/asked/1")) > version(&before));
    }
}

/// A reading that Redis answered before the purge ran, and that comes back after it was
/// answered, is not trusted.
#[test]
fn a_reading_under_way_does_not_bring_back_what_was_purged() {
    let (world, isolate) = world();
    isolate.get_settled("/asked/1");
    // The reading's answer is slow, the purge's is not.
    world.network(|_| Passage::new(500, 100_000));
    let (_, slow) = isolate.send(Ask::get("/asked/1"));
    world.pass(5);
    world.network(|_| Passage::new(500, 500));
    assert_eq!(isolate.ask(Ask::new("PUT", "/items/1")).status, 200);
    assert_eq!(version(&world.sim.block_on(slow.wait())), 1);
    let next = isolate.get_settled("/asked/1");
    assert_eq!(
        (version(&next), next.cache_status()),
        (3, "edgeweir; fwd=miss; stored")
    );
}

/// Parts of a page come from L1 too; what it does not have is read in one trip.
#[test]
fn a_page_is_made_of_l1_entries() {
    let (world, isolate) = world();
    isolate.get_settled("/page");
    let read = isolate.get_settled("/page");
    assert_eq!((detail(&read), read.trips), ("l2", 1));
    let hit = isolate.get_settled("/page");
    assert_eq!(
        (detail(&hit), hit.trips, hit.text()),
        ("l1", 0, read.text())
    );
    let at = world.redis.ran.borrow().len();
    isolate.ask(Ask::new("DELETE", "/asked/2"));
    let mixed = isolate.get_settled("/page");
    assert_eq!(mixed.cache_status(), "edgeweir; fwd=miss; stored");
    let ran = world.redis.ran.borrow();
    let reads = |key: &str| {
        let mut ran = ran[at..].iter();
        ran.any(|ran| ran.words[0] == "MGET" && ran.words.iter().any(|word| word == key))
    };
    assert!(reads("asked:2") && !reads("asked:1") && !reads("asked:3"));
    assert_eq!(world.asked_for("/asked/1"), 1);
}

/// While Redis does not answer an isolate goes on with what it has for `l1`, then asks the
/// origin; when that fails too it serves what it had, for a minute at most.
#[test]
fn without_redis_the_origin_is_asked_and_l1_is_the_last_resort() {
    let (world, isolate) = world();
    isolate.get_settled("/plain/1");
    isolate.get_settled("/plain/1");
    world.network(down);
    assert_eq!(detail(&isolate.get_settled("/plain/1")), "l1");
    world.pass(1_000);
    let own = isolate.get_settled("/plain/1");
    assert_eq!(
        (version(&own), own.cache_status()),
        (2, "edgeweir; fwd=miss; detail=redis")
    );
    world.origin(|_| Says::refused());
    let kept = isolate.get_settled("/plain/1");
    assert_eq!(
        (kept.status, version(&kept), detail(&kept)),
        (200, 1, "last-resort")
    );
    assert_eq!(
        kept.cache_status(),
        "edgeweir; hit; ttl=598; detail=last-resort"
    );
    world.pass(60_000);
    assert_eq!(isolate.get_settled("/plain/1").status, 502);
}

/// The same after a purge through this isolate that Redis did not get: nothing old is
/// served, not even as a last resort, until it is through and after.
#[test]
fn a_purge_that_redis_did_not_get_hides_it_all_the_same() {
    let (world, isolate) = world();
    warm(&world, &isolate, "/asked/1");
    assert_eq!(detail(&isolate.get_settled("/asked/1")), "l1");
    world.network(down);
    let (_, _purge) = isolate.send(Ask::new("PUT", "/items/1"));
    world.pass(100);
    let own = isolate.get("/asked/1");
    assert_eq!(own.cache_status(), "edgeweir; fwd=miss; detail=redis");
    world.origin(|_| Says::refused());
    assert_eq!(isolate.get("/asked/1").status, 502);
    world.network(|_| Passage::new(500, 500));
    // Redis is back, the purge is not through yet.
    assert_eq!(isolate.get("/asked/1").status, 502);
    world.settle();
    assert_eq!(isolate.get("/asked/1").status, 502);
}

/// A wrong or late clock: set back, an isolate trusts nothing until it has asked again.
#[test]
fn entries_that_are_over_or_stale_go_the_usual_way() {
    let (world, isolate) = world();
    warm(&world, &isolate, "/asked/1");
    world.pass(600_000);
    let stale = isolate.get_settled("/asked/1");
    assert!(
        stale.cache_status().contains("detail=stale"),
        "{}",
        stale.cache_status()
    );
    assert_eq!(stale.trips, 1);
    assert_eq!(version(&isolate.get_settled("/asked/1")), 2);
}

/// Negative entries are kept for their time like others; what may not be stored never is.
#[test]
fn negative_entries_are_kept_and_what_is_not_stored_is_not() {
    let (world, isolate) = world();
    world.origin(|_| Says::new(404, "{}"));
    isolate.get_settled("/asked/1");
    isolate.get_settled("/asked/1");
    let hit = isolate.get_settled("/asked/1");
    assert_eq!((hit.status, detail(&hit), hit.trips), (404, "l1", 0));
    world.origin(|_| Says::new(200, "{}").header("set-cookie", "a=b"));
    for _ in 0..3 {
        let own = isolate.get_settled("/asked/2");
        assert!(
            own.cache_status().contains("fwd=miss"),
            "{}",
            own.cache_status()
        );
        assert_eq!(own.get("set-cookie"), "a=b");
    }
}
