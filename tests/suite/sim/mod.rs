//! The simulated world: virtual time, a Redis in memory, isolates with wrong clocks,
//! and a network that delays, loses and breaks. Every run follows from its seed.

pub mod clock;
pub mod crowd;
pub mod desk;
pub mod gates;
pub mod hashes;
pub mod history;
pub mod redis;
pub mod traffic;
pub mod views;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;

use edgeweir::ports::{Clock, Random, Redis, Store};
use edgeweir::redis::{Batch, RedisError, RedisErrorKind, Reply};

use clock::{Sim, Slot};
use redis::FakeRedis;

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough to draw cases.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.next() as usize % from.len()].clone()
    }

    /// The gap before the next arrival of a Poisson process.
    pub fn gap_us(&mut self, mean_us: f64) -> u64 {
        let uniform = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        (-(1.0 - uniform).ln() * mean_us) as u64
    }
}

/// The first seed of a test: `EDGEWEIR_SEED`, else the same every time.
pub fn first_seed() -> u64 {
    match std::env::var("EDGEWEIR_SEED") {
        Ok(seed) => seed.parse().expect("EDGEWEIR_SEED is a number"),
        Err(_) => 1,
    }
}

/// What happens to one trip.
#[derive(Debug, Clone)]
pub struct Passage {
    pub request_us: u64,
    pub response_us: u64,
    /// Between two commands of a batch that is not atomic.
    pub gap_us: u64,
    pub fault: Fault,
    /// Hands over an answer that is later than the timeout, as a port does whose
    /// isolate was held up.
    pub is_late_anyway: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    None,
    /// It fails like this and nothing has run.
    Before(RedisErrorKind),
    /// All of it has run and it fails like this.
    After(RedisErrorKind),
    /// All of it has run and this comes back.
    Replies(Vec<Reply>),
}

impl Passage {
    pub fn new(request_us: u64, response_us: u64) -> Self {
        Self {
            request_us,
            response_us,
            gap_us: 0,
            fault: Fault::None,
            is_late_anyway: false,
        }
    }
}

/// How trips of one isolate pass; the batch is for tests that pick one to break.
pub type Network = Rc<RefCell<dyn FnMut(&Batch) -> Passage>>;

/// The ports of one isolate, or of one request of it when tagged.
#[derive(Clone)]
pub struct Edge {
    pub sim: Rc<Sim>,
    pub redis: Rc<FakeRedis>,
    /// By how much the raw clock is wrong.
    pub skew_us: Rc<Cell<i64>>,
    pub network: Network,
    /// Written beside each command that this port sends.
    pub tag: u64,
    /// Trips of this port.
    pub trips: Rc<Cell<u64>>,
}

impl Edge {
    pub fn new(
        sim: &Rc<Sim>,
        redis: &Rc<FakeRedis>,
        network: impl FnMut(&Batch) -> Passage + 'static,
    ) -> Self {
        Self {
            sim: sim.clone(),
            redis: redis.clone(),
            skew_us: Rc::default(),
            network: Rc::new(RefCell::new(network)),
            tag: 0,
            trips: Rc::default(),
        }
    }

    /// The same isolate for one request.
    pub fn tagged(&self, tag: u64) -> Self {
        Self {
            tag,
            trips: Rc::default(),
            ..self.clone()
        }
    }
}

impl Random for Edge {
    /// Different for every request of a run.
    fn random(&self) -> u128 {
        let drawn = self.redis.draws.get();
        self.redis.draws.set(drawn + 1);
        u128::from(Rng::new(self.sim.now_us() << 20 ^ drawn).next())
    }
}

impl Clock for Edge {
    fn now_ms(&self) -> u64 {
        self.sim.now_us().saturating_add_signed(self.skew_us.get()) / 1000
    }

    fn sleep(&self, duration_ms: u64) -> impl Future<Output = ()> {
        self.sim.sleep_until(self.sim.now_us() + duration_ms * 1000)
    }
}

impl Redis for Edge {
    async fn pipeline(
        &self,
        _store: Store,
        batch: &Batch,
        timeout_ms: u64,
    ) -> Result<Vec<Reply>, RedisError> {
        self.trips.set(self.trips.get() + 1);
        let passage = (self.network.borrow_mut())(batch);
        if let (Fault::Before(kind), 0, 0) =
            (&passage.fault, passage.request_us, passage.response_us)
        {
            // As of a breaker that is open: the failure is there before anything is polled.
            return Err(RedisError::new(*kind, "simulated"));
        }
        let slot = Slot::new();
        if !passage.is_late_anyway {
            let error = RedisError::new(RedisErrorKind::Timeout, "simulated");
            let deadline_us = self.sim.now_us() + timeout_ms * 1000;
            slot.fill_at(&self.sim, deadline_us, Err(error));
        }
        let run = Run {
            sim: self.sim.clone(),
            redis: self.redis.clone(),
            batch: batch.clone(),
            tag: self.tag,
            passage,
            replies: Vec::new(),
            slot: slot.clone(),
        };
        let arrives_us = self.sim.now_us() + run.passage.request_us;
        self.sim.at(arrives_us, move || run.arrive());
        slot.wait().await
    }
}

/// A batch at Redis. It goes on whether or not anybody still waits for it.
struct Run {
    sim: Rc<Sim>,
    redis: Rc<FakeRedis>,
    batch: Batch,
    tag: u64,
    passage: Passage,
    replies: Vec<Reply>,
    slot: Slot<Result<Vec<Reply>, RedisError>>,
}

impl Run {
    fn arrive(self) {
        if let Fault::Before(kind) = self.passage.fault {
            return self.leave(Err(RedisError::new(kind, "simulated")));
        }
        self.redis.trips.set(self.redis.trips.get() + 1);
        self.go_on();
    }

    fn go_on(mut self) {
        while let Some(command) = self.batch.commands.get(self.replies.len()) {
            let reply = self.redis.run(self.sim.now_us(), self.tag, command);
            self.replies.push(reply);
            if !self.batch.atomic && self.passage.gap_us > 0 {
                let next_us = self.sim.now_us() + self.passage.gap_us;
                let sim = self.sim.clone();
                return sim.at(next_us, move || self.go_on());
            }
        }
        let answer = match &self.passage.fault {
            Fault::After(kind) => Err(RedisError::new(*kind, "simulated")),
            Fault::Replies(replies) => Ok(replies.clone()),
            _ => Ok(std::mem::take(&mut self.replies)),
        };
        self.leave(answer);
    }

    fn leave(self, answer: Result<Vec<Reply>, RedisError>) {
        let back_us = self.sim.now_us() + self.passage.response_us;
        self.slot.fill_at(&self.sim, back_us, answer);
    }
}
