//! A sync's world: a Redis in memory, an origin that honours its keys, and a hand that cuts,
//! loses and repeats any call. Time passes only when somebody sleeps.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use edgeweir::config::CacheKey;
use edgeweir::gateway::{Gateway, Settings};
use edgeweir::http::{Body, Headers, Response};
use edgeweir::ports::{
    Bounded, Cipher, Clock, Coding, Fetch, Log, Origin, OriginError, Random, Redis, Store,
};
use edgeweir::redis::{Batch, Command, RedisError, RedisErrorKind, Reply};
use edgeweir::views::item::{Item, Sight};
use edgeweir::views::sync::Outcome;
use edgeweir::views::{DAY_MS, HOUR_MS, count, sync};
use serde_json::Value;

use super::super::sim::Rng;
use super::super::sim::redis::FakeRedis;
use super::super::world::policy;

/// Noon of a day.
pub const NOON_MS: u64 = 20_500 * DAY_MS + 12 * HOUR_MS;

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The run ends before the call has any effect, or after it.
    KillBefore,
    KillAfter,
    /// It fails without an effect, or with it.
    FailBefore,
    FailAfter,
    /// It takes effect twice at once.
    Twice,
    /// It takes effect once more, three calls later.
    Late,
    /// Only the first commands of it run, and it fails; of the origin: it answers 500.
    Half,
}

pub const FAULTS: [Fault; 7] = [
    Fault::KillBefore,
    Fault::KillAfter,
    Fault::FailBefore,
    Fault::FailAfter,
    Fault::Twice,
    Fault::Late,
    Fault::Half,
];

type Hook = Box<dyn FnMut(&Desk, usize)>;
type Late = (usize, Box<dyn Fn(&Desk)>);

pub struct Desk {
    pub redis: FakeRedis,
    pub gateway: Gateway,
    pub now_ms: Cell<u64>,
    /// Of all runs.
    pub calls: Cell<usize>,
    /// Commands of the largest trip, and the calls to the origin.
    pub largest: Cell<usize>,
    pub fault: Cell<Option<(usize, Fault)>>,
    pub is_down: Cell<bool>,
    before_call: RefCell<Option<Hook>>,
    late: RefCell<Vec<Late>>,
    /// What the origin took, by the batch's key.
    pub batches: RefCell<BTreeMap<String, String>>,
    pub sends: RefCell<Vec<String>>,
    pub totals: RefCell<BTreeMap<(String, String), u64>>,
    /// What was viewed, by whom, on which day: counted beside everything else.
    pub truth: RefCell<BTreeSet<(String, u64, u64)>>,
    random: RefCell<Rng>,
    pub log: RefCell<Vec<String>>,
}

impl Desk {
    pub fn new(seed: u64) -> Rc<Self> {
        let policy = policy(
            &serde_json::json!({ "defaults": { "limit": [] }, "route": [{
            "name": "read", "match": "GET /s/{story}/c/{chapter}",
            "view": { "story": "{story}", "chapter": "{chapter}" },
        }] }),
        );
        Rc::new(Self {
            redis: FakeRedis::default(),
            gateway: Gateway::new(policy, Settings::default()),
            now_ms: Cell::new(NOON_MS),
            calls: Cell::new(0),
            largest: Cell::new(0),
            fault: Cell::new(None),
            is_down: Cell::new(false),
            before_call: RefCell::default(),
            late: RefCell::default(),
            batches: RefCell::default(),
            sends: RefCell::default(),
            totals: RefCell::default(),
            truth: RefCell::default(),
            random: RefCell::new(Rng::new(seed)),
            log: RefCell::default(),
        })
    }

    pub fn now_us(&self) -> u64 {
        self.now_ms.get() * 1000
    }

    pub fn pass(&self, duration_ms: u64) {
        self.now_ms.set(self.now_ms.get() + duration_ms);
    }

    pub fn on_call(&self, hook: impl FnMut(&Desk, usize) + 'static) {
        *self.before_call.borrow_mut() = Some(Box::new(hook));
    }

    /// Somebody reads an item, now. What counts it makes no call that a fault meets.
    pub fn view(&self, kind: &str, id: &str, viewer: u64) {
        let item = Item::new(kind, id).unwrap();
        let day = self.now_ms.get() / DAY_MS;
        let sight = Sight::new(item.clone(), &viewer.to_string(), self.now_ms.get());
        self.truth
            .borrow_mut()
            .insert((item.member().to_owned(), day, viewer));
        // As `count` does, in an isolate of its own.
        let gateway = Gateway::new(self.gateway.policy.clone(), Settings::default());
        finish(count::count(&gateway, &Hands(self, false), vec![sight]));
    }

    /// What was viewed in all, by item.
    pub fn expected(&self) -> BTreeMap<(String, String), u64> {
        let mut expected = BTreeMap::new();
        for (member, ..) in self.truth.borrow().iter() {
            let item = Item::parse(member).unwrap();
            let key = (item.kind().to_owned(), item.id());
            *expected.entry(key).or_insert(0) += 1;
        }
        expected
    }

    /// Runs that nothing disturbs, until nothing is left: how many it took.
    pub fn drain(&self) -> usize {
        self.fault.set(None);
        for run in 1..100 {
            match finish(sync::by_hand(&self.gateway, &Hands(self, false))) {
                Outcome::Done(report) if !report.left => return run,
                Outcome::Done(_) => {}
                // A run that was killed has the lock for a minute.
                Outcome::Busy => self.pass(60_000),
                other => panic!("{other:?}: {:?}", self.log.borrow()),
            }
        }
        panic!("the sync never ends");
    }

    /// After `drain`: nothing is lost and nothing is counted twice.
    pub fn check(&self, what: &str) {
        assert_eq!(*self.totals.borrow(), self.expected(), "{what}");
    }

    /// Everything of days that are over is gone, and all else expires.
    pub fn check_clean(&self, what: &str) {
        for (key, ttl_ms) in self.redis.views.ttls_ms(self.now_us()) {
            assert!(ttl_ms.is_some(), "{what}: {key} stays");
        }
        assert_eq!(self.redis.views.members(), 0, "{what}");
    }

    /// The origin's part of `POST /internal/views/batch`.
    fn take(&self, key: &str, text: &str) -> String {
        let body: Value = serde_json::from_str(text).unwrap();
        assert_eq!(body["batch"], key);
        let counts = body["counts"].as_array().unwrap();
        assert!((1..=1_000).contains(&counts.len()), "{}", counts.len());
        let mut batches = self.batches.borrow_mut();
        let known = batches.insert(key.to_owned(), text.to_owned());
        let mut totals = self.totals.borrow_mut();
        let mut seen = BTreeSet::new();
        let mut said = Vec::new();
        for count in counts {
            let part = |name: &str| count[name].as_str().unwrap().to_owned();
            let item = (part("kind"), part("id"));
            let many = count["count"].as_u64().unwrap();
            assert!(many > 0, "{text}");
            assert!(seen.insert(item.clone()), "{item:?} is there twice");
            let total = totals.entry(item.clone()).or_insert(0);
            if known.is_none() {
                *total += many;
            }
            said.push(serde_json::json!({ "kind": item.0, "id": item.1, "total": *total }));
        }
        if let Some(known) = known {
            assert_eq!(known, text, "a batch is the same each time");
        }
        serde_json::json!({ "totals": said }).to_string()
    }
}

/// The ports of one run; those that are not faulty answer at once and are counted nowhere.
pub struct Hands<'d>(pub &'d Desk, pub bool);

impl Hands<'_> {
    /// A place where another run may be at work, and what happens to this call.
    async fn call(&self) -> Option<Fault> {
        if !self.1 {
            return None;
        }
        step().await;
        let at = self.0.calls.get();
        self.0.calls.set(at + 1);
        let hook = self.0.before_call.borrow_mut().take();
        if let Some(mut hook) = hook {
            hook(self.0, at);
            *self.0.before_call.borrow_mut() = Some(hook);
        }
        let due: Vec<Late> = {
            let mut late = self.0.late.borrow_mut();
            let due = late.iter().position(|(when, _)| *when <= at);
            due.map(|at| late.remove(at)).into_iter().collect()
        };
        for (_, again) in due {
            again(self.0);
        }
        let fault = self.0.fault.get();
        let fault = fault
            .filter(|(when, _)| *when == at)
            .map(|(_, fault)| fault);
        if fault == Some(Fault::KillBefore) {
            std::future::pending::<()>().await;
        }
        fault
    }
}

/// Lets others go first, once.
async fn step() {
    let mut is_first = true;
    std::future::poll_fn(move |_| match std::mem::take(&mut is_first) {
        true => Poll::Pending,
        false => Poll::Ready(()),
    })
    .await;
}

/// Polls a future that only waits for itself until it is done.
pub fn finish<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..100_000 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
    panic!("it never ends");
}

/// The same, but it may be killed: then it never ends.
pub fn try_finish<T>(future: &mut Pin<Box<dyn Future<Output = T> + '_>>) -> Option<T> {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..2_000 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return Some(value);
        }
    }
    None
}

fn run_all(desk: &Desk, commands: &[Command]) -> Vec<Reply> {
    let now_us = desk.now_us();
    let replies: Vec<Reply> = commands
        .iter()
        .map(|command| desk.redis.run(now_us, 0, command))
        .collect();
    for (command, reply) in commands.iter().zip(&replies) {
        assert!(!reply.is_error(), "{command:?}: {reply:?}");
    }
    replies
}

impl Redis for Hands<'_> {
    async fn pipeline(
        &self,
        store: Store,
        batch: &Batch,
        _timeout_ms: u64,
    ) -> Result<Vec<Reply>, RedisError> {
        assert_eq!(
            store,
            Store::Limits(0),
            "views are where nothing is evicted"
        );
        let failed = || Err(RedisError::new(RedisErrorKind::Timeout, "simulated"));
        let fault = self.call().await;
        self.0
            .largest
            .set(self.0.largest.get().max(batch.commands.len()));
        match fault {
            Some(Fault::FailBefore) => return failed(),
            Some(Fault::Half) => {
                // What is atomic runs whole or not at all.
                let many = if batch.atomic {
                    0
                } else {
                    batch.commands.len() / 2
                };
                run_all(self.0, &batch.commands[..many]);
                return failed();
            }
            _ => {}
        }
        let replies = run_all(self.0, &batch.commands);
        match fault {
            Some(Fault::KillAfter) => std::future::pending().await,
            Some(Fault::FailAfter) => failed(),
            Some(Fault::Twice) => Ok(run_all(self.0, &batch.commands)),
            Some(Fault::Late) => {
                let commands = batch.commands.clone();
                let again = Box::new(move |desk: &Desk| drop(run_all(desk, &commands)));
                self.0
                    .late
                    .borrow_mut()
                    .push((self.0.calls.get() + 2, again));
                Ok(replies)
            }
            _ => Ok(replies),
        }
    }
}

impl Cipher for Hands<'_> {
    async fn seal(&self, _: &CacheKey, _: &str, _: &[u8]) -> Option<Vec<u8>> {
        unreachable!("a sync encrypts nothing")
    }

    async fn open(&self, _: &CacheKey, _: &str, _: &[u8]) -> Option<Vec<u8>> {
        unreachable!("a sync decrypts nothing")
    }
}

impl Coding for Hands<'_> {
    async fn gzip(&self, _: &[u8]) -> Option<Vec<u8>> {
        unreachable!("a sync compresses nothing")
    }

    async fn gunzip(&self, _: &[u8], _: usize) -> Option<Vec<u8>> {
        unreachable!("a sync expands nothing")
    }
}

impl Origin for Hands<'_> {
    type Incoming = ();
    type Body = String;

    fn accept_encoding(&self, _incoming: &()) -> Option<String> {
        unreachable!("a sync answers nobody")
    }

    async fn forward(
        &self,
        _incoming: &(),
        _target: &str,
        _replace: &Headers,
        _timeout_ms: u64,
    ) -> Result<Response<String>, OriginError> {
        unreachable!("a sync forwards nothing")
    }

    async fn fetch(
        &self,
        fetch: &Fetch,
        _timeout_ms: u64,
    ) -> Result<Response<String>, OriginError> {
        assert_eq!(fetch.target, "/internal/views/batch");
        let says = |status, text: String| {
            Ok(Response {
                status,
                headers: Headers::new(),
                body: Body::Upstream(text),
            })
        };
        let fault = self.call().await;
        let key = fetch.headers.get("idempotency-key").unwrap().to_owned();
        let body = fetch.body.clone().unwrap();
        self.0.sends.borrow_mut().push(key.clone());
        match fault {
            Some(Fault::FailBefore) => return Err(OriginError::Timeout),
            Some(Fault::Half) => return says(500, String::new()),
            _ if self.0.is_down.get() => return says(503, String::new()),
            _ => {}
        }
        let answer = self.0.take(&key, &body);
        match fault {
            Some(Fault::KillAfter) => std::future::pending().await,
            Some(Fault::FailAfter) => Err(OriginError::Timeout),
            Some(Fault::Twice) => says(200, self.0.take(&key, &body)),
            Some(Fault::Late) => {
                let again = Box::new(move |desk: &Desk| drop(desk.take(&key, &body)));
                self.0
                    .late
                    .borrow_mut()
                    .push((self.0.calls.get() + 2, again));
                says(200, answer)
            }
            _ => says(200, answer),
        }
    }

    async fn read(
        &self,
        body: String,
        _max_bytes: usize,
        _timeout_ms: u64,
    ) -> Result<Bounded<String>, OriginError> {
        Ok(Bounded::Whole(body.into_bytes()))
    }

    fn discard(&self, _body: String) {}

    async fn read_incoming(&self, _: &(), _: usize, _: u64) -> Option<Vec<u8>> {
        None
    }
}

impl Clock for Hands<'_> {
    fn now_ms(&self) -> u64 {
        self.0.now_ms.get()
    }

    async fn sleep(&self, duration_ms: u64) {
        if self.1 {
            step().await;
            self.0.pass(duration_ms);
        }
    }
}

impl Random for Hands<'_> {
    fn random(&self) -> u128 {
        let mut random = self.0.random.borrow_mut();
        u128::from(random.next()) << 64 | u128::from(random.next())
    }
}

impl Log for Hands<'_> {
    fn log(&self, line: &str) {
        self.0.log.borrow_mut().push(line.to_owned());
    }
}

/// So many ids whose items are in one bucket.
pub fn ids_of_one_bucket(kind: &str, many: usize) -> Vec<String> {
    let ids = (0..).map(|id: u64| id.to_string());
    let bucket = |id: &String| Item::new(kind, id).unwrap().bucket();
    ids.filter(|id| bucket(id) == 7).take(many).collect()
}
