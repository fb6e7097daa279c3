//! Passes: how many requests a run makes, what is left for the next one, and when it is due.

use std::cell::Cell;
use std::rc::Rc;

use edgeweir::views::record::State;
use edgeweir::views::sync::{self, MAX_POSTS, MAX_REQUESTS, Outcome};
use edgeweir::views::{BACKOFF, DAY_MS, HOUR_MS, LOCK, MANY_PENDING, STATE};

use super::super::sim::first_seed;
use super::desk::{Desk, Hands, NOON_MS, finish, ids_of_one_bucket};

fn by_hand(desk: &Desk) -> Outcome {
    finish(sync::by_hand(&desk.gateway, &Hands(desk, true)))
}

fn by_cron(desk: &Desk) -> usize {
    finish(sync::by_cron(&desk.gateway, &Hands(desk, true), MAX_POSTS))
}

fn state(desk: &Desk) -> State {
    match desk.redis.views.answer(desk.now_us(), &["GET", STATE]) {
        edgeweir::redis::Reply::Bytes(bytes) => State::read(&bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// A buffer much larger than a run may send: each run stays within its requests, each batch
/// within a thousand items (the origin says so), and the last one has nothing left.
#[test]
fn a_run_never_makes_more_requests_than_it_may() {
    let desk = Desk::new(first_seed());
    for id in 0..30_000_u64 {
        desk.view("story", &id.to_string(), id);
    }
    let mut runs = 0;
    loop {
        let first = desk.calls.get();
        let outcome = by_hand(&desk);
        let calls = desk.calls.get() - first;
        assert!(calls <= MAX_REQUESTS as usize, "{calls} requests");
        runs += 1;
        let Outcome::Done(report) = outcome else {
            panic!("{outcome:?}")
        };
        println!(
            "run {runs}: {calls} requests, {report:?}, at most {} commands",
            desk.largest.get()
        );
        assert!(report.batches <= MAX_POSTS as u64);
        if !report.left {
            break;
        }
        assert!(report.items >= 10_000, "{report:?}: it would take for ever");
    }
    assert!((2..=3).contains(&runs), "{runs}");
    desk.check("30 000 items");
    let sends = desk.sends.borrow().len();
    assert!(
        (30..36).contains(&sends),
        "{sends} batches: they are full as a rule"
    );
    // The day after all of it is looked at once more, and let go of.
    desk.pass(DAY_MS);
    desk.drain();
    desk.check_clean("30 000 items");
}

/// Calls by hand end, though each but the first goes on with a pass and then looks once more,
/// and looking at all there is takes more than one of them.
#[test]
fn calls_by_hand_come_to_an_end() {
    let desk = Desk::new(first_seed());
    for id in 0..3_000_u64 {
        // One page of four is all that a look brings here of a bucket.
        desk.view("story", &id.to_string(), id);
    }
    for id in ids_of_one_bucket("chapter", 60) {
        desk.view("chapter", &id, 1);
    }
    let mut calls = 1;
    while let Outcome::Done(report) = by_hand(&desk) {
        if !report.left {
            break;
        }
        calls += 1;
        assert!(calls < 40);
    }
    println!("{calls} calls");
    assert!(calls >= 2, "{calls}");
    desk.check("60 of one bucket");
}

/// With fewer requests to the origin than there are batches the next run goes on.
#[test]
fn a_cron_run_has_the_requests_that_it_is_given() {
    let desk = Desk::new(first_seed());
    for id in 0..2_500_u64 {
        desk.view("story", &id.to_string(), id);
    }
    let run = || finish(sync::by_cron(&desk.gateway, &Hands(&desk, true), 1));
    assert_eq!([run(), run(), run(), run()], [1, 1, 1, 0]);
    desk.check("three runs");
    assert_eq!(
        finish(sync::by_cron(&desk.gateway, &Hands(&desk, true), 0)),
        0
    );
}

/// Two items of one bucket and a page of it that ends between them.
#[test]
fn a_bucket_larger_than_a_page_is_read_whole_and_nothing_twice() {
    let desk = Desk::new(first_seed());
    for id in ids_of_one_bucket("story", 23) {
        desk.view("story", &id, 1);
    }
    desk.drain();
    desk.check("one bucket");
    assert_eq!(
        desk.sends.borrow().len(),
        6,
        "the fake's pages have four items"
    );
    desk.pass(DAY_MS);
    desk.drain();
    desk.check_clean("one bucket");
}

/// A view late in a day whose pass has been, one that arrives an hour's end late, and one
/// by a clock that is ahead: all are found.
#[test]
fn views_near_the_end_of_hours_and_days_are_found() {
    let desk = Desk::new(first_seed());
    let midnight_ms = NOON_MS + 12 * HOUR_MS;
    for (at_ms, id) in [
        (midnight_ms - HOUR_MS, "a"),
        (midnight_ms - 1, "b"),
        (midnight_ms, "c"),
        (midnight_ms + HOUR_MS - 1, "d"),
    ] {
        desk.now_ms.set(at_ms);
        desk.view("story", id, 1);
        desk.drain();
        // It was labelled before the pass and arrives after it.
        desk.view("story", "late", at_ms);
        desk.pass(60_000);
        desk.drain();
        desk.check(id);
    }
    // Ahead by two minutes: of tomorrow, for it.
    desk.now_ms.set(midnight_ms + DAY_MS + 60_000);
    desk.view("story", "ahead", 1);
    desk.now_ms.set(midnight_ms + DAY_MS - 60_000);
    desk.drain();
    desk.check("ahead");
    desk.now_ms.set(midnight_ms + 3 * DAY_MS);
    desk.drain();
    desk.check_clean("the end");
}

/// The same viewer counts once an item and day, and again the next day.
#[test]
fn a_viewer_counts_once_a_day() {
    let desk = Desk::new(first_seed());
    for _ in 0..3 {
        for _ in 0..5 {
            desk.view("story", "1", 7);
            desk.drain();
        }
        desk.pass(DAY_MS);
    }
    assert_eq!(desk.totals.borrow().values().sum::<u64>(), 3);
    desk.check("three days");
}

/// The origin refuses: the batch waits, the cron leaves it alone for longer and longer, and
/// a call by hand does not.
#[test]
fn a_refusing_origin_is_left_alone_for_a_while() {
    let desk = Desk::new(first_seed());
    desk.view("story", "1", 1);
    desk.is_down.set(true);
    let mut waited = Vec::new();
    let mut since_ms = desk.now_ms.get();
    for _ in 0..96 {
        if by_cron(&desk) == 1 {
            waited.push((desk.now_ms.get() - since_ms) / 60_000);
            since_ms = desk.now_ms.get();
        }
        desk.pass(5 * 60_000);
    }
    assert_eq!(waited, [0, 5, 10, 20, 40, 80, 120, 120]);
    let sends = desk.sends.borrow().len();
    assert!(matches!(by_hand(&desk), Outcome::OriginFailed(_)));
    assert_eq!(desk.sends.borrow().len(), sends + 1);
    let keys = desk.sends.borrow().clone();
    assert!(keys.iter().all(|key| *key == keys[0]), "one batch, one key");
    assert_eq!(
        desk.redis.views.answer(desk.now_us(), &["EXISTS", LOCK]),
        edgeweir::redis::Reply::Int(0)
    );
    desk.is_down.set(false);
    assert!(matches!(by_hand(&desk), Outcome::Done(_)));
    desk.check("it is back");
    assert_eq!(
        desk.redis.views.answer(desk.now_us(), &["EXISTS", BACKOFF]),
        edgeweir::redis::Reply::Int(0)
    );
}

/// By default a pass is due at 02:00 and 14:00, also when it is unfinished, and early when
/// very much is pending.
#[test]
fn a_pass_is_due_twice_a_day_or_when_much_is_pending() {
    let desk = Desk::new(first_seed());
    desk.view("story", "1", 1);
    // The first run of all sees what there is.
    assert_eq!(by_cron(&desk), 1);
    assert_eq!(state(&desk).last_sync_ms, NOON_MS);
    desk.view("story", "2", 1);
    let mut sent = Vec::new();
    for step in 1..=6 * 12 {
        desk.pass(5 * 60_000);
        if by_cron(&desk) > 0 {
            sent.push(step * 5);
        }
    }
    assert_eq!(sent, [120], "at 14:00");
    let many = Rc::new(Cell::new(0));
    for viewer in 0..MANY_PENDING + 1 {
        let key = format!("views:_seen:story:{}", desk.now_ms.get() / DAY_MS);
        desk.redis
            .views
            .answer(desk.now_us(), &["PFADD", &key, &viewer.to_string()]);
        many.set(viewer);
    }
    desk.view("story", "3", 1);
    desk.pass(5 * 60_000);
    assert_eq!(by_cron(&desk), 1, "{} pending", many.get());
    desk.pass(5 * 60_000);
    desk.view("story", "4", 1);
    assert_eq!(by_cron(&desk), 0, "what was seen before the pass is sent");
}

/// A database that loses everything is a new beginning, and keys are never used again.
#[test]
fn a_flush_loses_what_was_pending_and_nothing_after_it() {
    let desk = Desk::new(first_seed());
    desk.view("story", "1", 1);
    desk.drain();
    desk.redis.flush(desk.now_us());
    desk.pass(DAY_MS);
    desk.view("story", "1", 2);
    desk.drain();
    desk.check("after the flush");
    let keys = desk.sends.borrow().clone();
    assert_eq!(keys.len(), 2);
    assert_ne!(keys[0], keys[1]);
}
