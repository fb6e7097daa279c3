//! Leases: never above the limit in any trailing window, and few commands.

use std::cell::RefCell;
use std::rc::Rc;
use std::slice::from_ref;

use edgeweir::limit::{self, Charge, Memory, Verdict};
use edgeweir::policy::{By, Limit, RedisDown};
use edgeweir::ports::{Redis, Store};

use crate::sim::clock::Sim;
use crate::sim::desk::Desk;
use crate::sim::redis::FakeRedis;
use crate::sim::{Edge, Passage, Rng, first_seed};

const TIMEOUT_MS: u64 = 150;
const START_MS: u64 = 1_770_000_123_457;

fn leased(requests: u32, window_ms: u64) -> Limit {
    Limit {
        lease: true,
        ..Limit::new("leased", requests, window_ms, By::Global)
    }
}

/// One run: what each isolate was asked, when.
struct Case {
    seed: u64,
    limit: Limit,
    isolates: u64,
    arrivals_us: Vec<u64>,
    spikes: bool,
    skewed: bool,
    flush: bool,
}

#[derive(Default)]
struct Outcome {
    /// When each admitted request was admitted, by Redis' clock.
    admitted_us: Vec<u64>,
    /// Which of them cost no trip.
    spent: usize,
    commands: usize,
}

impl Case {
    fn run(&self) -> Outcome {
        let mut rng = Rng::new(!self.seed);
        let sim = Sim::new(START_MS);
        let redis = Rc::new(FakeRedis::default());
        let isolates: Vec<(Edge, Rc<RefCell<Memory>>)> = (0..self.isolates)
            .map(|_| {
                let mut rng = Rng::new(rng.next());
                let skew_us = rng.between(0, 60_000_000) as i64 - 30_000_000;
                let spikes = self.spikes;
                let edge = Edge::new(&sim, &redis, move |_| {
                    let mut passage =
                        Passage::new(rng.between(300, 9_000), rng.between(300, 9_000));
                    if spikes && rng.chance(15) {
                        passage.request_us += rng.between(0, 200_000);
                        passage.response_us += rng.between(0, 200_000);
                        passage.is_late_anyway = rng.chance(50);
                    }
                    passage
                });
                if self.skewed {
                    edge.skew_us.set(skew_us);
                }
                (edge, Rc::default())
            })
            .collect();
        let outcome: Rc<RefCell<Outcome>> = Rc::default();
        for (number, arrival_us) in self.arrivals_us.iter().enumerate() {
            let (edge, memory) = rng.pick(&isolates);
            let edge = edge.tagged(number as u64 + 1);
            let (limit, outcome) = (self.limit.clone(), outcome.clone());
            let arrival = sim.sleep_until(START_MS * 1000 + arrival_us);
            sim.spawn(async move {
                arrival.await;
                let charges = [Charge::new(&limit, "global".to_owned(), "route")];
                let down = RedisDown::Closed;
                let checked =
                    limit::check(&memory, &edge, TIMEOUT_MS, down, &charges, Vec::new()).await;
                if checked.verdict == Verdict::Admitted {
                    // Whoever was charged is admitted when Redis ran that, others now.
                    let charged_us = last_charge_us(&edge);
                    let mut outcome = outcome.borrow_mut();
                    outcome.spent += usize::from(charged_us.is_none());
                    outcome
                        .admitted_us
                        .push(charged_us.unwrap_or(edge.sim.now_us()));
                }
                for (shard, batch) in checked.deferred {
                    let _unanswered = edge
                        .pipeline(Store::Limits(shard), &batch, TIMEOUT_MS)
                        .await;
                }
            });
        }
        if self.flush {
            let at_us = START_MS * 1000 + rng.pick(&self.arrivals_us);
            let (then, redis) = (sim.clone(), redis.clone());
            sim.at(at_us, move || redis.flush(then.now_us()));
        }
        sim.run();
        let mut outcome = outcome.take();
        outcome.admitted_us.sort_unstable();
        outcome.commands = redis.ran.borrow().len();
        outcome
    }
}

/// When this request's charge ran, unless it was given back.
fn last_charge_us(edge: &Edge) -> Option<u64> {
    let ran = edge.redis.ran.borrow();
    let last = (ran.iter().rev()).find(|ran| ran.tag == edge.tag && ran.words[0] == "BITFIELD")?;
    let is_charge = last
        .words
        .windows(2)
        .any(|words| words == ["OVERFLOW", "FAIL"]);
    is_charge.then_some(last.at_us)
}

fn most_in_any_window(times_us: &[u64], window_us: u64) -> usize {
    let mut first = 0;
    let mut most = 0;
    for (last, at_us) in times_us.iter().enumerate() {
        while times_us[first] + window_us <= *at_us {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    most
}

fn poisson(rng: &mut Rng, load: f64, limit: &Limit, windows: u64) -> Vec<u64> {
    let window_us = limit.window_ms * 1000;
    let mean_us = window_us as f64 / (f64::from(limit.requests) * load);
    let mut arrivals_us = Vec::new();
    let mut at_us = 0;
    while at_us < windows * window_us {
        at_us += rng.gap_us(mean_us);
        arrivals_us.push(at_us);
    }
    arrivals_us
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
        let case = Case {
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
        let case = Case {
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

/// A flush loses what was charged, and no permit is spent twice or given back below zero.
#[test]
fn a_flush_leaves_leases_harmless() {
    for seed in 1..20 {
        let limit = leased(100, 10_000);
        let case = Case {
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
