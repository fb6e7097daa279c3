//! The whole gateway in a simulated world: isolates on one Redis, a scripted origin, a
//! captured log. It runs requests as `src/edge` does: the whole flow owned by the
//! isolate, the visitor's answer taken out of it.
//!
//! Nothing here judges; nothing waits for real; every run follows from its seed.

mod ports;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use edgeweir::deferred;
use edgeweir::gateway::{Answer, Gateway, Settings, handle};
use edgeweir::http::{Headers, Request};
use edgeweir::jobs;
use edgeweir::policy::{Overrides, Policy};
use edgeweir::redis::known::Known;
use edgeweir::redis::{Batch, RedisError, Reply};
use futures_util::future::{AbortHandle, abortable};
use serde_json::Value;

use super::sim::clock::{Sim, Slot};
use super::sim::gates::Gates;
use super::sim::redis::FakeRedis;
use super::sim::{Edge, Passage, Rng};
use ports::Ports;

pub use ports::{Asked, Says};

/// Twenty seconds into a minute.
pub const START_MS: u64 = 1_770_000_020_000;

/// A policy in JSON whose members' order does not matter.
pub fn policy(value: &Value) -> Policy {
    policy_text(&value.to_string())
}

/// A policy in JSON; its errors are the test's.
pub fn policy_text(text: &str) -> Policy {
    Policy::from_json(text, &Overrides::default()).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

type Network = Box<dyn FnMut(&Batch) -> Passage>;
type Script = Box<dyn FnMut(&Asked) -> Says>;
type Watcher = Box<dyn FnMut(u64, &Batch, &Result<Vec<Reply>, RedisError>)>;

/// All that isolates share.
pub struct World {
    pub sim: Rc<Sim>,
    pub redis: Rc<FakeRedis>,
    /// The same unless `separate_cache` made it another one.
    pub cache: Rc<FakeRedis>,
    pub asked: RefCell<Vec<Asked>>,
    pub log: RefCell<Vec<String>>,
    pub gates: Gates,
    rng: RefCell<Rng>,
    script: RefCell<Script>,
    network: RefCell<Network>,
    cache_network: RefCell<Option<Network>>,
    watcher: RefCell<Option<Watcher>>,
    /// Of all isolates: it changes nothing.
    known: RefCell<Known>,
    requests: Cell<u64>,
    running: Cell<u64>,
}

impl World {
    /// An origin that says `{}`, and 1 ms to Redis and back.
    pub fn new(seed: u64) -> Rc<Self> {
        let redis = Rc::new(FakeRedis::default());
        Self::on(seed, redis.clone(), redis)
    }

    /// Limits in one database, the cache in another.
    pub fn with_two_databases(seed: u64) -> Rc<Self> {
        Self::on(seed, Rc::default(), Rc::default())
    }

    fn on(seed: u64, redis: Rc<FakeRedis>, cache: Rc<FakeRedis>) -> Rc<Self> {
        Rc::new(Self {
            sim: Sim::new(START_MS),
            redis,
            cache,
            asked: RefCell::default(),
            log: RefCell::default(),
            gates: Gates::default(),
            rng: RefCell::new(Rng::new(seed)),
            script: RefCell::new(Box::new(|_| Says::new(200, "{}"))),
            network: RefCell::new(Box::new(|_| Passage::new(500, 500))),
            cache_network: RefCell::default(),
            watcher: RefCell::default(),
            known: RefCell::default(),
            requests: Cell::new(0),
            running: Cell::new(0),
        })
    }

    pub fn origin(&self, script: impl FnMut(&Asked) -> Says + 'static) {
        *self.script.borrow_mut() = Box::new(script);
    }

    /// How each trip passes, by what it carries.
    pub fn network(&self, network: impl FnMut(&Batch) -> Passage + 'static) {
        *self.network.borrow_mut() = Box::new(network);
    }

    /// The same for the cache's trips alone, where they pass in another way.
    pub fn cache_network(&self, network: impl FnMut(&Batch) -> Passage + 'static) {
        *self.cache_network.borrow_mut() = Some(Box::new(network));
    }

    fn passage(&self, batch: &Batch, is_cache: bool) -> Passage {
        match (is_cache, self.cache_network.borrow_mut().as_mut()) {
            (true, Some(network)) => network(batch),
            _ => (self.network.borrow_mut())(batch),
        }
    }

    /// Called with the request's number, the batch and what came back.
    pub fn watch(
        &self,
        watcher: impl FnMut(u64, &Batch, &Result<Vec<Reply>, RedisError>) + 'static,
    ) {
        *self.watcher.borrow_mut() = Some(Box::new(watcher));
    }

    pub fn isolate(self: &Rc<Self>, policy: Policy) -> Isolate {
        self.isolate_with(policy, Settings::default())
    }

    /// `separate_cache` follows from the world.
    pub fn isolate_with(self: &Rc<Self>, policy: Policy, settings: Settings) -> Isolate {
        let settings = Settings {
            limits_in_redis: true,
            separate_cache: !Rc::ptr_eq(&self.redis, &self.cache),
            ..settings
        };
        self.isolate_as(policy, settings)
    }

    /// With exactly these settings.
    pub fn isolate_as(self: &Rc<Self>, policy: Policy, settings: Settings) -> Isolate {
        let edge = |redis, is_cache| {
            let world = self.clone();
            let network = move |batch: &Batch| world.passage(batch, is_cache);
            Edge::new(&self.sim, redis, network)
        };
        Isolate {
            limits: edge(&self.redis, false),
            cache: edge(&self.cache, true),
            world: self.clone(),
            gateway: Rc::new(Gateway::new(policy, settings)),
            tasks: Rc::default(),
        }
    }

    pub fn now_ms(&self) -> u64 {
        self.sim.now_us() / 1000
    }

    pub fn pass(&self, duration_ms: u64) {
        let sim = self.sim.clone();
        let until_us = sim.now_us() + duration_ms * 1000;
        self.sim
            .block_on(async move { sim.sleep_until(until_us).await });
    }

    /// Until no request and no deferred work is under way.
    pub fn settle(&self) {
        while self.running.get() > 0 {
            self.pass(1);
        }
    }

    pub fn is_quiet(&self) -> bool {
        self.running.get() == 0
    }

    /// How many requests of the edge's own or a visitor's had this target.
    pub fn asked_for(&self, target: &str) -> usize {
        let asked = self.asked.borrow();
        asked.iter().filter(|asked| asked.target == target).count()
    }

    /// Keys that would stay for ever.
    pub fn immortal_keys(&self) -> Vec<String> {
        let now_us = self.sim.now_us();
        [&self.redis, &self.cache]
            .into_iter()
            .flat_map(|redis| redis.ttls_ms(now_us))
            .filter(|(_, ttl_ms)| ttl_ms.is_none())
            .map(|(key, _)| key)
            .collect()
    }
}

/// What a visitor sends.
#[derive(Debug, Clone)]
pub struct Ask {
    pub method: String,
    pub target: String,
    pub headers: Headers,
    pub body: Vec<u8>,
}

impl Ask {
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Headers::from_iter([("cf-connecting-ip", "192.0.2.1")]),
            body: Vec::new(),
        }
    }

    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.set(name, value);
        self
    }

    pub fn body(self, body: impl Into<Vec<u8>>) -> Self {
        Self {
            body: body.into(),
            ..self
        }
    }
}

/// What a visitor got, and what it cost.
#[derive(Debug, Clone)]
pub struct Served {
    pub status: u16,
    pub headers: Headers,
    pub body: Vec<u8>,
    /// Passed on unread.
    pub is_streamed: bool,
    /// Trips to Redis before the answer.
    pub trips: u64,
    /// Time in which the answer waited for Redis.
    pub redis_us: u64,
    pub took_us: u64,
}

impl Served {
    pub fn get(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or("")
    }

    pub fn cache_status(&self) -> &str {
        self.get("cache-status")
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }
}

/// One isolate: a gateway and the tasks that it owns.
#[derive(Clone)]
pub struct Isolate {
    pub world: Rc<World>,
    pub gateway: Rc<Gateway>,
    limits: Edge,
    cache: Edge,
    pub tasks: Rc<RefCell<Vec<AbortHandle>>>,
}

impl Isolate {
    /// Starts a request now. A visitor who drops the slot has left.
    pub fn send(&self, ask: Ask) -> (u64, Slot<Served>) {
        let world = self.world.clone();
        let number = world.requests.get() + 1;
        world.requests.set(number);
        let ports = Ports::new(
            &world,
            self.limits.tagged(number),
            self.cache.tagged(number),
            number,
        );
        let gateway = self.gateway.clone();
        let slot = Slot::new();
        let answer_to = slot.clone();
        let begun_us = world.sim.now_us();
        let guard = Running::new(&world);
        let (task, handle) = abortable(async move {
            let _guard = guard;
            let request = request(&ask);
            let Answer {
                response,
                deferred,
                under_way,
            } = handle(&gateway, &ports, request, ask).await;
            answer_to.fill(ports.served(response, begun_us));
            deferred::finish(&gateway, &ports, deferred, under_way).await;
        });
        self.tasks.borrow_mut().push(handle);
        world.sim.spawn(async move {
            let _aborted = task.await;
        });
        (number, slot)
    }

    /// Starts a run of the cron trigger; `settle` waits for its end.
    pub fn cron(&self) {
        self.cron_with(jobs::MAX_ORIGIN_REQUESTS);
    }

    /// The same with so many origin requests at most.
    pub fn cron_with(&self, origin_requests: usize) {
        let world = self.world.clone();
        let (limits, cache) = (self.limits.tagged(0), self.cache.tagged(0));
        let ports = Ports::new(&world, limits, cache, 0);
        let gateway = self.gateway.clone();
        let guard = Running::new(&world);
        let (task, handle) = abortable(async move {
            let _guard = guard;
            jobs::run(&gateway, &ports, origin_requests).await;
        });
        self.tasks.borrow_mut().push(handle);
        world.sim.spawn(async move {
            let _aborted = task.await;
        });
    }

    /// Sends a request and waits for its answer; deferred work goes on.
    pub fn ask(&self, ask: Ask) -> Served {
        let (_, slot) = self.send(ask);
        self.world.sim.block_on(slot.wait())
    }

    pub fn get(&self, target: &str) -> Served {
        self.ask(Ask::get(target))
    }

    /// The answers to GETs that are sent at once.
    pub fn crowd(&self, target: &str, many: usize) -> Vec<Served> {
        let slots: Vec<_> = (0..many).map(|_| self.send(Ask::get(target)).1).collect();
        let answers = slots
            .into_iter()
            .map(|slot| self.world.sim.block_on(slot.wait()));
        answers.collect()
    }

    /// The same, with all deferred work done.
    pub fn get_settled(&self, target: &str) -> Served {
        let served = self.get(target);
        self.world.settle();
        served
    }

    /// By how much this isolate's clock is ahead of Redis'.
    pub fn skew(&self, skew_ms: i64) {
        self.limits.skew_us.set(skew_ms * 1000);
        self.cache.skew_us.set(skew_ms * 1000);
    }

    /// Ends one request of it in the middle of whatever it does, as the platform may: the
    /// first that it was sent has the number 0.
    pub fn end(&self, request: usize) {
        self.tasks.borrow()[request].abort();
    }

    /// Ends the isolate in the middle of whatever it does.
    pub fn die(&self) {
        for task in self.tasks.borrow().iter() {
            task.abort();
        }
    }
}

/// Counts a task until it is done or dropped.
struct Running(Rc<World>);

impl Running {
    fn new(world: &Rc<World>) -> Self {
        world.running.set(world.running.get() + 1);
        Self(world.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
    }
}

fn request(ask: &Ask) -> Request {
    let (path, query) = match ask.target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (ask.target.as_str(), None),
    };
    Request {
        method: ask.method.clone(),
        base: "https://edge.example".to_owned(),
        path: path.to_owned(),
        query,
        headers: ask.headers.clone(),
    }
}
