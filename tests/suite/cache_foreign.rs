//! Values that other services put under our keys, and what they find under them.

use std::rc::Rc;

use edgeweir::policy::Policy;
use edgeweir::redis::Command;
use serde_json::{Value, json};

use super::sim::{Passage, first_seed};
use super::world::{Ask, Isolate, Says, World, policy};

fn shop() -> Policy {
    policy(&json!({
        "defaults": { "limit": [], "timeout": { "redis": "150ms", "origin": "2s" } },
        "route": [
            { "name": "today", "match": "GET /today", "cache": {
                "key": "books:today", "ttl": "10m", "stale": "5m", "tags": ["books"] } },
            { "name": "drop", "match": "DELETE /today", "purge": { "keys": ["books:today"] } },
        ],
    }))
}

fn world() -> (Rc<World>, Isolate) {
    let world = World::new(first_seed());
    world.origin(|_| Says::json(&json!("from the origin")));
    let isolate = world.isolate(shop());
    (world, isolate)
}

fn setex(world: &World, value: &str, ttl_ms: u64) {
    world
        .redis
        .set_px(world.sim.now_us(), "books:today", value, ttl_ms);
}

/// Served as it is for its remaining time, which is asked for once.
#[test]
fn a_value_of_another_service_is_served_for_its_remaining_time() {
    let (world, isolate) = world();
    setex(&world, " [1]\n", 900_000);
    world.pass(100_000);
    let first = isolate.get_settled("/today");
    assert_eq!(
        (first.status, first.text(), first.trips),
        (200, " [1]\n", 2)
    );
    assert_eq!(first.cache_status(), "edgeweir; hit; ttl=799; detail=l2");
    assert_eq!(
        (first.get("content-type"), first.get("age")),
        ("application/json", "0")
    );
    world.pass(300_000);
    let second = isolate.get("/today");
    assert_eq!((second.text(), second.trips), (" [1]\n", 1));
    assert_eq!(second.cache_status(), "edgeweir; hit; ttl=499; detail=l2");
    assert_eq!(second.get("age"), "300");
    let same = isolate.ask(Ask::get("/today").header("if-none-match", first.get("etag")));
    assert_eq!(same.status, 304);
    world.pass(500_000);
    assert_eq!(isolate.get_settled("/today").text(), "\"from the origin\"");
}

/// A new value, a longer time and no time at all are noticed.
#[test]
fn a_new_value_of_another_service_is_noticed() {
    let (world, isolate) = world();
    setex(&world, "[1]", 10_000);
    assert_eq!(isolate.get_settled("/today").text(), "[1]");
    setex(&world, "[2]", 60_000);
    let new = isolate.get_settled("/today");
    assert_eq!(
        (new.text(), new.cache_status()),
        ("[2]", "edgeweir; hit; ttl=59; detail=l2")
    );
    setex(&world, "[2]", 120_000);
    world.pass(60_000);
    let longer = isolate.get_settled("/today");
    assert_eq!(
        (longer.text(), longer.cache_status()),
        ("[2]", "edgeweir; hit; ttl=59; detail=l2")
    );
    world.redis.set("books:today", "[3]");
    let endless = isolate.get_settled("/today");
    assert_eq!(
        (endless.text(), endless.cache_status()),
        ("[3]", "edgeweir; hit; ttl=600; detail=l2")
    );
}

/// `DEL` by the service, or a purge by key, ends it at once.
#[test]
fn a_value_of_another_service_is_purged_by_its_key() {
    let (world, isolate) = world();
    setex(&world, "[1]", 60_000);
    assert_eq!(isolate.get_settled("/today").text(), "[1]");
    world.redis.evict("books:today");
    assert_eq!(isolate.get_settled("/today").text(), "\"from the origin\"");
    setex(&world, "[1]", 60_000);
    assert_eq!(isolate.get_settled("/today").text(), "[1]");
    assert_eq!(isolate.ask(Ask::new("DELETE", "/today")).status, 200);
    assert_eq!(isolate.get_settled("/today").text(), "\"from the origin\"");
}

/// What a backend reads under the key is the origin's JSON, byte for byte.
#[test]
fn backends_find_the_origins_json_under_the_key() {
    let body = "{\"a\": \"\u{e9}\\u0000\",\n  \"n\": 1.50 }";
    let (world, isolate) = world();
    world.origin(move |_| Says::new(200, body));
    isolate.get_settled("/today");
    assert_eq!(
        world.redis.get("books:today").as_deref(),
        Some(body.as_bytes())
    );
    let meta: Value =
        serde_json::from_slice(&world.redis.get("meta:books:today").unwrap()).unwrap();
    assert_eq!(
        (meta["origin"].as_str(), meta["status"].as_u64()),
        (Some("edge"), Some(200))
    );
    let ttls = world.redis.ttls_ms(world.sim.now_us());
    let left_ms = |key: &str| ttls[key].unwrap();
    assert!(left_ms("books:today") <= 900_000 && left_ms("books:today") > 899_000);
    assert!(
        left_ms("meta:books:today") > left_ms("books:today"),
        "a body outlives its record"
    );
    for generation in ["gen:key:books:today", "gen:books"] {
        assert!(
            left_ms(generation) > left_ms("meta:books:today"),
            "{generation}"
        );
    }
}

/// A backend's own purge of a tag, `SET gen:{tag} <uuid> EX 172800`, ends our entry and
/// defeats a fill under way.
#[test]
fn a_backends_purge_of_a_tag_defeats_a_fill_under_way() {
    let (world, isolate) = world();
    let mut version = 0;
    world.origin(move |_| {
        version += 1;
        Says::json(&json!(version)).after(500)
    });
    let (_, slow) = isolate.send(Ask::get("/today"));
    world.pass(100);
    let now_us = world.sim.now_us();
    world
        .redis
        .set_px(now_us, "gen:books", "5b0f1d4e-uuid", 172_800_000);
    // Nobody who comes now waits for the old fill.
    let next = isolate.get("/today");
    assert_eq!(
        (next.text(), next.cache_status()),
        ("2", "edgeweir; fwd=miss; stored")
    );
    assert_eq!(world.sim.block_on(slow.wait()).text(), "1");
    world.settle();
    assert_eq!(world.redis.get("books:today").as_deref(), Some(&b"2"[..]));
    assert_eq!(isolate.get("/today").text(), "2");
}

/// A fill during which something was purged writes nothing under the key that others
/// read, whether or not a newer entry is there; one during which nothing was does.
#[test]
fn a_fill_that_a_purge_has_overtaken_writes_nothing() {
    for (is_purged, is_asked_again, expected) in [
        (false, false, Some("1")),
        (true, false, None),
        (true, true, Some("2")),
    ] {
        let (world, isolate) = world();
        let mut version = 0;
        world.origin(move |_| {
            version += 1;
            Says::json(&json!(version)).after(if version == 1 { 500 } else { 20 })
        });
        let (_, slow) = isolate.send(Ask::get("/today"));
        world.pass(100);
        if is_purged {
            let now_us = world.sim.now_us();
            (world.redis).set_px(now_us, "gen:books", "a-new-one", 172_800_000);
        }
        if is_asked_again {
            assert_eq!(isolate.get("/today").text(), "2");
        }
        assert_eq!(world.sim.block_on(slow.wait()).text(), "1");
        world.settle();
        let held = world.redis.get("books:today");
        assert_eq!(
            held.as_deref(),
            expected.map(str::as_bytes),
            "purged: {is_purged}, asked again: {is_asked_again}"
        );
        let ttls = world.redis.ttls_ms(world.sim.now_us());
        let has_lock = ttls.keys().any(|key| key.starts_with("fill:"));
        assert!(!has_lock, "nobody waits for a fill that is over: {ttls:?}");
    }
}

/// A refresh that ends the stale entry, because its answer may not be stored, leaves a
/// newer one alone that came after a purge.
#[test]
fn a_refresh_that_a_purge_has_overtaken_deletes_nothing() {
    let (world, isolate) = world();
    assert_eq!(isolate.get_settled("/today").status, 200);
    world.pass(601_000);
    let mut asked = 0;
    world.origin(move |_| {
        asked += 1;
        match asked {
            1 => Says::new(404, "{}").after(500),
            _ => Says::json(&json!("newer")),
        }
    });
    assert!(isolate.get("/today").cache_status().contains("stale"));
    world.pass(100);
    let now_us = world.sim.now_us();
    (world.redis).set_px(now_us, "gen:books", "a-new-one", 172_800_000);
    assert_eq!(
        world.isolate(shop()).get("/today").cache_status(),
        "edgeweir; fwd=miss; stored"
    );
    world.settle();
    assert_eq!(
        world.redis.get("books:today").as_deref(),
        Some(&b"\"newer\""[..])
    );
}

/// A value that another service puts there after the lookup and before the lock is
/// served, and stays: to a visitor who found nothing, and by a refresh.
#[test]
fn a_value_that_comes_before_the_lock_is_served_and_kept() {
    for is_refresh in [false, true] {
        let (world, isolate) = world();
        if is_refresh {
            isolate.get_settled("/today");
            world.pass(600_500);
            world.asked.borrow_mut().clear();
        }
        let service = world.clone();
        world.network(move |batch| {
            if format!("{batch:?}").contains("\"fill:") {
                setex(&service, "\"cron\"", 900_000);
            }
            Passage::new(500, 500)
        });
        let served = isolate.get_settled("/today");
        let (text, status) = match is_refresh {
            true => ("\"from the origin\"", "edgeweir; hit; ttl=-1; detail=stale"),
            false => ("\"cron\"", "edgeweir; fwd=miss; collapsed"),
        };
        assert_eq!((served.text(), served.cache_status()), (text, status));
        assert_eq!(world.asked.borrow().len(), 0);
        assert_eq!(isolate.get_settled("/today").text(), "\"cron\"");
    }
}

/// What was learnt of another service's value must not outlive it: an entry that we put
/// in its place in the meantime is still purged by its tags.
#[test]
fn an_entry_in_the_place_of_another_services_value_is_purged_by_tags() {
    let (world, isolate) = world();
    let other = world.isolate(shop());
    setex(&world, "\"from the origin\"", 60_000);
    // Everything that follows from this answer is slow.
    let mut trips = 0;
    world.network(move |_| {
        trips += 1;
        Passage::new(if trips > 2 { 1_000_000 } else { 500 }, 500)
    });
    assert_eq!(isolate.get("/today").text(), "\"from the origin\"");
    world.network(|_| Passage::new(500, 500));
    world.redis.evict("books:today");
    assert_eq!(
        other.get("/today").cache_status(),
        "edgeweir; fwd=miss; stored"
    );
    world.settle();
    world.pass(2_000);
    world
        .redis
        .set_px(world.sim.now_us(), "gen:books", "a-new-one", 172_800_000);
    assert_eq!(
        isolate.get_settled("/today").cache_status(),
        "edgeweir; fwd=miss; stored"
    );
    assert_eq!(world.asked_for("/today"), 2);
}

/// A refresh whose answer ends the stale entry leaves alone what another service has
/// put in its place meanwhile.
#[test]
fn a_refresh_ends_no_value_of_another_service() {
    let world = World::new(first_seed());
    let isolate = world.isolate(policy(&json!({
        "defaults": { "limit": [], "timeout": { "redis": "150ms", "origin": "2s" } },
        "route": [{ "name": "top", "match": "GET /top", "cache": {
            "key": "top", "ttl": "1m", "stale": "1m" } }],
    })));
    isolate.get_settled("/top");
    world.pass(61_000);
    world.origin(|_| Says::new(404, "{}").after(500));
    assert!(isolate.get("/top").cache_status().contains("stale"));
    world.pass(200);
    let put = Command::new("SET").arg("top").arg(r#"{"by":"cron"}"#);
    let put = put.arg("EX").arg(600_u64);
    world.redis.run(world.sim.now_us(), 0, &put);
    world.settle();
    assert_eq!(
        world.redis.get("top").as_deref(),
        Some(&br#"{"by":"cron"}"#[..])
    );
}

/// A database that evicts may drop an entry's record and keep its body: it is not taken for another service's value, which
/// no tag would purge.
#[test]
fn a_body_whose_record_was_evicted_is_a_miss() {
    let (world, isolate) = world();
    let other = world.isolate(shop());
    for ttl_ms in [0, 1, 499, 777, 998] {
        world.pass(1_000_000 + ttl_ms);
        isolate.get_settled("/today");
        assert!(isolate.get("/today").cache_status().contains("; hit"));
        world.redis.evict("meta:books:today");
        let asked = world.asked_for("/today");
        let first = other.get_settled("/today");
        assert!(first.cache_status().contains("fwd=miss"), "at {ttl_ms}");
        assert!(isolate.get("/today").cache_status().contains("; hit"));
        assert_eq!(world.asked_for("/today"), asked + 1, "at {ttl_ms}");
    }
}
