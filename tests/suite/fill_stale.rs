//! Stale entries: served while one request refreshes them and while the origin fails,
//! and ended by an origin that is well.

use std::cell::Cell;
use std::rc::Rc;

use serde_json::json;

use super::fill_failure::{BODY, world_with};
use super::world::{Ask, Isolate, Says, World};

/// An origin that is well and says what may not be stored ends a stale entry: it is for
/// one that fails.
#[test]
fn a_stale_entry_ends_when_its_refresh_may_not_be_stored() {
    for says in [
        Says::new(404, "{}"),
        Says::new(301, ""),
        Says::new(200, "not json"),
        Says::new(200, BODY).header("set-cookie", "a=b"),
        Says::new(200, BODY).header("cache-control", "private"),
    ] {
        let (world, one, _) = world_with(|| Says::json(&json!({ "v": 1 })));
        stale(&world, &one);
        let script = says.clone();
        world.origin(move |_| script.clone());
        assert_eq!(one.get_settled("/top").json()["v"].as_u64(), Some(1));
        let after = one.get_settled("/top");
        assert_eq!((after.status, &after.body), (says.status, &says.body));
        assert_eq!(world.redis.get("top:all"), None, "{says:?}");
    }
}

/// Fills an entry and lets its freshness end.
fn stale(world: &World, isolate: &Isolate) {
    assert_eq!(
        isolate.get_settled("/top").cache_status(),
        "edgeweir; fwd=miss; stored"
    );
    world.pass(60_000);
    world.asked.borrow_mut().clear();
}

/// A stale entry is served at once to everybody while one request refreshes it.
#[test]
fn a_stale_entry_is_served_while_one_refreshes_it() {
    let versions = Rc::new(Cell::new(0));
    let version = versions.clone();
    let (world, one, other) = world_with(move || {
        version.set(version.get() + 1);
        Says::json(&json!({ "v": version.get() })).after(900)
    });
    stale(&world, &one);
    let slots: Vec<_> = [&one, &other]
        .into_iter()
        .flat_map(|isolate| (0..50).map(|_| isolate.send(Ask::get("/top")).1))
        .collect();
    for slot in slots {
        let served = world.sim.block_on(slot.wait());
        assert_eq!((served.status, served.json()["v"].as_u64()), (200, Some(1)));
        assert_eq!(served.cache_status(), "edgeweir; hit; ttl=-1; detail=stale");
        // Fifty at once go to Redis a few at a time, but none waits for the refresh.
        assert_eq!(served.trips, 1);
        assert!(served.took_us < 100_000, "{} us", served.took_us);
    }
    world.settle();
    assert_eq!(world.asked_for("/top"), 1);
    let fresh = other.get("/top");
    assert_eq!(fresh.json()["v"], 2);
    assert_eq!(fresh.cache_status(), "edgeweir; hit; ttl=59; detail=l2");
}

/// A stale entry outlives every way in which its refresh fails, and no longer than said.
#[test]
fn a_stale_entry_is_served_while_its_refresh_fails_until_its_time_is_over() {
    let breaks = Says {
        breaks: true,
        ..Says::new(200, BODY)
    };
    for says in [
        Says::refused(),
        breaks,
        Says::new(200, BODY).after(60_000),
        Says::new(500, "{}"),
        Says::new(429, "{}"),
    ] {
        let (world, one, other) = world_with(|| Says::json(&json!({ "v": 1 })));
        stale(&world, &one);
        let script = says.clone();
        world.origin(move |_| script.clone());
        for _ in 0..10 {
            for isolate in [&one, &other] {
                let served = isolate.get("/top");
                assert_eq!(
                    (served.status, served.json()["v"].as_u64()),
                    (200, Some(1)),
                    "{says:?}"
                );
                assert_eq!((served.trips, served.took_us), (1, 1_000), "{says:?}");
            }
            world.settle();
            world.pass(100);
        }
        assert!(
            (1..=11).contains(&world.asked_for("/top")),
            "{}",
            world.asked_for("/top")
        );
        world.pass(60_000);
        let after = one.get("/top");
        assert_ne!(
            after.body, br#"{"v":1}"#,
            "{says:?}: served past its stale time"
        );
    }
}
