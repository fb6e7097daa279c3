//! Hashes of the Redis in memory: fields of a key, in the order of their names.

use std::cell::RefCell;
use std::collections::BTreeMap;

use edgeweir::redis::Reply;

#[derive(Default)]
struct Hash {
    fields: BTreeMap<String, String>,
    expires_us: Option<u64>,
}

#[derive(Default)]
pub struct Hashes(RefCell<BTreeMap<String, Hash>>);

impl Hashes {
    pub fn clear(&self) {
        self.0.borrow_mut().clear();
    }

    pub fn fields(&self, key: &str) -> Option<Vec<(String, String)>> {
        let hashes = self.0.borrow();
        let fields = hashes.get(key)?.fields.iter();
        Some(
            fields
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        )
    }

    pub fn expire(&self, now_us: u64) {
        let is_there = |hash: &Hash| hash.expires_us.is_none_or(|at| at > now_us);
        self.0.borrow_mut().retain(|_, hash| is_there(hash));
    }

    /// Of every hash, when it expires.
    pub fn expiries(&self) -> Vec<(String, Option<u64>)> {
        let hashes = self.0.borrow();
        let expiry = |(key, hash): (&String, &Hash)| (key.clone(), hash.expires_us);
        hashes.iter().map(expiry).collect()
    }

    /// `None`: the command is none of these, or its key is no hash.
    pub fn answer(&self, now_us: u64, words: &[&str]) -> Option<Reply> {
        let mut hashes = self.0.borrow_mut();
        Some(match words {
            ["HSET", key, pairs @ ..] if !pairs.is_empty() && pairs.len() % 2 == 0 => {
                let hash = hashes.entry((*key).to_owned()).or_default();
                let before = hash.fields.len();
                for pair in pairs.chunks(2) {
                    hash.fields.insert(pair[0].to_owned(), pair[1].to_owned());
                }
                Reply::Int((hash.fields.len() - before) as i64)
            }
            ["HDEL", key, fields @ ..] if !fields.is_empty() => {
                let Some(hash) = hashes.get_mut(*key) else {
                    return Some(Reply::Int(0));
                };
                let gone = fields
                    .iter()
                    .filter(|field| hash.fields.remove(**field).is_some());
                let gone = gone.count() as i64;
                if hash.fields.is_empty() {
                    hashes.remove(*key);
                }
                Reply::Int(gone)
            }
            ["HMGET", key, names @ ..] if !names.is_empty() => {
                let fields = hashes.get(*key).map(|hash| &hash.fields);
                let found = names.iter().map(|name: &&str| -> Option<Reply> {
                    Some(Reply::Bytes(fields?.get(*name)?.clone().into_bytes()))
                });
                Reply::List(found.map(|value| value.unwrap_or(Reply::Nil)).collect())
            }
            ["DEL", key] => {
                hashes.remove(*key)?;
                Reply::Int(1)
            }
            ["HGETALL", key] => {
                let bytes = |text: &String| Reply::Bytes(text.clone().into_bytes());
                let fields = hashes.get(*key).map(|hash| &hash.fields);
                let pairs = fields.into_iter().flatten();
                Reply::List(
                    pairs
                        .flat_map(|(field, value)| [bytes(field), bytes(value)])
                        .collect(),
                )
            }
            ["PEXPIRE", key, ttl_ms] => {
                let hash = hashes.get_mut(*key)?;
                hash.expires_us = Some(now_us + ttl_ms.parse::<u64>().ok()? * 1000);
                Reply::Int(1)
            }
            _ => return None,
        })
    }
}
