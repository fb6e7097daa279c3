//! `POST /-/purge`: what is purged is never served again once it answers.

use super::{answer_json, bad, object};
use crate::cache::lookup::HTTP_KEYS;
use crate::cache::purge::Purge;
use crate::failure::Failure;
use crate::http::Response;
use crate::json::{Value, json};
use crate::names::Names;
use crate::policy::OWN_KEYS;
use crate::policy::percent::{decode, encode_component};
use crate::ports::Ports;
use crate::visit::Visit;
use crate::write;

/// Names in one purge call; each is up to two commands of one transaction.
const MAX_PURGED: usize = 1_000;
/// Upstash takes keys up to 32 KB; ours are never longer than this.
const MAX_NAME_BYTES: usize = 1_024;

pub async fn purge<P: Ports>(
    visit: &Visit<'_, P>,
    body: &[u8],
) -> Result<Response<P::Body>, Failure> {
    let mut purge = parse(body)?;
    let purged = json!({
        "keys": purge.keys.len(),
        "tags": purge.tags.len(),
        "prefixes": purge.prefixes.len(),
    });
    let mode = if purge.is_soft { "soft" } else { "hard" };
    let report = json!({ "purged": purged, "mode": mode });
    for names in [&mut purge.keys, &mut purge.tags, &mut purge.prefixes] {
        let encoded: Vec<String> = names.iter().map(|name| as_in_keys(name)).collect();
        names.extend(encoded);
    }
    if !purge.is_empty() && !write::confirm(visit, &purge).await {
        return Err(Failure::RedisUnavailable);
    }
    Ok(answer_json(&report))
}

fn parse(body: &[u8]) -> Result<Purge, Failure> {
    let mut purge = Purge::default();
    for (name, value) in object(body)?.iter() {
        match (name, value) {
            ("keys", value) => purge.keys = names("keys", value)?,
            ("tags", value) => purge.tags = names("tags", value)?,
            // None, as the empty lists beside it in the contract's example: it is never everything.
            ("prefix", Value::String(text)) if text.is_empty() => {}
            ("prefix", Value::String(text)) => drop(purge.prefixes.insert(prefix(text)?)),
            ("prefix", _) => return Err(bad_prefix()),
            ("mode", Value::String(mode)) if mode == "hard" => purge.is_soft = false,
            ("mode", Value::String(mode)) if mode == "soft" => purge.is_soft = true,
            ("mode", _) => return Err(bad("`mode` must be \"hard\" or \"soft\"")),
            _ => return Err(bad("known members are keys, tags, prefix and mode")),
        }
    }
    if purge.len() > MAX_PURGED {
        return Err(bad("at most 1000 keys and tags in one call"));
    }
    Ok(purge)
}

fn prefix(text: &str) -> Result<String, Failure> {
    let fits = text.len() <= MAX_NAME_BYTES && !text.chars().any(char::is_control);
    match fits {
        true => Ok(text.to_owned()),
        false => Err(bad_prefix()),
    }
}

fn bad_prefix() -> Failure {
    bad(&format!(
        "`prefix` must be a text of at most {MAX_NAME_BYTES} bytes without control characters"
    ))
}

fn names(member: &str, value: &Value<'_>) -> Result<Names, Failure> {
    value
        .as_array()
        .and_then(|items| {
            items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect::<Option<Names>>()
        })
        .filter(|names| {
            names.iter().all(|name| {
                !name.is_empty()
                    && name.len() <= MAX_NAME_BYTES
                    && (member != "keys" || !is_own(name) && !is_own(&as_in_keys(name)))
                    // An entry's own generation, or the log of prefixes: neither is a tag's.
                    && (member != "tags" || !name.starts_with("key:"))
            })
        })
        .ok_or_else(|| {
            bad(&format!(
                "`{member}` must be a list of strings of 1 to {MAX_NAME_BYTES} bytes, without the edge's own keys"
            ))
        })
}

/// Without its generation a meta record's body would pass for another service's.
fn is_own(key: &str) -> bool {
    key.split_once(':')
        .is_some_and(|(first, _)| OWN_KEYS.contains(&first))
}

/// The name with its values encoded as the policy's templates write them, for those
/// who send `search:a b`. As it was sent it is purged too.
fn as_in_keys(name: &str) -> String {
    if name.starts_with(HTTP_KEYS) {
        // A URL is as it is.
        return name.to_owned();
    }
    let encoded = |value: &str| {
        let plain = decode(value, false);
        encode_component(plain.as_deref().unwrap_or(value))
    };
    let values: Vec<String> = name.split(':').map(encoded).collect();
    values.join(":")
}
