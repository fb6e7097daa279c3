//! Fills of this isolate: who fetches, and what the others may share.
//!
//! Requests of one isolate must never await each other (a future of another
//! request that wakes ours hangs it), so a flight is a plain cell: the leader
//! writes owned bytes, followers look at it on their own timer.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::cache::entry::Entry;
use crate::ports::OriginError;

/// Flights at once in an isolate; past it requests go on their own.
const MAX_FLIGHTS: usize = 512;
/// Remembered uncacheable keys; past it the oldest is forgotten.
const MAX_UNCACHEABLE: usize = 2048;
/// How long an answer found uncacheable keeps its key from queueing.
pub const UNCACHEABLE_MS: u64 = 5_000;
/// How long a failed fill answers for those that waited for it.
pub const FAILED_MS: u64 = 1_000;

/// What became of a fill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flight {
    Pending,
    Done(Entry),
    /// The answer may not be shared: everyone asks for themselves.
    Uncacheable,
    Failed(OriginError),
}

pub type FlightCell = Rc<RefCell<Flight>>;

/// The part a request has in a fill.
pub enum Join {
    /// This request fetches, or asks Redis who does.
    Lead(FlightCell),
    /// Another request of this isolate does.
    Follow(FlightCell),
    /// Too many flights: fetch without sharing.
    Alone,
}

#[derive(Debug, Default)]
pub struct Flights {
    flights: BTreeMap<String, (u64, FlightCell)>,
    uncacheable: BTreeMap<String, u64>,
    oldest: VecDeque<String>,
    /// By route.
    usual_ms: Vec<Option<u64>>,
}

impl Flights {
    /// `name` is of the key and its generations, so that nobody waits for a fill
    /// that began before a purge. A flight older than `max_age_ms` has lost its
    /// leader and is replaced.
    pub fn join(&mut self, name: &str, now_ms: u64, max_age_ms: u64) -> Join {
        if let Some((since_ms, cell)) = self.flights.get(name)
            && now_ms.saturating_sub(*since_ms) <= max_age_ms
        {
            return Join::Follow(Rc::clone(cell));
        }
        if self.flights.len() >= MAX_FLIGHTS {
            self.flights
                .retain(|_, (since_ms, _)| now_ms.saturating_sub(*since_ms) <= max_age_ms);
            if self.flights.len() >= MAX_FLIGHTS {
                return Join::Alone;
            }
        }
        let cell = Rc::new(RefCell::new(Flight::Pending));
        self.flights
            .insert(name.to_owned(), (now_ms, Rc::clone(&cell)));
        Join::Lead(cell)
    }

    /// Whether a fill of this name is under way here.
    pub fn is_flying(&self, name: &str, now_ms: u64, max_age_ms: u64) -> bool {
        self.flights
            .get(name)
            .is_some_and(|(since_ms, _)| now_ms.saturating_sub(*since_ms) <= max_age_ms)
    }

    /// Ends a flight; those that hold its cell still see its outcome.
    pub fn land(&mut self, name: &str) {
        self.flights.remove(name);
    }

    pub fn remember_uncacheable(&mut self, key: &str, until_ms: u64) {
        if self.uncacheable.insert(key.to_owned(), until_ms).is_none() {
            self.oldest.push_back(key.to_owned());
        }
        while self.uncacheable.len() > MAX_UNCACHEABLE {
            match self.oldest.pop_front() {
                Some(oldest) => self.uncacheable.remove(&oldest),
                None => break,
            };
        }
    }

    pub fn is_uncacheable(&mut self, key: &str, now_ms: u64) -> bool {
        match self.uncacheable.get(key) {
            Some(until_ms) if now_ms < *until_ms => true,
            Some(_) => {
                self.uncacheable.remove(key);
                self.oldest.retain(|remembered| remembered != key);
                false
            }
            None => false,
        }
    }

    /// A moving average of a route's fetch time: new = 7/8 old + 1/8 measured.
    pub fn learn(&mut self, route: usize, fetch_ms: u64) {
        if self.usual_ms.len() <= route {
            self.usual_ms.resize(route + 1, None);
        }
        if let Some(usual_ms) = self.usual_ms.get_mut(route) {
            *usual_ms = Some(usual_ms.map_or(fetch_ms, |usual_ms| (usual_ms * 7 + fetch_ms) / 8));
        }
    }

    /// How long a follower waits for another's fill before it asks the origin
    /// itself: four usual fetch times, at least a second, at most `max_ms`.
    pub fn patience_ms(&self, route: usize, max_ms: u64) -> u64 {
        self.usual_ms
            .get(route)
            .copied()
            .flatten()
            .map_or(max_ms, |usual_ms| (usual_ms * 4).max(1_000).min(max_ms))
    }
}
