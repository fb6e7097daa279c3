//! The limit while Redis is down: this isolate's own sliding window per key.
//!
//! A ring of buckets by the local clock, exact for this isolate: the ring spans a
//! whole window and the bucket under way, so that never more than the limit is
//! admitted here in any trailing window. Other isolates are not counted. Nothing of
//! it is sent to Redis later. A ring takes about 400 bytes with its key.

use super::rule::Rule;
use crate::recent::Recent;

/// Buckets of a window: what was admitted returns at most a thirtieth late.
const BUCKETS: u64 = 30;

#[derive(Debug)]
pub struct Local {
    rings: Recent<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    /// The newest bucket's number, counted from the Unix epoch.
    newest: u64,
    /// Bucket `n` is at `n % (BUCKETS + 1)`.
    counts: [u32; BUCKETS as usize + 1],
}

impl Local {
    pub fn new(most: usize) -> Self {
        Self {
            rings: Recent::new(most),
        }
    }

    /// What counts now.
    pub fn count(&mut self, rule: &Rule<'_>, now_ms: u64) -> u64 {
        self.ring(rule, now_ms).count()
    }

    pub fn add(&mut self, rule: &Rule<'_>, now_ms: u64) {
        let ring = self.ring(rule, now_ms);
        let newest = ring.newest;
        if let Some(count) = ring.slot(newest) {
            *count = count.saturating_add(rule.cost);
        }
    }

    /// How long until the next release after which `room` units are free.
    pub fn frees_in(&mut self, rule: &Rule<'_>, room: u64, now_ms: u64) -> u64 {
        let bucket_ms = bucket_ms(rule);
        let ring = self.ring(rule, now_ms);
        let most = u64::from(rule.requests);
        let mut count = ring.count();
        let first = ring.newest.saturating_sub(BUCKETS);
        for bucket in first..=ring.newest {
            let held = ring.slot(bucket).map_or(0, |held| u64::from(*held));
            count = count.saturating_sub(held);
            if held > 0 && count + room <= most {
                return ((bucket + BUCKETS + 1) * bucket_ms).saturating_sub(now_ms);
            }
        }
        0
    }

    fn ring(&mut self, rule: &Rule<'_>, now_ms: u64) -> &mut Ring {
        let ring = self.rings.use_or_default(&rule.base);
        ring.advance(now_ms / bucket_ms(rule));
        ring
    }
}

fn bucket_ms(rule: &Rule<'_>) -> u64 {
    rule.window.length_ms().div_ceil(BUCKETS)
}

impl Ring {
    /// A clock that was set back a little keeps counting in the newest bucket.
    fn advance(&mut self, bucket: u64) {
        if bucket.abs_diff(self.newest) > BUCKETS {
            self.counts = [0; BUCKETS as usize + 1];
            self.newest = bucket;
        }
        while self.newest < bucket {
            self.newest += 1;
            let newest = self.newest;
            if let Some(count) = self.slot(newest) {
                *count = 0;
            }
        }
    }

    fn slot(&mut self, bucket: u64) -> Option<&mut u32> {
        usize::try_from(bucket % (BUCKETS + 1))
            .ok()
            .and_then(|at| self.counts.get_mut(at))
    }

    fn count(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }
}
