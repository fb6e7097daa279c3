//! Header fields as the platform takes them.
//!
//! Answers of one kind have the same names in the same order, and most of their values too. So
//! what was made for the last one is kept, and only the values that have changed cross the
//! border: the platform copies a `Headers` object in less than half the time in which it reads
//! a record.

use std::cell::RefCell;

use wasm_bindgen::JsValue;
use web_sys::Response;

use super::glue;
use crate::json::write_text;

type Fields<'f> = [(&'f str, &'f str)];

/// Kinds of answers and trips that are kept, and the bytes of each one's values.
const MAX_KEPT: usize = 8;
const MAX_KEPT_BYTES: usize = 4 * 1024;

struct Kept {
    fields: Vec<(String, String)>,
    headers: JsValue,
}

thread_local! {
    /// What was used last is last.
    static KEPT: RefCell<Vec<Kept>> = const { RefCell::new(Vec::new()) };
}

/// Fields of what the edge says itself.
pub struct Own {
    fields: JsValue,
    /// Of fields that are kept, what they are now, a line for each name and each value.
    changes: String,
}

impl Own {
    /// An answer with them.
    pub fn respond(&self, status: u16, body: &JsValue) -> Result<Response, JsValue> {
        let changes = (!self.changes.is_empty()).then_some(self.changes.as_str());
        glue::respond(status, &self.fields, changes, body).inspect_err(|_| forget())
    }

    /// The fields as the platform takes them. It reads them at once and keeps nothing of it.
    pub fn changed(self) -> Result<JsValue, JsValue> {
        if !self.changes.is_empty() {
            glue::set_fields(&self.fields, &self.changes).inspect_err(|_| forget())?;
        }
        Ok(self.fields)
    }
}

impl From<JsValue> for Own {
    fn from(fields: JsValue) -> Self {
        Self {
            fields,
            changes: String::new(),
        }
    }
}

/// What is refused leaves a mixture.
fn forget() {
    KEPT.with_borrow_mut(Vec::clear);
}

/// The answer or the trip is to be made before others' fields are asked for: those may be the same.
pub fn own(fields: &Fields<'_>) -> Result<Own, JsValue> {
    let bytes: usize = fields.iter().map(|(_, value)| value.len()).sum();
    // What a visitor alone may know is kept nowhere.
    let is_private = fields.iter().any(|(name, _)| *name == "set-cookie");
    // What has changed goes as lines. The platform lets none of these into a name.
    let has_lines = fields.iter().any(|(_, value)| value.contains('\n'));
    if bytes > MAX_KEPT_BYTES || is_private || has_lines {
        return Ok(any(fields).into());
    }
    KEPT.with_borrow_mut(|kept| {
        // What was used last is looked at first.
        if let Some(place) = kept.iter().rposition(|kept| kept.has_names_of(fields)) {
            if place + 1 < kept.len() {
                let known = kept.remove(place);
                kept.push(known);
            }
            let known = kept.last_mut().map(|known| Own {
                changes: known.change(fields),
                fields: known.headers.clone(),
            });
            return Ok(known.unwrap_or_else(|| any(fields).into()));
        }
        if !is_record(fields) {
            return Ok(any(fields).into());
        }
        let headers = JsValue::from(glue::new_headers(&json(fields))?);
        if kept.len() >= MAX_KEPT {
            kept.remove(0);
        }
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        kept.push(Kept {
            fields: fields.iter().map(owned).collect(),
            headers: headers.clone(),
        });
        Ok(headers.into())
    })
}

impl Kept {
    fn has_names_of(&self, fields: &Fields<'_>) -> bool {
        let mut pairs = self.fields.iter().zip(fields);
        self.fields.len() == fields.len() && pairs.all(|((known, _), (name, _))| known == name)
    }

    /// Takes the values; those that have changed.
    fn change(&mut self, fields: &Fields<'_>) -> String {
        let mut lines = String::new();
        for ((_, known), (name, value)) in self.fields.iter_mut().zip(fields) {
            if known != value {
                for line in [name, value] {
                    lines.push_str(if lines.is_empty() { "" } else { "\n" });
                    lines.push_str(line);
                }
                known.clear();
                known.push_str(value);
            }
        }
        lines
    }
}

/// Of whatever comes.
pub fn any(fields: &Fields<'_>) -> JsValue {
    glue::parse(&json(fields))
}

/// No name comes twice.
fn is_record(fields: &Fields<'_>) -> bool {
    let mut names = fields.iter().map(|(name, _)| name).enumerate();
    names.all(|(at, name)| fields.iter().take(at).all(|(other, _)| other != name))
}

/// A record, or a list of pairs when a name comes twice.
fn json(fields: &Fields<'_>) -> String {
    let [begin, next, between, end, last]: [&[u8]; 5] = match is_record(fields) {
        true => [b"{", b",", b":", b"", b"}"],
        false => [b"[[", b",[", b",", b"]", b"]"],
    };
    let mut json = Vec::with_capacity(512);
    for (name, value) in fields {
        json.extend_from_slice(if json.is_empty() { begin } else { next });
        write_text(name, &mut json);
        json.extend_from_slice(between);
        write_text(value, &mut json);
        json.extend_from_slice(end);
    }
    json.extend_from_slice(if json.is_empty() { b"{}" } else { last });
    // What is written is UTF-8.
    String::from_utf8(json).unwrap_or_default()
}
