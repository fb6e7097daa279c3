//! One cached answer: the body under the policy's key, all else under `meta:{key}`.
//!
//! The body is the origin's JSON itself, so that backends may read and write
//! it. The meta record is tied to it by a hash: a body that another service put
//! in its place is noticed. Negative answers live in the meta record alone, so
//! that a backend never reads an error as data.

use serde::de::IgnoredAny;
use xxhash_rust::xxh3::xxh3_128;

use crate::cache::early::MOST_TOOK_MS;
use crate::cache::origin_tags::{MAX_TAG_BYTES, MAX_TAGS};
use crate::http::{Body, Bytes, Headers, Response};
use crate::json::{Map, Value, json};

/// An answer that may be served, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub status: u16,
    /// Kept headers, with an `etag` always.
    pub headers: Headers,
    pub body: Bytes,
    pub stored_ms: u64,
    pub fresh_until_ms: u64,
    pub stale_until_ms: u64,
    /// How long its fetch took, if that is known.
    pub took_ms: Option<u64>,
}

impl Entry {
    pub fn is_fresh(&self, now_ms: u64) -> bool {
        now_ms < self.fresh_until_ms
    }

    pub fn age_s(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.stored_ms) / 1000
    }

    pub fn into_response<B>(self) -> Response<B> {
        Response {
            status: self.status,
            headers: self.headers,
            body: Body::Bytes(self.body),
        }
    }
}

/// Where an entry's body is. Its generations must match in both cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Under the policy's key.
    Edge,
    /// A 404 or 410, whose body is in the record itself.
    Negative,
    /// There is none: the record only says which tags the origin gives its answers.
    Tags,
}

/// The value of `meta:{key}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    pub origin: Origin,
    pub status: u16,
    pub headers: Headers,
    /// Milliseconds since the epoch.
    pub stored: u64,
    pub fresh_until: u64,
    pub stale_until: u64,
    /// Generation of each tag, in the order of the lookup.
    pub generations: Vec<String>,
    /// XXH3-128 of the body, hexadecimal.
    pub hash: String,
    pub body: Option<String>,
    /// Given by the origin itself; their generations are the last ones.
    pub tags: Vec<String>,
    /// How long the fetch took, in milliseconds.
    pub took: Option<u64>,
}

impl Meta {
    /// That answers have these tags, and nothing else.
    pub fn of_tags(tags: &[String]) -> Self {
        Self {
            origin: Origin::Tags,
            status: 0,
            headers: Headers::new(),
            stored: 0,
            fresh_until: 0,
            stale_until: 0,
            generations: Vec::new(),
            hash: String::new(),
            body: None,
            tags: tags.to_vec(),
            took: None,
        }
    }

    /// `tags` are the origin's own.
    pub fn of(entry: &Entry, origin: Origin, generations: Vec<String>, tags: Vec<String>) -> Self {
        Self {
            origin,
            status: entry.status,
            headers: entry.headers.clone(),
            stored: entry.stored_ms,
            fresh_until: entry.fresh_until_ms,
            stale_until: entry.stale_until_ms,
            generations,
            hash: hash(&entry.body),
            body: match origin {
                Origin::Negative => std::str::from_utf8(&entry.body).ok().map(str::to_owned),
                Origin::Edge | Origin::Tags => None,
            },
            tags,
            took: entry.took_ms,
        }
    }

    pub fn write(&self) -> String {
        let text = |text: &String| Value::from(text);
        let header = |(name, value)| Value::Array(vec![Value::from(name), Value::from(value)]);
        let origin = match self.origin {
            Origin::Edge => "edge",
            Origin::Negative => "negative",
            Origin::Tags => "tags",
        };
        let mut record = Map::new();
        record.insert("origin", json!(origin));
        record.insert("status", json!(self.status));
        record.insert(
            "headers",
            Value::Array(self.headers.iter().map(header).collect()),
        );
        record.insert("stored", json!(self.stored));
        record.insert("fresh_until", json!(self.fresh_until));
        record.insert("stale_until", json!(self.stale_until));
        record.insert(
            "generations",
            Value::Array(self.generations.iter().map(text).collect()),
        );
        record.insert("hash", json!(&self.hash));
        if let Some(body) = &self.body {
            record.insert("body", json!(body));
        }
        if !self.tags.is_empty() {
            record.insert("tags", Value::Array(self.tags.iter().map(text).collect()));
        }
        if let Some(took) = self.took {
            record.insert("took", json!(took));
        }
        Value::Object(record).text()
    }

    /// Reads a record; a member that is missing or of another type makes it none.
    pub fn read(record: &[u8]) -> Option<Self> {
        let json = Value::read(record).ok()?;
        let text = |json: &Value<'_>| json.as_str().map(str::to_owned);
        let number = |name| json.get(name)?.as_u64();
        Some(Self {
            origin: match json.get("origin")?.as_str()? {
                "edge" => Origin::Edge,
                "negative" => Origin::Negative,
                "tags" => Origin::Tags,
                _ => return None,
            },
            status: number("status")?.try_into().ok()?,
            headers: json
                .get("headers")?
                .as_array()?
                .iter()
                .map(|pair| match pair.as_array()? {
                    [name, value] => Some((name.as_str()?, value.as_str()?)),
                    _ => None,
                })
                .collect::<Option<_>>()?,
            stored: number("stored")?,
            fresh_until: number("fresh_until")?,
            stale_until: number("stale_until")?,
            generations: json
                .get("generations")?
                .as_array()?
                .iter()
                .map(text)
                .collect::<Option<_>>()?,
            hash: text(json.get("hash")?)?,
            body: match json.get("body") {
                None | Some(Value::Null) => None,
                Some(body) => Some(text(body)?),
            },
            tags: match json.get("tags") {
                None => Vec::new(),
                Some(tags) => tags.as_array()?.iter().map(text).collect::<Option<_>>()?,
            },
            // Somebody else may have written it.
            took: number("took").map(|took_ms| took_ms.min(MOST_TOOK_MS)),
        })
    }

    /// Whether it says what is ever stored: Redis may hold what somebody else wrote.
    pub fn is_possible(&self) -> bool {
        let is_status = match self.origin {
            Origin::Edge => self.status == 200,
            Origin::Negative => matches!(self.status, 404 | 410),
            Origin::Tags => self.status == 0,
        };
        is_status && are_possible(&self.tags)
    }

    pub fn entry(&self, body: Bytes) -> Entry {
        Entry {
            status: self.status,
            headers: self.headers.clone(),
            body,
            stored_ms: self.stored,
            fresh_until_ms: self.fresh_until,
            stale_until_ms: self.stale_until,
            took_ms: self.took,
        }
    }
}

/// Whether these are tags as they are kept of an origin.
pub fn are_possible(tags: &[String]) -> bool {
    tags.len() <= MAX_TAGS && tags.iter().all(|tag| tag.len() <= MAX_TAG_BYTES)
}

/// Whether a body is a listing that any backend can read: JSON, and so UTF-8.
pub fn is_json(body: &[u8]) -> bool {
    std::str::from_utf8(body).is_ok() && serde_json::from_slice::<IgnoredAny>(body).is_ok()
}

pub fn hash(body: &[u8]) -> String {
    format!("{:032x}", digest(body))
}

/// XXH3-128.
pub fn digest(body: &[u8]) -> u128 {
    xxh3_128(body)
}

/// A strong entity tag of our own, for answers that bring none (RFC 9110, 8.8.3).
pub fn etag(body: &[u8]) -> String {
    format!("\"{}\"", hash(body))
}
