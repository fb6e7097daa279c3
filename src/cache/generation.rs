//! Generations: what proves that nothing was purged since an entry's fetch began.
//!
//! A generation is a text that is never used twice. A hard purge sets a new one. A soft purge
//! appends `~` and something random to what is there, in one step and without reading it: an
//! entry that remembers the beginning of a generation was purged softly since, and is stale
//! at most. Both are blind writes, so no order of fills and purges defeats them, and a purge
//! that is sent again changes nothing that it should not.
//!
//! Purges by prefix are lines of one log, which is read with the generations; for each key it
//! says a generation of its own. All keys are in its hands, so it is seeded and lost like
//! any generation, and without it there are only misses.

use crate::cache::lookup::Lookup;

/// The log of purges by prefix. No key is empty, so no key's or tag's generation has this name.
pub const PREFIX_LOG: &str = "gen:key:";

/// A longer generation ends by a hard purge: about twenty soft ones.
pub const MAX_GENERATION_BYTES: usize = 400;
/// A longer log ends by a new header, which purges everything: it is read with each entry.
pub const MAX_LOG_BYTES: usize = 4_096;

const SOFT: char = '~';
const LINE: char = '\n';

/// What is known of an entry by its generations, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    Current,
    /// Purged softly since: stale at most.
    Soft,
    /// It has tags whose generations were not read.
    Unread,
    /// Purged, or nobody knows.
    Gone,
}

/// Of the generation that an entry was stored with and the one that is there now.
fn compare(stored: &str, now: Option<&String>) -> Standing {
    match now.and_then(|now| now.strip_prefix(stored)) {
        Some("") => Standing::Current,
        Some(more) if more.starts_with(SOFT) => Standing::Soft,
        _ => Standing::Gone,
    }
}

/// Of an entry with these tags of the origin's and the generations that it was stored with;
/// `now` is in the order of the lookup's keys.
pub fn standing(
    lookup: &Lookup,
    tags: &[String],
    stored: &[String],
    now: &[Option<String>],
) -> Standing {
    let own = lookup.own_generations();
    if stored.len() != own + tags.len() {
        return Standing::Gone;
    }
    let mut worst = Standing::Current;
    for (at, stored) in stored.iter().enumerate() {
        let place = match at.checked_sub(own).and_then(|at| tags.get(at)) {
            None => Some(at),
            Some(tag) => lookup.place(tag),
        };
        worst = worst.max(match place {
            Some(place) => compare(stored, now.get(place).and_then(Option::as_ref)),
            None => Standing::Unread,
        });
    }
    worst
}

/// What a soft purge appends.
pub fn softly(random: u128) -> String {
    let mut more = String::from(SOFT);
    more.push_str(&id(random));
    more
}

/// A purge by prefix as a line of the log. A prefix has no line break in it.
pub fn line(prefix: &str, is_soft: bool, random: u128) -> String {
    let mut line = String::from(LINE);
    line.push(if is_soft { 's' } else { 'h' });
    line.push_str(&id(random));
    line.push_str(prefix);
    line
}

const ID_BYTES: usize = 16;

fn id(random: u128) -> String {
    format!("{:016x}", random as u64)
}

/// A key's generation by the log: the last hard purge's, or the header, and the soft ones
/// after it. `None`: this is no log that began with a header.
pub fn by_log(log: &str, key: &str) -> Option<String> {
    let mut lines = log.split(LINE);
    let mut generation = lines.next().filter(|header| !header.is_empty())?.to_owned();
    for line in lines {
        let (kind, rest) = line.split_at_checked(1)?;
        let (id, prefix) = rest.split_at_checked(ID_BYTES)?;
        if !key.starts_with(prefix) {
            continue;
        }
        match kind {
            "s" => generation.push(SOFT),
            _ => generation.clear(),
        }
        generation.push_str(id);
    }
    Some(generation)
}
