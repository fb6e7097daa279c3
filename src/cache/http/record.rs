//! What lies in Redis for one URI: its generations and its stored answers, the newest
//! first.
//!
//! The value is a line of JSON and, behind it, the bodies in the same order. A body that is
//! text lies there as it is, any other one in base64: commands to Redis are text.

use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::vary::{self, Selecting};
use crate::http::Headers;
use crate::json::{Map, Value, json};

/// Answers that differ by `Vary`; past it the oldest goes.
pub const MAX_VARIANTS: usize = 8;

/// One answer, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub status: u16,
    pub headers: Headers,
    pub body: Rc<[u8]>,
    /// From when its age counts: its arrival less the age that it had then.
    pub born_ms: u64,
    /// How long it is fresh from then on.
    pub fresh_ms: u64,
    pub selecting: Selecting,
}

impl Stored {
    /// RFC 9111, 4.2.3: current_age.
    pub fn age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.born_ms)
    }

    /// What is left of its freshness, in seconds; at least one below zero when it is over.
    pub fn ttl_s(&self, now_ms: u64) -> i64 {
        let age_ms = self.age_ms(now_ms);
        let seconds = |ms: u64| i64::try_from(ms / 1000).unwrap_or(i64::MAX);
        match self.fresh_ms.checked_sub(age_ms) {
            Some(left_ms) if left_ms > 0 => seconds(left_ms),
            _ => -1 - seconds(age_ms - self.fresh_ms),
        }
    }

    pub fn has_validator(&self) -> bool {
        self.headers.contains("etag") || self.headers.contains("last-modified")
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// In the order of the lookup.
    pub generations: Vec<String>,
    pub variants: Vec<Stored>,
}

impl Record {
    /// RFC 9111, 4.1: of several that match, the newest.
    pub fn select(&self, request: &Headers) -> Option<&Stored> {
        let mut variants = self.variants.iter();
        variants.find(|stored| vary::selects(&stored.selecting, request))
    }

    /// Takes the place of what the same request would select.
    pub fn put(&mut self, stored: Stored, request: &Headers, max_bytes: usize) {
        self.remove(request);
        self.variants.insert(0, stored);
        let mut bytes = 0;
        let mut count = 0;
        // The newest stays in any case.
        self.variants.retain(|stored| {
            bytes += stored.body.len();
            count += 1;
            count == 1 || count <= MAX_VARIANTS && bytes <= max_bytes
        });
    }

    pub fn remove(&mut self, request: &Headers) {
        self.variants
            .retain(|stored| !vary::selects(&stored.selecting, request));
    }

    pub fn pack(&self) -> String {
        let text = |text: &String| Value::from(text);
        let mut bodies = String::new();
        let mut variants = Vec::with_capacity(self.variants.len());
        for stored in &self.variants {
            let before = bodies.len();
            let plain = std::str::from_utf8(&stored.body);
            match plain {
                Ok(plain) => bodies.push_str(plain),
                Err(_) => STANDARD.encode_string(&stored.body, &mut bodies),
            }
            let pair = |(name, value): (&str, &str)| Value::Array(vec![json!(name), json!(value)]);
            let selecting = |(name, value): &(String, Option<String>)| {
                let value = value.as_ref().map_or(Value::Null, text);
                Value::Array(vec![text(name), value])
            };
            let mut variant = Map::new();
            variant.insert("status", json!(stored.status));
            variant.insert(
                "headers",
                Value::Array(stored.headers.iter().map(pair).collect()),
            );
            variant.insert("born", json!(stored.born_ms));
            variant.insert("fresh", json!(stored.fresh_ms));
            let fields = stored.selecting.iter().map(selecting).collect();
            variant.insert("vary", Value::Array(fields));
            variant.insert("bytes", json!((bodies.len() - before) as u64));
            variant.insert("plain", Value::Bool(plain.is_ok()));
            variants.push(Value::Object(variant));
        }
        let mut head = Map::new();
        let generations = self.generations.iter().map(text).collect();
        head.insert("generations", Value::Array(generations));
        head.insert("variants", Value::Array(variants));
        let mut out = Value::Object(head).text();
        out.push('\n');
        out.push_str(&bodies);
        out
    }

    /// `None`: it is not what `pack` writes.
    pub fn unpack(value: &[u8]) -> Option<Self> {
        let end = value.iter().position(|byte| *byte == b'\n')?;
        let (head, bodies) = value.split_at_checked(end)?;
        let mut bodies = bodies.get(1..)?;
        let head = Value::read(head).ok()?;
        let generations = head.get("generations")?.as_array()?.iter();
        let generations = generations.map(|text| text.as_str().map(str::to_owned));
        let mut record = Self {
            generations: generations.collect::<Option<_>>()?,
            variants: Vec::new(),
        };
        for variant in head.get("variants")?.as_array()?.iter().take(MAX_VARIANTS) {
            let number = |name| variant.get(name)?.as_u64();
            let bytes = usize::try_from(number("bytes")?).ok()?;
            let (body, rest) = bodies.split_at_checked(bytes)?;
            bodies = rest;
            record.variants.push(Stored {
                status: number("status")?.try_into().ok()?,
                headers: pairs(variant.get("headers")?)?
                    .into_iter()
                    .map(|(name, value)| (name, value.unwrap_or_default()))
                    .collect(),
                body: match variant.get("plain")? {
                    Value::Bool(true) => Rc::from(body),
                    _ => STANDARD.decode(body).ok()?.into(),
                },
                born_ms: number("born")?,
                fresh_ms: number("fresh")?,
                selecting: pairs(variant.get("vary")?)?,
            });
        }
        Some(record)
    }
}

fn pairs(list: &Value<'_>) -> Option<Selecting> {
    let pair = |pair: &Value<'_>| match pair.as_array()? {
        [name, Value::Null] => Some((name.as_str()?.to_owned(), None)),
        [name, value] => Some((name.as_str()?.to_owned(), Some(value.as_str()?.to_owned()))),
        _ => None,
    };
    list.as_array()?.iter().map(pair).collect()
}
