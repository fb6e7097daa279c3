//! The promise that a client reads: for any 429 with `Retry-After: t`, the same request is
//! refused until the last second before t, and admitted at t, if nobody else asks.

use edgeweir::policy::Policy;
use serde_json::{Value, json};

use super::sim::{Passage, Rng, first_seed};
use super::world::{Ask, Isolate, Served, World, policy};

const CASES: u64 = 150;
const ALGORITHMS: [&str; 4] = [
    "sliding-window",
    "sliding-log",
    "token-bucket",
    "fixed-window",
];

fn limit(rng: &mut Rng, name: &str, by: &str) -> Value {
    let requests = rng.pick(&[1, 2, 3, 7, 12, 24]);
    let mut limit = json!({
        "name": name,
        "requests": requests,
        "window": rng.pick(&["3s", "10s", "61s", "1h"]),
        "by": by,
        "cost": rng.between(1, requests.min(3)),
        "algorithm": rng.pick(&ALGORITHMS),
    });
    if limit["algorithm"] == "sliding-window" && requests == 24 {
        limit["lease"] = json!(rng.chance(50));
    }
    limit
}

fn shop(rng: &mut Rng) -> Policy {
    let mut limits = vec![limit(rng, "own", "ip")];
    if rng.chance(40) {
        limits.push(limit(rng, "all", "global"));
    }
    policy(&json!({
        "defaults": { "timeout": { "redis": "150ms", "origin": "2s" } },
        "route": [{ "name": "thing", "match": "GET /thing", "limit": limits }],
    }))
}

fn retry_after_s(served: &Served) -> u64 {
    served.get("retry-after").parse().unwrap()
}

fn ask(isolate: &Isolate) -> Served {
    isolate.ask(Ask::get("/thing"))
}

#[test]
fn refused_before_the_time_that_is_told_and_admitted_at_it() {
    let first = first_seed();
    let mut probes = 0;
    for seed in first..first + CASES {
        let mut rng = Rng::new(seed);
        let policy = shop(&mut rng);
        let world = World::new(seed);
        let mut legs = Rng::new(rng.next());
        world.network(move |_| Passage::new(legs.between(500, 20_000), legs.between(500, 20_000)));
        world.pass(rng.between(0, 100_000));
        let isolates: Vec<Isolate> = (0..rng.between(1, 3))
            .map(|_| world.isolate(policy.clone()))
            .collect();
        for isolate in &isolates {
            isolate.skew(rng.between(0, 60_000) as i64 - 30_000);
        }
        for _ in 0..3 {
            let isolate = rng.pick(&isolates);
            let (refused, told_ms) = loop {
                let served = ask(&isolate);
                match served.status {
                    200 => world.pass(rng.between(0, 40)),
                    _ => break (served.clone(), world.now_ms()),
                }
            };
            assert_eq!(refused.status, 429, "EDGEWEIR_SEED={seed}");
            // Counted from when it was judged, which is not later than the answer.
            let fits_ms = told_ms + retry_after_s(&refused) * 1_000;
            let last_ms = (fits_ms - 1_000).saturating_sub(refused.took_us.div_ceil(1_000) + 40);
            let mut early: Vec<u64> = (0..rng.between(0, 3))
                .filter_map(|_| {
                    let span_ms = last_ms.checked_sub(told_ms)?;
                    Some(told_ms + rng.between(0, span_ms))
                })
                .collect();
            early.sort_unstable();
            for at_ms in early {
                world.pass(at_ms.saturating_sub(world.now_ms()));
                let served = ask(&isolate);
                assert_eq!(served.status, 429, "EDGEWEIR_SEED={seed} at {at_ms}");
                probes += 1;
            }
            world.settle();
            world.pass(fits_ms.saturating_sub(world.now_ms()));
            let served = ask(&isolate);
            assert_eq!(
                served.status,
                200,
                "EDGEWEIR_SEED={seed}: {} and then {}",
                refused.get("ratelimit"),
                served.get("ratelimit")
            );
        }
    }
    assert!(probes > CASES, "{probes} early requests");
}
