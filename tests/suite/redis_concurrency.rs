//! How many trips are under way at once, and what widens and narrows that.

use std::cell::Cell;
use std::future::Future;

use edgeweir::ports::Clock;
use edgeweir::redis::concurrency::{Concurrency, FIRST, LEAST, MOST};
use edgeweir::together::all;
use futures_executor::block_on;

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
        let entered_ms = clock.now_ms();
        inside.set(inside.get() + 1);
        most.set(most.get().max(inside.get()));
        clock.sleep(1).await;
        inside.set(inside.get() - 1);
        place.leave(entered_ms + trip_ms, TIMEOUT_MS);
        true
    })));
    assert_eq!(entered.len(), many);
    most.get()
}

#[test]
fn a_burst_on_a_slow_redis_goes_in_by_few_and_everyone_gets_in() {
    let near = Concurrency::default();
    burst(&near, 1, 2);
    assert!(burst(&near, 200, 140) <= FIRST);
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
