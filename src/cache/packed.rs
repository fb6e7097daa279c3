//! Entries that are one value: the record and the body together, of any content type.
//!
//! `p1,` stands before the record, a line's end and the body; `p2,` is the same with the
//! body in base64, since commands to Redis are text; `s1,` stands before what a cipher
//! made of a `p1,` value, in base64. None of them is JSON, so no backend takes one for a
//! listing, and a route takes only its own kind. When a refresh brings the same body, a
//! record of its own (`meta:{key}`) says how long the value lives on. Nothing here
//! encrypts or compresses.

use std::rc::Rc;

use crate::http::Bytes;

use super::GENERATION_TTL_S;
use super::entry::{Entry, Meta, Origin, hash};
use super::lookup::{Found, Judged, Lookup, timely};
use crate::base64;
use crate::redis::{Batch, Command};

const TEXT: &str = "p1,";
const CODED: &str = "p2,";
const SEALED: &str = "s1,";
/// So long a beginning of a value holds its record, as a rule: the generations of 16 tags
/// that many writes have made longer are longer.
pub const HEAD_BYTES: usize = 8_192;

/// A value as it lies in Redis, and the record beside it, if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    value: Bytes,
    beside: Option<Rc<Meta>>,
}

impl Packed {
    /// `None`: it is another kind of value.
    pub fn of(value: &Bytes, beside: Option<&Rc<Meta>>) -> Option<Self> {
        let mut kinds = [TEXT, CODED, SEALED].into_iter();
        let is_packed = kinds.any(|kind| value.starts_with(kind.as_bytes()));
        is_packed.then(|| Self {
            value: value.clone(),
            beside: beside.cloned(),
        })
    }

    /// What a cipher made.
    pub fn sealed(&self) -> Option<Vec<u8>> {
        base64::decode(self.value.strip_prefix(SEALED.as_bytes())?)
    }

    /// What an entry is that is not encrypted.
    pub fn judge(&self, lookup: &Lookup, generations: &[Option<String>], now_ms: u64) -> Judged {
        // Unpacked once as long as the value is known.
        let unpacked = match self.value.twin(&unpack) {
            Some(known) => known.clone(),
            None => unpack(&self.value),
        };
        let beside = self.beside.as_deref();
        judge(unpacked, beside, lookup, generations, now_ms)
    }
}

/// The same of a value that was decrypted: nothing beside it counts.
pub fn judge_opened(
    plain: &[u8],
    lookup: &Lookup,
    generations: &[Option<String>],
    now_ms: u64,
) -> Judged {
    judge(unpack(plain), None, lookup, generations, now_ms)
}

fn judge(
    unpacked: Option<(Rc<Meta>, Bytes)>,
    beside: Option<&Meta>,
    lookup: &Lookup,
    generations: &[Option<String>],
    now_ms: u64,
) -> Judged {
    let Some((meta, body)) = unpacked else {
        return Judged::new(Found::Missing);
    };
    timely(lived_on(&meta, beside), body, lookup, generations, now_ms)
}

/// What is known of an entry by the beginning of its value and the record beside it.
pub fn record(head: &[u8], beside: Option<&Meta>) -> Option<Meta> {
    let (meta, ..) = split(head)?;
    Some(lived_on(&meta, beside).clone())
}

/// The record beside a value counts if it says how the same entry lives on.
fn lived_on<'m>(meta: &'m Meta, beside: Option<&'m Meta>) -> &'m Meta {
    let is_of = |later: &&Meta| {
        later.hash == meta.hash && later.origin == meta.origin && later.stored >= meta.stored
    };
    beside.filter(is_of).unwrap_or(meta)
}

/// The record, the body as it lies there, and whether that is base64.
fn split(value: &[u8]) -> Option<(Meta, &[u8], bool)> {
    let (rest, is_coded) = match value.strip_prefix(CODED.as_bytes()) {
        Some(rest) => (rest, true),
        None => (value.strip_prefix(TEXT.as_bytes())?, false),
    };
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let (record, body) = rest.split_at_checked(end)?;
    let body = body.strip_prefix(b"\n")?;
    let meta = Meta::read(record).filter(Meta::is_possible)?;
    Some((meta, body, is_coded))
}

fn unpack(value: &[u8]) -> Option<(Rc<Meta>, Bytes)> {
    let (meta, body, is_coded) = split(value)?;
    let body: Bytes = match is_coded {
        true => base64::decode(body)?.into(),
        false => body.into(),
    };
    (meta.hash == body.hash(&hash)).then(|| (Rc::new(meta), body))
}

/// Record and body, as a cipher takes them.
pub fn plain(lookup: &Lookup, entry: &Entry, origin: Origin, generations: &[String]) -> Vec<u8> {
    let mut out = head(TEXT, lookup, entry, origin, generations).into_bytes();
    out.extend_from_slice(&entry.body);
    out
}

/// The same as Redis takes it.
pub fn text(lookup: &Lookup, entry: &Entry, origin: Origin, generations: &[String]) -> String {
    let (kind, body) = match std::str::from_utf8(&entry.body) {
        Ok(body) => (TEXT, body.to_owned()),
        Err(_) => (CODED, base64::encode(&entry.body)),
    };
    head(kind, lookup, entry, origin, generations) + &body
}

pub fn sealed_text(sealed: &[u8]) -> String {
    SEALED.to_owned() + &base64::encode(sealed)
}

fn head(
    kind: &str,
    lookup: &Lookup,
    entry: &Entry,
    origin: Origin,
    generations: &[String],
) -> String {
    let tags = lookup.origin_tags.clone();
    let mut meta = Meta::of(entry, origin, generations.to_vec(), tags);
    // It stands behind the record.
    meta.body = None;
    let mut out = kind.to_owned();
    // Its line's ends are escaped.
    out.push_str(&meta.write());
    out.push('\n');
    out
}

/// Stores a value, keeps its generations alive and ends the fill.
pub fn commands(lookup: &Lookup, value: String, life_ms: u64, lock_key: &str) -> Batch {
    let mut commands = vec![
        Command::set_px(&lookup.key, value, life_ms),
        Command::new("DEL").arg(lookup.meta_key()),
    ];
    for key in lookup.generation_keys() {
        commands.push(Command::new("EXPIRE").arg(key).arg(GENERATION_TTL_S));
    }
    commands.push(Command::new("DEL").arg(lock_key.to_owned()));
    Batch::multi(commands)
}
