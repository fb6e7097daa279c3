//! Penalties: isolates in the simulated world, wired as a gateway wires them, over a quota
//! that is exact and shared. Clients differ; the quota and the network do too.

mod bounds;
mod hammer;
mod honour;
mod pattern;
mod record;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::rc::Rc;

use edgeweir::penalty::{Ban, Moment, Penalties, Refusal, settle};
use edgeweir::policy::{By, Limit, Penalty};
use edgeweir::ports::{Clock, Log, Random, Redis, Store};
use edgeweir::redis::{Batch, Command, RedisError, Reply};

use super::sim::clock::Sim;
use super::sim::redis::FakeRedis;
use super::sim::{Edge, Passage, Rng};

/// Twenty seconds into a minute.
const START_MS: u64 = 1_770_000_020_000;
const IP: &str = "192.0.2.1";
const KEY: &str = "ratelimit:suspicious:192.0.2.1";

fn limit(requests: u32, window_ms: u64, after: u32) -> Limit {
    Limit {
        penalty: Some(Penalty {
            after,
            base_ms: 60_000,
            max_ms: 3_600_000,
        }),
        ..Limit::new("burst", requests, window_ms, By::Ip)
    }
}

/// Admits `requests` in any window, exactly and at once.
struct Quota {
    limit: Limit,
    admitted: RefCell<VecDeque<u64>>,
}

impl Quota {
    fn new(limit: &Limit) -> Rc<Self> {
        Rc::new(Self {
            limit: limit.clone(),
            admitted: RefCell::default(),
        })
    }

    /// `None`: admitted; else how long until it fits.
    fn ask(&self, now_ms: u64) -> Option<u64> {
        let mut admitted = self.admitted.borrow_mut();
        while admitted
            .front()
            .is_some_and(|at_ms| at_ms + self.limit.window_ms <= now_ms)
        {
            admitted.pop_front();
        }
        if admitted.len() < self.limit.requests as usize {
            admitted.push_back(now_ms);
            return None;
        }
        Some(admitted[0] + self.limit.window_ms - now_ms)
    }
}

/// What the visitor got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Got {
    Served,
    /// With his `Retry-After` in seconds.
    Refused(u64),
    Banned(Ban),
}

/// One isolate's ports and penalties.
#[derive(Clone)]
struct Isolate {
    edge: Edge,
    penalties: Rc<RefCell<Penalties>>,
    rng: Rc<RefCell<Rng>>,
    /// Of 100 batches so many run again, up to 5 s later.
    repeated: Rc<Cell<u64>>,
    /// Checks take no time: a schedule of many is run sooner.
    is_near: bool,
    /// Tasks that were begun and have not ended.
    looks: Rc<Cell<u64>>,
}

impl Isolate {
    fn new(sim: &Rc<Sim>, redis: &Rc<FakeRedis>, seed: u64) -> Self {
        Self::with(sim, redis, seed, |_| Passage::new(2_000, 2_000))
    }

    fn with(
        sim: &Rc<Sim>,
        redis: &Rc<FakeRedis>,
        seed: u64,
        network: impl FnMut(&Batch) -> Passage + 'static,
    ) -> Self {
        Self {
            edge: Edge::new(sim, redis, network),
            penalties: Rc::default(),
            rng: Rc::new(RefCell::new(Rng::new(seed))),
            repeated: Rc::default(),
            is_near: false,
            looks: Rc::default(),
        }
    }

    fn many(sim: &Rc<Sim>, redis: &Rc<FakeRedis>, seed: u64, count: u64) -> Vec<Self> {
        let isolate = |index| Self::new(sim, redis, seed ^ (index << 32));
        (0..count).map(isolate).collect()
    }

    fn now(&self) -> Moment {
        Moment {
            own_ms: self.now_ms(),
            redis_ms: self.edge.sim.now_us() / 1000,
        }
    }

    fn ban(&self) -> Option<Ban> {
        self.penalties.borrow().ban_of(IP, self.now())
    }

    /// The rider's trip, as part of a check.
    async fn ride(&self, ip: &str) {
        let rider = self.penalties.borrow().rider(ip, self.now());
        if self.is_near {
            if let Some(command) = rider {
                let reply = self.edge.redis.run(self.edge.sim.now_us(), 0, &command);
                let now = self.now();
                self.penalties.borrow_mut().learn(ip, &reply, now);
            }
            return;
        }
        let mut commands = vec![Command::new("TIME")];
        commands.extend(rider);
        let batch = Batch::pipeline(commands);
        if let Ok(replies) = self.pipeline(Store::Limits(0), &batch, 150).await
            && let [_, reply] = &replies[..]
        {
            let now = self.now();
            self.penalties.borrow_mut().learn(ip, reply, now);
        }
    }

    fn look(&self, ip: &str) {
        if self.penalties.borrow_mut().begin(ip, self.now()) {
            self.looks.set(self.looks.get() + 1);
            let (isolate, ip) = (self.clone(), ip.to_owned());
            let offset_ms = self.now().offset_ms();
            self.edge.sim.spawn(async move {
                settle(&isolate.penalties, &isolate, &ip, offset_ms).await;
                isolate.looks.set(isolate.looks.get() - 1);
            });
        }
    }

    /// A request as the gateway answers it; the origin says `status`.
    async fn request(&self, quota: &Quota, ip: &str, route: &str, status: u16) -> Got {
        let got = self.answer(quota, ip, route, status).await;
        self.look(ip);
        got
    }

    async fn answer(&self, quota: &Quota, ip: &str, route: &str, status: u16) -> Got {
        let ban = || self.penalties.borrow().ban_of(ip, self.now());
        if let Some(ban) = ban() {
            return Got::Banned(ban);
        }
        self.ride(ip).await;
        if let Some(ban) = ban() {
            return Got::Banned(ban);
        }
        let now = self.now();
        let mut penalties = self.penalties.borrow_mut();
        let Some(retry_after_ms) = quota.ask(now.redis_ms) else {
            penalties.answered(ip, &quota.limit, status, now);
            return Got::Served;
        };
        let refusal = Refusal {
            limit: &quota.limit,
            id: ip,
            route,
            retry_after_ms,
        };
        penalties.refused(ip, &refusal, now);
        Got::Refused(retry_after_ms.div_ceil(1000).max(1))
    }

    /// Refuses a request as any quota might, and looks.
    fn refuse(&self, limit: &Limit, retry_after_ms: u64) {
        let refusal = Refusal {
            limit,
            id: IP,
            route: "route",
            retry_after_ms,
        };
        self.penalties
            .borrow_mut()
            .refused(IP, &refusal, self.now());
        self.look(IP);
    }

    /// The same as `request` from outside the simulation.
    fn ask(&self, quota: &Rc<Quota>, route: &str, status: u16) -> Got {
        let (isolate, quota, route) = (self.clone(), quota.clone(), route.to_owned());
        let request = async move { isolate.request(&quota, IP, &route, status).await };
        self.edge.sim.block_on(request)
    }
}

impl Clock for Isolate {
    fn now_ms(&self) -> u64 {
        self.edge.now_ms()
    }

    fn sleep(&self, duration_ms: u64) -> impl Future<Output = ()> {
        self.edge.sleep(duration_ms)
    }
}

impl Random for Isolate {
    fn random(&self) -> u128 {
        let mut rng = self.rng.borrow_mut();
        u128::from(rng.next()) << 64 | u128::from(rng.next())
    }
}

impl Log for Isolate {
    fn log(&self, line: &str) {
        assert!(!line.contains(IP), "{line}");
    }
}

impl Redis for Isolate {
    async fn pipeline(
        &self,
        store: Store,
        batch: &Batch,
        timeout_ms: u64,
    ) -> Result<Vec<Reply>, RedisError> {
        let (chance, later_ms) = {
            let mut rng = self.rng.borrow_mut();
            (rng.between(0, 99), rng.between(1, 5_000))
        };
        if chance < self.repeated.get() {
            let (sim, redis, batch) = (&self.edge.sim, self.edge.redis.clone(), batch.clone());
            let at_us = sim.now_us() + later_ms * 1000;
            sim.at(at_us, move || {
                for command in &batch.commands {
                    redis.run(at_us, 0, command);
                }
            });
        }
        self.edge.pipeline(store, batch, timeout_ms).await
    }
}

fn pass(sim: &Rc<Sim>, duration_ms: u64) {
    let until = sim.sleep_until(sim.now_us() + duration_ms * 1000);
    sim.block_on(until);
}

/// What Redis holds of the address: strikes and the end of the last ban.
fn record(redis: &FakeRedis) -> Option<(u64, u64)> {
    let bytes = redis.get(KEY)?;
    let text = String::from_utf8(bytes).unwrap();
    let mut parts = text.split('\0').skip_while(|part| *part != "s").skip(1);
    let mut numbers = parts.next()?.split(' ').map(|n| n.parse::<u64>().unwrap());
    let until_ms = numbers.next()?;
    Some((numbers.next()?, until_ms))
}
