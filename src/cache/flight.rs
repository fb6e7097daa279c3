//! Fills of this isolate: who fetches, and what the others may share.
//!
//! Requests of one isolate must never await each other (a future of another
//! request that wakes ours hangs it), so a flight is a plain cell: the leader
//! writes owned bytes, followers look at it on their own timer.

use std::cell::RefCell;
use std::rc::Rc;

use crate::cache::entry::Entry;
use crate::cache::http::Stored;
use crate::ports::OriginError;
use crate::recent::Recent;

/// Flights remembered; one that is forgotten still serves those that wait for it, and
/// its lock in Redis keeps the next from asking the origin too.
const MAX_FLIGHTS: usize = 1024;
/// Remembered uncacheable keys; past it the oldest are forgotten.
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
    /// The same in `http` mode.
    Stored(Rc<Stored>),
    /// It has tags of the origin's that those who wait did not read: it is in Redis.
    Tagged(Rc<[String]>),
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
}

#[derive(Debug)]
pub struct Flights {
    /// With when it began.
    flights: Recent<Option<(u64, FlightCell)>>,
    /// Until when.
    uncacheable: Recent<u64>,
    /// By route.
    usual_ms: Vec<Option<u64>>,
}

impl Default for Flights {
    fn default() -> Self {
        Self {
            flights: Recent::new(MAX_FLIGHTS),
            uncacheable: Recent::new(MAX_UNCACHEABLE),
            usual_ms: Vec::new(),
        }
    }
}

impl Flights {
    /// `name` is of the key and its generations, so that nobody waits for a fill
    /// that began before a purge. A flight older than `max_age_ms` has lost its
    /// leader and is replaced.
    pub fn join(&mut self, name: &str, now_ms: u64, max_age_ms: u64) -> Join {
        let flight = self.flights.use_or_default(name);
        if let Some((since_ms, cell)) = flight
            && now_ms.saturating_sub(*since_ms) <= max_age_ms
        {
            return Join::Follow(Rc::clone(cell));
        }
        let cell = Rc::new(RefCell::new(Flight::Pending));
        *flight = Some((now_ms, Rc::clone(&cell)));
        Join::Lead(cell)
    }

    pub fn under_way(&self, name: &str) -> Option<FlightCell> {
        let (_, cell) = self.flights.get(name)?.as_ref()?;
        Some(Rc::clone(cell))
    }

    /// Ends a flight; those that hold its cell still see its outcome.
    pub fn land(&mut self, name: &str) {
        if let Some(flight) = self.flights.get_mut(name) {
            *flight = None;
        }
    }

    pub fn remember_uncacheable(&mut self, key: &str, until_ms: u64) {
        *self.uncacheable.use_or_default(key) = until_ms;
    }

    pub fn is_uncacheable(&self, key: &str, now_ms: u64) -> bool {
        self.uncacheable
            .get(key)
            .is_some_and(|until_ms| now_ms < *until_ms)
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
