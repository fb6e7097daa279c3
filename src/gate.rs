//! How many requests of this isolate may be at Redis at once.
//!
//! A burst that all goes out together comes back together: on a busy machine the last
//! answers are later than the timeout, though Redis was quick, and the isolate would
//! think it is down. So the rest wait, each on its own timer, and what they wait is
//! their own isolate's time, not Redis'. While Redis really is down nobody waits
//! long: the breaker opens after the first timeouts, and each turn is short then.

use std::cell::RefCell;
use std::collections::VecDeque;

use crate::ports::Clock;

/// Where an isolate begins and what it falls back to: a cold one takes a few
/// milliseconds for each, and four of them may share a core.
pub const LEAST_INSIDE: usize = 6;

/// At a trip of 20 ms this is 12 800 requests a second, more than one isolate answers.
pub const MOST_INSIDE: usize = 256;

/// Full rounds of quick trips before there is room for one more: a single burst must
/// not widen the gate, a few seconds of steady traffic should.
pub const ROUNDS: usize = 8;

/// A request whose task was ended by the platform never leaves; its place is free
/// again after this, which is longer than any trip of a living one.
const LOST_AFTER_MS: u64 = 5_000;

/// Whoever waited this long goes in anyway.
const MAX_WAIT_MS: u64 = 5_000;

const MAX_PAUSE_MS: u64 = 50;

/// How many may be inside follows the time they take, as TCP's window does: one more
/// after some rounds of quick ones, half as many after a slow one.
#[derive(Debug, Default)]
pub struct Gate {
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Tickets of those inside and since when, oldest first.
    inside: VecDeque<(u64, u64)>,
    arrived: u64,
    entered: u64,
    /// Beyond `LEAST_INSIDE`.
    more: usize,
    /// Quick ones since the last change.
    quick: usize,
}

impl State {
    fn room(&self) -> usize {
        LEAST_INSIDE + self.more
    }

    fn learn(&mut self, is_quick: bool) {
        if !is_quick {
            self.more = (self.room() / 2).saturating_sub(LEAST_INSIDE);
            self.quick = 0;
            return;
        }
        self.quick += 1;
        if self.quick >= self.room() * ROUNDS && self.room() < MOST_INSIDE {
            self.more += 1;
            self.quick = 0;
        }
    }

    fn try_enter(&mut self, ticket: u64, now_ms: u64, forced: bool) -> bool {
        self.inside
            .retain(|(_, since_ms)| now_ms.saturating_sub(*since_ms) < LOST_AFTER_MS);
        if self.inside.len() >= self.room() && !forced {
            return false;
        }
        self.inside.push_back((ticket, now_ms));
        self.entered += 1;
        true
    }
}

/// A place at Redis; free again when dropped.
pub struct Place<'g> {
    gate: &'g Gate,
    ticket: u64,
    since_ms: u64,
}

impl Place<'_> {
    /// Leaves, and says whether the stay was quick: less than a quarter of the
    /// timeout is far from mistaking a busy isolate for a Redis that is down.
    pub fn leave(self, now_ms: u64, timeout_ms: u64) {
        let stay_ms = now_ms.saturating_sub(self.since_ms);
        self.gate
            .state
            .borrow_mut()
            .learn(stay_ms <= timeout_ms / 4);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.state.borrow_mut();
        state.inside.retain(|(ticket, _)| *ticket != self.ticket);
    }
}

impl Gate {
    /// How many may be inside now.
    pub fn room(&self) -> usize {
        self.state.borrow().room()
    }

    pub async fn enter<C: Clock>(&self, clock: &C) -> Place<'_> {
        let ticket = {
            let mut state = self.state.borrow_mut();
            state.arrived += 1;
            state.arrived
        };
        let begun_ms = clock.now_ms();
        loop {
            let now_ms = clock.now_ms();
            let forced = now_ms.saturating_sub(begun_ms) >= MAX_WAIT_MS;
            let (inside, ahead) = {
                let mut state = self.state.borrow_mut();
                let inside = state.try_enter(ticket, now_ms, forced);
                (inside, ticket.saturating_sub(state.entered))
            };
            if inside {
                return Place {
                    gate: self,
                    ticket,
                    since_ms: now_ms,
                };
            }
            // About a millisecond for each that is ahead.
            clock.sleep(ahead.clamp(1, MAX_PAUSE_MS)).await;
        }
    }
}
