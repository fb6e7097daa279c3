//! What an answer says of a limit: how much is left and until when.

use super::memory::Memory;
use super::rule::Rule;
use super::settling::Standing;
use super::window::{Known, Spot};
use super::{Quota, Verdict};

/// When the same request fits once more.
pub(super) fn fits_at(rule: &Rule<'_>, spot: Spot, known: &Known) -> (u64, bool) {
    let cost = rule.cost().max(1);
    rule.window.fits_at(spot, rule.requests, cost, known)
}

pub(super) fn room(rule: &Rule<'_>, standing: &Standing) -> u64 {
    let count = rule.window.count(standing.held.spot, &standing.known);
    rule.capacity().saturating_sub(count)
}

/// What is known of a count, as an answer says it.
pub(super) fn quota_of(rule: &Rule<'_>, spot: Spot, known: &Known, label_ms: u64) -> Quota {
    let remaining = rule
        .capacity()
        .saturating_sub(rule.window.count(spot, known));
    let reset_at_ms = match remaining < rule.cost().max(1) {
        true => fits_at(rule, spot, known).0,
        false => rule.window.next_release(spot, known),
    };
    quota(rule, remaining, reset_at_ms, label_ms)
}

/// What the last answer said, for a rule that was not charged now.
pub(super) fn known_quota(memory: &Memory, rule: &Rule<'_>, now_ms: u64) -> Quota {
    let spot = memory.spot(rule, now_ms);
    let label_ms = memory.label(rule.shard, now_ms);
    quota_of(rule, spot, &memory.known(rule, spot), label_ms)
}

pub(super) fn quota(rule: &Rule<'_>, remaining: u64, reset_at_ms: u64, now_ms: u64) -> Quota {
    Quota {
        name: rule.limit.name.clone(),
        requests: rule.requests,
        capacity: rule.capacity(),
        window_ms: rule.limit.window_ms,
        remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
        reset_ms: reset_at_ms.saturating_sub(now_ms).max(1),
        is_shadow: rule.limit.shadow,
        is_degraded: false,
    }
}

/// At least a millisecond: the time may have come while the refund was under way.
pub(super) fn add_refusal(
    verdict: &mut Option<Verdict>,
    rule: &Rule<'_>,
    fits_at_ms: u64,
    now_ms: u64,
) {
    let after_ms = fits_at_ms.saturating_sub(now_ms).max(1);
    let refused = verdict.get_or_insert_with(|| Verdict::Refused {
        retry_after_ms: 1,
        violated: Vec::new(),
    });
    if let Verdict::Refused {
        retry_after_ms,
        violated,
    } = refused
    {
        *retry_after_ms = after_ms.max(*retry_after_ms);
        violated.push(rule.limit.name.clone());
    }
}
