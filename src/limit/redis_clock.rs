//! Redis' time as this isolate knows it.
//!
//! One sample is a `TIME` that Redis ran between two local readings, so the midpoint
//! is wrong by at most half the trip, however asymmetric the trip was. A sample is
//! good when that is within half the residual. A good sample moves the offset only as
//! far as that bound demands: labels stay steady, so a `Retry-After` stays exact.
//! A local clock that is set while a sample is in use is found by the next one.

use super::window::RESIDUAL_MS;

/// How long a good sample is trusted: at 200 ppm of drift it is off by 2 ms then.
const SAMPLE_LIFE_MS: u64 = 10_000;

/// Off the allowed error: 2 ms of drift, and 1 ms each for the rounding of two clocks.
const SLACK_MS: i64 = 4;

#[derive(Debug, Clone, Default)]
pub struct RedisClock {
    offset_ms: Option<i64>,
    /// Local time of the newest good sample.
    sampled_ms: Option<u64>,
    /// Of the last sample.
    trip_ms: u64,
    /// What Redis answered last, however long that was under way.
    told_ms: u64,
}

impl RedisClock {
    /// The label of a charge that leaves now: the raw clock until anything is known.
    pub fn label(&self, now_ms: u64) -> u64 {
        now_ms.saturating_add_signed(self.offset_ms.unwrap_or(0))
    }

    pub fn offset_ms(&self) -> Option<i64> {
        self.offset_ms
    }

    /// Whether the sample has lived half its life, so that the next trip may renew it.
    pub fn is_aging(&self, now_ms: u64) -> bool {
        self.is_unsure(now_ms.saturating_add(SAMPLE_LIFE_MS / 2))
    }

    /// How long a command is under way until it runs, as far as one can tell.
    pub fn one_way_ms(&self) -> u64 {
        self.trip_ms / 2
    }

    /// Whether `TIME` must ride, so that the charge is judged by Redis' own word.
    pub fn is_unsure(&self, now_ms: u64) -> bool {
        !self.sampled_ms.is_some_and(|sampled_ms| {
            now_ms
                .checked_sub(sampled_ms)
                .is_some_and(|age_ms| age_ms < SAMPLE_LIFE_MS)
        })
    }

    /// What Redis' time has passed for certain: without a good sample what it has told.
    pub fn passed_ms(&self, now_ms: u64) -> u64 {
        match self.is_unsure(now_ms) {
            true => self.told_ms,
            false => u64::MAX,
        }
    }

    pub fn observe(&mut self, sent_ms: u64, received_ms: u64, redis_ms: u64) {
        self.told_ms = redis_ms;
        let signed = |time_ms: u64| i64::try_from(time_ms).unwrap_or(i64::MAX);
        let Some(trip_ms) = received_ms.checked_sub(sent_ms) else {
            return;
        };
        self.trip_ms = trip_ms;
        let trip_ms = signed(trip_ms);
        let newest = signed(redis_ms).saturating_sub(signed(sent_ms));
        let middle = newest.saturating_sub(trip_ms / 2);
        let bound = signed(RESIDUAL_MS) / 2 - SLACK_MS - (trip_ms + 1) / 2;
        if bound >= 0 {
            let nearest = self
                .offset_ms
                .unwrap_or(middle)
                .clamp(middle.saturating_sub(bound), middle.saturating_add(bound));
            self.offset_ms = Some(nearest);
            self.sampled_ms = Some(received_ms);
            return;
        }
        // Too slow to trust for other charges, good enough to correct a wrong clock. What a
        // good sample said is nearer to the truth than the middle of a long trip.
        let oldest = newest.saturating_sub(trip_ms);
        self.offset_ms = match self.offset_ms {
            Some(offset) if (oldest..=newest).contains(&offset) => Some(offset),
            Some(offset) if !self.is_unsure(received_ms) => Some(offset.clamp(oldest, newest)),
            _ => Some(middle),
        };
    }
}
