//! The limiter itself on a trace: real isolates' memories, in virtual time, on the
//! suite's Redis.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use edgeweir::limit::Verdict;
use edgeweir::policy::{Algorithm, By, Limit};
use edgeweir::ports::{Redis, Store};

use crate::scenario::{Arrival, Scenario, WINDOW_MS};
use crate::score::{Answers, Bound, Outcome};
use crate::sim::clock::Sim;
use crate::sim::redis::{FakeRedis, Ran};
use crate::sim::traffic::{Asked, Isolate};
use crate::sim::{Passage, Rng};
use crate::traces::START_US;

pub struct Variant {
    pub name: String,
    pub limit: Limit,
    pub bound: Bound,
}

impl Variant {
    pub fn all(scenario: &Scenario) -> Vec<Self> {
        let requests = scenario.requests;
        let most = u64::from(requests);
        let bucket = Algorithm::TokenBucket { burst: requests };
        let all = [
            (Algorithm::SlidingWindow, false, Bound::Trailing(most)),
            (Algorithm::SlidingWindow, true, Bound::Trailing(most)),
            (Algorithm::SlidingLog, false, Bound::Trailing(most)),
            (bucket, false, Bound::Trailing(2 * most)),
            (Algorithm::FixedWindow, false, Bound::Aligned(most)),
        ];
        let is_wanted = |(algorithm, ..): &(Algorithm, bool, Bound)| {
            !scenario.is_for_leases || *algorithm == Algorithm::SlidingWindow
        };
        let variant = |(algorithm, lease, bound): (Algorithm, bool, Bound)| Self {
            name: format!(
                "{}{}",
                match algorithm {
                    Algorithm::SlidingWindow => "sliding-window",
                    Algorithm::SlidingLog => "sliding-log",
                    Algorithm::TokenBucket { .. } => "token-bucket",
                    Algorithm::FixedWindow => "fixed-window",
                },
                if lease { ", leases" } else { "" }
            ),
            limit: Limit {
                algorithm,
                lease,
                ..Limit::new("lab", requests, WINDOW_MS, By::Ip)
            },
            bound,
        };
        all.into_iter().filter(is_wanted).map(variant).collect()
    }
}

/// What became of a request, and when it was answered.
#[derive(Clone, Copy)]
struct Decided {
    is_admitted: bool,
    is_degraded: bool,
    at_us: u64,
}

pub fn run(scenario: &Scenario, arrivals: &[Arrival], limit: &Limit) -> Answers {
    let sim = Sim::new(START_US / 1000);
    let redis = Rc::new(FakeRedis::default());
    let isolates = isolates(scenario, &sim, &redis);
    let decided: Rc<RefCell<Vec<Option<Decided>>>> =
        Rc::new(RefCell::new(vec![None; arrivals.len()]));
    for (index, arrival) in arrivals.iter().enumerate() {
        let (isolate, decided) = (isolates[arrival.isolate].clone(), decided.clone());
        let asked: Vec<Asked> = vec![(limit.clone(), format!("id{}", arrival.id))];
        let (sim_then, at_us) = (sim.clone(), arrival.at_us);
        let timeout_ms = scenario.world.timeout_ms;
        // Begun when it arrives: nothing of it is there before.
        let (tag, inner) = (index as u64 + 1, sim.clone());
        sim.at(at_us, move || {
            inner.spawn(async move {
                let checked = isolate.check(tag, &asked, timeout_ms).await;
                decided.borrow_mut()[index] = Some(Decided {
                    is_admitted: checked.verdict == Verdict::Admitted && !checked.degraded,
                    is_degraded: checked.degraded,
                    at_us: sim_then.now_us(),
                });
                let edge = isolate.edge.tagged(tag);
                for (shard, batch) in checked.deferred {
                    let _unanswered = edge
                        .pipeline(Store::Limits(shard), &batch, timeout_ms)
                        .await;
                }
            });
        });
    }
    sim.run();
    let decided: Vec<Decided> = (decided.borrow().iter())
        .map(|decided| decided.expect("every request is answered"))
        .collect();
    let ran = redis.ran.borrow();
    Answers {
        outcomes: outcomes(arrivals, &decided, &ran),
        commands: ran.len() as u64,
        degraded: decided.iter().filter(|decided| decided.is_degraded).count() as u64,
    }
}

fn isolates(scenario: &Scenario, sim: &Rc<Sim>, redis: &Rc<FakeRedis>) -> Vec<Isolate> {
    let mut seeds = scenario.world_rng(3);
    let (low, high) = scenario.world.leg_us;
    (scenario.skews_us().into_iter())
        .map(|skew_us| {
            let mut legs = Rng::new(seeds.next());
            let isolate = Isolate::new(sim, redis, move |_| {
                Passage::new(legs.between(low, high), legs.between(low, high))
            });
            isolate.edge.skew_us.set(skew_us);
            isolate
        })
        .collect()
}

/// When each was decided: by Redis' clock and in its order, at the last charge that the
/// request made before its answer. One that made none, because its isolate decided
/// alone, when it was answered.
fn outcomes(arrivals: &[Arrival], decided: &[Decided], ran: &[Ran]) -> Vec<Outcome> {
    let mut charged: BTreeMap<usize, (u64, usize)> = BTreeMap::new();
    for (order, ran) in ran.iter().enumerate() {
        let Some(index) = (ran.tag as usize).checked_sub(1) else {
            continue;
        };
        if is_charge(ran) && ran.at_us <= decided[index].at_us {
            charged.insert(index, (ran.at_us, order));
        }
    }
    (decided.iter().zip(arrivals).enumerate())
        .map(|(index, (decided, arrival))| {
            let (at_us, order) = match charged.get(&index) {
                Some(charged) => *charged,
                None => (decided.at_us.max(arrival.at_us), ran.len() + index),
            };
            Outcome {
                admitted: decided.is_admitted,
                at_us,
                order,
            }
        })
        .collect()
}

/// Whether a command takes from a limit. Reads, expiries, refunds and moves do not.
fn is_charge(ran: &Ran) -> bool {
    let words: Vec<&str> = ran.words.iter().map(String::as_str).collect();
    match words[..] {
        ["BITFIELD", _, ref operations @ ..] => {
            let first = operations.iter().position(|word| *word == "INCRBY");
            first.is_some_and(|at| match operations[at..] {
                [_, _, "0", by, ..] => !by.starts_with('-'),
                _ => false,
            })
        }
        // A log's units that are only moved were charged before.
        ["ZADD", _, "XX", ..] => false,
        ["ZADD" | "INCR" | "SET", ..] => true,
        ["INCRBY", _, by] => !by.starts_with('-'),
        _ => false,
    }
}
