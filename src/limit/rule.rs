//! One limit as one request meets it: its key, its window, its commands.

use super::Charge;
use super::window::{Spot, Window};
use crate::policy::{By, Limit, Per};
use crate::redis::Command;

/// Added to two windows and the bucket by which a label may be early, after which
/// nobody reads a key any more.
const TTL_MARGIN_MS: u64 = 10_000;

#[derive(Debug)]
pub struct Rule<'p> {
    pub limit: &'p Limit,
    pub requests: u32,
    pub cost: u32,
    pub window: Window,
    /// The key without its epoch.
    pub base: String,
    /// How many requests share the count: a wider limit has a higher rank.
    pub rank: u8,
    /// Charged by requests on which a narrower limit may refuse.
    pub is_shared: bool,
}

/// What one charge added, which is what a refund takes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Added {
    pub total: bool,
    pub slot: bool,
}

impl<'p> Rule<'p> {
    pub fn all(charges: &[Charge<'p>], timeout_ms: u64) -> Vec<Self> {
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
                    // By the policy's own size, so that an override changes no key.
                    window: Window::new(limit.requests, limit.window_ms, timeout_ms),
                    base: format!("ratelimit:{}:{route}:{}", charge.id, limit.name),
                    rank,
                    // Other routes may put a narrower limit beside a global one.
                    is_shared: Some(rank) > narrowest
                        || (limit.by == By::Global && limit.per == Per::All),
                }
            })
            .collect()
    }

    pub fn cost(&self) -> u64 {
        u64::from(self.cost)
    }

    pub fn does_fit(&self, count: u64) -> bool {
        count <= u64::from(self.requests)
    }

    fn key(&self, epoch: u64) -> String {
        format!("{}:{epoch}", self.base)
    }

    fn slot_type(&self) -> &'static str {
        if self.window.slot_bits() == 32 {
            "u32"
        } else {
            "u16"
        }
    }

    /// Answers the new total and slot, or nil for one that would overflow.
    pub fn charge(&self, spot: Spot) -> Command {
        Command::new("BITFIELD")
            .arg(self.key(spot.epoch))
            .args(["OVERFLOW", "FAIL", "INCRBY", "u32"])
            .args([0, self.cost()])
            .args(["INCRBY", self.slot_type()])
            .args([self.window.bit(spot.slot), self.cost()])
    }

    /// Moves a charge within its epoch; the total stays.
    pub fn shift(&self, from: Spot, to: Spot) -> Command {
        let bit = |spot: Spot| i64::try_from(self.window.bit(spot.slot)).unwrap_or(i64::MAX);
        let cost = i64::from(self.cost);
        Command::new("BITFIELD")
            .arg(self.key(to.epoch))
            .args(["OVERFLOW", "FAIL", "INCRBY", self.slot_type()])
            .args([bit(to), cost])
            .args(["OVERFLOW", "SAT", "INCRBY", self.slot_type()])
            .args([bit(from), -cost])
    }

    /// Takes back what a charge added, never below zero: a flush may have come first.
    pub fn refund(&self, spot: Spot, added: Added) -> Option<Command> {
        let less = -i64::from(self.cost);
        let mut command = Command::new("BITFIELD")
            .arg(self.key(spot.epoch))
            .args(["OVERFLOW", "SAT"]);
        if !added.total && !added.slot {
            return None;
        }
        if added.total {
            command = command.args(["INCRBY", "u32"]).args([0, less]);
        }
        if added.slot {
            let bit = i64::try_from(self.window.bit(spot.slot)).unwrap_or(i64::MAX);
            command = command.args(["INCRBY", self.slot_type()]).args([bit, less]);
        }
        Some(command)
    }

    /// An epoch's key is read until the end of the next epoch.
    pub fn expire(&self, spot: Spot) -> Command {
        let ttl_ms = 2 * self.window.length_ms() + self.window.bucket_ms() + TTL_MARGIN_MS;
        Command::pexpire(&self.key(spot.epoch), ttl_ms)
    }

    /// The whole of an epoch's key; empty when there is none.
    pub fn read(&self, epoch: u64) -> Command {
        Command::new("GETRANGE")
            .arg(self.key(epoch))
            .args([0i64, -1])
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
