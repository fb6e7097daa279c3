//! How many trips are under way at once, and what widens and narrows that.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

use edgeweir::concurrency::{Concurrency, FIRST, LEAST, MOST};
use edgeweir::policy::Policy;
use edgeweir::ports::Clock;
use edgeweir::redis::RedisErrorKind;
use edgeweir::together::all;
use futures_executor::block_on;
use serde_json::json;

use super::sim::{Fault, Passage, first_seed};
use super::world::{World, policy};

const TIMEOUT_MS: u64 = 150;

/// A clock on which each poll of a sleeper lets a millisecond pass.
#[derive(Default)]
struct Steps {
    now_ms: Cell<u64>,
}

impl Clock for Steps {
    fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }

    fn sleep(&self, duration_ms: u64) -> impl Future<Output = ()> {
        let until_ms = self.now_ms.get() + duration_ms;
        std::future::poll_fn(move |context| {
            if self.now_ms.get() >= until_ms {
                return std::task::Poll::Ready(());
            }
            self.now_ms.set(self.now_ms.get() + 1);
            context.waker().wake_by_ref();
            std::task::Poll::Pending
        })
    }
}

/// A burst of trips that take `trip_ms`; answers how many were inside at most.
fn burst(concurrency: &Concurrency, many: usize, trip_ms: u64) -> usize {
    let clock = Steps::default();
    let (inside, most) = (Cell::new(0_usize), Cell::new(0));
    let entered = block_on(all((0..many).map(|_| async {
        let place = concurrency.enter(&clock, TIMEOUT_MS).await;
        inside.set(inside.get() + 1);
        most.set(most.get().max(inside.get()));
        clock.sleep(1).await;
        inside.set(inside.get() - 1);
        place.leave(trip_ms, TIMEOUT_MS);
        true
    })));
    assert_eq!(entered.len(), many);
    most.get()
}

#[test]
fn a_burst_on_a_slow_redis_goes_in_by_few_and_everyone_gets_in() {
    let near = Concurrency::default();
    burst(&near, 1, 2);
    assert!(burst(&near, 60, 140) <= FIRST);
    assert_eq!(near.limit(), LEAST);
}

#[test]
fn a_redis_that_is_far_away_is_no_queue() {
    for trip_ms in [2, 60, 100, 140] {
        let concurrency = Concurrency::default();
        for _ in 0..20 {
            burst(&concurrency, 400, trip_ms);
        }
        assert_eq!(concurrency.limit(), MOST, "trips of {trip_ms} ms");
    }
}

#[test]
fn one_slow_round_halves_the_limit_once_and_it_grows_only_while_somebody_waits() {
    let concurrency = Concurrency::default();
    for _ in 0..50 {
        burst(&concurrency, FIRST, 5);
    }
    assert_eq!(concurrency.limit(), FIRST, "nobody had to wait");
    burst(&concurrency, FIRST, TIMEOUT_MS);
    assert_eq!(concurrency.limit(), FIRST / 2);
}

#[test]
fn a_place_whose_request_was_lost_is_free_again_after_a_while() {
    let (concurrency, clock) = (Concurrency::default(), Steps::default());
    for _ in 0..FIRST {
        std::mem::forget(block_on(concurrency.enter(&clock, TIMEOUT_MS)));
    }
    drop(block_on(concurrency.enter(&clock, TIMEOUT_MS)));
    assert!((1..=5_000).contains(&clock.now_ms()));
}

fn limited(requests: u64) -> Policy {
    let limit =
        json!([{ "name": "minute", "requests": requests, "window": "60s", "by": "global" }]);
    policy(&json!({ "route": [
        { "name": "page", "match": "GET /page", "limit": limit },
        { "name": "free", "match": "GET /free", "limit": [] },
    ] }))
}

/// Of a crowd only the first ask a Redis that hangs; the others learn it from them.
#[test]
fn a_crowd_at_a_hanging_redis_waits_once() {
    let world = World::new(first_seed());
    let trips = Rc::new(Cell::new(0));
    let (counted, now) = (trips.clone(), world.sim.clone());
    let begun_us = now.now_us();
    world.network(move |_| {
        // As the breaker does once the first trips have timed out.
        let is_open = now.now_us() >= begun_us + 150_000;
        counted.set(counted.get() + usize::from(!is_open));
        match is_open {
            true => Passage {
                fault: Fault::Before(RedisErrorKind::Open),
                ..Passage::new(0, 0)
            },
            false => Passage::new(1, 60_000_000),
        }
    });
    let isolate = world.isolate(limited(1_000));
    for served in isolate.crowd("/page", 300) {
        assert_eq!(served.status, 200);
        assert!(served.took_us <= 200_000, "{} us", served.took_us);
    }
    assert_eq!(trips.get(), FIRST);
}

/// What waits its turn is refused without a trip once the first ones were, and who asks
/// nothing of Redis never waits.
#[test]
fn those_behind_a_refusal_are_refused_without_a_trip() {
    let world = World::new(first_seed());
    world.network(|_| Passage::new(10_000, 10_000));
    let isolate = world.isolate(limited(3));
    let served = isolate.crowd("/page", 500);
    let admitted = served.iter().filter(|served| served.status == 200).count();
    assert_eq!(admitted, 3);
    let trips: u64 = served.iter().map(|served| served.trips).sum();
    assert!(trips <= 4 * FIRST as u64, "{trips} trips");
    let begun_us = world.sim.now_us();
    let free = isolate.get("/free");
    assert_eq!((free.status, free.trips), (200, 0));
    assert!(world.sim.now_us() - begun_us <= 25_000);
}
