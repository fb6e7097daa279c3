//! What a request reads of the cache: what this isolate may serve itself, what the trip
//! must bring, and what is read once more when that was not enough.
//!
//! `cache::l1` says what may be served; here it meets the trip. A second trip is made
//! only when a validation found a change, or when the first one took so long that what
//! was trusted before it is not any more.

use crate::cache::l1::Moment;
use crate::cache::lookup::Ask;
use crate::cache::{Entry, Lookups, Seen};
use crate::fill::Wanted;
use crate::headers::CacheStatus;
use crate::ports::{Clock, Ports};
use crate::redis::{Batch, Command, RedisError, Reply};
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
            if l1.is_trusted(&wanted.lookup, l1_ms * trust / 2, now_ms) {
                continue;
            }
            let ask = match l1_ms {
                0 => Ask::Whole,
                _ => l1.ask(&wanted.lookup, now_ms),
            };
            reading.push(place, wanted, ask);
        }
        reading
    }

    fn push(&mut self, place: usize, wanted: &Wanted, ask: Ask) {
        self.lookups.push(wanted.lookup.clone(), ask);
        self.places.push((place, ask));
    }

    /// To be called just before the trip leaves.
    pub fn leave<P: Ports>(&mut self, visit: &Visit<'_, P>) -> Vec<Command> {
        self.left = visit.gateway.l1.borrow_mut().moment(visit.now_ms());
        self.lookups.commands()
    }

    pub fn is_empty(&self) -> bool {
        self.lookups.is_empty()
    }

    /// Puts what came back into its place; where there was a change, into none.
    fn judge<P: Ports>(
        &self,
        visit: &Visit<'_, P>,
        wanted: &[&Wanted],
        replies: &[Reply],
        seen: &mut [Option<Seen>],
    ) {
        let now_ms = visit.now_ms();
        let Some(brought) = self.lookups.judge_all(replies, now_ms) else {
            return;
        };
        let mut l1 = visit.gateway.l1.borrow_mut();
        for ((place, ask), (brought, expiry)) in self.places.iter().zip(brought) {
            let (Some(wanted), Some(seen)) = (wanted.get(*place), seen.get_mut(*place)) else {
                continue;
            };
            let lookup = &wanted.lookup;
            if *ask == Ask::Changes {
                *seen = l1.validated(lookup, &brought, expiry, self.left, now_ms);
                continue;
            }
            if l1_ms(visit, wanted) > 0 {
                l1.learn(lookup, &brought, expiry, self.left);
            }
            *seen = Some(brought);
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
    let mut seen: Vec<Option<Seen>> = vec![None; wanted.len()];
    let replies = found.and_then(Result::ok);
    let is_answered = replies.is_some();
    if let Some(replies) = replies {
        reading.judge(visit, wanted, &replies, &mut seen);
    }
    let mut again = Reading::default();
    for (place, (wanted, seen)) in wanted.iter().zip(&mut seen).enumerate() {
        if seen.is_some() {
            continue;
        }
        let asked = reading.places.iter().find(|(asked, _)| *asked == place);
        // What has changed is not to be trusted either.
        if !is_answered || asked.is_none() {
            *seen = trusted(visit, wanted);
        }
        let is_open = match asked {
            Some((_, ask)) => is_answered && *ask == Ask::Changes,
            None => seen.is_none(),
        };
        if is_open {
            again.push(place, wanted, Ask::Whole);
        }
    }
    if !again.is_empty() {
        let batch = Batch::pipeline(again.leave(visit));
        match visit.cache_trip(&batch).await {
            Ok(replies) => again.judge(visit, wanted, &replies, &mut seen),
            Err(_) => {
                for (place, _) in &again.places {
                    if let (Some(wanted), Some(seen)) = (wanted.get(*place), seen.get_mut(*place)) {
                        *seen = trusted(visit, wanted);
                    }
                }
            }
        }
    }
    let now_ms = visit.now_ms();
    let unpurged = visit.gateway.unpurged.borrow();
    for (wanted, seen) in wanted.iter().zip(&mut seen) {
        if unpurged.hides(&wanted.lookup, now_ms) {
            *seen = None;
        }
    }
    seen
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
    if visit.gateway.unpurged.borrow().hides(lookup, now_ms) {
        return None;
    }
    let entry = visit.gateway.l1.borrow().last_resort(lookup, now_ms)?;
    let left_ms = entry.fresh_until_ms.cast_signed() - now_ms.cast_signed();
    let ttl_s = left_ms.div_euclid(1000);
    Some((entry, CacheStatus::LastResort { ttl_s }))
}
