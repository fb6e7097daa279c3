//! Whatever happens to any single call of a sync, to Redis or to the origin: nothing is lost
//! and nothing is counted twice by an origin that honours the key.

use std::rc::Rc;
use std::sync::OnceLock;

use edgeweir::views::sync;
use edgeweir::views::{DAY_MS, HOUR_MS};

use super::super::sim::{Rng, first_seed};
use super::desk::{Desk, FAULTS, Fault, Hands, ids_of_one_bucket, try_finish};

/// It takes a hundred thousand tries to find them.
static CROWD: OnceLock<Vec<String>> = OnceLock::new();

/// Items of three days: over, on and of today; some in one bucket, one on all days.
fn seed(desk: &Desk, rng: &mut Rng, days: &[u64]) {
    let crowd = CROWD.get_or_init(|| ids_of_one_bucket("story", 9));
    for back in days {
        let now_ms = desk.now_ms.get();
        desk.now_ms.set(now_ms - *back * DAY_MS);
        for (at, id) in crowd.iter().enumerate() {
            if rng.chance(70) {
                desk.view("story", id, at as u64);
            }
        }
        for _ in 0..6 {
            desk.view("story", "every:day", rng.between(1, 9));
            let chapter = rng.between(1, 5).to_string();
            desk.view("chapter", &chapter, rng.between(1, 4));
        }
        desk.now_ms.set(now_ms);
    }
}

/// How the run before the one that is disturbed ended.
#[derive(Debug, Clone, Copy)]
enum Before {
    Nothing,
    /// Some of it was sent.
    Synced,
    /// The origin refused a batch, which is fixed.
    Refused,
}

fn desk(seed_of: u64, before: Before) -> (Rc<Desk>, Rng) {
    let desk = Desk::new(seed_of);
    let mut rng = Rng::new(seed_of);
    match before {
        Before::Nothing => {}
        Before::Synced => {
            seed(&desk, &mut rng, &[2, 1, 0]);
            desk.drain();
            desk.pass(HOUR_MS);
        }
        Before::Refused => {
            seed(&desk, &mut rng, &[2, 1, 0]);
            desk.is_down.set(true);
            let outcome = super::desk::finish(sync::by_hand(&desk.gateway, &Hands(&desk, false)));
            assert!(matches!(outcome, sync::Outcome::OriginFailed(_)));
            desk.is_down.set(false);
        }
    }
    // Of a day that was sent and is over nobody is counted any more.
    let days: &[u64] = match before {
        Before::Nothing => &[2, 1, 0],
        _ => &[0],
    };
    seed(&desk, &mut rng, days);
    (desk, rng)
}

/// One run with a fault at one of its calls; how many calls it made.
fn disturbed(seed: u64, before: Before, fault: Option<(usize, Fault)>, readers: bool) -> usize {
    let what = format!("seed {seed}, after {before:?}, {fault:?}, readers: {readers}");
    let (desk, mut rng) = desk(seed, before);
    let first = desk.calls.get();
    desk.fault.set(fault.map(|(at, fault)| (first + at, fault)));
    if readers {
        let mut drawn = rng.clone();
        desk.on_call(move |desk, _| {
            let id = drawn.between(1, 6).to_string();
            desk.view("chapter", &id, drawn.between(1, 9));
            desk.view("story", "every:day", drawn.between(1, 30));
        });
    }
    {
        let hands = Hands(&desk, true);
        let mut run: std::pin::Pin<Box<dyn Future<Output = _>>> =
            Box::pin(sync::by_hand(&desk.gateway, &hands));
        // A run that is killed is dropped here.
        let _ = try_finish(&mut run);
    }
    let calls = desk.calls.get() - first;
    desk.on_call(|_, _| {});
    for _ in 0..rng.between(0, 3) {
        desk.view("story", "every:day", rng.between(1, 99));
    }
    desk.drain();
    desk.check(&what);
    // What came after the last pass, and then the end of the day.
    desk.view("story", "last", 1);
    desk.pass(DAY_MS + 2 * HOUR_MS);
    desk.drain();
    desk.check(&what);
    desk.check_clean(&what);
    calls
}

/// Every call of a run in each way, from each state before it, with and without readers.
#[test]
fn whatever_happens_to_any_call_nothing_is_lost_or_counted_twice() {
    let mut cases = 0;
    {
        let seed = first_seed();
        for before in [Before::Nothing, Before::Synced, Before::Refused] {
            for readers in [false, true] {
                let calls = disturbed(seed, before, None, readers);
                assert!(calls >= 7, "{calls}");
                for at in 0..calls {
                    for fault in FAULTS {
                        disturbed(seed, before, Some((at, fault)), readers);
                        cases += 1;
                    }
                }
            }
        }
    }
    println!("{cases} cases");
}

/// The run after a crash meets a fault at any of its calls as well.
#[test]
fn two_faults_in_a_row_lose_nothing() {
    let seed = first_seed();
    let calls = disturbed(seed, Before::Nothing, None, false);
    for first in 0..calls {
        for second in 0..calls + 3 {
            for fault in [Fault::KillAfter, Fault::FailAfter, Fault::Late] {
                let what = format!("seed {seed}: {fault:?} at {first}, then at {second}");
                let (desk, _) = desk(seed, Before::Nothing);
                for at in [first, second] {
                    let begin = desk.calls.get();
                    desk.fault.set(Some((begin + at, fault)));
                    let hands = Hands(&desk, true);
                    let mut run: std::pin::Pin<Box<dyn Future<Output = _>>> =
                        Box::pin(sync::by_hand(&desk.gateway, &hands));
                    let _ = try_finish(&mut run);
                    drop(run);
                    desk.pass(61_000);
                }
                desk.drain();
                desk.check(&what);
            }
        }
    }
}
