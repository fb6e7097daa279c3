//! The tags that the origin itself gives its answers: `Cache-Tag`, `Surrogate-Key` and
//! `Cache-Groups` (RFC 9875).
//!
//! They are known only when the answer is there, but a purge during the fetch is noticed
//! only by a generation that was read before it. So an isolate remembers which tags a key
//! had, that they are read with it the next time, and which generation a tag had and since
//! when: one that is the same after a fetch as before it was not purged meanwhile, for
//! whichever key it was read. An origin that sends no such fields costs nothing here.

use std::rc::Rc;

use crate::cache::http::sf::{self, Bare, Value};
use crate::cache::lookup::Lookup;
use crate::http::Headers;
use crate::names::Names;
use crate::recent::Recent;

/// Of one answer: each is one more generation to read with it. RFC 9875, 2: at least 32.
pub const MAX_TAGS: usize = 32;
/// RFC 9875, 2: at least 32 characters.
pub const MAX_TAG_BYTES: usize = 128;
/// Groups that one answer to a write ends one by one; more end everything.
const MAX_GROUPS: usize = 1_000;

/// Keys whose tags are remembered: with the most tags of the longest, 4 MB.
const MAX_KEYS: usize = 1_024;
/// Tags whose generations are remembered: at most 2 MB, 400 KB as a rule.
const MAX_VALUES: usize = 4_096;

/// The tags of an answer, in the order of their names. `None`: they are more than are kept,
/// so no purge of them could be honoured and the answer must not be stored.
pub fn named(headers: &Headers) -> Option<Vec<String>> {
    let mut names = Names::new();
    for line in headers.get_all("cache-tag") {
        add(&mut names, line.split(','))?;
    }
    for line in headers.get_all("surrogate-key") {
        add(&mut names, line.split_ascii_whitespace())?;
    }
    for group in groups(headers, "cache-groups") {
        add(&mut names, std::iter::once(&*group))?;
    }
    Some(names.into_vec())
}

fn add<'t>(names: &mut Names, tags: impl Iterator<Item = &'t str>) -> Option<()> {
    for tag in tags {
        let tag = tag.trim_matches([' ', '\t']);
        if tag.is_empty() {
            continue;
        }
        // `key:…` is what an entry has for its own key.
        if tag.len() > MAX_TAG_BYTES || tag.starts_with("key:") {
            return None;
        }
        names.insert(tag.to_owned());
        if names.len() > MAX_TAGS {
            return None;
        }
    }
    Some(())
}

/// RFC 9875, 2 and 3: a list of strings whose parameters mean nothing. What is none is
/// ignored as a whole (RFC 9651, 4.2).
fn groups(headers: &Headers, name: &str) -> Vec<String> {
    let mut field = String::new();
    for line in headers.get_all(name) {
        if !field.is_empty() {
            field.push(',');
        }
        field.push_str(line);
    }
    if field.is_empty() {
        return Vec::new();
    }
    let member = |member: sf::Member| match member.value {
        Value::Item(Bare::String(group)) => Some(group),
        _ => None,
    };
    let members = sf::list(&field).unwrap_or_default().into_iter();
    members
        .map(member)
        .collect::<Option<_>>()
        .unwrap_or_default()
}

/// RFC 9875, 3: the groups that an answer to a write ends; `None`: so many that it is
/// everything. No entry is of a group that is longer than a tag.
pub fn ended_groups(headers: &Headers) -> Option<Vec<String>> {
    let mut groups = groups(headers, "cache-group-invalidation");
    groups.retain(|group| (1..=MAX_TAG_BYTES).contains(&group.len()) && !group.starts_with("key:"));
    (groups.len() <= MAX_GROUPS).then_some(groups)
}

/// A generation, and since when this isolate knows it.
#[derive(Debug, Default)]
struct Known {
    generation: String,
    since: u64,
}

/// What an isolate remembers.
#[derive(Debug)]
pub struct OriginTags {
    /// By key.
    tags: Recent<Vec<String>>,
    /// By tag.
    known: Recent<Known>,
    fetches: u64,
}

impl Default for OriginTags {
    fn default() -> Self {
        Self {
            tags: Recent::new(MAX_KEYS),
            known: Recent::new(MAX_VALUES),
            fetches: 0,
        }
    }
}

impl OriginTags {
    /// Names the tags that the key's answers had.
    pub fn recall(&mut self, lookup: &mut Rc<Lookup>) {
        if let Some(tags) = self.tags.use_mut(&lookup.key) {
            Rc::make_mut(lookup).origin_tags.clone_from(tags);
        }
    }

    /// What the key's last answer had is what is read with it from now on.
    pub fn remember(&mut self, key: &str, tags: &[String]) {
        if !tags.is_empty() || self.tags.get(key).is_some() {
            *self.tags.use_or_default(key) = tags.to_vec();
        }
    }

    /// Learns from a reading, whose generations are in the order of the lookup's keys.
    pub fn learn(&mut self, lookup: &Lookup, generations: &[Option<String>]) {
        let read = generations.iter().skip(lookup.own_generations());
        for (tag, generation) in lookup.origin_tags.iter().zip(read) {
            let Some(generation) = generation else {
                continue;
            };
            let known = self.known.use_or_default(tag);
            if known.generation != *generation {
                known.generation.clone_from(generation);
                known.since = self.fetches;
            }
        }
    }

    /// To be called before the origin is asked: what is learnt from now on is no proof for
    /// that fetch.
    pub fn begin_fetch(&mut self) -> u64 {
        self.fetches += 1;
        self.fetches
    }

    /// A tag's generation as it was read before that fetch began. If it is there after it
    /// too, it was there all the time.
    pub fn before(&self, tag: &str, fetch: u64) -> Option<&String> {
        let known = self.known.get(tag)?;
        (known.since < fetch && !known.generation.is_empty()).then_some(&known.generation)
    }
}
