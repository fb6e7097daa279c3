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
/// Keys whose usual fetch time is remembered.
const MAX_USUAL: usize = 1024;
/// Nobody gives up sooner: a fill is seen a trip and a poll after it is stored.
const LEAST_PATIENCE_MS: u64 = 1_000;
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
    /// Generations that were absent are there now: before the fill itself.
    Seeded(Rc<[String]>),
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
    /// By key.
    usual_ms: Recent<Option<u64>>,
    /// By route, for keys that are not known.
    usual_of_route_ms: Vec<Option<u64>>,
}

impl Default for Flights {
    fn default() -> Self {
        Self {
            flights: Recent::new(MAX_FLIGHTS),
            uncacheable: Recent::new(MAX_UNCACHEABLE),
            usual_ms: Recent::new(MAX_USUAL),
            usual_of_route_ms: Vec::new(),
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

    /// Moving averages of the fetch times of a key and of its route.
    pub fn learn(&mut self, route: usize, key: &str, fetch_ms: u64) {
        average(self.usual_ms.use_or_default(key), fetch_ms);
        self.learn_of_route(route, fetch_ms);
    }

    /// What an entry says of its fetch stands for what an isolate has not measured itself.
    pub fn hint(&mut self, route: usize, fetch_ms: u64) {
        let usual_ms = self.usual_of_route_ms.get(route).copied().flatten();
        if usual_ms.is_none() {
            self.learn_of_route(route, fetch_ms);
        }
    }

    fn learn_of_route(&mut self, route: usize, fetch_ms: u64) {
        if self.usual_of_route_ms.len() <= route {
            self.usual_of_route_ms.resize(route + 1, None);
        }
        if let Some(usual_ms) = self.usual_of_route_ms.get_mut(route) {
            average(usual_ms, fetch_ms);
        }
    }

    /// How long a follower waits for another's fill before it asks the origin
    /// itself: twice the usual fetch time of the key, or of its route; at least a second,
    /// at most `max_ms`. Where nothing was fetched yet it is `max_ms`: whoever gave up sooner
    /// would double the first fetch of everything that is slow.
    pub fn patience_ms(&self, route: usize, key: &str, max_ms: u64) -> u64 {
        let of_key = self.usual_ms.get(key).copied().flatten();
        let of_route = || self.usual_of_route_ms.get(route).copied().flatten();
        of_key.or_else(of_route).map_or(max_ms, |usual_ms| {
            (usual_ms * 2).max(LEAST_PATIENCE_MS).min(max_ms)
        })
    }
}

/// new = 7/8 old + 1/8 measured.
fn average(usual_ms: &mut Option<u64>, fetch_ms: u64) {
    *usual_ms = Some(usual_ms.map_or(fetch_ms, |usual_ms| (usual_ms * 7 + fetch_ms) / 8));
}
