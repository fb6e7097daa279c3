//! What one isolate remembers: Redis' clock, the last word on each count, refusals,
//! and its own counts for when Redis is down.
//!
//! All of it may be lost at any time: it saves commands and trips, and nothing else
//! rests on it. A value of the table takes at most about 1.3 KB (a key of 200 bytes,
//! 240 sums of 4 bytes), so all of it at most about 5 MB, and seldom a tenth of that.

use std::rc::Rc;

use super::charging::Held;
use super::counts::Sums;
use super::lease::{Demand, Lease};
use super::local::Local;
use super::meter::Unspent;
use super::redis_clock::RedisClock;
use super::rule::Rule;
use super::window::{Known, Spot};
use crate::recent::Recent;

/// Keys, and as many windows of the local mode.
pub(super) const MAX_ENTRIES: usize = 10_000;

/// A refusal is remembered no longer, because others may give their charges back.
const MAX_REFUSAL_MS: u64 = 5_000;

/// A grant that has no answer by then never gets one.
const MAX_GRANTING_MS: u64 = 5_000;

/// A whole share.
pub(super) const SHARES: u64 = 1024;

/// Units that say something of a share.
const KNOWN_ENOUGH: u64 = 10;

/// Older traffic counts half when so many units were seen.
const FORGET_SHARE_AT: u64 = 10_000;

#[derive(Debug)]
pub struct Memory {
    /// One for each database.
    clocks: Vec<RedisClock>,
    /// For a place that is not there, which there is none of.
    spare: RedisClock,
    pub(super) local: Local,
    entries: Recent<Entry>,
    /// Units admitted here, and units that Redis' totals grew by meanwhile.
    own: u64,
    seen: u64,
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
    /// Admitted by this isolate in this epoch, and in the one before.
    pub own: u64,
    pub own_before: u64,
    /// Which part it had before, in 1/1024.
    last_share: Option<u64>,
    /// This isolate has set the key's expiry.
    pub is_touched: bool,
    /// The epoch before, as last read.
    pub previous: Option<Rc<Sums>>,
    /// It no longer changes.
    pub is_previous_final: bool,
    /// Permits that are charged and not spent.
    pub lease: Option<Lease>,
    /// Of the lease before: goes back with the next charge.
    pub rest: Option<Unspent>,
    /// When the charge left that brings the next lease.
    pub granting_ms: Option<u64>,
    pub demand: Demand,
    refusal: Option<Refusal>,
}

/// When and how a request was refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal {
    /// Of the limit, which operators may change.
    pub requests: u32,
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
            clocks: Vec::new(),
            spare: RedisClock::default(),
            local: Local::new(MAX_ENTRIES),
            entries: Recent::new(MAX_ENTRIES),
            own: 0,
            seen: 0,
        }
    }

    /// How many keys it knows; at most 10 000.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How far Redis' clock is ahead of this isolate's, by database; `None`: unknown.
    pub fn clock_offset_ms(&self, shard: usize) -> Option<i64> {
        self.clocks.get(shard)?.offset_ms()
    }

    pub(super) fn clock(&mut self, shard: usize) -> &mut RedisClock {
        if self.clocks.len() <= shard {
            self.clocks.resize_with(shard + 1, RedisClock::default);
        }
        self.clocks.get_mut(shard).unwrap_or(&mut self.spare)
    }

    /// Redis' time now, as far as it is known.
    pub(super) fn label(&self, shard: usize, now_ms: u64) -> u64 {
        match self.clocks.get(shard) {
            Some(clock) => clock.label(now_ms),
            None => now_ms,
        }
    }

    /// No charge leaves before that time of Redis, whatever the clock here says.
    pub(super) fn passed_ms(&self, shard: usize, now_ms: u64) -> u64 {
        let clock = self.clocks.get(shard);
        clock.map_or(0, |clock| clock.passed_ms(now_ms))
    }

    pub(super) fn is_clock_unsure(&self, shard: usize, now_ms: u64) -> bool {
        self.clocks
            .get(shard)
            .is_none_or(|clock| clock.is_unsure(now_ms))
    }

    /// Whether a bucket may not be asked yet: it would take a label of the future for time
    /// that has passed, and nothing takes that back.
    pub(super) fn wants_time_first(&self, rule: &Rule<'_>, now_ms: u64) -> bool {
        rule.window.is_bucket() && self.is_clock_unsure(rule.shard, now_ms)
    }

    pub(super) fn is_clock_aging(&self, shard: usize, now_ms: u64) -> bool {
        let clock = self.clocks.get(shard);
        clock.is_some_and(|clock| clock.is_aging(now_ms))
    }

    /// Where a charge that leaves now counts. Of a log that is when it will run: its
    /// units bear that time.
    pub(super) fn spot(&self, rule: &Rule<'_>, now_ms: u64) -> Spot {
        let label_ms = self.label(rule.shard, now_ms);
        let under_way_ms = match self.clocks.get(rule.shard) {
            Some(clock) if rule.window.is_log() => clock.one_way_ms(),
            _ => 0,
        };
        rule.window.spot(label_ms + under_way_ms)
    }

    /// The entry of a rule, emptied when it is about another epoch.
    pub(super) fn entry(&mut self, rule: &Rule<'_>, epoch: u64) -> &mut Entry {
        let entry = self.entries.use_or_default(&rule.base);
        if entry.epoch != epoch {
            // What is in a bucket leaks from it, and is not over with an epoch.
            let (total, settled) = match rule.window.is_bucket() {
                true => (entry.total, entry.settled),
                false => (0, 0),
            };
            *entry = Entry {
                epoch,
                total,
                settled,
                last_share: entry.share(),
                own_before: match entry.epoch + 1 == epoch {
                    true => entry.own,
                    false => 0,
                },
                demand: entry.demand,
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

    /// What is known of a count at `spot` without asking.
    pub(super) fn known(&self, rule: &Rule<'_>, spot: Spot) -> Known {
        let is_known = |entry: &Entry| entry.epoch == spot.epoch || rule.window.is_bucket();
        match self.entries.get(&rule.base) {
            Some(entry) if is_known(entry) => Known {
                total: entry.settled - entry.unspent().min(entry.settled),
                previous: entry.previous.clone().unwrap_or_default(),
                rest: None,
            },
            _ => Known::default(),
        }
    }

    /// What Redis said last that counts at `spot`: what the local mode goes on from.
    pub(super) fn last_word(&self, rule: &Rule<'_>, spot: Spot) -> u64 {
        let known = self.known(rule, spot);
        rule.window.count(spot, &known).min(rule.capacity())
    }

    /// Whether this isolate's own charges under way, if all are admitted, leave no room
    /// for one more. Without a known epoch before, that counts as empty.
    pub(super) fn is_doubtful(&self, rule: &Rule<'_>, spot: Spot) -> bool {
        let own = match self.entries.get(&rule.base) {
            Some(entry) if entry.epoch == spot.epoch => {
                let known = Known {
                    total: entry.total,
                    previous: entry.previous.clone().unwrap_or_default(),
                    rest: None,
                };
                rule.window.count(spot, &known) + entry.in_flight
            }
            _ => 0,
        };
        !rule.does_fit(own + rule.cost())
    }

    /// Which part of a limit this isolate admitted lately, and what of it in this epoch, in
    /// units: of this key if enough is known of it, else of all keys. In 1/1024.
    pub(super) fn share(&self, rule: &Rule<'_>, spot: Spot) -> (u64, u64) {
        let pooled = || match self.seen {
            seen if seen >= KNOWN_ENOUGH => self.own.min(seen) * SHARES / seen,
            _ => SHARES,
        };
        match self.entries.get(&rule.base) {
            Some(entry) if rule.window.is_sliding() => {
                // The share stays when its epoch is over, what it was charged does not.
                let charged = match entry.epoch == spot.epoch {
                    true => entry.own,
                    false => 0,
                };
                (entry.share().unwrap_or_else(pooled), charged)
            }
            _ => (pooled(), 0),
        }
    }

    /// A charge of `units` was admitted by an answer that showed `growth` more than the
    /// last one, itself included.
    pub(super) fn learn_share(&mut self, units: u64, growth: u64) {
        self.own += units;
        self.seen += growth.max(units);
        if self.seen > FORGET_SHARE_AT {
            self.own /= 2;
            self.seen /= 2;
        }
    }

    /// Takes a permit that was charged before; where it counts.
    pub(super) fn spend(&mut self, rule: &Rule<'_>, now_ms: u64) -> Option<Spot> {
        if self.is_clock_unsure(rule.shard, now_ms) {
            return None;
        }
        let label_ms = self.label(rule.shard, now_ms);
        let epoch = rule.window.spot(label_ms).epoch;
        let entry = self.entry_of(rule, epoch)?;
        let (lease, spot) = entry.spend(rule, label_ms, now_ms)?;
        entry.lease = Some(lease);
        entry.demand.spent(rule.cost);
        Some(spot)
    }

    /// Whether `spend` would take one.
    pub(super) fn can_spend(&self, rule: &Rule<'_>, now_ms: u64) -> bool {
        let label_ms = self.label(rule.shard, now_ms);
        let epoch = rule.window.spot(label_ms).epoch;
        let entry = self.entries.get(&rule.base);
        !self.is_clock_unsure(rule.shard, now_ms)
            && (entry.filter(|entry| entry.epoch == epoch))
                .is_some_and(|entry| entry.spend(rule, label_ms, now_ms).is_some())
    }

    /// Takes what is left of a lease of the epoch before: it can no longer be spent, and
    /// it still counts.
    pub(super) fn outlived(&mut self, rule: &Rule<'_>, epoch: u64) -> Option<Unspent> {
        let entry = self.entry_of(rule, epoch.checked_sub(1)?)?;
        let rest = entry.rest.take();
        entry.lease.take().and_then(Lease::unspent).or(rest)
    }

    /// Whether grants under way will bring all permits that this isolate does not hold.
    pub(super) fn awaits(&mut self, rules: &[Rule<'_>], now_ms: u64, is_first: bool) -> bool {
        let mut awaits = false;
        for rule in rules {
            if !rule.limit.lease {
                return false;
            }
            if self.can_spend(rule, now_ms) {
                continue;
            }
            match self.entries.get_mut(&rule.base) {
                Some(entry) if entry.is_granting(now_ms) => {
                    if is_first {
                        entry.demand.waits(rule.cost);
                    }
                    awaits = true;
                }
                _ => return false,
            }
        }
        awaits
    }

    /// Another limit refused the request that had taken it. A permit goes back to its own
    /// lease alone: in a later one it would be spent longer after its charge than the proof
    /// allows.
    pub(super) fn unspend(&mut self, rule: &Rule<'_>, spot: Spot) {
        let Some(entry) = self.entry_of(rule, spot.epoch) else {
            return;
        };
        if let Some(lease) = (entry.lease.as_mut()).filter(|lease| lease.is_at(spot)) {
            lease.left += rule.cost;
            return;
        }
        match &mut entry.rest {
            Some((stands, units)) if *stands == spot => *units += rule.cost,
            Some(_) => {}
            None => entry.rest = Some((spot, rule.cost)),
        }
    }

    /// Keeps what a charge brought beyond the request's own cost.
    pub(super) fn keep_lease(&mut self, rule: &Rule<'_>, held: &Held) {
        let left = held.units.saturating_sub(held.excess + rule.cost);
        if left > 0
            && let Some(entry) = self.entry_of(rule, held.stands.epoch)
        {
            entry.rest = entry.lease.and_then(Lease::unspent).or(entry.rest);
            entry.lease = Some(Lease::new(held.stands, left));
        }
    }

    /// Forgets all that is known of a key, for it was reset.
    pub(super) fn forget(&mut self, base: &str) {
        if let Some(entry) = self.entries.get_mut(base) {
            *entry = Entry::default();
        }
        self.local.forget(base);
    }

    /// The refusal that this isolate may repeat on its own.
    pub(super) fn refusal(&self, rule: &Rule<'_>, now_ms: u64) -> Option<Refusal> {
        let refusal = self.entries.get(&rule.base)?.refusal?;
        // A dearer request fits later, and must be told so.
        let holds = rule.cost() == refusal.cost
            && rule.requests == refusal.requests
            && now_ms < refusal.until_ms
            // A clock that was set back does not prolong a refusal.
            && refusal.until_ms - now_ms <= MAX_REFUSAL_MS
            && self.label(rule.shard, now_ms) < refusal.fits_at_ms;
        holds.then_some(refusal)
    }

    /// How long until what this isolate refused last fits, also when it no longer repeats that.
    pub(super) fn told_ms(&self, rule: &Rule<'_>, now_ms: u64) -> u64 {
        let refusal = self.entries.get(&rule.base).and_then(|entry| entry.refusal);
        // A cheaper request may fit sooner.
        let same = refusal
            .filter(|refusal| refusal.requests == rule.requests && refusal.cost <= rule.cost());
        let fits_at_ms = same.map_or(0, |refusal| refusal.fits_at_ms);
        // A clock that was set back does not prolong it.
        fits_at_ms
            .saturating_sub(self.label(rule.shard, now_ms))
            .min(2 * rule.window.life_ms())
    }

    pub(super) fn remember(
        &mut self,
        rule: &Rule<'_>,
        fits_at_ms: u64,
        remaining: u64,
        now_ms: u64,
    ) {
        self.entries.use_or_default(&rule.base).refusal = Some(Refusal {
            requests: rule.requests,
            cost: rule.cost(),
            remaining,
            fits_at_ms,
            until_ms: now_ms + MAX_REFUSAL_MS,
        });
    }
}

impl Entry {
    /// Which part of what counts this isolate admitted; `None`: too little is known of it.
    fn share(&self) -> Option<u64> {
        let before = self.previous.as_ref().map_or(0, |sums| sums.from(0));
        let all = self.settled + before;
        let own = (self.own + self.own_before.min(before)).min(all);
        match all >= KNOWN_ENOUGH {
            true => Some(own * SHARES / all),
            false => self.last_share,
        }
    }

    /// Charged by this isolate and not spent: nobody's yet.
    pub fn unspent(&self) -> u64 {
        let lease = self.lease.map_or(0, |lease| u64::from(lease.left));
        lease + self.rest.map_or(0, |(_, units)| u64::from(units))
    }

    pub fn is_granting(&self, now_ms: u64) -> bool {
        let age_ms = self
            .granting_ms
            .map(|since_ms| now_ms.saturating_sub(since_ms));
        age_ms.is_some_and(|age_ms| age_ms < MAX_GRANTING_MS)
    }

    /// The next grant should be under way, and is not.
    pub fn is_renewal_due(&self, rule: &Rule<'_>, label_ms: u64, now_ms: u64) -> bool {
        let wants_more = |lease| self.demand.wants_more(lease, rule, label_ms);
        self.lease.is_some_and(wants_more) && !self.is_granting(now_ms)
    }

    /// The lease without this request's permit, and where that counts. One request renews it
    /// before it ends.
    fn spend(&self, rule: &Rule<'_>, label_ms: u64, now_ms: u64) -> Option<(Lease, Spot)> {
        let mut lease = self.lease?;
        match self.is_renewal_due(rule, label_ms, now_ms) {
            true => None,
            false => lease.spend(rule, label_ms).map(|spot| (lease, spot)),
        }
    }
}
