//! Purging: a new generation for each tag and key, in one transaction.
//!
//! A fill that began before the purge remembers the older generation, so what
//! it stores later is never served.

use std::collections::BTreeSet;

use crate::cache::lookup::{generation_key, key_generation_key, meta_key};
use crate::cache::{GENERATION_TTL_S, generation};
use crate::redis::{Batch, Command};

/// What to purge; sets, so that nothing is purged twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Purge {
    pub keys: BTreeSet<String>,
    pub tags: BTreeSet<String>,
}

impl Purge {
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.tags.is_empty()
    }

    /// One value serves all: it has never been used before.
    pub fn batch(&self, random: u128) -> Batch {
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
            .map(|tag| renew(generation_key(tag)))
            .collect();
        for key in &self.keys {
            commands.push(renew(key_generation_key(key)));
            commands.push(Command::new("DEL").arg(key.as_str()).arg(meta_key(key)));
        }
        Batch::multi(commands)
    }
}
