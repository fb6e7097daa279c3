//! Permits that an isolate charges ahead and spends itself: how many, and until when.
//!
//! A lease is spent for at most one bucket after its charge, and only in the epoch of its
//! charge; the proof in the module above rests on both. What is not spent goes back with
//! the next charge, or ages out. Where several requests come at once, one of them renews a
//! lease while the others spend the rest of it, or all of them would charge when it ends. No
//! clock, no commands.

use super::meter::Unspent;
use super::rule::Rule;
use super::window::{RESIDUAL_MS, Spot};

/// Not more than this share of a limit in one isolate's hands.
const MOST_OF_LIMIT: u64 = 10;

/// Not more than this share of what is left: near the limit everybody asks for each request.
const MOST_OF_ROOM: u64 = 4;

/// The demand is kept in sixteenths of a unit.
const FRACTION: u64 = 16;

/// Permits in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Where they stand in Redis.
    spot: Spot,
    pub left: u32,
}

impl Lease {
    pub fn new(spot: Spot, left: u32) -> Self {
        Self { spot, left }
    }

    /// Where a request that spends `cost` of it at `label_ms` counts. The label must be one
    /// that the clock is sure of.
    pub fn spend(&mut self, rule: &Rule<'_>, label_ms: u64) -> Option<Spot> {
        let epoch_end_ms = (self.spot.epoch + 1) * rule.window.length_ms();
        let is_valid = label_ms >= self.spot.at_ms.saturating_sub(RESIDUAL_MS)
            && label_ms <= self.spot.at_ms + rule.window.bucket_ms()
            && label_ms + RESIDUAL_MS < epoch_end_ms;
        if !is_valid {
            return None;
        }
        self.left = self.left.checked_sub(rule.cost)?;
        Some(self.spot)
    }

    pub fn is_at(&self, spot: Spot) -> bool {
        self.spot == spot
    }

    pub fn unspent(self) -> Option<Unspent> {
        (self.left > 0).then_some((self.spot, self.left))
    }
}

/// How much an isolate needs of one limit in one bucket, learned from what it spent
/// between two charges.
#[derive(Debug, Clone, Copy, Default)]
pub struct Demand {
    /// Units a bucket, times `FRACTION`.
    per_bucket: u64,
    spent: u64,
    since_ms: u64,
    /// Units that requests charge by themselves while a grant is under way, and how many
    /// they were since the last one.
    crowd: u32,
    crowding: u32,
}

impl Demand {
    pub fn spent(&mut self, cost: u32) {
        self.spent += u64::from(cost);
    }

    /// Charged beside a grant that is under way.
    pub fn crowded(&mut self, cost: u32) {
        self.spent(cost);
        self.waits(cost);
    }

    /// Waits for the grant that is under way.
    pub fn waits(&mut self, cost: u32) {
        self.crowding = self.crowding.saturating_add(cost);
    }

    /// Whether a lease ends soon, by its permits or its time, and a crowd would stand there.
    pub fn wants_more(&self, lease: Lease, rule: &Rule<'_>, label_ms: u64) -> bool {
        let bucket_ms = rule.window.bucket_ms();
        let is_ending = label_ms + bucket_ms / 8 > lease.spot.at_ms + bucket_ms;
        lease.left < self.crowd || self.crowd > 0 && is_ending
    }

    /// How many units to charge now, `rule.cost` among them; `room` is what seems left.
    pub fn grant(&mut self, rule: &Rule<'_>, room: u64, now_ms: u64) -> u32 {
        let bucket_ms = rule.window.bucket_ms();
        let elapsed_ms = now_ms.saturating_sub(self.since_ms);
        self.spent += rule.cost();
        // Two charges at once say nothing of a rate.
        if elapsed_ms >= bucket_ms / 4 {
            let sample = (self.spent * FRACTION).saturating_mul(bucket_ms) / elapsed_ms.max(1);
            self.per_bucket = match self.since_ms {
                0 => 0,
                _ => (self.per_bucket * 3 + sample) / 4,
            };
            self.spent = 0;
            self.since_ms = now_ms;
        } else if self.spent * FRACTION > self.per_bucket {
            // More in a part of a bucket than was expected of all of it.
            self.per_bucket = self.spent * FRACTION * 2;
        }
        // A crowd that is served ahead of time is not seen: it is forgotten slowly.
        let fewer = self.crowd - self.crowd.div_ceil(8);
        self.crowd = std::mem::take(&mut self.crowding).max(fewer);
        let wanted = (self.per_bucket + self.per_bucket / 4) / FRACTION + u64::from(self.crowd);
        let most = (rule.capacity() / MOST_OF_LIMIT).min(room / MOST_OF_ROOM);
        match wanted.min(most) {
            more if more > rule.cost() => u32::try_from(more).unwrap_or(rule.cost),
            _ => rule.cost,
        }
    }
}
