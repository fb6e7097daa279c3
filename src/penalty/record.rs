//! What Redis keeps of one address's strikes, and how they grow and decay.

use crate::policy::Penalty;

/// How far a ban's end may lie beyond its length: isolates know Redis' time to less.
const MAX_SKEW_MS: u64 = 60_000;

/// The grammar allows no longer ban, and so many doublings make any one longer.
const MAX_BASE_MS: u64 = 1 << 32;
const MAX_DOUBLINGS: u32 = 31;

/// The field `s` of the key; the default is an address without strikes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Record {
    /// When the last ban ends, by Redis' clock. Reports name it too, so that what led to
    /// one strike never leads to another.
    pub until_ms: u64,
    pub strikes: u32,
    /// The time without an offence that takes one strike off: the last ban's length, or the
    /// shortest ban's if that is longer.
    pub clean_window_ms: u64,
    /// Since when there was no offence.
    pub clean_from_ms: u64,
}

impl Record {
    /// Nothing but what an isolate may have written; a ban that ends later than its length
    /// allows is none of ours.
    pub fn parse(text: &str, now_ms: u64) -> Option<Self> {
        let mut numbers = text.split(' ').map(|number| number.parse::<u64>().ok());
        let mut next = || numbers.next().flatten();
        let record = Self {
            until_ms: next()?,
            strikes: u32::try_from(next()?).ok()?,
            clean_window_ms: next()?,
            clean_from_ms: next()?,
        };
        let latest_ms = now_ms
            .saturating_add(record.clean_window_ms)
            .saturating_add(MAX_SKEW_MS);
        (record.until_ms <= latest_ms && record.clean_window_ms > 0).then_some(record)
    }

    pub fn text(&self) -> String {
        let numbers = [
            self.until_ms,
            u64::from(self.strikes),
            self.clean_window_ms,
            self.clean_from_ms,
        ];
        join(&numbers)
    }

    /// How much of the ban is left.
    pub fn left_ms(&self, now_ms: u64) -> Option<u64> {
        let left_ms = self.until_ms.checked_sub(now_ms).filter(|left| *left > 0)?;
        Some(left_ms.min(self.clean_window_ms.saturating_add(MAX_SKEW_MS)))
    }

    /// What is left of the strikes after the clean windows since the last offence.
    pub fn strikes_at(&self, now_ms: u64) -> u32 {
        let clean_ms = now_ms.saturating_sub(self.clean_from_ms.max(self.until_ms));
        let windows = clean_ms / self.clean_window_ms.max(1);
        self.strikes
            .saturating_sub(u32::try_from(windows).unwrap_or(u32::MAX))
    }

    /// One more strike and the ban that it brings.
    #[must_use]
    pub fn struck(&self, penalty: &Penalty, now_ms: u64, random: u64) -> Self {
        let strikes = (self.strikes_at(now_ms) + 1).min(most_strikes(penalty));
        let ban_ms = ban_ms(penalty, strikes, random);
        let until_ms = now_ms.saturating_add(ban_ms);
        Self {
            until_ms,
            strikes,
            clean_window_ms: ban_ms.max(penalty.base_ms).max(1),
            clean_from_ms: until_ms,
        }
    }

    /// After an offence that is no strike: what has decayed stays so, and the next clean
    /// window begins now.
    #[must_use]
    pub fn offended(&self, now_ms: u64) -> Self {
        Self {
            strikes: self.strikes_at(now_ms),
            clean_from_ms: now_ms.max(self.until_ms),
            ..*self
        }
    }

    /// How long it is worth keeping: until all strikes have decayed.
    pub fn life_ms(&self, now_ms: u64) -> u64 {
        let clean_ms = self
            .clean_window_ms
            .saturating_mul(u64::from(self.strikes_at(now_ms)));
        self.left_ms(now_ms).unwrap_or(0).saturating_add(clean_ms)
    }
}

/// base x 2^(strikes - 1) with a jitter of a tenth either way, so that those who were
/// banned together do not come back together; at most `max`.
pub fn ban_ms(penalty: &Penalty, strikes: u32, random: u64) -> u64 {
    let base_ms = penalty.base_ms.clamp(1, MAX_BASE_MS);
    let plain_ms = base_ms << strikes.saturating_sub(1).min(MAX_DOUBLINGS);
    let capped_ms = plain_ms.min(penalty.max_ms.min(MAX_BASE_MS));
    (capped_ms * (900 + random % 201) / 1000).clamp(1, penalty.max_ms.max(1))
}

/// Strikes beyond the longest ban would only make the decay longer.
fn most_strikes(penalty: &Penalty) -> u32 {
    let base_ms = penalty.base_ms.clamp(1, MAX_BASE_MS);
    let most = (0..MAX_DOUBLINGS).find(|doublings| base_ms << doublings >= penalty.max_ms);
    most.unwrap_or(MAX_DOUBLINGS) + 1
}

/// Numbers with a space between each.
pub fn join(numbers: &[u64]) -> String {
    let mut text = String::new();
    for number in numbers {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&number.to_string());
    }
    text
}
