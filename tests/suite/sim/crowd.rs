//! Many requests for one limit on many isolates: when each was admitted, and at what cost.

use std::cell::RefCell;
use std::rc::Rc;

use edgeweir::limit::{self, Charge, Memory, Verdict};
use edgeweir::policy::{Limit, RedisDown};
use edgeweir::ports::{Redis, Store};

use super::clock::Sim;
use super::redis::FakeRedis;
use super::{Edge, Passage, Rng};

pub const TIMEOUT_MS: u64 = 150;
pub const START_MS: u64 = 1_770_000_123_457;

/// One run: what each isolate was asked, when.
pub struct Crowd {
    pub seed: u64,
    pub limit: Limit,
    pub isolates: u64,
    pub arrivals_us: Vec<u64>,
    pub spikes: bool,
    pub skewed: bool,
    pub flush: bool,
}

#[derive(Default)]
pub struct Outcome {
    /// When each admitted request was admitted, by Redis' clock.
    pub admitted_us: Vec<u64>,
    /// Which of them cost no trip.
    pub spent: usize,
    pub commands: usize,
}

impl Crowd {
    pub fn run(&self) -> Outcome {
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
    let last = (ran.iter().rev()).find(|ran| {
        ran.tag == edge.tag
            && matches!(ran.words[0].as_str(), "BITFIELD" | "ZADD" | "ZREM" | "ZINCRBY")
            // A log's unit that is only moved.
            && ran.words.get(2).is_none_or(|word| word != "XX")
    })?;
    let has = |wanted: [&str; 2]| last.words.windows(2).any(|words| words == wanted);
    let is_charge = match last.words[0].as_str() {
        "BITFIELD" => has(["OVERFLOW", "FAIL"]),
        "ZINCRBY" => !last.words[2].starts_with('-'),
        name => name == "ZADD",
    };
    is_charge.then_some(last.at_us)
}

pub fn most_in_any_window(times_us: &[u64], window_us: u64) -> usize {
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

pub fn poisson(rng: &mut Rng, load: f64, limit: &Limit, windows: u64) -> Vec<u64> {
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
