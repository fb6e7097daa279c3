//! Early refresh, in proportion to what a fetch costs: XFetch (Vattani, Chierichetti and
//! Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015) with beta 1.
//!
//! Each hit draws a number u and is elected when `now - fetch * ln(u)` is past the entry's
//! freshness: the later, the dearer the fetch and the more hits there are, the likelier.
//! Nothing here reads a clock or draws the number itself.

use crate::cache::entry::Entry;

/// No fetch took longer; what somebody else writes into a record may say so.
pub const MOST_TOOK_MS: u64 = 1 << 20;
/// `-ln` of the smallest number of 64 bits is below it.
const MOST_DRAWN: u64 = 45;
/// ln 2 in 65 536ths.
const LN_2: u64 = 45_426;

/// Whether the hit that drew this refreshes the entry. `random` is not drawn while no number
/// would do.
pub fn is_elected(entry: &Entry, now_ms: u64, random: impl FnOnce() -> u128) -> bool {
    let Some(took_ms) = entry.took_ms else {
        return false;
    };
    let took_ms = took_ms.min(MOST_TOOK_MS);
    let left_ms = entry.fresh_until_ms.saturating_sub(now_ms);
    left_ms < took_ms.saturating_mul(MOST_DRAWN) && early_ms(took_ms, random()) >= left_ms
}

/// `-took * ln(u)` for the u in 0..1 whose first 64 bits these are. The logarithm goes
/// straight between powers of two: too large by at most 0.06, so that much of a fetch early.
pub fn early_ms(took_ms: u64, random: u128) -> u64 {
    // The upper half; zero is as good as one.
    let bits = u64::try_from(random >> 64).unwrap_or(1).max(1);
    let zeros = bits.leading_zeros();
    // After the leading one; in 65 536ths.
    let fraction = bits.unbounded_shl(zeros + 1) >> 48;
    let minus_log_2 = (u64::from(zeros + 1) << 16) - fraction;
    (took_ms * ((minus_log_2 * LN_2) >> 16)) >> 16
}
