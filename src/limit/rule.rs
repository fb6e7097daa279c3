//! One limit as one request meets it.

use std::ops::Deref;

use super::Charge;
use super::meter::Meter;
use super::window::{Spot, Window};
use crate::policy::{By, Limit, Per};
use crate::redis::Command;

#[derive(Debug)]
pub struct Rule<'p> {
    pub limit: &'p Limit,
    pub requests: u32,
    pub cost: u32,
    pub kept: u32,
    meter: Meter,
    /// How many requests share the count: a wider limit has a higher rank.
    pub rank: u8,
    /// Charged by requests on which a narrower limit may refuse.
    pub is_shared: bool,
}

impl Deref for Rule<'_> {
    type Target = Meter;

    fn deref(&self) -> &Meter {
        &self.meter
    }
}

impl<'p> Rule<'p> {
    /// `tag` is this request's alone.
    pub fn all(charges: &[Charge<'p>], timeout_ms: u64, tag: u64) -> Vec<Self> {
        let narrowest = charges.iter().map(|charge| rank(charge.limit)).min();
        charges
            .iter()
            .map(|charge| {
                let limit = charge.limit;
                let route = match limit.per {
                    Per::Route => charge.route,
                    Per::All => "_",
                };
                let rank = rank(limit);
                Self {
                    limit,
                    requests: charge.requests,
                    cost: charge.cost,
                    kept: charge.kept,
                    meter: Meter {
                        window: Window::new(limit, charge.requests, timeout_ms),
                        base: ["ratelimit:", &charge.id, ":", route, ":", &limit.name].concat(),
                        shard: charge.shard,
                        tag,
                    },
                    rank,
                    // Other routes may put a narrower limit beside a global one.
                    is_shared: Some(rank) > narrowest
                        || (limit.by == By::Global && limit.per == Per::All),
                }
            })
            .collect()
    }

    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    pub fn cost(&self) -> u64 {
        u64::from(self.cost)
    }

    pub fn capacity(&self) -> u64 {
        self.window.capacity(self.requests)
    }

    pub fn does_fit(&self, count: u64) -> bool {
        count <= self.capacity()
    }

    /// What counts at `spot`, and a log's units that must go for this request.
    pub fn look(&self, spot: Spot) -> Command {
        self.read(spot, self.cost())
    }
}

/// By whom first, then over how many routes.
fn rank(limit: &Limit) -> u8 {
    let by = match limit.by {
        By::User => 0,
        By::Ip => 1,
        By::Header(_) => 2,
        By::Global => 3,
    };
    2 * by + u8::from(limit.per == Per::All)
}
