//! What a request was charged, kept until its outcome is known.

use super::charging::Held;
use super::meter::{Added, Meter};
use super::rule::Rule;
use super::window::Spot;
use crate::redis::Batch;

#[derive(Debug, Clone)]
pub struct Receipt {
    meter: Meter,
    stands: Spot,
    added: Added,
    cost: u32,
    kept: u32,
}

impl Receipt {
    /// Of a charge that fits; `None` for a permit of a lease, which is spent.
    pub(super) fn new(rule: &Rule<'_>, held: &Held) -> Option<Self> {
        let counts = held.fits && !held.is_spent;
        counts.then(|| Self {
            meter: rule.meter().clone(),
            stands: held.stands,
            added: held.added,
            cost: rule.cost,
            kept: rule.kept,
        })
    }

    /// What goes back when the origin failed or answered 5xx.
    pub fn of_failure(&self) -> Option<(usize, Batch)> {
        self.refund(self.kept)
    }

    /// What goes back when a limit refused the rest: all of it.
    pub fn of_refusal(&self) -> Option<(usize, Batch)> {
        self.refund(0)
    }

    fn refund(&self, kept: u32) -> Option<(usize, Batch)> {
        let units = kept.min(self.cost)..self.cost;
        let refund = self.meter.refund(self.stands, self.added, units)?;
        let commands = vec![refund, self.meter.expire(self.stands)];
        Some((self.meter.shard, Batch::pipeline(commands)))
    }
}
