//! The Upstash REST codec: a batch to its JSON body, an answer's JSON to replies.
//!
//! It knows nothing of HTTP, time or tokens. Every string of an answer is base64
//! (`Upstash-Encoding: base64`) except the literal `OK`, which is no base64 and so
//! never ambiguous; errors are plain text. What an answer makes this isolate hold
//! is bounded in depth and in number of values, and nothing but a whole, well-formed
//! answer with one reply per command becomes replies.

use serde_json::error::Category;

use super::known::Known;
use super::{Batch, Command, Reply, Word, plain};
use crate::base64;
use crate::json::{Value, write_text};

/// Upstash takes requests of at most 10 MB on its smallest plans.
pub const MAX_REQUEST_BYTES: usize = 10_000_000;

/// Fifteen entries of a composed page at 64 KB take 1.3 MB as base64 and twelve of
/// the largest allowed (1 MB) take 16 MB; with the decoded copy that is 28 MB of the
/// 128 MB that an isolate has.
pub const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// The deepest reply in use is two lists deep (XRANGE inside EXEC is four).
const MAX_DEPTH: u32 = 8;

/// A list of zeros takes 2 bytes each as JSON and 32 as a tree and as replies: without
/// this an answer of 16 MB would grow to 512 MB.
const MAX_VALUES: usize = 100_000;

/// Redis may quote arguments in an error; a name and a reason fit in this.
const MAX_ERROR_BYTES: usize = 256;

/// An answer that is well-formed.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// One reply per command.
    Replies(Vec<Reply>),
    /// One error for the whole batch.
    Refused(String),
}

/// Why an answer is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// JSON that ends too early.
    Truncated,
    NotJson,
    /// JSON, but no list of replies: another type, no base64, too deep, too many values.
    Shape,
    /// Fewer or more replies than commands.
    Count,
}

impl DecodeError {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Truncated => "the answer ends too early",
            Self::NotJson => "the answer is not JSON",
            Self::Shape => "the answer is no list of replies",
            Self::Count => "the answer has another number of replies than commands",
        }
    }
}

/// The body of `/pipeline` and `/multi-exec`; `None` when it would be too large.
pub fn encode(batch: &Batch) -> Option<String> {
    let mut body = Vec::with_capacity(256);
    for command in &batch.commands {
        body.push(if body.is_empty() { b'[' } else { b',' });
        let mut separator = b'[';
        for word in command.words() {
            body.push(separator);
            separator = b',';
            match word {
                // Quoted it is no shorter: what is too long is not copied first.
                Word::Text(text) if body.len() + text.len() > MAX_REQUEST_BYTES => return None,
                Word::Text(text) => write_text(text, &mut body),
                Word::Int(number) => {
                    let mut digits = itoa::Buffer::new();
                    body.extend_from_slice(digits.format(*number).as_bytes());
                }
            }
        }
        body.push(b']');
    }
    if body.is_empty() {
        body.push(b'[');
    }
    body.push(b']');
    String::from_utf8(body)
        .ok()
        .filter(|body| body.len() <= MAX_REQUEST_BYTES)
}

/// Reads the answer to these commands, of which long values may be known.
pub fn decode_known(
    body: &[u8],
    commands: &[Command],
    known: &mut Known,
) -> Result<Decoded, DecodeError> {
    if !is_bounded(body) {
        return Err(DecodeError::Shape);
    }
    match plain::read(body, commands, known) {
        Some(replies) => Ok(Decoded::Replies(replies)),
        None => decode(body, commands.len()),
    }
}

/// Reads the answer to `commands` commands, however it is written.
pub fn decode(body: &[u8], commands: usize) -> Result<Decoded, DecodeError> {
    if !is_bounded(body) {
        return Err(DecodeError::Shape);
    }
    let answer = Value::read(body).map_err(|error| match error {
        Category::Eof => DecodeError::Truncated,
        _ => DecodeError::NotJson,
    })?;
    let decoded = match &answer {
        Value::Array(items) if items.len() != commands => return Err(DecodeError::Count),
        Value::Array(items) => items
            .iter()
            .map(item)
            .collect::<Option<_>>()
            .map(Decoded::Replies),
        answer => only_error(answer).map(Decoded::Refused),
    };
    decoded.ok_or(DecodeError::Shape)
}

/// Each value takes a byte at least, so that the answer of most trips need not be looked through.
fn is_bounded(body: &[u8]) -> bool {
    body.len() <= MAX_VALUES || most_values(body) <= MAX_VALUES
}

/// Each item of a list and each member of a table comes after one of these.
fn most_values(body: &[u8]) -> usize {
    let is_before = |byte: &&u8| matches!(byte, b'[' | b'{' | b',');
    body.iter().filter(is_before).count()
}

/// One item of the list: `{"result": …}` or `{"error": "…"}`.
fn item(json: &Value<'_>) -> Option<Reply> {
    match outcome(json)? {
        (Some(result), None) => reply(result, MAX_DEPTH),
        (None | Some(Value::Null), Some(error)) => Some(Reply::Error(error)),
        _ => None,
    }
}

/// `{"error": "…"}` and nothing that could be a result.
fn only_error(json: &Value<'_>) -> Option<String> {
    match outcome(json)? {
        (None, error) => error,
        _ => None,
    }
}

/// The result and the error of a table; `None` when it is none or says one twice.
fn outcome<'j>(json: &'j Value<'j>) -> Option<(Option<&'j Value<'j>>, Option<String>)> {
    let Value::Object(members) = json else {
        return None;
    };
    let (mut result, mut error) = (None, None);
    for (name, value) in members.iter() {
        match (name, value) {
            ("result", value) if result.is_none() => result = Some(value),
            ("error", Value::Null) if error.is_none() => {}
            ("error", Value::String(text)) if error.is_none() => {
                error = Some(cut(text, MAX_ERROR_BYTES).to_owned());
            }
            ("result" | "error", _) => return None,
            _ => {}
        }
    }
    Some((result, error))
}

/// Any value inside `result`.
fn reply(json: &Value<'_>, depth: u32) -> Option<Reply> {
    match json {
        Value::Null => Some(Reply::Nil),
        Value::Bool(_) => None,
        Value::Number(number) => number.as_i64().map(Reply::Int),
        Value::String(text) if text == "OK" => Some(Reply::Bytes(b"OK".to_vec())),
        Value::String(text) => base64::decode(text.as_bytes()).map(Reply::Bytes),
        Value::Array(items) => {
            let depth = depth.checked_sub(1)?;
            let replies = items.iter().map(|item| reply(item, depth));
            replies.collect::<Option<_>>().map(Reply::List)
        }
        Value::Object(_) => only_error(json).map(Reply::Error),
    }
}

/// At most `max_bytes` of a text, ending between two characters.
pub(super) fn cut(text: &str, max_bytes: usize) -> &str {
    (0..=max_bytes.min(text.len()))
        .rev()
        .find_map(|end| text.get(..end))
        .unwrap_or_default()
}
