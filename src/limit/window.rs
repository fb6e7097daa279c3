//! The geometry of one limit: epochs, slots, and when what was charged stops counting.
//!
//! Knows no key, no reply and no clock. Times are milliseconds by Redis' clock. A fixed
//! window is one epoch without slots; a log and a bucket have no epochs in their keys,
//! and only their expiry goes by them.

use std::rc::Rc;

use super::counts::Sums;
use crate::policy::{Algorithm, Limit, bounds};

/// How far apart two corrected clocks may be, Redis' own included.
pub const RESIDUAL_MS: u64 = bounds::RESIDUAL_SKEW_MS;

/// How far a label of a log may be from when Redis ran it.
const LOG_ERROR_MS: u64 = RESIDUAL_MS / 2;

/// A `u16` slot holds every honest count up to this limit, with as much again for
/// charges that are about to be given back.
const NARROW_LIMIT: u32 = 32_767;

/// With more of them keys are longer, and what counts leaves hardly earlier.
const SLOTS_OF_BUCKET: u64 = 8;

/// Where a moment lies in the epochs of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    pub at_ms: u64,
    pub epoch: u64,
    pub slot: u64,
}

/// What Redis holds for one limit, as far as it is known.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Of the current epoch; of a log what is in it; of a bucket its theoretical
    /// arrival time in microseconds.
    pub total: u64,
    /// The epoch before.
    pub previous: Rc<Sums>,
    /// What tells when the total shrinks; `None`: not read.
    pub rest: Option<Rest>,
}

#[derive(Debug, Clone)]
pub enum Rest {
    /// The current epoch's slots; empty where nothing more is to be known.
    Slots(Sums),
    /// The times of a log's oldest units that count, in order.
    Oldest(Vec<u64>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sliding {
        /// By how much one label may lag behind another's, and its permits be spent later:
        /// what is so much older than a window still counts.
        reach_ms: u64,
    },
    Fixed,
    Log,
    Bucket {
        /// Units that fit at once.
        burst: u64,
        requests: u64,
    },
}

/// One limit's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    length_ms: u64,
    bucket_ms: u64,
    /// A bucket has several where the window has not many: what counts leaves one by one.
    slot_ms: u64,
    timeout_ms: u64,
    slot_bits: u32,
    kind: Kind,
}

impl Window {
    /// `requests` is the limit's size at the moment. It never changes a key's layout.
    pub fn new(limit: &Limit, requests: u32, timeout_ms: u64) -> Self {
        let length_ms = limit.window_ms.max(1);
        let bucket_ms = match limit.lease {
            true => bounds::leased_bucket_ms(length_ms, timeout_ms),
            false => bounds::bucket_ms(length_ms, timeout_ms),
        };
        let kind = match limit.algorithm {
            Algorithm::SlidingWindow => Kind::Sliding {
                reach_ms: match limit.lease {
                    true => bucket_ms + bucket_ms.saturating_sub(timeout_ms) / 2 + RESIDUAL_MS / 2,
                    false => bucket_ms,
                },
            },
            Algorithm::FixedWindow => Kind::Fixed,
            Algorithm::SlidingLog => Kind::Log,
            Algorithm::TokenBucket { burst } => Kind::Bucket {
                // With another size it keeps its shape.
                burst: (u64::from(burst) * u64::from(requests))
                    .div_ceil(u64::from(limit.requests.max(1))),
                requests: u64::from(requests.max(1)),
            },
        };
        Self {
            length_ms,
            bucket_ms,
            slot_ms: (length_ms.div_ceil(bounds::MAX_BUCKETS))
                .max(bucket_ms.div_ceil(SLOTS_OF_BUCKET)),
            timeout_ms,
            slot_bits: if limit.requests > NARROW_LIMIT {
                32
            } else {
                16
            },
            kind,
        }
    }

    /// The largest size that the keys of a limit hold, whatever its own.
    pub fn most_requests(limit: &Limit) -> u32 {
        match limit.algorithm {
            Algorithm::SlidingWindow if limit.requests <= NARROW_LIMIT => NARROW_LIMIT,
            Algorithm::SlidingLog => bounds::MAX_LOG_REQUESTS,
            _ => bounds::MAX_REQUESTS,
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

    pub fn is_sliding(&self) -> bool {
        matches!(self.kind, Kind::Sliding { .. })
    }

    pub fn is_fixed(&self) -> bool {
        self.kind == Kind::Fixed
    }

    pub fn is_log(&self) -> bool {
        self.kind == Kind::Log
    }

    pub fn is_bucket(&self) -> bool {
        matches!(self.kind, Kind::Bucket { .. })
    }

    /// How much may count at most.
    pub fn capacity(&self, requests: u32) -> u64 {
        match self.kind {
            Kind::Bucket { burst, .. } => burst,
            _ => u64::from(requests),
        }
    }

    /// At most `bounds::MAX_BUCKETS`, at least one.
    pub fn slots(&self) -> u64 {
        match self.kind {
            Kind::Sliding { .. } => self.length_ms.div_ceil(self.slot_ms),
            _ => 1,
        }
    }

    /// The bit at which a slot begins; the total is the `u32` before slot 0.
    pub fn bit(&self, slot: u64) -> u64 {
        32 + u64::from(self.slot_bits) * slot
    }

    pub fn spot(&self, at_ms: u64) -> Spot {
        Spot {
            at_ms,
            epoch: at_ms / self.length_ms,
            slot: match self.kind {
                Kind::Sliding { .. } => at_ms % self.length_ms / self.slot_ms,
                _ => 0,
            },
        }
    }

    /// How long since the epoch of a moment began.
    fn position(&self, at_ms: u64) -> u64 {
        at_ms % self.length_ms
    }

    /// Closer to a boundary than one bucket: without Redis' own word nobody knows in
    /// which epoch a charge with this label runs. A log always wants that word.
    pub fn is_near_boundary(&self, at_ms: u64) -> bool {
        let position = self.position(at_ms);
        match self.kind {
            Kind::Sliding { .. } | Kind::Fixed => {
                position < self.bucket_ms || position + self.bucket_ms >= self.length_ms
            }
            Kind::Log => true,
            Kind::Bucket { .. } => false,
        }
    }

    /// Rule 1 of the proof, for a charge that Redis says it ran at `ran_ms`.
    pub fn is_label_true(&self, spot: Spot, ran_ms: u64) -> bool {
        // One millisecond less on each side pays for rounding to milliseconds.
        let (early_ms, late_ms) = match self.kind {
            Kind::Sliding { .. } | Kind::Fixed => {
                let error_ms = (self.bucket_ms - self.timeout_ms) / 2 - 1;
                (error_ms, self.timeout_ms + error_ms)
            }
            Kind::Log => (LOG_ERROR_MS - 1, LOG_ERROR_MS - 1),
            Kind::Bucket { .. } => (LOG_ERROR_MS - 1, self.timeout_ms + LOG_ERROR_MS),
        };
        spot.at_ms <= ran_ms + early_ms && spot.at_ms + late_ms >= ran_ms
    }

    /// Whether a charge with a label that is wrong so cannot be judged by what it counted:
    /// a log has left out too much, a bucket has leaked too early or too late.
    pub fn is_misjudged(&self, spot: Spot, ran_ms: u64) -> bool {
        match self.kind {
            Kind::Sliding { .. } | Kind::Fixed => false,
            Kind::Log => spot.at_ms >= ran_ms + LOG_ERROR_MS,
            Kind::Bucket { .. } => !self.is_label_true(spot, ran_ms),
        }
    }

    /// Rule 2 of the proof.
    pub fn is_same_epoch(&self, spot: Spot, ran_ms: u64) -> bool {
        match self.kind {
            Kind::Sliding { .. } | Kind::Fixed => ran_ms / self.length_ms == spot.epoch,
            Kind::Log | Kind::Bucket { .. } => true,
        }
    }

    /// Whether refunds of charges to the epoch before have run by now: they leave
    /// within one timeout of their charge and arrive within another.
    pub fn is_past_grace(&self, now_ms: u64) -> bool {
        self.position(now_ms) >= self.bucket_ms + self.timeout_ms
    }

    /// The first slot of the previous epoch that still counts.
    pub fn counted_from(&self, spot: Spot) -> u64 {
        match self.kind {
            Kind::Sliding { reach_ms } => {
                self.position(spot.at_ms).saturating_sub(reach_ms) / self.slot_ms
            }
            _ => 0,
        }
    }

    /// How long after the end of its epoch a slot stops counting.
    fn late_ms(&self, slot: u64) -> u64 {
        match self.kind {
            Kind::Sliding { reach_ms } => {
                ((slot + 1) * self.slot_ms + reach_ms).min(self.length_ms)
            }
            _ => 0,
        }
    }

    /// When slot `slot` of `epoch` stops counting.
    pub fn frees_at(&self, epoch: u64, slot: u64) -> u64 {
        (epoch + 1) * self.length_ms + self.late_ms(slot)
    }

    /// A log counts what is later than this: labels are off by at most the error, at
    /// both ends of the window.
    pub fn log_start_ms(&self, at_ms: u64) -> u64 {
        at_ms.saturating_sub(self.length_ms + 2 * LOG_ERROR_MS)
    }

    /// By when a bucket's units have leaked, in microseconds, and for how long one unit
    /// is in it. Judged as early as the label may be.
    pub fn bucket_now_us(&self, at_ms: u64) -> u64 {
        at_ms.saturating_sub(LOG_ERROR_MS) * 1000
    }

    /// For how long one unit of a bucket counts, in microseconds; rounded up, so the rate
    /// is never above the limit's.
    pub fn unit_us(&self) -> u64 {
        match self.kind {
            Kind::Bucket { requests, .. } => (self.length_ms * 1000).div_ceil(requests),
            _ => 0,
        }
    }

    /// How long a key that has no epoch in its name must live after a charge: no longer
    /// than this many windows of the limit.
    pub fn life_ms(&self) -> u64 {
        match self.kind {
            Kind::Bucket { burst, .. } => self.length_ms.max(burst * self.unit_us() / 1000),
            _ => self.length_ms,
        }
    }

    /// How much counts at `spot`.
    pub fn count(&self, spot: Spot, known: &Known) -> u64 {
        match self.kind {
            Kind::Sliding { .. } => known.total + known.previous.from(self.counted_from(spot)),
            Kind::Fixed | Kind::Log => known.total,
            Kind::Bucket { .. } => known
                .total
                .saturating_sub(self.bucket_now_us(spot.at_ms))
                .div_ceil(self.unit_us().max(1)),
        }
    }

    /// The part of a count that no refund under way can still take back.
    pub fn firm_count(&self, spot: Spot, known: &Known) -> u64 {
        let (Kind::Sliding { .. }, Some(Rest::Slots(current))) = (self.kind, &known.rest) else {
            return 0;
        };
        let previous = &known.previous;
        let settled_ms = 2 * self.timeout_ms + RESIDUAL_MS;
        let position = self.position(spot.at_ms);
        let from = self.counted_from(spot);
        let Some(current_ms) = position.checked_sub(settled_ms) else {
            let end_ms = (self.length_ms + position).saturating_sub(settled_ms);
            return previous
                .from(from)
                .saturating_sub(previous.from((end_ms / self.slot_ms).max(from)));
        };
        let young = current.from(current_ms / self.slot_ms);
        previous.from(from) + current.from(0).saturating_sub(young)
    }

    /// The earliest moment, `spot` included, when `cost` more fits under `requests` if
    /// nobody else asks, and whether that is exact. Without the rest it is a safe bound:
    /// everything charged so far may be young.
    pub fn fits_at(&self, spot: Spot, requests: u32, cost: u64, known: &Known) -> (u64, bool) {
        let capacity = self.capacity(requests);
        let fits = |count: u64| count + cost <= capacity;
        if fits(self.count(spot, known)) {
            return (spot.at_ms, true);
        }
        match self.kind {
            Kind::Sliding { .. } => self.window_fits_at(spot, known, &fits),
            Kind::Fixed => (self.frees_at(spot.epoch, 0), true),
            Kind::Log => {
                let blocker = (known.total + cost).saturating_sub(capacity + 1);
                let late_ms = self.length_ms + 2 * LOG_ERROR_MS;
                let at = usize::try_from(blocker).ok();
                match (&known.rest, at) {
                    (Some(Rest::Oldest(times)), Some(at)) if at < times.len() => {
                        let blocker_ms = times.get(at).copied().unwrap_or(spot.at_ms);
                        (blocker_ms + late_ms, true)
                    }
                    _ => (spot.at_ms + late_ms, false),
                }
            }
            Kind::Bucket { burst, .. } => {
                let full_us = known.total.max(self.bucket_now_us(spot.at_ms));
                let fits_us =
                    (full_us + cost * self.unit_us()).saturating_sub(burst * self.unit_us());
                (fits_us.div_ceil(1000) + LOG_ERROR_MS, true)
            }
        }
    }

    fn window_fits_at(&self, spot: Spot, known: &Known, fits: &dyn Fn(u64) -> bool) -> (u64, bool) {
        let start_ms = spot.epoch * self.length_ms;
        let next_ms = start_ms + self.length_ms;
        for slot in self.counted_from(spot)..self.slots() {
            let frees_ms = start_ms + self.late_ms(slot);
            if frees_ms < next_ms && fits(known.total + known.previous.from(slot + 1)) {
                return (frees_ms, true);
            }
        }
        let Some(Rest::Slots(current)) = &known.rest else {
            // Labels of others may be ahead of this one by a bucket.
            let newest = (self.position(spot.at_ms) + self.bucket_ms) / self.slot_ms;
            return (self.frees_at(spot.epoch, newest), false);
        };
        if fits(current.from(0)) {
            return (next_ms, true);
        }
        let last = (0..self.slots()).find(|slot| fits(current.from(*slot + 1)));
        (
            next_ms + last.map_or(self.length_ms, |slot| self.late_ms(slot)),
            true,
        )
    }

    /// The next moment when anything that counts at `spot` may stop counting: exact
    /// while the previous epoch has some, else the earliest for the current epoch.
    pub fn next_release(&self, spot: Spot, known: &Known) -> u64 {
        match (self.kind, &known.rest) {
            (Kind::Bucket { .. }, _) => {
                let count = self.count(spot, known);
                let last_us = known
                    .total
                    .saturating_sub(count.saturating_sub(1) * self.unit_us());
                last_us.div_ceil(1000) + LOG_ERROR_MS
            }
            (Kind::Log, Some(Rest::Oldest(times))) if !times.is_empty() => {
                times.first().copied().unwrap_or(0) + self.length_ms + 2 * LOG_ERROR_MS
            }
            // What this request charged; the older units are not read for this.
            (Kind::Log, _) => spot.at_ms + self.length_ms + 2 * LOG_ERROR_MS,
            _ => match known.previous.first_filled(self.counted_from(spot)) {
                Some(slot) => self.frees_at(spot.epoch.saturating_sub(1), slot),
                None => self.frees_at(spot.epoch, 0),
            },
        }
    }
}
