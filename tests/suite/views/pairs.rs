//! Two runs of the sync at once, in every order of their first calls.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use edgeweir::views::LOCK;
use edgeweir::views::sync::{self, Outcome};

use super::super::sim::first_seed;
use super::desk::{Desk, Hands};

/// Calls whose order is tried in every way; a run with one batch makes seven.
const CALLS: u32 = 11;

fn desk(seed: u64) -> Rc<Desk> {
    let desk = Desk::new(seed);
    for id in 0..6_u64 {
        for viewer in 0..=id {
            desk.view("story", &id.to_string(), viewer);
        }
    }
    desk
}

/// Two runs; `order` has a bit for each step: whose it is. Then they take turns.
/// `lock_ends` is the step at which the lock is gone, as if both had been held up.
fn both(desk: &Rc<Desk>, order: u32, lock_ends: Option<u32>) -> Vec<Outcome> {
    let hands = Hands(desk, true);
    let mut runs: Vec<Option<Pin<Box<dyn Future<Output = Outcome> + '_>>>> = (0..2)
        .map(|_| Some(Box::pin(sync::by_hand(&desk.gateway, &hands)) as Pin<Box<_>>))
        .collect();
    let mut outcomes = Vec::new();
    let mut context = Context::from_waker(Waker::noop());
    for at in 0_u32..10_000 {
        if lock_ends == Some(at) {
            desk.redis.views.answer(desk.now_us(), &["DEL", LOCK]);
        }
        let turn = if at < CALLS { order >> at & 1 } else { at & 1 } as usize;
        let turn = if runs[turn].is_some() { turn } else { 1 - turn };
        let Some(run) = &mut runs[turn] else { break };
        if let Poll::Ready(outcome) = run.as_mut().poll(&mut context) {
            outcomes.push(outcome);
            runs[turn] = None;
        }
    }
    assert_eq!(outcomes.len(), 2);
    outcomes
}

fn sends(desk: &Desk) -> BTreeMap<String, usize> {
    let mut sends = BTreeMap::new();
    for key in desk.sends.borrow().iter() {
        *sends.entry(key.clone()).or_insert(0) += 1;
    }
    sends
}

/// The lock lets one of them work; the other waits, and finds nothing left.
#[test]
fn of_two_runs_at_once_no_batch_is_sent_twice() {
    let seed = first_seed();
    let mut were_busy = 0;
    for order in 0..1 << CALLS {
        let desk = desk(seed);
        let outcomes = both(&desk, order, None);
        let what = format!("seed {seed}, order {order:b}: {outcomes:?}");
        // Whoever waits gives up at some time: here the other makes no haste.
        let done = outcomes
            .iter()
            .filter(|outcome| matches!(outcome, Outcome::Done(_)));
        let busy = outcomes.iter().filter(|outcome| **outcome == Outcome::Busy);
        let (done, busy) = (done.count(), busy.count());
        assert!(done >= 1 && done + busy == 2, "{what}");
        were_busy += busy;
        assert!(sends(&desk).values().all(|times| *times == 1), "{what}");
        assert_eq!(desk.sends.borrow().len(), 1, "{what}");
        desk.check(&what);
    }
    assert!(were_busy < 1 << (CALLS - 1), "{were_busy} of them gave up");
}

/// Two runs that both believe to have the lock: an origin that honours the key counts
/// nothing twice, and nothing is lost.
#[test]
fn without_the_lock_the_batches_numbers_still_hold() {
    let seed = first_seed();
    let mut were_both = 0;
    for lock_ends in [2, 3, 4, 5, 7] {
        for order in 0..1 << CALLS {
            let desk = desk(seed);
            // Somebody reads while both are at work.
            desk.on_call(|desk, at| desk.view("story", "3", 100 + at as u64));
            both(&desk, order, Some(lock_ends));
            let what = format!("seed {seed}, order {order:b}, the lock ends at {lock_ends}");
            were_both += usize::from(desk.sends.borrow().len() > 1);
            desk.on_call(|_, _| {});
            desk.drain();
            desk.check(&what);
        }
    }
    assert!(were_both > 100, "{were_both} cases in which both sent");
}
