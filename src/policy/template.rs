//! Paths and texts with placeholders: reading them, and writing a path for its values.
//!
//! Values are always encoded, so two different sets of values never give the same
//! text: between two placeholders of a template stands a character that no encoded
//! value can contain.

use super::bounds::{MAX_NAME_BYTES, MAX_PATH_BYTES, MAX_SEGMENTS, MAX_TEMPLATE_BYTES};
use super::error::nearest;
use super::field::{list, quote};
use super::percent::{is_path_character, occurs_in_component, push};
use super::target::normalise;
use super::types::{PathTemplate, Piece, Segment, Template};

/// The values of a path's placeholders. They are few: a list is searched as fast as a
/// map is built, and its code is smaller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathValues(Vec<(String, String)>);

impl PathValues {
    /// Of a name that is not there yet.
    pub fn insert(&mut self, name: String, value: String) {
        self.0.push((name, value));
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        Some(value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What is wrong, and what to do.
pub type Complaint = (String, String);

fn complain<T>(message: impl Into<String>, help: impl Into<String>) -> Result<T, Complaint> {
    Err((message.into(), help.into()))
}

impl PathTemplate {
    /// Reads `/api/{name}/{rest...}`.
    pub fn parse(text: &str) -> Result<Self, Complaint> {
        let Some(rest) = text.strip_prefix('/') else {
            return complain(
                format!("the path {} does not begin with `/`", quote(text)),
                "write it from the root",
            );
        };
        if text.len() > MAX_PATH_BYTES {
            return complain(
                "the path is too long",
                format!("at most {MAX_PATH_BYTES} bytes are possible"),
            );
        }
        if text.contains(['?', '#']) {
            return complain(
                format!("the path {} has a query or fragment", quote(text)),
                "list query parameters in the `query` of `cache`",
            );
        }
        let parts: Vec<&str> = rest.split('/').collect();
        if parts.len() > MAX_SEGMENTS {
            return complain(
                format!("the path has {} segments", parts.len()),
                format!("at most {MAX_SEGMENTS} are possible"),
            );
        }
        let last = parts.len() - 1;
        let mut path = Self {
            segments: Vec::with_capacity(parts.len()),
        };
        for (index, part) in parts.into_iter().enumerate() {
            let segment = segment(part, index == last)?;
            if let Segment::One(name) | Segment::Rest(name) = &segment
                && path.placeholders().any(|known| known == name)
            {
                return complain(
                    format!("`{{{name}}}` is in the path twice"),
                    "give each its own name",
                );
            }
            path.segments.push(segment);
        }
        if matches!(path.segments.first(), Some(Segment::Literal(first)) if first == "-") {
            return complain("paths under `/-/` are Edgeweir's own", "use another path");
        }
        Ok(path)
    }

    pub fn placeholders(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Literal(_) => None,
            Segment::One(name) | Segment::Rest(name) => Some(name.as_str()),
        })
    }

    /// The path in normal form for these values; `None` when one is not there or
    /// cannot stand in a path.
    #[inline]
    pub fn render(&self, values: &PathValues) -> Option<String> {
        let mut out = String::with_capacity(64);
        for segment in &self.segments {
            out.push('/');
            match segment {
                Segment::Literal(text) => out.push_str(text),
                Segment::One(name) => {
                    let value = values.get(name)?;
                    if !can_be_segment(value) || value.contains('/') {
                        return None;
                    }
                    encode_path(value, &mut out);
                }
                Segment::Rest(name) => {
                    let value = values.get(name)?;
                    let (inner, last) = value
                        .rsplit_once('/')
                        .map_or((None, value), |(inner, last)| (Some(inner), last));
                    let inner_fits = inner.is_none_or(|inner| inner.split('/').all(can_be_segment));
                    if !inner_fits || !(last.is_empty() || can_be_segment(last)) {
                        return None;
                    }
                    encode_path(value, &mut out);
                }
            }
        }
        Some(out)
    }

    /// The path as the policy would write it.
    pub fn text(&self) -> String {
        self.segments
            .iter()
            .map(|segment| match segment {
                Segment::Literal(text) => format!("/{text}"),
                Segment::One(name) => format!("/{{{name}}}"),
                Segment::Rest(name) => format!("/{{{name}...}}"),
            })
            .collect()
    }
}

/// No normal form holds an empty or a dot segment, nor anything hostile but `;`,
/// which is encoded.
fn can_be_segment(value: &str) -> bool {
    !matches!(value, "" | "." | "..") && !value.contains(['\\', '\0'])
}

fn encode_path(value: &str, out: &mut String) {
    for byte in value.bytes() {
        push(
            byte,
            byte == b'/' || (is_path_character(byte) && byte != b';'),
            out,
        );
    }
}

fn segment(part: &str, is_last: bool) -> Result<Segment, Complaint> {
    if let Some(name) = part
        .strip_prefix('{')
        .and_then(|part| part.strip_suffix('}'))
    {
        let (name, is_rest) = name
            .strip_suffix("...")
            .map_or((name, false), |name| (name, true));
        if !is_placeholder(name) {
            return complain(
                format!("{} is no placeholder", quote(part)),
                "name it with 1 to 64 of a-z, A-Z, 0-9, - and _",
            );
        }
        if matches!(name, "hash" | "user") {
            return complain(
                format!("`{{{name}}}` means something else in keys and tags"),
                "give the placeholder another name",
            );
        }
        if !is_rest {
            return Ok(Segment::One(name.to_owned()));
        }
        if !is_last {
            return complain(
                format!("`{part}` takes all the rest but is not last"),
                "put it at the end",
            );
        }
        return Ok(Segment::Rest(name.to_owned()));
    }
    if part.contains(['{', '}']) {
        return complain(
            format!("{} is only in part a placeholder", quote(part)),
            "a placeholder is a whole segment: /{name}/",
        );
    }
    if part.is_empty() && is_last {
        return Ok(Segment::Literal(String::new()));
    }
    let target = normalise(&format!("/{part}"));
    match target.path.strip_prefix('/') {
        Some(literal) if !target.hostile && !literal.is_empty() => {
            Ok(Segment::Literal(literal.to_owned()))
        }
        _ => complain(
            format!("the segment {} never matches", quote(part)),
            "write the path without empty and dot segments, `\\`, `;`, `%2F`, `%5C`, `%00` and invalid codes",
        ),
    }
}

fn is_placeholder(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// What the placeholders of a template may be.
#[derive(Debug, Clone, Default)]
pub struct Scope<'a> {
    /// Of path and query; `None` when they are not known because they have faults.
    pub values: Option<Vec<&'a str>>,
    pub hash: bool,
    pub user: bool,
    /// `{body:…}` and `{response:…}`.
    pub json: bool,
    /// Why the others are not possible here.
    pub why: &'static str,
}

impl Template {
    /// Reads `books:{id}:{response:/category}`.
    pub fn parse(text: &str, scope: &Scope<'_>) -> Result<Self, Complaint> {
        if text.is_empty() || text.len() > MAX_TEMPLATE_BYTES {
            return complain(
                format!("{} has {} bytes", quote(text), text.len()),
                format!("1 to {MAX_TEMPLATE_BYTES} are possible"),
            );
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return complain(
                format!(
                    "{} has a space or a character that is not ASCII",
                    quote(text)
                ),
                "write keys and tags in visible ASCII",
            );
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((plain, after)) = rest.split_once('{') {
            let Some((inside, after)) = after.split_once('}') else {
                return unbalanced(text);
            };
            if plain.contains('}') || inside.contains('{') {
                return unbalanced(text);
            }
            let first = pieces.is_empty();
            if !plain.is_empty() {
                pieces.push(Piece::Text(plain.to_owned()));
            }
            if !first && plain.bytes().all(occurs_in_component) {
                return complain(
                    format!("in {} a value could run into `{{{inside}}}`", quote(text)),
                    "put a separator between them that no value contains, such as `:`",
                );
            }
            pieces.push(placeholder(inside, scope)?);
            rest = after;
        }
        if rest.contains('}') {
            return unbalanced(text);
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self { pieces })
    }

    /// The template as the policy wrote it.
    pub fn text(&self) -> String {
        self.pieces
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.clone(),
                Piece::Value(name) => format!("{{{name}}}"),
                Piece::Hash => "{hash}".to_owned(),
                Piece::User => "{user}".to_owned(),
                Piece::Body(pointer) => format!("{{body:{pointer}}}"),
                Piece::Response(pointer) => format!("{{response:{pointer}}}"),
            })
            .collect()
    }

    pub fn uses(&self, name: &str) -> bool {
        self.pieces
            .iter()
            .any(|piece| matches!(piece, Piece::Value(value) if value == name))
    }
}

fn unbalanced<T>(text: &str) -> Result<T, Complaint> {
    complain(
        format!("the braces of {} do not match", quote(text)),
        "write placeholders as {name}",
    )
}

fn placeholder(inside: &str, scope: &Scope<'_>) -> Result<Piece, Complaint> {
    let (piece, possible) = match inside {
        "hash" => (Piece::Hash, scope.hash),
        "user" => (Piece::User, scope.user),
        _ => match inside.split_once(':') {
            Some(("body", pointer)) => (Piece::Body(json_pointer(pointer)?), scope.json),
            Some(("response", pointer)) => (Piece::Response(json_pointer(pointer)?), scope.json),
            _ => return value(inside, scope),
        },
    };
    if possible {
        return Ok(piece);
    }
    complain(format!("`{{{inside}}}` is not possible here"), scope.why)
}

fn value(name: &str, scope: &Scope<'_>) -> Result<Piece, Complaint> {
    if let Some(known) = &scope.values
        && !known.contains(&name)
    {
        let help = match nearest(name, known.iter().copied()) {
            Some(meant) => format!("did you mean {{{meant}}}?"),
            None if known.is_empty() => "this route has no placeholders".to_owned(),
            None => format!("this route has {}", list(known)),
        };
        return complain(
            format!(
                "{} is no placeholder of this route",
                quote(&format!("{{{name}}}"))
            ),
            help,
        );
    }
    Ok(Piece::Value(name.to_owned()))
}

/// RFC 6901 section 3.
pub fn json_pointer(pointer: &str) -> Result<String, Complaint> {
    let escapes_are_right = pointer
        .split('~')
        .skip(1)
        .all(|rest| rest.starts_with(['0', '1']));
    if pointer.starts_with('/') && escapes_are_right {
        return Ok(pointer.to_owned());
    }
    complain(
        format!("{} is no JSON pointer", quote(pointer)),
        "write it from the root, such as {body:/id} or {response:/book/category}",
    )
}
