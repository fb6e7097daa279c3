//! What limits get whose database does not answer.
//!
//! The local mode goes on from what Redis said last: a quota that was spent stays so
//! until its epoch ends, or has leaked from its bucket. Of what is left, and of every
//! window after that, an isolate admits the share that it had while Redis was there, so
//! that all isolates together admit about the limit.

use super::memory::{Memory, SHARES};
use super::quota::known_quota;
use super::rule::Rule;
use super::{Quota, Verdict};

/// A limit as this isolate stands alone with it.
struct Alone {
    /// What counts, of Redis' last word and of its own.
    count: u64,
    /// How much of its own may count.
    own: u64,
    own_most: u64,
}

/// Looks for the return in so many steps: 2^40 ms are longer than any window.
const HALVINGS: u32 = 40;

impl Alone {
    /// As it is then, if nothing more is admitted until then.
    fn new(memory: &Memory, rule: &Rule<'_>, now_ms: u64) -> Self {
        let spot = memory.spot(rule, now_ms);
        let known = memory.last_word(rule, spot);
        let (share, charged) = memory.share(rule, spot);
        // Whoever has the smallest share may still ask.
        let own_most = (rule.capacity() * share).div_ceil(SHARES).max(rule.cost());
        if rule.window.is_bucket() {
            // A bucket of its own, as much smaller, leaks as much slower, and was as full.
            let own = memory.local.level(rule, leak(rule, share), now_ms);
            let own = own.unwrap_or_else(|| (known * share).div_ceil(SHARES));
            return Self {
                count: own,
                own,
                own_most,
            };
        }
        let own = memory.local.count(rule, now_ms);
        Self {
            count: known + own,
            own: charged + own,
            own_most,
        }
    }

    fn remaining(&self, rule: &Rule<'_>) -> u64 {
        let all = rule.capacity().saturating_sub(self.count);
        all.min(self.own_most.saturating_sub(self.own))
    }

    /// What is left at most, once nothing counts.
    fn most(&self, rule: &Rule<'_>) -> u64 {
        rule.capacity().min(self.own_most)
    }
}

/// At which share of its rate a bucket leaks here: at least one request's dearest cost in a window,
/// as at least one fits.
fn leak(rule: &Rule<'_>, share: u64) -> u64 {
    let cost = u64::from(rule.limit.cost.miss.max(1));
    let least = (cost * SHARES).div_ceil(u64::from(rule.requests.max(1)));
    share.max(least.min(SHARES))
}

/// How long until `room` units fit if nobody else asks: what counts only becomes less with
/// time, so it is found by halving.
fn returns_in(memory: &Memory, rule: &Rule<'_>, room: u64, now_ms: u64) -> u64 {
    let has_room = |after_ms: u64| {
        let alone = Alone::new(memory, rule, now_ms.saturating_add(after_ms));
        alone.remaining(rule) >= room
    };
    let (mut none_ms, mut some_ms) = (0u64, 3 * rule.window.life_ms());
    for _ in 0..HALVINGS {
        let between_ms = none_ms.midpoint(some_ms);
        if between_ms == none_ms {
            break;
        }
        match has_room(between_ms) {
            true => some_ms = between_ms,
            false => none_ms = between_ms,
        }
    }
    some_ms
}

/// Which of the limits refuse, with how long until they admit; shadows refuse nobody.
pub(super) fn refusals(memory: &Memory, rules: &[&Rule<'_>], now_ms: u64) -> Vec<(String, u64)> {
    let mut refusals = Vec::new();
    for rule in rules {
        let alone = Alone::new(memory, rule, now_ms);
        if alone.remaining(rule) < rule.cost() && !rule.limit.shadow {
            let frees_ms = returns_in(memory, rule, rule.cost(), now_ms);
            refusals.push((rule.limit.name.clone(), frees_ms));
        }
    }
    refusals
}

pub(super) fn admit(memory: &mut Memory, rules: &[&Rule<'_>], now_ms: u64) {
    for rule in rules {
        if rule.window.is_bucket() {
            let (share, _) = memory.share(rule, memory.spot(rule, now_ms));
            let level = Alone::new(memory, rule, now_ms).own;
            memory.local.pour(rule, leak(rule, share), level, now_ms);
        }
        memory.local.add(rule, now_ms);
    }
}

/// After the verdict.
pub(super) fn quota(memory: &Memory, rule: &Rule<'_>, now_ms: u64) -> Quota {
    let alone = Alone::new(memory, rule, now_ms);
    let remaining = alone.remaining(rule);
    // When the request fits, or when there is more room than now.
    let cost = rule.cost().max(1);
    let room = match remaining < cost {
        true => cost,
        false => remaining + 1,
    };
    let reset_ms = match remaining >= alone.most(rule) {
        true => 1,
        false => returns_in(memory, rule, room, now_ms),
    };
    Quota {
        remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
        reset_ms,
        is_degraded: true,
        ..known_quota(memory, rule, now_ms)
    }
}

/// What a request is told that was refused for that.
pub(super) fn verdict(refusals: Vec<(String, u64)>) -> Verdict {
    Verdict::Refused {
        retry_after_ms: refusals.iter().map(|(_, ms)| *ms).max().unwrap_or(1),
        violated: refusals.into_iter().map(|(name, _)| name).collect(),
    }
}
