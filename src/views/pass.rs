//! Which buckets a pass looks at, in which order, and when a day is done with.

use super::record::Place;
use super::{BUCKETS, dirty_key, is_over, items_key};
use crate::redis::Command;

/// Bytes of one hour's bits.
const HOUR_BYTES: usize = 2_048;
/// Keys of one command.
const MAX_KEYS: usize = 1_000;

struct Day {
    day: u64,
    /// Nobody counts for it any more: all its buckets are looked at, and it ends.
    is_over: bool,
    /// Of the hours that are looked at, together.
    bits: Vec<u8>,
}

impl Day {
    /// The first bucket from `from` on in which something was counted.
    fn next(&self, from: u64) -> Option<u64> {
        let is_set = |bucket: &u64| {
            let byte = usize::try_from(bucket / 8).ok();
            let byte = byte.and_then(|at| self.bits.get(at));
            byte.is_some_and(|byte| byte & (0x80 >> (bucket % 8)) != 0)
        };
        (from..BUCKETS).find(is_set)
    }
}

/// The way of a pass through days and their buckets, the oldest first. Days that are over
/// end after all buckets, so that one batch may have views of several days.
pub struct Walk {
    days: Vec<Day>,
    place: Place,
    /// Days before it have been ended, or have items left.
    closed: u64,
}

impl Walk {
    /// `found` are days and their bits. Of a day that goes on only hours from `from_hour`
    /// on, counted since 1970, are looked at: what was counted before was sent.
    pub fn new(found: Vec<(u64, Vec<u8>)>, begun_ms: u64, from_hour: u64, place: Place) -> Self {
        let days = found.into_iter().map(|(day, hours)| {
            let is_over = is_over(day, begun_ms);
            let first = match is_over {
                true => 0,
                false => from_hour.saturating_sub(day * 24),
            };
            let first = usize::try_from(first).unwrap_or(usize::MAX);
            let mut bits = vec![0; HOUR_BYTES];
            for hour in hours.chunks(HOUR_BYTES).skip(first) {
                for (bits, more) in bits.iter_mut().zip(hour) {
                    *bits |= more;
                }
            }
            Day { day, is_over, bits }
        });
        Self {
            days: days.collect(),
            place,
            closed: 0,
        }
    }

    /// What it comes to next.
    pub fn place(&self) -> Place {
        self.place
    }

    fn day(&self) -> Option<&Day> {
        self.days.iter().find(|day| day.day >= self.place.day)
    }

    /// The next bucket.
    pub fn next(&mut self) -> Option<Place> {
        loop {
            let day = self.day()?;
            let from = match day.day == self.place.day {
                true => self.place.bucket,
                false => 0,
            };
            let (day, found) = (day.day, day.next(from));
            let Some(bucket) = found else {
                self.place = Place {
                    day: day + 1,
                    bucket: 0,
                };
                continue;
            };
            self.place = Place {
                day,
                bucket: bucket + 1,
            };
            return Some(Place { day, bucket });
        }
    }

    /// Whether there is one.
    pub fn has_next(&mut self) -> bool {
        let place = self.place;
        let has_next = self.next().is_some();
        self.place = place;
        has_next
    }

    /// A day that is over and may end, once there are no more buckets.
    pub fn closing(&self) -> Option<u64> {
        let mut over = self.days.iter().filter(|day| day.is_over);
        let next = over.find(|day| day.day >= self.closed)?;
        Some(next.day)
    }

    pub fn close(&mut self, day: u64) {
        self.closed = day + 1;
    }

    /// Asks whether any bucket of a day that is over still has items: only then it has
    /// something to lose.
    pub fn is_empty(&self, day: u64) -> Vec<Command> {
        let mut keys = Vec::new();
        let mut from = 0;
        let found = self.days.iter().find(|found| found.day == day);
        while let Some(bucket) = found.and_then(|day| day.next(from)) {
            keys.push(items_key(day, bucket));
            from = bucket + 1;
        }
        let keys = keys.chunks(MAX_KEYS);
        keys.map(|keys| Command::new("EXISTS").args(keys)).collect()
    }

    pub fn end(day: u64) -> Command {
        Command::new("DEL").arg(dirty_key(day))
    }
}
