//! How many requests of this isolate may be at Redis at once: an adaptive limit.
//!
//! A burst that all goes out together queues at Redis, and its last answers are later
//! than the timeout though Redis was quick. So the rest wait here, each on its own
//! timer and before anything is charged. The limit follows what trips take, as TCP Vegas
//! does (Brakmo and Peterson, 1995): trips that took half the timeout, and much longer
//! than the shortest ones lately, stood in a queue of our own making. A Redis that is
//! far away is no queue. When Redis fails, those that wait learn it from the breaker
//! with the first that timed out.

use std::cell::RefCell;

use crate::ports::Clock;
use crate::redis::deadline::MAX_STALL_MS;

/// Where an isolate begins: a cold one is slow itself, and several may share a core.
pub const FIRST: usize = 16;

/// What it falls back to: also enough for entries that are large and slow themselves.
pub const LEAST: usize = 8;

/// At trips of 20 ms this is 12 800 requests a second, more than one isolate answers.
pub const MOST: usize = 256;

/// Beside half the timeout, a trip may take twice the shortest one and this before it
/// counts as queued.
const TOLERANCE_MS: u64 = 30;

/// The shortest trip is that of the last one to two rounds of so many.
const ROUND: u32 = 500;

/// Whoever waited this long goes in anyway. With a second, 2 000 requests at once on two
/// busy cores were let in too early and timed out.
pub const MAX_WAIT_MS: u64 = 5_000;

/// A place whose request the platform has ended is free again after so many trips.
const LOST_AFTER_TRIPS: u64 = 4;

/// How long after their timeout trips have left.
const GRACE_MS: u64 = 10;

#[derive(Debug, Default)]
pub struct Concurrency {
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    limit: usize,
    /// Tickets of those inside and since when, oldest first.
    inside: Vec<(u64, u64)>,
    arrived: u64,
    entered: u64,
    /// Of the round before and of this one.
    shortest_ms: [u64; 2],
    trips: u32,
    /// Those that entered before the limit last fell say nothing new.
    fell_at: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            limit: FIRST,
            inside: Vec::new(),
            arrived: 0,
            entered: 0,
            shortest_ms: [u64::MAX; 2],
            trips: 0,
            fell_at: 0,
        }
    }
}

impl State {
    fn try_enter(&mut self, ticket: u64, now_ms: u64, begun_ms: u64, timeout_ms: u64) -> bool {
        let lost_ms = LOST_AFTER_TRIPS * (timeout_ms + MAX_STALL_MS);
        self.inside
            .retain(|(_, since_ms)| now_ms.saturating_sub(*since_ms) < lost_ms);
        let is_forced = now_ms.saturating_sub(begun_ms) >= MAX_WAIT_MS;
        if self.inside.len() >= self.limit && !is_forced {
            return false;
        }
        self.inside.push((ticket, now_ms));
        true
    }

    fn learn(&mut self, order: u64, trip_ms: u64, timeout_ms: u64) {
        let [before_ms, now_ms] = self.shortest_ms;
        self.shortest_ms = [before_ms, now_ms.min(trip_ms)];
        self.trips += 1;
        if self.trips == ROUND {
            self.trips = 0;
            self.shortest_ms = [now_ms.min(trip_ms), u64::MAX];
        }
        let shortest_ms = before_ms.min(now_ms).min(trip_ms);
        let far_ms = shortest_ms.saturating_mul(2).saturating_add(TOLERANCE_MS);
        if trip_ms > far_ms.max(timeout_ms / 2) || trip_ms >= timeout_ms {
            if order > self.fell_at {
                self.limit = (self.limit / 2).max(LEAST);
                self.fell_at = self.entered;
            }
        } else if self.arrived > self.entered && self.limit < MOST {
            // Only while somebody waits: room that nobody needs was never tried.
            self.limit += 1;
        }
    }
}

/// A place at Redis; free again when dropped.
pub struct Place<'c> {
    concurrency: &'c Concurrency,
    ticket: u64,
    order: u64,
}

impl Place<'_> {
    /// Leaves after trips that were answered or timed out, the slowest of which took so
    /// long. Whoever asked nothing, or failed otherwise, knows nothing of a queue: that
    /// place is just dropped.
    pub fn leave(self, trip_ms: u64, timeout_ms: u64) {
        let mut state = self.concurrency.state.borrow_mut();
        state.learn(self.order, trip_ms, timeout_ms);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.concurrency.state.borrow_mut();
        state.inside.retain(|(ticket, _)| *ticket != self.ticket);
    }
}

/// Whoever stops waiting is not ahead of anybody any more.
struct Turn<'c>(&'c Concurrency);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state.borrow_mut().entered += 1;
    }
}

impl Concurrency {
    pub fn limit(&self) -> usize {
        self.state.borrow().limit
    }

    /// Whether whoever comes now must wait.
    pub fn is_full(&self) -> bool {
        let state = self.state.borrow();
        state.inside.len() >= state.limit
    }

    pub async fn enter<C: Clock>(&self, clock: &C, timeout_ms: u64) -> Place<'_> {
        let ticket = {
            let mut state = self.state.borrow_mut();
            state.arrived += 1;
            state.arrived
        };
        let turn = Turn(self);
        let begun_ms = clock.now_ms();
        loop {
            let now_ms = clock.now_ms();
            let ahead = {
                let mut state = self.state.borrow_mut();
                if state.try_enter(ticket, now_ms, begun_ms, timeout_ms) {
                    break;
                }
                ticket.saturating_sub(state.entered)
            };
            // About a millisecond for each that is ahead: a crowd that looks more often
            // takes the time that its trips need. At the latest when the trips that began
            // with it have timed out, which says that Redis is down.
            let waited_ms = now_ms.saturating_sub(begun_ms);
            let most_ms = match (timeout_ms + GRACE_MS).saturating_sub(waited_ms) {
                0 => timeout_ms.max(1),
                left_ms => left_ms,
            };
            clock.sleep(ahead.clamp(1, most_ms)).await;
        }
        drop(turn);
        Place {
            concurrency: self,
            ticket,
            order: self.state.borrow().entered,
        }
    }
}
