//! Leases: never above the limit in any trailing window, and few commands.

use std::slice::from_ref;

use edgeweir::limit::Verdict;
use edgeweir::policy::{By, Limit};

use crate::sim::crowd::{Crowd, START_MS, most_in_any_window, poisson};
use crate::sim::desk::Desk;
use crate::sim::{Passage, Rng, first_seed};

fn leased(requests: u32, window_ms: u64) -> Limit {
    Limit {
        lease: true,
        ..Limit::new("leased", requests, window_ms, By::Global)
    }
}

/// Isolates from one to sixteen, clocks half a minute wrong, spikes beyond the timeout,
/// bursts at every boundary: at most L in any trailing window.
#[test]
fn never_above_the_limit_with_leases() {
    let first = first_seed();
    let mut spent = 0;
    for seed in first..first + 120 {
        let mut rng = Rng::new(seed);
        let limit = leased(
            rng.between(20, 200) as u32,
            rng.pick(&[10_000, 60_000, 61_703]),
        );
        let window_us = limit.window_ms * 1000;
        let mut arrivals_us = poisson(&mut rng, [0.7, 1.0, 2.0, 4.0][seed as usize % 4], &limit, 3);
        if rng.chance(50) {
            let boundary_us = window_us - START_MS * 1000 % window_us;
            for epoch in 0..3 {
                for _ in 0..limit.requests {
                    let near_us = rng.between(0, 4_000_000);
                    arrivals_us.push(
                        (boundary_us + epoch * window_us + near_us).saturating_sub(2_000_000),
                    );
                }
            }
            arrivals_us.sort_unstable();
        }
        let case = Crowd {
            seed,
            isolates: rng.pick(&[1, 2, 4, 16]),
            arrivals_us,
            spikes: rng.chance(40),
            skewed: rng.chance(60),
            flush: false,
            limit,
        };
        let outcome = case.run();
        spent += outcome.spent;
        let most = most_in_any_window(&outcome.admitted_us, window_us);
        assert!(
            most <= case.limit.requests as usize,
            "{most} of {} in {} ms, {} isolates; EDGEWEIR_SEED={seed}",
            case.limit.requests,
            case.limit.window_ms,
            case.isolates
        );
    }
    assert!(spent > 10_000, "only {spent} requests cost no trip");
}

/// At L = 1000 a minute and a load of 0.7 one isolate sends less than a command for ten
/// requests, four less than three.
#[test]
fn a_steady_load_costs_few_commands() {
    for (isolates, most) in [(1, 0.1), (4, 0.3)] {
        let limit = leased(1000, 60_000);
        let arrivals_us = poisson(&mut Rng::new(7), 0.7, &limit, 6);
        let requests = arrivals_us.len();
        let case = Crowd {
            seed: 7,
            limit,
            isolates,
            arrivals_us,
            spikes: false,
            skewed: true,
            flush: false,
        };
        let outcome = case.run();
        let a_request = outcome.commands as f64 / requests as f64;
        println!("{isolates} isolates: {a_request:.3} commands a request");
        assert_eq!(outcome.admitted_us.len(), requests, "nobody is refused");
        assert!(a_request <= most, "{isolates} isolates: {a_request:.3}");
    }
}

/// Requests that come in crowds of 32 do not all charge when a lease ends: one of them
/// renews it while the others spend the rest.
#[test]
fn a_crowd_renews_its_lease_ahead_of_time() {
    let limit = leased(1_000_000, 60_000);
    // 100 crowds a second for a quarter of a minute.
    let arrivals_us: Vec<u64> = (0..1_500_u64)
        .flat_map(|crowd| (0..32).map(move |_| crowd * 10_000))
        .collect();
    let requests = arrivals_us.len();
    let case = Crowd {
        seed: first_seed(),
        limit,
        isolates: 1,
        arrivals_us,
        spikes: false,
        skewed: false,
        flush: false,
    };
    let outcome = case.run();
    let charged = requests - outcome.spent;
    println!("{charged} of {requests} requests charged");
    assert_eq!(outcome.admitted_us.len(), requests);
    assert!(charged * 50 < requests, "{charged} of {requests}");
}

/// A flush loses what was charged, and no permit is spent twice or given back below zero.
#[test]
fn a_flush_leaves_leases_harmless() {
    for seed in 1..20 {
        let limit = leased(100, 10_000);
        let case = Crowd {
            seed,
            isolates: 4,
            arrivals_us: poisson(&mut Rng::new(seed), 2.0, &limit, 3),
            spikes: false,
            skewed: false,
            flush: true,
            limit,
        };
        let outcome = case.run();
        // What was charged before the flush is forgotten, once.
        let most = most_in_any_window(&outcome.admitted_us, 10_000_000);
        assert!(most <= 200 + 40, "{most}; EDGEWEIR_SEED={seed}");
        assert!(outcome.admitted_us.len() > 200);
    }
}

/// A permit of a lease goes back when a limit beside it refuses.
#[test]
fn a_permit_goes_back_when_another_limit_refuses() {
    let desk = Desk::new();
    let wide = leased(1000, 60_000);
    let narrow = Limit::new("narrow", 40, 60_000, By::Ip);
    for _ in 0..40 {
        desk.wait(100);
        assert_eq!(
            desk.check(&[narrow.clone(), wide.clone()]).verdict,
            Verdict::Admitted
        );
    }
    let before = desk.check(from_ref(&wide)).quotas[0].remaining;
    for _ in 0..20 {
        let refused = desk.check(&[narrow.clone(), wide.clone()]);
        assert!(matches!(refused.verdict, Verdict::Refused { .. }));
        desk.send(&refused);
    }
    let after = desk.check(from_ref(&wide)).quotas[0].remaining;
    assert!(before - after <= 1, "{before} {after}");
}

/// A permit whose request another limit refuses goes back to the lease that it is of, or to
/// Redis when that one has ended: in the next lease it would be spent too late.
#[test]
fn a_permit_never_moves_to_a_later_lease() {
    let desk = Desk::new();
    let wide = leased(1000, 60_000);
    let narrow = Limit::new("narrow", 1, 60_000, By::User);
    desk.admit(from_ref(&narrow), 1);
    let ask = |times: u64| {
        for _ in 0..times {
            desk.wait(20);
            desk.admit(from_ref(&wide), 1);
        }
    };
    ask(150);
    desk.commands();
    ask(1);
    assert_eq!(desk.commands(), [""; 0], "a lease is held");
    // Its permit is taken now, and given back when the refusal comes, after two seconds: no
    // lease is spent for longer.
    let slow = Passage {
        is_late_anyway: true,
        ..Passage::new(2_200_000, 2_000)
    };
    desk.passages.borrow_mut().push_back(slow);
    let refused = desk.check_later(&[narrow.clone(), wide.clone()], Vec::new());
    let sim = desk.sim.clone();
    let next: Vec<_> = (0..3)
        .map(|_| desk.check_later(from_ref(&wide), Vec::new()))
        .collect();
    let others = async move {
        sim.sleep_until(sim.now_us() + 2_100_000).await;
        for check in next {
            assert_eq!(check.await.verdict, Verdict::Admitted);
        }
    };
    let (refused, ()) = desk
        .sim
        .block_on(futures_util::future::join(refused, others));
    assert!(matches!(refused.verdict, Verdict::Refused { .. }));
    desk.commands();
    let mut spent = 0;
    let given_back = loop {
        desk.wait(10);
        desk.admit(from_ref(&wide), 1);
        let charges = desk.commands();
        if !charges.is_empty() {
            break charges;
        }
        spent += 1;
    };
    println!("{spent} spent, then {given_back:?}");
    // The lease of the others, and then the permit, by itself.
    assert!(given_back[0].contains("OVERFLOW SAT"), "{given_back:?}");
    assert!(given_back[0].contains(" -1 "), "{given_back:?}");
}

/// What a visitor is told counts what came before an epoch's boundary, too, also while that
/// may still change and the request itself takes no trip.
#[test]
fn the_quota_told_counts_both_sides_of_a_boundary() {
    for started_ms in [58_000, 59_000, 59_500] {
        let desk = Desk::new();
        let limit = leased(5_000, 60_000);
        let now_ms = desk.sim.now_us() / 1_000;
        desk.wait(120_000 - now_ms % 60_000 - 60_000 + started_ms);
        for asked in 1..=300 {
            desk.wait(7);
            let checked = desk.check(from_ref(&limit));
            assert_eq!(checked.quotas[0].remaining, 5_000 - asked, "{started_ms}");
        }
    }
}
