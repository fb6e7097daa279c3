//! One address as one isolate knows it, and what everybody's reports of it say.

use super::record::Record;
use super::tally::{RIGHT_WINDOWS, Report, Scale, Sums, Tally, Waiting};
use super::{MAX_FIELDS, Moment, RECHECK_MS, SETTLE_MS};
use crate::redis::{Command, Reply};

/// Longer than a look with its pause and two trips.
pub const BUSY_MS: u64 = 10_000;
/// Windows and terms of one address; a policy seldom has two.
const MAX_TALLIES: usize = 4;
/// Fields that one look deletes.
const MAX_DELETED: usize = 64;

/// Added to what must be kept.
const TTL_MARGIN_MS: u64 = 60_000;

/// What one isolate knows of one address.
#[derive(Debug, Default)]
pub struct Entry {
    pub record: Record,
    /// When it was read, by the own clock.
    pub read_ms: Option<u64>,
    /// By Redis' clock.
    pub suspected_until_ms: u64,
    pub tallies: Vec<Tally>,
    pub waiting: Waiting,
    /// The last look's begin, by the own clock.
    pub looked_ms: Option<u64>,
    /// A task is at work, unless it was ended.
    pub busy_until_ms: u64,
}

/// An own clock's time in the future is no time that has been.
pub fn has_passed(since_ms: Option<u64>, duration_ms: u64, own_ms: u64) -> bool {
    !since_ms.is_some_and(|since_ms| since_ms <= own_ms && own_ms - since_ms < duration_ms)
}

impl Entry {
    pub fn learn(&mut self, record: Record, now: Moment) {
        if record.until_ms != self.record.until_ms {
            self.tallies.clear();
            self.waiting.clear();
        }
        self.record = record;
        self.read_ms = Some(now.own_ms);
    }

    /// The tally of this window; the counts of another one are gone.
    pub fn tally(&mut self, scale: Scale, now: Moment) -> Option<&mut Tally> {
        let window = scale.window(now.redis_ms);
        let at = match self.tallies.iter().position(|tally| tally.scale == scale) {
            Some(at) => at,
            None => {
                if self.tallies.len() >= MAX_TALLIES {
                    self.tallies.swap_remove(0);
                }
                self.tallies.push(Tally::new(scale, window));
                self.tallies.len() - 1
            }
        };
        let tally = self.tallies.get_mut(at)?;
        tally.enter(window);
        Some(tally)
    }

    /// Whether Redis is to be told or asked something.
    pub fn wants_look(&self, now: Moment) -> bool {
        match self.record.left_ms(now.redis_ms) {
            Some(_) => has_passed(self.read_ms, RECHECK_MS, now.own_ms),
            None => self.tallies.iter().any(|tally| {
                tally.changed != tally.reported
                    || (tally.abnormal_from_ms.is_some()
                        && tally.window == tally.scale.window(now.redis_ms))
            }),
        }
    }

    /// The record that follows from everybody's reports, if another one does.
    pub fn judge(&mut self, fields: &[(&str, &Reply)], now: Moment, random: u64) -> Option<Record> {
        let record = self.record;
        let mut struck = None;
        let mut has_offended = false;
        for tally in &mut self.tallies {
            if tally.window != tally.scale.window(now.redis_ms) {
                continue;
            }
            let name = tally.scale.field();
            let mut sums = Sums::default();
            for (_, text) in fields.iter().filter(|field| field.0.starts_with(&name)) {
                if let Some(report) = text.as_str().and_then(Report::parse) {
                    sums.add(&report, tally.window, record.until_ms, now.redis_ms);
                }
            }
            has_offended |= tally.offences > tally.recorded;
            tally.recorded = tally.offences;
            if !sums.is_abnormal(tally.scale.penalty.after) {
                tally.abnormal_from_ms = None;
                continue;
            }
            let since_ms = *tally.abnormal_from_ms.get_or_insert(now.own_ms);
            if has_passed(Some(since_ms), SETTLE_MS, now.own_ms) {
                struck = Some(record.struck(&tally.scale.penalty, now.redis_ms, random));
            }
        }
        let offended =
            || (has_offended && record.strikes > 0).then(|| record.offended(now.redis_ms));
        struck.or_else(offended)
    }

    /// The key lives as long as its record and its reports.
    pub fn expire(&self, key: &str, longest_window_ms: u64, now: Moment) -> Command {
        let windows = self.tallies.iter().map(|tally| tally.scale.window_ms);
        let longest_ms = windows.max().unwrap_or(0).max(longest_window_ms);
        let life_ms = longest_ms
            .saturating_mul(RIGHT_WINDOWS + 1)
            .max(self.record.life_ms(now.redis_ms));
        Command::pexpire(key, life_ms.saturating_add(TTL_MARGIN_MS))
    }

    pub fn is_busy(&self, own_ms: u64) -> bool {
        // A clock that was set back must not keep it busy for long.
        (1..=BUSY_MS).contains(&self.busy_until_ms.saturating_sub(own_ms))
    }
}

/// The first reports, when there are too many: whatever they say, more would be no better.
pub fn excess<'a>(fields: &[(&'a str, &Reply)]) -> Vec<&'a str> {
    if fields.len() <= MAX_FIELDS {
        return Vec::new();
    }
    let names = fields.iter().map(|field| field.0);
    let reports = names.filter(|name| !matches!(*name, "s" | "w"));
    reports.take(MAX_DELETED).collect()
}
