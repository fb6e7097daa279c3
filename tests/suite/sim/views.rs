//! Keys of views in the Redis in memory: strings, sets, sorted sets, hashes and sketches.
//!
//! A sketch counts exactly here. An unknown command or a wrong type is an error reply.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use edgeweir::redis::Reply;

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Text(Vec<u8>),
    Set(BTreeSet<String>),
    Scores(BTreeMap<String, u64>),
    Fields(BTreeMap<String, String>),
    Sketch(BTreeSet<String>),
}

#[derive(Debug, Clone)]
struct Kept {
    value: Value,
    expires_us: Option<u64>,
}

#[derive(Default)]
pub struct Views {
    keys: RefCell<BTreeMap<String, Kept>>,
    /// Until when nothing more expires than did.
    expired_us: Cell<u64>,
}

const WRONG: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";

/// The value of a key as one of the types, made if it is not there.
macro_rules! of {
    ($keys:expr, $key:expr, $kind:ident) => {
        match &mut $keys
            .entry($key.to_string())
            .or_insert_with(|| Kept {
                value: Value::$kind(Default::default()),
                expires_us: None,
            })
            .value
        {
            Value::$kind(value) => value,
            _ => return Reply::Error(WRONG.to_owned()),
        }
    };
}

fn bulk(text: impl ToString) -> Reply {
    Reply::Bytes(text.to_string().into_bytes())
}

impl Views {
    pub fn clear(&self) {
        self.keys.borrow_mut().clear();
    }

    /// Every key with the time left to it in milliseconds.
    pub fn ttls_ms(&self, now_us: u64) -> BTreeMap<String, Option<u64>> {
        self.expire(now_us);
        let keys = self.keys.borrow();
        let left = |kept: &Kept| kept.expires_us.map(|at| (at - now_us) / 1000);
        keys.iter()
            .map(|(key, kept)| (key.clone(), left(kept)))
            .collect()
    }

    /// How many members all the sets of viewers have.
    pub fn members(&self) -> usize {
        let keys = self.keys.borrow();
        let sets = keys.iter().filter_map(|(key, kept)| match &kept.value {
            Value::Set(members) if !key.starts_with("views:_") => Some(members.len()),
            _ => None,
        });
        sets.sum()
    }

    fn expire(&self, now_us: u64) {
        if self.expired_us.replace(now_us) == now_us {
            return;
        }
        let mut keys = self.keys.borrow_mut();
        keys.retain(|_, kept| kept.expires_us.is_none_or(|at| at > now_us));
    }

    pub fn answer(&self, now_us: u64, words: &[&str]) -> Reply {
        self.expire(now_us);
        let mut keys = self.keys.borrow_mut();
        let reply = run(&mut keys, now_us, words);
        // No collection is empty.
        let is_empty = |kept: &Kept| match &kept.value {
            Value::Text(_) | Value::Sketch(_) => false,
            Value::Set(members) => members.is_empty(),
            Value::Scores(scores) => scores.is_empty(),
            Value::Fields(fields) => fields.is_empty(),
        };
        if let Some(key) = words.get(1)
            && keys.get(*key).is_some_and(is_empty)
        {
            keys.remove(*key);
        }
        reply
    }
}

fn run(keys: &mut BTreeMap<String, Kept>, now_us: u64, words: &[&str]) -> Reply {
    let text = |kept: Option<&Kept>| match kept.map(|kept| &kept.value) {
        None => Reply::Nil,
        Some(Value::Text(bytes)) => Reply::Bytes(bytes.clone()),
        Some(_) => Reply::Nil,
    };
    match words {
        ["GET", key] => text(keys.get(*key)),
        ["MGET", names @ ..] => Reply::List(names.iter().map(|key| text(keys.get(*key))).collect()),
        ["EXISTS", names @ ..] => {
            let there = names.iter().filter(|key| keys.contains_key(**key));
            Reply::Int(there.count() as i64)
        }
        ["DEL", names @ ..] => {
            let gone = names.iter().filter(|key| keys.remove(**key).is_some());
            Reply::Int(gone.count() as i64)
        }
        ["PEXPIRE", key, ms] => match keys.get_mut(*key) {
            None => Reply::Int(0),
            Some(kept) => {
                kept.expires_us = Some(now_us + ms.parse::<u64>().unwrap() * 1000);
                Reply::Int(1)
            }
        },
        ["RENAMENX", from, to] => {
            if !keys.contains_key(*from) {
                return Reply::Error("ERR no such key".to_owned());
            }
            if keys.contains_key(*to) {
                return Reply::Int(0);
            }
            let kept = keys.remove(*from).unwrap();
            keys.insert((*to).to_owned(), kept);
            Reply::Int(1)
        }
        ["SET", key, value, options @ ..] => {
            let old = text(keys.get(*key));
            let expires_us = match options {
                ["PX", ms] => Some(now_us + ms.parse::<u64>().unwrap() * 1000),
                ["NX", "GET"] | [] => None,
                _ => return Reply::Error("ERR syntax error".to_owned()),
            };
            if options.contains(&"NX") && old != Reply::Nil {
                return old;
            }
            let value = Value::Text(value.as_bytes().to_vec());
            keys.insert((*key).to_owned(), Kept { value, expires_us });
            match options.contains(&"GET") {
                true => old,
                false => Reply::Bytes(b"OK".to_vec()),
            }
        }
        ["SETBIT", key, bit, "1"] => {
            let bytes = of!(keys, key, Text);
            let bit: usize = bit.parse().unwrap();
            bytes.resize(bytes.len().max(bit / 8 + 1), 0);
            let old = bytes[bit / 8] >> (7 - bit % 8) & 1;
            bytes[bit / 8] |= 0x80 >> (bit % 8);
            Reply::Int(i64::from(old))
        }
        ["SADD", key, members @ ..] => {
            let set = of!(keys, key, Set);
            let new = members
                .iter()
                .filter(|member| set.insert((**member).to_owned()));
            Reply::Int(new.count() as i64)
        }
        ["SREM", key, member] => Reply::Int(i64::from(of!(keys, key, Set).remove(*member))),
        ["SCARD", key] => Reply::Int(of!(keys, key, Set).len() as i64),
        ["SISMEMBER", key, member] => Reply::Int(i64::from(of!(keys, key, Set).contains(*member))),
        ["PFADD", key, member] => Reply::Int(i64::from(
            of!(keys, key, Sketch).insert((*member).to_owned()),
        )),
        ["PFCOUNT", names @ ..] => {
            let mut all = BTreeSet::new();
            for key in names {
                match keys.get(*key).map(|kept| &kept.value) {
                    None => {}
                    Some(Value::Sketch(members)) => all.extend(members.clone()),
                    Some(_) => return Reply::Error(WRONG.to_owned()),
                }
            }
            Reply::Int(all.len() as i64)
        }
        ["ZADD", key, "NX", "0", member] => {
            let scores = of!(keys, key, Scores);
            let is_new = !scores.contains_key(*member);
            scores.entry((*member).to_owned()).or_insert(0);
            Reply::Int(i64::from(is_new))
        }
        ["ZADD", key, "XX", "GT", pairs @ ..] => {
            let scores = of!(keys, key, Scores);
            for pair in pairs.chunks(2) {
                if let Some(score) = scores.get_mut(pair[1]) {
                    *score = (*score).max(pair[0].parse().unwrap());
                }
            }
            Reply::Int(0)
        }
        ["ZREM", key, members @ ..] => {
            let scores = of!(keys, key, Scores);
            let gone = members
                .iter()
                .filter(|member| scores.remove(**member).is_some());
            Reply::Int(gone.count() as i64)
        }
        ["ZSCORE", key, member] => match of!(keys, key, Scores).get(*member) {
            Some(score) => bulk(score),
            None => Reply::Nil,
        },
        // By a hash, so that what is added or taken away meanwhile moves no other; four at a
        // time, and the last of the page before once more: a scan may bring one twice.
        ["ZSCAN", key, cursor, "COUNT", _] => {
            let scores = of!(keys, key, Scores);
            let from: u64 = cursor.parse().unwrap();
            let mut order: Vec<(u64, &String, &u64)> = scores
                .iter()
                .map(|(member, score)| (place(member), member, score))
                .collect();
            order.sort();
            let begin = order.partition_point(|(place, ..)| *place < from);
            let page = &order[begin..order.len().min(begin + 4)];
            let twice = order[..begin].last();
            let found = twice.into_iter().chain(page);
            let found = found.flat_map(|(_, member, score)| [bulk(member), bulk(score)]);
            let next = order.get(begin + 4).map_or(0, |(place, ..)| *place);
            Reply::List(vec![bulk(next), Reply::List(found.collect())])
        }
        ["HSET", key, pairs @ ..] => {
            let fields = of!(keys, key, Fields);
            for pair in pairs.chunks(2) {
                fields.insert(pair[0].to_owned(), pair[1].to_owned());
            }
            Reply::Int(1)
        }
        ["HGET", key, field] => match of!(keys, key, Fields).get(*field) {
            Some(value) => bulk(value),
            None => Reply::Nil,
        },
        [name, ..] => Reply::Error(format!("ERR unknown command or arguments for '{name}'")),
        [] => Reply::Error("ERR empty command".to_owned()),
    }
}

fn place(member: &str) -> u64 {
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    (member.bytes().fold(0xcbf2_9ce4_8422_2325, hash) >> 1) | 1
}
