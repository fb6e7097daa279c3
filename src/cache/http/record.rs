//! What lies in Redis for one URI: its generations and its stored answers, the newest
//! first.
//!
//! The value is numbers, each with a comma behind it, and texts, each with its length before
//! it. A body that is text lies there as it is, any other one in base64: commands to Redis
//! are text.

use super::vary::{self, Selecting};
use crate::base64;
use crate::http::{Bytes, Headers};

/// Answers that differ by `Vary`; past it the oldest goes.
pub const MAX_VARIANTS: usize = 8;

/// One answer, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub status: u16,
    pub headers: Headers,
    pub body: Bytes,
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

    /// Takes the place of what the same request would select; the oldest go that are too
    /// many or too much.
    pub fn put(&mut self, stored: Stored, request: &Headers, max_bytes: usize) {
        let mut bytes = stored.body.len();
        for old in std::mem::replace(&mut self.variants, vec![stored]) {
            bytes += old.body.len();
            let fits = self.variants.len() < MAX_VARIANTS && bytes <= max_bytes;
            if fits && !vary::selects(&old.selecting, request) {
                self.variants.push(old);
            }
        }
    }

    pub fn pack(&self) -> String {
        let mut out = VERSION.to_owned();
        number(&mut out, self.generations.len() as u64);
        for generation in &self.generations {
            text(&mut out, generation);
        }
        for stored in &self.variants {
            number(&mut out, u64::from(stored.status));
            number(&mut out, stored.born_ms);
            number(&mut out, stored.fresh_ms);
            number(&mut out, stored.headers.len() as u64);
            for (name, value) in stored.headers.iter() {
                text(&mut out, name);
                text(&mut out, value);
            }
            number(&mut out, stored.selecting.len() as u64);
            for (name, value) in &stored.selecting {
                text(&mut out, name);
                number(&mut out, u64::from(value.is_some()));
                text(&mut out, value.as_deref().unwrap_or_default());
            }
            let plain = std::str::from_utf8(&stored.body);
            number(&mut out, u64::from(plain.is_ok()));
            match plain {
                Ok(plain) => text(&mut out, plain),
                Err(_) => text(&mut out, &base64::encode(&stored.body)),
            }
        }
        out
    }

    /// `None`: it is not what `pack` writes.
    pub fn unpack(value: &[u8]) -> Option<Self> {
        let mut rest = Rest(value.strip_prefix(VERSION.as_bytes())?);
        let mut record = Self::default();
        for _ in 0..rest.number()? {
            record.generations.push(rest.text()?);
        }
        while !rest.0.is_empty() && record.variants.len() < MAX_VARIANTS {
            let mut stored = Stored {
                status: rest.number()?.try_into().ok()?,
                born_ms: rest.number()?,
                fresh_ms: rest.number()?,
                headers: Headers::new(),
                selecting: Vec::new(),
                body: Vec::new().into(),
            };
            for _ in 0..rest.number()? {
                let name = rest.text()?;
                stored.headers.append(&name, rest.text()?);
            }
            for _ in 0..rest.number()? {
                let (name, is_there) = (rest.text()?, rest.number()? != 0);
                let value = rest.text()?;
                stored.selecting.push((name, is_there.then_some(value)));
            }
            let is_plain = rest.number()? != 0;
            let length = rest.number()?;
            let body = rest.take(length)?;
            stored.body = match is_plain {
                true => body.into(),
                false => base64::decode(body)?.into(),
            };
            record.variants.push(stored);
        }
        Some(record)
    }
}

/// What a record of this form begins with: another one is none.
const VERSION: &str = "h1,";

fn number(out: &mut String, number: u64) {
    out.push_str(&number.to_string());
    out.push(',');
}

fn text(out: &mut String, text: &str) {
    number(out, text.len() as u64);
    out.push_str(text);
}

/// What is not read yet. No number in it is trusted: each text must be there.
struct Rest<'v>(&'v [u8]);

impl<'v> Rest<'v> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0u64;
        loop {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            match byte {
                b',' => return Some(number),
                b'0'..=b'9' => {
                    number = number
                        .checked_mul(10)?
                        .checked_add(u64::from(byte - b'0'))?;
                }
                _ => return None,
            }
        }
    }

    fn take(&mut self, length: u64) -> Option<&'v [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn text(&mut self) -> Option<String> {
        let length = self.number()?;
        let bytes = self.take(length)?;
        Some(std::str::from_utf8(bytes).ok()?.to_owned())
    }
}
