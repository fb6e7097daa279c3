//! One table of cases for every algorithm, and what each promises by itself.

use std::slice::from_ref;

use edgeweir::limit::{Checked, Receipt, Verdict};
use edgeweir::policy::{Algorithm, By, Cost, Limit};

use crate::sim::crowd::{Crowd, START_MS as START_MS_OF_CROWD, most_in_any_window, poisson};
use crate::sim::desk::{Desk, START_MS, costing, minute};
use crate::sim::{Passage, Rng, first_seed};

const ALL: [Algorithm; 4] = [
    Algorithm::SlidingWindow,
    Algorithm::SlidingLog,
    Algorithm::TokenBucket { burst: 10 },
    Algorithm::FixedWindow,
];

fn ten(algorithm: Algorithm) -> Limit {
    Limit {
        algorithm,
        ..minute(10)
    }
}

fn remaining(checked: &Checked) -> u32 {
    checked.quotas[0].remaining
}

/// The number admitted of `asked` requests at once.
fn admitted(desk: &Desk, limit: &Limit, asked: usize) -> usize {
    (0..asked)
        .filter(|_| {
            let checked = desk.check(from_ref(limit));
            desk.send(&checked);
            assert!(!checked.degraded, "{:?}", limit.algorithm);
            checked.verdict == Verdict::Admitted
        })
        .count()
}

/// A fresh id has the whole limit, says what is left, and is refused after that.
#[test]
fn the_whole_limit_and_no_more() {
    for algorithm in ALL {
        let (desk, limit) = (Desk::new(), ten(algorithm));
        for left in (0..10).rev() {
            let checked = desk.check(from_ref(&limit));
            assert_eq!(checked.verdict, Verdict::Admitted, "{algorithm:?}");
            assert_eq!(remaining(&checked), left, "{algorithm:?}");
        }
        assert_eq!(admitted(&desk, &limit, 5), 0, "{algorithm:?}");
        assert_eq!(
            admitted(&desk.beside(), &limit, 5),
            0,
            "{algorithm:?}: another isolate"
        );
    }
}

/// Earlier than the time that a refusal names the request is refused, then it is admitted.
#[test]
fn a_refusal_names_the_time_when_it_fits() {
    for algorithm in ALL {
        for (cost, wait_ms) in [(1, 0), (1, 7_321), (3, 11_003), (10, 25_000)] {
            let (desk, limit) = (Desk::new(), ten(algorithm));
            let dear = costing(&limit, cost);
            assert_eq!(admitted(&desk, &limit, 4), 4);
            desk.wait(wait_ms);
            let rest = admitted(&desk, &limit, 12);
            assert!((6..=10).contains(&rest), "{algorithm:?}: {rest}");
            let asked_ms = desk.sim.now_us() / 1000;
            let after_ms = desk.refusal_ms(from_ref(&dear));
            let until = |at_ms: u64| at_ms.saturating_sub(desk.sim.now_us() / 1000);
            // A trip takes 2 ms each way, and labels are whole milliseconds.
            for early_ms in [
                after_ms / 2,
                after_ms.saturating_sub(1_000),
                after_ms.saturating_sub(20),
            ] {
                desk.wait(until(asked_ms + early_ms));
                let refused = desk.check(from_ref(&dear));
                desk.send(&refused);
                assert!(
                    matches!(refused.verdict, Verdict::Refused { .. }),
                    "{algorithm:?}, cost {cost}: {early_ms} of {after_ms} ms"
                );
            }
            desk.wait(until(asked_ms + after_ms + 8));
            assert_eq!(
                desk.check(from_ref(&dear)).verdict,
                Verdict::Admitted,
                "{algorithm:?}, cost {cost}: after {after_ms} ms"
            );
        }
    }
}

/// Not even where a limit was made smaller than what has been used of it.
#[test]
fn who_takes_nothing_is_not_refused_by_a_limit_that_is_overfull() {
    for algorithm in ALL {
        let (desk, limit) = (Desk::new(), ten(algorithm));
        assert_eq!(admitted(&desk, &limit, 10), 10);
        let smaller = Limit {
            requests: 4,
            ..costing(&limit, 0)
        };
        for limits in [vec![smaller.clone()], vec![smaller.clone(), minute(1)]] {
            for isolate in [&desk, &desk.beside()] {
                let verdict = isolate.check(&limits).verdict;
                match verdict {
                    Verdict::Refused { violated, .. } => assert_eq!(violated, ["minute"]),
                    verdict => assert_eq!(verdict, Verdict::Admitted, "{algorithm:?}"),
                }
            }
        }
    }
}

/// A request of cost 0 looks and is never refused, and nothing is charged for it.
#[test]
fn a_cost_of_nothing_only_looks() {
    for algorithm in ALL {
        let (desk, limit) = (Desk::new(), ten(algorithm));
        let free = costing(&limit, 0);
        let look = |left| {
            let looked = desk.check(from_ref(&free));
            let seen = (&looked.verdict, looked.degraded, remaining(&looked));
            assert_eq!(seen, (&Verdict::Admitted, false, left), "{algorithm:?}");
            assert!(looked.deferred.is_empty(), "{algorithm:?}");
        };
        for _ in 0..2 {
            look(10);
        }
        assert_eq!(admitted(&desk, &limit, 10), 10);
        for _ in 0..3 {
            look(0);
        }
        // Later than its label says, so that what it charged would be moved.
        let slow = Passage::new(90_000, 2_000);
        desk.passages.borrow_mut().push_back(slow);
        look(0);
        assert_eq!(admitted(&desk, &limit, 1), 0, "{algorithm:?}");
    }
}

/// What a refused request charged is given back: a cheaper one fits at once.
#[test]
fn a_refused_request_uses_nothing() {
    for algorithm in ALL {
        let (desk, limit) = (Desk::new(), ten(algorithm));
        assert_eq!(admitted(&desk, &limit, 8), 8);
        assert_eq!(admitted(&desk, &costing(&limit, 3), 4), 0, "{algorithm:?}");
        assert_eq!(admitted(&desk, &limit, 4), 2, "{algorithm:?}");
    }
}

/// What the origin's failure gives back can be used again.
#[test]
fn a_failure_costs_what_the_limit_says() {
    for algorithm in ALL {
        let desk = Desk::new();
        let limit = Limit {
            cost: Cost {
                hit: 0,
                miss: 5,
                error: 1,
            },
            ..ten(algorithm)
        };
        for _ in 0..2 {
            let checked = desk.check(from_ref(&limit));
            assert_eq!(checked.verdict, Verdict::Admitted, "{algorithm:?}");
            let now_ms = desk.sim.now_us() / 1_000;
            let back = |receipt: &Receipt| receipt.of_failure(&desk.isolate.memory, now_ms);
            desk.send(&Checked {
                deferred: checked.receipts.iter().filter_map(back).collect(),
                ..checked
            });
        }
        let cheap = Limit {
            cost: Cost::flat(1),
            ..limit
        };
        assert_eq!(admitted(&desk, &cheap, 12), 8, "{algorithm:?}");
    }
}

/// What has leaked from a bucket meanwhile is not given back: it would take out others' units.
#[test]
fn a_late_refund_takes_nothing_from_those_who_came_later() {
    let desk = Desk::new();
    let bucket = Limit {
        cost: Cost {
            hit: 0,
            miss: 5,
            error: 0,
        },
        ..ten(Algorithm::TokenBucket { burst: 10 })
    };
    let plain = costing(&bucket, 1);
    let refund = |checked: Checked| {
        let now_ms = desk.sim.now_us() / 1_000;
        let back = |receipt: &Receipt| receipt.of_failure(&desk.isolate.memory, now_ms);
        desk.send(&Checked {
            deferred: checked.receipts.iter().filter_map(back).collect(),
            ..checked
        });
    };
    let checked = desk.check(from_ref(&bucket));
    desk.wait(61_000);
    assert_eq!(admitted(&desk, &plain, 12), 10);
    refund(checked);
    assert_eq!(admitted(&desk, &plain, 5), 0, "all of it has leaked");
    desk.wait(61_000);
    // A unit leaks in six seconds: three of five have, and a part of the next.
    let checked = desk.check(from_ref(&bucket));
    desk.wait(20_000);
    refund(checked);
    assert_eq!(admitted(&desk, &plain, 20), 9, "one is not leaked whole");
}

/// Every key that a limit leaves behind ends, and no later than its counts need it.
#[test]
fn every_key_ends() {
    for algorithm in ALL {
        let (desk, limit) = (Desk::new(), ten(algorithm));
        admitted(&desk, &limit, 13);
        let ttls = desk.redis.ttls_ms(desk.sim.now_us());
        assert!(!ttls.is_empty());
        for (key, ttl_ms) in ttls {
            let ttl_ms = ttl_ms.unwrap_or_else(|| panic!("{key} never ends"));
            assert!((60_000..=160_000).contains(&ttl_ms), "{key}: {ttl_ms}");
        }
    }
}

/// A shadow counts and reports, refuses nobody, and its refusals are not charged.
#[test]
fn a_shadow_refuses_nobody() {
    for algorithm in ALL {
        let desk = Desk::new();
        let limit = Limit {
            shadow: true,
            ..ten(algorithm)
        };
        for number in 0..15 {
            let checked = desk.check(from_ref(&limit));
            desk.send(&checked);
            assert_eq!(checked.verdict, Verdict::Admitted, "{algorithm:?}");
            assert!(checked.quotas[0].is_shadow);
            assert_eq!(
                !checked.shadowed.is_empty(),
                number >= 10,
                "{algorithm:?} {number}"
            );
        }
        assert_eq!(
            admitted(&desk, &ten(algorithm), 1),
            0,
            "{algorithm:?}: it is full, no more"
        );
        desk.wait(70_000);
        assert!(desk.check(from_ref(&limit)).shadowed.is_empty());
    }
}

/// A shadow beside a limit that refuses is given back with it.
#[test]
fn a_shadow_does_not_count_what_is_refused() {
    let desk = Desk::new();
    let real = Limit {
        name: "real".to_owned(),
        ..minute(2)
    };
    let shadow = Limit {
        name: "shadow".to_owned(),
        shadow: true,
        ..minute(100)
    };
    let both = [real, shadow.clone()];
    for _ in 0..6 {
        desk.send(&desk.check(&both));
    }
    assert_eq!(desk.total(&shadow), 2);
}

/// A bucket is full after a pause, and leaks one unit at a time.
#[test]
fn a_bucket_leaks_steadily() {
    let desk = Desk::new();
    let limit = Limit {
        algorithm: Algorithm::TokenBucket { burst: 3 },
        ..minute(60)
    };
    assert_eq!(admitted(&desk, &limit, 10), 3);
    for _ in 0..5 {
        desk.wait(1_060);
        assert_eq!(admitted(&desk, &limit, 3), 1);
    }
    desk.wait(10_000);
    assert_eq!(
        admitted(&desk, &limit, 10),
        3,
        "no more than the burst was saved up"
    );
}

/// A fixed window begins anew at its boundary, whatever was used before.
#[test]
fn a_fixed_window_begins_anew() {
    let (desk, limit) = (Desk::new(), ten(Algorithm::FixedWindow));
    desk.wait(60_000 - START_MS % 60_000 - 100);
    assert_eq!(admitted(&desk, &limit, 12), 10);
    desk.wait(300);
    assert_eq!(admitted(&desk, &limit, 12), 10);
}

/// The log is the exact log: what came more than a window ago, and the clocks' error, is
/// forgotten unit by unit.
#[test]
fn a_log_forgets_each_unit_in_its_turn() {
    let (desk, limit) = (Desk::new(), ten(Algorithm::SlidingLog));
    for _ in 0..10 {
        assert_eq!(admitted(&desk, &limit, 1), 1);
        desk.wait(1_000);
    }
    assert_eq!(admitted(&desk, &limit, 1), 0);
    desk.wait(50_150 - 60);
    for _ in 0..9 {
        assert_eq!(admitted(&desk, &limit, 2), 1);
        desk.wait(1_000);
    }
}

/// Isolates with wrong clocks and slow trips, bursts at every boundary: each algorithm
/// keeps its own bound in any trailing window.
#[test]
fn every_algorithm_keeps_its_bound() {
    let first = first_seed();
    for seed in first..first + 60 {
        let mut rng = Rng::new(seed);
        let requests = rng.between(5, 60) as u32;
        let (algorithm, most) = match seed % 3 {
            0 => (Algorithm::SlidingLog, requests),
            1 => (Algorithm::TokenBucket { burst: requests }, 2 * requests),
            _ => (Algorithm::FixedWindow, 2 * requests),
        };
        let limit = Limit {
            algorithm,
            ..Limit::new(
                "bound",
                requests,
                rng.pick(&[5_000, 10_000, 60_000]),
                By::Global,
            )
        };
        let window_us = limit.window_ms * 1000;
        let load = rng.pick(&[0.8, 1.5, 4.0]);
        let mut arrivals_us = poisson(&mut rng, load, &limit, 3);
        let boundary_us = window_us - START_MS_OF_CROWD * 1000 % window_us;
        for _ in 0..2 * requests {
            let near_us = rng.between(0, 1_000_000);
            arrivals_us.push((boundary_us + near_us).saturating_sub(500_000));
            arrivals_us.push(boundary_us + window_us + near_us);
        }
        arrivals_us.sort_unstable();
        let crowd = Crowd {
            seed,
            limit,
            isolates: rng.pick(&[1, 3, 8]),
            arrivals_us,
            spikes: rng.chance(50),
            skewed: rng.chance(70),
            flush: false,
        };
        let admitted_us = crowd.run().admitted_us;
        let found = most_in_any_window(&admitted_us, window_us);
        assert!(
            found <= most as usize,
            "{found} of {most}: {:?}, {} isolates; EDGEWEIR_SEED={seed}",
            crowd.limit,
            crowd.isolates
        );
        // What a lost answer has charged stays charged.
        assert!(
            crowd.spikes || admitted_us.len() >= 2 * requests as usize,
            "{algorithm:?}; EDGEWEIR_SEED={seed}"
        );
    }
}
