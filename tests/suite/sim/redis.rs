//! A Redis in memory that does what the real one does for the commands we use.
//!
//! Keys are strings with an optional expiry in virtual time. An unknown command, a
//! wrong number of arguments or a wrong type is an error reply, as from Redis.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use edgeweir::redis::{Command, Reply, Word};

use super::hashes::Hashes;
use super::views::Views;

#[derive(Default)]
struct Value {
    bytes: Vec<u8>,
    /// Of a sorted set: the score of each member; empty for a string.
    scores: BTreeMap<String, u64>,
    expires_us: Option<u64>,
}

/// One command as it ran.
#[derive(Debug, Clone)]
pub struct Ran {
    pub at_us: u64,
    /// Whose port sent it; see `Edge::tag`.
    pub tag: u64,
    pub words: Vec<String>,
}

#[derive(Default)]
pub struct FakeRedis {
    /// Random numbers drawn by all isolates.
    pub draws: Cell<u64>,
    keys: RefCell<BTreeMap<String, Value>>,
    pub hashes: Hashes,
    /// Keys that begin with `views:`.
    pub views: Views,
    pub ran: RefCell<Vec<Ran>>,
    /// HTTP requests that reached it.
    pub trips: Cell<u64>,
    /// No key expires before that.
    next_us: Cell<u64>,
}

impl FakeRedis {
    /// Runs one command and writes it down.
    pub fn run(&self, now_us: u64, tag: u64, command: &Command) -> Reply {
        let words: Vec<String> = command.words().iter().map(text).collect();
        let args: Vec<&str> = words.iter().map(String::as_str).collect();
        self.expire(now_us);
        let is_string = |key: &&&str| self.keys.borrow().contains_key(**key);
        let of_hash = || match args.get(1).filter(is_string) {
            Some(_) if args[0].starts_with('H') => {
                let wrong = "WRONGTYPE Operation against a key holding the wrong kind of value";
                Some(Reply::Error(wrong.to_owned()))
            }
            _ => self.hashes.answer(now_us, &args),
        };
        let reply = match args.get(1).is_some_and(|key| key.starts_with("views:")) {
            true => self.views.answer(now_us, &args),
            false => of_hash().unwrap_or_else(|| self.answer(now_us, &args)),
        };
        if let Some(key) = args.get(1) {
            self.note_expiry(key);
        }
        self.ran.borrow_mut().push(Ran {
            at_us: now_us,
            tag,
            words,
        });
        reply
    }

    /// Forgets every key, and writes that down as a command.
    pub fn flush(&self, now_us: u64) {
        self.keys.borrow_mut().clear();
        self.hashes.clear();
        self.views.clear();
        self.ran.borrow_mut().push(Ran {
            at_us: now_us,
            tag: 0,
            words: vec!["FLUSHALL".to_owned()],
        });
    }

    /// A string's bytes; of a hash or a sorted set a kind, then names and texts, each with
    /// a zero byte behind it.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        let listed = |kind: &str, pairs: Vec<(String, String)>| {
            let mut text = format!("{kind}\0");
            for part in pairs.into_iter().flat_map(|(name, value)| [name, value]) {
                text.push_str(&part);
                text.push('\0');
            }
            text.into_bytes()
        };
        if let Some(fields) = self.hashes.fields(key) {
            return Some(listed("hash", fields));
        }
        let keys = self.keys.borrow();
        let value = keys.get(key)?;
        if value.scores.is_empty() {
            return Some(value.bytes.clone());
        }
        let scores = value.scores.iter();
        let pairs = scores.map(|(member, score)| (member.clone(), score.to_string()));
        Some(listed("scores", pairs.collect()))
    }

    /// Members of the largest sorted set.
    pub fn most_members(&self) -> usize {
        let keys = self.keys.borrow();
        let sizes = keys.values().map(|value| value.scores.len());
        sizes.max().unwrap_or(0)
    }

    pub fn set(&self, key: &str, bytes: impl Into<Vec<u8>>) {
        let value = Value {
            bytes: bytes.into(),
            ..Value::default()
        };
        self.keys.borrow_mut().insert(key.to_owned(), value);
    }

    /// The same with an expiry, as `SET key bytes PX ttl_ms` by another service.
    pub fn set_px(&self, now_us: u64, key: &str, bytes: impl Into<Vec<u8>>, ttl_ms: u64) {
        let value = Value {
            bytes: bytes.into(),
            expires_us: Some(now_us + ttl_ms * 1000),
            ..Value::default()
        };
        self.keys.borrow_mut().insert(key.to_owned(), value);
        self.note_expiry(key);
    }

    /// Loses one key, as a Redis that evicts does; nobody is told.
    pub fn evict(&self, key: &str) {
        self.keys.borrow_mut().remove(key);
    }

    /// Every key with the time left to it in milliseconds; `None`: it never expires.
    pub fn ttls_ms(&self, now_us: u64) -> BTreeMap<String, Option<u64>> {
        self.expire(now_us);
        let keys = self.keys.borrow();
        let strings = keys
            .iter()
            .map(|(key, value)| (key.clone(), value.expires_us));
        let left = |at: u64| (at - now_us) / 1000;
        strings
            .chain(self.hashes.expiries())
            .map(|(key, expires_us)| (key, expires_us.map(left)))
            .collect()
    }

    fn note_expiry(&self, key: &str) {
        let keys = self.keys.borrow();
        if let Some(at) = keys.get(key).and_then(|value| value.expires_us) {
            self.next_us.set(self.next_us.get().min(at));
        }
    }

    /// To look at all keys for each command would take longer than the commands.
    fn expire(&self, now_us: u64) {
        self.hashes.expire(now_us);
        if now_us < self.next_us.get() {
            return;
        }
        let mut keys = self.keys.borrow_mut();
        keys.retain(|_, value| value.expires_us.is_none_or(|at| at > now_us));
        let next_us = keys.values().filter_map(|value| value.expires_us).min();
        self.next_us.set(next_us.unwrap_or(u64::MAX));
    }

    fn answer(&self, now_us: u64, words: &[&str]) -> Reply {
        let mut keys = self.keys.borrow_mut();
        let bulk = |value: Option<&Value>| match value {
            Some(value) => Reply::Bytes(value.bytes.clone()),
            None => Reply::Nil,
        };
        match words {
            ["TIME"] => Reply::List(vec![
                Reply::Bytes((now_us / 1_000_000).to_string().into_bytes()),
                Reply::Bytes((now_us % 1_000_000).to_string().into_bytes()),
            ]),
            ["GET", key] => bulk(keys.get(*key)),
            ["MGET", names @ ..] if !names.is_empty() => {
                Reply::List(names.iter().map(|key| bulk(keys.get(*key))).collect())
            }
            ["DEL", names @ ..] if !names.is_empty() => {
                let gone = names.iter().filter(|key| keys.remove(**key).is_some());
                Reply::Int(gone.count() as i64)
            }
            ["EXISTS", names @ ..] if !names.is_empty() => {
                let there = names.iter().filter(|key| keys.contains_key(**key));
                Reply::Int(there.count() as i64)
            }
            ["PEXPIRE", key, ttl_ms] => match (keys.get_mut(*key), ttl_ms.parse::<u64>()) {
                (_, Err(_)) => not_a_number(),
                (None, _) => Reply::Int(0),
                (Some(value), Ok(ttl_ms)) => {
                    value.expires_us = Some(now_us + ttl_ms * 1000);
                    Reply::Int(1)
                }
            },
            ["PEXPIREAT", key, at_ms] => match (keys.get_mut(*key), at_ms.parse::<u64>()) {
                (_, Err(_)) => not_a_number(),
                (None, _) => Reply::Int(0),
                (Some(value), Ok(at_ms)) => {
                    value.expires_us = Some(at_ms * 1000);
                    Reply::Int(1)
                }
            },
            ["EXPIRE", key, ttl_s] => match (keys.get_mut(*key), ttl_s.parse::<u64>()) {
                (_, Err(_)) => not_a_number(),
                (None, _) => Reply::Int(0),
                (Some(value), Ok(ttl_s)) => {
                    value.expires_us = Some(now_us + ttl_s * 1_000_000);
                    Reply::Int(1)
                }
            },
            ["PTTL", key] => Reply::Int(match keys.get(*key) {
                None => -2,
                Some(value) => value
                    .expires_us
                    .map_or(-1, |at_us| ((at_us - now_us) / 1000) as i64),
            }),
            ["PEXPIRETIME", key] => Reply::Int(match keys.get(*key) {
                None => -2,
                Some(value) => value.expires_us.map_or(-1, |at_us| (at_us / 1000) as i64),
            }),
            ["PING"] => Reply::Bytes(b"PONG".to_vec()),
            ["GETRANGE", key, "0", last] => {
                let bytes = keys.get(*key).map(|value| value.bytes.clone());
                let bytes = bytes.unwrap_or_default();
                let most = last.parse().map_or(bytes.len(), |last: usize| last + 1);
                Reply::Bytes(bytes.into_iter().take(most).collect())
            }
            ["APPEND", key, bytes] => {
                let value = keys.entry((*key).to_owned()).or_default();
                value.bytes.extend_from_slice(bytes.as_bytes());
                Reply::Int(value.bytes.len() as i64)
            }
            ["SET", key, bytes, options @ ..] => set(&mut keys, now_us, key, bytes, options),
            [name, key, rest @ ..] if name.starts_with('Z') => {
                sorted_set(&mut keys, name, key, rest)
            }
            ["BITFIELD", key, operations @ ..] => bitfield(&mut keys, key, operations),
            [name, ..] => Reply::Error(format!("ERR unknown command or arguments for '{name}'")),
            [] => Reply::Error("ERR empty command".to_owned()),
        }
    }
}

fn text(word: &Word) -> String {
    match word {
        Word::Text(text) => text.to_string(),
        Word::Int(number) => number.to_string(),
    }
}

fn not_a_number() -> Reply {
    Reply::Error("ERR value is not an integer or out of range".to_owned())
}

fn set(
    keys: &mut BTreeMap<String, Value>,
    now_us: u64,
    key: &str,
    bytes: &str,
    mut options: &[&str],
) -> Reply {
    let (mut only_new, mut answers_old, mut expires_us) = (false, false, None);
    loop {
        options = match options {
            [] => break,
            ["NX", rest @ ..] => {
                only_new = true;
                rest
            }
            ["GET", rest @ ..] => {
                answers_old = true;
                rest
            }
            [unit @ ("PX" | "EX"), ttl, rest @ ..] => {
                let Ok(ttl) = ttl.parse::<u64>() else {
                    return not_a_number();
                };
                let unit_us = if *unit == "PX" { 1_000 } else { 1_000_000 };
                expires_us = Some(now_us + ttl * unit_us);
                rest
            }
            ["PXAT", at_ms, rest @ ..] => {
                let Ok(at_ms) = at_ms.parse::<u64>() else {
                    return not_a_number();
                };
                expires_us = Some(at_ms * 1_000);
                rest
            }
            _ => return Reply::Error("ERR syntax error".to_owned()),
        };
    }
    let old = keys.get(key).map(|value| Reply::Bytes(value.bytes.clone()));
    let is_set = !(only_new && old.is_some());
    if is_set {
        let value = Value {
            bytes: bytes.as_bytes().to_vec(),
            expires_us,
            ..Value::default()
        };
        keys.insert(key.to_owned(), value);
    }
    match (answers_old, is_set) {
        (true, _) => old.unwrap_or(Reply::Nil),
        (false, true) => Reply::Bytes(b"OK".to_vec()),
        (false, false) => Reply::Nil,
    }
}

/// Scores are whole numbers here, never below zero but for what is poured out.
fn sorted_set(keys: &mut BTreeMap<String, Value>, name: &str, key: &str, words: &[&str]) -> Reply {
    let number = |text: &str| text.parse::<u64>().ok();
    // `(5` excludes 5, `-inf` and `+inf` all.
    let after = |text: &str| match (text, text.strip_prefix('(')) {
        ("-inf", _) => Some(0),
        (_, Some(score)) => number(score).map(|score| score + 1),
        (score, None) => number(score),
    };
    let is_new = !keys.contains_key(key);
    let scores = &mut keys.entry(key.to_owned()).or_default().scores;
    let range = |scores: &BTreeMap<String, u64>, from: u64| {
        let mut found: Vec<(u64, String)> = (scores.iter())
            .filter(|(_, score)| **score >= from)
            .map(|(member, score)| (*score, member.clone()))
            .collect();
        found.sort();
        found
    };
    let reply = match (name, words) {
        ("ZADD", words) => {
            let (flag, pairs) = match words {
                [flag @ ("GT" | "XX"), pairs @ ..] => (*flag, pairs),
                pairs => ("", pairs),
            };
            if pairs.is_empty() {
                let wrong = "ERR wrong number of arguments for 'zadd' command";
                return Reply::Error(wrong.to_owned());
            }
            let mut added = 0;
            for pair in pairs.chunks(2) {
                let (Some(score), [_, member]) = (number(pair[0]), pair) else {
                    return Reply::Error("ERR syntax error".to_owned());
                };
                match (scores.get_mut(*member), flag) {
                    (Some(old), "GT") => *old = score.max(*old),
                    (Some(old), _) => *old = score,
                    (None, "XX") => {}
                    (None, _) => {
                        scores.insert((*member).to_owned(), score);
                        added += 1;
                    }
                }
            }
            Reply::Int(added)
        }
        ("ZINCRBY", [by, member]) => {
            let Ok(by) = by.parse::<i64>() else {
                return not_a_number();
            };
            let score = scores.entry((*member).to_owned()).or_insert(0);
            *score = score.saturating_add_signed(by);
            Reply::Bytes(score.to_string().into_bytes())
        }
        ("ZREM", members) => {
            let gone = members
                .iter()
                .filter(|member| scores.remove(**member).is_some());
            Reply::Int(gone.count() as i64)
        }
        ("ZREMRANGEBYSCORE", ["-inf", most]) => {
            let Some(most) = number(most) else {
                return not_a_number();
            };
            let before = scores.len();
            scores.retain(|_, score| *score > most);
            Reply::Int((before - scores.len()) as i64)
        }
        ("ZCOUNT", [from, "+inf"]) => match after(from) {
            Some(from) => Reply::Int(range(scores, from).len() as i64),
            None => not_a_number(),
        },
        ("ZSCORE", [member]) => match scores.get(*member) {
            Some(score) => Reply::Bytes(score.to_string().into_bytes()),
            None => Reply::Nil,
        },
        ("ZRANGE", [from, "+inf", "BYSCORE", "LIMIT", "0", most, "WITHSCORES"]) => {
            let (Some(from), Some(most)) = (after(from), number(most)) else {
                return not_a_number();
            };
            let found = range(scores, from).into_iter().take(most as usize);
            let pair = |(score, member): (u64, String)| [member, score.to_string()];
            Reply::List(
                found
                    .flat_map(pair)
                    .map(|text| Reply::Bytes(text.into_bytes()))
                    .collect(),
            )
        }
        ("ZREVRANGE", [first, last, "WITHSCORES"]) => {
            let ranked = range(scores, 0);
            let places = places(ranked.len(), first, last);
            let found = ranked
                .into_iter()
                .rev()
                .skip(places.start)
                .take(places.len());
            let pair = |(score, member): (u64, String)| [member, score.to_string()];
            let texts = found.flat_map(pair);
            Reply::List(texts.map(|text| Reply::Bytes(text.into_bytes())).collect())
        }
        ("ZREMRANGEBYRANK", [first, last]) => {
            let ranked = range(scores, 0);
            let places = places(ranked.len(), first, last);
            for (_, member) in &ranked[places.clone()] {
                scores.remove(member);
            }
            Reply::Int(places.len() as i64)
        }
        _ => Reply::Error(format!("ERR unknown command or arguments for '{name}'")),
    };
    let is_empty = scores.is_empty();
    // Reading makes no key, and no sorted set is empty.
    if is_empty && (is_new || keys.get(key).is_some_and(|value| value.bytes.is_empty())) {
        keys.remove(key);
    }
    reply
}

/// Of a length, from the first to the last, both included; negative ones from the end.
fn places(len: usize, first: &str, last: &str) -> std::ops::Range<usize> {
    let place = |text: &str| match text.parse::<i64>().unwrap() {
        place if place < 0 => len as i64 + place,
        place => place,
    };
    let end = (place(last) + 1).clamp(0, len as i64) as usize;
    (place(first).clamp(0, end as i64) as usize)..end
}

fn bitfield(keys: &mut BTreeMap<String, Value>, key: &str, mut operations: &[&str]) -> Reply {
    let mut overflow = "WRAP";
    let mut replies = Vec::new();
    let mut bytes = keys
        .get(key)
        .map(|value| value.bytes.clone())
        .unwrap_or_default();
    let mut is_written = false;
    while !operations.is_empty() {
        operations = match operations {
            ["OVERFLOW", mode @ ("WRAP" | "SAT" | "FAIL"), rest @ ..] => {
                overflow = mode;
                rest
            }
            ["GET", kind, bit, rest @ ..] => {
                let (Some(width), Some(bit)) = (width(kind), offset(bit)) else {
                    return Reply::Error("ERR Invalid bitfield type".to_owned());
                };
                replies.push(Reply::Int(read_bits(&bytes, bit, width) as i64));
                rest
            }
            ["INCRBY", kind, bit, by, rest @ ..] => {
                let (Some(width), Some(bit)) = (width(kind), offset(bit)) else {
                    return Reply::Error("ERR Invalid bitfield type".to_owned());
                };
                let Ok(by) = by.parse::<i64>() else {
                    return not_a_number();
                };
                let most = (1i128 << width) - 1;
                let sum = i128::from(read_bits(&bytes, bit, width)) + i128::from(by);
                let sum = match (overflow, (0..=most).contains(&sum)) {
                    (_, true) => Some(sum),
                    ("SAT", _) => Some(sum.clamp(0, most)),
                    ("WRAP", _) => Some(sum.rem_euclid(most + 1)),
                    _ => None,
                };
                // A failed operation grows the string all the same.
                is_written = true;
                let end = (bit + width).div_ceil(8);
                bytes.resize(bytes.len().max(end), 0);
                match sum {
                    None => replies.push(Reply::Nil),
                    Some(sum) => {
                        write_bits(&mut bytes, bit, width, sum as u64);
                        replies.push(Reply::Int(sum as i64));
                    }
                }
                rest
            }
            _ => return Reply::Error("ERR syntax error".to_owned()),
        };
    }
    if is_written {
        keys.entry(key.to_owned()).or_default().bytes = bytes;
    }
    Reply::List(replies)
}

/// The width of an unsigned type: `u1` to `u63`.
fn width(kind: &str) -> Option<usize> {
    let width = kind.strip_prefix('u')?.parse().ok()?;
    (1..=63).contains(&width).then_some(width)
}

/// A bit offset, below Redis' 512 MB.
fn offset(bit: &str) -> Option<usize> {
    bit.parse().ok().filter(|bit| *bit < 1 << 32)
}

fn read_bits(bytes: &[u8], bit: usize, width: usize) -> u64 {
    (bit..bit + width).fold(0, |number, at| {
        let byte = bytes.get(at / 8).copied().unwrap_or(0);
        number << 1 | u64::from(byte >> (7 - at % 8) & 1)
    })
}

fn write_bits(bytes: &mut [u8], bit: usize, width: usize, number: u64) {
    for at in 0..width {
        let mask = 1 << (7 - (bit + at) % 8);
        let byte = &mut bytes[(bit + at) / 8];
        match number >> (width - 1 - at) & 1 {
            0 => *byte &= !mask,
            _ => *byte |= mask,
        }
    }
}
