//! What a request was charged, kept until its outcome is known.

use std::cell::RefCell;

use super::charging::Held;
use super::memory::Memory;
use super::meter::{ALL, Added, Meter};
use super::rule::Rule;
use super::window::Spot;
use crate::redis::Batch;

/// How long a refund may be under way, and how wrong its clock: what leaks from a bucket until
/// then is not given back, or it would take out others' units.
const REFUND_MS: u64 = 1_000;

#[derive(Debug, Clone)]
pub struct Receipt {
    meter: Meter,
    stands: Spot,
    added: Added,
    cost: u32,
    kept: u32,
    /// Of a token bucket: when all of it will have leaked, in microseconds of Redis' time.
    leaks_us: u64,
}

impl Receipt {
    /// Of a charge that fits, or a permit of a lease: that was charged before.
    pub(super) fn new(rule: &Rule<'_>, held: &Held) -> Option<Self> {
        held.fits.then(|| Self {
            meter: rule.meter().clone(),
            stands: held.stands,
            added: if held.is_spent { ALL } else { held.added },
            cost: rule.cost,
            kept: if held.is_spent { rule.cost } else { rule.kept },
            leaks_us: held.known.total,
        })
    }

    /// What goes back when the origin failed or answered 5xx.
    pub fn of_failure(&self, memory: &RefCell<Memory>, now_ms: u64) -> Option<(usize, Batch)> {
        self.refund(self.kept, memory, now_ms)
    }

    /// What goes back when a limit refused the rest: all of it.
    pub fn of_refusal(&self, memory: &RefCell<Memory>, now_ms: u64) -> Option<(usize, Batch)> {
        self.refund(0, memory, now_ms)
    }

    fn refund(&self, kept: u32, memory: &RefCell<Memory>, now_ms: u64) -> Option<(usize, Batch)> {
        let label_ms = memory.borrow().label(self.meter.shard, now_ms);
        let units = kept.min(self.cost)..self.cost.min(self.left(kept, label_ms));
        let refund = self.meter.refund(self.stands, self.added, units)?;
        let commands = vec![refund, self.meter.expire(self.stands)];
        Some((self.meter.shard, Batch::pipeline(commands)))
    }

    /// Up to which unit it can be given back.
    fn left(&self, kept: u32, label_ms: u64) -> u32 {
        if !self.meter.window.is_bucket() {
            return self.cost;
        }
        let left_us = (self.leaks_us).saturating_sub((label_ms + REFUND_MS).saturating_mul(1000));
        let units = left_us / self.meter.window.unit_us().max(1);
        kept.saturating_add(u32::try_from(units).unwrap_or(u32::MAX))
    }
}
