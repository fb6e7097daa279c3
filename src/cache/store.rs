//! What may be stored, and the commands that store it.
//!
//! In `policy` mode the policy sets the time; the origin can still forbid
//! (RFC 9111, 3 and 5.2.2). An entry and its meta record are written in one
//! transaction, and the record outlives the body.

use crate::cache::GENERATION_TTL_S;
use crate::cache::entry::{Entry, Meta, Origin, digest, is_json};
use crate::cache::lookup::Lookup;
use crate::http::Headers;
use crate::policy::{CacheRule, Form};
use crate::redis::{Batch, Command};

/// The record must not expire before the body, or the body would pass for
/// another service's.
const META_MARGIN_MS: u64 = 60_000;

/// Kept headers count against the size of an answer; this is their own bound.
pub const MAX_HEADER_BYTES: usize = 8 * 1024;

/// A negative answer's body is kept in the record itself.
const MAX_NEGATIVE_BYTES: usize = 16 * 1024;

/// Why an answer is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unstorable {
    Status,
    SetCookie,
    CacheControl,
    Vary,
    TooLarge,
    NotJson,
    Encoding,
    /// In `http` mode: the request says no-store.
    Request,
    /// The same: what somebody got who said who he is.
    Credentials,
    /// The same: it is never fresh and cannot be validated.
    Freshness,
    /// The same: an event stream.
    Stream,
    /// It has more tags of the origin's than are kept.
    Tags,
}

impl Unstorable {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::SetCookie => "set-cookie",
            Self::CacheControl => "cache-control",
            Self::Vary => "vary",
            Self::TooLarge => "too-large",
            Self::NotJson => "not-json",
            Self::Encoding => "encoding",
            Self::Request => "request",
            Self::Credentials => "credentials",
            Self::Freshness => "freshness",
            Self::Stream => "stream",
            Self::Tags => "tags",
        }
    }
}

/// What an answer's head says: how long it may be kept, in milliseconds of
/// freshness and of staleness after it.
pub fn storable(status: u16, headers: &Headers, rule: &CacheRule) -> Result<Times, Unstorable> {
    let times = match (status, rule.negative_ms) {
        (200, _) => Times {
            origin: Origin::Edge,
            fresh_ms: rule.ttl_ms,
            stale_ms: rule.stale_ms,
            max_bytes: rule.max_bytes,
            form: rule.form,
        },
        (404 | 410, Some(negative_ms)) => Times {
            origin: Origin::Negative,
            fresh_ms: negative_ms,
            stale_ms: 0,
            max_bytes: rule.max_bytes.min(MAX_NEGATIVE_BYTES),
            form: rule.form,
        },
        _ => return Err(Unstorable::Status),
    };
    if headers.contains("set-cookie") {
        return Err(Unstorable::SetCookie);
    }
    let is_users = rule.form == Form::User;
    if forbids_storing(headers, is_users) {
        return Err(Unstorable::CacheControl);
    }
    let varies = headers
        .get_all("vary")
        .flat_map(|field| field.split(','))
        .map(str::trim)
        .any(|name| {
            let is_keyed = |known: &&str| name.eq_ignore_ascii_case(known);
            // What says who he is chooses no other answer for the same user.
            let is_of_user = is_users && ["authorization", "cookie"].iter().any(is_keyed);
            !name.is_empty() && !is_keyed(&"accept-encoding") && !is_of_user
        });
    if varies {
        return Err(Unstorable::Vary);
    }
    if crate::headers::is_event_stream(headers) {
        return Err(Unstorable::NotJson);
    }
    if !crate::headers::is_readable(headers) {
        return Err(Unstorable::Encoding);
    }
    let declared = headers
        .get("content-length")
        .and_then(|length| length.trim().parse::<u64>().ok());
    if declared.is_some_and(|length| length > times.max_bytes as u64) {
        return Err(Unstorable::TooLarge);
    }
    let header_bytes: usize = headers
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if header_bytes > MAX_HEADER_BYTES {
        return Err(Unstorable::TooLarge);
    }
    Ok(times)
}

/// A `private` with field names is treated as a plain one (RFC 9111, 5.2.2.7
/// allows it), so is one in quotes: refusing to store is always safe. What is private to a
/// user may be stored for him alone.
fn forbids_storing(headers: &Headers, is_users: bool) -> bool {
    let forbids = |name: &str| {
        name.eq_ignore_ascii_case("no-store") || !is_users && name.eq_ignore_ascii_case("private")
    };
    headers
        .get_all("cache-control")
        .flat_map(|field| field.split(','))
        .map(|directive| directive.split('=').next().unwrap_or("").trim())
        .any(forbids)
}

/// How long and how large a storable answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    pub origin: Origin,
    pub fresh_ms: u64,
    pub stale_ms: u64,
    pub max_bytes: usize,
    pub form: Form,
}

impl Times {
    pub fn life_ms(&self) -> u64 {
        self.fresh_ms.saturating_add(self.stale_ms).max(1)
    }
}

/// Makes the entry of an answer whose head was storable. Its body must be JSON,
/// or for a negative answer any text; where no backend reads it, it may be anything.
pub fn entry(
    status: u16,
    headers: &Headers,
    body: Vec<u8>,
    times: Times,
    now_ms: u64,
) -> Result<Entry, (Unstorable, Vec<u8>)> {
    let fits = match (times.form, times.origin) {
        (_, Origin::Tags) => false,
        (Form::Packed | Form::User, _) => true,
        (Form::Plain, Origin::Negative) => std::str::from_utf8(&body).is_ok(),
        (Form::Plain, Origin::Edge) => is_json(&body),
    };
    if !fits {
        return Err((Unstorable::NotJson, body));
    }
    let mut kept: Headers = headers
        .iter()
        .filter(|(name, _)| crate::headers::is_kept_in_cache(name))
        .collect();
    if !kept.contains("etag") {
        kept.append("etag", crate::cache::entry::etag(&body));
    }
    // What comes out of another cache has an age already (RFC 9111, 4.2.3).
    let age_ms = headers
        .get("age")
        .and_then(|age| age.trim().parse::<u32>().ok())
        .map_or(0, |age_s| u64::from(age_s) * 1000);
    Ok(Entry {
        status,
        headers: kept,
        body: body.into(),
        stored_ms: now_ms.saturating_sub(age_ms),
        fresh_until_ms: now_ms.saturating_add(times.fresh_ms),
        stale_until_ms: now_ms
            .saturating_add(times.fresh_ms)
            .saturating_add(times.stale_ms),
        took_ms: None,
    })
}

/// A body of the edge's own expires at a moment whose milliseconds are told by the body. A database that
/// evicts may drop its record alone, and the body would pass for another service's, which no tag purges. One in a
/// thousand of other services' values is taken for such a body, and fetched.
pub fn is_marked(expiry_ms: i64, body: &[u8]) -> bool {
    u64::try_from(expiry_ms).is_ok_and(|expiry_ms| expiry_ms % MARKS == mark(body))
}

const MARKS: u64 = 1_000;

/// Never 0, at which an expiry in whole seconds lies.
fn mark(body: &[u8]) -> u64 {
    (digest(body) % u128::from(MARKS - 1)) as u64 + 1
}

/// The last marked moment up to `expiry_ms`, or the next one for what lives for little longer than
/// the milliseconds that this would cost it.
fn marked(expiry_ms: u64, life_ms: u64, body: &[u8]) -> u64 {
    let over = (expiry_ms % MARKS + MARKS - mark(body)) % MARKS;
    let before_ms = expiry_ms.saturating_sub(over);
    match life_ms < 2 * MARKS && over > 0 {
        true => before_ms.saturating_add(MARKS),
        false => before_ms,
    }
}

/// When a body's key expires, by Redis' clock.
fn until_ms(entry: &Entry, life_ms: u64, offset_ms: i64) -> u64 {
    let until_ms = entry.stale_until_ms.saturating_add_signed(offset_ms);
    marked(until_ms, life_ms, &entry.body)
}

/// Stores an entry, keeps its generations alive and ends the fill. The lookup names the tags that the entry
/// has, with these generations; `offset_ms` is how far Redis' clock is ahead of the isolate's.
pub fn commands(
    lookup: &Lookup,
    entry: &Entry,
    times: Times,
    generations: &[String],
    lock_key: &str,
    offset_ms: i64,
) -> Batch {
    let mut commands = writes(lookup, entry, times, generations, offset_ms);
    commands.push(Command::new("DEL").arg(lock_key.to_owned()));
    Batch::multi(commands)
}

/// The same of no fill.
pub fn writes(
    lookup: &Lookup,
    entry: &Entry,
    times: Times,
    generations: &[String],
    offset_ms: i64,
) -> Vec<Command> {
    let origin = times.origin;
    let life_ms = times.life_ms();
    let mut commands = Vec::with_capacity(generations.len() + 3);
    let tags = lookup.origin_tags.clone();
    let meta = Meta::of(entry, origin, generations.to_vec(), tags);
    let record = meta.write();
    match (origin, std::str::from_utf8(&entry.body)) {
        (Origin::Edge, Ok(body)) => {
            let until_ms = until_ms(entry, life_ms, offset_ms);
            commands.push(Command::set_pxat(&lookup.key, body.to_owned(), until_ms));
            commands.push(Command::set_px(
                &lookup.meta_key(),
                record,
                life_ms + META_MARGIN_MS,
            ));
        }
        (Origin::Negative, Ok(_)) => {
            // An older positive body must not stay beside the negative record.
            commands.push(Command::new("DEL").arg(&lookup.key));
            commands.push(Command::set_px(&lookup.meta_key(), record, life_ms));
        }
        (Origin::Tags, _) | (_, Err(_)) => {}
    }
    for key in lookup.generation_keys() {
        commands.push(Command::new("EXPIRE").arg(key).arg(GENERATION_TTL_S));
    }
    commands
}

/// The same for an entry whose body lies there already: its life begins anew, and only its
/// record is written. The first reply is 0 when the body is gone.
pub fn extension(
    lookup: &Lookup,
    entry: &Entry,
    times: Times,
    generations: &[String],
    lock_key: &str,
    offset_ms: i64,
) -> Batch {
    let life_ms = times.life_ms();
    let tags = lookup.origin_tags.clone();
    let record = Meta::of(entry, times.origin, generations.to_vec(), tags).write();
    let mut commands = vec![
        Command::new("PEXPIREAT")
            .arg(&lookup.key)
            .arg(until_ms(entry, life_ms, offset_ms)),
        Command::set_px(&lookup.meta_key(), record, life_ms + META_MARGIN_MS),
    ];
    for key in lookup.generation_keys() {
        commands.push(Command::new("EXPIRE").arg(key).arg(GENERATION_TTL_S));
    }
    commands.push(Command::new("DEL").arg(lock_key.to_owned()));
    Batch::multi(commands)
}

/// How long it is known which tags an answer has that could not be stored.
pub const TAGS_MS: u64 = 3_600_000;

/// Leaves which tags the answers of a key have, in place of any entry.
pub fn tags(lookup: &Lookup) -> Vec<Command> {
    let record = Meta::of_tags(&lookup.origin_tags).write();
    vec![
        // A body whose record is gone would pass for another service's.
        Command::new("DEL").arg(&lookup.key),
        Command::set_px(&lookup.meta_key(), record, TAGS_MS),
    ]
}
