//! One isolate at a desk: each of its trips can be told how to pass, and what reached
//! Redis can be read off.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::rc::Rc;

use edgeweir::limit::{self, Charge, Checked, Verdict};
use edgeweir::policy::{By, Cost, Limit, RedisDown};
use edgeweir::ports::{Redis, Store};
use edgeweir::redis::Command;

use super::clock::Sim;
use super::redis::FakeRedis;
use super::traffic::{Isolate, limit};
use super::{Fault, Passage};

/// Twenty seconds into a window of 60 s.
pub const START_MS: u64 = 1_770_000_020_000;
pub const EPOCH: u64 = START_MS / 60_000;
pub const TIMEOUT_MS: u64 = 150;

/// One isolate whose next trips pass as told, and then in 2 ms each way.
pub struct Desk {
    pub sim: Rc<Sim>,
    pub redis: Rc<FakeRedis>,
    pub isolate: Isolate,
    pub passages: Rc<RefCell<VecDeque<Passage>>>,
    pub redis_down: RedisDown,
    read_until: RefCell<usize>,
}

impl Desk {
    pub fn new() -> Self {
        let sim = Sim::new(START_MS);
        let redis = Rc::new(FakeRedis::default());
        let passages: Rc<RefCell<VecDeque<Passage>>> = Rc::default();
        let next = passages.clone();
        let isolate = Isolate::new(&sim, &redis, move |_| {
            let told = next.borrow_mut().pop_front();
            told.unwrap_or(Passage::new(2_000, 2_000))
        });
        Self {
            sim,
            redis,
            isolate,
            passages,
            redis_down: RedisDown::Local,
            read_until: RefCell::new(0),
        }
    }

    /// Another isolate on the same Redis.
    pub fn beside(&self) -> Self {
        Self {
            sim: self.sim.clone(),
            redis: self.redis.clone(),
            isolate: Isolate::new(&self.sim, &self.redis, |_| Passage::new(2_000, 2_000)),
            passages: Rc::default(),
            redis_down: RedisDown::Local,
            read_until: RefCell::new(0),
        }
    }

    pub fn break_next(&self, fault: Fault) {
        let passage = Passage {
            fault,
            ..Passage::new(2_000, 2_000)
        };
        self.passages.borrow_mut().push_back(passage);
    }

    pub fn pass_next(&self) {
        self.break_next(Fault::None);
    }

    pub fn check_later(
        &self,
        limits: &[Limit],
        riders: Vec<Command>,
    ) -> impl Future<Output = Checked> + use<> {
        let (isolate, redis_down, limits) =
            (self.isolate.clone(), self.redis_down, limits.to_vec());
        async move {
            let charges: Vec<Charge<'_>> = limits.iter().map(charge).collect();
            let Isolate { edge, memory } = &isolate;
            limit::check(memory, edge, TIMEOUT_MS, redis_down, &charges, riders).await
        }
    }

    pub fn check(&self, limits: &[Limit]) -> Checked {
        self.sim.block_on(self.check_later(limits, Vec::new()))
    }

    pub fn admit(&self, limits: &[Limit], times: usize) {
        for _ in 0..times {
            assert_eq!(self.check(limits).verdict, Verdict::Admitted);
        }
    }

    pub fn refusal_ms(&self, limits: &[Limit]) -> u64 {
        match self.check(limits).verdict {
            Verdict::Refused { retry_after_ms, .. } => retry_after_ms,
            verdict => panic!("{verdict:?}"),
        }
    }

    pub fn send(&self, checked: &Checked) {
        for (shard, batch) in checked.deferred.clone() {
            let edge = self.isolate.edge.clone();
            let sent = async move {
                edge.pipeline(Store::Limits(shard), &batch, TIMEOUT_MS)
                    .await
            };
            assert!(self.sim.block_on(sent).is_ok());
        }
    }

    pub fn wait(&self, duration_ms: u64) {
        let until = self.sim.sleep_until(self.sim.now_us() + duration_ms * 1000);
        self.sim.block_on(until);
    }

    /// The commands since the last call, as text.
    pub fn commands(&self) -> Vec<String> {
        let ran = self.redis.ran.borrow();
        let from = self.read_until.replace(ran.len());
        ran[from..].iter().map(|ran| ran.words.join(" ")).collect()
    }

    /// The total of a limit's current epoch.
    pub fn total(&self, limit: &Limit) -> u32 {
        let bytes = self
            .redis
            .get(&format!("ratelimit:id:route:{}:{EPOCH}", limit.name));
        bytes.map_or(0, |bytes| {
            u32::from_be_bytes(bytes[..4].try_into().unwrap())
        })
    }
}

pub fn charge(limit: &Limit) -> Charge<'_> {
    Charge::new(limit, "id".to_owned(), "route")
}

pub fn minute(requests: u32) -> Limit {
    limit("minute", requests, 60_000, By::Ip)
}

pub fn costing(limit: &Limit, cost: u32) -> Limit {
    Limit {
        cost: Cost::flat(cost),
        ..limit.clone()
    }
}
