//! Bounded waits: what a burst costs those who wait for another's fill.

use edgeweir::policy::Policy;
use serde_json::json;

use super::sim::{Passage, Rng, first_seed};
use super::world::{Ask, Isolate, Says, World, policy};

fn one_listing(http: bool) -> Policy {
    let cache = match http {
        true => json!({ "mode": "http" }),
        false => json!({ "key": "books:top", "ttl": "1m", "tags": ["books"] }),
    };
    policy(&json!({
        "defaults": { "limit": [], "timeout": { "redis": "150ms", "origin": "10s" } },
        "route": [{ "name": "top", "match": "GET /top", "cache": cache }],
    }))
}

/// The median time of a burst over these isolates, in microseconds.
fn burst(world: &World, isolates: &[Isolate], requests: usize) -> u64 {
    let slots: Vec<_> = (0..requests)
        .map(|n| isolates[n % isolates.len()].send(Ask::get("/top")).1)
        .collect();
    let mut took_us: Vec<u64> = slots
        .into_iter()
        .map(|slot| {
            let served = world.sim.block_on(slot.wait());
            assert_eq!(served.status, 200);
            served.took_us
        })
        .collect();
    took_us.sort_unstable();
    took_us[requests / 2]
}

/// A burst of 100 on an answer that nobody may share waits for it once; the next one not
/// at all. In both modes, in one isolate and over four.
#[test]
fn a_private_burst_waits_once() {
    let first = first_seed();
    for seed in first..first + 5 {
        for (http, many) in [(false, 1), (false, 4), (true, 1), (true, 4)] {
            for origin_ms in [100, 500, 2_000] {
                let world = World::new(seed);
                let mut rng = Rng::new(seed);
                world.network(move |_| {
                    Passage::new(rng.between(500, 2_000), rng.between(500, 2_000))
                });
                world.origin(move |_| {
                    Says::new(200, "{}")
                        .header("cache-control", "private")
                        .after(origin_ms)
                });
                let isolates: Vec<Isolate> = (0..many)
                    .map(|_| world.isolate(one_listing(http)))
                    .collect();
                let times = [(); 2]
                    .map(|()| burst(&world, &isolates, 100) as f64 / (origin_ms * 1_000) as f64);
                println!(
                    "seed {seed}, http {http}, {many} isolates, {origin_ms} ms: {times:.2?} of the origin's time"
                );
                assert!(times[0] <= 2.4, "seed {seed}: {times:?}");
                assert!(times[1] <= 1.3, "seed {seed}: {times:?}");
                assert_eq!(world.asked_for("/top"), 200);
            }
        }
    }
}

/// 200 at a cold key ask once, and the median is hardly more than the origin's time.
#[test]
fn a_cold_key_is_fetched_once() {
    for many in [1, 4] {
        let world = World::new(first_seed());
        world.origin(|_| Says::new(200, "{}").after(800));
        let isolates: Vec<Isolate> = (0..many)
            .map(|_| world.isolate(one_listing(false)))
            .collect();
        let median_us = burst(&world, &isolates, 200);
        assert_eq!(world.asked_for("/top"), 1);
        assert!(median_us < 860_000, "{median_us}");
    }
}

/// Who waits for a fill that takes much longer than usual asks for himself after twice the
/// usual time; what is usual an isolate also learns from an entry that another one fetched.
#[test]
fn nobody_waits_much_longer_than_a_usual_fetch() {
    for learns_from_entry in [false, true] {
        let world = World::new(first_seed());
        let mut asked = 0;
        world.origin(move |_| {
            asked += 1;
            // The second fetch, which others wait for, hangs.
            Says::new(200, "{}").after(if asked == 2 { 9_500 } else { 900 })
        });
        let (one, other) = (
            world.isolate(one_listing(false)),
            world.isolate(one_listing(false)),
        );
        one.get_settled("/top");
        let isolate = match learns_from_entry {
            true => {
                assert!(other.get_settled("/top").cache_status().contains("; hit"));
                &other
            }
            false => &one,
        };
        world.pass(61_000);
        let _leader = one.send(Ask::get("/top"));
        world.pass(50);
        let followers = isolate.crowd("/top", 10);
        for served in followers {
            assert_eq!(served.status, 200);
            // Twice 901 ms, a poll, and its own fetch.
            assert!(
                (1_750_000..2_900_000).contains(&served.took_us),
                "{}",
                served.took_us
            );
        }
    }
}
