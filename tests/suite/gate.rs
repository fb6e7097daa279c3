//! The gate: how many requests of an isolate are at Redis at once.

use std::cell::Cell;
use std::future::Future;

use edgeweir::gate::{Gate, LEAST_INSIDE, MOST_INSIDE, ROUNDS};
use edgeweir::ports::Clock;
use edgeweir::together::all;
use futures_executor::block_on;

/// A clock on which sleeping is what makes time pass.
#[derive(Default)]
struct Steps {
    now_ms: Cell<u64>,
}

impl Clock for Steps {
    fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }

    fn sleep(&self, _duration_ms: u64) -> impl Future<Output = ()> {
        let mut is_over = false;
        std::future::poll_fn(move |context| {
            if is_over {
                return std::task::Poll::Ready(());
            }
            is_over = true;
            self.now_ms.set(self.now_ms.get() + 1);
            context.waker().wake_by_ref();
            std::task::Poll::Pending
        })
    }
}

#[test]
fn never_more_are_inside_than_there_is_room_and_everyone_gets_in() {
    let (gate, clock) = (Gate::default(), Steps::default());
    let inside = Cell::new(0_usize);
    let most = Cell::new(0);
    let outcomes = block_on(all((0..60).map(|_| async {
        let place = gate.enter(&clock).await;
        inside.set(inside.get() + 1);
        assert!(inside.get() <= gate.room(), "{} inside", inside.get());
        most.set(most.get().max(inside.get()));
        clock.sleep(1).await;
        inside.set(inside.get() - 1);
        // Slow, so that the room stays as it is.
        place.leave(clock.now_ms() + 1_000, 150);
        true
    })));
    assert_eq!(outcomes.len(), 60);
    assert_eq!(most.get(), LEAST_INSIDE);
}

#[test]
fn room_grows_by_one_while_trips_are_quick_and_halves_when_one_is_slow() {
    let (gate, clock) = (Gate::default(), Steps::default());
    let stay = |stay_ms: u64| {
        let place = block_on(gate.enter(&clock));
        place.leave(clock.now_ms() + stay_ms, 150);
    };
    for _ in 0..LEAST_INSIDE * ROUNDS {
        stay(37);
    }
    assert_eq!(gate.room(), LEAST_INSIDE + 1);
    for _ in 0..400_000 {
        stay(5);
    }
    assert_eq!(gate.room(), MOST_INSIDE);
    stay(38);
    assert_eq!(gate.room(), MOST_INSIDE / 2);
    for _ in 0..10 {
        stay(1_000);
    }
    assert_eq!(gate.room(), LEAST_INSIDE);
}

#[test]
fn a_place_whose_request_was_lost_is_free_again_after_a_while() {
    let (gate, clock) = (Gate::default(), Steps::default());
    for _ in 0..LEAST_INSIDE {
        std::mem::forget(block_on(gate.enter(&clock)));
    }
    let begun_ms = clock.now_ms();
    drop(block_on(gate.enter(&clock)));
    let waited_ms = clock.now_ms() - begun_ms;
    assert!((1..=5_000).contains(&waited_ms), "{waited_ms} ms");
}
