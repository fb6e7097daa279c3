//! What a request reads of the cache: what this isolate may serve itself, what the trip
//! must bring, and what is read once more when that was not enough.
//!
//! `cache::l1` says what may be served; here it meets the trip. A second trip is made
//! only when a validation found a change, when the first one took so long that what was
//! trusted before it is not any more, or when an entry has tags of the origin's that this
//! isolate did not know.

use std::rc::Rc;

use crate::cache::l1::Moment;
use crate::cache::lookup::Ask;
use crate::cache::origin_tags::MAX_TAGS;
use crate::cache::purge::Unpurged;
use crate::cache::{Entry, Lookup, Lookups, Seen};
use crate::fill::Wanted;
use crate::headers::CacheStatus;
use crate::packing;
use crate::policy::Form;
use crate::ports::{Clock, Ports};
use crate::redis::{Batch, Command, RedisError, Reply};
use crate::together::boxed;
use crate::visit::Visit;

/// What is read of Redis for some of the entries that are wanted.
#[derive(Default)]
pub struct Reading {
    lookups: Lookups,
    /// Their places among those that are wanted.
    places: Vec<(usize, Ask)>,
    left: Moment,
}

impl Reading {
    /// What must be read: what this isolate may not serve by itself, which is `trust`
    /// halves of the time for which the policy lets it.
    pub fn plan<P: Ports>(visit: &Visit<'_, P>, wanted: &[&Wanted], trust: u64) -> Self {
        let mut reading = Self::default();
        let l1 = visit.gateway.l1.borrow();
        let now_ms = visit.now_ms();
        for (place, wanted) in wanted.iter().enumerate() {
            let l1_ms = l1_ms(visit, wanted);
            if !l1.is_trusted(&wanted.lookup, l1_ms * trust / 2, now_ms) {
                reading.push(place, wanted, l1.ask(&wanted.lookup, now_ms));
            }
        }
        reading
    }

    fn push(&mut self, place: usize, wanted: &Wanted, ask: Ask) {
        self.lookups.push(Rc::clone(&wanted.lookup), ask);
        self.places.push((place, ask));
    }

    /// To be called just before the trip leaves.
    pub fn leave<P: Ports>(&mut self, visit: &Visit<'_, P>) -> Vec<Command> {
        self.left = visit.gateway.l1.borrow_mut().moment(visit.now_ms());
        self.lookups.commands()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn ask(&self, place: usize) -> Option<Ask> {
        let asked = self.places.iter().find(|(asked, _)| *asked == place);
        asked.map(|(_, ask)| *ask)
    }

    /// Puts what came back into its place; where there was a change, nothing.
    fn judge<P: Ports>(
        &self,
        visit: &Visit<'_, P>,
        wanted: &[&Wanted],
        replies: &[Reply],
        all: &mut [Option<Seen>],
    ) {
        let now_ms = visit.now_ms();
        let mut l1 = visit.gateway.l1.borrow_mut();
        let brought = self.lookups.judge(replies, now_ms);
        for ((place, ask), mut seen) in self.places.iter().zip(brought.into_iter().flatten()) {
            let (Some(wanted), Some(into)) = (wanted.get(*place), all.get_mut(*place)) else {
                continue;
            };
            let lookup = &wanted.lookup;
            packing::unpacked(packing::form(visit, wanted), lookup, &mut seen, now_ms);
            learn(visit, lookup, &seen);
            *into = match ask {
                Ask::Changes => l1.validated(lookup, seen, self.left, now_ms),
                _ => {
                    if l1_ms(visit, wanted) > 0 {
                        l1.learn(lookup, &mut seen, self.left);
                    }
                    Some(seen)
                }
            };
        }
    }
}

/// How long this isolate may serve an entry by itself.
fn l1_ms<P: Ports>(visit: &Visit<'_, P>, wanted: &Wanted) -> u64 {
    let route = visit.gateway.policy.routes.get(wanted.route);
    route.map_or(0, |route| route.l1_ms())
}

/// What the entries are, but those that a purge under way covers; `None`: Redis did not
/// answer.
pub async fn finish<P: Ports>(
    visit: &Visit<'_, P>,
    wanted: &[&Wanted],
    reading: &Reading,
    found: Option<Result<Vec<Reply>, RedisError>>,
) -> Vec<Option<Seen>> {
    let mut all: Vec<Option<Seen>> = vec![None; wanted.len()];
    let replies = found.and_then(Result::ok);
    if let Some(replies) = &replies {
        reading.judge(visit, wanted, replies, &mut all);
    }
    let mut again = Reading::default();
    for (place, (wanted, seen)) in wanted.iter().zip(&mut all).enumerate() {
        let ask = reading.ask(place);
        let is_changed = replies.is_some() && ask == Some(Ask::Changes);
        if seen.is_none() && (ask.is_none() || replies.is_none()) {
            *seen = trusted(visit, wanted);
        }
        if seen.is_none() && (ask.is_none() || is_changed) {
            again.push(place, wanted, Ask::Whole);
        } else if let Some(seen) = seen.take_if(|seen| seen.is_unread) {
            again.push(place, &wanted.named(&seen.origin_tags), Ask::Whole);
        }
    }
    if !again.is_empty() {
        let batch = Batch::pipeline(again.leave(visit));
        if let Ok(replies) = boxed(visit.cache_trip(&batch)).await {
            again.judge(visit, wanted, &replies, &mut all);
        }
    }
    for (wanted, seen) in wanted.iter().zip(&mut all) {
        if let Some(seen) = seen
            && packing::form(visit, wanted) == Form::User
        {
            boxed(packing::opened(visit, wanted, seen)).await;
            learn(visit, &wanted.lookup, seen);
        }
    }
    let now_ms = visit.now_ms();
    let unpurged = visit.gateway.unpurged.borrow();
    for (wanted, seen) in wanted.iter().zip(&mut all) {
        if is_hidden(&unpurged, wanted, seen.as_ref(), now_ms) {
            *seen = None;
        }
    }
    all
}

/// Whether a purge that is under way covers it, by the tags that it has too.
fn is_hidden(unpurged: &Unpurged, wanted: &Wanted, seen: Option<&Seen>, now_ms: u64) -> bool {
    let is_more = |seen: &&Seen| seen.origin_tags != wanted.lookup.origin_tags;
    match seen.filter(|seen| !seen.is_local).filter(is_more) {
        Some(seen) => unpurged.hides(&wanted.lookup.named(&seen.origin_tags), now_ms),
        None => unpurged.hides(&wanted.lookup, now_ms),
    }
}

/// Remembers what a reading says of the origin's tags.
fn learn<P: Ports>(visit: &Visit<'_, P>, lookup: &Lookup, seen: &Seen) {
    if seen.origin_tags.is_empty() {
        return;
    }
    let mut origin_tags = visit.gateway.origin_tags.borrow_mut();
    let known = lookup.origin_tags.len();
    if seen.origin_tags.len() > known {
        let is_much = seen.origin_tags.len() > 2 * MAX_TAGS;
        let more = seen.origin_tags.get(if is_much { known } else { 0 }..);
        origin_tags.remember(&lookup.key, more.unwrap_or_default());
    }
    origin_tags.learn(&lookup.named(&seen.origin_tags), &seen.generations);
}

/// Reads an entry by itself, after others have filled it.
pub async fn once_more<P: Ports>(visit: &Visit<'_, P>, wanted: &Wanted) -> Option<Seen> {
    let mut reading = Reading::default();
    reading.push(0, wanted, Ask::WholeAndExpiry);
    let batch = Batch::pipeline(reading.leave(visit));
    let replies = visit.cache_trip(&batch).await.ok()?;
    let mut all = [None];
    reading.judge(visit, &[wanted], &replies, &mut all);
    let [mut seen] = all;
    if let Some(seen) = &mut seen
        && packing::form(visit, wanted) == Form::User
    {
        packing::opened(visit, wanted, seen).await;
    }
    let unpurged = visit.gateway.unpurged.borrow();
    seen.filter(|seen| !is_hidden(&unpurged, wanted, Some(seen), visit.now_ms()))
}

fn trusted<P: Ports>(visit: &Visit<'_, P>, wanted: &Wanted) -> Option<Seen> {
    let mut l1 = visit.gateway.l1.borrow_mut();
    l1.trusted(&wanted.lookup, l1_ms(visit, wanted), visit.now_ms())
}

/// What is served when neither Redis nor the origin answers.
pub fn last_resort<P: Ports>(
    visit: &Visit<'_, P>,
    wanted: &Wanted,
) -> Option<(Entry, CacheStatus)> {
    let (lookup, now_ms) = (&wanted.lookup, visit.now_ms());
    if visit.gateway.unpurged.borrow().forbids(lookup, now_ms) {
        return None;
    }
    let entry = visit.gateway.l1.borrow().last_resort(lookup, now_ms)?;
    let left_ms = entry.fresh_until_ms.cast_signed() - now_ms.cast_signed();
    let ttl_s = left_ms.div_euclid(1000);
    Some((entry, CacheStatus::LastResort { ttl_s }))
}
