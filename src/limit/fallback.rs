//! What a limited request gets while Redis is down.
//!
//! The local mode goes on from what Redis said last: a quota that was spent stays so
//! until its epoch ends, and an isolate that misses its deadlines does not begin anew.

use super::check::known_quota;
use super::memory::Memory;
use super::rule::Rule;
use super::{Quota, Verdict};
use crate::policy::RedisDown;

/// `Local` judges all limits or none, like Redis; its quotas are this isolate's own.
pub(super) fn fallback(
    memory: &mut Memory,
    rules: &[Rule<'_>],
    redis_down: RedisDown,
    now_ms: u64,
) -> (Verdict, Vec<Quota>) {
    match redis_down {
        RedisDown::Open => (Verdict::Admitted, known(memory, rules, now_ms)),
        RedisDown::Closed => (Verdict::Unavailable, known(memory, rules, now_ms)),
        RedisDown::Local => judge(memory, rules, now_ms),
    }
}

/// What Redis said last, of limits that nobody counts now.
fn known(memory: &Memory, rules: &[Rule<'_>], now_ms: u64) -> Vec<Quota> {
    let label_ms = memory.clock.label(now_ms);
    rules
        .iter()
        .map(|rule| known_quota(memory, rule, label_ms))
        .collect()
}

fn judge(memory: &mut Memory, rules: &[Rule<'_>], now_ms: u64) -> (Verdict, Vec<Quota>) {
    let label_ms = memory.clock.label(now_ms);
    let words: Vec<(u64, u64)> = rules
        .iter()
        .map(|rule| memory.last_word(rule, rule.window.spot(label_ms)))
        .collect();
    let local = &mut memory.local;
    let mut violated = Vec::new();
    let mut retry_after_ms = 1;
    for (rule, (known, until_ms)) in rules.iter().zip(&words) {
        let own = local.count(rule, now_ms) + rule.cost();
        if !rule.does_fit(known + own) {
            violated.push(rule.limit.name.clone());
            retry_after_ms = retry_after_ms
                .max(until_ms.saturating_sub(label_ms))
                .max(local.frees_in(rule, rule.cost(), now_ms));
        }
    }
    if violated.is_empty() {
        for rule in rules {
            local.add(rule, now_ms);
        }
    }
    let quotas = rules
        .iter()
        .zip(&words)
        .map(|(rule, (known, until_ms))| {
            let count = known + local.count(rule, now_ms);
            let remaining = u64::from(rule.requests).saturating_sub(count);
            let is_refused = violated.contains(&rule.limit.name);
            let room = match remaining == 0 || is_refused {
                true => rule.cost().max(1),
                false => 0,
            };
            Quota {
                name: rule.limit.name.clone(),
                requests: rule.requests,
                window_ms: rule.limit.window_ms,
                remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
                reset_ms: local
                    .frees_in(rule, room, now_ms)
                    .max(until_ms.saturating_sub(label_ms))
                    .max(1),
            }
        })
        .collect();
    let verdict = match violated.is_empty() {
        true => Verdict::Admitted,
        false => Verdict::Refused {
            retry_after_ms,
            violated,
        },
    };
    (verdict, quotas)
}
