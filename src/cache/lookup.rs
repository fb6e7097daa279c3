//! What to ask Redis for an entry, and what its answer means.
//!
//! Any number of entries are read by one MGET: each brings its body, its meta
//! record and the generation of each tag; shared tags are asked once, and so is the log of
//! purges by prefix. A missing generation matches nothing, so eviction, expiry and flush only
//! ever mean a miss. Of an entry that the isolate has itself the generations alone may be read.
//! The origin's own tags are read as far as they are known; a record that names others is
//! judged when those were read too.

use std::rc::Rc;

use crate::cache::entry::{Entry, Meta, Origin, etag, hash, is_json};
use crate::cache::generation::{PREFIX_LOG, Standing, by_log, standing};
use crate::cache::http::Record;
use crate::cache::packed::Packed;
use crate::cache::store::is_marked;
use crate::http::{Bytes, Headers};
use crate::redis::{Command, Reply};

/// What keys of `http` mode begin with, and no other ones.
pub const HTTP_KEYS: &str = "http:";

/// One entry's names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lookup {
    pub key: String,
    /// Rendered tags; the key itself is one more, implicitly.
    pub tags: Vec<String>,
    /// Tags that the origin is known to give it itself; what an entry really has is in
    /// its record.
    pub origin_tags: Vec<String>,
}

impl Lookup {
    pub fn meta_key(&self) -> String {
        meta_key(&self.key)
    }

    /// The implicit tag of the key first, then the log of prefixes, the listed tags and
    /// those of the origin.
    pub fn generation_keys(&self) -> Vec<String> {
        let mut keys = Vec::with_capacity(self.own_generations() + self.origin_tags.len());
        keys.push(key_generation_key(&self.key));
        keys.push(PREFIX_LOG.to_owned());
        let tags = self.tags.iter().chain(&self.origin_tags);
        keys.extend(tags.map(|tag| generation_key(tag)));
        keys
    }

    /// How many generations come before those of the origin's tags.
    pub fn own_generations(&self) -> usize {
        self.tags.len() + 2
    }

    /// Where a tag's generation is among those of the lookup.
    pub fn place(&self, tag: &String) -> Option<usize> {
        let tags = self.tags.iter().chain(&self.origin_tags);
        let at = tags.into_iter().position(|known| known == tag)?;
        Some(at + 2)
    }

    /// The same names with other tags of the origin's, but for those that it has anyway.
    #[must_use]
    pub fn named(&self, origin_tags: &[String]) -> Self {
        let is_more = |tag: &&String| !self.tags.contains(tag);
        Self {
            key: self.key.clone(),
            tags: self.tags.clone(),
            origin_tags: origin_tags.iter().filter(is_more).cloned().collect(),
        }
    }
}

/// A generation as it is in Redis: the log has one for each key.
pub fn generation_of(lookup: &Lookup, generation_key: &str, value: &str) -> Option<String> {
    match generation_key {
        PREFIX_LOG => by_log(value, &lookup.key),
        _ => Some(value.to_owned()),
    }
}

pub fn meta_key(key: &str) -> String {
    ["meta:", key].concat()
}

/// Backends write these too: `SET gen:{tag} <uuid> EX 172800`.
pub fn generation_key(tag: &str) -> String {
    ["gen:", tag].concat()
}

/// A purge by key must defeat a fill in flight as well.
pub fn key_generation_key(key: &str) -> String {
    ["gen:key:", key].concat()
}

/// What is read of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    Whole,
    /// And when its key expires, which tells its value from the next one.
    WholeAndExpiry,
    /// Generations and expiry.
    Changes,
}

/// Entries that are read together: at most 64 parts, so a list is searched faster
/// than a map is built.
#[derive(Debug, Clone, Default)]
pub struct Lookups {
    lookups: Vec<Asked>,
    keys: Vec<String>,
}

/// One of them, with the places of its values among the keys.
#[derive(Debug, Clone)]
struct Asked {
    lookup: Rc<Lookup>,
    ask: Ask,
    /// Of body and record, unless they are not read.
    entry: Option<(usize, usize)>,
    generations: Vec<usize>,
}

impl Lookups {
    /// Reads one whole, so that a body of the edge's own is told from another service's.
    pub fn one(lookup: &Lookup) -> Self {
        let mut one = Self::default();
        one.push(lookup.clone(), Ask::WholeAndExpiry);
        one
    }

    pub fn push(&mut self, lookup: impl Into<Rc<Lookup>>, ask: Ask) {
        let lookup = lookup.into();
        let reads_entry = ask != Ask::Changes;
        let entry = reads_entry.then(|| {
            (
                self.push_key(lookup.key.clone()),
                self.push_key(lookup.meta_key()),
            )
        });
        let generations = lookup.generation_keys();
        self.keys.reserve(generations.len());
        let generations = generations.into_iter().map(|key| self.push_key(key));
        let asked = Asked {
            generations: generations.collect(),
            lookup,
            ask,
            entry,
        };
        self.lookups.push(asked);
    }

    fn push_key(&mut self, key: String) -> usize {
        let known = self.keys.iter().position(|known| *known == key);
        known.unwrap_or_else(|| {
            self.keys.push(key);
            self.keys.len() - 1
        })
    }

    pub fn is_empty(&self) -> bool {
        self.lookups.is_empty()
    }

    /// All commands of a reading. Expiries come first: of a value that is replaced in
    /// between, the old one is remembered, and found to be over the next time.
    pub fn commands(&self) -> Vec<Command> {
        let mut commands = Vec::new();
        for Asked { lookup, ask, .. } in &self.lookups {
            if *ask != Ask::Whole {
                commands.push(Command::new("PEXPIRETIME").arg(&lookup.key));
            }
        }
        if !self.is_empty() {
            commands.push(self.command());
        }
        commands
    }

    /// The MGET alone.
    pub fn command(&self) -> Command {
        Command::new("MGET").args(&self.keys)
    }

    /// What the commands brought, one per lookup in order; `None` when the MGET's reply is
    /// not one value per key.
    pub fn judge(&self, replies: &[Reply], now_ms: u64) -> Option<Vec<Seen>> {
        let (values, expiries) = replies.split_last()?;
        let mut expiries = expiries.iter();
        let values = values.as_list()?;
        if values.len() != self.keys.len() {
            return None;
        }
        Some(
            self.lookups
                .iter()
                .map(|asked| {
                    let Asked { lookup, ask, .. } = asked;
                    let generation = |at: &usize| {
                        let value = values.get(*at).and_then(Reply::as_str)?;
                        generation_of(lookup, self.keys.get(*at)?, value)
                    };
                    let generations: Vec<_> = asked.generations.iter().map(generation).collect();
                    let (body, record_at) = asked.entry.unzip();
                    let body = body.and_then(|at| values.get(at)?.to_bytes());
                    let judged = match lookup.key.starts_with(HTTP_KEYS) {
                        true => record(body, lookup, &generations),
                        false => {
                            let meta = record_at.and_then(|at| meta(values.get(at)?));
                            judge(body, meta, lookup, &generations, now_ms)
                        }
                    };
                    let expiry = match ask {
                        Ask::Whole => None,
                        _ => expiries.next().and_then(Reply::as_int),
                    };
                    let mut seen = Seen {
                        found: Found::Missing,
                        generations,
                        // Without one a value is like the next.
                        expiry: expiry.filter(|expiry| *expiry > 0),
                        is_local: false,
                        origin_tags: lookup.origin_tags.clone(),
                        is_unread: false,
                    };
                    seen.take(lookup, judged);
                    seen.found = unless_orphaned(seen.found, expiry);
                    seen
                })
                .collect(),
        )
    }
}

/// What is there for a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Fresh(Entry),
    /// Past its freshness or purged softly, within its stale time.
    Stale(Entry),
    /// Another service's value; how long it lives is not in the lookup.
    Foreign(Entry),
    /// What lies under a key of `http` mode, judged by its own flow.
    Record(Bytes),
    /// A packed value; only its route knows what it may be.
    Packed(Box<Packed>),
    Missing,
}

/// A lookup's answer with the generations as they were at that moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub found: Found,
    pub generations: Vec<Option<String>>,
    /// When its key expires, in Redis' time, if that was asked.
    pub expiry: Option<i64>,
    /// It is what this isolate has, not what Redis sent.
    pub is_local: bool,
    /// The origin's tags of the lookup, and those that the record names besides, whose
    /// generations are none yet: the last of `generations` are theirs.
    pub origin_tags: Vec<String>,
    /// Whether only those decide what it is; until then it is missing.
    pub is_unread: bool,
}

impl Seen {
    /// Takes what a value turned out to be.
    pub fn take(&mut self, lookup: &Lookup, judged: Judged) {
        for tag in judged.tags {
            if lookup.place(&tag).is_none() {
                self.origin_tags.push(tag);
                self.generations.push(None);
            }
        }
        self.found = judged.found;
        self.is_unread = judged.is_unread;
    }
}

/// What lies under a key, and the origin's tags that its record names.
pub struct Judged {
    found: Found,
    tags: Vec<String>,
    is_unread: bool,
}

impl Judged {
    pub(super) fn new(found: Found) -> Self {
        Self {
            found,
            tags: Vec::new(),
            is_unread: false,
        }
    }
}

/// A record that says what is ever stored, read once as long as it is known.
fn meta(reply: &Reply) -> Option<Rc<Meta>> {
    let read = |record: &[u8]| Meta::read(record).filter(Meta::is_possible).map(Rc::new);
    let known = match reply {
        Reply::Shared(record) => record.twin(&read),
        _ => None,
    };
    match known {
        Some(known) => known.clone(),
        None => read(reply.as_bytes()?),
    }
}

fn judge(
    body: Option<Bytes>,
    meta: Option<Rc<Meta>>,
    lookup: &Lookup,
    generations: &[Option<String>],
    now_ms: u64,
) -> Judged {
    if let Some(packed) = (body.as_ref()).and_then(|value| Packed::of(value, meta.as_ref())) {
        return Judged::new(Found::Packed(Box::new(packed)));
    }
    let (meta, body) = match (body, meta) {
        (None, Some(meta)) if meta.origin != Origin::Edge => {
            let body = meta.body.as_deref().unwrap_or_default();
            let body = Bytes::from(body.as_bytes());
            (meta, body)
        }
        (None, _) => return Judged::new(Found::Missing),
        (Some(body), Some(meta))
            if meta.origin == Origin::Edge && meta.hash == body.hash(&hash) =>
        {
            (meta, body)
        }
        (Some(body), _) => return Judged::new(foreign(body, now_ms)),
    };
    timely(&meta, body, lookup, generations, now_ms)
}

/// What an entry is by its generations and times.
pub(super) fn timely(
    meta: &Meta,
    body: Bytes,
    lookup: &Lookup,
    generations: &[Option<String>],
    now_ms: u64,
) -> Judged {
    let standing = match meta.origin {
        Origin::Tags => Standing::Gone,
        _ => standing(lookup, &meta.tags, &meta.generations, generations),
    };
    Judged {
        found: match standing {
            Standing::Current => timed(meta.entry(body), true, now_ms),
            Standing::Soft => timed(meta.entry(body), false, now_ms),
            Standing::Unread | Standing::Gone => Found::Missing,
        },
        tags: meta.tags.clone(),
        is_unread: standing == Standing::Unread,
    }
}

/// The same in `http` mode, whose flow judges the record by itself.
fn record(body: Option<Bytes>, lookup: &Lookup, generations: &[Option<String>]) -> Judged {
    let Some(body) = body else {
        return Judged::new(Found::Missing);
    };
    let Some((tags, stored)) = Record::names(&body) else {
        return Judged::new(Found::Missing);
    };
    match standing(lookup, &tags, &stored, generations) {
        Standing::Current | Standing::Soft => Judged::new(Found::Record(body)),
        standing => Judged {
            found: Found::Missing,
            tags,
            is_unread: standing == Standing::Unread,
        },
    }
}

/// A body of the edge's own whose record is gone is nothing.
fn unless_orphaned(found: Found, expiry: Option<i64>) -> Found {
    match (&found, expiry) {
        (Found::Foreign(entry), Some(expiry)) if is_marked(expiry, &entry.body) => Found::Missing,
        _ => found,
    }
}

fn timed(entry: Entry, may_be_fresh: bool, now_ms: u64) -> Found {
    if may_be_fresh && entry.is_fresh(now_ms) {
        Found::Fresh(entry)
    } else if now_ms < entry.stale_until_ms {
        Found::Stale(entry)
    } else {
        Found::Missing
    }
}

/// Only JSON is served from another service: anything else is not a listing.
fn foreign(body: Bytes, now_ms: u64) -> Found {
    if !is_json(&body) {
        return Found::Missing;
    }
    let mut headers = Headers::new();
    headers.append("content-type", "application/json");
    headers.append("etag", etag(&body));
    Found::Foreign(Entry {
        status: 200,
        headers,
        body,
        stored_ms: now_ms,
        fresh_until_ms: now_ms,
        stale_until_ms: now_ms,
        took_ms: None,
    })
}
