//! The geometry of one sliding window: epochs, slots, and when a slot stops counting.
//!
//! Knows no key, no reply and no clock. Times are milliseconds by Redis' clock.

use super::counts::Sums;
use crate::policy::bounds;

/// How far apart two corrected clocks may be, Redis' own included.
pub const RESIDUAL_MS: u64 = bounds::RESIDUAL_SKEW_MS;

/// A `u16` slot holds every honest count up to this limit, with as much again for
/// charges that are about to be given back.
const NARROW_LIMIT: u32 = 32_767;

/// Where a moment lies in the epochs of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    pub at_ms: u64,
    pub epoch: u64,
    pub slot: u64,
}

/// One limit's window, cut into buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    length_ms: u64,
    bucket_ms: u64,
    timeout_ms: u64,
    slot_bits: u32,
}

impl Window {
    pub fn new(requests: u32, window_ms: u64, timeout_ms: u64) -> Self {
        let length_ms = window_ms.max(1);
        Self {
            length_ms,
            bucket_ms: bounds::bucket_ms(length_ms, timeout_ms),
            timeout_ms,
            slot_bits: if requests > NARROW_LIMIT { 32 } else { 16 },
        }
    }

    pub fn length_ms(&self) -> u64 {
        self.length_ms
    }

    pub fn bucket_ms(&self) -> u64 {
        self.bucket_ms
    }

    pub fn slot_bits(&self) -> u32 {
        self.slot_bits
    }

    /// At most `bounds::MAX_BUCKETS`, at least one.
    pub fn slots(&self) -> u64 {
        self.length_ms.div_ceil(self.bucket_ms)
    }

    /// The bit at which a slot begins; the total is the `u32` before slot 0.
    pub fn bit(&self, slot: u64) -> u64 {
        32 + u64::from(self.slot_bits) * slot
    }

    pub fn spot(&self, at_ms: u64) -> Spot {
        Spot {
            at_ms,
            epoch: at_ms / self.length_ms,
            slot: at_ms % self.length_ms / self.bucket_ms,
        }
    }

    /// How long since the epoch of a moment began.
    fn position(&self, at_ms: u64) -> u64 {
        at_ms % self.length_ms
    }

    /// Closer to a boundary than one bucket: without Redis' own word nobody knows in
    /// which epoch a charge with this label runs.
    pub fn is_near_boundary(&self, at_ms: u64) -> bool {
        let position = self.position(at_ms);
        position < self.bucket_ms || position + self.bucket_ms >= self.length_ms
    }

    /// Rule 1 of the proof, for a charge that Redis says it ran at `ran_ms`.
    pub fn is_label_true(&self, spot: Spot, ran_ms: u64) -> bool {
        // One millisecond less on each side pays for rounding to milliseconds.
        let error_ms = (self.bucket_ms - self.timeout_ms) / 2 - 1;
        spot.at_ms <= ran_ms + error_ms && spot.at_ms + self.timeout_ms + error_ms >= ran_ms
    }

    /// Rule 2 of the proof.
    pub fn is_same_epoch(&self, spot: Spot, ran_ms: u64) -> bool {
        ran_ms / self.length_ms == spot.epoch
    }

    /// Whether refunds of charges to the epoch before have run by now: they leave
    /// within one timeout of their charge and arrive within another.
    pub fn is_past_grace(&self, now_ms: u64) -> bool {
        self.position(now_ms) >= self.bucket_ms + self.timeout_ms
    }

    /// The first slot of the previous epoch that still counts.
    pub fn counted_from(&self, spot: Spot) -> u64 {
        spot.slot.saturating_sub(1)
    }

    /// When slot `slot` of `epoch` stops counting.
    pub fn frees_at(&self, epoch: u64, slot: u64) -> u64 {
        let late = ((slot + 2) * self.bucket_ms).min(self.length_ms);
        (epoch + 1) * self.length_ms + late
    }

    /// How much counts at `spot`.
    pub fn count(&self, spot: Spot, total: u64, previous: &Sums) -> u64 {
        total + previous.from(self.counted_from(spot))
    }

    /// The part of a count that no refund under way can still take back.
    pub fn firm_count(&self, spot: Spot, previous: &Sums, current: &Sums) -> u64 {
        let settled_ms = 2 * self.timeout_ms + RESIDUAL_MS;
        let position = self.position(spot.at_ms);
        let from = self.counted_from(spot);
        let Some(current_ms) = position.checked_sub(settled_ms) else {
            let end_ms = (self.length_ms + position).saturating_sub(settled_ms);
            return previous
                .from(from)
                .saturating_sub(previous.from((end_ms / self.bucket_ms).max(from)));
        };
        let young = current.from(current_ms / self.bucket_ms);
        previous.from(from) + current.from(0).saturating_sub(young)
    }

    /// The earliest moment, `spot` included, when `cost` more fits under `requests` if
    /// nobody else asks, and whether that is exact. Without the current slots it is a
    /// safe bound: everything charged so far may lie in the newest slot.
    pub fn fits_at(
        &self,
        spot: Spot,
        requests: u32,
        cost: u32,
        total: u64,
        previous: &Sums,
        current: Option<&Sums>,
    ) -> (u64, bool) {
        let fits = |count: u64| count + u64::from(cost) <= u64::from(requests);
        let start_ms = spot.epoch * self.length_ms;
        if fits(self.count(spot, total, previous)) {
            return (spot.at_ms, true);
        }
        for slot in spot.slot + 1..self.slots() {
            if fits(total + previous.from(slot - 1)) {
                return (start_ms + slot * self.bucket_ms, true);
            }
        }
        let Some(current) = current else {
            return (self.frees_at(spot.epoch, spot.slot + 1), false);
        };
        let next_ms = start_ms + self.length_ms;
        for slot in 0..self.slots() {
            if fits(current.from(slot.saturating_sub(1))) {
                return (next_ms + slot * self.bucket_ms, true);
            }
        }
        (next_ms + self.length_ms, true)
    }

    /// The next moment when anything that counts at `spot` may stop counting: exact
    /// while the previous epoch has some, else the earliest for the current epoch.
    pub fn next_release(&self, spot: Spot, previous: &Sums) -> u64 {
        match previous.first_filled(self.counted_from(spot)) {
            Some(slot) => self.frees_at(spot.epoch.saturating_sub(1), slot),
            None => self.frees_at(spot.epoch, 0),
        }
    }
}
