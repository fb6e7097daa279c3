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

/// An answer takes a millisecond or two of an isolate's time to send and read, so this
/// many stay well within the default timeout of 150 ms.
const MAX_INSIDE: usize = 32;

/// A request whose task was ended by the platform never leaves; its place is free
/// again after this, which is longer than any trip of a living one.
const LOST_AFTER_MS: u64 = 5_000;

/// Whoever waited this long goes in anyway.
const MAX_WAIT_MS: u64 = 5_000;

const MAX_PAUSE_MS: u64 = 50;

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
}

impl State {
    fn try_enter(&mut self, ticket: u64, now_ms: u64, forced: bool) -> bool {
        self.inside
            .retain(|(_, since_ms)| now_ms.saturating_sub(*since_ms) < LOST_AFTER_MS);
        if self.inside.len() >= MAX_INSIDE && !forced {
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
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.state.borrow_mut();
        state.inside.retain(|(ticket, _)| *ticket != self.ticket);
    }
}

impl Gate {
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
                return Place { gate: self, ticket };
            }
            // About a millisecond for each that is ahead.
            clock.sleep(ahead.clamp(1, MAX_PAUSE_MS)).await;
        }
    }
}
