//! An entry that a write's own answer makes, in the transaction of the write's purge.
//!
//! The purge must change the generation of the entry's key, or a fill that began before
//! the write could still store what was there before it. And the entry must not be served
//! when another write was purged meanwhile: its answer may be the newer one. There are no
//! scripts to compare with, so the generation itself compares. Before the origin is asked
//! the write reads each generation `r` of the entry. Afterwards the transaction APPENDs a
//! suffix `s`, never used before, to those that the write purges, and stores the entry
//! under `r` + `s` for these and `r` for the others.
//!
//! Why that is right: the entry is served only while all generations are the stored ones.
//! `r` + `s` is the value of a generation only if it was `r` when `s` was appended, and
//! nothing changed it since; no value is used twice. So whenever the entry is served no
//! generation of it was purged since `r` was read, but by this write. A purge that was
//! acknowledged before `r` was read belongs to a write that the origin had done before it
//! was asked for this one, and the answer holds it; one acknowledged later has changed a
//! generation. Of two writes at once, whichever order their purges run in, the entry of the
//! first is ended by the purge of the second, and the entry of the second was ended before
//! it was written, unless it read its generations after the purge of the first. A fill that
//! began before the write knows `r`, which is over. One that began after it asked the
//! origin after it.
//!
//! Generations whose name is in the answer itself, as the id of what a POST made, cannot be
//! read before. They must not be there at all: nobody purged, filled or seeded them within
//! 48 hours. At least one tag of such an entry is known before (the policy's grammar asks
//! for it), so a flush of Redis meanwhile is noticed. An eviction of just that name, within
//! the time of the write, is not.

use crate::cache::GENERATION_TTL_S;
use crate::cache::entry::Entry;
use crate::cache::generation::{PREFIX_LOG, softly};
use crate::cache::lookup::{Lookup, generation_of, key_generation_key};
use crate::cache::purge::Purge;
use crate::cache::store::{Times, writes};
use crate::redis::{Batch, Command, Reply};

/// Each write makes a generation 16 bytes longer, and every read of the entry reads it. A
/// longer one is replaced by a plain purge, about every thirtieth time.
const MAX_GENERATION_BYTES: usize = 512;

/// Generations as they were before the origin was asked, by their keys in Redis.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    pub keys: Vec<String>,
    pub generations: Vec<String>,
}

impl Known {
    fn get(&self, key: &str) -> Option<&str> {
        let mut pairs = self.keys.iter().zip(&self.generations);
        let (_, generation) = pairs.find(|(known, _)| *known == key)?;
        Some(generation)
    }
}

/// A purge that makes an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub batch: Batch,
    lookup: Lookup,
    /// What the generations are after it, unless another write came between.
    expected: Vec<String>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Stored,
    /// Purged; what was stored is not served, but lies under the key.
    Overtaken,
    /// Redis refused some of it.
    Refused,
}

impl Written {
    /// `purge` has the entry's own key among its names; `offset_ms` is how far Redis' clock
    /// is ahead of the isolate's. `None`: only purge.
    pub fn plan(
        purge: &Purge,
        lookup: &Lookup,
        entry: &Entry,
        times: Times,
        known: &Known,
        random: u128,
        offset_ms: i64,
    ) -> Option<Self> {
        // The upper half: another purge in this transaction has the whole.
        let suffix = format!("{:016x}", random >> 64);
        let keys = lookup.generation_keys();
        let mut commands = Vec::new();
        let mut expected = Vec::with_capacity(keys.len());
        let tags = lookup.tags.iter().map(|tag| purge.tags.contains(tag));
        // Its own, that by the log of prefixes, and those of its tags.
        let purged = [true, false].into_iter().chain(tags);
        let own = key_generation_key(&lookup.key);
        for (key, is_purged) in keys.iter().zip(purged) {
            let before = known.get(key);
            // Other entries of a tag are stale after a soft purge; what a slow fill brings of this one is gone.
            let suffix = match purge.is_soft && *key != own {
                true => softly(random >> 64),
                false => suffix.clone(),
            };
            if key == PREFIX_LOG {
                expected.push(generation_of(lookup, key, before?)?);
                continue;
            }
            let mut after = before.unwrap_or_default().to_owned();
            if is_purged {
                if after.len() > MAX_GENERATION_BYTES {
                    return None;
                }
                commands.push(Command::new("APPEND").arg(key).arg(suffix.clone()));
                after.push_str(&suffix);
            } else if before.is_none() {
                let seed = Command::new("SET").arg(key).arg(suffix.clone());
                commands.push(seed.arg("NX").arg("EX").arg(GENERATION_TTL_S));
                after.push_str(&suffix);
            }
            expected.push(after);
        }
        commands.extend(purge.commands(random, Some(lookup)));
        commands.extend(writes(lookup, entry, times, &expected, offset_ms));
        commands.push(Command::new("MGET").args(keys));
        Some(Self {
            batch: Batch::multi(commands),
            lookup: lookup.clone(),
            expected,
        })
    }

    pub fn judge(&self, replies: &[Reply]) -> Outcome {
        if replies.iter().any(Reply::is_error) {
            return Outcome::Refused;
        }
        let now = replies.last().and_then(Reply::as_list).unwrap_or_default();
        let keys = self.lookup.generation_keys();
        let mut all = now.iter().zip(&keys).zip(&self.expected);
        let is_expected = now.len() == self.expected.len()
            && all.all(|((now, key), expected)| {
                let now = now
                    .as_str()
                    .and_then(|now| generation_of(&self.lookup, key, now));
                now.as_ref() == Some(expected)
            });
        match is_expected {
            true => Outcome::Stored,
            false => Outcome::Overtaken,
        }
    }
}
