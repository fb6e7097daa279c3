//! What a run of the cron trigger does: jobs, one after the other, under one lock.
//!
//! The platform may start a run while another is at work. One of them has the lock in Redis,
//! the others do nothing; a run that crashed leaves a lock that ends before the next
//! trigger. The lock saves work and nothing else: what it guards may be done twice without
//! harm, for a run that is slower than its lock is not alone. All jobs of a run share its
//! origin requests, and what is left is the next run's.

use std::cell::Cell;

use crate::cache::generation;
use crate::deferred;
use crate::gateway::Gateway;
use crate::ports::{Ports, Store};
use crate::redis::{Batch, Command, Reply};
use crate::{views, warm};

/// Of wrangler.toml's trigger.
pub const PERIOD_MS: u64 = 5 * 60_000;
/// Origin requests of one run, all jobs together (CONTRACT, Policy).
pub const MAX_ORIGIN_REQUESTS: usize = 40;
/// Nothing new is begun after so long.
const WORK_MS: u64 = 3 * 60_000;
/// Longer than what is begun takes as a rule, and shorter than the time to the next run.
const LOCK_MS: u64 = 4 * 60_000;
/// It is in the database that keeps what must not be lost.
const LOCK: &str = "metrics:cron";

/// What the jobs of one run share.
pub struct Run<'a, P: Ports> {
    pub gateway: &'a Gateway,
    pub ports: &'a P,
    requests_left: Cell<usize>,
    ends_ms: u64,
}

impl<'a, P: Ports> Run<'a, P> {
    /// With so many origin requests, none of them begun later than that.
    pub fn until(gateway: &'a Gateway, ports: &'a P, requests: usize, work_ms: u64) -> Self {
        Self {
            gateway,
            ports,
            requests_left: Cell::new(requests.min(MAX_ORIGIN_REQUESTS)),
            ends_ms: ports.now_ms().saturating_add(work_ms),
        }
    }

    /// How many more origin requests may be begun.
    pub fn requests_left(&self) -> usize {
        match self.ports.now_ms() < self.ends_ms {
            true => self.requests_left.get(),
            false => 0,
        }
    }

    /// Takes so many of them, which `requests_left` has.
    pub fn spend(&self, requests: usize) {
        let left = self.requests_left.get().saturating_sub(requests);
        self.requests_left.set(left);
    }
}

/// One run, with at most so many origin requests: none where there is no origin to ask.
pub async fn run<P: Ports>(gateway: &Gateway, ports: &P, origin_requests: usize) {
    let token = generation(ports.random());
    if gateway.settings.without_redis || !take(gateway, ports, &token).await {
        return;
    }
    let run = Run::until(gateway, ports, origin_requests, WORK_MS);
    // A line for each job; the first one has all of the run's origin requests. Views go
    // first: they are due a few times a day, and warming would take all of every run.
    run.spend(views::sync::by_cron(gateway, ports, run.requests_left()).await);
    warm::job(&run).await;
    release(gateway, ports, &token).await;
}

async fn take<P: Ports>(gateway: &Gateway, ports: &P, token: &str) -> bool {
    let lock = Command::set_nx_get_px(LOCK, token.to_owned(), LOCK_MS);
    matches!(ask(gateway, ports, lock).await, Some(Reply::Nil))
}

/// Only of its own: whoever was slower than the lock may find another's. Between the two
/// commands it may still become another's, which then is not the only one.
async fn release<P: Ports>(gateway: &Gateway, ports: &P, token: &str) {
    let holder = ask(gateway, ports, Command::new("GET").arg(LOCK)).await;
    if holder.as_ref().and_then(Reply::as_str) == Some(token) {
        ask(gateway, ports, Command::new("DEL").arg(LOCK)).await;
    }
}

/// The reply to one command; `None`: there is none, or it is an error.
async fn ask<P: Ports>(gateway: &Gateway, ports: &P, command: Command) -> Option<Reply> {
    let batch = Batch::pipeline(vec![command]);
    let timeout_ms = deferred::timeout_ms(gateway);
    match ports.pipeline(Store::Limits(0), &batch, timeout_ms).await {
        Ok(replies) => replies.into_iter().next().filter(|reply| !reply.is_error()),
        Err(error) => {
            ports.log_failed_trip(&error);
            None
        }
    }
}
