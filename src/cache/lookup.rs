//! What to ask Redis for an entry, and what its answer means.
//!
//! Any number of entries are read by one MGET: each brings its body, its meta
//! record and the generation of each tag; shared tags are asked once. A missing
//! generation matches nothing, so eviction, expiry and flush only ever mean a miss.
//! Of an entry that the isolate has itself the generations alone may be read.

use crate::cache::entry::{Entry, Meta, Origin, etag, hash, is_json};
use crate::cache::packed::Packed;
use crate::cache::store::is_marked;
use crate::http::{Bytes, Headers};
use crate::redis::{Command, Reply};

/// What keys of `http` mode begin with, and no other ones.
pub const HTTP_KEYS: &str = "http:";

/// One entry's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    pub key: String,
    /// Rendered tags; the key itself is one more, implicitly.
    pub tags: Vec<String>,
}

impl Lookup {
    pub fn meta_key(&self) -> String {
        meta_key(&self.key)
    }

    /// The implicit tag of the key first, then the listed ones.
    pub fn generation_keys(&self) -> Vec<String> {
        let mut keys = Vec::with_capacity(self.tags.len() + 1);
        keys.push(key_generation_key(&self.key));
        keys.extend(self.tags.iter().map(|tag| generation_key(tag)));
        keys
    }
}

pub fn meta_key(key: &str) -> String {
    format!("meta:{key}")
}

/// Backends write these too: `SET gen:{tag} <uuid> EX 172800`.
pub fn generation_key(tag: &str) -> String {
    format!("gen:{tag}")
}

/// A purge by key must defeat a fill in flight as well.
pub fn key_generation_key(key: &str) -> String {
    format!("gen:key:{key}")
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
    lookups: Vec<(Lookup, Ask)>,
    keys: Vec<String>,
}

impl Lookups {
    /// Reads one whole, so that a body of the edge's own is told from another service's.
    pub fn one(lookup: &Lookup) -> Self {
        let mut one = Self::default();
        one.push(lookup.clone(), Ask::WholeAndExpiry);
        one
    }

    pub fn push(&mut self, lookup: Lookup, ask: Ask) {
        if ask != Ask::Changes {
            self.push_key(lookup.key.clone());
            self.push_key(lookup.meta_key());
        }
        for key in lookup.generation_keys() {
            self.push_key(key);
        }
        self.lookups.push((lookup, ask));
    }

    fn push_key(&mut self, key: String) {
        if !self.keys.contains(&key) {
            self.keys.push(key);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.lookups.is_empty()
    }

    /// All commands of a reading. Expiries come first: of a value that is replaced in
    /// between, the old one is remembered, and found to be over the next time.
    pub fn commands(&self) -> Vec<Command> {
        let mut commands = Vec::new();
        for (lookup, ask) in &self.lookups {
            if *ask != Ask::Whole {
                commands.push(Command::new("PEXPIRETIME").arg(lookup.key.as_str()));
            }
        }
        if !self.is_empty() {
            commands.push(self.command());
        }
        commands
    }

    /// The MGET alone.
    pub fn command(&self) -> Command {
        Command::new("MGET").args(self.keys.iter().map(String::as_str))
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
        let value = |key: &str| {
            let at = self.keys.iter().position(|known| known == key)?;
            values.get(at)
        };
        Some(
            self.lookups
                .iter()
                .map(|(lookup, ask)| {
                    let generations = lookup
                        .generation_keys()
                        .iter()
                        .map(|key| value(key).and_then(Reply::as_str).map(str::to_owned))
                        .collect::<Vec<_>>();
                    let body = value(&lookup.key).and_then(Reply::as_bytes);
                    let meta = value(&lookup.meta_key()).and_then(Reply::as_bytes);
                    let expiry = match ask {
                        Ask::Whole => None,
                        _ => expiries.next().and_then(Reply::as_int),
                    };
                    let found = match (lookup.key.starts_with(HTTP_KEYS), body) {
                        (true, Some(body)) => Found::Record(body.into()),
                        (true, None) => Found::Missing,
                        (false, body) => judge(body, meta, &generations, now_ms),
                    };
                    Seen {
                        found: unless_orphaned(found, expiry),
                        generations,
                        // Without one a value is like the next.
                        expiry: expiry.filter(|expiry| *expiry > 0),
                        is_local: false,
                    }
                })
                .collect(),
        )
    }
}

/// What is there for a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Fresh(Entry),
    /// Past its freshness, within its stale time.
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
}

fn judge(
    body: Option<&[u8]>,
    meta: Option<&[u8]>,
    generations: &[Option<String>],
    now_ms: u64,
) -> Found {
    let meta = meta.and_then(Meta::read).filter(Meta::is_possible);
    if let Some(packed) = body.and_then(|value| Packed::of(value, meta.as_ref())) {
        return Found::Packed(Box::new(packed));
    }
    match (body, meta) {
        (None, Some(meta)) if meta.origin == Origin::Negative => {
            let body = meta.body.clone().unwrap_or_default();
            if current(&meta.generations, generations) {
                timed(meta.into_entry(body.into_bytes().into()), now_ms)
            } else {
                Found::Missing
            }
        }
        (None, _) => Found::Missing,
        (Some(body), Some(meta)) if meta.origin == Origin::Edge && meta.hash == hash(body) => {
            if current(&meta.generations, generations) {
                timed(meta.into_entry(Bytes::from(body)), now_ms)
            } else {
                Found::Missing
            }
        }
        (Some(body), _) => foreign(body, now_ms),
    }
}

/// A body of the edge's own whose record is gone is nothing.
fn unless_orphaned(found: Found, expiry: Option<i64>) -> Found {
    match (&found, expiry) {
        (Found::Foreign(entry), Some(expiry)) if is_marked(expiry, &entry.body) => Found::Missing,
        _ => found,
    }
}

/// Whether every generation of an entry is there and unchanged.
pub fn current(stored: &[String], now: &[Option<String>]) -> bool {
    stored.len() == now.len()
        && stored
            .iter()
            .zip(now)
            .all(|(stored, now)| now.as_ref() == Some(stored))
}

pub(super) fn timed(entry: Entry, now_ms: u64) -> Found {
    if entry.is_fresh(now_ms) {
        Found::Fresh(entry)
    } else if now_ms < entry.stale_until_ms {
        Found::Stale(entry)
    } else {
        Found::Missing
    }
}

/// Only JSON is served from another service: anything else is not a listing.
fn foreign(body: &[u8], now_ms: u64) -> Found {
    if !is_json(body) {
        return Found::Missing;
    }
    let mut headers = Headers::new();
    headers.append("content-type", "application/json");
    headers.append("etag", etag(body));
    Found::Foreign(Entry {
        status: 200,
        headers,
        body: Bytes::from(body),
        stored_ms: now_ms,
        fresh_until_ms: now_ms,
        stale_until_ms: now_ms,
        took_ms: None,
    })
}
