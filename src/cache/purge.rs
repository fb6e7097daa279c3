//! Purging: a new generation for each tag and key, or a longer one, in one transaction.
//!
//! A fill that began before the purge remembers the older generation, so what
//! it stores later is never served, or never as fresh. A soft purge leaves other services'
//! values alone: they have no generation, and `DEL` is all that ends them.

use crate::cache::generation::{MAX_GENERATION_BYTES, MAX_LOG_BYTES, PREFIX_LOG, line, softly};
use crate::cache::lookup::{Lookup, generation_key, key_generation_key, meta_key};
use crate::cache::{GENERATION_TTL_S, generation};
use crate::names::Names;
use crate::redis::{Batch, Command, Reply, Word};

/// What to purge; sets, so that nothing is purged twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Purge {
    pub keys: Names,
    pub tags: Names,
    /// Of keys, without line breaks; the empty one is of all.
    pub prefixes: Names,
    /// Entries are stale from now on, instead of gone.
    pub is_soft: bool,
}

impl Purge {
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn len(&self) -> usize {
        self.keys.len() + self.tags.len() + self.prefixes.len()
    }

    pub(super) fn covers(&self, lookup: &Lookup) -> bool {
        self.keys.contains(&lookup.key)
            || self.covers_any(&lookup.tags)
            || self.covers_any(&lookup.origin_tags)
            || (self.prefixes.iter()).any(|prefix| lookup.key.starts_with(prefix.as_str()))
    }

    pub(super) fn covers_any(&self, tags: &[String]) -> bool {
        tags.iter().any(|tag| self.tags.contains(tag))
    }

    /// One value serves all: it has never been used before.
    pub fn batch(&self, random: u128) -> Batch {
        Batch::multi(self.commands(random, None))
    }

    /// The same without the names of an entry, which is written in the same transaction.
    pub(super) fn commands(&self, random: u128, but: Option<&Lookup>) -> Vec<Command> {
        let mut commands = Vec::new();
        let mut renew = |key: String| match self.is_soft {
            false => commands.push(reset(&key, random)),
            true => append(&mut commands, key, softly(random)),
        };
        let is_other = |key: &&String| but.is_none_or(|lookup| lookup.key != **key);
        for tag in self.tags.iter() {
            if but.is_none_or(|lookup| !lookup.tags.contains(tag)) {
                renew(generation_key(tag));
            }
        }
        for key in self.keys.iter().filter(is_other) {
            renew(key_generation_key(key));
        }
        if !self.is_soft {
            for key in self.keys.iter().filter(is_other) {
                commands.push(Command::new("DEL").arg(key).arg(meta_key(key)));
            }
        }
        if !self.prefixes.is_empty() {
            // A log without a header proves nothing.
            commands.push(reset(PREFIX_LOG, random).arg("NX"));
            let mut lines = String::new();
            for prefix in self.prefixes.iter() {
                lines.push_str(&line(prefix, self.is_soft, random));
            }
            append(&mut commands, PREFIX_LOG.to_owned(), lines);
        }
        commands
    }
}

/// A generation never used before.
fn reset(key: &str, random: u128) -> Command {
    Command::new("SET")
        .arg(key.to_owned())
        .arg(generation(random))
        .arg("EX")
        .arg(GENERATION_TTL_S)
}

/// A generation that is not there begins with what no entry remembers.
fn append(commands: &mut Vec<Command>, key: String, more: String) {
    commands.push(Command::new("APPEND").arg(&key).arg(more));
    commands.push(Command::new("EXPIRE").arg(key).arg(GENERATION_TTL_S));
}

/// What ends generations that have become too long, but those of an entry that was just written: hard purges of theirs.
pub fn shorten(
    batch: &Batch,
    replies: &[Reply],
    random: u128,
    but: Option<&Lookup>,
) -> Option<Batch> {
    let kept = but.map(Lookup::generation_keys).unwrap_or_default();
    let mut commands = Vec::new();
    for (command, reply) in batch.commands.iter().zip(replies) {
        let [Word::Text(name), Word::Text(key), ..] = command.words() else {
            continue;
        };
        let most = match key.as_ref() {
            PREFIX_LOG => MAX_LOG_BYTES,
            _ => MAX_GENERATION_BYTES,
        };
        if name == "APPEND"
            && !kept.iter().any(|kept| kept == key)
            && reply.as_int().is_some_and(|bytes| bytes > most as i64)
        {
            commands.push(reset(key, random));
        }
    }
    (!commands.is_empty()).then(|| Batch::multi(commands))
}

/// Purges of this isolate that wait for their confirmation; past it the oldest is let go.
const MAX_UNPURGED: usize = 64;

/// How long a purge is under way at most: then the platform has ended its retries.
pub const UNPURGED_MS: u64 = 30_000;

/// What must not be served from Redis by this isolate: a purge of it is under way, and
/// Redis may be back before the purge gets there. With the time until which.
#[derive(Debug, Default)]
pub struct Unpurged(Vec<(u64, Purge)>);

impl Unpurged {
    pub fn begin(&mut self, purge: &Purge, now_ms: u64) {
        self.0.retain(|(until_ms, _)| now_ms < *until_ms);
        if self.0.len() >= MAX_UNPURGED {
            self.0.remove(0);
        }
        self.0.push((now_ms + UNPURGED_MS, purge.clone()));
    }

    pub fn end(&mut self, purge: &Purge) {
        if let Some(at) = self.0.iter().position(|(_, known)| known == purge) {
            self.0.remove(at);
        }
    }

    /// Whether it must be as if Redis had not answered for this entry.
    pub fn hides(&self, lookup: &Lookup, now_ms: u64) -> bool {
        self.is_under_way(lookup, now_ms, true)
    }

    /// Whether it must not even be served in need.
    pub fn forbids(&self, lookup: &Lookup, now_ms: u64) -> bool {
        self.is_under_way(lookup, now_ms, false)
    }

    fn is_under_way(&self, lookup: &Lookup, now_ms: u64, or_soft: bool) -> bool {
        let mut under_way = self.0.iter().filter(|(until_ms, _)| now_ms < *until_ms);
        under_way.any(|(_, purge)| (or_soft || !purge.is_soft) && purge.covers(lookup))
    }
}
