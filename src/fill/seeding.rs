//! Generations that must be there before the origin is asked, or a purge during the fetch
//! would leave no trace.

use super::{FIRST_PAUSE_MS, next_look_ms};
use crate::cache::flight::{Flight, Join};
use crate::cache::lookup::generation_of;
use crate::cache::{GENERATION_TTL_S, Lookup, generation};
use crate::deferred::settle;
use crate::ports::{Clock, Ports};
use crate::redis::{Batch, Command, Reply};
use crate::visit::Visit;

/// Generations that are absent are seeded before the origin is asked, so that a
/// purge from now on is noticed. `None` when Redis does not answer.
pub async fn seed<P: Ports>(
    visit: &Visit<'_, P>,
    lookup: &Lookup,
    generations: Vec<Option<String>>,
) -> Option<Vec<String>> {
    let keys = lookup.generation_keys();
    let as_it_is = |key: &str, value: &str| generation_of(lookup, key, value);
    let seeded = seed_keys(visit, &keys, generations, &as_it_is).await?;
    if !lookup.origin_tags.is_empty() {
        let known: Vec<Option<String>> = seeded.iter().cloned().map(Some).collect();
        let mut origin_tags = visit.gateway.origin_tags.borrow_mut();
        origin_tags.learn(lookup, &known);
    }
    Some(seeded)
}

/// The same of any generations, by their keys; `of` makes one of what lies in Redis.
pub async fn seed_keys<P: Ports>(
    visit: &Visit<'_, P>,
    keys: &[String],
    generations: Vec<Option<String>>,
    of: &dyn Fn(&str, &str) -> Option<String>,
) -> Option<Vec<String>> {
    let fresh = generation(visit.ports.random());
    let seeds: Vec<Command> = keys
        .iter()
        .zip(&generations)
        .filter(|(_, generation)| generation.is_none())
        .map(|(key, _)| Command::set_nx_get_px(key, &fresh, GENERATION_TTL_S * 1000))
        .collect();
    let mut replies = if seeds.is_empty() {
        Vec::new()
    } else {
        visit.cache_trip(&Batch::pipeline(seeds)).await.ok()?
    }
    .into_iter();
    let mut seeded = Vec::with_capacity(keys.len());
    for (key, generation) in keys.iter().zip(generations) {
        seeded.push(match generation {
            Some(generation) => generation,
            None => match replies.next()? {
                Reply::Nil => fresh.clone(),
                reply => of(key, reply.as_str()?)?,
            },
        });
    }
    Some(seeded)
}

/// The same for a crowd: one request of this isolate seeds, the others look at what came of it. That is
/// no older than their own lookup: what had been seeded before it they would have found.
pub(super) async fn seed_together<P: Ports>(
    visit: &Visit<'_, P>,
    lookup: &Lookup,
    generations: Vec<Option<String>>,
) -> Option<Vec<String>> {
    if generations.iter().all(Option::is_some) {
        return seed(visit, lookup, generations).await;
    }
    let name = format!("seed:{}", lookup.key);
    let most_ms = visit.redis_timeout_ms() * 2;
    let begun_ms = visit.now_ms();
    let joined = (visit.gateway.flights.borrow_mut()).join(&name, begun_ms, most_ms);
    let cell = match joined {
        Join::Lead(cell) => {
            let seeded = seed(visit, lookup, generations).await;
            let outcome = seeded
                .as_deref()
                .map(|seeded| Flight::Seeded(seeded.into()));
            settle(&cell, outcome.unwrap_or(Flight::Uncacheable));
            visit.gateway.flights.borrow_mut().land(&name);
            return seeded;
        }
        Join::Follow(cell) => cell,
    };
    let mut pause_ms = FIRST_PAUSE_MS;
    while visit.now_ms().saturating_sub(begun_ms) < most_ms {
        visit.sleep(pause_ms).await;
        pause_ms = next_look_ms(pause_ms);
        let outcome = cell.borrow().clone();
        match outcome {
            Flight::Pending => {}
            Flight::Seeded(seeded) if are_of(&generations, &seeded) => {
                return Some(seeded.to_vec());
            }
            // Redis did not answer.
            Flight::Uncacheable => return None,
            _ => break,
        }
    }
    seed(visit, lookup, generations).await
}

/// Whether these are the generations that were seen, but for those that were absent.
fn are_of(seen: &[Option<String>], seeded: &[String]) -> bool {
    let mut pairs = seen.iter().zip(seeded);
    seen.len() == seeded.len()
        && pairs.all(|(seen, seeded)| seen.as_ref().is_none_or(|seen| seen == seeded))
}
