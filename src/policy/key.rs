//! The query parameters that count, and keys and tags with their values in them.
//!
//! Same page, same key: order, repetition and unlisted parameters of a query change
//! neither the key nor what the origin is asked. No input can forge another key.

use std::fmt::Write as _;

use md5::{Digest, Md5};

use super::bounds::{
    MAX_POINTED_BYTES, MAX_POINTED_VALUES, MAX_RENDERED_BYTES, MAX_SELECTED_BYTES,
};
use super::percent::{decode, encode_component};
use super::template::PathValues;
use super::types::{CacheRule, Piece, Template};
use edgeweir_json::Value;

/// The listed parameters of one request, in the policy's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// Decoded; `None`: neither there nor defaulted.
    parameters: Vec<(String, Option<String>)>,
}

impl Selected {
    #[inline]
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.parameters.iter().find(|(listed, _)| listed == name)?;
        value.as_deref()
    }

    #[inline]
    fn is_listed(&self, name: &str) -> bool {
        self.parameters.iter().any(|(listed, _)| listed == name)
    }

    /// What the origin gets: those that are there or have a default.
    pub fn query_string(&self) -> String {
        let mut out = String::new();
        for (name, value) in &self.parameters {
            let Some(value) = value else { continue };
            if !out.is_empty() {
                out.push('&');
            }
            out.push_str(name);
            out.push('=');
            out.push_str(&encode_component(value));
        }
        out
    }

    /// `{hash}`: lower-case hex MD5 of the query string (plan 2, search keys).
    pub fn hash(&self) -> String {
        let digest = Md5::digest(self.query_string());
        digest
            .iter()
            .fold(String::with_capacity(32), |mut hex, byte| {
                // Writing to a String cannot fail.
                let _ = write!(hex, "{byte:02x}");
                hex
            })
    }
}

impl CacheRule {
    /// The listed parameters of a query, read as forms are; the first of a repeated
    /// one counts. `None` when a listed value is not valid or all are too long: such
    /// a request bypasses the cache.
    #[inline]
    pub fn select(&self, raw_query: Option<&str>) -> Option<Selected> {
        let mut parameters: Vec<(String, Option<String>)> = self
            .query
            .iter()
            .map(|listed| (listed.name.clone(), None))
            .collect();
        for pair in raw_query.into_iter().flat_map(|query| query.split('&')) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(name) = decode(name, true) else {
                continue;
            };
            let listed = parameters.iter_mut().find(|(listed, _)| *listed == name);
            if let Some((_, found @ None)) = listed {
                *found = Some(decode(value, true)?);
            }
        }
        for ((_, value), listed) in parameters.iter_mut().zip(&self.query) {
            if value.is_none() {
                value.clone_from(&listed.default);
            }
        }
        let selected = Selected { parameters };
        (selected.query_string().len() <= MAX_SELECTED_BYTES).then_some(selected)
    }
}

/// What the placeholders of a template stand for.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    pub path: &'a PathValues,
    pub selected: Option<&'a Selected>,
    /// The verified user.
    pub user: Option<&'a str>,
    /// The request's JSON.
    pub body: Option<&'a Value<'a>>,
    /// The answer's JSON.
    pub response: Option<&'a Value<'a>>,
}

impl Values<'_> {
    #[inline]
    fn path_or_query(&self, name: &str) -> Option<String> {
        if let Some(value) = self.path.get(name) {
            return Some(encode_component(value));
        }
        let selected = self.selected.filter(|selected| selected.is_listed(name))?;
        Some(match selected.get(name) {
            None => String::new(),
            // No encoded value is a lone `%`, so an empty parameter is not an absent one.
            Some("") => "%".to_owned(),
            Some(value) => encode_component(value),
        })
    }
}

impl Template {
    #[inline]
    fn one(piece: &Piece, values: &Values<'_>) -> Option<String> {
        let pointed = |json: Option<&Value<'_>>, pointer| {
            let text = scalar(json?.pointer(pointer)?)?;
            Some(encode_component(&text))
        };
        match piece {
            Piece::Text(text) => Some(text.clone()),
            Piece::Value(name) => values.path_or_query(name),
            Piece::Hash => Some(values.selected?.hash()),
            Piece::User => plain(values.user?),
            Piece::Body(pointer) => pointed(values.body, pointer),
            Piece::Response(pointer) => pointed(values.response, pointer),
        }
    }

    /// The text with every value encoded; `None` when a value is not there, or is not
    /// of a kind or length that keys are made of.
    #[inline]
    pub fn render(&self, values: &Values<'_>) -> Option<String> {
        let mut out = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                piece => out.push_str(&Self::one(piece, values)?),
            }
            if out.len() > MAX_RENDERED_BYTES {
                return None;
            }
        }
        Some(out)
    }

    /// The same for templates that may point at lists: a text for each value of a list,
    /// none for an empty one, and `None` for more than `MAX_POINTED_VALUES` texts.
    #[inline]
    pub fn render_each(&self, values: &Values<'_>) -> Option<Vec<String>> {
        let mut texts = vec![String::new()];
        for piece in &self.pieces {
            let (json, pointer) = match piece {
                Piece::Body(pointer) => (values.body, pointer),
                Piece::Response(pointer) => (values.response, pointer),
                piece => {
                    let text = Self::one(piece, values)?;
                    texts.iter_mut().for_each(|before| before.push_str(&text));
                    continue;
                }
            };
            let found = json?.pointer(pointer)?;
            let found = found.as_array().unwrap_or(std::slice::from_ref(found));
            if texts.len() * found.len() > MAX_POINTED_VALUES {
                return None;
            }
            let mut longer = Vec::new();
            for value in found {
                let text = encode_component(&scalar(value)?);
                longer.extend(texts.iter().map(|before| [before, text.as_str()].concat()));
            }
            texts = longer;
        }
        let fits = texts.iter().all(|text| text.len() <= MAX_RENDERED_BYTES);
        fits.then_some(texts)
    }
}

/// A value that keys are made of, as text; an empty one says no more than an absent one.
pub fn scalar(value: &Value<'_>) -> Option<String> {
    let text = match value {
        Value::String(text) => text.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Bool(boolean) => boolean.to_string(),
        _ => return None,
    };
    (1..=MAX_POINTED_BYTES)
        .contains(&text.len())
        .then_some(text)
}

/// An empty value says no more than an absent one.
fn plain(text: &str) -> Option<String> {
    (1..=MAX_POINTED_BYTES)
        .contains(&text.len())
        .then(|| encode_component(text))
}
