//! What is run: each trace in each world, drawn from one seed.

use serde_json::{Value, json};

use crate::sim::Rng;
use crate::traces::{Kind, START_US};

pub const WINDOW_MS: u64 = 60_000;

/// The contract's.
const DEFAULT_TIMEOUT_MS: u64 = 150;

/// How many isolates there are, how far from Redis, and how wrong their clocks.
#[derive(Debug, Clone, Copy)]
pub struct World {
    pub isolates: usize,
    /// Of one way; a trip is two.
    pub leg_us: (u64, u64),
    pub skew_ms: u64,
    /// The Redis timeout, which no trip here reaches.
    pub timeout_ms: u64,
}

const LONE: World = World {
    isolates: 1,
    leg_us: (1_000, 5_000),
    skew_ms: 0,
    timeout_ms: DEFAULT_TIMEOUT_MS,
};
const FEW: World = World {
    isolates: 4,
    leg_us: (5_000, 50_000),
    skew_ms: 0,
    timeout_ms: DEFAULT_TIMEOUT_MS,
};
const MANY: World = World {
    isolates: 16,
    skew_ms: 30_000,
    ..FEW
};
/// With a timeout that lets such trips end.
const FAR: World = World {
    leg_us: (25_000, 150_000),
    skew_ms: 5_000,
    timeout_ms: 350,
    ..FEW
};

const WORLDS: [World; 4] = [LONE, FEW, MANY, FAR];

#[derive(Debug, Clone)]
pub struct Scenario {
    pub kind: Kind,
    pub world: World,
    pub requests: u32,
    /// Only ours, with and without leases.
    pub is_for_leases: bool,
    pub seed: u64,
}

/// One request of a trace.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    pub at_us: u64,
    pub id: usize,
    pub isolate: usize,
    /// For limiters with one trip a request; ours draws the legs of each trip.
    pub legs_us: (u64, u64),
}

pub fn all(seed: u64) -> Vec<Scenario> {
    let kinds = [
        Kind::Poisson(0.7),
        Kind::Poisson(1.0),
        Kind::Poisson(1.5),
        Kind::Poisson(2.0),
        Kind::Poisson(3.0),
        Kind::Bursty,
        Kind::Edges,
        Kind::Echo,
        Kind::Replayed,
    ];
    let mut scenarios = Vec::new();
    let mut push = |kind, world, requests, is_for_leases| {
        scenarios.push(Scenario {
            kind,
            world,
            requests,
            is_for_leases,
            seed,
        });
    };
    for kind in kinds {
        for world in WORLDS {
            push(kind, world, 100, false);
        }
    }
    for load in [0.7, 1.0, 2.0] {
        for world in WORLDS {
            push(Kind::Poisson(load), world, 1000, true);
        }
    }
    scenarios
}

impl Scenario {
    pub fn window_us(&self) -> u64 {
        WINDOW_MS * 1000
    }

    /// The same in every world but for the isolate and the legs.
    pub fn arrivals(&self) -> Vec<Arrival> {
        let mut paths = self.world_rng(1);
        let (low, high) = self.world.leg_us;
        let times = self.kind.draw(self.seed, u64::from(self.requests));
        times
            .into_iter()
            .map(|(at_us, id)| Arrival {
                at_us: START_US + at_us,
                id,
                isolate: paths.between(0, self.world.isolates as u64 - 1) as usize,
                legs_us: (paths.between(low, high), paths.between(low, high)),
            })
            .collect()
    }

    /// By how much the clock of each isolate is wrong: the first two by as much as any.
    pub fn skews_us(&self) -> Vec<i64> {
        let mut rng = self.world_rng(2);
        let most = self.world.skew_ms as i64 * 1000;
        (0..self.world.isolates)
            .map(|isolate| match isolate {
                0 => most,
                1 => -most,
                _ => rng.between(0, 2 * most as u64) as i64 - most,
            })
            .collect()
    }

    pub fn world_rng(&self, purpose: u64) -> Rng {
        Rng::new(
            (self.seed << 16)
                | (purpose << 12)
                | (self.world.leg_us.0 / 1000) << 5
                | self.world.isolates as u64,
        )
    }

    /// What it is, and what a limiter that is not native needs: times in microseconds
    /// since the Unix epoch.
    pub fn trace(&self) -> Value {
        let world = self.world;
        let arrivals = self.arrivals().into_iter().map(|arrival| {
            let (request_us, response_us) = arrival.legs_us;
            json!([
                arrival.at_us,
                arrival.id,
                arrival.isolate,
                request_us,
                response_us
            ])
        });
        json!({
            "trace": self.kind.name(),
            "load": match self.kind {
                Kind::Poisson(load) => Some(load),
                _ => None,
            },
            "requests": self.requests,
            "window_ms": WINDOW_MS,
            "is_for_leases": self.is_for_leases,
            "isolates": world.isolates,
            "trip_ms": [2 * world.leg_us.0 / 1000, 2 * world.leg_us.1 / 1000],
            "skew_ms": world.skew_ms,
            "timeout_ms": world.timeout_ms,
            "skews_us": self.skews_us(),
            "arrivals": arrivals.collect::<Vec<Value>>(),
        })
    }
}
