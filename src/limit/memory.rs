//! What one isolate remembers: Redis' clock, the last word on each count, refusals,
//! and its own counts for when Redis is down.
//!
//! All of it may be lost at any time: it saves commands and trips, and nothing else
//! rests on it. A value of the table takes at most about 1.3 KB (a key of 200 bytes,
//! 240 sums of 4 bytes), so all of it at most about 5 MB, and seldom a tenth of that.

use std::rc::Rc;

use super::counts::Sums;
use super::local::Local;
use super::redis_clock::RedisClock;
use super::rule::Rule;
use super::window::Spot;
use crate::recent::Recent;

/// Keys, and again as many windows of the local mode.
pub(super) const MAX_ENTRIES: usize = 4096;

/// A refusal is remembered no longer, because others may give their charges back.
const MAX_REFUSAL_MS: u64 = 5_000;

#[derive(Debug)]
pub struct Memory {
    pub(super) clock: RedisClock,
    pub(super) local: Local,
    entries: Recent<Entry>,
}

/// One key, as of its newest epoch that was charged here.
#[derive(Debug, Default)]
pub(super) struct Entry {
    epoch: u64,
    /// As last answered.
    pub total: u64,
    /// As last answered to a charge that fitted, or after what did not was given back.
    pub settled: u64,
    /// Charged by requests of this isolate that have no answer yet.
    pub in_flight: u64,
    /// This isolate has set the key's expiry.
    pub is_touched: bool,
    /// The epoch before, once it no longer changes.
    pub previous: Option<Rc<Sums>>,
    refusal: Option<Refusal>,
}

/// When and how a request was refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal {
    pub cost: u64,
    /// What was left for a smaller cost.
    pub remaining: u64,
    /// By Redis' clock.
    pub fits_at_ms: u64,
    /// By the local clock.
    pub until_ms: u64,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    pub fn new() -> Self {
        Self {
            clock: RedisClock::default(),
            local: Local::new(MAX_ENTRIES),
            entries: Recent::new(MAX_ENTRIES),
        }
    }

    /// How many keys it knows; at most 4096.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry of a rule, emptied when it is about another epoch.
    pub(super) fn entry(&mut self, rule: &Rule<'_>, epoch: u64) -> &mut Entry {
        let entry = self.entries.use_or_default(&rule.base);
        if entry.epoch != epoch {
            *entry = Entry {
                epoch,
                refusal: entry.refusal,
                ..Entry::default()
            };
        }
        entry
    }

    /// The entry of a rule if it is still about that epoch.
    pub(super) fn entry_of(&mut self, rule: &Rule<'_>, epoch: u64) -> Option<&mut Entry> {
        self.entries
            .get_mut(&rule.base)
            .filter(|entry| entry.epoch == epoch)
    }

    /// The total of the epoch at `spot` and the epoch before, as far as they are known
    /// without asking.
    pub(super) fn known_count(&self, rule: &Rule<'_>, spot: Spot) -> (u64, Rc<Sums>) {
        match self.entries.get(&rule.base) {
            Some(entry) if entry.epoch == spot.epoch => {
                (entry.settled, entry.previous.clone().unwrap_or_default())
            }
            _ => (0, Rc::default()),
        }
    }

    /// What Redis said last that counts at `spot`, and when it stops to, at the latest:
    /// what the local mode goes on from.
    pub(super) fn last_word(&self, rule: &Rule<'_>, spot: Spot) -> (u64, u64) {
        let (total, previous) = self.known_count(rule, spot);
        match rule.window.count(spot, total, &previous) {
            0 => (0, spot.at_ms),
            known => (
                known.min(u64::from(rule.requests)),
                (spot.epoch + 1) * rule.window.length_ms(),
            ),
        }
    }

    /// Whether this isolate's own charges under way, if all are admitted, leave no room
    /// for one more. Without a known epoch before, that counts as empty.
    pub(super) fn is_doubtful(&self, rule: &Rule<'_>, spot: Spot) -> bool {
        let own = match self.entries.get(&rule.base) {
            Some(entry) if entry.epoch == spot.epoch => {
                let previous = entry.previous.as_ref();
                let counted = previous.map_or(0, |sums| sums.from(rule.window.counted_from(spot)));
                entry.total + counted + entry.in_flight
            }
            _ => 0,
        };
        !rule.does_fit(own + rule.cost())
    }

    /// The refusal that this isolate may repeat on its own.
    pub(super) fn refusal(&self, rule: &Rule<'_>, now_ms: u64) -> Option<Refusal> {
        let refusal = self.entries.get(&rule.base)?.refusal?;
        let holds = rule.cost() >= refusal.cost
            && now_ms < refusal.until_ms
            // A clock that was set back does not prolong a refusal.
            && refusal.until_ms - now_ms <= MAX_REFUSAL_MS
            && self.clock.label(now_ms) < refusal.fits_at_ms;
        holds.then_some(refusal)
    }

    pub(super) fn remember(
        &mut self,
        rule: &Rule<'_>,
        fits_at_ms: u64,
        remaining: u64,
        now_ms: u64,
    ) {
        self.entries.use_or_default(&rule.base).refusal = Some(Refusal {
            cost: rule.cost(),
            remaining,
            fits_at_ms,
            until_ms: now_ms + MAX_REFUSAL_MS,
        });
    }
}
