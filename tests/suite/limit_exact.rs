//! `Retry-After` is exact, and pressure costs little of what an exact log would admit.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use edgeweir::limit::{Checked, RESIDUAL_MS, Verdict, Window};
use edgeweir::policy::{Algorithm, By, Cost};
use edgeweir::ports::Clock;
use proptest::prelude::*;

use crate::sim::clock::Sim;
use crate::sim::redis::FakeRedis;
use crate::sim::traffic::{Asked, Isolate, Outcomes, limit, send};
use crate::sim::{Passage, Rng, first_seed};

const START_MS: u64 = 1_770_000_123_457;
const TIMEOUT_MS: u64 = 150;

fn near(sim: &Rc<Sim>, redis: &Rc<FakeRedis>, rng: &mut Rng) -> Isolate {
    let mut legs = Rng::new(rng.next());
    let isolate = Isolate::new(sim, redis, move |_| {
        Passage::new(legs.between(500, 30_000), legs.between(500, 30_000))
    });
    isolate
        .edge
        .skew_us
        .set(rng.between(0, 7_200_000_000) as i64 - 3_600_000_000);
    isolate
}

/// What a lone visitor sees after a random history: the last answer, and the answer to
/// the same request sent that much after the named time.
struct Lone {
    last: Checked,
    probe: Option<Checked>,
}

/// `until` picks the answer after which to probe and says for when it names a return.
fn lone(
    seed: u64,
    several: bool,
    until: fn(&Checked) -> Option<u64>,
    probe_ms: Option<i64>,
) -> Lone {
    let mut rng = Rng::new(seed);
    let sim = Sim::new(START_MS + rng.between(0, 100_000));
    let redis = Rc::new(FakeRedis::default());
    let isolates: Vec<Isolate> = (0..rng.between(1, 3))
        .map(|_| near(&sim, &redis, &mut rng))
        .collect();
    let window_ms = rng.pick(&[2_500, 3_001, 10_000, 61_703, 3_600_000]);
    // A large limit is seldom used up exactly.
    let most = rng.pick(if several {
        &[1, 2, 5, 17, 100, 40_000]
    } else {
        &[1, 2, 5, 17]
    });
    let mut limits = vec![limit("first", most, window_ms, By::Ip)];
    if several && rng.chance(40) {
        limits.push(limit("second", 2 * most, 3 * window_ms, By::User));
    }
    let inner = sim.clone();
    sim.block_on(async move {
        for tag in 1.. {
            inner
                .sleep_until(inner.now_us() + rng.between(0, window_ms * 300))
                .await;
            let isolate = rng.pick(&isolates);
            for limit in &mut limits {
                limit.cost = Cost::flat(rng.between(1, u64::from(most.div_ceil(2))) as u32);
            }
            let asked: Vec<Asked> = limits
                .iter()
                .map(|limit| (limit.clone(), "id".to_owned()))
                .collect();
            let last = isolate.check(tag, &asked, TIMEOUT_MS).await;
            assert!(!last.degraded);
            let Some(return_ms) = until(&last) else {
                continue;
            };
            let probe = match probe_ms {
                None => None,
                Some(probe_ms) => {
                    isolate
                        .edge
                        .sleep(return_ms.saturating_add_signed(probe_ms))
                        .await;
                    Some(isolate.check(0, &asked, TIMEOUT_MS).await)
                }
            };
            return Lone { last, probe };
        }
        unreachable!()
    })
}

fn refused(checked: &Checked) -> Option<u64> {
    match checked.verdict {
        Verdict::Refused { retry_after_ms, .. } => Some(retry_after_ms),
        _ => None,
    }
}

fn used_up(checked: &Checked) -> Option<u64> {
    let used_up = checked.quotas.iter().filter(|quota| quota.remaining == 0);
    match checked.verdict {
        Verdict::Admitted => used_up.map(|quota| quota.reset_ms).max(),
        _ => None,
    }
}

/// Alone on an id, the same request is refused one millisecond before the time named,
/// and admitted at it: for random histories, costs, windows, isolates and clocks.
#[test]
fn a_lone_visitor_is_refused_until_the_time_named_and_admitted_at_it() {
    let first = first_seed();
    for seed in first..first + 300 {
        let answer = lone(seed, true, refused, None);
        let return_ms = refused(&answer.last).unwrap();
        if return_ms > 1 {
            let early = lone(seed, true, refused, Some(-1)).probe.unwrap();
            assert_eq!(refused(&early), Some(1), "early; EDGEWEIR_SEED={seed}");
        }
        let punctual = lone(seed, true, refused, Some(0)).probe.unwrap();
        assert_eq!(punctual.verdict, Verdict::Admitted, "EDGEWEIR_SEED={seed}");
    }
}

/// The same of the `reset_ms` of an admitted request that uses a limit up.
#[test]
fn a_used_up_limit_names_the_time_of_the_next_admission() {
    let first = first_seed();
    for seed in first..first + 100 {
        // One millisecond may mean that it came while the answer was under way.
        if used_up(&lone(seed, false, used_up, None).last) != Some(1) {
            let early = lone(seed, false, used_up, Some(-1)).probe.unwrap();
            assert_eq!(refused(&early), Some(1), "early; EDGEWEIR_SEED={seed}");
        }
        let punctual = lone(seed, false, used_up, Some(0)).probe.unwrap();
        assert_eq!(punctual.verdict, Verdict::Admitted, "EDGEWEIR_SEED={seed}");
    }
}

/// A cold isolate whose clock is an hour ahead drops nothing from a log that still counts.
#[test]
fn a_clock_ahead_drops_no_unit_of_a_log() {
    let mut rng = Rng::new(first_seed());
    let sim = Sim::new(START_MS);
    let redis = Rc::new(FakeRedis::default());
    let [right, ahead] = [0, 3_600_000_000].map(|skew_us| {
        let isolate = near(&sim, &redis, &mut rng);
        isolate.edge.skew_us.set(skew_us);
        isolate
    });
    let mut limit = limit("log", 10, 10_000, By::Ip);
    limit.algorithm = Algorithm::SlidingLog;
    let asked: Vec<Asked> = vec![(limit, "id".to_owned())];
    sim.block_on(async move {
        for tag in 1..=10 {
            let checked = right.check(tag, &asked, TIMEOUT_MS).await;
            assert_eq!(checked.verdict, Verdict::Admitted);
        }
        for (tag, isolate) in [(11, &ahead), (12, &ahead), (13, &right)] {
            let checked = isolate.check(tag, &asked, TIMEOUT_MS).await;
            assert_ne!(checked.verdict, Verdict::Admitted, "request {tag}");
        }
    });
}

/// Nor does a log grow without end where no trip is quick enough to know Redis' time by, or
/// where requests are so rare that none is known any more.
#[test]
fn a_log_is_trimmed_when_no_clock_is_sure() {
    for (leg_us, pause_ms) in [(120_000, 500), (1_000, 15_000)] {
        let sim = Sim::new(START_MS);
        let redis = Rc::new(FakeRedis::default());
        let isolate = Isolate::new(&sim, &redis, move |_| Passage::new(leg_us, leg_us));
        let mut limit = limit("log", 50, 10_000, By::Ip);
        limit.algorithm = Algorithm::SlidingLog;
        let asked: Vec<Asked> = vec![(limit, "id".to_owned())];
        let time = sim.clone();
        sim.block_on(async move {
            for tag in 1..=400 {
                let checked = isolate.check(tag, &asked, 1_000).await;
                assert_eq!(checked.verdict, Verdict::Admitted);
                time.sleep_until(time.now_us() + pause_ms * 1_000).await;
            }
        });
        // Of the window and of the 20 s for which units are kept behind it.
        let most = redis.most_members();
        assert!(most <= 80, "{most} units");
    }
}

/// The exact log: what a perfect limiter admits of the same arrivals.
fn exact_log(arrivals_us: &[u64], requests: usize, window_us: u64) -> usize {
    let mut log: VecDeque<u64> = VecDeque::new();
    let mut admitted = 0;
    for arrival_us in arrivals_us {
        while log
            .front()
            .is_some_and(|oldest| oldest + window_us <= *arrival_us)
        {
            log.pop_front();
        }
        if log.len() < requests {
            log.push_back(*arrival_us);
            admitted += 1;
        }
    }
    admitted
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// A slot counts as long as the proof needs it, and not a slot longer. The proof needs
    /// what stands up to a bucket before the same moment of the epoch before; of a leased
    /// limit a permit's life, half of what labels may be off, and the clock's error.
    #[test]
    fn a_slot_counts_as_long_as_the_proof_needs_it(
        lease in any::<bool>(),
        window_ms in prop_oneof![2_500u64..=70_000, 2_500u64..=4_000_000],
        timeout_ms in 10u64..=400,
        at in any::<u64>(),
        later in 0u64..20_000,
    ) {
        let window_ms = window_ms.max(10 * (timeout_ms + RESIDUAL_MS));
        let mut limit = limit("any", 100, window_ms, By::Ip);
        limit.lease = lease;
        let window = Window::new(&limit, limit.requests, timeout_ms);
        let bucket_ms = window.bucket_ms();
        let reach_ms = match lease {
            true => bucket_ms + (bucket_ms - timeout_ms) / 2 + RESIDUAL_MS / 2,
            false => bucket_ms,
        };
        let slot_ms = window_ms.div_ceil(240).max(bucket_ms.div_ceil(8));
        prop_assert!(slot_ms <= bucket_ms && window.slots() <= 240);
        let start_ms = START_MS / window_ms * window_ms;
        let stands = window.spot(start_ms - 1 - at % window_ms);
        let spot = window.spot(stands.at_ms + window_ms + later % (2 * (reach_ms + slot_ms)));
        let counts = stands.slot >= window.counted_from(spot);
        if spot.epoch == stands.epoch + 1 {
            let late_ms = spot.at_ms - stands.at_ms - window_ms;
            prop_assert!(counts || late_ms > reach_ms, "forgotten after {} ms", late_ms);
            prop_assert!(!counts || late_ms < reach_ms + slot_ms, "kept for {} ms", late_ms);
            prop_assert_eq!(counts, spot.at_ms < window.frees_at(stands.epoch, stands.slot));
        }
    }
}

/// Four isolates with clocks up to an hour wrong admit at least 98 % of the exact log
/// under one to three times the load, with the default timeout and with one for a far Redis.
#[test]
fn under_pressure_it_admits_nearly_what_an_exact_log_does() {
    let seed = first_seed();
    println!("EDGEWEIR_SEED={seed}");
    for (timeout_ms, load) in [TIMEOUT_MS, 350]
        .into_iter()
        .flat_map(|timeout_ms| [1, 2, 3].map(|load| (timeout_ms, load)))
    {
        let mut rng = Rng::new(seed + load);
        let sim = Sim::new(START_MS);
        let redis = Rc::new(FakeRedis::default());
        let isolates: Vec<Isolate> = (0..4).map(|_| near(&sim, &redis, &mut rng)).collect();
        let limit = limit("minute", 100, 60_000, By::Ip);
        let mut arrivals_us = Vec::new();
        let mut at_us = START_MS * 1000;
        while at_us < (START_MS + 20 * 60_000) * 1000 {
            at_us += rng.gap_us(60_000_000.0 / (100 * load) as f64);
            arrivals_us.push(at_us);
        }
        let outcomes = Rc::new(RefCell::new(Outcomes::default()));
        for (tag, at_us) in arrivals_us.iter().enumerate() {
            let asked = vec![(limit.clone(), "id".to_owned())];
            send(
                &rng.pick(&isolates),
                &outcomes,
                (tag as u64 + 1, *at_us, 0),
                asked,
                timeout_ms,
            );
        }
        sim.run();
        let admitted = outcomes.borrow().admitted.len();
        let exact = exact_log(&arrivals_us, 100, 60_000_000);
        let share = 100.0 * admitted as f64 / exact as f64;
        println!("{timeout_ms} ms, load {load}: {admitted} of {exact}, {share:.2} %");
        assert!(share >= 98.0, "{timeout_ms} ms, load {load}: {share:.2} %");
    }
}

/// 2 000 requests at once over four isolates, limit 100: at least 98, never above 100.
#[test]
fn a_burst_over_four_isolates_is_admitted_up_to_the_limit() {
    let first = first_seed();
    for seed in first..first + 3 {
        let mut rng = Rng::new(seed);
        let sim = Sim::new(START_MS);
        let redis = Rc::new(FakeRedis::default());
        let isolates: Vec<Isolate> = (0..4).map(|_| near(&sim, &redis, &mut rng)).collect();
        for isolate in &isolates {
            // A cold isolate whose clock is seconds off would have to charge anew in the
            // middle of the burst, behind charges that are on their way back.
            isolate
                .edge
                .skew_us
                .set(rng.between(0, 60_000) as i64 - 30_000);
        }
        let limit = limit("minute", 100, 60_000, By::Ip);
        let outcomes = Rc::new(RefCell::new(Outcomes::default()));
        for tag in 1..=2_000 {
            let at_us = START_MS * 1000 + rng.between(0, 400_000);
            let asked = vec![(limit.clone(), "id".to_owned())];
            send(
                &rng.pick(&isolates),
                &outcomes,
                (tag, at_us, 0),
                asked,
                TIMEOUT_MS,
            );
        }
        sim.run();
        let admitted = outcomes.borrow().admitted.len();
        assert!(
            (98..=100).contains(&admitted),
            "{admitted}; EDGEWEIR_SEED={seed}"
        );
    }
}

/// One address floods four isolates, in a stream and in waves of hundreds at once. Its
/// own limit is spent, the global one is not, and no other address is ever refused.
#[test]
fn a_flooding_address_never_shuts_the_global_limit_for_others() {
    const SECONDS: u64 = 20;
    let first = first_seed();
    for (seed, own, global) in [(first, 10, 150), (first + 1, 60, 300), (first + 2, 20, 120)] {
        let mut rng = Rng::new(seed);
        let sim = Sim::new(START_MS);
        let redis = Rc::new(FakeRedis::default());
        let isolates: Vec<Isolate> = (0..4).map(|_| near(&sim, &redis, &mut rng)).collect();
        let limits = [
            limit("own", own, 60_000, By::Ip),
            limit("global", global, 60_000, By::Global),
        ];
        let ask = |address: &str| -> Vec<Asked> {
            let [own, global] = limits.clone();
            vec![(own, address.to_owned()), (global, "global".to_owned())]
        };
        let outcomes = Rc::new(RefCell::new(Outcomes::default()));
        let (mut flood_us, mut waves_us) = (Vec::new(), Vec::new());
        for wave in 0..SECONDS {
            let at_us = START_MS * 1000 + wave * 1_000_000;
            flood_us.extend((0..150).map(|_| at_us + rng.between(0, 1_000_000)));
            if wave % 2 == 0 {
                let start_us = at_us + rng.between(0, 900_000);
                waves_us.push(start_us);
                flood_us.extend((0..400).map(|_| start_us + rng.between(0, 20_000)));
            }
        }
        let mut tag = 0;
        for at_us in flood_us {
            tag += 1;
            send(
                &rng.pick(&isolates),
                &outcomes,
                (tag, at_us, 0),
                ask("flood"),
                TIMEOUT_MS,
            );
        }
        let others = tag + 1;
        // What the others ask and the flood's own share leave a few units free.
        for other in 0..u64::from(global - own) * 9 / 10 {
            // Most of them in the middle of a wave.
            let at_us = match rng.chance(70) {
                true => rng.pick(&waves_us) + rng.between(0, 100_000),
                false => START_MS * 1000 + rng.between(0, SECONDS * 1_000_000),
            };
            tag += 1;
            let address = format!("other{other}");
            send(
                &rng.pick(&isolates),
                &outcomes,
                (tag, at_us, 0),
                ask(&address),
                TIMEOUT_MS,
            );
        }
        sim.run();
        let outcomes = outcomes.borrow();
        let refused = outcomes.refused.range(others..).count();
        assert_eq!(refused, 0, "of {}; EDGEWEIR_SEED={seed}", tag + 1 - others);
        assert_eq!(
            outcomes.admitted.range(others..).count() as u64,
            tag + 1 - others
        );
        assert!(outcomes.admitted.range(..others).count() as u32 <= own);
    }
}
