//! JSON as a tree: all that is read, answers of Redis, records, tokens and bodies, and
//! what the edge itself writes.
//!
//! One tree and one reader of bytes, because every type that reads itself is code in
//! the upload, and serde_json's own tree brings a map, a formatter and errors for each
//! type. Text is borrowed from the bytes where it can be. A table that is read keeps its
//! members in order, those of one name too: whether that is allowed, its reader says.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use serde_json::error::Category;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'t> {
    Null,
    Bool(bool),
    Number(Number),
    String(Cow<'t, str>),
    Array(Vec<Value<'t>>),
    Object(Map<'t>),
}

/// The members of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Map<'t>(Vec<(Cow<'t, str>, Value<'t>)>);

impl<'t> Map<'t> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Of those of one name, the last.
    pub fn get(&self, name: &str) -> Option<&Value<'t>> {
        let (_, value) = self.0.iter().rfind(|(member, _)| member == name)?;
        Some(value)
    }

    pub fn contains_key(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Into a table that is written, where the members are in the order of their names.
    pub fn insert(&mut self, name: &'static str, value: Value<'t>) {
        let before = self.0.partition_point(|(member, _)| &**member < name);
        self.0.insert(before, (Cow::Borrowed(name), value));
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value<'t>)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }
}

impl<'t> Value<'t> {
    /// All of `bytes`; on an error, whether they end too early or are no JSON.
    pub fn read(bytes: &'t [u8]) -> Result<Self, Category> {
        serde_json::from_slice(bytes).map_err(|error| error.classify())
    }

    /// A member of a table.
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.as_object()?.get(name)
    }

    /// What an RFC 6901 pointer points at.
    pub fn pointer(&self, pointer: &str) -> Option<&Self> {
        if pointer.is_empty() {
            return Some(self);
        }
        let names = pointer.strip_prefix('/')?.split('/');
        names.into_iter().try_fold(self, |at, name| match at {
            Value::Object(map) => map.get(&unescaped(name)),
            // Section 4: no leading zeros.
            Value::Array(items) if name == "0" || !name.starts_with(['0', '+']) => {
                items.get(name.parse::<usize>().ok()?)
            }
            _ => None,
        })
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Number(number) => number.as_u64(),
            _ => None,
        }
    }

    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Number(number) => number.as_f64(),
            _ => None,
        }
    }

    pub fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    pub fn as_object(&self) -> Option<&Map<'t>> {
        match self {
            Self::Object(map) => Some(map),
            _ => None,
        }
    }

    /// As JSON, without a space.
    pub fn text(&self) -> String {
        let mut out = Vec::new();
        self.write(&mut out);
        // What is written is UTF-8.
        String::from_utf8(out).unwrap_or_default()
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Self::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Self::String(text) => write_text(text, out),
            Self::Array(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    item.write(out);
                }
                out.push(b']');
            }
            Self::Object(Map(members)) => {
                out.push(b'{');
                for (index, (name, value)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    write_text(name, out);
                    out.push(b':');
                    value.write(out);
                }
                out.push(b'}');
            }
        }
    }
}

/// Text in quotes.
pub fn write_text(text: &str, out: &mut Vec<u8>) {
    // Writing text to memory cannot fail.
    let _ = serde_json::to_writer(out, text);
}

/// The name that RFC 6901 writes with `~0` for `~` and `~1` for `/`.
pub fn unescaped(name: &str) -> String {
    let mut parts = name.split('~');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (escaped, rest) = match (part.strip_prefix('0'), part.strip_prefix('1')) {
            (_, Some(rest)) => ('/', rest),
            (Some(rest), None) => ('~', rest),
            (None, None) => ('~', part),
        };
        out.push(escaped);
        out.push_str(rest);
    }
    out
}

/// Makes a table of `{ "name": value, … }`, or a value; a table in a table is made by
/// this too.
#[macro_export]
macro_rules! json {
    ({ $($name:literal: $value:expr),* $(,)? }) => {
        $crate::Value::from([$(($name, $crate::Value::from($value))),*])
    };
    ($value:expr) => {
        $crate::Value::from($value)
    };
}

impl From<&str> for Value<'_> {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<&String> for Value<'_> {
    fn from(text: &String) -> Self {
        text.clone().into()
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::String(Cow::Owned(text))
    }
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Self::Number(number.into())
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        u64::from(number).into()
    }
}

impl From<u16> for Value<'_> {
    fn from(number: u16) -> Self {
        u64::from(number).into()
    }
}

impl From<usize> for Value<'_> {
    fn from(number: usize) -> Self {
        (number as u64).into()
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl<'t, V: Into<Value<'t>>> From<Vec<V>> for Value<'t> {
    fn from(items: Vec<V>) -> Self {
        Self::Array(items.into_iter().map(Into::into).collect())
    }
}

impl<'t, const N: usize> From<[(&'static str, Value<'t>); N]> for Value<'t> {
    fn from(members: [(&'static str, Value<'t>); N]) -> Self {
        let mut map = Map::new();
        for (name, value) in members {
            map.insert(name, value);
        }
        Self::Object(map)
    }
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(Tree)
    }
}

/// Takes whatever comes, so that no error about types is ever made.
struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value<'de>, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value<'de>, E> {
        // JSON has no number that is not finite.
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::String(Cow::Owned(text.to_owned())))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::String(Cow::Borrowed(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value<'de>, A::Error> {
        let mut table = Vec::new();
        while let Some((name, value)) = members.next_entry()? {
            // A name is always text.
            if let Value::String(name) = name {
                table.push((name, value));
            }
        }
        Ok(Value::Object(Map(table)))
    }
}
