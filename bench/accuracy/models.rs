//! The textbook limiters: one decision after the other, in no time, with the true clock.

use std::collections::{BTreeMap, VecDeque};

use crate::scenario::{Arrival, Scenario};
use crate::score::Bound;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Model {
    /// Never more than the limit in a trailing window and never less than it could be:
    /// the truth that all others are held against.
    ExactLog,
    /// Two counters, the older weighted by how much of it still counts (Cloudflare
    /// 2017); rounded down, as @upstash/ratelimit does.
    TwoCounters,
    /// GCRA with a burst of the whole limit.
    Gcra,
    FixedWindow,
}

impl Model {
    pub const ALL: [Self; 4] = [
        Self::ExactLog,
        Self::TwoCounters,
        Self::Gcra,
        Self::FixedWindow,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::ExactLog => "model: exact log",
            Self::TwoCounters => "model: two counters",
            Self::Gcra => "model: GCRA",
            Self::FixedWindow => "model: fixed window",
        }
    }

    pub fn bound(self, requests: u32) -> Bound {
        let requests = u64::from(requests);
        match self {
            Self::ExactLog => Bound::Trailing(requests),
            Self::TwoCounters => Bound::None,
            Self::Gcra => Bound::Trailing(2 * requests),
            Self::FixedWindow => Bound::Aligned(requests),
        }
    }

    fn start(self) -> State {
        match self {
            Self::ExactLog => State::Log(VecDeque::new()),
            Self::TwoCounters | Self::FixedWindow => State::Counters {
                window: 0,
                previous: 0,
                current: 0,
                is_weighted: self == Self::TwoCounters,
            },
            Self::Gcra => State::Gcra { full_at_us: 0 },
        }
    }
}

/// One id's.
enum State {
    Log(VecDeque<u64>),
    Counters {
        window: u64,
        previous: u64,
        current: u64,
        is_weighted: bool,
    },
    /// When the bucket is full again.
    Gcra {
        full_at_us: u64,
    },
}

impl State {
    fn admits(&mut self, at_us: u64, requests: u64, window_us: u64) -> bool {
        match self {
            Self::Log(log) => {
                while log
                    .front()
                    .is_some_and(|oldest| oldest + window_us <= at_us)
                {
                    log.pop_front();
                }
                let admits = (log.len() as u64) < requests;
                if admits {
                    log.push_back(at_us);
                }
                admits
            }
            Self::Counters {
                window,
                previous,
                current,
                is_weighted,
            } => {
                let now = at_us / window_us;
                if now != *window {
                    *previous = if now == *window + 1 { *current } else { 0 };
                    *current = 0;
                    *window = now;
                }
                let rest_us = window_us - at_us % window_us;
                let weighted = match is_weighted {
                    true => *previous * rest_us / window_us,
                    false => 0,
                };
                let admits = weighted + *current < requests;
                *current += u64::from(admits);
                admits
            }
            Self::Gcra { full_at_us } => {
                let next_us = at_us.max(*full_at_us) + window_us / requests;
                let admits = next_us <= at_us + window_us;
                if admits {
                    *full_at_us = next_us;
                }
                admits
            }
        }
    }
}

/// What a model answers to each request.
pub fn decisions(model: Model, scenario: &Scenario, arrivals: &[Arrival]) -> Vec<bool> {
    let mut states: BTreeMap<usize, State> = BTreeMap::new();
    let (requests, window_us) = (u64::from(scenario.requests), scenario.window_us());
    arrivals
        .iter()
        .map(|arrival| {
            let state = states.entry(arrival.id).or_insert_with(|| model.start());
            state.admits(arrival.at_us, requests, window_us)
        })
        .collect()
}
