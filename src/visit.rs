//! One request's dealings with the world: its trips, its waiting, its deferred work.
//!
//! A database that failed once in a request is not asked again in it, so a visitor
//! never waits for more than one Redis timeout; the other one, if there are two, is.

use std::cell::{Cell, RefCell};

use crate::ahead::UnderWay;
use crate::bill::Bill;
use crate::deferred::Deferred;
use crate::gateway::Gateway;
use crate::headers::Timing;
use crate::http::{Headers, Response};
use crate::ports::{Clock, Fetch, OriginError, Ports, Random, Redis, Store};
use crate::redis::{Batch, RedisError, RedisErrorKind, Reply};

pub struct Visit<'a, P: Ports> {
    pub gateway: &'a Gateway,
    pub ports: &'a P,
    /// By database.
    failed: RefCell<Vec<(Store, RedisError)>>,
    /// Trips under way, and since when there is at least one.
    waiting: Cell<(u32, u64)>,
    redis_ms: Cell<Option<u64>>,
    slowest_trip_ms: Cell<Option<u64>>,
    origin_ms: Cell<Option<u64>>,
    deferred: RefCell<Vec<Deferred>>,
    under_way: RefCell<Vec<UnderWay<'a>>>,
    /// Limits are kept in this isolate by choice: for them Redis is not asked.
    keeps_limits: Cell<bool>,
    pub bill: RefCell<Bill<'a>>,
}

impl<'a, P: Ports> Visit<'a, P> {
    pub fn new(gateway: &'a Gateway, ports: &'a P) -> Self {
        Self {
            gateway,
            ports,
            failed: RefCell::new(Vec::new()),
            waiting: Cell::new((0, 0)),
            redis_ms: Cell::new(None),
            slowest_trip_ms: Cell::new(None),
            origin_ms: Cell::new(None),
            deferred: RefCell::new(Vec::new()),
            under_way: RefCell::default(),
            keeps_limits: Cell::new(false),
            bill: RefCell::default(),
        }
    }

    pub fn keep_limits_here(&self, keeps: bool) {
        self.keeps_limits.set(keeps);
    }

    /// Both stores may be one database.
    fn database(&self, store: Store) -> Store {
        match store {
            Store::Cache if !self.gateway.settings.separate_cache => Store::Limits(0),
            store => store,
        }
    }

    /// Of the trips so far that were answered or timed out.
    pub fn slowest_trip_ms(&self) -> Option<u64> {
        self.slowest_trip_ms.get()
    }

    pub fn redis_timeout_ms(&self) -> u64 {
        self.gateway.policy.defaults.timeout.redis_ms
    }

    pub fn origin_timeout_ms(&self) -> u64 {
        self.gateway.policy.defaults.timeout.origin_ms
    }

    /// A trip for the cache with the policy's timeout.
    pub async fn cache_trip(&self, batch: &Batch) -> Result<Vec<Reply>, RedisError> {
        self.pipeline(Store::Cache, batch, self.redis_timeout_ms())
            .await
    }

    pub fn defer(&self, work: Deferred) {
        self.deferred.borrow_mut().push(work);
    }

    pub fn take_deferred(&self) -> Vec<Deferred> {
        self.deferred.take()
    }

    /// What was begun and goes on after the answer.
    pub fn keep(&self, under_way: UnderWay<'a>) {
        self.under_way.borrow_mut().push(under_way);
    }

    pub fn take_under_way(&self) -> Vec<UnderWay<'a>> {
        self.under_way.take()
    }

    pub fn timing(&self) -> Timing {
        Timing {
            redis_ms: self.redis_ms.get(),
            origin_ms: self.origin_ms.get(),
        }
    }

    /// A GET of the edge's own.
    pub async fn fetch(
        &self,
        target: &str,
        headers: Headers,
        timeout_ms: u64,
    ) -> Result<Response<P::Body>, OriginError> {
        let fetch = Fetch {
            target: target.to_owned(),
            headers,
            body: None,
        };
        let begun_ms = self.ports.now_ms();
        let answer = self.ports.fetch(&fetch, timeout_ms).await;
        self.waited_for_origin(begun_ms);
        answer
    }

    pub async fn forward(
        &self,
        incoming: &P::Incoming,
        target: &str,
        replace: &Headers,
    ) -> Result<Response<P::Body>, OriginError> {
        let begun_ms = self.ports.now_ms();
        let answer = self
            .ports
            .forward(incoming, target, replace, self.origin_timeout_ms())
            .await;
        self.waited_for_origin(begun_ms);
        answer
    }

    fn begin_trip(&self) {
        let (under_way, since_ms) = self.waiting.get();
        let since_ms = match under_way {
            0 => self.ports.now_ms(),
            _ => since_ms,
        };
        self.waiting.set((under_way + 1, since_ms));
    }

    /// Trips of one request may run side by side; time that they share counts once.
    fn end_trip(&self) {
        let (under_way, since_ms) = self.waiting.get();
        let under_way = under_way.saturating_sub(1);
        self.waiting.set((under_way, since_ms));
        if under_way == 0 {
            let waited_ms = self.ports.now_ms().saturating_sub(since_ms);
            self.redis_ms
                .set(Some(self.redis_ms.get().unwrap_or(0) + waited_ms));
        }
    }

    /// Fetches of one request run side by side, so the longest counts.
    fn waited_for_origin(&self, begun_ms: u64) {
        let waited_ms = self.ports.now_ms().saturating_sub(begun_ms);
        self.origin_ms
            .set(Some(self.origin_ms.get().unwrap_or(0).max(waited_ms)));
    }
}

impl<P: Ports> Clock for Visit<'_, P> {
    fn now_ms(&self) -> u64 {
        self.ports.now_ms()
    }

    async fn sleep(&self, duration_ms: u64) {
        self.ports.sleep(duration_ms).await;
    }
}

impl<P: Ports> Random for Visit<'_, P> {
    fn random(&self) -> u128 {
        self.ports.random()
    }
}

impl<P: Ports> Redis for Visit<'_, P> {
    async fn pipeline(
        &self,
        store: Store,
        batch: &Batch,
        timeout_ms: u64,
    ) -> Result<Vec<Reply>, RedisError> {
        let is_kept = self.keeps_limits.get() && store != Store::Cache;
        if self.gateway.settings.without_redis || is_kept {
            return Err(RedisError::new(RedisErrorKind::Open, "there is none"));
        }
        let database = self.database(store);
        let known = |(failed, _): &&(Store, RedisError)| *failed == database;
        if let Some((_, error)) = self.failed.borrow().iter().find(known) {
            return Err(error.clone());
        }
        self.begin_trip();
        let begun_ms = self.ports.now_ms();
        let replies = self.ports.pipeline(store, batch, timeout_ms).await;
        let trip_ms = self.ports.now_ms().saturating_sub(begun_ms);
        self.end_trip();
        let kind = replies.as_ref().err().map(|error| error.kind);
        if matches!(kind, None | Some(RedisErrorKind::Timeout)) {
            let slowest_ms = self.slowest_trip_ms.get().unwrap_or(0);
            self.slowest_trip_ms.set(Some(slowest_ms.max(trip_ms)));
        }
        if let Err(error) = &replies {
            self.ports.log_failed_trip(error);
            if error.kind == RedisErrorKind::TooLarge {
                // That was the fault of one value: the next trip is about something else.
                return replies;
            }
            self.failed.borrow_mut().push((database, error.clone()));
        }
        replies
    }
}
