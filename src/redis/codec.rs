//! The Upstash REST codec: a batch to its JSON body, an answer's JSON to replies.
//!
//! It knows nothing of HTTP, time or tokens. Every string of an answer is base64
//! (`Upstash-Encoding: base64`) except the literal `OK`, which is no base64 and so
//! never ambiguous; errors are plain text. What an answer makes this isolate hold
//! is bounded in depth and in number of values, and nothing but a whole, well-formed
//! answer with one reply per command becomes replies.

use std::cell::Cell;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::{Batch, Reply};

/// Upstash takes requests of at most 10 MB on its smallest plans.
pub const MAX_REQUEST_BYTES: usize = 10_000_000;

/// Fifteen entries of a composed page at 64 KB take 1.3 MB as base64 and twelve of
/// the largest allowed (1 MB) take 16 MB; with the decoded copy that is 28 MB of the
/// 128 MB that an isolate has.
pub const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// The deepest reply in use is two lists deep (XRANGE inside EXEC is four).
const MAX_DEPTH: u32 = 8;

/// A list of zeros takes 2 bytes each as JSON and 32 as replies: without this an
/// answer of 16 MB would grow to 256 MB.
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
    let mut bounded = Bounded(Vec::with_capacity(256));
    batch
        .commands
        .serialize(&mut serde_json::Serializer::new(&mut bounded))
        .ok()?;
    String::from_utf8(bounded.0).ok()
}

/// Stops a body at the bound instead of building all of it first.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_REQUEST_BYTES {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Reads the answer to `commands` commands.
pub fn decode(body: &[u8], commands: usize) -> Result<Decoded, DecodeError> {
    let values = Cell::new(MAX_VALUES);
    let mut json = serde_json::Deserializer::from_slice(body);
    let decoded = json
        .deserialize_any(AnswerVisitor {
            commands,
            values: &values,
        })
        .and_then(|decoded| json.end().map(|()| decoded))
        .map_err(|error| match error.classify() {
            serde_json::error::Category::Eof => DecodeError::Truncated,
            serde_json::error::Category::Data => DecodeError::Shape,
            _ => DecodeError::NotJson,
        })?;
    match decoded {
        Decoded::Replies(replies) if replies.len() != commands => Err(DecodeError::Count),
        decoded => Ok(decoded),
    }
}

struct AnswerVisitor<'a> {
    commands: usize,
    values: &'a Cell<usize>,
}

impl<'de> Visitor<'de> for AnswerVisitor<'_> {
    type Value = Decoded;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of replies")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Decoded, A::Error> {
        let mut replies = Vec::with_capacity(self.commands);
        while replies.len() < self.commands {
            match items.next_element_seed(ItemSeed(self.values))? {
                Some(reply) => replies.push(reply),
                None => return Ok(Decoded::Replies(replies)),
            }
        }
        // One reply too many is enough to know; the rest is read but not kept.
        if items.next_element::<IgnoredAny>()?.is_some() {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            replies.push(Reply::Nil);
        }
        Ok(Decoded::Replies(replies))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Decoded, A::Error> {
        read_error(map).map(Decoded::Refused)
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Field {
    Result,
    Error,
    #[serde(other)]
    Other,
}

/// One item of the list: `{"result": …}` or `{"error": "…"}`.
struct ItemSeed<'a>(&'a Cell<usize>);

impl<'de> DeserializeSeed<'de> for ItemSeed<'_> {
    type Value = Reply;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Reply, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ItemSeed<'_> {
    type Value = Reply;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a result or an error")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Reply, A::Error> {
        let mut result = None;
        let mut error: Option<ErrorText> = None;
        while let Some(field) = map.next_key()? {
            match field {
                Field::Result if result.is_none() => {
                    result = Some(map.next_value_seed(ReplySeed {
                        depth: MAX_DEPTH,
                        values: self.0,
                    })?);
                }
                Field::Error if error.is_none() => error = map.next_value()?,
                Field::Result | Field::Error => return Err(A::Error::custom("said twice")),
                Field::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        match (result, error) {
            (Some(reply), None) => Ok(reply),
            (None | Some(Reply::Nil), Some(error)) => Ok(Reply::Error(error.0)),
            _ => Err(A::Error::custom("neither a result nor an error")),
        }
    }
}

/// Any value inside `result`.
struct ReplySeed<'a> {
    depth: u32,
    values: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for ReplySeed<'_> {
    type Value = Reply;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Reply, D::Error> {
        let Some(left) = self.values.get().checked_sub(1) else {
            return Err(D::Error::custom("too many values"));
        };
        self.values.set(left);
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ReplySeed<'_> {
    type Value = Reply;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a Redis reply")
    }

    fn visit_unit<E: Error>(self) -> Result<Reply, E> {
        Ok(Reply::Nil)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Reply, E> {
        Ok(Reply::Int(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Reply, E> {
        i64::try_from(number)
            .map(Reply::Int)
            .map_err(|_| E::custom("an integer beyond 64 bits"))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Reply, E> {
        if text == "OK" {
            return Ok(Reply::Bytes(b"OK".to_vec()));
        }
        STANDARD
            .decode(text)
            .map(Reply::Bytes)
            .map_err(|_| E::custom("not base64"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Reply, A::Error> {
        let Some(depth) = self.depth.checked_sub(1) else {
            return Err(A::Error::custom("too deep"));
        };
        let values = self.values;
        let mut replies = Vec::new();
        while let Some(reply) = items.next_element_seed(ReplySeed { depth, values })? {
            replies.push(reply);
        }
        Ok(Reply::List(replies))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Reply, A::Error> {
        read_error(map).map(Reply::Error)
    }
}

/// `{"error": "…"}` and nothing that could be a result.
fn read_error<'de, A: MapAccess<'de>>(mut map: A) -> Result<String, A::Error> {
    let mut error: Option<ErrorText> = None;
    while let Some(field) = map.next_key()? {
        match field {
            Field::Error if error.is_none() => error = map.next_value()?,
            Field::Other => drop(map.next_value::<IgnoredAny>()?),
            Field::Result | Field::Error => return Err(A::Error::custom("no single error")),
        }
    }
    error
        .map(|error| error.0)
        .ok_or_else(|| A::Error::custom("no error"))
}

/// An error's text, cut to its bound while it is read.
struct ErrorText(String);

impl<'de> Deserialize<'de> for ErrorText {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Cut;

        impl Visitor<'_> for Cut {
            type Value = ErrorText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the text of an error")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ErrorText, E> {
                Ok(ErrorText(cut(text, MAX_ERROR_BYTES).to_owned()))
            }
        }

        json.deserialize_str(Cut)
    }
}

/// At most `max_bytes` of a text, ending between two characters.
pub(super) fn cut(text: &str, max_bytes: usize) -> &str {
    (0..=max_bytes.min(text.len()))
        .rev()
        .find_map(|end| text.get(..end))
        .unwrap_or_default()
}
