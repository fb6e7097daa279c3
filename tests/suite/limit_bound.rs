//! Never more than the limit in any trailing window, held against Redis' own history.

use std::cell::RefCell;
use std::rc::Rc;

use edgeweir::limit::{Checked, RESIDUAL_MS, Verdict, Window};
use edgeweir::policy::{Algorithm, By, Cost, Limit, Per};
use edgeweir::redis::RedisErrorKind;
use futures_util::future::join_all;

use crate::sim::clock::Sim;
use crate::sim::desk::{Desk, minute};
use crate::sim::history::{histories, most_in_any_window};
use crate::sim::redis::FakeRedis;
use crate::sim::traffic::{Asked, Isolate, Outcomes, send};
use crate::sim::{Fault, Passage, Rng, first_seed};

const CASES: u64 = 300;

/// A day in 2026, which is no boundary of any window here.
const START_MS: u64 = 1_770_000_123_457;

/// How one isolate reaches Redis.
#[derive(Debug, Clone, Copy)]
enum Path {
    /// A few milliseconds each way.
    Near,
    /// Nearly all of a good sample's trip in one direction, now this, now that: the
    /// offset is as wrong as it may be.
    Lopsided,
    /// Too slow for a good sample: `TIME` rides with every check.
    Far,
}

struct Case {
    seed: u64,
    timeout_ms: u64,
    limits: Vec<Limit>,
    ids: u64,
    isolates: Vec<(Path, i64)>,
    /// How far a local clock wanders between samples.
    swing_ms: u64,
    faults: bool,
    spikes: bool,
    /// Isolates are held up: an answer that took too long is handed over all the same.
    stalls: bool,
    /// When each request arrives, after the start.
    arrivals_us: Vec<u64>,
    flush_us: Option<u64>,
}

impl Case {
    fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let timeout_ms = rng.pick(&[150, 150, 150, 50, 300]);
        let mut limits: Vec<Limit> = (0..rng.between(1, 3))
            .map(|at| draw_limit(&mut rng, at))
            .collect();
        if rng.chance(30) {
            // Windows as long as the first one's, so that all of them are under pressure.
            let window_ms = limits[0].window_ms;
            limits
                .iter_mut()
                .for_each(|limit| limit.window_ms = window_ms);
        }
        if rng.chance(35) {
            // Has room for fewer than the first one, and must not change what that one admits.
            let (first, requests) = (&limits[0], limits[0].requests / 3);
            limits.push(Limit {
                requests: requests.max(first.cost.miss),
                name: "shadow".to_owned(),
                shadow: true,
                ..first.clone()
            });
        }
        let buckets = limits
            .iter()
            .map(|limit| Window::new(limit, limit.requests, timeout_ms).bucket_ms());
        let spread_ms = buckets.min().unwrap() - timeout_ms;
        let isolates = (0..rng.between(1, 6))
            .map(|_| {
                let path = rng.pick(&[Path::Near, Path::Lopsided, Path::Lopsided, Path::Far]);
                (path, rng.between(0, 36_000_000) as i64 - 18_000_000)
            })
            .collect();
        Self {
            seed,
            timeout_ms,
            ids: rng.between(1, 3),
            isolates,
            swing_ms: spread_ms.saturating_sub(RESIDUAL_MS) / 4,
            faults: rng.chance(20),
            spikes: rng.chance(40),
            stalls: rng.chance(50),
            arrivals_us: draw_arrivals(&mut rng, &limits, timeout_ms),
            flush_us: rng
                .chance(20)
                .then(|| rng.between(0, 3 * limits[0].window_ms) * 1000),
            limits,
        }
    }

    fn describe(&self) -> String {
        format!(
            "timeout {} ms, {:?}, {} ids, {:?}, swing {} ms, faults {}, spikes {}, stalls {}, {} arrivals, flush at {:?} us",
            self.timeout_ms,
            self.limits,
            self.ids,
            self.isolates,
            self.swing_ms,
            self.faults,
            self.spikes,
            self.stalls,
            self.arrivals_us.len(),
            self.flush_us,
        )
    }

    /// Runs the case and answers how many were admitted, refused and degraded.
    fn run(&self) -> (usize, usize, usize) {
        let mut rng = Rng::new(!self.seed);
        let sim = Sim::new(START_MS);
        let redis = Rc::new(FakeRedis::default());
        let isolates: Vec<Isolate> = self
            .isolates
            .iter()
            .map(|(path, skew_ms)| self.isolate(&mut rng, &sim, &redis, *path, *skew_ms))
            .collect();
        let outcomes = Rc::new(RefCell::new(Outcomes::default()));
        for (number, arrival_us) in self.arrivals_us.iter().enumerate() {
            let asked: Vec<Asked> = (self.limits.iter())
                .map(|limit| {
                    let id = match limit.by {
                        By::Global => "global".to_owned(),
                        _ => format!("id{}", rng.between(1, self.ids)),
                    };
                    (limit.clone(), id)
                })
                .collect();
            let at_us = START_MS * 1000 + arrival_us;
            let when = (number as u64 + 1, at_us, rng.between(0, 200_000));
            send(
                &rng.pick(&isolates),
                &outcomes,
                when,
                asked,
                self.timeout_ms,
            );
        }
        if let Some(flush_us) = self.flush_us {
            let (sim_then, redis) = (sim.clone(), redis.clone());
            sim.at(START_MS * 1000 + flush_us, move || {
                redis.flush(sim_then.now_us())
            });
        }
        sim.run();
        let outcomes = outcomes.borrow();
        self.hold_against_history(&redis, &outcomes);
        self.hold_against_keys(&sim, &redis);
        (
            outcomes.admitted.len(),
            outcomes.refused.len(),
            outcomes.degraded.len(),
        )
    }

    fn isolate(
        &self,
        rng: &mut Rng,
        sim: &Rc<Sim>,
        redis: &Rc<FakeRedis>,
        path: Path,
        skew_ms: i64,
    ) -> Isolate {
        let mut rng = Rng::new(rng.next());
        let (timeout_us, spikes, faults) = (self.timeout_ms * 1000, self.spikes, self.faults);
        let stalls = self.stalls;
        let swing_us = self.swing_ms * 1000;
        let skew_us = skew_ms * 1000;
        let mut clock_rng = Rng::new(rng.next());
        let network = move |_: &_| {
            let (mut request_us, mut response_us) = match path {
                Path::Near => (rng.between(300, 9_000), rng.between(300, 9_000)),
                Path::Lopsided => {
                    let long = rng.between(80_000, 90_000).min(timeout_us * 4 / 5);
                    let short = rng.between(100, 2_000);
                    if rng.chance(50) {
                        (long, short)
                    } else {
                        (short, long)
                    }
                }
                Path::Far => {
                    let trip = rng.between(timeout_us * 2 / 3, timeout_us * 9 / 10);
                    let request = rng.between(0, trip);
                    (request, trip - request)
                }
            };
            if spikes && rng.chance(15) {
                let most_us = if stalls {
                    8 * timeout_us
                } else {
                    2 * timeout_us
                };
                let spike = rng.between(0, most_us);
                if rng.chance(50) {
                    request_us += spike
                } else {
                    response_us += spike
                }
            }
            let mut passage = Passage::new(request_us, response_us);
            passage.is_late_anyway = stalls;
            passage.gap_us = rng.pick(&[0, 0, 100, timeout_us / 80]);
            if faults && rng.chance(10) {
                use RedisErrorKind::{Open, Rejected, Transport};
                let after = rng.chance(50);
                passage.fault = match after {
                    true => Fault::After(Transport),
                    false => Fault::Before(rng.pick(&[Open, Rejected, Transport])),
                };
            }
            passage
        };
        let isolate = Isolate::new(sim, redis, network);
        isolate.edge.skew_us.set(skew_us);
        if swing_us > 0 {
            let end_us = self.arrivals_us.last().unwrap() + 1;
            for _ in 0..20 {
                let skew = isolate.edge.skew_us.clone();
                let wrong_us = skew_us + clock_rng.between(0, swing_us) as i64;
                let at_us = START_MS * 1000 + clock_rng.between(0, end_us);
                sim.at(at_us, move || skew.set(wrong_us));
            }
        }
        isolate
    }

    fn hold_against_history(&self, redis: &FakeRedis, outcomes: &Outcomes) {
        for (base, stretches) in histories(&redis.ran.borrow(), &outcomes.admitted) {
            let name = base.rsplit_once(':').unwrap().1;
            let limit = self.limits.iter().find(|limit| limit.name == name).unwrap();
            if limit.shadow {
                continue;
            }
            for stretch in stretches {
                let most = most_in_any_window(&stretch.admitted, limit.window_ms * 1000);
                let allowed = u64::from(limit.requests) + stretch.crossed;
                assert!(
                    most <= allowed,
                    "{most} of {allowed} in a window of {base}; EDGEWEIR_SEED={}: {}",
                    self.seed,
                    self.describe()
                );
            }
        }
    }

    /// No refund has wrapped around, and every key ends.
    fn hold_against_keys(&self, sim: &Sim, redis: &FakeRedis) {
        for (key, ttl_ms) in redis.ttls_ms(sim.now_us()) {
            let total = u32::from_be_bytes(redis.get(&key).unwrap()[..4].try_into().unwrap());
            assert!(
                total < 1 << 31,
                "{key} holds {total}; EDGEWEIR_SEED={}",
                self.seed
            );
            assert!(
                ttl_ms.is_some() || self.faults || self.spikes,
                "{key} never ends; EDGEWEIR_SEED={}: {}",
                self.seed,
                self.describe()
            );
        }
    }
}

fn draw_limit(rng: &mut Rng, at: u64) -> Limit {
    let requests = match rng.between(0, 9) {
        0 => 1,
        1 => 32_767,
        2 => rng.between(32_768, 2_000_000),
        _ => rng.between(2, 40),
    };
    let window_ms = rng.pick(&[
        2_500, 3_001, 7_777, 10_000, 60_000, 61_703, 600_000, 3_600_000,
    ]);
    let by = rng.pick(&[By::Ip, By::User, By::Global]);
    Limit {
        per: rng.pick(&[Per::Route, Per::All]),
        // About 3 to 40 requests fill it.
        cost: Cost::flat((requests / rng.between(3, 40)).max(1) as u32),
        ..Limit::new(format!("limit{at}"), requests as u32, window_ms, by)
    }
}

/// Steady, or in bursts: around the epochs' boundaries, and again one window later.
fn draw_arrivals(rng: &mut Rng, limits: &[Limit], timeout_ms: u64) -> Vec<u64> {
    let limit = rng.pick(limits);
    let window_us = limit.window_ms * 1000;
    let bucket_us = Window::new(&limit, limit.requests, timeout_ms).bucket_ms() * 1000;
    let fill = u64::from(limit.requests / limit.cost.miss) + 1;
    let mut arrivals_us = Vec::new();
    if rng.chance(35) {
        let mean_us = window_us as f64 / (fill * rng.between(1, 3)) as f64;
        let mut at_us = 0;
        while at_us < 3 * window_us && arrivals_us.len() < 250 {
            at_us += rng.gap_us(mean_us);
            arrivals_us.push(at_us);
        }
        return arrivals_us;
    }
    let until_boundary_us = window_us - START_MS * 1000 % window_us;
    for _ in 0..rng.between(1, 3) {
        let mut at_us = match rng.chance(60) {
            // In the last buckets of an epoch, or the first of the next.
            true => {
                (until_boundary_us + rng.between(0, 4 * bucket_us)).saturating_sub(2 * bucket_us)
            }
            false => rng.between(0, window_us),
        };
        for _ in 0..rng.between(2, 4) {
            let width_us = rng.pick(&[1_000, 50_000, 300_000, bucket_us]);
            for _ in 0..(fill * 3 / 2).clamp(1, 45) {
                arrivals_us.push(at_us + rng.between(0, width_us));
            }
            // Its echo comes when the first may just be forgotten.
            let early_us = rng.between(0, bucket_us + bucket_us / 2);
            at_us += window_us.saturating_sub(early_us);
        }
    }
    arrivals_us.sort_unstable();
    arrivals_us
}

/// What a shadow has no room for is admitted: so it stands where it counts, also when a clock is
/// half a minute slow and nobody knows it yet.
#[test]
fn a_spent_shadow_does_not_loosen_the_limit_beside_it() {
    for algorithm in [Algorithm::SlidingWindow, Algorithm::SlidingLog] {
        let desk = Desk::new();
        let real = Limit {
            algorithm,
            ..minute(100)
        };
        let shadow = Limit {
            name: "shadow".to_owned(),
            requests: 10,
            shadow: true,
            ..real.clone()
        };
        let limits = [real, shadow];
        desk.wait(20_000);
        desk.isolate.edge.skew_us.set(-30_000_000);
        let at_once = (0..100).map(|_| desk.check_later(&limits, Vec::new()));
        let checked = desk.sim.block_on(join_all(at_once.collect::<Vec<_>>()));
        let is_admitted = |checked: &&Checked| checked.verdict == Verdict::Admitted;
        let first = checked.iter().filter(is_admitted).count();
        checked.iter().for_each(|checked| desk.send(checked));
        assert!(first >= 90, "{algorithm:?}: {first}");
        desk.wait(33_000);
        let other = desk.beside();
        let after: Vec<Checked> = (0..100).map(|_| other.check(&limits)).collect();
        let second = after.iter().filter(is_admitted).count();
        assert!(first + second <= 100, "{algorithm:?}: {first} and {second}");
    }
}

/// Random limits, costs, isolates, raw clocks hours apart, latencies to beyond the
/// timeout, lost and broken trips, refunds in flight, bursts on both sides of every
/// boundary, flushed keys: at most L in any trailing window.
#[test]
fn never_above_the_limit_in_any_trailing_window() {
    let first = first_seed();
    let mut all = (0, 0, 0);
    for seed in first..first + CASES {
        let case = Case::draw(seed);
        let (admitted, refused, degraded) = case.run();
        if !case.spikes && !case.faults {
            assert!(
                admitted > 0 || degraded == 0,
                "nothing works; EDGEWEIR_SEED={seed}: {}",
                case.describe()
            );
        }
        all = (all.0 + admitted, all.1 + refused, all.2 + degraded);
    }
    println!(
        "seeds {first}..{}: (admitted, refused, degraded) = {all:?}",
        first + CASES
    );
    assert!(
        all.0 > 5_000 && all.1 > 5_000,
        "the cases put no pressure on: {all:?}"
    );
    assert!(all.2 * 5 < all.0 + all.1, "too often degraded: {all:?}");
}

/// A burst on isolates that know nothing yet and whose clocks are wrong: exactly the
/// limit is admitted, whoever has to correct himself on the way.
#[test]
fn a_burst_on_cold_isolates_with_wrong_clocks_admits_the_limit() {
    for (skews_ms, start_ms) in [
        ([0, 0, 0, 0], 20_000),
        ([-5_000, 3_000, 20_000, -15_000], 25_000),
        ([-400, 700, 2_000, -1_500], 30_000),
        ([-36_000_000, 5_000, 40_000, 0], 20_000),
    ] {
        let sim = Sim::new(1_770_000_000_000 + start_ms);
        let redis = Rc::new(FakeRedis::default());
        let outcomes = Rc::new(RefCell::new(Outcomes::default()));
        let limit = crate::sim::traffic::limit("minute", 100, 60_000, By::Global);
        let mut rng = Rng::new(first_seed());
        for (index, skew_ms) in skews_ms.iter().enumerate() {
            let mut paths = Rng::new(rng.next());
            let isolate = Isolate::new(&sim, &redis, move |_| {
                let mut passage =
                    Passage::new(paths.between(300, 200_000), paths.between(300, 200_000));
                passage.is_late_anyway = true;
                passage
            });
            isolate.edge.skew_us.set(skew_ms * 1000);
            for number in 0..100 {
                let tag = index as u64 * 100 + number + 1;
                let at_us = sim.now_us() + rng.between(0, 20_000);
                let asked = vec![(limit.clone(), "global".to_owned())];
                send(&isolate, &outcomes, (tag, at_us, 0), asked, 150);
            }
        }
        sim.run();
        let outcomes = outcomes.borrow();
        let counts = (outcomes.admitted.len(), outcomes.degraded.len());
        println!("{skews_ms:?}: {counts:?}; EDGEWEIR_SEED={}", first_seed());
        assert!(counts.0 <= 100, "{skews_ms:?}: {counts:?}");
        assert!(counts.0 >= 98, "{skews_ms:?}: {counts:?}");
    }
}

/// The same where it begins just before an epoch ends: what the new epoch has room for is
/// asked for among charges of refused requests that are on their way back, so some of it may
/// stay. By what margin goes by how far away Redis is.
#[test]
fn a_burst_astride_a_boundary_stays_below_the_limit_by_little() {
    for (one_way_us, least) in [(20_000, 80), (60_000, 70), (200_000, 40)] {
        let counts: Vec<usize> = [5, 20, 40, 60, 80, 100, 150, 200, 300, 400, 600]
            .into_iter()
            .flat_map(|before_ms| {
                (first_seed()..first_seed() + 4).map(move |seed| (before_ms, seed))
            })
            .map(|(before_ms, seed)| burst_before_a_boundary(seed, before_ms, one_way_us))
            .collect();
        println!("trips of at most {one_way_us} us each way: {counts:?}");
        let first = first_seed();
        assert!(
            counts.iter().all(|count| (least..=100).contains(count)),
            "EDGEWEIR_SEED={first}"
        );
        let is_full = |count: &&usize| **count >= 98;
        assert!(counts.iter().filter(is_full).count() * 2 > counts.len());
    }
}

/// How many of a limit of 100 are admitted when 2 000 requests come within 0.3 s to four
/// cold isolates, the first of them so long before an epoch ends.
fn burst_before_a_boundary(seed: u64, before_ms: u64, one_way_us: u64) -> usize {
    let sim = Sim::new(1_770_000_060_000 - before_ms);
    let redis = Rc::new(FakeRedis::default());
    let outcomes = Rc::new(RefCell::new(Outcomes::default()));
    let limit = crate::sim::traffic::limit("minute", 100, 60_000, By::Global);
    let mut rng = Rng::new(seed);
    for index in 0..4 {
        let mut paths = Rng::new(rng.next());
        let isolate = Isolate::new(&sim, &redis, move |_| Passage {
            is_late_anyway: true,
            ..Passage::new(
                paths.between(300, one_way_us),
                paths.between(300, one_way_us),
            )
        });
        for number in 0..500 {
            let tag = index * 500 + number + 1;
            let at_us = sim.now_us() + rng.between(0, 300_000);
            let asked = vec![(limit.clone(), "global".to_owned())];
            send(&isolate, &outcomes, (tag, at_us, 0), asked, 150);
        }
    }
    sim.run();
    let outcomes = outcomes.borrow();
    assert_eq!(outcomes.degraded.len(), 0, "EDGEWEIR_SEED={seed}");
    outcomes.admitted.len()
}

/// A late answer that stays in its slot may still have run in the next epoch, where the
/// last slot of an epoch is short: only Redis' time tells.
#[test]
fn a_late_charge_at_the_end_of_an_epoch_is_not_admitted_on_trust() {
    const WINDOW_MS: u64 = 10_020;
    let desk = Desk::new();
    let limit = crate::sim::traffic::limit("short", 6, WINDOW_MS, By::Ip);
    let sim = desk.sim.clone();
    let position_ms = move || sim.now_us() / 1000 % WINDOW_MS;
    desk.wait(WINDOW_MS - position_ms() + 5_000);
    // Lopsided: this isolate's clock is behind by as much as a good sample may be wrong.
    let lopsided = Passage::new(1_000, 80_000);
    desk.passages.borrow_mut().push_back(lopsided);
    desk.admit(std::slice::from_ref(&limit), 1);
    desk.wait(9_804 - position_ms());
    let late = Passage {
        is_late_anyway: true,
        ..Passage::new(226_000, 5_000)
    };
    desk.passages.borrow_mut().push_back(late);
    let first = desk.check_later(std::slice::from_ref(&limit), Vec::new());
    let beside = desk.beside();
    let (sim, others) = (desk.sim.clone(), limit.clone());
    let next = async move {
        let until = sim.sleep_until(sim.now_us() + (WINDOW_MS + 1 - 9_804) * 1000);
        until.await;
        let checks = (0..8).map(|_| beside.check_later(std::slice::from_ref(&others), Vec::new()));
        let checked = edgeweir::together::all(checks).await;
        let admitted = checked
            .iter()
            .filter(|checked| checked.verdict == Verdict::Admitted);
        admitted.count()
    };
    let (first, next) = desk.sim.block_on(futures_util::future::join(first, next));
    let is_admitted = first.verdict == Verdict::Admitted && !first.degraded;
    assert!(1 + usize::from(is_admitted) + next <= 6, "{first:?} {next}");
}
