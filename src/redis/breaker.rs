//! The circuit breaker of one Redis endpoint: a pure state machine.
//!
//! It reads no clock and sends nothing. While it is open no visitor's request goes
//! to Redis, not even as a trial: only a probe, which someone claims and runs in the
//! background, closes it. At most one probe runs at a time.

/// One lost packet or one slow trip is no outage, and three visitors who wait for
/// the timeout are the price of telling the two apart.
pub const FAILURES_TO_OPEN: u32 = 3;

/// A restart or failover takes about a second or two.
pub const FIRST_BACKOFF_MS: u64 = 1_000;

/// One PING per isolate and half a minute neither loads a struggling Redis nor eats a
/// quota, and Redis is in use again soon after it is back.
pub const MAX_BACKOFF_MS: u64 = 30_000;

/// A claimed probe that has not reported by then was lost with its request. The
/// client cuts every probe's timeout to this, so no lost probe still runs.
pub const PROBE_LEASE_MS: u64 = 5_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    state: State,
    /// How often it opened since a visitor's trip last succeeded.
    opened: u32,
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        since_ms: u64,
        wait_ms: u64,
        probe_since_ms: Option<u64>,
    },
}

impl Breaker {
    /// `seed` spreads the probes of many isolates.
    pub fn new(seed: u64) -> Self {
        Self {
            state: State::Closed { failures: 0 },
            opened: 0,
            seed,
        }
    }

    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// A visitor's trip brought an answer. One that began before the breaker opened
    /// does not close it.
    pub fn succeeded(&mut self) {
        if !self.is_open() {
            self.state = State::Closed { failures: 0 };
            self.opened = 0;
        }
    }

    /// A visitor's trip failed. Those that were under way when the breaker opened
    /// do not lengthen its backoff.
    pub fn failed(&mut self, now_ms: u64) {
        if let State::Closed { failures } = self.state {
            let failures = failures + 1;
            if failures >= FAILURES_TO_OPEN {
                self.open(now_ms);
            } else {
                self.state = State::Closed { failures };
            }
        }
    }

    /// Claims the probe: true at most once per backoff, then the caller must run it.
    pub fn claim_probe(&mut self, now_ms: u64) -> bool {
        let State::Open {
            since_ms,
            wait_ms,
            probe_since_ms,
        } = &mut self.state
        else {
            return false;
        };
        let due = match *probe_since_ms {
            None => has_passed(*since_ms, *wait_ms, now_ms),
            Some(claimed_ms) => has_passed(claimed_ms, PROBE_LEASE_MS, now_ms),
        };
        if due {
            *probe_since_ms = Some(now_ms);
        }
        due
    }

    /// Closes the breaker, on trial: the next failure opens it again with a longer
    /// backoff, because a Redis may answer PING and nothing else.
    pub fn probe_succeeded(&mut self) {
        if self.is_probing() {
            self.recovered();
        }
    }

    /// A trip that was made although the breaker is open brought an answer: on trial too.
    pub fn recovered(&mut self) {
        if self.is_open() {
            self.state = State::Closed {
                failures: FAILURES_TO_OPEN - 1,
            };
        }
    }

    pub fn probe_failed(&mut self, now_ms: u64) {
        if self.is_probing() {
            self.open(now_ms);
        }
    }

    fn is_probing(&self) -> bool {
        matches!(
            self.state,
            State::Open {
                probe_since_ms: Some(_),
                ..
            }
        )
    }

    fn open(&mut self, now_ms: u64) {
        let backoff_ms = FIRST_BACKOFF_MS
            .saturating_mul(1 << self.opened.min(16))
            .min(MAX_BACKOFF_MS);
        self.opened = self.opened.saturating_add(1);
        // From half to the whole backoff, so that isolates that failed together do
        // not probe together.
        let half_ms = backoff_ms / 2;
        let wait_ms = half_ms + self.next_random() % (half_ms + 1);
        self.state = State::Open {
            since_ms: now_ms,
            wait_ms,
            probe_since_ms: None,
        };
    }

    /// SplitMix64.
    fn next_random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// A clock that was set back must not keep the breaker open for hours.
fn has_passed(since_ms: u64, wait_ms: u64, now_ms: u64) -> bool {
    now_ms
        .checked_sub(since_ms)
        .is_none_or(|elapsed_ms| elapsed_ms >= wait_ms)
}
