//! When a pass is due: `VIEW_SYNC_CRON`, or every so many hours.
//!
//! Five fields in UTC: minute, hour, day of the month, month, day of the week. Each is `*`
//! or a list of numbers and ranges, with or without a step; Sunday is 0 and 7. When both
//! days are given one of them is enough, as cron has it. No names and no `@daily`.

use super::{DAY_MS, HOUR_MS};
use crate::cache::http::date::civil;

const MINUTE_MS: u64 = 60_000;
/// A schedule of a day that no year has is looked for no further back.
const MAX_DAYS_BACK: u64 = 400;
/// `VIEW_SYNC_INTERVAL_HOURS` are counted from this hour, when the fewest read.
const ANCHOR_HOUR: u64 = 2;
/// The longest interval.
pub const MAX_INTERVAL_HOURS: u64 = 7 * 24;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    Hours(u64),
    Cron(Box<Cron>),
}

impl Default for Schedule {
    fn default() -> Self {
        Self::Hours(12)
    }
}

/// A bit for each number that a field names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Either day is enough.
    either: bool,
}

impl Schedule {
    /// Whether a pass was planned for a time after `since_ms` that is not after `now_ms`.
    pub fn is_due(&self, since_ms: u64, now_ms: u64) -> bool {
        match self {
            Self::Hours(hours) => {
                let every_ms = hours.max(&1) * HOUR_MS;
                let anchor_ms = ANCHOR_HOUR * HOUR_MS;
                let count = |at_ms: u64| at_ms.saturating_sub(anchor_ms) / every_ms;
                count(now_ms) > count(since_ms)
            }
            Self::Cron(cron) => cron
                .last(now_ms, since_ms)
                .is_some_and(|last_ms| last_ms > since_ms),
        }
    }
}

impl Cron {
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split_ascii_whitespace();
        let mut field = |least, most| bits(fields.next()?, least, most);
        let (minutes, hours) = (field(0, 59)?, field(0, 23)?);
        let (days, months, weekdays) = (field(1, 31)?, field(1, 12)?, field(0, 7)?);
        if fields.next().is_some() {
            return None;
        }
        let is_any = |at| {
            let field = text.split_ascii_whitespace().nth(at);
            field.is_some_and(|field: &str| field.starts_with('*'))
        };
        Some(Self {
            minutes,
            hours,
            days,
            months,
            // 7 is 0.
            weekdays: weekdays | weekdays >> 7,
            either: !is_any(2) && !is_any(4),
        })
    }

    /// The last planned time at or before `now_ms`; nobody asks for one before `since_ms`.
    fn last(&self, now_ms: u64, since_ms: u64) -> Option<u64> {
        let today = now_ms / DAY_MS;
        let first = (since_ms / DAY_MS).max(today.saturating_sub(MAX_DAYS_BACK));
        for day in (first..=today).rev() {
            if !self.is_day(day) {
                continue;
            }
            let until = match day == today {
                true => now_ms % DAY_MS / MINUTE_MS,
                false => 24 * 60 - 1,
            };
            let is_planned =
                |minute: &u64| has(self.hours, minute / 60) && has(self.minutes, minute % 60);
            if let Some(minute) = (0..=until).rev().find(is_planned) {
                return Some(day * DAY_MS + minute * MINUTE_MS);
            }
        }
        None
    }

    fn is_day(&self, day: u64) -> bool {
        let (_, month, of_month) = civil(i64::try_from(day).unwrap_or(0));
        let has = |bits, number: i64| has(bits, u64::try_from(number).unwrap_or(0));
        let days = has(self.days, of_month);
        // The epoch was a Thursday.
        let weekdays = (self.weekdays >> ((day + 4) % 7)) & 1 == 1;
        let is_day = match self.either {
            true => days || weekdays,
            false => days && weekdays,
        };
        is_day && has(self.months, month)
    }
}

fn has(bits: u64, number: u64) -> bool {
    (bits >> number.min(63)) & 1 == 1
}

/// `*`, `5`, `1-5`, `*/15`, `0-30/10`, and lists of them.
fn bits(field: &str, least: u64, most: u64) -> Option<u64> {
    let number = |text: &str| {
        let is_number = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|_| is_number)
    };
    let mut bits = 0;
    for part in field.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, number(step).filter(|step| *step > 0)?),
            None => (part, 1),
        };
        let (first, last) = match (range, range.split_once('-')) {
            ("*", _) => (least, most),
            (_, Some((first, last))) => (number(first)?, number(last)?),
            // `5/10` is from 5 on.
            (first, None) if part.contains('/') => (number(first)?, most),
            (one, None) => (number(one)?, number(one)?),
        };
        if !(least <= first && first <= last && last <= most) {
            return None;
        }
        let mut at: u64 = first;
        while at <= last {
            bits |= 1 << at;
            at += step;
        }
    }
    Some(bits)
}
