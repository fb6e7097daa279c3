//! Purging: a new generation for each tag and key, in one transaction.
//!
//! A fill that began before the purge remembers the older generation, so what
//! it stores later is never served.

use crate::cache::lookup::{Lookup, generation_key, key_generation_key, meta_key};
use crate::cache::{GENERATION_TTL_S, generation};
use crate::names::Names;
use crate::redis::{Batch, Command};

/// What to purge; sets, so that nothing is purged twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Purge {
    pub keys: Names,
    pub tags: Names,
}

impl Purge {
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.tags.is_empty()
    }

    pub(super) fn covers(&self, lookup: &Lookup) -> bool {
        self.keys.contains(&lookup.key) || lookup.tags.iter().any(|tag| self.tags.contains(tag))
    }

    /// One value serves all: it has never been used before.
    pub fn batch(&self, random: u128) -> Batch {
        Batch::multi(self.commands(random, None))
    }

    /// The same without the names of an entry, which is written in the same transaction.
    pub(super) fn commands(&self, random: u128, but: Option<&Lookup>) -> Vec<Command> {
        let fresh = generation(random);
        let renew = |key: String| {
            Command::new("SET")
                .arg(key)
                .arg(fresh.as_str())
                .arg("EX")
                .arg(GENERATION_TTL_S)
        };
        let mut commands: Vec<Command> = self
            .tags
            .iter()
            .filter(|tag| but.is_none_or(|lookup| !lookup.tags.contains(tag)))
            .map(|tag| renew(generation_key(tag)))
            .collect();
        for key in self.keys.iter() {
            if but.is_some_and(|lookup| lookup.key == *key) {
                continue;
            }
            commands.push(renew(key_generation_key(key)));
            commands.push(Command::new("DEL").arg(key.as_str()).arg(meta_key(key)));
        }
        commands
    }
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
        let mut under_way = self.0.iter().filter(|(until_ms, _)| now_ms < *until_ms);
        under_way.any(|(_, purge)| purge.covers(lookup))
    }
}
