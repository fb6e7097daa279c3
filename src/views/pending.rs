//! How many views of an item are not sent yet, and how many it has in all.

use super::item::Item;
use super::record::State;
use super::{DAY_MS, MAX_DAYS, STATE, items_key, seen_key, totals_key};
use crate::policy::Policy;
use crate::ports::{Clock, Ports, Redis, Store};
use crate::recent::Recent;
use crate::redis::{Batch, Command, Reply};
use crate::visit::Visit;

/// Items of which an isolate remembers how many views are pending: 100 bytes each.
const MAX_KNOWN: usize = 2_048;
/// How old what a listing carries may be.
const FRESH_MS: u64 = 1_000;

/// What an isolate knows.
#[derive(Debug)]
pub struct Known {
    /// The first day of which something may be pending.
    oldest: Option<u64>,
    /// By item: when it was asked for, and what came.
    pending: Recent<(u64, u64)>,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            oldest: None,
            pending: Recent::new(MAX_KNOWN),
        }
    }
}

fn state(reply: Option<&Reply>) -> Option<State> {
    reply.and_then(Reply::as_bytes).and_then(State::read)
}

fn number(reply: Option<&Reply>) -> u64 {
    let number = match reply {
        Some(Reply::Int(number)) => u64::try_from(*number).ok(),
        Some(reply) => reply.as_str().and_then(|text| text.parse().ok()),
        None => None,
    };
    number.unwrap_or(0)
}

/// Days and the commands about them: of each item and day how many views there are and how
/// many were sent.
fn commands<'i>(
    items: impl Iterator<Item = &'i Item>,
    days: &std::ops::RangeInclusive<u64>,
) -> Vec<Command> {
    let mut commands = vec![Command::new("GET").arg(STATE)];
    for item in items {
        for day in days.clone() {
            commands.push(Command::new("SCARD").arg(item.set_key(day)));
            let key = items_key(day, item.bucket());
            commands.push(
                Command::new("ZSCORE")
                    .arg(key)
                    .arg(item.member().to_owned()),
            );
        }
    }
    commands
}

/// Of one trip: a listing's items of all days for which the origin was down would be more. Then
/// it is the latest days'.
const MOST_COMMANDS: u64 = 1_000;

/// The pending ones of the first item in what came.
fn sum(replies: &mut std::slice::Iter<'_, Reply>, days: u64) -> u64 {
    let of_day = |_| {
        let seen = number(replies.next());
        seen.saturating_sub(number(replies.next()))
    };
    (0..days).map(of_day).sum()
}

fn now_ms<P: Ports>(visit: &Visit<'_, P>) -> u64 {
    let offset_ms = visit.gateway.limits.borrow().clock_offset_ms(0);
    visit.now_ms().saturating_add_signed(offset_ms.unwrap_or(0))
}

/// One item in real time: pending, and what the origin said it has in all. `None`: Redis
/// did not answer.
pub async fn of_item<P: Ports>(visit: &Visit<'_, P>, item: &Item) -> Option<(u64, Option<u64>)> {
    let today = now_ms(visit) / DAY_MS;
    let first = today.saturating_sub(MAX_DAYS);
    let mut from = visit.gateway.views.borrow().known.oldest.unwrap_or(today);
    loop {
        let days = from.clamp(first, today)..=today;
        let mut batch = commands(std::iter::once(item), &days);
        let total = Command::new("HGET").arg(totals_key(item.bucket()));
        batch.push(total.arg(item.member().to_owned()));
        let timeout_ms = visit.redis_timeout_ms();
        let batch = Batch::pipeline(batch);
        let replies = visit.pipeline(Store::Limits(0), &batch, timeout_ms).await;
        let replies = replies.ok()?;
        let oldest = state(replies.first()).map_or(first, |state| state.oldest);
        visit.gateway.views.borrow_mut().known.oldest = Some(oldest);
        // There is more than was asked for.
        if oldest.max(first) < *days.start() {
            from = oldest;
            continue;
        }
        let total = replies.last().and_then(Reply::as_str);
        let total = total.and_then(|total| total.parse().ok());
        let mut replies = replies.iter();
        replies.next();
        return Some((sum(&mut replies, today - days.start() + 1), total));
    }
}

/// Of each of some items, a second old at most; `None`: Redis did not answer.
pub async fn of_items<P: Ports>(visit: &Visit<'_, P>, items: &[Item]) -> Option<Vec<u64>> {
    let own_ms = visit.now_ms();
    let today = now_ms(visit) / DAY_MS;
    let (known, oldest): (Vec<Option<u64>>, _) = {
        let mut state = visit.gateway.views.borrow_mut();
        let oldest = state.known.oldest;
        let mut known = |item: &Item| {
            let (asked_ms, pending) = *state.known.pending.use_mut(item.member())?;
            (own_ms.saturating_sub(asked_ms) < FRESH_MS).then_some(pending)
        };
        (items.iter().map(&mut known).collect(), oldest)
    };
    let asked = || {
        let unknown = items.iter().zip(&known);
        unknown.filter_map(|(item, known)| known.is_none().then_some(item))
    };
    if asked().next().is_none() {
        return known.into_iter().collect();
    }
    // Most is of today and yesterday; the same trip says whether there is more.
    let first = oldest.unwrap_or(today.saturating_sub(1));
    let most_days = (MOST_COMMANDS / 2 / asked().count().max(1) as u64).max(2);
    let first = first.max(today.saturating_sub(most_days - 1));
    let days = first.clamp(today.saturating_sub(MAX_DAYS), today)..=today;
    let batch = Batch::pipeline(commands(asked(), &days));
    let timeout_ms = visit.redis_timeout_ms();
    let replies = visit.pipeline(Store::Limits(0), &batch, timeout_ms).await;
    let replies = replies.ok()?;
    let mut state_of = visit.gateway.views.borrow_mut();
    if let Some(state) = state(replies.first()) {
        state_of.known.oldest = Some(state.oldest);
    }
    let mut replies = replies.iter();
    replies.next();
    let mut pending = Vec::with_capacity(items.len());
    for (item, known) in items.iter().zip(&known) {
        pending.push(match known {
            Some(pending) => *pending,
            None => {
                let found = sum(&mut replies, today - days.start() + 1);
                *state_of.known.pending.use_or_default(item.member()) = (own_ms, found);
                found
            }
        });
    }
    Some(pending)
}

/// Of each of some kinds, about; `None`: there are none, or Redis did not answer.
pub async fn of_kinds<P: Ports>(
    visit: &Visit<'_, P>,
    kinds: &[&str],
    now_ms: u64,
) -> Option<Vec<u64>> {
    if kinds.is_empty() || visit.gateway.settings.without_redis {
        return None;
    }
    let mut commands = vec![Command::new("GET").arg(STATE)];
    commands.extend(kinds.iter().map(|kind| seen(kind, days(now_ms))));
    let timeout_ms = visit.redis_timeout_ms();
    let batch = Batch::pipeline(commands);
    let replies = visit.pipeline(Store::Limits(0), &batch, timeout_ms).await;
    let replies = replies.ok()?;
    let state = state(replies.first()).unwrap_or_default();
    let of_kind = |(kind, seen): (&&str, &Reply)| state.pending(kind, number(Some(seen)));
    Some(
        kinds
            .iter()
            .zip(replies.iter().skip(1))
            .map(of_kind)
            .collect(),
    )
}

/// Kinds that the policy counts.
pub fn kinds(policy: &Policy) -> Vec<&str> {
    let mut kinds: Vec<&str> = Vec::new();
    let rules = policy.routes.iter().filter_map(|route| route.view.as_ref());
    for item in rules.flat_map(|rule| &rule.items) {
        if !kinds.contains(&item.kind.as_str()) {
            kinds.push(&item.kind);
        }
    }
    kinds
}

/// How many views of a kind were seen in some days.
pub fn seen(kind: &str, days: impl Iterator<Item = u64>) -> Command {
    Command::new("PFCOUNT").args(days.map(|day| seen_key(kind, day)))
}

/// Days that may have views.
pub fn days(now_ms: u64) -> std::ops::RangeInclusive<u64> {
    let today = now_ms / DAY_MS;
    // A clock may be ahead of Redis'.
    today.saturating_sub(MAX_DAYS)..=today + 1
}
