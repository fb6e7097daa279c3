//! The limit while Redis is down: this isolate's own sliding window per key.
//!
//! A ring of buckets by the local clock, exact for this isolate: the ring spans a
//! whole window and the bucket under way, so that never more than the limit is
//! admitted here in any trailing window. Of a token bucket it only keeps what Redis must be
//! told; what counts leaks at the rate that is this isolate's share. Other isolates are not
//! counted. What was counted is charged to Redis once it is back. A ring takes about 500
//! bytes with its key.

use super::memory::SHARES;
use super::meter::Meter;
use super::rule::Rule;
use super::window::Spot;
use crate::recent::Recent;
use crate::redis::Command;

/// Buckets of a window: what was admitted returns at most a thirtieth late.
const BUCKETS: u64 = 30;

/// A log has a member for every unit; more than this many at once wait for nobody.
const MOST_UNITS: u32 = 1_000;

#[derive(Debug)]
pub struct Local {
    rings: Recent<Ring>,
    /// Keys of rings that Redis does not know of yet.
    unmerged: Vec<String>,
    most: usize,
}

#[derive(Debug, Default)]
struct Ring {
    /// The newest bucket's number, counted from the Unix epoch.
    newest: u64,
    /// Bucket `n` is at `n % (BUCKETS + 1)`.
    counts: [u32; BUCKETS as usize + 1],
    /// Where it is to be charged; `None`: nothing is.
    meter: Option<Meter>,
    /// Of a token bucket.
    poured: Option<Poured>,
}

/// What is in a token bucket.
#[derive(Debug, Clone, Copy)]
struct Poured {
    /// As long as it takes to leak at the whole rate, at the time when something was poured last.
    us: u64,
    at_ms: u64,
}

impl Poured {
    /// What is left of it then, where it leaks at a share of the rate.
    fn at(&self, then_ms: u64, share: u64) -> u64 {
        let leaked_us = then_ms.saturating_sub(self.at_ms).saturating_mul(1000);
        self.us
            .saturating_sub(leaked_us.saturating_mul(share) / SHARES)
    }
}

/// What an isolate admitted by itself under one key.
pub struct Unmerged {
    meter: Meter,
    /// The local time at which each bucket began, and its units.
    counts: Vec<(u64, u32)>,
    poured: Option<Poured>,
}

impl Local {
    pub fn new(most: usize) -> Self {
        Self {
            rings: Recent::new(most),
            unmerged: Vec::new(),
            most,
        }
    }

    /// What counts then, of what there is now.
    pub fn count(&self, rule: &Rule<'_>, then_ms: u64) -> u64 {
        let ring = self.rings.get(&rule.base);
        ring.map_or(0, |ring| ring.count_at(then_ms / bucket_ms(rule.meter())))
    }

    /// What is in a token bucket then, of what there is now, where it leaks at a share of the
    /// rate; `None`: nothing was ever poured into it here.
    pub fn level(&self, rule: &Rule<'_>, share: u64, then_ms: u64) -> Option<u64> {
        let poured = self.rings.get(&rule.base)?.poured_at(rule, then_ms)?;
        let unit_us = rule.window.unit_us().max(1);
        Some(poured.at(then_ms, share).div_ceil(unit_us))
    }

    /// Pours into a token bucket in which there was so much.
    pub fn pour(&mut self, rule: &Rule<'_>, share: u64, level: u64, now_ms: u64) {
        let unit_us = rule.window.unit_us();
        let ring = self.ring(rule, now_ms);
        let before_us = match ring.poured_at(rule, now_ms) {
            Some(poured) => poured.at(now_ms, share),
            None => level.saturating_mul(unit_us),
        };
        ring.poured = Some(Poured {
            us: before_us.saturating_add(rule.cost().saturating_mul(unit_us)),
            at_ms: now_ms,
        });
    }

    pub fn add(&mut self, rule: &Rule<'_>, now_ms: u64) {
        let ring = self.ring(rule, now_ms);
        let newest = ring.newest;
        if let Some(count) = ring.slot(newest) {
            *count = count.saturating_add(rule.cost);
        }
        if ring.meter.is_none() {
            ring.meter = Some(rule.meter().clone());
            self.unmerged.push(rule.base.clone());
        }
        // Rings that made room for others are still named.
        if self.unmerged.len() > 2 * self.most {
            let rings = &self.rings;
            self.unmerged
                .retain(|base| rings.get(base).is_some_and(|ring| ring.meter.is_some()));
        }
    }

    pub fn forget(&mut self, base: &str) {
        if let Some(ring) = self.rings.get_mut(base) {
            *ring = Ring::default();
        }
    }

    pub fn has_unmerged(&self) -> bool {
        !self.unmerged.is_empty()
    }

    /// Takes what is to be charged to one database, of at most so many keys. From now on
    /// Redis counts it.
    pub fn take_unmerged(&mut self, shard: usize, most: usize) -> Vec<Unmerged> {
        let mut taken = Vec::new();
        let rings = &mut self.rings;
        self.unmerged.retain(|base| {
            if taken.len() >= most {
                return true;
            }
            // A ring that was forgotten meanwhile has nothing to say.
            let Some(ring) = rings.get_mut(base) else {
                return false;
            };
            let Some(meter) = ring.meter.take_if(|meter| meter.shard == shard) else {
                return ring.meter.is_some();
            };
            let bucket_ms = bucket_ms(&meter);
            let first = ring.newest.saturating_sub(BUCKETS);
            let counts = (first..=ring.newest)
                .filter_map(|bucket| {
                    let units = *ring.slot(bucket)?;
                    (units > 0).then_some((bucket * bucket_ms, units))
                })
                .collect();
            let poured = ring.poured;
            *ring = Ring::default();
            taken.push(Unmerged {
                meter,
                counts,
                poured,
            });
            false
        });
        taken
    }

    /// Nothing of it has reached Redis.
    pub fn put_back(&mut self, unmerged: Vec<Unmerged>) {
        for Unmerged {
            meter,
            counts,
            poured,
        } in unmerged
        {
            let bucket_ms = bucket_ms(&meter);
            let ring = self.rings.use_or_default(&meter.base);
            ring.poured = match (ring.poured, poured) {
                // Filled anew meanwhile, from what was known before.
                (Some(new), Some(old)) => Some(Poured {
                    us: new.us.saturating_add(old.at(new.at_ms, SHARES)),
                    ..new
                }),
                (new, old) => new.or(old),
            };
            for (at_ms, units) in counts {
                ring.advance(ring.newest.max(at_ms / bucket_ms));
                if let Some(count) = ring.slot(at_ms / bucket_ms) {
                    *count = count.saturating_add(units);
                }
            }
            if ring.meter.is_none() {
                self.unmerged.push(meter.base.clone());
                ring.meter = Some(meter);
            }
        }
    }

    fn ring(&mut self, rule: &Rule<'_>, now_ms: u64) -> &mut Ring {
        let ring = self.rings.use_or_default(&rule.base);
        ring.advance(now_ms / bucket_ms(rule.meter()));
        ring
    }
}

impl Unmerged {
    /// Charges for all of it. What is of an epoch that is over counts from the beginning
    /// of this one: nobody reads that epoch again.
    pub fn charges(&self, now: Spot, label: impl Fn(u64) -> u64, commands: &mut Vec<Command>) {
        let meter = &self.meter;
        for (at_ms, units) in &self.counts {
            let spot = meter.window.spot(label(*at_ms));
            let spot = match spot.epoch == now.epoch || !meter.window.is_sliding() {
                true => spot,
                false => meter.window.spot(now.epoch * meter.window.length_ms()),
            };
            let is_over = meter.window.is_fixed() && spot.epoch != now.epoch;
            if spot.epoch <= now.epoch && !is_over {
                if meter.window.is_log() {
                    // Each bucket's units have names of their own.
                    let tag = meter.tag.wrapping_add(*at_ms);
                    let meter = Meter {
                        tag,
                        ..meter.clone()
                    };
                    meter.charge((spot, 0), (*units).min(MOST_UNITS), None, commands);
                } else {
                    meter.charge((spot, 0), *units, None, commands);
                }
            }
        }
        commands.push(meter.expire(now));
    }

    pub fn meter(&self) -> &Meter {
        &self.meter
    }
}

fn bucket_ms(meter: &Meter) -> u64 {
    meter.window.life_ms().div_ceil(BUCKETS).max(1)
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

    /// Nothing of a time that is far in the future: the clock was set back.
    fn poured_at(&self, rule: &Rule<'_>, then_ms: u64) -> Option<Poured> {
        let latest_ms = then_ms.saturating_add(rule.window.life_ms());
        self.poured.filter(|poured| poured.at_ms <= latest_ms)
    }

    /// Of what is in it, all that is not older than the ring in that bucket.
    fn count_at(&self, bucket: u64) -> u64 {
        let is_over = bucket.abs_diff(self.newest) > BUCKETS && bucket < self.newest;
        let first = bucket.max(self.newest).saturating_sub(BUCKETS);
        match is_over {
            // A clock that was set back: the ring begins anew.
            true => 0,
            false => (first..=self.newest)
                .filter_map(|bucket| {
                    let at = usize::try_from(bucket % (BUCKETS + 1)).ok()?;
                    self.counts.get(at).map(|count| u64::from(*count))
                })
                .sum(),
        }
    }

    fn slot(&mut self, bucket: u64) -> Option<&mut u32> {
        usize::try_from(bucket % (BUCKETS + 1))
            .ok()
            .and_then(|at| self.counts.get_mut(at))
    }
}
