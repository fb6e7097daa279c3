//! Hashes and counted sorted sets of the Redis in memory, kept as the bytes of a value: a
//! kind, then names and texts, each with a zero byte behind it.

use std::collections::BTreeMap;

use edgeweir::redis::Reply;

pub fn knows(command: &str) -> bool {
    kind(command).is_some()
}

fn kind(command: &str) -> Option<&'static str> {
    match command {
        "HSET" | "HDEL" | "HMGET" | "HGETALL" => Some("hash"),
        "ZINCRBY" | "ZREVRANGE" | "ZREMRANGEBYRANK" => Some("scores"),
        _ => None,
    }
}

type Entries = BTreeMap<String, String>;

/// Runs one command on a key's value; `None` is a key that is not there.
pub fn run(bytes: Option<Vec<u8>>, command: &str, args: &[&str]) -> (Option<Vec<u8>>, Reply) {
    let kind = kind(command).unwrap();
    let Some(mut entries) = read(bytes.as_deref(), kind) else {
        let wrong = "WRONGTYPE Operation against a key holding the wrong kind of value";
        return (bytes, Reply::Error(wrong.to_owned()));
    };
    let reply = match (command, args) {
        ("HSET", pairs) if !pairs.is_empty() && pairs.len() % 2 == 0 => {
            let set = pairs.chunks(2);
            let new = set.map(|pair| entries.insert(pair[0].to_owned(), pair[1].to_owned()));
            Reply::Int(new.filter(Option::is_none).count() as i64)
        }
        ("HDEL", names) if !names.is_empty() => {
            let gone = names.iter().filter(|name| entries.remove(**name).is_some());
            Reply::Int(gone.count() as i64)
        }
        ("HMGET", names) if !names.is_empty() => {
            let found = names.iter().map(|name| match entries.get(*name) {
                Some(value) => bulk(value),
                None => Reply::Nil,
            });
            Reply::List(found.collect())
        }
        ("HGETALL", []) => {
            let pairs = entries.iter();
            Reply::List(pairs.flat_map(|(k, v)| [bulk(k), bulk(v)]).collect())
        }
        ("ZINCRBY", [by, member]) => {
            let score = entries.get(*member).map_or(0, |score| number(score)) + number(by);
            entries.insert((*member).to_owned(), score.to_string());
            bulk(&score.to_string())
        }
        ("ZREVRANGE", [first, last, "WITHSCORES"]) => {
            let ranked = ranked(&entries);
            let range = range(ranked.len(), first, last);
            let members = ranked.iter().rev().skip(range.start).take(range.len());
            Reply::List(
                members
                    .flat_map(|member| [bulk(member), bulk(&entries[member])])
                    .collect(),
            )
        }
        ("ZREMRANGEBYRANK", [first, last]) => {
            let ranked = ranked(&entries);
            let range = range(ranked.len(), first, last);
            let count = range.len() as i64;
            ranked[range]
                .iter()
                .for_each(|member| drop(entries.remove(member)));
            Reply::Int(count)
        }
        _ => Reply::Error("ERR wrong number of arguments".to_owned()),
    };
    (write(kind, &entries), reply)
}

/// Lowest score first, equal ones by their bytes.
fn ranked(entries: &Entries) -> Vec<String> {
    let mut members: Vec<&String> = entries.keys().collect();
    members.sort_by_key(|member| (number(&entries[*member]), *member));
    members.into_iter().cloned().collect()
}

/// Of a length, from the first to the last, both included; negative ones from the end.
fn range(len: usize, first: &str, last: &str) -> std::ops::Range<usize> {
    let place = |text: &str| match number(text) {
        place if place < 0 => len as i64 + place,
        place => place,
    };
    let end = (place(last) + 1).clamp(0, len as i64) as usize;
    (place(first).clamp(0, end as i64) as usize)..end
}

fn number(text: &str) -> i64 {
    text.parse().unwrap()
}

fn bulk(text: &str) -> Reply {
    Reply::Bytes(text.as_bytes().to_vec())
}

fn read(bytes: Option<&[u8]>, kind: &str) -> Option<Entries> {
    let Some(bytes) = bytes else {
        return Some(Entries::new());
    };
    let text = std::str::from_utf8(bytes).ok()?;
    let mut parts = text.strip_suffix('\0')?.split('\0');
    if parts.next() != Some(kind) {
        return None;
    }
    let mut entries = Entries::new();
    while let Some(name) = parts.next() {
        entries.insert(name.to_owned(), parts.next()?.to_owned());
    }
    Some(entries)
}

fn write(kind: &str, entries: &Entries) -> Option<Vec<u8>> {
    if entries.is_empty() {
        return None;
    }
    let mut text = format!("{kind}\0");
    for part in entries.iter().flat_map(|(name, value)| [name, value]) {
        text.push_str(part);
        text.push('\0');
    }
    Some(text.into_bytes())
}
