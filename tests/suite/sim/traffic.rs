//! Requests of many visitors on many isolates, and what became of them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use edgeweir::limit::{self, Charge, Checked, Memory, Verdict};
use edgeweir::policy::{By, Limit, RedisDown};
use edgeweir::ports::{Clock, Redis, Store};

use super::clock::Sim;
use super::redis::FakeRedis;
use super::{Edge, Passage};
use edgeweir::redis::Batch;

pub fn limit(name: &str, requests: u32, window_ms: u64, by: By) -> Limit {
    Limit::new(name, requests, window_ms, by)
}

/// One limit with the id that it counts.
pub type Asked = (Limit, String);

/// One isolate: its ports and its memory.
#[derive(Clone)]
pub struct Isolate {
    pub edge: Edge,
    pub memory: Rc<RefCell<Memory>>,
}

impl Isolate {
    pub fn new(
        sim: &Rc<Sim>,
        redis: &Rc<FakeRedis>,
        network: impl FnMut(&Batch) -> Passage + 'static,
    ) -> Self {
        Self {
            edge: Edge::new(sim, redis, network),
            memory: Rc::default(),
        }
    }

    /// One request's check, under its own tag.
    pub async fn check(&self, tag: u64, asked: &[Asked], timeout_ms: u64) -> Checked {
        let charges: Vec<Charge<'_>> = asked
            .iter()
            .map(|(limit, id)| Charge::new(limit, id.clone(), "route"))
            .collect();
        let edge = self.edge.tagged(tag);
        limit::check(
            &self.memory,
            &edge,
            timeout_ms,
            RedisDown::Closed,
            &charges,
            Vec::new(),
        )
        .await
    }
}

/// What became of all requests.
#[derive(Default)]
pub struct Outcomes {
    /// Tags that Redis admitted.
    pub admitted: BTreeSet<u64>,
    pub refused: BTreeSet<u64>,
    pub degraded: BTreeSet<u64>,
}

/// Sends a request at that time and its deferred work `defer_us` after the answer.
pub fn send(
    isolate: &Isolate,
    outcomes: &Rc<RefCell<Outcomes>>,
    (tag, at_us, defer_us): (u64, u64, u64),
    asked: Vec<Asked>,
    timeout_ms: u64,
) {
    let (isolate, outcomes) = (isolate.clone(), outcomes.clone());
    let sim = isolate.edge.sim.clone();
    let arrival = sim.sleep_until(at_us);
    sim.spawn(async move {
        arrival.await;
        let checked = isolate.check(tag, &asked, timeout_ms).await;
        {
            let mut outcomes = outcomes.borrow_mut();
            let tags = match (checked.degraded, checked.verdict) {
                (false, Verdict::Admitted) => &mut outcomes.admitted,
                (false, Verdict::Refused { .. }) => &mut outcomes.refused,
                _ => &mut outcomes.degraded,
            };
            tags.insert(tag);
        }
        isolate.edge.sleep(defer_us / 1000).await;
        for (shard, batch) in checked.deferred {
            let edge = isolate.edge.tagged(tag);
            let _unanswered = edge
                .pipeline(Store::Limits(shard), &batch, timeout_ms)
                .await;
        }
    });
}
