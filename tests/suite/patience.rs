//! `patience`: a request that finds a stale entry waits for the origin a little, and no
//! longer; what was begun goes on.

use std::cell::Cell;
use std::rc::Rc;

use edgeweir::policy::Policy;
use serde_json::json;

use super::world::{Ask, Isolate, Says, World, policy};

fn one_listing() -> Policy {
    policy(&json!({
        "defaults": { "limit": [], "timeout": { "redis": "150ms", "origin": "10s" } },
        "route": [
            { "name": "top", "match": "GET /top", "cache": {
                "key": "books:top", "ttl": "1m", "stale": "1h", "tags": ["books"], "patience": "300ms" } },
            { "name": "page", "match": "GET /page", "compose": { "top": "top" } },
        ],
    }))
}

/// A stale entry `{"v":1}`, and an origin whose next answer takes so long.
fn stale(after_ms: u64) -> (Rc<World>, Isolate) {
    let world = World::new(1);
    let version = Cell::new(0);
    world.origin(move |_| {
        version.set(version.get() + 1);
        let after_ms = if version.get() == 1 { 20 } else { after_ms };
        Says::json(&json!({ "v": version.get() })).after(after_ms)
    });
    let isolate = world.isolate(one_listing());
    isolate.get_settled("/top");
    world.pass(61_000);
    (world, isolate)
}

/// An origin that answers in time is what the visitor gets.
#[test]
fn a_quick_origin_is_waited_for() {
    let (world, isolate) = stale(200);
    let served = isolate.get("/top");
    assert_eq!(
        (served.text(), served.cache_status()),
        (r#"{"v":2}"#, "edgeweir; fwd=miss; stored")
    );
    world.settle();
    let served = isolate.get("/top");
    assert_eq!(served.text(), r#"{"v":2}"#);
    assert!(served.cache_status().starts_with("edgeweir; hit; ttl=59"));
    assert_eq!(world.asked_for("/top"), 2);
    assert_eq!(world.immortal_keys(), [""; 0]);
}

/// A slow one is not, and its answer is stored all the same, from the one request.
#[test]
fn a_slow_origin_is_waited_for_no_longer_than_patience() {
    let (world, isolate) = stale(4_000);
    let served = isolate.get("/top");
    assert_eq!(served.text(), r#"{"v":1}"#);
    assert!(
        served.cache_status().contains("detail=stale"),
        "{}",
        served.cache_status()
    );
    assert!(
        (300_000..310_000).contains(&served.took_us),
        "{}",
        served.took_us
    );
    // Also when nobody asks any more.
    world.settle();
    let served = isolate.get("/top");
    assert_eq!(served.text(), r#"{"v":2}"#);
    assert_eq!(world.asked_for("/top"), 2);
}

/// Of a crowd one asks; the others wait for it as long, here and in other isolates.
#[test]
fn a_crowd_asks_once_and_waits_no_longer() {
    for (after_ms, body) in [(200, r#"{"v":2}"#), (2_000, r#"{"v":1}"#)] {
        let (world, isolate) = stale(after_ms);
        let other = world.isolate(one_listing());
        let slots: Vec<_> = (0..60)
            .map(|n| [&isolate, &other][n % 2].send(Ask::get("/top")).1)
            .collect();
        for (n, slot) in slots.into_iter().enumerate() {
            let served = world.sim.block_on(slot.wait());
            assert_eq!(served.status, 200);
            assert!(served.took_us < 400_000, "{}", served.took_us);
            if n % 2 == 0 {
                assert_eq!(served.text(), body);
            }
        }
        world.settle();
        assert_eq!(world.asked_for("/top"), 2);
    }
}

/// An origin that fails is known before patience ends, and the stale entry stays.
#[test]
fn an_origin_that_fails_costs_no_more_than_it_takes() {
    for (says, most_us) in [
        (Says::refused().after(50), 100_000),
        (Says::new(503, "{}"), 100_000),
        (Says::new(200, "{}").after(60_000), 310_000),
    ] {
        let (world, isolate) = stale(20);
        world.origin(move |_| says.clone());
        let served = isolate.get("/top");
        assert_eq!(served.text(), r#"{"v":1}"#);
        assert!(served.took_us < most_us, "{}", served.took_us);
        world.settle();
        assert!(world.redis.get("books:top").is_some());
    }
}

/// A part of a composed answer is waited for like the listing itself.
#[test]
fn a_part_is_waited_for_too() {
    let (world, isolate) = stale(200);
    assert_eq!(isolate.get("/page").text(), r#"{"top":{"v":2}}"#);
    world.settle();
    let (world, isolate) = stale(2_000);
    let served = isolate.get("/page");
    assert_eq!(served.text(), r#"{"top":{"v":1}}"#);
    assert!(served.took_us < 400_000);
    world.settle();
    assert_eq!(isolate.get("/page").text(), r#"{"top":{"v":2}}"#);
}
