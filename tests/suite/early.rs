//! Early refresh: who is elected, how often, and that nobody waits for it.

use std::rc::Rc;

use edgeweir::cache::early::early_ms;
use edgeweir::policy::Policy;
use serde_json::json;

use super::sim::{Rng, first_seed};
use super::world::{Isolate, Says, World, policy};

/// No stale time: whoever comes too late waits.
fn one_listing(l1: &str) -> Policy {
    policy(&json!({
        "defaults": { "limit": [], "timeout": { "redis": "150ms", "origin": "10s" } },
        "route": [{ "name": "top", "match": "GET /top", "cache": {
            "key": "books:top", "ttl": "1m", "tags": ["books"], "l1": l1 } }],
    }))
}

/// The logarithm is too large by 0 to 0.06, whatever is drawn.
#[test]
fn the_logarithm_is_as_good_as_it_says() {
    let mut rng = Rng::new(1);
    let edges = [0, 1, 2, 3, u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) - 1];
    for bits in edges.into_iter().chain((0..100_000).map(|_| rng.next())) {
        let took_ms = 1_000_000;
        let drawn = early_ms(took_ms, u128::from(bits) << 64) as f64 / took_ms as f64;
        let u = bits.max(1) as f64 / 2f64.powi(64);
        let error = drawn + u.ln();
        assert!(
            (-0.000_1..0.060).contains(&error),
            "{bits:x}: {drawn} for {}",
            -u.ln()
        );
    }
}

/// What visitors got over an hour of a hit each 100 ms on so many isolates.
fn hour(seed: u64, l1: &str, took_ms: u64, isolates: usize) -> (usize, usize) {
    let world = World::new(seed);
    world.origin(move |_| Says::new(200, "{}").after(took_ms));
    let isolates: Vec<Isolate> = (0..isolates)
        .map(|_| world.isolate(one_listing(l1)))
        .collect();
    isolates[0].get_settled("/top");
    let mut rng = Rng::new(seed);
    let mut waited = 0;
    for _ in 0..36_000 {
        let (_, slot) = rng.pick(&isolates).send(super::world::Ask::get("/top"));
        let served = world.sim.block_on(slot.wait());
        waited += usize::from(!served.cache_status().contains("; hit"));
        world.pass(100);
    }
    world.settle();
    (waited, world.asked_for("/top"))
}

/// On a route that is asked often nobody waits for a refresh, for the price of a few more
/// fetches than there are lives; with L1 as without.
#[test]
fn nobody_waits_on_a_route_that_is_asked_often() {
    let first = first_seed();
    for seed in first..first + 3 {
        for (l1, took_ms, isolates) in [
            ("0s", 1_000, 1),
            ("0s", 1_000, 4),
            ("1s", 1_000, 2),
            ("30s", 1_000, 4),
        ] {
            let (waited, fetches) = hour(seed, l1, took_ms, isolates);
            println!(
                "seed {seed}, l1 {l1}, {isolates} isolates: {waited} of 36000 waited, {fetches} fetches in 60 lives"
            );
            assert!(waited <= 12, "seed {seed}, l1 {l1}: {waited} waited");
            assert!(
                (58..=80).contains(&fetches),
                "seed {seed}, l1 {l1}: {fetches} fetches"
            );
        }
    }
}

/// A cheap fetch is not made earlier by much: it is not worth it.
#[test]
fn a_cheap_fetch_is_made_late() {
    let (_, fetches) = hour(first_seed(), "0s", 20, 1);
    assert!(
        (58..=62).contains(&fetches),
        "{fetches} fetches in 60 lives"
    );
}

/// However many are elected at once, one asks; all of them get the entry that is fresh.
#[test]
fn of_many_that_are_elected_one_asks() {
    let world = World::new(first_seed());
    world.origin(|_| Says::new(200, "{}").after(5_000));
    let isolates: Vec<Isolate> = (0..4).map(|_| world.isolate(one_listing("0s"))).collect();
    isolates[0].get_settled("/top");
    // Fetches of five seconds: in the last of them nearly everybody is elected.
    world.pass(59_000);
    for isolate in &isolates {
        for served in isolate.crowd("/top", 20) {
            assert!(served.cache_status().starts_with("edgeweir; hit; ttl="));
            assert!(served.took_us < 100_000);
        }
    }
    world.settle();
    assert_eq!(world.asked_for("/top"), 2);
}

/// A record of an older version, without the fetch's time, is refreshed as before.
#[test]
fn a_record_that_does_not_say_how_long_it_took_is_not_refreshed_early() {
    let world = World::new(first_seed());
    world.origin(|_| Says::new(200, "{}").after(3_000));
    let isolate = world.isolate(one_listing("0s"));
    isolate.get_settled("/top");
    let meta = String::from_utf8(world.redis.get("meta:books:top").unwrap()).unwrap();
    assert!(meta.contains("\"took\":3001"), "{meta}");
    world
        .redis
        .set("meta:books:top", meta.replace(",\"took\":3001", ""));
    world.pass(57_000);
    for _ in 0..20 {
        assert!(isolate.get_settled("/top").cache_status().contains("; hit"));
    }
    assert_eq!(world.asked_for("/top"), 1);
}

/// The election draws from the port: another seed, another moment.
#[test]
fn the_election_is_by_chance() {
    let moments: Vec<u64> = (1..9)
        .map(|seed| {
            let world: Rc<World> = World::new(seed);
            world.origin(|_| Says::new(200, "{}").after(3_000));
            let isolate = world.isolate(one_listing("0s"));
            isolate.get_settled("/top");
            let begun_ms = world.now_ms();
            while world.asked_for("/top") == 1 {
                isolate.get("/top");
                world.pass(200);
            }
            world.now_ms() - begun_ms
        })
        .collect();
    println!("{moments:?}");
    assert!(
        moments
            .iter()
            .all(|moment| (30_000..60_500).contains(moment)),
        "{moments:?}"
    );
    assert!(moments.iter().any(|moment| *moment != moments[0]));
}
