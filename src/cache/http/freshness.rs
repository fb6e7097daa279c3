//! How old an answer is, and how long it is fresh (RFC 9111, 4.2), in milliseconds.

use super::control::Control;
use super::date;
use crate::http::Headers;

/// 4.2.2: a tenth of the time since the last change is a usual guess.
const HEURISTIC_SHARE: u64 = 10;
/// Nobody is surprised by a guess of a day.
const MAX_HEURISTIC_MS: u64 = 86_400_000;

/// 1.2.2: what is above the greatest number that is counted is 2^31.
pub const MOST: u64 = 1 << 31;

/// When the question went out and when its answer was there, by our clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub asked_ms: u64,
    pub answered_ms: u64,
}

/// Seconds since the epoch of a field with a date, as milliseconds.
pub fn date_ms(headers: &Headers, name: &str, now_ms: u64) -> Option<u64> {
    let now_s = i64::try_from(now_ms / 1000).ok()?;
    let at_s = date::parse(headers.get(name)?, now_s)?;
    // What was before the epoch is as long ago as can be.
    Some(u64::try_from(at_s).unwrap_or(0) * 1000)
}

/// 4.2.3: corrected_initial_age. `None`: an `Age` that cannot be read, or several of them.
/// 5.1 would ignore the one and take the first of the others; then a cache on the way that
/// is at fault could make an old answer a new one, so here it counts as stale instead.
pub fn initial_age_ms(headers: &Headers, span: Span) -> Option<u64> {
    let mut ages = headers.get_all("age");
    let age_ms = match (ages.next(), ages.next()) {
        (None, _) => 0,
        (Some(age), None) => number(age.trim())? * 1000,
        _ => return None,
    };
    let date_ms = date_ms(headers, "date", span.answered_ms).unwrap_or(span.answered_ms);
    let apparent_ms = span.answered_ms.saturating_sub(date_ms);
    let delay_ms = span.answered_ms.saturating_sub(span.asked_ms);
    Some(apparent_ms.max(age_ms + delay_ms))
}

/// Digits alone; a number that is too large is the largest there is (1.2.2: 2^31).
pub fn number(text: &str) -> Option<u64> {
    let mut number = 0;
    for byte in text.bytes() {
        if !byte.is_ascii_digit() {
            return None;
        }
        number = (number * 10 + u64::from(byte - b'0')).min(MOST);
    }
    (!text.is_empty()).then_some(number)
}

/// How long it is fresh from its birth on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    pub ms: u64,
    /// The origin said so, if only that it is over.
    pub is_explicit: bool,
}

/// 4.2.1: what the origin says, in the order of what counts.
pub fn lifetime(status: u16, headers: &Headers, control: &Control, answered_ms: u64) -> Lifetime {
    let explicit = |ms| Lifetime {
        ms,
        is_explicit: true,
    };
    // A shared cache takes s-maxage before max-age, and both before Expires.
    if let Some(seconds) = control.s_maxage_s.or(control.max_age_s) {
        return explicit(seconds * 1000);
    }
    let born_ms = date_ms(headers, "date", answered_ms).unwrap_or(answered_ms);
    if !control.is_targeted && headers.contains("expires") {
        // 5.3: a date that is none, above all "0", is in the past.
        let expires_ms = date_ms(headers, "expires", answered_ms).unwrap_or(0);
        return explicit(expires_ms.saturating_sub(born_ms));
    }
    let changed_ms = date_ms(headers, "last-modified", answered_ms).unwrap_or(u64::MAX);
    // 4.2.2: a guess is for what says nothing, of a status that allows it or with `public`.
    let may_guess = is_heuristic(status) || control.public;
    let unchanged_ms = born_ms.saturating_sub(changed_ms);
    Lifetime {
        ms: match may_guess {
            true => (unchanged_ms / HEURISTIC_SHARE).min(MAX_HEURISTIC_MS),
            false => 0,
        },
        is_explicit: false,
    }
}

/// RFC 9110, 15.1: statuses that are heuristically cacheable; 206 is not stored here.
pub fn is_heuristic(status: u16) -> bool {
    matches!(
        status,
        200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501
    )
}
