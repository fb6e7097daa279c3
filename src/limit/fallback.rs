//! What limits get whose database does not answer.
//!
//! The local mode goes on from what Redis said last: a quota that was spent stays so
//! until its epoch ends. Of what is left, and of every window after that, an isolate
//! admits the share that it had while Redis was there, so that all isolates together
//! admit about the limit.

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
    /// When Redis' last word stops to count, by Redis' clock.
    until_ms: u64,
}

impl Alone {
    fn new(memory: &mut Memory, rule: &Rule<'_>, now_ms: u64) -> Self {
        let spot = memory.spot(rule, now_ms);
        let (known, until_ms) = memory.last_word(rule, spot);
        let (share, charged) = memory.share(rule, spot);
        let own = memory.local.count(rule, now_ms);
        Self {
            count: known + own,
            own: charged + own,
            // Whoever has the smallest share may still ask.
            own_most: (rule.capacity() * share).div_ceil(SHARES).max(rule.cost()),
            until_ms,
        }
    }

    fn remaining(&self, rule: &Rule<'_>) -> u64 {
        let all = rule.capacity().saturating_sub(self.count);
        all.min(self.own_most.saturating_sub(self.own))
    }

    fn frees_in(&self, memory: &mut Memory, rule: &Rule<'_>, room: u64, now_ms: u64) -> u64 {
        let label_ms = memory.label(rule.shard, now_ms);
        // Its own share fits again when as much of it has gone.
        let taken = rule.capacity().saturating_sub(self.own_most);
        (memory.local.frees_in(rule, room + taken, now_ms))
            .max(self.until_ms.saturating_sub(label_ms))
            .max(1)
    }
}

/// Which of the limits refuse, with how long until they admit; shadows refuse nobody.
pub(super) fn refusals(
    memory: &mut Memory,
    rules: &[&Rule<'_>],
    now_ms: u64,
) -> Vec<(String, u64)> {
    let mut refusals = Vec::new();
    for rule in rules {
        let alone = Alone::new(memory, rule, now_ms);
        if alone.remaining(rule) < rule.cost() && !rule.limit.shadow {
            let frees_ms = alone.frees_in(memory, rule, rule.cost(), now_ms);
            refusals.push((rule.limit.name.clone(), frees_ms));
        }
    }
    refusals
}

pub(super) fn admit(memory: &mut Memory, rules: &[&Rule<'_>], now_ms: u64) {
    for rule in rules {
        memory.local.add(rule, now_ms);
    }
}

/// After the verdict.
pub(super) fn quota(memory: &mut Memory, rule: &Rule<'_>, now_ms: u64) -> Quota {
    let alone = Alone::new(memory, rule, now_ms);
    let remaining = alone.remaining(rule);
    let room = match remaining < rule.cost().max(1) {
        true => rule.cost().max(1),
        false => 0,
    };
    let reset_ms = alone.frees_in(memory, rule, room, now_ms);
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
